"""Many sessions and many workers: the run itself, on one backend."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import dataclass, field

from benchmarks.load_run.backends import Backend
from benchmarks.load_run.checks import Findings, check_all
from benchmarks.load_run.population import Ledger, draw_population, store_population
from benchmarks.load_run.tally import Tally, peak
from benchmarks.load_run.work import SHARED, Job, Worker
from benchmarks.measure import rss
from benchmarks.report import Cell
from langswarm_session import SessionManager

WINDOWS = 6
"""Into how many windows the time at full load is cut."""
PACED_PART = 0.25
"""How long the workers go slower afterwards, by the time at full load."""
PACE = 0.5
"""How much they do then, by what they did at full load."""


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes:
        sessions: Sessions that are there before.
        workers: How many are at work at once.
        seconds: How long at full load.
    """

    sessions: int
    workers: int
    seconds: float


@dataclass
class Crowd:
    """What a run found.

    Attributes:
        full: The phase in which nobody waits between two operations.
        paced: The phase at half of that.
        preload_seconds: How long the storing of the population took.
        stored: Messages of the population.
        empty: Bytes of memory before the population was stored.
        start: Bytes of memory when the work began.
        peak: The most bytes of memory until the work was over.
        weights: What the backend's files or tables weigh, by the moment.
        findings: What was found when all was read back.
    """

    full: Tally
    paced: Tally
    preload_seconds: float = 0.0
    stored: int = 0
    empty: int = 0
    start: int = 0
    peak: int | None = None
    weights: dict[str, dict[str, Cell]] = field(default_factory=dict)
    findings: Findings | None = None


async def run(backend: Backend, size: Size) -> Crowd:
    """Store the population, let the workers work, and read everything back."""
    found = Crowd(Tally(backend.log_bytes), Tally(backend.log_bytes), empty=rss())
    await backend.start()
    try:
        async with backend.open() as manager:
            ledgers = draw_population(size.sessions)
            started = time.perf_counter()
            await store_population(manager, ledgers)
            found.preload_seconds = time.perf_counter() - started
            found.stored = sum(2 * ledger.turns for ledger in ledgers)
            await _work(backend, manager, ledgers, size, found)
        found.weights["after it was closed"] = await backend.weigh()
    finally:
        await backend.remove()
    return found


async def _work(
    backend: Backend, manager: SessionManager, ledgers: list[Ledger], size: Size, found: Crowd
) -> None:
    shared, own = ledgers[:SHARED], ledgers[SHARED:]
    workers = [Worker(number, own[number :: size.workers]) for number in range(size.workers)]
    gc.collect()
    found.start = rss()
    found.weights["before the work"] = await backend.weigh()
    await _phase(backend, manager, found.full, shared, workers, size.seconds, 0.0, WINDOWS)
    done = sum(times.count for times in found.full.operations.values())
    pause = size.workers * found.full.seconds / max(1, done) / PACE
    await _phase(
        backend, manager, found.paced, shared, workers, size.seconds * PACED_PART, pause, 1
    )
    found.peak = peak()
    found.weights["after the work"] = await backend.weigh()
    everybody = [*shared, *(ledger for worker in workers for ledger in worker.ledgers)]
    found.findings = await check_all(manager, everybody)


async def _phase(
    backend: Backend,
    manager: SessionManager,
    tally: Tally,
    shared: list[Ledger],
    workers: list[Worker],
    seconds: float,
    pause: float,
    windows: int,
) -> None:
    job = Job(manager, tally, shared, time.perf_counter() + seconds, pause)
    own, servers = time.process_time(), backend.server_seconds()
    async with asyncio.TaskGroup() as group:
        for worker in workers:
            group.create_task(worker.work(job))
        group.create_task(tally.watch(seconds, windows))
    tally.process_seconds = time.process_time() - own
    now = backend.server_seconds()
    tally.server_seconds = None if now is None or servers is None else now - servers
