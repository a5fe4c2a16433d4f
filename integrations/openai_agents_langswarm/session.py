"""The Agents SDK's session, backed by a conversation record."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from agents.items import TResponseInputItem
from agents.memory import SessionSettings
from agents.memory.session_settings import coerce_session_settings, resolve_session_limit

from langswarm_session.doors import KeyedSessions, check_limit, text_id
from langswarm_session.errors import InvalidInputError, in_session
from langswarm_session.manager import SessionManager
from langswarm_session.session import BaseSession
from langswarm_session.users import LEFT_OUT, LeftOut, one_user, user_in
from openai_agents_langswarm.compaction import (
    IsExpired,
    SeenItems,
    replace_seen,
    replacement,
    snapshot,
)
from openai_agents_langswarm.items import FORMAT, from_openai_agents, without_last_item
from openai_agents_langswarm.tail import Tail

if TYPE_CHECKING:
    from agents.memory.session import _CompactionSnapshot
    from agents.run_context import RunContextWrapper


class AgentSession:
    """The items of a session as the Agents SDK's session, for ``Runner.run(..., session=...)``.

    The session is created at the first write. Items come back exactly as they went in; what other
    doors and providers wrote is converted. Items added in one call are one turn.

    Args:
        session_id: The session.
        manager: Where it lives; the program's shared manager when None.
        user_id: Whose it is, the user ``default``'s where it is left out: another user's session
            does not exist here.
        session_settings: The SDK's settings: how many of the newest items are read unless a call
            says so.

    In a run the user may come from the run's context instead: its ``user_id``, as a key or an
    attribute. Where both are given they must be the same. A session that the SDK's
    `OpenAIResponsesCompactionSession` wraps is not told the context, and needs its ``user_id``.

    What a compaction replaces stays in the record (`BaseSession.get_messages`), and leaves the
    items and OpenAI's windows. Providers and doors that cannot read the compaction have what it
    replaces.
    """

    session_settings: SessionSettings | None

    def __init__(
        self,
        session_id: str,
        manager: SessionManager | None = None,
        *,
        user_id: str | LeftOut = LEFT_OUT,
        session_settings: SessionSettings | dict[str, Any] | None = None,
    ) -> None:
        self.session_id: str = text_id(session_id)
        self._sessions = KeyedSessions(FORMAT, manager, user_id)
        self._of_run: KeyedSessions | None = None
        self._seen = SeenItems()
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
    def user_id(self) -> str:
        """Whose session it is, but for runs whose context names the user."""
        return self._sessions.user_id

    async def get_items(
        self, limit: int | None = None, *, wrapper: RunContextWrapper[Any] | None = None
    ) -> list[TResponseInputItem]:
        """Return the newest items, or all, oldest first; none where there is no such session.

        A limit that is the settings' makes a window for a model, which never begins between a call
        and its result, and may have fewer items. Any other is the exact number, as the SDK compares
        the items with what it wrote when it takes a turn back or finishes an interrupted write
        (``agents/run_internal/session_persistence.py``).

        Args:
            limit: How many of the newest; None for as many as the settings say, or all.
            wrapper: The context of the run that asks.

        Raises:
            InvalidInputError: If the limit is negative, or the context's user is not the session's.
            SessionStorageError: If they cannot be read.
        """
        sessions = self._sessions_of(wrapper)
        limit = check_limit(resolve_session_limit(limit, self.session_settings))
        if limit == 0:
            return []
        get_messages = partial(sessions.messages, self.session_id, current=True)
        settings = self.session_settings
        is_window = settings is not None and limit is not None and limit == settings.limit
        # One more tells whether there is more.
        tail = await Tail.read(get_messages, limit + 1 if is_window and limit else limit)
        if limit is None or is_window:
            self._seen.read(tail.messages)
        items: list[Any] = tail.window(limit) if is_window and limit else tail.newest(limit)
        return items

    async def add_items(
        self,
        items: list[TResponseInputItem],
        *,
        wrapper: RunContextWrapper[Any] | None = None,
    ) -> None:
        """Store items, durably, as one turn.

        Args:
            items: What to store.
            wrapper: The context of the run that asks.

        Raises:
            InvalidInputError: If one cannot be stored, or the context's user is not the session's;
                then none was.
            SessionNotFoundError: If the session is another user's.
            SessionError: Whatever else `BaseSession.record` raises.
        """
        sessions = self._sessions_of(wrapper)
        self._seen.wrote(await sessions.record(self.session_id, from_openai_agents(items)))

    async def pop_item(
        self, *, wrapper: RunContextWrapper[Any] | None = None
    ) -> TResponseInputItem | None:
        """Remove the newest item for good.

        Args:
            wrapper: The context of the run that asks.

        Returns:
            The item; None if there is none.
        """
        return await self._sessions_of(wrapper).edit(self.session_id, _pop)

    async def clear_session(self, *, wrapper: RunContextWrapper[Any] | None = None) -> None:
        """Remove all items for good, what compactions replaced too; the session stays.

        Args:
            wrapper: The context of the run that asks.
        """
        await self._sessions_of(wrapper).clear(self.session_id)

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: IsExpired | None = None
    ) -> _CompactionSnapshot | None:
        """Return the newest items, to be replaced by a compaction unless somebody writes meanwhile.

        The SDK asks for it by this name. As with its own stores, a subclass that may change what is
        read or written has to provide its own.
        """
        if type(self) is not AgentSession:
            return None
        return await snapshot(self._sessions, self.session_id, limit, prune_prefix)

    async def _atomic_replace_items(self, items: list[TResponseInputItem]) -> bool:
        """Replace the items with these, in one write.

        The SDK asks for it by this name, for a compaction of all items; without it, the SDK clears
        a session and then adds to it. Only what was read or written here is replaced: what others
        wrote since is not part of the compaction.

        Returns:
            Whether there is a session whose items could be replaced.
        """
        replace = partial(replace_seen, replacement(items), self._seen)
        return await self._sessions.edit(self.session_id, replace) is not None

    def _sessions_of(self, wrapper: RunContextWrapper[Any] | None) -> KeyedSessions:
        """Return the sessions of the user that a run is for."""
        context = LEFT_OUT if wrapper is None else user_in(wrapper.context)
        try:
            user = one_user(context=context, AgentSession=self._sessions.named)
        except InvalidInputError as error:
            raise in_session(error, self.session_id) from None
        if user == self.user_id:
            return self._sessions
        if self._of_run is None or self._of_run.user_id != user:
            self._of_run = KeyedSessions(FORMAT, self.manager, user)
        return self._of_run


async def _pop(session: BaseSession) -> Any:
    """Take the last item out of the log."""
    tail = await Tail.read(session.get_current_messages, 1)
    if not tail.items:
        return None
    last = next(
        message for message, part in zip(tail.messages[::-1], tail.parts[::-1], strict=True) if part
    )
    left = without_last_item(last)
    if left is None:
        await session.edit_messages(expected_revision=session.revision, remove=[last.seq or 0])
    else:
        await session.edit_messages(expected_revision=session.revision, change=[left])
    return tail.items[-1]
