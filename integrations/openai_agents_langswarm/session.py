"""The Agents SDK's session on a session of ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from agents.items import TResponseInputItem
from agents.memory import SessionSettings
from agents.memory.session_settings import coerce_session_settings, resolve_session_limit

from langswarm_session.checks import check_limit
from langswarm_session.keyed import KeyedSessions
from langswarm_session.manager import SessionManager
from langswarm_session.models import SessionMessage
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
        self._sessions = KeyedSessions(FORMAT, manager, user_id)
        self.session_settings = (
            SessionSettings()
            if session_settings is None
            else coerce_session_settings(session_settings)
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.session_id!r}, {self.manager!r})"

    @property
    def manager(self) -> SessionManager:
        """Where the session lives."""
        return self._sessions.manager

    @property
    def user_id(self) -> str | None:
        """Whose it is, if it must be somebody's."""
        return self._sessions.user_id

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The newest items, or all, oldest first; none where there is no such session.

        Args:
            limit: How many of the newest; None for as many as the settings say, or all.

        Raises:
            InvalidInputError: If the limit is negative.
            SessionStorageError: If they cannot be read.
        """
        limit = check_limit(resolve_session_limit(limit, self.session_settings))
        if limit == 0:
            return []
        newest = partial(self._sessions.messages, self.session_id)
        return (await _newest(newest, limit))[1]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Store items, durably, as one turn.

        Raises:
            InvalidInputError: If one cannot be stored; then none was.
            SessionNotFoundError: If the session is another user's.
            SessionError: Whatever else `BaseSession.record` raises.
        """
        await self._sessions.record(self.session_id, from_openai_agents(items))

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the newest item for good.

        Returns:
            The item; None if there is none.
        """
        return await self._sessions.edit(self.session_id, _pop)

    async def clear_session(self) -> None:
        """Remove all items for good; the session stays."""
        await self._sessions.clear(self.session_id)

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        """Let the items be these, in one write.

        The SDK's `OpenAIResponsesCompactionSession` asks for it by this name; without it, it clears
        a session and then adds to it, and who dies in between has lost the conversation.

        Returns:
            Whether there is a session whose items could be replaced.
        """
        replace = partial(_replace, from_openai_agents(items))
        return await self._sessions.edit(self.session_id, replace) is not None


async def _newest(
    get_messages: Callable[[int | None], Awaitable[list[SessionMessage]]], limit: int | None
) -> tuple[list[SessionMessage], list[TResponseInputItem]]:
    """The newest items, and the messages that they are in."""
    count = limit
    while True:
        messages = await get_messages(count)
        items: list[Any] = to_openai_agents(messages)
        if limit is None or count is None:
            return messages, items
        # A message may have nothing that an item can carry, and then one more is needed.
        if len(items) >= limit or len(messages) < count:
            return messages, items[max(0, len(items) - limit) :]
        count *= 2


async def _replace(messages: list[SessionMessage], session: BaseSession) -> list[SessionMessage]:
    """Let a log be these messages."""
    remove = [message.seq or 0 for message in await session.get_messages()]
    return await session.edit_messages(
        expected_revision=session.revision, remove=remove, add=messages
    )


async def _pop(session: BaseSession) -> TResponseInputItem | None:
    """Take the last item out of the log."""
    messages, items = await _newest(session.get_messages, 1)
    if not items:
        return None
    last = next(message for message in reversed(messages) if items_of(message))
    left = without_last_item(last)
    if left is None:
        await session.edit_messages(expected_revision=session.revision, remove=[last.seq or 0])
    else:
        await session.edit_messages(expected_revision=session.revision, change=[left])
    return items[-1]
