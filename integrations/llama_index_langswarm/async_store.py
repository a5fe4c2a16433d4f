"""LlamaIndex's chat store on sessions, for `Memory`: `AsyncDBChatStore`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus

from langswarm_session.doors import check_limit
from langswarm_session.manager import SessionManager
from langswarm_session.users import LEFT_OUT, LeftOut
from llama_index_langswarm.base import SessionStore
from llama_index_langswarm.edits import Edit, without
from llama_index_langswarm.view import View


class AsyncSessionChatStore(SessionStore, AsyncDBChatStore):
    """The messages of sessions as LlamaIndex's database of them; a key is a session's id.

    For `Memory`: its short-term queue is what is active, and what it flushes from there stays in
    the record, archived. The session is created at the first write; each method is one
    transaction. All messages come back equal. Removed messages are gone from the record.

    What takes a status does what it does to the messages of that status; None means all.
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
        return "AsyncSessionChatStore"

    async def get_messages(
        self,
        key: str,
        status: MessageStatus | None = MessageStatus.ACTIVE,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[ChatMessage]:
        """Return a key's messages, oldest first; none where there is no such session.

        Args:
            key: The session.
            status: Which of them.
            limit: How many at most, from the oldest.
            offset: How many of the oldest to leave out.
        """
        first = check_limit(offset) or 0
        count = check_limit(limit)
        view = await self._view(key, _archived(status))
        return [] if view is None else await view.chats(first, count)

    async def count_messages(
        self, key: str, status: MessageStatus | None = MessageStatus.ACTIVE
    ) -> int:
        """Return how many messages a key has."""
        view = await self._view(key, _archived(status))
        return 0 if view is None else await view.count()

    async def add_message(
        self, key: str, message: ChatMessage, status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Add a message, durably."""
        await self.add_messages(key, [message], status)

    async def add_messages(
        self,
        key: str,
        messages: Sequence[ChatMessage],
        status: MessageStatus = MessageStatus.ACTIVE,
    ) -> None:
        """Add messages, durably, as one turn."""
        await self._append(key, messages, archived=status == MessageStatus.ARCHIVED)

    async def set_messages(
        self,
        key: str,
        messages: Sequence[ChatMessage],
        status: MessageStatus = MessageStatus.ACTIVE,
    ) -> None:
        """Let a key's messages of this status be these; those of the other stay."""
        await self._replace(key, messages, archived=_archived(status))

    async def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Remove the active message at a position.

        Returns:
            The message; None if there is none there.
        """
        return await self._remove(key, idx, archived=False)

    async def delete_messages(self, key: str, status: MessageStatus | None = None) -> None:
        """Remove a key's messages."""
        await self._remove_all(key, archived=_archived(status))

    async def delete_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Remove the oldest active messages.

        Returns:
            The messages.
        """

        async def plan(view: View) -> Edit:
            return without(await view.oldest(n), 0, n)

        return await self._edit(key, plan, archived=False) or []

    async def archive_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Archive the oldest active messages: they stay in the record.

        The results of tools that follow go with them, so that what is active never begins with a
        result whose call is archived.

        Returns:
            The messages.
        """

        async def plan(view: View) -> Edit:
            told: list[ChatMessage] = []
            last = None
            for message, chats, _ in await view.oldest(n):
                if len(told) >= n:
                    break
                told += chats
                last = message.seq
            if last is not None:
                for message, chats, _ in await view.results_behind(last):
                    told += chats
                    last = message.seq
            # All before it is archived by then.
            return Edit(told, archive=last)

        return await self._edit(key, plan, archived=False) or []

    async def get_keys(self) -> list[str]:
        """Return the user's sessions that have messages."""
        return await self._keys()


def _archived(status: MessageStatus | None) -> bool | None:
    return None if status is None else MessageStatus(status) is MessageStatus.ARCHIVED
