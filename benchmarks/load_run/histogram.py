"""Percentiles of any number of samples in a constant amount of memory."""

from __future__ import annotations

from array import array
from math import ceil, log

_SMALLEST = 1e-6
"""Seconds; what is faster counts as this."""
_STEP = 1.01
"""By what one bucket's limit exceeds the one before: how exact a percentile is."""
_BUCKETS = 2_200
"""Enough for half an hour."""


class Histogram:
    """Counts times in buckets that are one per cent wide.

    Millions of samples in a list would be the memory that a load run is to see not growing.

    Attributes:
        count: How many samples there are.
        longest: The longest of them, in seconds, exactly.
    """

    def __init__(self) -> None:
        self.count = 0
        self.longest = 0.0
        self._buckets = array("L", bytes(_BUCKETS * array("L").itemsize))

    def add(self, seconds: float) -> None:
        """Count a sample."""
        place = ceil(log(max(seconds, _SMALLEST) / _SMALLEST) / log(_STEP))
        self._buckets[min(place, _BUCKETS - 1)] += 1
        self.count += 1
        self.longest = max(self.longest, seconds)

    def percentile(self, part: float) -> float | None:
        """The time that `part` (0 to 1) of the samples do not exceed, in seconds; None without any.

        It is at most one per cent too high.
        """
        if not self.count:
            return None
        wanted, found = max(1, ceil(self.count * part)), 0
        for place, number in enumerate(self._buckets):
            found += number
            if found >= wanted:
                return min(_SMALLEST * _STEP**place, self.longest)
        return self.longest
