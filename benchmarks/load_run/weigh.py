"""What a turn and a session weigh on disk, and in the write-ahead log: the model's constants."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from benchmarks.load_run.backends import Backend
from benchmarks.report import Cell
from langswarm_session import MockProviderSession, ProviderRequest, SessionManager

SESSIONS = 400
TURNS = 20
"""Turns of each session."""
LENGTHS = (200, 800)
"""Characters of a message, on average: they are from none to twice that, as pages are filled better
or worse by rows of one size. Two averages tell what a character takes and what the rest does; of
longer messages PostgreSQL would begin to compress some."""
_TEXTS = 200
_LETTERS = "abcdefghijklmnopqrstuvwxyz     "


@dataclass(frozen=True)
class Weights:
    """Bytes by what they are for, in a table's or file's name.

    Attributes:
        session: Of a session that is created and empty.
        turn: Of a turn by `send_message`, by the length of its two messages.
    """

    session: dict[str, float]
    turn: dict[int, dict[str, float]]


async def run(backend: Backend) -> Weights:
    """Weigh the backend empty, with sessions, and with their turns."""
    turn: dict[int, dict[str, float]] = {}
    for length in LENGTHS:
        await backend.start()
        try:
            async with backend.open() as manager:
                await _make(manager, 0, SESSIONS)
                before = _bytes(await backend.weigh())
                await _make(manager, SESSIONS, SESSIONS)
                filled = _bytes(await backend.weigh())
                await _converse(manager, length)
                after = _bytes(await backend.weigh())
        finally:
            await backend.remove()
        session = _each(before, filled, SESSIONS)
        turn[length] = _each(filled, after, SESSIONS * TURNS)
    return Weights(session, turn)


async def _make(manager: SessionManager, first: int, count: int) -> None:
    for number in range(first, first + count):
        user = f"user-{number // 4:08}"
        await manager.create_session(user, "mock", "load", session_id=f"{number:032}")


async def _converse(manager: SessionManager, length: int) -> None:
    draw = random.Random(length)
    step = 2 * length / _TEXTS
    text = ["".join(draw.choices(_LETTERS, k=int(step * n) + 1)) for n in range(_TEXTS)]

    def answer(_: ProviderRequest) -> str:
        return draw.choice(text)

    manager.add_provider_session("mock", MockProviderSession(answer))

    async def converse(number: int) -> None:
        session = await manager.get_session(f"{number:032}")
        for _ in range(TURNS):
            await session.send_message(draw.choice(text))

    async with asyncio.TaskGroup() as group:
        for number in range(SESSIONS):
            group.create_task(converse(number))


def _bytes(weights: dict[str, Cell]) -> dict[str, float]:
    return {
        name.removesuffix(" (bytes)"): float(value)
        for name, value in weights.items()
        if name.endswith(" (bytes)") and isinstance(value, int)
    }


def _each(before: dict[str, float], after: dict[str, float], count: int) -> dict[str, float]:
    return {name: (after[name] - before.get(name, 0.0)) / count for name in after}
