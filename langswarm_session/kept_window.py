"""The window of a session as its last turn left it, so that the next need not read it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langswarm_session import window
from langswarm_session.models import SessionMessage, TurnStatus

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

    Attributes:
        messages: The window, oldest first.
    """

    def __init__(self, storage: ISessionStorage, ref: SessionRef) -> None:
        self.messages: list[SessionMessage] = []
        self._storage = storage
        self._ref = ref
        self._revision = _NONE
        self._limit = 0

    async def before(self, turn: OpenTurn, context: SessionContext) -> list[SessionMessage]:
        """The window before a turn; read if what was kept is not it.

        Raises:
            SessionStorageError: If it cannot be read.
        """
        room = max(0, context.max_messages - len(turn.messages))
        needed = window.calls_needed(turn.messages)
        if turn.asked_seq is not None:
            return await window.load(
                self._storage,
                self._ref,
                before=turn.asked_seq,
                max_messages=room,
                needed=needed,
                summary=context.summary,
            )
        if self._revision == _before(turn) and context.max_messages <= self._limit:
            self.messages = window.cut(self.messages, room, needed)
        else:
            self.messages = await window.load(
                self._storage,
                self._ref,
                before=turn.id,
                max_messages=room,
                needed=needed,
                summary=context.summary,
            )
            self._revision = _before(turn)
            self._limit = context.max_messages
        return self.messages

    def ended(self, turn: OpenTurn, status: TurnStatus, revision: int) -> None:
        """Keep the window with what a turn added, for the next one.

        Args:
            turn: The turn.
            status: How it ended.
            revision: The session's, after it.
        """
        is_known = self._revision == _before(turn) and not turn.resumed and turn.asked_seq is None
        if is_known and status is TurnStatus.COMPLETE:
            self.messages = [*self.messages, *turn.messages]
            self._revision = revision
        else:
            self._revision = _NONE


def _before(turn: OpenTurn) -> int:
    """The revision before a turn."""
    return turn._first_revision - 1
