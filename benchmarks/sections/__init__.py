"""What is measured, by the name that ``--only`` takes; each gives one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.sections import (
    concurrency,
    doors,
    footprint,
    kill,
    length,
    listing,
    readers,
    startup,
    wire,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.bench import Bench
    from benchmarks.report import Section

SECTIONS: dict[str, Callable[[Bench], Section]] = {
    "length": length.run,
    "sessions": concurrency.run_sessions,
    "processes": concurrency.run_processes,
    "listing": listing.run,
    "readers": readers.run,
    "turn": doors.run_turn,
    "doors": doors.run_doors,
    "disk": footprint.run_disk,
    "memory": footprint.run_memory,
    "import": startup.run_import,
    "first": startup.run_first,
    "kill": kill.run,
    "wire": wire.run,
}
