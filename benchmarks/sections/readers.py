"""Appends while whole logs are read beside them, on the same event loop."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.contenders import OURS, Contender, Store
from benchmarks.load import make_turns
from benchmarks.measure import MS, describe, percentile, ratio, tidy_up
from benchmarks.report import Section

if TYPE_CHECKING:
    from benchmarks.bench import Bench

READERS = 2
LENGTH = 10_000
"""Turns of the log that is read over and over."""
TICK = 0.001
"""Seconds that the task which watches the loop asks to sleep."""


@dataclass
class _Found:
    alone: list[float]
    beside: list[float]
    lag: list[float]
    reads: int = 0
    seconds: float = 0.0


def run(bench: Bench) -> Section:
    """The p99 of an append alone and beside readers, and the lag of the loop."""
    section = Section(
        f"{bench.title}: appends beside {READERS} tasks that read a log of {LENGTH:,} turns",
        [
            "append alone (p99 ms)",
            "with readers (p50 ms)",
            "with readers (p99 ms)",
            "p99 / p99 alone",
            "loop lag (p99 ms)",
            "whole reads a second",
        ],
    )
    for contender in bench.starters():
        if contender.grows:
            continue
        try:
            found = asyncio.run(_measure(bench, contender))
        except Exception as error:
            section.row(contender.label, describe(error))
            continue
        alone, beside = percentile(found.alone, 0.99), percentile(found.beside, 0.99)
        lag = percentile(found.lag, 0.99) * MS
        section.row(
            contender.label,
            alone * MS,
            percentile(found.beside, 0.5) * MS,
            beside * MS,
            ratio(beside, alone),
            lag,
            found.reads / found.seconds,
        )
        if contender is OURS:
            section.at_most("append p99 beside readers, against alone", ratio(beside, alone), 3)
            section.at_most("event-loop lag, p99", lag, 10, " ms")
    for label, reason in bench.missing.items():
        section.row(label, reason)
    return section


async def _measure(bench: Bench, contender: Contender) -> _Found:
    store = await contender.load().open(bench.places.new())
    try:
        for session in ("long", "alone", "beside"):
            await store.begin(session)
        await store.preload("long", make_turns("long", LENGTH))
        await store.append_turn("beside", make_turns("beside", 1)[0])
        tidy_up()
        alone = await _append_for(bench, store, "alone")
        found = _Found(alone, [], [])
        tasks = [asyncio.create_task(_read_on(store, found)) for _ in range(READERS)]
        tasks.append(asyncio.create_task(_watch(found)))
        start = time.perf_counter()
        found.beside = await _append_for(bench, store, "beside")
        found.seconds = time.perf_counter() - start
        await _stop(tasks)
        return found
    finally:
        await store.close()


async def _append_for(bench: Bench, store: Store, session: str) -> list[float]:
    """Append back to back for the window's time, and until there are samples enough."""
    samples: list[float] = []
    index = 1
    end = time.perf_counter() + bench.scale.window
    while time.perf_counter() < end or len(samples) < bench.scale.samples:
        (turn,) = make_turns(session, 1, first=index)
        start = time.perf_counter()
        await store.append_turn(session, turn)
        samples.append(time.perf_counter() - start)
        index += 1
        await asyncio.sleep(0)  # a store that never waits would let nobody else run
        if time.perf_counter() > end + 3 * bench.scale.window:
            break
    return samples


async def _read_on(store: Store, found: _Found) -> None:
    while True:
        await store.read_all("long")
        found.reads += 1
        await asyncio.sleep(0)


async def _watch(found: _Found) -> None:
    while True:
        start = time.perf_counter()
        await asyncio.sleep(TICK)
        found.lag.append(time.perf_counter() - start - TICK)


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
