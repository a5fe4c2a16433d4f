"""kill -9 while writing: is every turn that was acknowledged there, whole, once?"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from benchmarks.contenders import OURS, SESSION, Contender, Kind
from benchmarks.measure import describe
from benchmarks.report import Section
from benchmarks.writers import audit

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.load import Audit

SESSIONS = 4
"""Sessions that a process writes at once."""
MOST = 100
"""Turns that are acknowledged, at most, before the process is to die..."""
MOMENT = 0.005
"""...within these many seconds, so that it dies anywhere in a write."""
FEWER = 20
"""A peer's processes are killed this much less often: most take seconds to start."""


def run(bench: Bench) -> Section:
    """One file for each contender, written by one process after another, each killed."""
    section = Section(
        f"{bench.title}: processes killed while writing {SESSIONS} sessions at once",
        ["kills", "turns acknowledged", "read back"],
    )
    peers = [contender for contender in bench.starters() if contender.kind is Kind.PEER]
    for contender in (OURS, SESSION, *peers):
        fewer = FEWER if contender.kind is Kind.PEER else 1
        _add(bench, section, contender, max(1, bench.scale.kills // fewer))
    for label, reason in bench.missing.items():
        section.row(label, reason)
    return section


def _add(bench: Bench, section: Section, contender: Contender, kills: int) -> None:
    place = bench.places.new()
    try:
        acknowledged: dict[str, list[int]] = {}
        for number in range(kills):
            acknowledged.update(_write_until_killed(contender, place, f"k{number}"))
        found = asyncio.run(_read_back(contender, place, acknowledged))
    except Exception as error:
        section.row(contender.label, describe(error))
        return
    section.row(contender.label, kills, found.acknowledged, found.summary())
    if contender.kind is Kind.OURS:
        section.holds(
            f"{contender.name}: acknowledged turns lost, torn, doubled",
            "none",
            found.clean and found.acknowledged > 0,
            f"{found.summary()} in {found.acknowledged:,} turns",
        )


def _write_until_killed(contender: Contender, place: str, prefix: str) -> dict[str, list[int]]:
    """Turn numbers by session, as the process said before it died."""
    arguments = ["endless", contender.name, place, prefix, str(SESSIONS)]
    acknowledged: dict[str, list[int]] = {f"{prefix}-{n}": [] for n in range(SESSIONS)}
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.child", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout
        assert child.stderr
        if child.stdout.readline() != "ready\n":
            raise RuntimeError(child.stderr.read().strip().splitlines()[-1])
        fatal = random.randrange(MOST)
        for number, line in enumerate(child.stdout):
            session, _, index = line.rstrip("\n").partition("|")
            acknowledged[session].append(int(index))
            if number == fatal:
                threading.Timer(random.uniform(0, MOMENT), child.kill).start()
    return acknowledged


async def _read_back(contender: Contender, place: str, acknowledged: dict[str, list[int]]) -> Audit:
    store = await contender.load().open(place)
    try:
        for session in acknowledged:
            await store.begin(session)
        return await audit(store, acknowledged, open_tail=contender.answers)
    finally:
        await store.close()
