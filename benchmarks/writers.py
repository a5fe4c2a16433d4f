"""Many sessions written at once: by tasks of one process, and by processes."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

from benchmarks.children import Child
from benchmarks.load import Audit, Written, make_turns
from benchmarks.measure import describe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.contenders import Contender, Store


async def write_at_once(store: Store, sessions: Sequence[str], turns: int) -> Written:
    """One task a session, each appending its turns one after another; an error is not retried."""
    errors: Counter[str] = Counter()
    acknowledged: dict[str, list[int]] = {session: [] for session in sessions}

    async def write(session: str) -> None:
        for index, turn in enumerate(make_turns(session, turns)):
            try:
                await store.append_turn(session, turn)
            except Exception as error:
                errors[describe(error)] += 1
            else:
                acknowledged[session].append(index)

    started = time.monotonic()
    await asyncio.gather(*map(write, sessions))
    return Written(acknowledged, dict(errors), started, time.monotonic())


def write_from_processes(
    contender: Contender, place: str, groups: Sequence[Sequence[str]], turns: int
) -> list[Written]:
    """`write_at_once` in a process for each group of sessions, all let go at the same time."""
    with ExitStack() as stack:
        children = [stack.enter_context(Child("write", contender.name, place)) for _ in groups]
        for child, group in zip(children, groups, strict=True):
            child.say({"sessions": list(group), "turns": turns})
        for child in children:
            child.hear()
        for child in children:
            child.say("go")
        return [Written(**json.loads(child.hear())) for child in children]


def merge(parts: Sequence[Written]) -> Written:
    """The work of several writers as one, from the first start to the last end."""
    errors: Counter[str] = Counter()
    acknowledged: dict[str, list[int]] = {}
    for part in parts:
        errors.update(part.errors)
        acknowledged.update(part.acknowledged)
    started = min(part.started for part in parts)
    return Written(acknowledged, dict(errors), started, max(part.ended for part in parts))


async def audit(
    store: Store, acknowledged: Mapping[str, Sequence[int]], *, open_tail: bool = False
) -> Audit:
    """Read everything back and count what went wrong."""
    result = Audit()
    for session, indexes in acknowledged.items():
        texts = [store.text(message) for message in await store.read_all(session)]
        result.add(texts, indexes, open_tail=open_tail)
    return result


def to_line(written: Written) -> str:
    """What a child process tells its parent."""
    return json.dumps(asdict(written))
