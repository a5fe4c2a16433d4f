"""What is counted while the workers work, in windows of time, and the watch on the process."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load_run.histogram import Histogram
from benchmarks.measure import describe, rss

TICK = 0.001
"""Seconds that the task which watches the loop asks to sleep."""
SECOND = 1.0
"""Seconds between two looks at the memory."""


@dataclass
class Window:
    """A part of the time.

    Attributes:
        turns: How many turns were acknowledged.
        sends: How long `send_message` took, the finding of its session included.
        lag: How much later than it asked for the loop's watcher was woken.
        seconds: How long the window was, once it is over.
        rss: The process's memory at its end, in bytes.
        log: The write-ahead log's bytes at its end, where there is one.
    """

    turns: int = 0
    sends: Histogram = field(default_factory=Histogram)
    lag: Histogram = field(default_factory=Histogram)
    seconds: float = 0.0
    rss: int = 0
    log: int | None = None


class Tally:
    """One phase of the run.

    Args:
        log_bytes: Tells the size of the write-ahead log.

    Attributes:
        operations: The times of each operation, by its name; those that raised are not in it.
        errors: Operations and the errors they raised, with their numbers.
        windows: The windows that are over.
        memory: Seconds since the start and bytes of memory, once a second.
        lag: The loop's lag over the whole phase.
        process_seconds: Processor time of this process, all its threads and the workers included.
        server_seconds: The same of the database's server, where it is known.
    """

    def __init__(self, log_bytes: Callable[[], int | None]) -> None:
        self.operations: dict[str, Histogram] = {}
        self.errors: Counter[str] = Counter()
        self.windows: list[Window] = []
        self.memory: list[tuple[float, int]] = []
        self.lag = Histogram()
        self.process_seconds = 0.0
        self.server_seconds: float | None = None
        self._log_bytes = log_bytes
        self._window = Window()

    def turn(self) -> None:
        """A turn was acknowledged."""
        self._window.turns += 1

    def done(self, operation: str, seconds: float) -> None:
        """An operation returned."""
        if operation == "send":
            self._window.sends.add(seconds)
        self.operations.setdefault(operation, Histogram()).add(seconds)

    def failed(self, operation: str, error: BaseException) -> None:
        """An operation raised."""
        self.errors[f"{operation}: {describe(error)}"] += 1

    @property
    def turns(self) -> int:
        """Turns acknowledged in the windows that are over."""
        return sum(window.turns for window in self.windows)

    @property
    def seconds(self) -> float:
        """How long those windows were together."""
        return sum(window.seconds for window in self.windows)

    async def watch(self, seconds: float, windows: int) -> None:
        """Watch the memory and the loop, and close the windows, until the time is over."""
        lag = asyncio.create_task(self._watch_loop())
        try:
            start = time.perf_counter()
            for number in range(1, windows + 1):
                await self._watch_memory(start, seconds * number / windows)
        finally:
            lag.cancel()

    async def _watch_memory(self, start: float, end: float) -> None:
        opened = time.perf_counter()
        while (now := time.perf_counter() - start) < end:
            self.memory.append((now, rss()))
            await asyncio.sleep(min(SECOND, end - now))
        window, self._window = self._window, Window()
        window.seconds = time.perf_counter() - opened
        window.rss, window.log = rss(), self._log_bytes()
        self.windows.append(window)

    async def _watch_loop(self) -> None:
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(TICK)
            late = max(0.0, time.perf_counter() - asked - TICK)
            self.lag.add(late)
            self._window.lag.add(late)


def slope(samples: list[tuple[float, int]]) -> float:
    """By how much the second number grows in one of the first, by the least squares; 0 for none."""
    if len(samples) < 2:
        return 0.0
    middle = sum(x for x, _ in samples) / len(samples)
    spread = sum((x - middle) ** 2 for x, _ in samples)
    return sum((x - middle) * y for x, y in samples) / spread


def peak() -> int | None:
    """The most memory this process ever held, in bytes, where the system tells."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
