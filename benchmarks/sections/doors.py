"""What lies above the storage: a whole turn, and the doors of the frameworks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.contenders import DOORS, OURS, SESSION, Contender, Door, Store
from benchmarks.load import Audit, make_turns
from benchmarks.measure import (
    MS,
    US,
    Action,
    Timings,
    describe,
    interleave,
    ratio,
    without_loop,
)
from benchmarks.report import Cell, Section
from benchmarks.sections import reading

if TYPE_CHECKING:
    from benchmarks.bench import Bench

LENGTH = 10_000
"""Turns of the log that the doors read."""
WARM = 600
"""Turns that fill a file's write-ahead log once, so that a commit need not make it longer."""


def run_turn(bench: Bench) -> Section:
    """A message sent and answered by the mock provider, against one raw commit."""
    section = Section(f"{bench.title}: a whole turn", ["p50 us", "against one raw commit"])
    timings, raw = asyncio.run(_time_turns(bench)), bench.backend.raw
    for contender in (SESSION, OURS, raw):
        time = timings.p50(contender.name)
        cell = reading.cell(timings, contender.name, US)
        section.row(contender.label, cell, ratio(time, timings.p50(raw.name)))
    goal = bench.backend.goals.turn_raw
    whole = ratio(timings.p50(SESSION.name), timings.p50(raw.name))
    section.at_most("a whole turn with the mock provider, against one raw commit", whole, goal)
    return section


async def _time_turns(bench: Bench) -> Timings:
    calls = bench.scale.rounds * bench.scale.batch
    async with bench.stores((SESSION, OURS, bench.backend.raw)) as stores:
        for store in stores.values():
            await store.begin("warm")
            for turn in make_turns("warm", WARM):
                await store.append_turn("warm", turn)
            await store.begin("s0")
        return await interleave(
            {name: _appender(store, 0, calls) for name, store in stores.items()},
            rounds=bench.scale.rounds,
            batch=bench.scale.batch,
            slice_seconds=0.1,
        )


def run_doors(bench: Bench) -> Section:
    """Each door beside what it can take the place of: append a turn, read the log and its end."""
    section = Section(
        "SQLite: the doors",
        [
            "append a turn (p50 us)",
            f"read {LENGTH:,} turns (ms)",
            f"newest {reading.FEW} (ms)",
            "door: faster to append by",
            "to read by",
            "to read the newest by",
        ],
    )
    for door in DOORS:
        name = f"{door.framework}: {door.door.name}"
        drive = without_loop if door.sync else asyncio.run
        try:
            figures = drive(_time_door(bench, (door.door, *door.peers)))
        except ImportError as error:
            section.row(name, f"not installed ({describe(error)})")
            figures = None
        except Exception as error:
            section.row(name, describe(error))
            figures = None
        _report_door(section, door, name, figures)
    return section


def _report_door(section: Section, door: Door, name: str, figures: DoorFigures | None) -> None:
    """Add the rows, and the goals also where there are no figures."""
    if figures is not None:
        section.row(name, *_cells(figures, door.door))
    for peer in door.peers:
        gains: list[float | None] = [None, None, None]
        if figures is not None:
            gains = [ratio(each.p50(peer.name), each.p50(door.door.name)) for each in figures]
            section.row(f"{door.framework}: {peer.name}", *_cells(figures, peer), *gains)
        if door.goals:
            section.at_least(f"{name}: faster to append", gains[0], door.goals[0])
            section.at_least(f"{name}: faster to read", gains[1], door.goals[1])


class DoorFigures(NamedTuple):
    """What was timed of a door and its peers."""

    appends: Timings
    reads: Timings
    newest: Timings


def _cells(figures: DoorFigures, contender: Contender) -> list[Cell]:
    scales = (US, MS, MS)
    return [
        reading.cell(timings, contender.name, scale)
        for timings, scale in zip(figures, scales, strict=True)
    ]


async def _time_door(bench: Bench, contenders: tuple[Contender, ...]) -> DoorFigures:
    async with bench.stores(contenders) as stores:
        for store in stores.values():
            await store.begin("s0")
            await store.preload("s0", make_turns("s0", LENGTH))
        calls = bench.scale.rounds * bench.scale.batch
        appends = await interleave(
            {name: _appender(store, LENGTH, calls) for name, store in stores.items()},
            rounds=bench.scale.rounds,
            batch=bench.scale.batch,
            slice_seconds=0.1,
        )
        reads = await interleave(
            {name: reading.whole(store, 2 * LENGTH) for name, store in stores.items()},
            rounds=bench.scale.reads,
            tidy=True,
        )
        newest = await interleave(
            {name: reading.newest(store) for name, store in stores.items()},
            rounds=bench.scale.reads,
            batch=20,
            slice_seconds=0.1,
        )
        for name, store in stores.items():
            await _check(store, LENGTH + len(appends.seconds[name]), name)
        return DoorFigures(appends, reads, newest)


async def _check(store: Store, turns: int, name: str) -> None:
    """Raises RuntimeError unless a store still has every turn that it was given."""
    audit = Audit()
    audit.add([store.text(each) for each in await store.read_all("s0")], range(turns))
    if not audit.clean:
        raise RuntimeError(f"{name}: {audit.summary()}")


def _appender(store: Store, first: int, calls: int) -> Action:
    turns = iter(make_turns("s0", calls, first=first))

    async def append() -> None:
        await store.append_turn("s0", next(turns))

    return append
