"""Does the cost grow with the conversation?  One writer, 10 to 10,000 turns of history."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack
from itertools import cycle
from typing import TYPE_CHECKING

from benchmarks.bench import Bench, ours
from benchmarks.children import Child
from benchmarks.contenders import Contender, Store, find
from benchmarks.load import make_turns
from benchmarks.measure import MS, US, Action, Timings, describe, interleave, ratio
from benchmarks.report import Section
from benchmarks.sections import reading

if TYPE_CHECKING:
    from collections.abc import Mapping

SESSIONS = {10: 40, 1_000: 4, 10_000: 1}
"""How many sessions the appends are spread over, by the turns each has already."""
LONGEST = max(SESSIONS)
WARM = 6_000
"""Turns of another session, stored first: until a file's write-ahead log has reached its full size
once, each commit also pays for making it longer, which has nothing to do with the session's length.
"""


def run(bench: Bench) -> Section:
    """Append, read all, read the newest."""
    return asyncio.run(_run(bench))


async def _run(bench: Bench) -> Section:
    failures: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        by_length = {length: await stack.enter_async_context(bench.stores()) for length in SESSIONS}
        for length, stores in by_length.items():
            for name, store in stores.items():
                if name in failures:
                    continue
                if reason := await _preload(bench, store, length, find(name)):
                    failures[name] = reason
        ready = {
            (length, name): store
            for length, stores in by_length.items()
            for name, store in stores.items()
            if name not in failures
        }
        longest = {name: store for (length, name), store in ready.items() if length == LONGEST}
        appends = await _time_appends(bench, ready)
        reads = await _time_reads(bench, longest)
        newest = await interleave(
            {name: reading.newest(store) for name, store in longest.items()},
            rounds=bench.scale.reads,
            batch=20,
            slice_seconds=0.1,
        )
    reads.failures.update(failures)
    return _report(bench, appends, reads, newest)


async def _preload(bench: Bench, store: Store, length: int, contender: Contender) -> str | None:
    """Fill a database; the reason why that failed, if it did."""
    try:
        if bench.backend.grows_log and contender.wal and length < WARM:
            await store.begin("warm")
            await store.preload("warm", make_turns("warm", WARM))
        for number in range(SESSIONS[length]):
            await store.begin(f"s{number}")
            await store.preload(f"s{number}", make_turns(f"s{number}", length))
    except Exception as error:
        return describe(error)
    return None


async def _time_appends(
    bench: Bench, stores: Mapping[tuple[int, str], Store]
) -> dict[int, Timings]:
    """All lengths in the same rounds, so that the disk's moods do not look like a slope."""
    actions = {
        f"{length} {name}": _appender(bench, store, length)
        for (length, name), store in stores.items()
    }
    await interleave(actions, rounds=1, batch=max(SESSIONS.values()), slice_seconds=0.2)  # warm
    timings = await interleave(
        actions, rounds=bench.scale.rounds, batch=bench.scale.batch, slice_seconds=0.1
    )
    return {length: timings.under(f"{length} ") for length in SESSIONS}


async def _time_reads(bench: Bench, stores: Mapping[str, Store]) -> Timings:
    """Each in a process of its own: among all these frameworks the collector would hardly run."""
    with ExitStack() as stack:
        children = {
            name: stack.enter_context(Child("read", name, store.place))
            for name, store in stores.items()
        }
        for child in children.values():
            child.hear()
        return await interleave(
            {name: reading.whole_elsewhere(child, 2 * LONGEST) for name, child in children.items()},
            rounds=bench.scale.reads,
        )


def _appender(bench: Bench, store: Store, length: int) -> Action:
    sessions = [f"s{number}" for number in range(SESSIONS[length])]
    calls = bench.scale.rounds * bench.scale.batch + max(SESSIONS.values())
    turns = {name: iter(make_turns(name, calls, first=length)) for name in sessions}
    turn_of = cycle(sessions)

    async def append() -> None:
        session = next(turn_of)
        await store.append_turn(session, next(turns[session]))

    return append


def _report(bench: Bench, appends: dict[int, Timings], reads: Timings, newest: Timings) -> Section:
    section = Section(
        f"{bench.title}: one turn appended and durable, and the log read",
        [
            *(f"append at {length:,} turns (p50 us)" for length in SESSIONS),
            "10,000 / 10",
            "read 10,000 turns (ms)",
            "as",
            "newest 20 (ms)",
        ],
    )
    for contender in bench.contenders:
        name = contender.name
        section.row(
            contender.label,
            *(reading.cell(appends[length], name, US) for length in SESSIONS),
            ratio(appends[LONGEST].p50(name), appends[10].p50(name)),
            reading.cell(reads, name, MS),
            contender.reads,
            reading.cell(newest, name, MS),
        )
    for label, reason in bench.missing.items():
        section.row(label, reason)
    _judge(bench, section, appends, reads, newest)
    return section


def _figures(contenders: tuple[Contender, ...], timings: Timings) -> dict[str, float | None]:
    return {contender.name: timings.p50(contender.name) for contender in contenders}


def _judge(
    bench: Bench,
    section: Section,
    appends: dict[int, Timings],
    reads: Timings,
    newest: Timings,
) -> None:
    goals = bench.backend.goals
    for length, timings in appends.items():
        times = _figures(bench.contenders, timings)
        peer = ratio(ours(times), bench.fastest_peer(times))
        section.at_most(f"append at {length:,} turns, against the fastest peer", peer, goals.append)
        limit = ratio(ours(times), bench.raw(times))
        section.at_most(f"append at {length:,} turns, against raw", limit, goals.append_raw)
    first, last = (_figures(bench.contenders, appends[length]) for length in (10, LONGEST))
    section.at_most("append at 10,000 turns, against 10", ratio(ours(last), ours(first)), 1.1)
    whole = _figures(bench.contenders, reads)
    dicts = ratio(ours(whole), bench.fastest_peer(whole, reads="dicts"))
    what = "read into typed messages, against the fastest peer"
    section.at_most(f"{what}'s dicts", dicts, goals.read_dicts)
    typed = ratio(bench.fastest_peer(whole, reads="typed"), ours(whole))
    section.at_least("faster to read than the fastest typed peer", typed, goals.read_typed)
    anything = ratio(ours(whole), bench.fastest_peer(whole))
    section.at_most(what, anything, goals.read)
    few = _figures(bench.contenders, newest)
    against = ratio(ours(few), bench.raw(few))
    section.at_most("newest 20 of 10,000 turns, against raw", against, goals.newest_raw)
