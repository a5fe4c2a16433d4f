"""LangChain's chat message history on a session."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage

from langchain_langswarm.messages import FORMAT, from_langchain_messages, to_langchain_messages
from langswarm_session.doors import KeyedSessions, collector_paused, run, text_id
from langswarm_session.manager import SessionManager
from langswarm_session.users import LEFT_OUT, LeftOut


class SessionChatMessageHistory(BaseChatMessageHistory):
    """The messages of a session as LangChain's chat message history.

    The session is created at the first write. All message classes come back equal, with their ids;
    chunks are stored as whole messages. Messages added in one call are one turn, and a message
    whose id is stored already is not stored again.

    Args:
        session_id: The session.
        manager: Where it lives; the program's shared manager when None.
        user_id: Whose it is, the user ``default``'s where it is left out: another user's session
            does not exist here.

    Raises:
        InvalidInputError: If the user is None, or another value that cannot be a user's id.
    """

    def __init__(
        self,
        session_id: str,
        manager: SessionManager | None = None,
        *,
        user_id: str | LeftOut = LEFT_OUT,
    ) -> None:
        super().__init__()
        self.session_id: str = text_id(session_id)
        self._sessions = KeyedSessions(FORMAT, manager, user_id)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.session_id!r}, {self.manager!r})"

    @property
    def manager(self) -> SessionManager:
        """Where the session lives."""
        return self._sessions.manager

    @property
    def user_id(self) -> str:
        """Whose session it is."""
        return self._sessions.user_id

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # as LangChain's own do
        """All messages, oldest first. Blocks; see `aget_messages`."""
        return run(self.aget_messages())

    async def aget_messages(self) -> list[BaseMessage]:
        """All messages, oldest first; none where there is no such session.

        Raises:
            SessionStorageError: If they cannot be read.
        """
        messages = await self._sessions.messages(self.session_id)
        with collector_paused():
            return to_langchain_messages(messages)

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Store messages, durably. Blocks; see `aadd_messages`."""
        run(self.aadd_messages(messages))

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Store messages, durably, as one turn.

        Raises:
            InvalidInputError: If one cannot be stored; then none was.
            SessionNotFoundError: If the session is another user's.
            SessionError: Whatever else `BaseSession.record` raises.
        """
        await self._sessions.record(self.session_id, from_langchain_messages(messages))

    def clear(self) -> None:
        """Remove all messages for good. Blocks; see `aclear`."""
        run(self.aclear())

    async def aclear(self) -> None:
        """Remove all messages for good; the session stays."""
        await self._sessions.clear(self.session_id)
