"""What both chat stores share: a key's messages, read, added and edited in the session's log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

from llama_index.core.base.llms.types import ChatMessage
from pydantic import BaseModel, PrivateAttr

from langswarm_session.bulk import collector_paused
from langswarm_session.keyed import KeyedSessions
from langswarm_session.manager import SessionManager
from langswarm_session.models import SessionMessage
from langswarm_session.presets import get_session_manager
from langswarm_session.session import BaseSession
from llama_index_langswarm.addresses import address_of, manager_at, note_opened
from llama_index_langswarm.edits import STATUS, Edit, Entry, flagged, replaced
from llama_index_langswarm.messages import (
    FORMAT,
    from_llama_index_messages,
    to_llama_index_messages,
)

ARCHIVED_UP_TO = "llama_index_archived"
"""The key of a session's context with the number of the newest message archived in a row."""


class SessionStore(BaseModel):
    """A chat store whose keys are the ids of sessions.

    Attributes:
        address: Where the sessions are, without secrets and signed; all that is written down of a
            store, with the user.
        user_id: Whose sessions they are.
    """

    address: str
    user_id: str | None = None
    _sessions: KeyedSessions = PrivateAttr()

    def __init__(
        self,
        manager: SessionManager | None = None,
        *,
        user_id: str | None = None,
        address: str | None = None,
        **_: Any,
    ) -> None:
        """A store.

        Args:
            manager: Where the sessions live; the program's shared manager when None.
            user_id: Whose they are: no other user's session is read or written. None: whoever's; a
                new one is the user ``default``'s.
            address: In place of the manager, for a store that was written down.

        Raises:
            InvalidInputError: If this process has no manager at the address, or nothing shows that
                the store was this user's.
        """
        if manager is None and address is not None:
            manager = manager_at(address, user_id)
        else:
            manager = get_session_manager() if manager is None else manager
            note_opened(manager, user_id)
        super().__init__(address=address_of(manager, user_id), user_id=user_id)
        self._sessions = KeyedSessions(FORMAT, manager, user_id)

    @property
    def manager(self) -> SessionManager:
        """Where the sessions live."""
        return self._sessions.manager

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return type(self)(self.manager, user_id=self.user_id)

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (type(self), self.address, self.user_id)

    async def _keys(self) -> list[str]:
        """Return the sessions that have messages, in the order of their creation."""
        found: list[BaseSession] = []
        cursor: str | None = None
        while True:
            if self.user_id is None:
                page = await self.manager.list_sessions(cursor=cursor)
            else:
                page = await self.manager.list_user_sessions(self.user_id, cursor=cursor)
            found += [session for session in page if session.metrics.message_count]
            cursor = page.next_cursor
            if cursor is None:
                break
        # Pages come newest first; a session that was written to meanwhile may be in two of them.
        by_creation = sorted(found, key=lambda session: session.metrics.created_at)
        return list(dict.fromkeys(session.session_id for session in by_creation))

    async def _append(self, key: str, chats: Sequence[ChatMessage], *, archived: bool) -> None:
        """Store messages, durably, as one turn; the first write creates the session."""
        messages = from_llama_index_messages(chats)
        if archived:
            messages = [flagged(message) for message in messages]
        await self._sessions.record(key, messages)

    async def _chats(self, key: str, *, archived: bool | None = None) -> list[ChatMessage]:
        """A key's messages, oldest first: all, only the archived ones or only the others."""
        session = await self._sessions.find(key)
        if session is None:
            return []
        up_to, messages = await _log(session, archived)
        with collector_paused():
            return to_llama_index_messages(
                each
                for each in messages
                if archived is None or _is_archived(each, up_to) is archived
            )

    async def _edit(
        self, key: str, plan: Callable[[list[Entry]], Edit], *, archived: bool | None = None
    ) -> Any:
        """Edit a log in one transaction, by what it was immediately before.

        Args:
            key: The session.
            plan: What to do, given the messages; called again if somebody else wrote meanwhile.
            archived: Which messages, as for `_chats`.

        Returns:
            What the plan tells the caller; None where there is no such session.
        """
        return await self._sessions.edit(key, partial(_edited, plan, archived))

    async def _replace(
        self, key: str, chats: Sequence[ChatMessage], *, archived: bool | None = None
    ) -> None:
        """Let a key's messages be these; what stays the same at the beginning is not touched."""
        if chats and await self._sessions.find(key) is None:
            from_llama_index_messages(chats)  # what cannot be stored creates no session
            await self._sessions.create(key)
        archive = bool(archived)
        await self._edit(
            key, lambda entries: replaced(entries, chats, archive=archive), archived=archived
        )


async def _entries(session: BaseSession, archived: bool | None) -> list[Entry]:
    """A session's messages with what LlamaIndex sees of them, oldest first."""
    up_to, messages = await _log(session, archived)
    with collector_paused():
        entries = [
            Entry(each, to_llama_index_messages([each]), _is_archived(each, up_to))
            for each in messages
        ]
    return [each for each in entries if archived is None or each.archived is archived]


async def _log(session: BaseSession, archived: bool | None) -> tuple[int, Sequence[SessionMessage]]:
    """The number of the newest message archived in a row, and the messages to look at."""
    before = session.context.model_extra or {}
    up_to: int = before.get(ARCHIVED_UP_TO) or 0
    if archived is False and up_to:
        return up_to, [message async for message in session.iter_messages(after=up_to)]
    return up_to, await session.get_messages()


def _is_archived(message: SessionMessage, up_to: int) -> bool:
    return (message.seq or 0) <= up_to or STATUS in message.metadata


async def _edited(
    plan: Callable[[list[Entry]], Edit], archived: bool | None, session: BaseSession
) -> Any:
    """Carry out what is planned for a log as it is, and return what the caller is to be told."""
    edit = plan(await _entries(session, archived))
    revision = session.revision
    if edit.archive is not None:
        changes = {ARCHIVED_UP_TO: edit.archive}
        await session.update_context(expected_revision=revision, **changes)
    elif edit.remove or edit.change or edit.add:
        await session.edit_messages(
            expected_revision=revision, remove=edit.remove, change=edit.change, add=edit.add
        )
    return edit.told


def _load(kind: type[SessionStore], address: str, user_id: str | None) -> SessionStore:
    return kind(address=address, user_id=user_id)
