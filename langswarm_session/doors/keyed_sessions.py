"""Sessions as a framework's door has them: by an id, created at the first write."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from langswarm_session.errors import RevisionConflictError, SessionNotFoundError
from langswarm_session.manager import SessionManager
from langswarm_session.models import SessionMessage
from langswarm_session.presets import get_session_manager
from langswarm_session.requests.window import is_compaction
from langswarm_session.session import BaseSession
from langswarm_session.storage.replacements import is_read_by
from langswarm_session.users import LEFT_OUT, LeftOut, one_user

T = TypeVar("T")


class KeyedSessions:
    """The sessions that a door reads and writes.

    Args:
        provider: The door's name, which a new session has for its provider.
        manager: Where they live; the program's shared manager when None.
        user_id: Whose they are, the user ``default``'s where it is left out: another user's
            sessions do not exist here.

    Attributes:
        manager: Where they live.
        user_id: Whose they are.
        named: The user as it was given, `LEFT_OUT` where none was.

    Raises:
        InvalidInputError: If the user is None, or another value that cannot be a user's id.
    """

    def __init__(
        self,
        provider: str,
        manager: SessionManager | None = None,
        user_id: str | LeftOut = LEFT_OUT,
    ) -> None:
        self.user_id = one_user(user_id=user_id)
        self.named = user_id
        self.manager = get_session_manager() if manager is None else manager
        self._provider = provider
        self._latest: BaseSession | None = None

    async def find(self, session_id: str) -> BaseSession | None:
        """Return the session as it is now; None if there is none.

        Raises:
            SessionStorageError: If it cannot be read.
        """
        try:
            return await self.manager.get_session(session_id, user_id=self.user_id)
        except SessionNotFoundError:
            return None

    async def messages(
        self, session_id: str, limit: int | None = None, *, current: bool = False
    ) -> list[SessionMessage]:
        """Return the newest messages of a session, or all, oldest first; none without a session.

        Args:
            session_id: The session.
            limit: How many of the newest; None for all.
            current: Whether to leave out what a compaction replaced; else the compactions are left
                out, and what only repeats in them what they replaced.

        Raises:
            InvalidInputError: If the limit is negative.
            SessionStorageError: If they cannot be read.
        """
        known = self._known(session_id)
        try:
            session = known or await self.find(session_id)
            if session is None:
                return []
            read = session.get_current_messages if current else session.get_messages
            messages: list[SessionMessage] = await read(limit)
            if not current:
                messages = [message for message in messages if not _is_compacted(message)]
        except SessionNotFoundError:  # deleted since; there may be another by now
            self._latest = None
            if known is None:
                return []
            return await self.messages(session_id, limit, current=current)
        self._latest = session
        return messages

    async def record(
        self, session_id: str, messages: Sequence[SessionMessage]
    ) -> list[SessionMessage]:
        """Store messages as one turn; the first of a session creates it.

        Returns:
            The messages as stored, with their places in the log.

        Raises:
            SessionNotFoundError: If the session is another user's.
            SessionError: Whatever else `BaseSession.record` raises.
        """
        if not messages:
            return []
        session = self._known(session_id)
        if session is not None:
            try:
                return await session.record(messages)
            except SessionNotFoundError:  # deleted since, or another user's by now: begin again
                self._latest = None
        session = await self.create(session_id)
        stored = await session.record(messages)
        self._latest = session
        return stored

    async def create(self, session_id: str) -> BaseSession:
        """Return the session, created if there is none.

        Raises:
            SessionNotFoundError: If it is another user's.
        """
        return await self.manager.get_or_create_session(
            session_id, self.user_id, provider=self._provider
        )

    async def edit(self, session_id: str, plan: Callable[[BaseSession], Awaitable[T]]) -> T | None:
        """Change a session by what it is immediately before.

        Args:
            session_id: The session.
            plan: Reads it and writes to it, expecting the revision that the session it is given
                has; called again with a new one if somebody else wrote meanwhile.

        Returns:
            What the plan returns; None where there is no such session.
        """
        while True:
            session = await self.find(session_id)
            if session is None:
                return None
            try:
                return await plan(session)
            except RevisionConflictError:
                continue

    async def clear(self, session_id: str) -> None:
        """Remove all messages of a session for good; the session stays."""
        session = await self.find(session_id)
        if session is not None:
            await session.clear_messages()

    def _known(self, session_id: str) -> BaseSession | None:
        """Return the session found before. It may be gone by now, which a write to it finds out."""
        latest = self._latest
        return latest if latest is not None and latest.session_id == session_id else None


def _is_compacted(message: SessionMessage) -> bool:
    return is_compaction(message) or not is_read_by(None, message)
