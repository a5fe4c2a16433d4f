"""Many sessions at once, in one process and in four."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.bench import Bench, ours
from benchmarks.contenders import OURS, Contender
from benchmarks.load import Audit, Written
from benchmarks.measure import describe, ratio, tidy_up
from benchmarks.report import Section
from benchmarks.writers import audit, merge, write_at_once, write_from_processes

Work = Callable[[Bench, Contender], Coroutine[None, None, tuple[Written, Audit]]]

SESSIONS = 100
PROCESSES = 4
TURNS = 20


@dataclass
class _Found:
    """What one contender came to over all repeats."""

    rates: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    audit: Audit = field(default_factory=Audit)
    failure: str | None = None

    def add(self, written: Written, found: Audit) -> None:
        turns = sum(map(len, written.acknowledged.values()))
        self.rates.append(turns / (written.ended - written.started))
        for error, number in written.errors.items():
            self.errors[error] = self.errors.get(error, 0) + number
        for count in ("acknowledged", "lost", "torn", "doubled", "disordered"):
            setattr(self.audit, count, getattr(self.audit, count) + getattr(found, count))

    @property
    def rate(self) -> float | None:
        return median(self.rates) if self.rates else None


async def in_one_process(bench: Bench, contender: Contender) -> tuple[Written, Audit]:
    """100 tasks over one open store."""
    store = await contender.load().open(bench.places.new())
    names = [f"s{number}" for number in range(SESSIONS)]
    try:
        for name in names:
            await store.begin(name)
        written = await write_at_once(store, names, TURNS)
        return written, await audit(store, written.acknowledged)
    finally:
        await store.close()


async def in_processes(bench: Bench, contender: Contender) -> tuple[Written, Audit]:
    """Four processes over one database, each with a quarter of the sessions; tables are there."""
    place = bench.places.new()
    store = await contender.load().open(place)
    await store.begin("warm")
    await store.close()
    names = [f"s{number}" for number in range(SESSIONS)]
    groups = [names[number::PROCESSES] for number in range(PROCESSES)]
    written = merge(write_from_processes(contender, place, groups, TURNS))
    store = await contender.load().open(place)
    try:
        for name in names:
            await store.begin(name)
        return written, await audit(store, written.acknowledged)
    finally:
        await store.close()


def run_sessions(bench: Bench) -> Section:
    """100 sessions in one process."""
    title = f"{bench.title}: {SESSIONS} sessions at once, {TURNS} turns each"
    return _compare(bench, title, bench.starters(), in_one_process, bench.backend.goals.sessions)


def run_processes(bench: Bench) -> Section:
    """Four processes."""
    title = f"{bench.title}: {PROCESSES} processes, {SESSIONS // PROCESSES} sessions each"
    title = f"{title}, {TURNS} turns each"
    return _compare(bench, title, bench.starters(), in_processes, bench.backend.goals.processes)


def _compare(
    bench: Bench, title: str, contenders: Sequence[Contender], work: Work, at_least: float
) -> Section:
    section = Section(title, ["turns a second", "ours is faster by", "errors", "read back"])
    found = {contender.name: _Found() for contender in contenders}
    for number in range(bench.scale.repeats):
        for contender in contenders:
            if number and contender.slow:
                continue
            tidy_up()
            _once(bench, contender, work, found[contender.name])
    rates = {name: result.rate for name, result in found.items()}
    for contender in contenders:
        result = found[contender.name]
        section.row(
            contender.label,
            result.failure or result.rate,
            ratio(ours(rates), result.rate),
            "; ".join(f"{number} x {error}" for error, number in result.errors.items()) or "-",
            result.audit.summary(),
        )
    for label, reason in bench.missing.items():
        section.row(label, reason)
    peer = ratio(ours(rates), bench.fastest_peer(rates, best="high"))
    section.at_least("turns a second, against the fastest peer", peer, at_least)
    _judge_ours(section, found.get(OURS.name))
    return section


def _once(bench: Bench, contender: Contender, work: Work, result: _Found) -> None:
    if result.failure:
        return
    try:
        result.add(*asyncio.run(work(bench, contender)))
    except Exception as error:
        result.failure = describe(error)


def _judge_ours(section: Section, result: _Found | None) -> None:
    if result is None or result.failure:
        return
    good = result.audit.clean and not result.errors
    section.holds(
        "ours: errors, lost, torn, doubled, out of order",
        "none",
        good,
        f"none in {result.audit.acknowledged:,} turns"
        if good
        else f"{sum(result.errors.values())} errors, {result.audit.summary()}",
    )
