"""The window of a session as its last turn left it, so that the next need not read it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langswarm_session import window
from langswarm_session.models import SessionMessage, TurnStatus
from langswarm_session.requests.prefix import PrefixChangeReason

if TYPE_CHECKING:
    from langswarm_session.interfaces import ISessionStorage
    from langswarm_session.models import SessionContext
    from langswarm_session.records import SessionRef
    from langswarm_session.turns import OpenTurn

_NONE = -1


class KeptWindow:
    """What was sent before a turn, and what that turn added.

    While a turn holds the lease nobody else changes the log, so the revision it began at tells
    whether the window is the one kept from the turn before.

    Args:
        storage: Where the session lives.
        ref: The session.
    """

    def __init__(self, storage: ISessionStorage, ref: SessionRef) -> None:
        self._messages: list[SessionMessage] = []
        self._storage = storage
        self._ref = ref
        self._revision = _NONE
        self._start = 0

    async def before(self, turn: OpenTurn, context: SessionContext) -> list[SessionMessage]:
        """Return the window before a turn; it is read if what was kept is not it.

        Where requests have to begin elsewhere, the turn is told.

        Raises:
            SessionStorageError: If it cannot be read.
        """
        state = turn.request_state(context)
        summary = context.summary
        start = state.start_for(context)
        if state.start and not start:
            turn.begin_requests_at(0, PrefixChangeReason.LIMITS)
        if summary is not None and summary.last_seq >= start:
            start = summary.last_seq + 1
            turn.begin_requests_at(start, PrefixChangeReason.SUMMARY)
        if turn.asked_seq is not None:
            messages = await self._read(turn, context, start, turn.asked_seq)
            return window.with_summary(self._cut(turn, context, messages).messages, summary)
        if (self._revision, self._start) != (_before(turn), start):
            self._messages = await self._read(turn, context, start, turn.id)
            self._revision, self._start = _before(turn), start
        found = self._cut(turn, context, self._messages)
        if found.start is not None:
            self._start = found.start
            turn.begin_requests_at(found.start, PrefixChangeReason.WINDOW)
        self._messages = found.messages
        return window.with_summary(self._messages, summary)

    async def _read(
        self, turn: OpenTurn, context: SessionContext, start: int, before: int
    ) -> list[SessionMessage]:
        return await window.load(
            self._storage,
            self._ref,
            before=before,
            max_messages=max(0, context.max_messages - len(turn.messages)),
            start=start,
            needed=window.calls_needed(turn.messages),
        )

    def _cut(
        self, turn: OpenTurn, context: SessionContext, messages: list[SessionMessage]
    ) -> window.Window:
        needed = window.calls_needed(turn.messages)
        return window.cut(messages, context.max_messages, len(turn.messages), needed)

    def ended(self, turn: OpenTurn, status: TurnStatus, revision: int) -> None:
        """Keep the window with what a turn added, for the next one.

        Args:
            turn: The turn.
            status: How it ended.
            revision: The session's, after it.
        """
        is_known = self._revision == _before(turn) and not turn.resumed and turn.asked_seq is None
        if is_known and status is TurnStatus.COMPLETE:
            self._messages = [*self._messages, *turn.messages]
            self._revision = revision
        else:
            self._revision = _NONE


def _before(turn: OpenTurn) -> int:
    """The revision before a turn."""
    return turn._first_revision - 1
