"""The turns in which a caller runs."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from langswarm_session.interfaces import ISessionStorage
    from langswarm_session.models import SessionMessage
    from langswarm_session.records import SessionRef
    from langswarm_session.turns.endings import Stop


class Reader:
    """The reader of a turn's stream.

    Once nobody holds the stream any more, the event loop is about to cancel the turn, and the next
    turn in the same context is not inside it.
    """

    def __init__(self) -> None:
        self._stream: weakref.ref[object] | None = None

    def reads(self, stream: object) -> None:
        """Set the stream that is read."""
        self._stream = weakref.ref(stream)

    @property
    def is_gone(self) -> bool:
        """Whether nobody holds the stream any more."""
        return self._stream is not None and self._stream() is None


class RunningTurn(Protocol):
    """A turn as those see it who keep its lease, watch it or end it from outside.

    Attributes:
        ref: The session.
        token: The lease's token.
        reader: The reader of its stream; None where the reply comes as a whole.
    """

    ref: SessionRef
    token: str
    reader: Reader | None

    @property
    def storage(self) -> ISessionStorage:
        """Where the session lives."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that it began on; None if sync code began it."""

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""

    @property
    def is_ours(self) -> bool:
        """Whether this process is to end it."""

    @property
    def is_stopped(self) -> bool:
        """Whether it was ended from outside, or is about to be."""

    async def add(self, messages: Sequence[SessionMessage]) -> list[SessionMessage]:
        """Store more of the turn."""

    async def stop(self, stop: Stop) -> None:
        """End it from outside."""

    async def closed(self, seconds: float | None = None) -> bool:
        """Wait until it has ended; return whether it has."""


_open_turns: ContextVar[tuple[RunningTurn, ...]] = ContextVar("langswarm_open_turns", default=())


def open_turns() -> tuple[RunningTurn, ...]:
    """Return the turns in which the caller runs, the innermost last; some may have ended."""
    return _open_turns.get()


def enter(turn: RunningTurn) -> None:
    """Put the caller's context inside a turn; drop those whose end another context saw."""
    _open_turns.set((*(other for other in open_turns() if other.is_open), turn))


def leave(turn: RunningTurn) -> None:
    """Take the caller's context out of a turn."""
    _open_turns.set(tuple(other for other in open_turns() if other is not turn))


def open_turn(ref: SessionRef, storage: ISessionStorage) -> RunningTurn | None:
    """Return the turn of a session in which the caller runs, if it does."""
    for turn in open_turns():
        abandoned = turn.reader is not None and turn.reader.is_gone
        if turn.is_open and not abandoned and turn.ref == ref and turn.storage is storage:
            return turn
    return None
