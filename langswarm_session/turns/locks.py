"""How turns get a session to themselves, within a process and among several."""

from __future__ import annotations

import asyncio
import random
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from langswarm_session.errors import (
    InvalidInputError,
    ManagerClosedError,
    NestedTurnError,
    SessionBusyError,
    in_session,
)
from langswarm_session.records import SessionRef
from langswarm_session.turns.current import RunningTurn, open_turn
from langswarm_session.turns.late_ends import LateEnds
from langswarm_session.turns.leases import LeaseKeeper
from langswarm_session.turns.queue import TurnQueue
from langswarm_session.turns.stopping import finish_all, stop_all, stop_at_exit
from langswarm_session.turns.watch import TurnWatch

if TYPE_CHECKING:
    from langswarm_session.interfaces import ISessionStorage

T = TypeVar("T")

_spread = random.SystemRandom().uniform  # takes no numbers from the program's own `random`
_READER_CHECKS = 50
FIRST_DELAY, LAST_DELAY = 0.002, 0.1
"""How long to wait between two tries for a session that another process has, in seconds."""


class TurnLocks:
    """Who has which session of a manager.

    Args:
        storage: Where the sessions live.
        lease_seconds: How long a turn's lease holds without being renewed.
        turn_wait: How long a turn waits for the one before it, in seconds; None: for ever.
        stall_seconds: How long the event loop of an open turn may stand still; None: for ever.

    Attributes:
        queue: Who has or awaits which session in this process.
        message_queue: Who begins a turn about which message, where several answer the same.
        leads: The turn of a session that was begun last in this process.
        keeper: Renews the leases of open turns.
        late_ends: Ends turns that were left without an end.
        turn_wait: How long a turn waits by default.
        beginning: The tokens of turns that are about to begin.
        is_closed: Whether the manager was closed.
    """

    def __init__(
        self,
        storage: ISessionStorage,
        *,
        lease_seconds: float,
        turn_wait: float | None,
        stall_seconds: float | None,
    ) -> None:
        self._storage = storage
        self.queue = TurnQueue()
        self.message_queue = TurnQueue()
        self.leads: weakref.WeakValueDictionary[SessionRef, RunningTurn]
        self.leads = weakref.WeakValueDictionary()
        self.keeper = LeaseKeeper(storage, lease_seconds, TurnWatch(storage, stall_seconds))
        self.late_ends = LateEnds(storage)
        self.turn_wait = turn_wait
        self.beginning: set[str] = set()
        self.is_closed = False
        # Finalizers run in the reverse order at the interpreter's exit: this one before that of the
        # storage, which closes it.
        weakref.finalize(self, stop_at_exit, self.keeper)

    def check_open(self, ref: SessionRef) -> None:
        """Raise `ManagerClosedError` if the manager was closed."""
        if self.is_closed:
            raise ManagerClosedError(
                "the manager was closed; make a new one", session_id=ref.session_id
            )

    async def alone(
        self, ref: SessionRef, operation: Callable[[], Awaitable[T]], wait: float | None
    ) -> T:
        """Do something that needs the session to be free, when it is.

        Args:
            ref: The session.
            operation: What is done; called again where another process has the session.
            wait: How long to wait for the session, in seconds; None for as long as it takes.

        Raises:
            NestedTurnError: If the caller runs in a turn of this session.
            SessionBusyError: If it is not free in time.
        """

        async def attempt() -> T:
            self.check_open(ref)
            return await operation()

        deadline = deadline_of(wait)
        await self.reserve(ref, deadline)
        try:
            return await self.when_free(ref, attempt, deadline)
        finally:
            self.queue.release(ref)

    async def reserve(self, ref: SessionRef, deadline: float | None) -> None:
        """Wait for the session within this process.

        Args:
            ref: The session.
            deadline: Until when, in seconds of `time.monotonic`; None: for ever.

        Raises:
            NestedTurnError: If the caller runs in a turn of this session.
            SessionBusyError: If it is not free in time.
        """
        if await self._is_inside(ref):
            raise NestedTurnError(
                "this runs inside a turn of the same session, which would wait for itself; "
                "use another session for the inner one, or add to the turn that is open",
                session_id=ref.session_id,
            )
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        await self.queue.acquire(ref, wait)

    async def _is_inside(self, ref: SessionRef) -> bool:
        """Return whether the caller runs in a turn of this session that its reader still reads."""
        turn = open_turn(ref, self._storage)
        if turn is not None and turn.reader is not None:
            # Its reader may have just stopped, through a generator in between: the event loop is
            # about to cancel it then.
            for _ in range(_READER_CHECKS):
                await asyncio.sleep(FIRST_DELAY)
                if not turn.is_open or turn.reader.is_gone:
                    return False
        return turn is not None

    async def when_free(
        self, ref: SessionRef, attempt: Callable[[], Awaitable[T]], deadline: float | None
    ) -> T:
        """Try until no other process has the session; take it from one that is dead.

        Args:
            ref: The session, which is reserved in this process.
            attempt: Raises `SessionBusyError` where another process has it.
            deadline: Until when, in seconds of `time.monotonic`; None: for ever.
        """
        delay = FIRST_DELAY
        while True:
            try:
                return await attempt()
            except SessionBusyError as busy:
                if await self.late_ends.end_holder(ref, busy):
                    continue
                if deadline is not None and time.monotonic() + delay > deadline:
                    raise
            except InvalidInputError as error:
                raise in_session(error, ref.session_id) from error.__cause__
            await asyncio.sleep(delay * _spread(0.5, 1.0))
            delay = min(delay * 2, LAST_DELAY)

    async def finish(self, seconds: float) -> None:
        """Wait until the open turns have ended; those that wait to begin raise.

        Args:
            seconds: How long to wait at most.
        """
        self.is_closed = True
        await finish_all(self.keeper, self.beginning, seconds)

    async def close(self) -> None:
        """End the open turns with what there is of their replies; no further one begins."""
        self.is_closed = True
        try:
            await stop_all(self.keeper, self.beginning)
        finally:
            self.keeper.close()


def deadline_of(wait: float | None) -> float | None:
    """Return when a wait ends, in seconds of `time.monotonic`; None: never."""
    return None if wait is None else time.monotonic() + wait
