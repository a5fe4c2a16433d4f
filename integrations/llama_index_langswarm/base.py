"""What both chat stores share: a key's messages, read, added and edited in the session's log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Self

from llama_index.core.base.llms.types import ChatMessage
from pydantic import BaseModel, PrivateAttr

from langswarm_session.doors import KeyedSessions
from langswarm_session.manager import SessionManager
from langswarm_session.presets import get_session_manager
from langswarm_session.session import BaseSession
from langswarm_session.users import DEFAULT_USER, LEFT_OUT, LeftOut, one_user
from llama_index_langswarm.addresses import address_of, manager_at, note_opened
from llama_index_langswarm.edits import Edit, flagged, replaced, without_all, without_one
from llama_index_langswarm.messages import FORMAT, from_llama_index_messages
from llama_index_langswarm.view import View, carry_out, note_archived_alone


class SessionStore(BaseModel):
    """A chat store whose keys are the ids of sessions.

    Attributes:
        address: Where the sessions are, without secrets and signed; all that is written down of a
            store, with the user.
        user_id: Whose sessions they are.
    """

    address: str
    user_id: str = DEFAULT_USER
    _sessions: KeyedSessions = PrivateAttr()

    def __init__(
        self,
        manager: SessionManager | None = None,
        *,
        user_id: str | LeftOut = LEFT_OUT,
        address: str | None = None,
        class_name: str = "",
    ) -> None:
        """Return a store.

        Args:
            manager: Where the sessions live; the program's shared manager when None.
            user_id: Whose they are, the user ``default``'s where it is left out: no other user's
                session is read or written.
            address: In place of the manager, for a store that was written down.
            class_name: What LlamaIndex writes down with a store.

        Raises:
            InvalidInputError: If this process has no manager at the address, or nothing shows that
                the store was this user's, or the user is None or cannot be one.
        """
        user = one_user(user_id=user_id)
        is_written_down = manager is None and address is not None
        if manager is None:
            manager = get_session_manager() if address is None else manager_at(address, user)
        super().__init__(address=address_of(manager, user), user_id=user)
        self._sessions = KeyedSessions(FORMAT, manager, user)
        if not is_written_down:
            note_opened(manager, user, self._sessions)

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
        if archived and messages:
            messages = [flagged(message) for message in messages]
            await self._sessions.create(key)
            await self._sessions.edit(key, partial(note_archived_alone, messages=messages))
        await self._sessions.record(key, messages)

    async def _view(self, key: str, archived: bool | None = None) -> View | None:
        """Return a key's messages: all, only the archived ones or only the others."""
        session = await self._sessions.find(key)
        return None if session is None else View(session, archived)

    async def _edit(
        self,
        key: str,
        plan: Callable[[View], Awaitable[Edit]],
        *,
        archived: bool | None = None,
    ) -> Any:
        """Edit a log in one transaction, by what it was immediately before.

        Args:
            key: The session.
            plan: What to do; called again if somebody else wrote meanwhile.
            archived: Which messages, as for `_view`.

        Returns:
            What the plan tells the caller; None where there is no such session.
        """

        async def edit(session: BaseSession) -> Any:
            return await carry_out(session, await plan(View(session, archived)))

        return await self._sessions.edit(key, edit)

    async def _remove(
        self, key: str, idx: int, *, archived: bool | None = None
    ) -> ChatMessage | None:
        """Remove the message at a position, counted as a list's; None if there is none there."""

        async def plan(view: View) -> Edit:
            entries, at = await view.at(idx)
            return without_one(entries, at)

        removed = await self._edit(key, plan, archived=archived)
        return next(iter(removed or ()), None)

    async def _remove_all(self, key: str, *, archived: bool | None = None) -> Any:
        """Remove all messages, and return them; None where there is no such session."""

        async def plan(view: View) -> Edit:
            return without_all(await view.entries())

        return await self._edit(key, plan, archived=archived)

    async def _replace(
        self, key: str, chats: Sequence[ChatMessage], *, archived: bool | None = None
    ) -> None:
        """Let a key's messages be these; what stays the same at the beginning is not touched."""

        async def plan(view: View) -> Edit:
            return replaced(await view.entries(), chats, archive=bool(archived))

        if chats and await self._sessions.find(key) is None:
            from_llama_index_messages(chats)  # what cannot be stored creates no session
            await self._sessions.create(key)
        await self._edit(key, plan, archived=archived)


def _load(kind: type[SessionStore], address: str, user_id: str) -> SessionStore:
    return kind(address=address, user_id=user_id)
