"""The newest sessions of one user, among many of many users."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from benchmarks.contenders.listers import Lister, Manager
from benchmarks.measure import MS, Action, Timings, describe, interleave, ratio
from benchmarks.report import Section

if TYPE_CHECKING:
    from benchmarks.bench import Bench

SESSIONS = 10_000
USERS = 100
"""So each has 100 sessions: a peer that cannot stop at 100 need not read more either."""
NEWEST = 100


def run(bench: Bench) -> Section:
    """Ours, the limit, and whoever can list."""
    timings = asyncio.run(_time(bench))
    section = Section(
        f"{bench.title}: the newest {NEWEST} sessions of one user among {SESSIONS:,}",
        ["p50 ms", "against ours", "what it lists"],
    )
    own, goals, listers = timings.p50(Manager.name), bench.backend.goals, bench.backend.listers
    for lister in listers:
        time = timings.p50(lister.name)
        cell = timings.failures.get(lister.name) or timings.p50(lister.name, MS)
        section.row(lister.name, cell, ratio(time, own), lister.__doc__)
    own_ms = None if own is None else own * MS
    section.at_most("manager.list_user_sessions", own_ms, goals.listing, " ms")
    peers = [t for lister in listers if lister.peer and (t := timings.p50(lister.name))]
    faster = ratio(min(peers, default=None), own)
    section.at_least("faster than the fastest peer", faster, goals.listing_peer)
    return section


async def _time(bench: Bench) -> Timings:
    async with AsyncExitStack() as stack:
        actions: dict[str, Action] = {}
        failures: dict[str, str] = {}
        for kind in bench.backend.listers:
            try:
                lister = kind(bench.places.new())
                stack.push_async_callback(lister.close)
                await lister.fill(SESSIONS, USERS)
            except ImportError as error:
                failures[kind.name] = f"not installed ({describe(error)})"
            except Exception as error:
                failures[kind.name] = describe(error)
            else:
                actions[kind.name] = _newest(lister)
        timings = await interleave(
            actions, rounds=bench.scale.rounds, batch=bench.scale.batch, slice_seconds=0.1
        )
        timings.failures.update(failures)
        return timings


def _newest(lister: Lister) -> Action:
    users = iter(range(1_000_000))

    async def newest() -> None:
        found = len(await lister.newest(f"u{next(users) % USERS}", NEWEST))
        if found < NEWEST:
            raise RuntimeError(f"{found} sessions instead of {NEWEST}")

    return newest
