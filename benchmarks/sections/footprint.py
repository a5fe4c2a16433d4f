"""What a turn leaves behind: bytes on disk, bytes of memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.bench import Bench, ours
from benchmarks.contenders import OURS, Contender, Kind, Store
from benchmarks.load import make_turn, make_turns
from benchmarks.measure import MB, describe, ratio, run_python, size_on_disk
from benchmarks.report import Cell, Section

FEW = 100
MANY = 10_000
GROWN = 100_000
"""Turns that the goal is about."""
MOST = 20.0
"""Mebibytes by which that may grow the process."""
GROWN_BY_GROWING = 300
"""Turns for a contender whose cost grows with the conversation."""
_PART = {Kind.OURS: 1, Kind.LIMIT: 10, Kind.TRIED: 10, Kind.PEER: 50}
"""By what the number of turns is divided: the goal is about ours, and the peers take long."""


def run_disk(bench: Bench) -> Section:
    """The file's size after it was closed, less that of an empty one, by turn."""
    payload = make_turn("s0", MANY // 2).payload
    section = Section(
        f"SQLite: bytes on disk a turn, of which {payload} are text",
        [f"{FEW} turns", "against the text", f"{MANY:,} turns", "against the text"],
    )
    sizes: dict[int, dict[str, float | None]] = {FEW: {}, MANY: {}}
    for contender in bench.starters():
        cells: list[Cell] = []
        for turns in (FEW, MANY):
            size, reason = _try_size(bench, contender, turns)
            sizes[turns][contender.name] = size
            cells += [reason if size is None else size, ratio(size, payload)]
        section.row(contender.label, *cells)
    for label, reason in bench.missing.items():
        section.row(label, reason)
    many, few = ours(sizes[MANY]), ours(sizes[FEW])
    section.at_most(f"bytes a turn at {FEW} turns, against the text", ratio(few, payload), 1.5)
    section.at_most(f"bytes a turn at {MANY:,} turns, against the text", ratio(many, payload), 1.5)
    section.at_most(f"bytes a turn at {MANY:,} turns, against {FEW}", ratio(many, few), 1.1)
    return section


def _try_size(bench: Bench, contender: Contender, turns: int) -> tuple[float | None, str | None]:
    if contender.grows and turns > FEW:
        return None, "grows with the square"
    try:
        empty = asyncio.run(_size(bench, contender, 0))
        return (asyncio.run(_size(bench, contender, turns)) - empty) / turns, None
    except Exception as error:
        return None, describe(error)


async def _size(bench: Bench, contender: Contender, turns: int) -> int:
    place = bench.places.new()
    store: Store = await contender.load().open(place)
    await store.begin("s0")
    if turns > FEW:
        await store.preload("s0", make_turns("s0", turns))
    else:
        for turn in make_turns("s0", turns):
            await store.append_turn("s0", turn)
    await store.close()
    return size_on_disk(Path(place))


def run_memory(bench: Bench) -> Section:
    """How a fresh process grows while it appends to one session, or reads one."""
    section = Section(
        f"{bench.title}: memory of a process that appends turns to one session",
        ["turns", "growth (MiB)"],
    )
    for contender in bench.starters():
        turns, place = _turns(bench, contender), bench.places.new()
        try:
            growth = int(_child("grow", contender.name, place, str(turns))) / MB
        except RuntimeError as error:
            section.row(contender.label, turns, str(error))
            continue
        section.row(contender.label, turns, growth)
        if contender is OURS:
            section.at_most(f"growth over {turns:,} turns", growth, MOST, " MiB")
            _add_stream(section, place)
    for label, reason in bench.missing.items():
        section.row(label, reason)
    if bench.scale.grown < GROWN:
        section.notes.append(
            f"The goal is for {GROWN:,} turns; this run appended {bench.scale.grown:,}."
        )
    return section


def _add_stream(section: Section, place: str) -> None:
    most, messages = map(int, _child("stream", OURS.name, place).split())
    section.row("langswarm-session, the log read by `async for`", messages // 2, most / MB)
    section.at_most(f"growth while {messages:,} messages are read", most / MB, MOST, " MiB")


def _child(*arguments: str) -> str:
    return run_python("-m", "benchmarks.child", *arguments)


def _turns(bench: Bench, contender: Contender) -> int:
    if contender.grows:
        return GROWN_BY_GROWING
    return bench.scale.grown // _PART[contender.kind]
