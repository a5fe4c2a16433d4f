"""What callers ask of the SQLite engine, and how long they wait for it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from langswarm_session.errors import StorageBusyError
from langswarm_session.storage.calls import Call

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]


class JobCall(Call):
    """A job, and who waits for its outcome.

    Attributes:
        job: What to do.
        is_small: Whether it reads and writes little, whatever is stored.
        size: How many characters it stores.
        wait: What ends its caller's wait, if it waits for a thread.
    """

    __slots__ = ("is_small", "job", "size", "wait")

    def __init__(self, job: Job[Any], *, is_small: bool = False, size: int = 0) -> None:
        super().__init__()
        self.job = job
        self.is_small = is_small
        self.size = size
        self.wait: Wait | None = None


class Wait:
    """The time that calls of one loop, handed over together, may wait for their outcome.

    Args:
        calls: The calls.
        seconds: How long.
        path: The file, for messages.
    """

    __slots__ = ("_left", "_timer")

    def __init__(self, calls: Sequence[JobCall], seconds: float, path: str) -> None:
        self._left = len(calls)
        self._timer = calls[0].loop.call_later(seconds, self._end, calls, seconds, path)
        for call in calls:
            call.wait = self

    def leave(self) -> None:
        """Note that one of the callers waits no more."""
        self._left -= 1
        if not self._left:
            self._timer.cancel()

    @staticmethod
    def _end(calls: Sequence[JobCall], seconds: float, path: str) -> None:
        late = f"{path}: no outcome in {seconds:g} seconds"
        for call in calls:
            if call.withdraw():
                call.settle(StorageBusyError(f"{late}; nothing of it was kept"))
            else:
                message = f"{late}; it was begun and may be stored"
                call.settle(StorageBusyError(message, may_be_stored=True))
