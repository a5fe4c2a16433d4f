from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from langswarm_session import InMemorySessionStorage, StorageBusyError, TurnLostError
from langswarm_session.records import SessionRef
from langswarm_session.turns.endings import Stop
from langswarm_session.turns.watch import CANCELLED, CLOSED_LOOP, LOOK_SECONDS, TurnWatch


class Loop:
    """An event loop that does what it is given when it is told to."""

    def __init__(self) -> None:
        self.callbacks: list[Any] = []
        self.closed = False

    def is_closed(self) -> bool:
        return self.closed

    def call_soon_threadsafe(self, callback: Any) -> None:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.callbacks.append(callback)

    def run(self) -> None:
        while self.callbacks:
            self.callbacks.pop()()


REF = SessionRef("s", "ann", 1)


@dataclass(eq=False)
class Turn:
    """What the watch knows of a turn."""

    loop: Any
    token: str = "token"
    ref: SessionRef = REF
    stops: list[Stop] = field(default_factory=list)

    @property
    def is_stopped(self) -> bool:
        return bool(self.stops)

    async def stop(self, stop: Stop) -> None:
        self.stops.append(stop)


class Storage(InMemorySessionStorage):
    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()
        self.error: Exception | None = None

    async def cancel_requested(self, tokens: Mapping[str, SessionRef]) -> set[str]:
        if self.error is not None:
            raise self.error
        return self.asked & tokens.keys()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A watch on turns, with a clock of its own."""

    def __init__(self, *turns: Any, stall_seconds: float | None = 10.0) -> None:
        self.clock, self.storage, self.turns = Clock(), Storage(), turns
        self.watch = TurnWatch(self.storage, stall_seconds, self.clock)

    async def look(self, times: int = 1, seconds: float = LOOK_SECONDS) -> None:
        for _ in range(times):
            await self.watch.look(self.turns)
            await asyncio.sleep(0)
            self.clock.now += seconds


LOOKS = int(10 / LOOK_SECONDS) + 3


async def test_a_loop_that_runs_is_left_alone_however_long_it_takes() -> None:
    watched = Watched(turn := Turn(loop := Loop()))
    for _ in range(10 * LOOKS):
        await watched.look()
        loop.run()
    assert not turn.stops


async def test_a_turn_on_a_loop_that_stands_still_is_ended_once() -> None:
    watched = Watched(turn := Turn(loop := Loop()), running := Turn(other := Loop(), "other"))
    for _ in range(LOOKS - 3):
        await watched.look()
        other.run()
        assert not turn.stops
    await watched.look(6)
    assert [stop.kind for stop in turn.stops] == [TurnLostError]
    assert "stood still for 10 seconds" in turn.stops[0].reason
    assert len(loop.callbacks) == 1  # it is not asked again and again
    assert not running.stops


async def test_one_that_answers_late_begins_again_from_nothing() -> None:
    watched = Watched(turn := Turn(loop := Loop()))
    for _ in range(5):
        await watched.look(LOOKS // 2)
        loop.run()
    assert not turn.stops


async def test_it_may_stand_still_for_ever() -> None:
    watched = Watched(turn := Turn(Loop()), stall_seconds=None)
    await watched.look(3, seconds=1e6)
    assert not turn.stops


async def test_a_machine_that_was_suspended_is_not_a_loop_that_stands_still() -> None:
    watched = Watched(turn := Turn(loop := Loop()))
    await watched.look(1, seconds=3600)
    await watched.look()
    loop.run()
    await watched.look(LOOKS // 2)
    assert not turn.stops


async def test_a_turn_on_a_closed_loop_is_ended_at_the_second_look() -> None:
    watched = Watched(turn := Turn(loop := Loop()))
    await watched.look()
    loop.closed = True
    await watched.look()
    assert not turn.stops
    await watched.look(3)
    assert turn.stops == [CLOSED_LOOP]


async def test_a_turn_of_sync_code_has_no_loop_to_look_at() -> None:
    watched = Watched(turn := Turn(None))
    await watched.look(3, seconds=1e6)
    assert not turn.stops


async def test_a_turn_that_somebody_asked_to_end_is_ended() -> None:
    watched = Watched(turn := Turn(None), other := Turn(None, "other"))
    await watched.look()
    watched.storage.asked = {"token"}
    await watched.look(3)
    assert turn.stops == [CANCELLED]
    assert not other.stops


async def test_a_storage_that_fails_is_asked_again_and_complained_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watched = Watched(turn := Turn(None))
    for _ in range(2):
        watched.storage.error = StorageBusyError("locked")
        await watched.look(3)
        watched.storage.error = None
        await watched.look()
    watched.storage.asked = {"token"}
    await watched.look()
    assert turn.stops == [CANCELLED]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
