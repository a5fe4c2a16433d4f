"""What users do, and the workers that do it over and over."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from benchmarks.load import make_turn
from benchmarks.load_run.population import Ledger
from benchmarks.load_run.tally import Tally
from langswarm_session import BaseSession, MessageRole, SessionManager, SessionMessage

NEWEST = 20
"""How many messages a page of a conversation shows."""
LISTED = 100
"""How many sessions a page of a listing shows."""
SHARED = 10
"""Sessions that everybody works in, so that turns have to wait for each other."""
_LATEST = 0.05
"""Seconds within which a turn is cancelled."""
_PIECES = 40
"""Pieces of a stream that are read at the most before it is broken off; a reply has some more."""


class WrongError(Exception):
    """What was read is not what had been acknowledged."""


@dataclass(frozen=True)
class Job:
    """What the workers of a phase share.

    Attributes:
        end: When to stop, by `time.perf_counter`.
        pause: Seconds that a worker waits between two operations, on average.
    """

    manager: SessionManager
    tally: Tally
    shared: list[Ledger]
    end: float
    pause: float


class Worker:
    """Somebody who works in sessions of their own, one operation after another.

    Attributes:
        ledgers: The sessions; some more are created on the way.
    """

    def __init__(self, number: int, ledgers: list[Ledger]) -> None:
        self.ledgers = ledgers
        self._number = number
        self._draw = random.Random(number)
        self._created = 0
        self._draw.shuffle(ledgers)

    async def work(self, job: Job) -> None:
        """Do one operation after another until the time is over."""
        while True:
            await asyncio.sleep(self._draw.expovariate(1 / job.pause) if job.pause else 0)
            if time.perf_counter() >= job.end:
                return
            (name,) = self._draw.choices(_NAMES, _WEIGHTS)
            started = time.perf_counter()
            try:
                started = await _OPERATIONS[name][1](self, job) or started
            except Exception as error:
                job.tally.failed(name, error)
            else:
                job.tally.done(name, time.perf_counter() - started)

    async def send(self, job: Job) -> None:
        """Find the session and send a message."""
        await self._send(job, self._own())

    async def send_shared(self, job: Job) -> None:
        """The same in a session in which others are at work, too."""
        await self._send(job, self._draw.choice(job.shared))

    async def stream(self, job: Job) -> None:
        """Find the session, send a message and read the reply in pieces."""
        ledger = self._own()
        session = await self._find(job, ledger)
        index = ledger.begin()
        async for event in session.stream_message(make_turn(ledger.session_id, index).user):
            reply = event.message
        assert reply is not None
        self._acknowledge(job, ledger, index, reply)

    async def break_off(self, job: Job) -> float:
        """Stop reading a reply; returns when that was."""
        ledger = self._own()
        session = await self._find(job, ledger)
        index, pieces = ledger.begin(), self._draw.randint(1, _PIECES)
        text = make_turn(ledger.session_id, index).user
        async with aclosing(session.stream_message(text)) as events:
            async for _ in events:
                pieces -= 1
                if not pieces:
                    break
            return time.perf_counter()

    async def cancel(self, job: Job) -> float:
        """Cancel a turn somewhere between its beginning and its end; returns when that was."""
        ledger = self._own()
        session = await self._find(job, ledger)
        index = ledger.begin()
        text = make_turn(ledger.session_id, index).user
        turn = asyncio.create_task(session.send_message(text))
        await asyncio.sleep(self._draw.uniform(0, _LATEST))
        turn.cancel()
        cancelled = time.perf_counter()
        (outcome,) = await asyncio.gather(turn, return_exceptions=True)
        if isinstance(outcome, SessionMessage):
            self._acknowledge(job, ledger, index, outcome)
        elif not isinstance(outcome, asyncio.CancelledError):
            raise outcome
        return cancelled

    async def retry(self, job: Job) -> None:
        """Send a message twice with one key, as after an answer that got lost."""
        ledger = self._own()
        session = await self._find(job, ledger)
        index = ledger.begin()
        text, key = make_turn(ledger.session_id, index).user, f"turn {index}"
        first = await session.send_message(text, idempotency_key=key)
        self._acknowledge(job, ledger, index, first)
        session = await self._find(job, ledger)
        second = await session.send_message(text, idempotency_key=key)
        if (second.id, second.seq) != (first.id, first.seq):
            raise WrongError("a repeated key has another answer")

    async def create(self, job: Job) -> None:
        """Create a session of a user who has others, and send the first message."""
        user, name = self._own().user_id, f"w{self._number}-{self._created}"
        self._created += 1
        ledger = Ledger(name, user)
        session = await job.manager.create_session(user, "mock", "load", session_id=name)
        self.ledgers.append(ledger)
        await self._send_in(job, session, ledger)

    async def newest(self, job: Job) -> None:
        """Find the session and read its newest messages."""
        ledger = self._own()
        messages = await (await self._find(job, ledger)).get_messages(NEWEST)
        _check_order(messages)
        last = ledger.turns - 1
        if last in ledger.unclear or last < 0:
            return
        if len(messages) < min(NEWEST, 2) or not _is_answer(messages[-1], ledger, last):
            raise WrongError("the newest messages do not end with the newest turn")

    async def whole_log(self, job: Job) -> None:
        """Find the session and read all of it."""
        ledger = self._own()
        messages = await (await self._find(job, ledger)).get_messages()
        _check_order(messages)
        if len(messages) < 2 * (ledger.turns - len(ledger.unclear)):
            raise WrongError("a log is too short")

    async def list_sessions(self, job: Job) -> None:
        """List the newest sessions of a user."""
        user = self._own().user_id
        sessions = await job.manager.list_user_sessions(user, LISTED)
        known = sum(ledger.user_id == user for ledger in self.ledgers)
        if any(session.user_id != user for session in sessions):
            raise WrongError("a listing has another user's session")
        if len(sessions) < min(known, LISTED):
            raise WrongError("a listing is too short")
        if sessions[0].metrics.last_activity < sessions[-1].metrics.last_activity:
            raise WrongError("a listing is out of order")

    def _own(self) -> Ledger:
        """One of the worker's own sessions, of which some are busier than others."""
        return self.ledgers[int(len(self.ledgers) * self._draw.random() ** 2)]

    async def _find(self, job: Job, ledger: Ledger) -> BaseSession:
        return await job.manager.get_session(ledger.session_id, user_id=ledger.user_id)

    async def _send(self, job: Job, ledger: Ledger) -> None:
        await self._send_in(job, await self._find(job, ledger), ledger)

    async def _send_in(self, job: Job, session: BaseSession, ledger: Ledger) -> None:
        index = ledger.begin()
        reply = await session.send_message(make_turn(ledger.session_id, index).user)
        self._acknowledge(job, ledger, index, reply)

    def _acknowledge(self, job: Job, ledger: Ledger, index: int, reply: SessionMessage) -> None:
        ledger.acknowledge(index)
        job.tally.turn()
        if not _is_answer(reply, ledger, index):
            raise WrongError("a reply belongs to another turn")


def _is_answer(message: SessionMessage, ledger: Ledger, index: int) -> bool:
    return (
        message.role is MessageRole.ASSISTANT
        and message.text == make_turn(ledger.session_id, index).assistant
    )


def _check_order(messages: list[SessionMessage]) -> None:
    """Nothing is ever removed here, so the numbers have no gaps."""
    first = messages[0].seq or 0 if messages else 0
    if [message.seq for message in messages] != list(range(first, first + len(messages))):
        raise WrongError("messages are missing or out of order")


_OPERATIONS: dict[str, tuple[float, Callable[[Worker, Job], Awaitable[float | None]]]] = {
    "send": (58, Worker.send),
    "send, session shared": (2, Worker.send_shared),
    "stream": (10, Worker.stream),
    "send twice, one key": (3, Worker.retry),
    "create and send": (1.5, Worker.create),
    "newest 20": (12, Worker.newest),
    "list 100 sessions": (8, Worker.list_sessions),
    "whole log": (0.5, Worker.whole_log),
    "cancel, to its end": (3, Worker.cancel),
    "break off a stream, to its end": (2, Worker.break_off),
}
"""What is done, and how often in a hundred."""
_NAMES = list(_OPERATIONS)
_WEIGHTS = [weight for weight, _ in _OPERATIONS.values()]
