"""Work that takes long and gives way to other threads in between.

A thread that never waits keeps the interpreter for 5 ms at a time, however short what others want
of it. And to sleep for no time at all wakes nobody: the sleeper is back before they are awake.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_MOMENT = 0.00005
"""Seconds to give way for."""


class Turns:
    """How long a turn has been, and when it is over."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    def give_way(self, seconds: float) -> None:
        """Let others have their turn, if this one has been longer than that."""
        if time.perf_counter() - self._begun > seconds:
            time.sleep(_MOMENT)
            self._begun = time.perf_counter()

    def waited_since(self, moment: float) -> None:
        """One has waited for something since then: others had their turn, if that was not short."""
        now = time.perf_counter()
        if now - moment > _MOMENT:
            self._begun = now


class Desk:
    """Where threads do long work piece by piece, one of them at a time.

    They could not work side by side anyway, and those who gave way would only let each other in.
    """

    def __init__(self) -> None:
        self._turns = Turns()
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        # Whoever was at it when the process forked is not in the child.
        self._lock = threading.Lock()

    @contextmanager
    def piece(self, seconds: float) -> Iterator[None]:
        """Work on a piece, and then give way if that has not been done for so many seconds."""
        with self._lock:
            yield
            self._turns.give_way(seconds)
