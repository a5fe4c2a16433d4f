"""The Agents SDK's session on a session of ours."""

from __future__ import annotations

from typing import Any

from agents.items import TResponseInputItem
from agents.memory import SessionSettings
from agents.memory.session_settings import coerce_session_settings, resolve_session_limit

from langswarm_session.checks import check_limit
from langswarm_session.errors import RevisionConflictError, SessionNotFoundError
from langswarm_session.manager import SessionManager
from langswarm_session.models import SessionMessage
from langswarm_session.presets import get_session_manager
from langswarm_session.session import BaseSession
from openai_agents_langswarm.items import (
    FORMAT,
    from_openai_agents,
    items_of,
    to_openai_agents,
    without_last_item,
)


class AgentSession:
    """The items of a session as the Agents SDK's session, for ``Runner.run(..., session=...)``.

    The session is created at the first write. Items come back exactly as they went in; what other
    doors and providers wrote is converted. Items added in one call are one turn.

    Args:
        session_id: The session.
        manager: Where it lives; the program's shared manager when None.
        user_id: Whose it is: another user's session is refused. None: whoever's it is; a new one
            is the user ``default``'s.
        session_settings: The SDK's settings: how many of the newest items are read unless a call
            says so.
    """

    session_settings: SessionSettings | None

    def __init__(
        self,
        session_id: str,
        manager: SessionManager | None = None,
        *,
        user_id: str | None = None,
        session_settings: SessionSettings | dict[str, Any] | None = None,
    ) -> None:
        self.session_id = session_id
        self.manager = get_session_manager() if manager is None else manager
        self.user_id = user_id
        self._session: BaseSession | None = None
        self.session_settings = (
            SessionSettings()
            if session_settings is None
            else coerce_session_settings(session_settings)
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.session_id!r}, {self.manager!r})"

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The newest items, or all, oldest first; none where there is no such session.

        Args:
            limit: How many of the newest; None for as many as the settings say, or all.

        Raises:
            InvalidInputError: If the limit is negative.
            SessionStorageError: If they cannot be read.
        """
        limit = check_limit(resolve_session_limit(limit, self.session_settings))
        session = await self._found()
        if session is None or limit == 0:
            return []
        return (await _newest(session, limit))[1]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Store items, durably, as one turn.

        Raises:
            InvalidInputError: If one cannot be stored; then none was.
            SessionNotFoundError: If the session is another user's.
            SessionError: Whatever else `BaseSession.record` raises.
        """
        messages = from_openai_agents(items)
        session = self._session if self.user_id is None else None
        if messages and session is not None:
            try:
                await session.record(messages)
            except SessionNotFoundError:  # deleted since: begin anew
                self._session = None
            else:
                return
        if messages:
            session = await self.manager.get_or_create_session(
                self.session_id, self.user_id, provider=FORMAT
            )
            await session.record(messages)
            self._session = session

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the newest item for good.

        Returns:
            The item; None if there is none.
        """
        while True:
            session = await self._found()
            if session is None:
                return None
            messages, items = await _newest(session, 1)
            if not items:
                return None
            try:
                await _shorten(session, messages)
            except RevisionConflictError:  # somebody else was quicker: look again
                continue
            return items[-1]

    async def clear_session(self) -> None:
        """Remove all items for good; the session stays."""
        session = await self._found()
        if session is not None:
            await session.clear_messages()

    async def _found(self) -> BaseSession | None:
        try:
            return await self.manager.get_session(self.session_id, user_id=self.user_id)
        except SessionNotFoundError:
            return None


async def _newest(
    session: BaseSession, limit: int | None
) -> tuple[list[SessionMessage], list[TResponseInputItem]]:
    """The newest items, and the messages that they are in."""
    count = limit
    while True:
        messages = await session.get_messages(count)
        items: list[Any] = to_openai_agents(messages)
        if limit is None or count is None:
            return messages, items
        # A message may have nothing that an item can carry, and then one more is needed.
        if len(items) >= limit or len(messages) < count:
            return messages, items[max(0, len(items) - limit) :]
        count *= 2


async def _shorten(session: BaseSession, messages: list[SessionMessage]) -> None:
    """Take the last item out of the log."""
    last = next(message for message in reversed(messages) if items_of(message))
    left = without_last_item(last)
    if left is None:
        await session.edit_messages(expected_revision=session.revision, remove=[last.seq or 0])
    else:
        await session.edit_messages(expected_revision=session.revision, change=[left])
