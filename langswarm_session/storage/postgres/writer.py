"""How writes get to the server: at once if nothing is under way, else together.

A write that finds nothing else under way is sent at once; those that queue up meanwhile are sent as
one statement, whose sessions share the way to the server and its commit. That waits for no lock: a
write that cannot be made just so is taken out, and its session is written to by itself, on another
connection, until nothing of it is left. So the writes of one session are made in the order in which
they came.

A write whose connection broke is done again on the next one, which changes nothing if it was done.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any

import asyncpg  # type: ignore[import-untyped,import-not-found,unused-ignore]

from langswarm_session.errors import SessionError
from langswarm_session.storage.inline import Contention, LatencyGate
from langswarm_session.storage.postgres.batches import WriteCall, send
from langswarm_session.storage.postgres.calls import Flight, TimedCall, too_late, typed
from langswarm_session.storage.postgres.errors import GONE, is_lost, is_refused, state_of
from langswarm_session.storage.postgres.jobs import Jobs
from langswarm_session.storage.postgres.pool import Connection
from langswarm_session.storage.postgres.rows import to_record

MAX_GROUP, MAX_WEIGHT = 256, 1_000_000
"""How many writes, of how many characters, go in one statement at most."""

_STOP_TIME = 1.0
"""How many seconds the server has to stop a write that took too long."""


class Writer:
    """Sends writes. Everything here runs on one event loop.

    Args:
        jobs: What it does them with.
        timeout: How long a call may take, in seconds.
        finish: Gives calls their outcomes.
        spawn: Starts a task of the engine's.
        is_wanted: Claims a call; False if there is nothing to do for it.
    """

    def __init__(
        self,
        jobs: Jobs,
        timeout: float,
        finish: Callable[[Sequence[TimedCall]], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        is_wanted: Callable[[TimedCall], bool],
    ) -> None:
        self._jobs = jobs
        self._timeout = timeout
        self._finish = finish
        self._spawn = spawn
        self._is_wanted = is_wanted
        self._waiting: deque[WriteCall] = deque()
        self._gathering: asyncio.Task[None] | None = None
        self._alone: dict[str, deque[WriteCall]] = {}
        """What waits behind the write of its session that is being made by itself."""
        self._gate = LatencyGate()
        self._contention = Contention()

    @property
    def is_idle(self) -> bool:
        """Whether no write is left."""
        return not (self._waiting or self._gathering or self._alone)

    def take(self, write: WriteCall) -> None:
        """Make a write, now or in its turn."""
        own = self._alone.get(write.session_id)
        if own is not None:
            own.append(write)
        elif self.is_idle and self.fly(write) is not None:
            return
        elif not (self._gathering or self._alone or self._jobs.patience.locked()):
            self._start_alone(write.session_id, [write])
        else:
            self._waiting.append(write)
            if self._gathering is None:
                self._gathering = self._spawn(self._send_waiting())

    # At once

    def fly(self, write: WriteCall) -> Connection | None:
        """Send a write in this very moment, if a connection stands ready for it.

        Nothing else may be under way when this is asked for.

        Returns:
            What it was sent on, unless its caller wants it no more.
        """
        if write.shape is None:
            return None
        query = self._jobs.tables.sql(write.shape.query)
        connection = self._jobs.take(query)
        if connection is None:
            return None
        if not self._is_wanted(write):
            self._jobs.pool.release(connection, usable=True)
            return connection
        self._alone[write.session_id] = deque()
        write.unclear, write.connection = True, connection
        values = write.shape.pick(write.values, write.batch.rows)
        work = connection.fetch(query, *values)
        write.work = Flight(work, partial(self._land, write, connection, time.perf_counter()))
        return connection

    def may_wait(self) -> float:
        """How many seconds whoever sends a write may wait for its answer on the spot."""
        return self._gate.limit if self._gate.is_open and not self._contention.is_likely else 0.0

    def _land(
        self,
        write: WriteCall,
        connection: Connection,
        sent: float,
        rows: Any,
        error: BaseException | None,
    ) -> None:
        write.work = write.connection = None
        self._gate.record(time.perf_counter() - sent)
        is_alone = len(self._alone) == 1 and not (
            self._waiting or self._gathering or self._alone[write.session_id]
        )
        if not (is_alone and write.is_attended):
            self._contention.record(1 if is_alone else 2)
        usable = error is None or is_refused(error)
        closing = self._jobs.pool.release(connection, usable=usable)
        if closing is not None and isinstance(error, asyncio.CancelledError):
            self._spawn(self._stop(write, closing, error))
        else:
            self._landed(write, rows, error)

    async def _stop(
        self, write: WriteCall, closing: asyncio.Task[None], error: BaseException
    ) -> None:
        """Wait for the server to stop a write, so that it is not made after its caller has gone."""
        await asyncio.wait([closing], timeout=_STOP_TIME)
        self._landed(write, None, error)

    def _landed(self, write: WriteCall, rows: Any, error: BaseException | None) -> None:
        later = self._alone.pop(write.session_id)
        if error is None:
            write.unclear = False
            if rows:
                write.result = to_record(rows[0])
            write.is_odd = not rows
        else:
            self._failed(write, error)
        if write.result is not None or write.error is not None:
            self._finish([write])
        else:
            later.appendleft(write)
        if later:
            self._start_alone(write.session_id, later)

    def _failed(self, write: WriteCall, error: BaseException) -> None:
        """Note why it could not be sent just so, and whether that is the end of it."""
        self._jobs.note(error)
        if isinstance(error, asyncio.CancelledError):  # by the time limit
            write.error = too_late(write, self._timeout, self._jobs.name)
            return
        write.is_odd, write.unclear = True, write.unclear and is_lost(error)
        if isinstance(error, SessionError) or state_of(error) in GONE:
            write.error = typed(write, error, self._jobs.name)

    # Together

    async def _send_waiting(self) -> None:
        """Send what waits, group after group, until nothing does."""
        try:
            while self._waiting:
                await self._send_group(self._next_group())
        finally:
            self._gathering = None

    def _next_group(self) -> list[WriteCall]:
        """The oldest writes that wait, one of each session at most."""
        group: dict[str, WriteCall] = {}
        later: list[WriteCall] = []
        weight = 0
        while self._waiting and len(group) < MAX_GROUP and weight <= MAX_WEIGHT:
            write = self._waiting.popleft()
            if write.session_id in group:
                later.append(write)
            elif write.size > MAX_WEIGHT:
                self._do_alone([write])
            elif self._is_wanted(write):
                group[write.session_id] = write
                weight += write.size
        self._waiting.extendleft(reversed(later))
        return list(group.values())

    async def _send_group(self, group: list[WriteCall]) -> None:
        if not group:
            return
        try:
            # Each caller has a time limit of its own; here it is about the connection.
            async with asyncio.timeout(self._timeout):
                await self._send(group, reserved=True)
        except TimeoutError:
            for write in group:
                write.error = too_late(write, self._timeout, self._jobs.name)
            self._finish(group)
        except Exception as error:  # noqa: BLE001 - each of them gets it, or is done by itself
            for write in group:
                self._failed(write, error)
            self._sort_out(group)
        else:
            self._sort_out(group)

    def _sort_out(self, group: list[WriteCall]) -> None:
        """Give those their outcome that have one, and do the others by themselves."""
        self._finish([w for w in group if w.result is not None or w.error is not None])
        self._do_alone(w for w in group if w.result is None and w.error is None)

    async def _send(self, group: list[WriteCall], *, reserved: bool = False) -> None:
        connection = await self._jobs.acquire(reserved=reserved)
        usable = False
        try:
            for write in group:
                write.unclear = True
                write.connection = connection if len(group) == 1 else None
            await send(connection, self._jobs.tables, group, may_wait=not reserved)
            usable = True
            for write in group:
                write.unclear = False
        except asyncpg.PostgresError as error:
            usable = is_refused(error)
            raise
        finally:
            for write in group:
                write.connection = None
            closing = self._jobs.pool.release(connection, reserved=reserved, usable=usable)
            if closing is not None:
                await asyncio.wait([closing], timeout=_STOP_TIME)

    # One session after the other

    def _do_alone(self, writes: Iterable[WriteCall]) -> None:
        """Do writes by themselves, those of one session one after the other."""
        by_session: dict[str, list[WriteCall]] = {}
        for write in writes:
            by_session.setdefault(write.session_id, []).append(write)
        for session_id, same in by_session.items():
            later = [write for write in self._waiting if write.session_id == session_id]
            if later:
                self._waiting = deque(w for w in self._waiting if w.session_id != session_id)
            if session_id in self._alone:
                self._alone[session_id].extend(same + later)
            else:
                self._start_alone(session_id, same + later)

    def _start_alone(self, session_id: str, writes: Iterable[WriteCall]) -> None:
        self._alone[session_id] = deque(writes)
        self._spawn(self._write_alone(session_id))

    async def _write_alone(self, session_id: str) -> None:
        """Do the writes of one session until there are no more."""
        writes = self._alone[session_id]
        try:
            while writes:
                write = writes.popleft()
                if self._is_wanted(write):
                    await asyncio.wait([self._spawn(self._answer(write))])
        finally:
            del self._alone[session_id]

    async def _answer(self, write: WriteCall) -> None:
        write.work = asyncio.current_task()
        try:
            write.result = await self._write_one(write)
        except asyncio.CancelledError:  # by the time limit, or with its caller
            write.error = too_late(write, self._timeout, self._jobs.name)
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            write.error = typed(write, error, self._jobs.name)
        write.work = None
        self._finish([write])

    async def _write_one(self, write: WriteCall) -> Any:
        if not write.is_odd:
            try:
                async with self._jobs.patience:
                    await self._send([write])
            except Exception as error:
                self._failed(write, error)
                if write.error is not None:
                    raise
            if write.result is not None:
                return write.result
            if write.is_given_up and not write.unclear:
                raise asyncio.CancelledError
        return await self._jobs.transact(write.job, call=write)
