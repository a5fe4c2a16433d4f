"""LlamaIndex's chat store on sessions, for its older memories: `BaseChatStore`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.storage.chat_store.base import BaseChatStore
from llama_index.core.storage.chat_store.loading import RECOGNIZED_CHAT_STORES

from langswarm_session.doors import run
from langswarm_session.manager import SessionManager
from langswarm_session.users import LEFT_OUT, LeftOut
from llama_index_langswarm.base import SessionStore
from llama_index_langswarm.edits import Edit, replaced
from llama_index_langswarm.view import View


class SessionChatStore(SessionStore, BaseChatStore):
    """The messages of sessions as LlamaIndex's chat store; a key is a session's id.

    For `ChatMemoryBuffer`, `ChatSummaryMemoryBuffer` and whatever else takes a `BaseChatStore`. The
    session is created at the first write; each method is one transaction. All messages come back
    equal; an index is a position, counted as a list's. Removed messages are gone from the record.

    The sync methods block; each does what the async one of the same purpose does.
    """

    def __init__(
        self,
        manager: SessionManager | None = None,
        *,
        user_id: str | LeftOut = LEFT_OUT,
        address: str | None = None,
        **others: Any,
    ) -> None:
        # Declared here as well: type checkers would make one of the fields in its place.
        super().__init__(manager, user_id=user_id, address=address, **others)

    @classmethod
    def class_name(cls) -> str:
        """Return the name it is written down with."""
        return "SessionChatStore"

    async def aset_messages(self, key: str, messages: Sequence[ChatMessage]) -> None:
        """Let a key's messages be these."""
        await self._replace(key, messages)

    async def aget_messages(self, key: str) -> list[ChatMessage]:
        """Return a key's messages, oldest first; none where there is no such session."""
        view = await self._view(key)
        return [] if view is None else await view.chats()

    async def async_add_message(
        self, key: str, message: ChatMessage, idx: int | None = None
    ) -> None:
        """Add a message.

        Args:
            key: The session.
            message: What to add.
            idx: The position it is to have; None: the last.
        """

        async def plan(view: View) -> Edit:
            entries = await view.entries()
            chats = [chat for entry in entries for chat in entry.chats]
            chats.insert(len(chats) if idx is None else idx, message)
            return replaced(entries, chats)

        if idx is None or await self._sessions.find(key) is None:
            await self._append(key, [message], archived=False)
        else:
            await self._edit(key, plan)

    async def adelete_messages(self, key: str) -> list[ChatMessage] | None:
        """Remove all messages of a key.

        Returns:
            The messages; None if there were none.
        """
        return await self._remove_all(key) or None

    async def adelete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Remove the message at a position.

        Returns:
            The message; None if there is none there.
        """
        return await self._remove(key, idx)

    async def adelete_last_message(self, key: str) -> ChatMessage | None:
        """Remove the last message.

        Returns:
            The message; None if there was none.
        """
        return await self.adelete_message(key, -1)

    async def aget_keys(self) -> list[str]:
        """Return the user's sessions that have messages."""
        return await self._keys()

    def set_messages(self, key: str, messages: Sequence[ChatMessage]) -> None:
        """See `aset_messages`."""
        run(self.aset_messages(key, messages))

    def get_messages(self, key: str) -> list[ChatMessage]:
        """See `aget_messages`."""
        return run(self.aget_messages(key))

    def add_message(self, key: str, message: ChatMessage, idx: int | None = None) -> None:
        """See `async_add_message`."""
        run(self.async_add_message(key, message, idx))

    def delete_messages(self, key: str) -> list[ChatMessage] | None:
        """See `adelete_messages`."""
        return run(self.adelete_messages(key))

    def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """See `adelete_message`."""
        return run(self.adelete_message(key, idx))

    def delete_last_message(self, key: str) -> ChatMessage | None:
        """See `adelete_last_message`."""
        return run(self.adelete_last_message(key))

    def get_keys(self) -> list[str]:
        """See `aget_keys`."""
        return run(self.aget_keys())


# So that a memory that was written down with its store can be read again.
_stores: dict[str, Any] = RECOGNIZED_CHAT_STORES
_stores.setdefault(SessionChatStore.class_name(), SessionChatStore)
