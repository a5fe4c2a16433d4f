"""The thread under the PostgreSQL storage: it owns the connections and gathers writes.

One background thread with an event loop of its own does all that is done, so that a storage is
bound to no loop of its callers. A write that finds nothing else under way is sent at once; those
that queue up meanwhile are sent as one statement, whose sessions share the way to the server and
its commit. That waits for no lock: a write that cannot be made just so is taken out, and its
session is written to by itself, on another connection, until nothing of it is left. So the writes
of one session are made in the order in which they came.

What became of a write whose connection broke is found out on the next one: a transaction is looked
up by its number, and a gathered write is done again, which changes nothing if it was done.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Literal, TypeVar

from langswarm_session.errors import (
    SessionError,
    StorageBusyError,
    StorageClosedError,
    StorageUnavailableError,
)
from langswarm_session.storage.calls import Call, deliver
from langswarm_session.storage.postgres_errors import (
    GONE,
    is_lost,
    may_repeat,
    state_of,
    typed_error,
)
from langswarm_session.storage.postgres_pool import Connection, Pool, PoolSettings
from langswarm_session.storage.postgres_schema import Tables, migrate
from langswarm_session.storage.postgres_write import Write, send

logger = logging.getLogger(__name__)

T = TypeVar("T")
Job = Callable[[Connection], Awaitable[T]]
Isolation = Literal["READ COMMITTED", "REPEATABLE READ"]

MAX_GROUP, MAX_WEIGHT = 256, 1_000_000
"""How many writes, of how many characters, go in one statement at most."""

MAX_WAITING = 100_000
"""How many calls may wait before further ones are refused."""

_TRIES = 6
"""How often a job is begun at most, when connections break under it."""

_FIRST_DELAY = 0.05
"""Seconds before the second try, doubling from then on."""


class _Task(Call):
    """A call that is a coroutine of the engine's own loop."""

    __slots__ = ("begin",)

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        super().__init__()
        self.begin = begin


class PostgresEngine:
    """Runs jobs against one database.

    Args:
        settings: How to connect.
        tables: Where the tables are.
        timeout: How long a call may take, in seconds.
    """

    def __init__(self, settings: PoolSettings, tables: Tables, *, timeout: float) -> None:
        self.name = settings.name
        self.tables = tables
        self._settings = settings
        self._timeout = timeout
        self._closed = False
        self._start_afresh()
        _engines.add(self)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._inbox: list[Call] = []
        self._called = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        # What follows is touched by the thread only.
        self._pool: Pool | None = None
        self._opening: asyncio.Lock | None = None
        self._opened = False
        self._waiting: deque[Write] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._alone: dict[str, deque[Write]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: asyncio.Task[None] | None = None

    async def read(self, job: Job[T]) -> T:
        """Run a job that only reads, and return its result; it may be run again."""
        return await self._submit(_Task(lambda: self._timed(self._read(job))))  # type: ignore[no-any-return]

    async def transact(self, job: Job[T], isolation: Isolation = "READ COMMITTED") -> T:
        """Run a job in a transaction and return its result once that is durable.

        It may be run again after a rollback.
        """
        return await self._submit(  # type: ignore[no-any-return]
            _Task(lambda: self._timed(self._transact(job, isolation)))
        )

    async def write(self, write: Write) -> Any:
        """Send a write together with others; returns once it is durable.

        Returns:
            The session's record if it was free, or its lease held, and all messages new; else what
            the write's own job returned.
        """
        return await self._submit(write)

    def close(self) -> None:
        """Finish what was accepted, then let go of the thread and the connections. Blocks."""
        with self._lock:
            if not self._closed and self._loop is not None:
                self._loop.call_soon_threadsafe(self._begin_end)
            self._closed = True
            thread = self._thread
        # The garbage collector may close from the thread itself, which cannot wait for itself.
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    async def _submit(self, call: Call) -> Any:
        with self._lock:
            if self._closed:
                raise StorageClosedError(f"{self.name}: the storage was closed")
            if len(self._inbox) + len(self._waiting) + len(self._tasks) >= MAX_WAITING:
                raise StorageBusyError(f"{self.name}: {MAX_WAITING} calls wait already")
            loop = self._loop or self._start()
            self._inbox.append(call)
            if not self._called:
                self._called = True
                loop.call_soon_threadsafe(self._take)
        return await call.future

    def _start(self) -> asyncio.AbstractEventLoop:
        loop = self._loop = asyncio.new_event_loop()
        # A daemon, so that a forgotten close() cannot keep the interpreter from its exit.
        self._thread = threading.Thread(
            target=_run, args=(loop,), name=f"langswarm-postgres-{self.name}", daemon=True
        )
        self._thread.start()
        return loop

    # The thread

    def _take(self) -> None:
        with self._lock:
            calls, self._inbox = self._inbox, []
            self._called = False
        for call in calls:
            if isinstance(call, Write):
                self._take_write(call)
            elif isinstance(call, _Task):
                self._spawn(self._answer(call, call.begin()))

    def _take_write(self, write: Write) -> None:
        own = self._alone.get(write.session_id)
        if own is not None:
            own.append(write)
        elif write.weight > MAX_WEIGHT or not (self._writer or self._alone):
            self._start_alone(write.session_id, [write])
        else:
            self._waiting.append(write)
            if self._writer is None:
                self._writer = self._spawn(self._write_waiting())

    def _start_alone(self, session_id: str, writes: Iterable[Write]) -> None:
        self._alone.setdefault(session_id, deque()).extend(writes)
        self._spawn(self._write_alone(session_id))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._loop is not None
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer(self, call: Call, work: Coroutine[Any, Any, Any]) -> None:
        try:
            call.result = await work
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            call.error = self._typed(call, error)
        deliver([call])

    def _typed(self, call: Call, error: Exception) -> SessionError:
        typed = typed_error(error, self.name)
        away = isinstance(typed, (StorageBusyError, StorageUnavailableError))
        if away and isinstance(call, Write) and call.unclear:
            typed = type(typed)(
                f"{typed}; it was sent, and no answer came: it may be stored, and with the same "
                "message ids it is stored once however often it is sent"
            )
        if typed is not error:
            typed.__cause__ = error
        return typed

    async def _timed(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await work
        except TimeoutError as error:
            raise StorageBusyError(
                f"{self.name}: no answer in {self._timeout:g} seconds: the server is overloaded or "
                "cut off, or another process keeps the session locked"
            ) from error

    def _begin_end(self) -> None:
        assert self._loop is not None
        self._ending = self._loop.create_task(self._end())

    async def _end(self) -> None:
        self._take()
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._pool is not None:
            await self._pool.close()
        asyncio.get_running_loop().stop()

    # Connections

    async def _acquire(self, *, reserved: bool = False) -> Connection:
        """A connection to a database that has our tables."""
        if self._pool is None:
            self._pool = Pool(self._settings)
            self._opening = asyncio.Lock()
        connection = await self._pool.acquire(reserved=reserved)
        try:
            if not self._opened:
                await self._open(connection)
        except BaseException:
            self._release(connection, reserved=reserved, usable=False)
            raise
        return connection

    async def _open(self, connection: Connection) -> None:
        assert self._opening is not None
        async with self._opening:
            if not self._opened:
                await migrate(connection, self.tables, self.name)
                self._opened = True

    def _release(
        self, connection: Connection, *, reserved: bool = False, usable: bool = True
    ) -> None:
        assert self._pool is not None
        self._pool.release(connection, reserved=reserved, usable=usable)

    def _note(self, error: BaseException) -> None:
        """Look for our tables again before the next job, if they are gone."""
        if state_of(error) in GONE:
            self._opened = False

    async def _read(self, job: Job[T]) -> T:
        return await self._repeated(lambda: self._read_once(job))

    async def _read_once(self, job: Job[T]) -> T:
        connection = await self._acquire()
        usable = False
        try:
            result = await job(connection)
            usable = True
        except SessionError:
            usable = True
            raise
        finally:
            self._release(connection, usable=usable)
        return result

    async def _transact(self, job: Job[T], isolation: Isolation) -> T:
        return await self._repeated(lambda: self._transact_once(job, isolation))

    async def _transact_once(self, job: Job[T], isolation: Isolation) -> T:
        connection = await self._acquire()
        usable, number = False, None
        try:
            await connection.script(f"BEGIN ISOLATION LEVEL {isolation}")
            result = await job(connection)
            number = (await connection.fetch(_NUMBER))[0][0]
            await connection.commit()
            usable = True
        except SessionError:
            await connection.roll_back()
            usable = True
            raise
        except Exception as error:
            if number is None or not is_lost(error):
                await connection.roll_back()
                raise
        except asyncio.CancelledError:
            if number is None:
                raise
            # Only the time limit cancels.
            raise StorageUnavailableError(
                f"{self.name}: no answer to the commit in {self._timeout:g} seconds, so it may be "
                "stored; read the session again"
            ) from None
        finally:
            self._release(connection, usable=usable)
        if not usable:
            await self._check_committed(number)
        return result

    async def _check_committed(self, number: str) -> None:
        """Find out what became of a transaction whose connection broke at its end.

        Raises:
            _NotCommittedError: If it was rolled back.
        """
        delay = _FIRST_DELAY
        while True:
            rows = await self._read(lambda connection: connection.fetch(_STATUS, number))
            status = rows[0][0]
            if status == "committed":
                return
            if status == "aborted":
                raise _NotCommittedError
            if status is None:
                raise StorageUnavailableError(
                    f"{self.name}: the connection broke while this was stored, and the server "
                    "cannot tell what became of it; read the session again"
                )
            await asyncio.sleep(delay)
            delay *= 2

    async def _repeated(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The outcome of an attempt, made again where nothing was kept of the last one."""
        delay = _FIRST_DELAY
        for tries in range(_TRIES):
            try:
                return await attempt()
            except Exception as error:
                self._note(error)
                again = isinstance(error, _NotCommittedError) or is_lost(error) or may_repeat(error)
                if isinstance(error, SessionError) or not again or tries == _TRIES - 1:
                    raise
            await asyncio.sleep(delay)
            delay *= 2
        raise AssertionError("the last try returns or raises")

    # Writes

    async def _write_waiting(self) -> None:
        """Send what waits, group after group, until nothing does."""
        try:
            while self._waiting:
                await self._write_group(self._next_group())
        finally:
            self._writer = None

    def _next_group(self) -> list[Write]:
        group: list[Write] = []
        weight = 0
        while self._waiting and len(group) < MAX_GROUP and weight <= MAX_WEIGHT:
            write = self._waiting.popleft()
            # Whoever gave up while it waited here finds that nothing was stored.
            if not write.future.cancelled():
                group.append(write)
                weight += write.weight
        return group

    async def _write_group(self, group: list[Write]) -> None:
        if not group:
            return
        try:
            await self._timed(self._send(group, reserved=True))
        except Exception as error:  # noqa: BLE001 - each of them gets it, or is done by itself
            self._note(error)
            self._write_singly(group, error)
            return
        deliver(write for write in group if write.result is not None)
        self._spawn_each(write for write in group if write.result is None)

    async def _send(self, group: list[Write], *, reserved: bool = False) -> None:
        connection = await self._acquire(reserved=reserved)
        usable = False
        try:
            for write in group:
                write.unclear = True
            await send(connection, self.tables, group, may_wait=not reserved)
            usable = True
            for write in group:
                write.unclear = False
        finally:
            self._release(connection, reserved=reserved, usable=usable)

    def _write_singly(self, group: list[Write], error: Exception) -> None:
        """Do each by itself, after the whole group failed."""
        if isinstance(error, SessionError) or state_of(error) in GONE:
            for write in group:
                write.error = self._typed(write, error)
            deliver(group)
            return
        for write in group:
            write.is_odd, write.unclear = True, write.unclear and is_lost(error)
        self._spawn_each(group)

    def _spawn_each(self, writes: Iterable[Write]) -> None:
        """Do writes by themselves, those of one session one after the other."""
        by_session: dict[str, list[Write]] = {}
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

    async def _write_alone(self, session_id: str) -> None:
        """Do the writes of one session until there are no more."""
        writes = self._alone[session_id]
        try:
            while writes:
                write = writes.popleft()
                await self._answer(write, self._timed(self._write_one(write)))
        finally:
            del self._alone[session_id]

    async def _write_one(self, write: Write) -> Any:
        if not write.is_odd:
            try:
                await self._send([write])
            except Exception as error:
                self._note(error)
                write.unclear = is_lost(error)
                if isinstance(error, SessionError) or state_of(error) in GONE:
                    raise
            if write.result is not None:
                return write.result
        return await self._transact(write.job, "READ COMMITTED")


class _NotCommittedError(Exception):
    """A transaction was rolled back when its connection broke."""


_NUMBER = "SELECT pg_current_xact_id_if_assigned()::text"
_STATUS = "SELECT pg_xact_status($1::text::xid8)"


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


_engines: weakref.WeakSet[PostgresEngine] = weakref.WeakSet()
_inherited: list[object] = []
"""What a forked child must neither use nor close, as its parent does."""


_held: list[threading.Lock] = []


def _hold_all() -> None:
    """Let no engine be in the middle of something when the process forks."""
    for engine in list(_engines):
        engine._lock.acquire()
        _held.append(engine._lock)


def _let_go_all() -> None:
    while _held:
        _held.pop().release()


def _start_all_afresh() -> None:
    _held.clear()
    for engine in list(_engines):
        _inherited.append(dict(engine.__dict__))
        engine._start_afresh()


os.register_at_fork(before=_hold_all, after_in_parent=_let_go_all, after_in_child=_start_all_afresh)
