"""What lies above the storage: a whole turn, and the doors of the frameworks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from benchmarks.contenders import DOORS, OURS, RAW, SESSION, Contender, Door, Store
from benchmarks.load import make_turns
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

if TYPE_CHECKING:
    from benchmarks.bench import Bench

LENGTH = 10_000
"""Turns of the log that the doors read."""
WARM = 600
"""Turns that fill a file's write-ahead log once, so that a commit need not make it longer."""


def run_turn(bench: Bench) -> Section:
    """A message sent and answered by the mock provider, against one raw commit."""
    section = Section("SQLite: a whole turn", ["p50 us", "against one raw commit"])
    timings = asyncio.run(_time_turns(bench))
    for contender in (SESSION, OURS, RAW):
        time = timings.p50(contender.name)
        cell = _cell(timings, contender, US)
        section.row(contender.label, cell, ratio(time, timings.p50(RAW.name)))
    whole = ratio(timings.p50(SESSION.name), timings.p50(RAW.name))
    section.at_most("a whole turn with the mock provider, against one raw commit", whole, 4)
    return section


async def _time_turns(bench: Bench) -> Timings:
    calls = bench.scale.rounds * bench.scale.batch
    async with bench.stores((SESSION, OURS, RAW)) as stores:
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
    """Each door beside what it replaces: append a turn, read the whole log."""
    section = Section(
        "SQLite: the doors",
        ["append a turn (p50 us)", f"read {LENGTH:,} turns (ms)", "append: faster by", "read: by"],
    )
    for door in DOORS:
        name = f"{door.framework}: {door.door.name}"
        drive = without_loop if door.sync else asyncio.run
        try:
            appends, reads = drive(_time_door(bench, (door.door, door.peer)))
        except ImportError as error:
            section.row(name, f"not installed ({describe(error)})")
            continue
        except Exception as error:
            section.row(name, describe(error))
            continue
        gains = [_gain(timings, door) for timings in (appends, reads)]
        section.row(name, _cell(appends, door.door, US), _cell(reads, door.door, MS), *gains)
        theirs = (_cell(appends, door.peer, US), _cell(reads, door.peer, MS))
        section.row(f"{door.framework}: {door.peer.name}", *theirs)
        if door.goals:
            section.at_least(f"{name}: faster to append", gains[0], door.goals[0])
            section.at_least(f"{name}: faster to read", gains[1], door.goals[1])
    return section


def _gain(timings: Timings, door: Door) -> float | None:
    return ratio(timings.p50(door.peer.name), timings.p50(door.door.name))


def _cell(timings: Timings, contender: Contender, scale: float) -> Cell:
    return timings.failures.get(contender.name) or timings.p50(contender.name, scale)


async def _time_door(bench: Bench, pair: tuple[Contender, ...]) -> tuple[Timings, Timings]:
    async with bench.stores(pair) as stores:
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
            {name: _reader(store) for name, store in stores.items()}, rounds=bench.scale.reads
        )
        return appends, reads


def _appender(store: Store, first: int, calls: int) -> Action:
    turns = iter(make_turns("s0", calls, first=first))

    async def append() -> None:
        await store.append_turn("s0", next(turns))

    return append


def _reader(store: Store) -> Action:
    async def read() -> None:
        await store.read_all("s0")

    return read
