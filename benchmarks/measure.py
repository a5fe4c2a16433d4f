"""Clocks, statistics, and the facts of the machine."""

from __future__ import annotations

import gc
import os
import platform
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

Action = Callable[[], Awaitable[object]]
Result = TypeVar("Result")

US = 1e6
"""Microseconds in a second."""
MS = 1e3
"""Milliseconds in a second."""
MB = 1024 * 1024
"""Bytes in a mebibyte."""


@dataclass
class Timings:
    """Seconds of each call, by the name of what was called.

    Attributes:
        seconds: The samples.
        failures: The first error of those that raised; they were not called again.
    """

    seconds: dict[str, list[float]]
    failures: dict[str, str] = field(default_factory=dict)

    def under(self, prefix: str) -> Timings:
        """Those whose name begins with the prefix, by the rest of it."""
        cut = len(prefix)
        return Timings(
            {n[cut:]: found for n, found in self.seconds.items() if n.startswith(prefix)},
            {n[cut:]: reason for n, reason in self.failures.items() if n.startswith(prefix)},
        )

    def p50(self, name: str, scale: float = 1.0) -> float | None:
        """The median times `scale`; None without a sample."""
        samples = self.seconds.get(name)
        return median(samples) * scale if samples else None


async def interleave(
    actions: Mapping[str, Action],
    *,
    rounds: int,
    batch: int = 1,
    slice_seconds: float = inf,
    tidy: bool = False,
) -> Timings:
    """Call all in turns, so that a slow moment of the machine hits all of them alike.

    The order changes with each round, so that nobody always comes after the one who leaves the
    disk the most to do.

    Args:
        actions: What to time, by name.
        rounds: How often it is everybody's turn.
        batch: Calls in one turn at most.
        slice_seconds: When a turn is over, batch or not. A slow action has one call in it, and
            then sits out until it has used no more time than its turns were worth.
        tidy: Whether to `tidy_up` before each turn; for what leaves millions of objects behind.
    """
    timings = Timings({name: [] for name in actions})
    order = list(actions.items())
    shuffle = random.Random(0).shuffle
    for number in range(rounds):
        shuffle(order)
        for name, action in order:
            overdrawn = number and sum(timings.seconds[name]) > number * slice_seconds
            if name not in timings.failures and not overdrawn:
                if tidy:
                    tidy_up()
                try:
                    timings.seconds[name] += await _take_turn(action, batch, slice_seconds)
                except Exception as error:
                    timings.failures[name] = describe(error)
    return timings


def tidy_up() -> None:
    """Collect all garbage, before somebody is timed.

    One collection over the nine frameworks that are loaded here takes as long as thousands of
    turns, and would be the time of whomever it befalls, whoever left the objects it is due for.
    """
    gc.collect()


async def _take_turn(action: Action, batch: int, slice_seconds: float) -> list[float]:
    samples: list[float] = []
    while len(samples) < batch and sum(samples) < slice_seconds:
        start = time.perf_counter()
        await action()
        samples.append(time.perf_counter() - start)
    return samples


def without_loop(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine that never waits, run where no event loop is running.

    This is how a synchronous API behind an `async def` is timed as a synchronous caller has it.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    coroutine.close()
    raise RuntimeError("a synchronous action waited for an event loop")


def describe(error: BaseException) -> str:
    """An error in one short line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"[:100].rstrip(": ")


def percentile(samples: Sequence[float], part: float) -> float:
    """The sample below which `part` (0 to 1) of all lie."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def ratio(value: float | None, base: float | None) -> float | None:
    """`value` as a multiple of `base`; None where either is missing."""
    return None if value is None or not base else value / base


def rss() -> int:
    """Bytes of memory this process holds now."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    kilobytes = subprocess.check_output(["ps", "-o", "rss=", "-p", str(os.getpid())])
    return int(kilobytes) * 1024


def size_on_disk(path: Path) -> int:
    """Bytes of a database file and of what lies beside it (log, shared memory, journal)."""
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))


def fdatasync_seconds(folder: Path, samples: int = 50) -> float:
    """The median time of making a 4 KiB write to a file in `folder` durable."""
    sync = getattr(os, "fdatasync", os.fsync)
    path = folder / "fdatasync"
    times: list[float] = []
    with path.open("wb", buffering=0) as file:
        for _ in range(samples):
            start = time.perf_counter()
            file.write(b"\0" * 4096)
            sync(file.fileno())
            times.append(time.perf_counter() - start)
    path.unlink()
    return median(times)


def machine(folder: Path) -> dict[str, str]:
    """What the figures depend on."""
    load, *_ = os.getloadavg()
    return {
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.machine()}",
        "load before the run": f"{load:.2f}{' (busy: repeat on a quiet one)' if load > 1 else ''}",
        "fdatasync of 4 KiB (ms)": f"{fdatasync_seconds(folder) * MS:.3f}",
    }


def run_python(*arguments: str) -> str:
    """What a fresh interpreter prints.

    Raises:
        RuntimeError: If it ends with an error; the last line of its complaint.
    """
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return done.stdout
