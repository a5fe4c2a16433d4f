"""What runs in a process of its own: ``python -m benchmarks.child JOB CONTENDER PLACE [...]``.

This module imports next to nothing before the contender itself, so that a start-up time is the
contender's.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from benchmarks.contenders import find
from benchmarks.load import make_turn, make_turns

WARM_TURNS = 500
"""Turns before memory is looked at for the first time."""


async def first(name: str, place: str) -> None:
    """Store one turn durably, say so, and go."""
    store = await find(name).load().open(place)
    await store.begin("s0")
    await store.append_turn("s0", make_turn("s0", 0))
    _say("stored")
    await store.close()


async def write(name: str, place: str) -> None:
    """Write many sessions at once, when told to begin."""
    from benchmarks.writers import to_line, write_at_once

    store = await find(name).load().open(place)
    order = json.loads(sys.stdin.readline())
    for session in order["sessions"]:
        await store.begin(session)
    _say("ready")
    sys.stdin.readline()
    written = await write_at_once(store, order["sessions"], order["turns"])
    _say(to_line(written))
    await store.close()


async def grow(name: str, place: str, turns: int) -> None:
    """Append to one session and say by how many bytes the process grew."""
    from benchmarks.measure import rss

    store = await find(name).load().open(place)
    await store.begin("s0")
    for turn in make_turns("s0", WARM_TURNS):
        await store.append_turn("s0", turn)
    before = rss()
    for index in range(WARM_TURNS, WARM_TURNS + turns):
        await store.append_turn("s0", make_turn("s0", index))
    _say(str(rss() - before))
    await store.close()


async def stream(place: str) -> None:
    """Read the session that `grow` wrote piece by piece; say by how much the process grew."""
    from benchmarks.contenders.ours import SessionStore
    from benchmarks.measure import rss

    store = await SessionStore.open(place)
    await store.begin("s0")
    await store.newest("s0", 1_000)
    before, most, number = rss(), 0, 0
    async for _ in store.stream("s0"):
        number += 1
        if number % 1_000 == 0:
            most = max(most, rss() - before)
    _say(f"{most} {number}")
    await store.close()


async def read(name: str, place: str) -> None:
    """Read the whole of session `s0` each time that is asked for; say how many messages it has."""
    store = await find(name).load().open(place)
    await store.begin("s0")
    _say("ready")
    while sys.stdin.readline():
        _say(str(len(await store.read_all("s0"))))
    await store.close()


async def endless(name: str, place: str, prefix: str, sessions: int) -> None:
    """Write sessions at once until killed, saying of each turn that it is stored once it is."""
    store = await find(name).load().open(place)
    names = [f"{prefix}-{number}" for number in range(sessions)]
    for session in names:
        await store.begin(session)
    _say("ready")

    async def write_on(session: str) -> None:
        index = 0
        while True:
            await store.append_turn(session, make_turn(session, index))
            _say(f"{session}|{index}")
            index += 1

    await asyncio.gather(*map(write_on, names))


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def main() -> None:
    """Do the job named on the command line."""
    job, name, place, *rest = sys.argv[1:]
    if job == "first":
        asyncio.run(first(name, place))
    elif job == "write":
        asyncio.run(write(name, place))
    elif job == "grow":
        asyncio.run(grow(name, place, int(rest[0])))
    elif job == "read":
        asyncio.run(read(name, place))
    elif job == "stream":
        asyncio.run(stream(place))
    else:
        asyncio.run(endless(name, place, rest[0], int(rest[1])))


if __name__ == "__main__":
    main()
