"""The thread under the PostgreSQL storage: it owns the connections.

One background thread with an event loop of its own does all that is done, so that a storage is
bound to no loop of its callers. How many calls may wait for it is bounded, and so is how long.

A sync caller's write that has the engine to itself is sent on its caller's own thread, which steps
into the loop for it, and waits there for the answer as long as answers have lately come within 2
ms.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from langswarm_session._sync.shared_loop import SharedLoop, wind_up
from langswarm_session._sync.threads import start_thread
from langswarm_session.errors import (
    StorageBusyError,
    StorageClosedError,
    StorageUnavailableError,
)
from langswarm_session.storage.calls import deliver
from langswarm_session.storage.inline import blocks_nobody
from langswarm_session.storage.postgres.batches import WriteCall
from langswarm_session.storage.postgres.calls import (
    Flight,
    JobCall,
    Live,
    TimedCall,
    too_late,
    typed,
)
from langswarm_session.storage.postgres.errors import is_lost
from langswarm_session.storage.postgres.jobs import Isolation, Job, Jobs
from langswarm_session.storage.postgres.pool import CLOSE_TIME, PoolSettings
from langswarm_session.storage.postgres.schema import Tables
from langswarm_session.storage.postgres.writer import Writer

logger = logging.getLogger(__name__)

T = TypeVar("T")

_GRACE = 5.0
"""Seconds that the thread has to end, after all that it may wait for is over."""


class PostgresEngine:
    """Runs jobs against one database.

    Args:
        settings: How to connect.
        tables: Where the tables are.
        timeout: How long a call may take, in seconds.
        max_waiting: How many calls may be without an outcome; further ones are refused.
        max_waiting_size: How many characters those may have to store, unless it is only one.
    """

    def __init__(
        self,
        settings: PoolSettings,
        tables: Tables,
        *,
        timeout: float,
        max_waiting: int,
        max_waiting_size: int,
    ) -> None:
        self.name = settings.name
        self.tables = tables
        self._settings = settings
        self._timeout = timeout
        self._max_waiting = max_waiting
        self._max_waiting_size = max_waiting_size
        self._closed = False
        self._start_afresh()
        _engines.add(self)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._forget_thread()

    def _forget_thread(self) -> None:
        self._inbox: list[TimedCall] = []
        self._count = self._size = 0
        self._called = False
        self._loop: SharedLoop | None = None
        self._thread: threading.Thread | None = None
        # What follows is touched by the thread only, and by whoever is inside its loop.
        self._jobs: Jobs | None = None
        self._writer: Writer | None = None
        self._live: Live | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: asyncio.Task[None] | None = None
        self._has_ended = False

    async def read(self, job: Job[T], *, is_urgent: bool = False, is_bare: bool = False) -> T:
        """Run a job that needs no transaction, and return its result; it may be run again.

        Args:
            job: What to do.
            is_urgent: Whether it is short, and must not wait for what others do.
            is_bare: Whether it cannot be run in a transaction.
        """
        call = JobCall(lambda jobs, _: jobs.read(job, is_urgent=is_urgent, is_bare=is_bare))
        self._submit(call)
        try:
            return await call.answer()  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            self._leave(call)
            raise

    async def transact(self, job: Job[T], isolation: Isolation = "READ COMMITTED") -> T:
        """Run a job in a transaction and return its result once that is durable.

        It may be run again after a rollback.
        """
        call = JobCall(lambda jobs, call: jobs.transact(job, isolation, call=call))
        self._submit(call)
        return await call.outcome(lambda: self._leave(call))  # type: ignore[no-any-return]

    async def write(self, write: WriteCall) -> Any:
        """Send a write together with others; returns once it is durable.

        Returns:
            The session's record if it was free, or its lease held, and all messages new; else what
            the write's own job returned.
        """
        self._submit(write)
        return await write.outcome(lambda: self._leave(write))

    def close(self) -> None:
        """Finish what was accepted, then let go of the thread and the connections. Blocks.

        Raises:
            StorageUnavailableError: If that takes longer than all the time limits together.
        """
        with self._lock:
            if not self._closed and self._loop is not None:
                self._loop.call_soon_threadsafe(self._begin_end)
            self._closed = True
            thread = self._thread
        # The garbage collector may close from the thread itself, which cannot wait for itself.
        if thread is None or thread is threading.current_thread():
            return
        thread.join(self._timeout + 2 * CLOSE_TIME + _GRACE)
        if thread.is_alive():
            raise StorageUnavailableError(f"{self.name}: the storage does not come to its end")

    def _submit(self, call: TimedCall) -> None:
        """Hand a call over, or send it from here."""
        call.deadline = time.monotonic() + self._timeout
        with self._lock:
            if self._closed:
                raise StorageClosedError(f"{self.name}: the storage was closed")
            self._check_room(call)
            loop = self._loop or self._start()
            self._count += 1
            self._size += call.size
            inside = (
                isinstance(call, WriteCall)
                and self._is_quiet
                and blocks_nobody(call.loop)
                and loop.enter()
            )
            if not inside:
                self._hand_over(call)
        if inside and isinstance(call, WriteCall):
            self._send_inside(loop, call)

    def _leave(self, call: TimedCall) -> None:
        """Tell the thread that a caller was cancelled."""
        with self._lock:
            # What is closed finishes what it has accepted.
            if self._loop is not None and not (self._closed or self._loop.is_closed()):
                self._loop.call_soon_threadsafe(self._give_up, call)

    @property
    def _is_quiet(self) -> bool:
        return self._writer is not None and self._writer.is_idle and not self._inbox

    def _send_inside(self, loop: SharedLoop, call: WriteCall) -> None:
        """Send a write from this thread while the other one sleeps, if that can be done at once.

        Its answer is waited for as well, if that is likely to be here soon.
        """
        assert self._writer is not None
        assert self._live is not None
        connection = None
        try:
            self._live.add([call])
            connection = self._writer.fly(call) if self._writer.is_idle else None
            if connection is None:
                # Before the loop goes on, as this may be the last that it hears of.
                with self._lock:
                    self._hand_over(call)
            else:
                self._attend(loop, call, connection.answers_through, self._writer.may_wait())
        finally:
            if connection is None:
                self._live.remove(call)
            loop.leave()
        if call.over:
            call.resolve()

    def _attend(
        self, loop: SharedLoop, call: WriteCall, source: int | None, seconds: float
    ) -> None:
        """Wait inside for the answer to what was sent."""
        if source is None or not seconds or call.work is None:
            return
        call.is_attended = True
        try:
            loop.attend(source, lambda: call.work is None, seconds)
        finally:
            call.is_attended = False

    def _hand_over(self, call: TimedCall) -> None:
        """Leave a call to the thread. With the lock held."""
        assert self._loop is not None
        self._inbox.append(call)
        if not self._called:
            self._called = True
            self._loop.call_soon_threadsafe(self._take)

    def _check_room(self, call: TimedCall) -> None:
        if self._count >= self._max_waiting:
            raise StorageBusyError(
                f"{self.name}: {self._count} calls wait already; try again later, or raise "
                "max_waiting"
            )
        if call.size and self._size and self._size + call.size > self._max_waiting_size:
            raise StorageBusyError(
                f"{self.name}: calls with {self._size} characters wait already; try again later, "
                "or raise max_waiting_size"
            )

    def _start(self) -> SharedLoop:
        loop = self._loop = SharedLoop()
        loop.set_exception_handler(_complain)
        self._thread = start_thread(partial(self._run, loop), f"langswarm-postgres-{self.name}")
        return loop

    # The thread

    def _run(self, loop: SharedLoop) -> None:
        try:
            loop.run_forever()
        finally:
            jobs = self._jobs
            waiting = self._fail_all() if self._loop is loop and not self._has_ended else []

            async def hang_up() -> None:
                for call in waiting:
                    if isinstance(call.work, Flight):
                        call.work.cancel()
                await asyncio.sleep(0)
                if jobs is not None:
                    await jobs.close()

            wind_up(loop, hang_up)

    def _fail_all(self) -> list[TimedCall]:
        """Tell those that still wait that the thread has ended; the next call starts another.

        Nothing should end it but `close`, which leaves nobody waiting.
        """
        with self._lock:
            waiting = [*(self._live.calls if self._live is not None else ()), *self._inbox]
            self._forget_thread()
        logger.error("%s: the storage's thread has ended; %d calls waited", self.name, len(waiting))
        for call in waiting:
            call.over = True
            error = StorageUnavailableError(
                f"{self.name}: the storage's thread has ended; try again"
            )
            call.error = typed(call, error, self.name)
        deliver(waiting)
        return waiting

    def _take(self) -> None:
        with self._lock:
            calls, self._inbox = self._inbox, []
            self._called = False
        loop = self._loop
        assert loop is not None
        if self._jobs is None or self._writer is None or self._live is None:
            self._jobs = Jobs(self._settings, self.tables, self._timeout)
            self._writer = Writer(
                self._jobs, self._timeout, self._finish, partial(self._spawn, loop), self._is_wanted
            )
            self._live = Live(loop, self._timeout, self._expire)
        self._live.add(calls)
        for call in calls:
            if isinstance(call, WriteCall):
                self._writer.take(call)
            elif isinstance(call, JobCall):
                self._spawn(loop, self._answer(call, self._jobs))

    def _spawn(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]
    ) -> asyncio.Task[None]:
        task = loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer(self, call: JobCall, jobs: Jobs) -> None:
        if not self._is_wanted(call):
            return
        # Only from now on, as a task that is cancelled before it began does nothing at all.
        call.work = asyncio.current_task()
        try:
            call.result = await call.begin(jobs, call)
        except asyncio.CancelledError:  # by the time limit, or with its caller
            call.error = too_late(call, self._timeout, self.name)
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            call.error = typed(call, error, self.name)
        call.work = None
        self._finish([call])

    def _finish(self, calls: Sequence[TimedCall]) -> None:
        """Give calls their outcomes."""
        fresh = [call for call in calls if not call.over]
        if not fresh:
            return
        assert self._live is not None
        for call in fresh:
            call.over = True
            self._live.remove(call)
        with self._lock:
            self._count -= len(fresh)
            self._size -= sum(call.size for call in fresh)
        deliver([call for call in fresh if not call.is_attended])

    def _expire(self, call: TimedCall) -> None:
        """It has taken too long."""
        if call.work is not None:
            call.work.cancel()
        else:
            call.error = too_late(call, self._timeout, self.name)
            self._finish([call])

    def _is_wanted(self, call: TimedCall) -> bool:
        """Claim a call; if it was withdrawn or has an outcome, there is nothing to do."""
        if not call.claim() or (call.is_given_up and not call.unclear):
            self._finish([call])
        return not call.over

    def _give_up(self, call: TimedCall) -> None:
        """Its caller was cancelled: stop what was begun.

        What was sent to be stored cannot be given up here: the server is asked to stop it, and
        answers whether it has.
        """
        if not call.is_claimed:
            self._finish([call])
            return
        call.is_given_up = True
        if call.work is not None and not call.unclear:
            call.work.cancel()
        elif call.connection is not None and self._jobs is not None and self._loop is not None:
            call.connection.is_condemned = True
            self._spawn(self._loop, self._jobs.stop(call.connection))

    def _begin_end(self) -> None:
        assert self._loop is not None
        self._ending = self._loop.create_task(self._end())

    async def _end(self) -> None:
        self._take()
        assert self._jobs is not None
        assert self._live is not None
        await self._live.empty()
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._live.close()
        await self._jobs.close()
        self._has_ended = True
        asyncio.get_running_loop().stop()


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody has heard of, as asyncio does.

    But not that a connection ended which the driver had given up before it stood: the driver leaves
    a future behind that then fails, and whoever wanted the connection was told of it long ago. No
    other future fails here, as what fails otherwise is a task.
    """
    error = context.get("exception")
    if type(context.get("future")) is asyncio.Future and error is not None and is_lost(error):
        logger.debug("a connection that was given up has ended: %r", error)
    else:
        loop.default_exception_handler(context)


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
