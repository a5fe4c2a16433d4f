"""When a short piece of work had better be done on its caller's own thread.

To have another thread do it costs as much as the work itself, twice: it has to be woken, and then
the caller. But while a thread works, or waits for a disk or a server, its event loop stands still;
so that is for work that is quick, and for callers that come one at a time.
"""

from __future__ import annotations


class Pace:
    """Whether a kind of work has been quicker lately than a thread switch is worth.

    Args:
        limit: What counts as quick, in seconds.
    """

    _PROBATION = 8
    """So many in a row must be quick."""

    def __init__(self, limit: float = 0.002) -> None:
        self.limit = limit
        self._streak = 0

    @property
    def is_quick(self) -> bool:
        """Whether the next one may be expected to be quick."""
        return self._streak >= self._PROBATION

    def note(self, seconds: float) -> None:
        """Take account of one."""
        self._streak = self._streak + 1 if seconds < self.limit else 0


class Crowd:
    """Whether several callers want something at once, so that they had better be gathered.

    As long as nobody else has turned up for a while, only some of the calls wait for others, and
    let the loop go on with its other work.
    """

    _ALONE, _AT_ONCE = 64, 7

    def __init__(self) -> None:
        self._streak = self._left = 0

    @property
    def may_come(self) -> bool:
        """Whether to wait for others before the next call."""
        self._left -= 1
        return self._left < 0

    def note(self, size: int) -> None:
        """Take account of how many came together."""
        self._streak = self._streak + 1 if size == 1 else 0
        self._left = self._AT_ONCE if self._streak >= self._ALONE else 0
