"""Ends turns that go on for nobody, and those that another process asks to end.

A turn whose event loop was closed is never told: Streamlit reads an async generator with a loop of
its own and closes it when the script is run again
(https://github.com/streamlit/streamlit/issues/8161). Nor does anything happen in one whose loop
stands still, blocked by sync code or left between two ``run_until_complete``. A model that says
nothing for long is neither: its loop answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from langswarm_session.errors import TurnLostError
from langswarm_session.turns.endings import Stop

if TYPE_CHECKING:
    from langswarm_session.interfaces import ISessionStorage
    from langswarm_session.turns.current import RunningTurn

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How long to wait between two looks."""

CANCELLED = Stop("it was cancelled by session.cancel()")
CLOSED_LOOP = Stop("its event loop was closed", TurnLostError)


class _Heartbeat:
    """Whether an event loop does what it is given to do.

    Args:
        loop: The loop.
        clock: Tells the time in seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._clock = clock
        self._is_asked = False
        self._looked_at = clock()
        self._silent = 0.0
        self._closed = 0

    def look(self) -> None:
        """See whether the loop has answered since the last look, and ask it again."""
        now = self._clock()
        # While this thread did not run either (a suspended machine, SIGSTOP), nobody could answer.
        passed, self._looked_at = min(now - self._looked_at, 3 * LOOK_SECONDS), now
        self._closed += self._loop.is_closed()
        if self._is_asked:
            self._silent += passed
            return
        self._silent = 0.0
        with contextlib.suppress(RuntimeError):  # it was closed
            self._loop.call_soon_threadsafe(self._answer)
            self._is_asked = True

    def _answer(self) -> None:
        self._is_asked = False

    @property
    def is_closed(self) -> bool:
        """Whether the loop was closed: for a moment already, so that it is not just changed."""
        return self._closed > 1

    @property
    def silent_seconds(self) -> float:
        """How long it has not answered."""
        return self._silent


class TurnWatch:
    """Looks after the open turns of this process.

    Args:
        storage: Where the sessions live.
        stall_seconds: How long a turn's event loop may stand still; None for as long as it likes.
        clock: Tells the time in seconds.
    """

    def __init__(
        self,
        storage: ISessionStorage,
        stall_seconds: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._heartbeats: dict[asyncio.AbstractEventLoop, _Heartbeat] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._has_failed = False

    async def look(self, turns: Sequence[RunningTurn]) -> None:
        """End those of the turns that should be; returns before they have ended.

        Args:
            turns: All open turns of this process.
        """
        self._look_at_loops(turns)
        try:
            asked = await self._storage.cancel_requested({turn.token: turn.ref for turn in turns})
        except Exception:  # whatever a storage raises, the next look may do better
            if not self._has_failed:
                logger.warning("cannot see which turns are to be cancelled", exc_info=True)
            self._has_failed = True
            return
        self._has_failed = False
        for turn in turns:
            if turn.token in asked:
                self._end(turn, CANCELLED)

    def _look_at_loops(self, turns: Sequence[RunningTurn]) -> None:
        loops = {turn.loop for turn in turns if turn.loop is not None}
        self._heartbeats = {
            loop: self._heartbeats.get(loop) or _Heartbeat(loop, self._clock) for loop in loops
        }
        for heartbeat in self._heartbeats.values():
            heartbeat.look()
        for turn in turns:
            stop = None if turn.loop is None else self._verdict(self._heartbeats[turn.loop])
            if stop is not None:
                self._end(turn, stop)

    def _verdict(self, heartbeat: _Heartbeat) -> Stop | None:
        if heartbeat.is_closed:
            return CLOSED_LOOP
        limit = self._stall_seconds
        if limit is not None and heartbeat.silent_seconds >= limit:
            return Stop(f"its event loop stood still for {limit:g} seconds", TurnLostError)
        return None

    def _end(self, turn: RunningTurn, stop: Stop) -> None:
        if turn.is_stopped:
            return
        ending = asyncio.ensure_future(turn.stop(stop))
        self._ending.add(ending)
        ending.add_done_callback(self._ended)

    def _ended(self, ending: asyncio.Task[None]) -> None:
        self._ending.discard(ending)
        if not ending.cancelled() and (error := ending.exception()) is not None:
            logger.warning("a turn could not be ended", exc_info=error)
