"""The sessions that are there before anybody works: how many, whose, and how long."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.contenders.ours import as_messages
from benchmarks.load import make_turns

if TYPE_CHECKING:
    from langswarm_session import SessionManager

LONGEST = 1_000
"""Turns of the longest sessions."""
_TAIL = 0.75
"""The shape of the tail: half the sessions have 1 or 2 turns, one in two hundred has `LONGEST`."""
_AT_ONCE = 100
"""Sessions that are filled at the same time."""
_CHUNK = 500
"""Turns stored in one call."""


@dataclass(slots=True)
class Ledger:
    """What is known of a session from outside: small, as there are as many as sessions.

    Attributes:
        turns: How many turns were begun; they are numbered from 0.
        unclear: Those that were broken off or raised: they may be there in part, or not at all.
    """

    session_id: str
    user_id: str
    turns: int = 0
    unclear: tuple[int, ...] = ()

    def begin(self) -> int:
        """The number of the next turn, which counts as unclear until it is acknowledged."""
        index = self.turns
        self.turns += 1
        self.unclear += (index,)
        return index

    def acknowledge(self, index: int) -> None:
        """This turn's call returned."""
        self.unclear = tuple(each for each in self.unclear if each != index)

    def acknowledged(self) -> Iterator[int]:
        """The turns whose calls returned."""
        unclear = frozenset(self.unclear)
        return (index for index in range(self.turns) if index not in unclear)


def draw_population(sessions: int, seed: int = 0) -> list[Ledger]:
    """Sessions of mixed length, none stored yet: many short ones, a few very long.

    Users differ as well: the busiest of them have hundreds of sessions, most have a few.

    Args:
        sessions: How many.
        seed: The same seed gives the same sessions.
    """
    draw = random.Random(seed)
    users = max(1, sessions // 10)
    return [
        Ledger(
            f"s{number}",
            f"u{int(users * draw.random() ** 2)}",
            min(LONGEST, int(draw.paretovariate(_TAIL))),
        )
        for number in range(sessions)
    ]


async def store_population(manager: SessionManager, ledgers: list[Ledger]) -> None:
    """Create the sessions and fill them, many at once and many messages a call."""
    waiting = iter(ledgers)

    async def fill() -> None:
        for ledger in waiting:
            await store_session(manager, ledger)
            await asyncio.sleep(0)

    await asyncio.gather(*(fill() for _ in range(_AT_ONCE)))


async def store_session(manager: SessionManager, ledger: Ledger) -> None:
    """Create one session and fill it."""
    name = ledger.session_id
    session = await manager.create_session(ledger.user_id, "mock", "load", session_id=name)
    for first in range(0, ledger.turns, _CHUNK):
        count = min(_CHUNK, ledger.turns - first)
        await session.record(as_messages(make_turns(name, count, first)))
