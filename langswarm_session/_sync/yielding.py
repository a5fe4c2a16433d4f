"""Work that takes long and gives way to other threads in between.

A thread that never waits keeps the interpreter for 5 ms at a time, however short what others want
of it. And to sleep for no time at all wakes nobody: the sleeper is back before they are awake.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_MOMENT = 0.00005
"""Seconds to give way for."""

_SHORT, _LONG = 0.0005, 0.003
"""Seconds of a turn at a `Desk`."""

_LATELY = 0.02
"""For so many seconds after other threads have worked they may have more to do."""


def pause(seconds: float) -> None:
    """Sleep, so that other threads have their turn.

    Not by `time.sleep`: where blocking calls are refused on threads that run an event loop
    (``langgraph dev``), that raises on those of this package too, for which it is meant
    (https://github.com/cbornet/blockbuster, ``_get_time_wrapped_functions``).
    """
    select.select((), (), (), seconds)


class Turns:
    """How long a turn has been, and when it is over."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    def give_way(self, seconds: float) -> None:
        """Let others have their turn, if this one has been longer than that."""
        if time.perf_counter() - self._begun > seconds:
            pause(_MOMENT)
            self._begun = time.perf_counter()

    def waited_since(self, moment: float) -> None:
        """One has waited for something since then: others had their turn, if that was not short."""
        now = time.perf_counter()
        if now - moment > _MOMENT:
            self._begun = now


class Desk:
    """Where threads do long work piece by piece, one of them at a time.

    They could not work side by side anyway, and those who gave way would only let each other in.
    Turns are short while other threads have something to do, and longer while they have not, as
    each time to give way is lost then.
    """

    def __init__(self) -> None:
        self._turns = Turns()
        self._elsewhere = self._busy_until = 0.0
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        # Whoever was at it when the process forked is not in the child.
        self._lock = threading.Lock()

    @contextmanager
    def piece(self) -> Iterator[None]:
        """Work on a piece, and give way if it is time to."""
        with self._lock:
            yield
            self._turns.give_way(_SHORT if self._is_busy_elsewhere() else _LONG)

    def _is_busy_elsewhere(self) -> bool:
        """Whether other threads have worked lately, as processor time tells."""
        now, elsewhere = time.perf_counter(), time.process_time() - time.thread_time()
        if abs(elsewhere - self._elsewhere) > _MOMENT / 5:
            self._elsewhere, self._busy_until = elsewhere, now + _LATELY
        return now < self._busy_until
