"""A manager as one user sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from langswarm_session.models import MessageRole, SessionBackend, SessionStatus

if TYPE_CHECKING:
    from langswarm_session.manager import SessionManager
    from langswarm_session.session import BaseSession
    from langswarm_session.sessions.listing import MessageHits, SessionList


class UserSessions:
    """A manager as one user sees it: no other user's sessions exist in it.

    Made by `SessionManager.for_user`; the methods are the manager's without the user.
    """

    def __init__(self, manager: SessionManager, user_id: str) -> None:
        self.manager = manager
        self.user_id = user_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.user_id!r} in {self.manager!r}>"

    async def create_session(
        self,
        provider: str,
        model: str,
        backend: SessionBackend | str = SessionBackend.PROVIDER_NATIVE,
        session_id: str | None = None,
        **context: Any,
    ) -> BaseSession:
        """See `SessionManager.create_session`."""
        return await self.manager.create_session(
            self.user_id, provider, model, backend, session_id, **context
        )

    async def get_or_create_session(self, session_id: str, **context: Any) -> BaseSession:
        """See `SessionManager.get_or_create_session`."""
        return await self.manager.get_or_create_session(session_id, self.user_id, **context)

    async def get_session(self, session_id: str) -> BaseSession:
        """See `SessionManager.get_session`."""
        return await self.manager.get_session(session_id, user_id=self.user_id)

    async def list_sessions(
        self,
        limit: int = 100,
        *,
        status: SessionStatus | str | None = None,
        cursor: str | None = None,
    ) -> SessionList:
        """See `SessionManager.list_user_sessions`."""
        return await self.manager.list_user_sessions(
            self.user_id, limit, status=status, cursor=cursor
        )

    def iter_sessions(
        self, *, status: SessionStatus | str | None = None
    ) -> AsyncIterator[BaseSession]:
        """See `SessionManager.iter_sessions`."""
        return self.manager.iter_sessions(self.user_id, status=status)

    async def search_messages(
        self,
        text: str,
        *,
        session_id: str | None = None,
        role: MessageRole | str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> MessageHits:
        """See `SessionManager.search_messages`."""
        return await self.manager.search_messages(
            text,
            user_id=self.user_id,
            session_id=session_id,
            role=role,
            limit=limit,
            cursor=cursor,
        )

    async def archive_session(self, session_id: str) -> None:
        """See `SessionManager.archive_session`."""
        await self.manager.archive_session(session_id, user_id=self.user_id)

    async def delete_session(self, session_id: str) -> None:
        """See `SessionManager.delete_session`."""
        await self.manager.delete_session(session_id, user_id=self.user_id)
