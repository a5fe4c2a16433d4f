"""Threads and connections under the SQLite storage.

One writer thread takes whatever writes have queued up and commits them together, so that many
sessions share the cost of one ``fsync``; a few reader threads with connections of their own read
beside it. Callers on any thread and any event loop await the outcome on their own loop.

A small piece of work that has the engine to itself is done on the caller's own thread, as long as
such work has lately taken less than 2 ms, nobody else has to be waited for, and nobody watches for
calls that block an event loop; what would block goes to the threads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from langswarm_session._sync.threads import start_thread
from langswarm_session.errors import (
    StorageBusyError,
    StorageClosedError,
    StorageUnavailableError,
)
from langswarm_session.storage.calls import deliver
from langswarm_session.storage.inline import Contention, LatencyGate, is_watched
from langswarm_session.storage.sqlite.calls import Job, JobCall, Wait
from langswarm_session.storage.sqlite.errors import ReplacedError, is_busy, let_go, typed_error
from langswarm_session.storage.sqlite.file import DatabaseFile, OpenFiles
from langswarm_session.storage.sqlite.problems import Trouble
from langswarm_session.storage.sqlite.schema import MIGRATIONS
from langswarm_session.storage.sqlite.writer import Writer

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_BATCH = 512
"""How many writes share a commit at most, so that the first of them need not wait long."""


class _Signal(Enum):
    """What a thread finds in its queue beside calls."""

    LOOK = "look after the write-ahead log"
    END = "end"


_LATER: Any = object()
"""In place of a result: it was not done here and now."""


class _Reader:
    """A connection that reads the file that the writer has open. For one thread at a time.

    Where nobody writes, it is who notices that the file is another one, though not at once.
    """

    _LOOK_EVERY = 1.0  # seconds

    def __init__(self, file: DatabaseFile, busy_timeout: float) -> None:
        self._file = file
        self._busy_timeout = busy_timeout
        self._connection: sqlite3.Connection | None = None
        self._files: OpenFiles | None = None
        self._look_at = 0.0

    def run(self, job: Job[T], files: OpenFiles | None) -> T:
        """Do a job with a connection to what the writer has open.

        Raises:
            ReplacedError: If that is not what is there.
        """
        if files is not self._files or self._sees_others(files):
            self.close()
        if self._connection is None:
            self._connection = self._file.open_to_read(self._busy_timeout, files)
            self._files = files
        try:
            return job(self._connection)
        except Exception as error:
            let_go(error)
            raise

    def _sees_others(self, files: OpenFiles | None) -> bool:
        """Whether it is time to look, and another file is there now."""
        moment = time.monotonic()
        if moment < self._look_at:
            return False
        self._look_at = moment + self._LOOK_EVERY
        return files is None or not files.has_database

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class SQLiteEngine:
    """Runs jobs against one database file.

    Args:
        file: The file.
        max_readers: How many reads may go on at once.
        max_waiting: How many calls may wait; further ones are refused.
        timeout: How long a call may wait for its outcome, in seconds.
    """

    def __init__(
        self, file: DatabaseFile, *, max_readers: int, max_waiting: int, timeout: float
    ) -> None:
        self.path = file.path
        self._file = file
        self._max_readers = max_readers
        self._max_waiting = max_waiting
        self._timeout = timeout
        self._closed = False
        self._gathered: dict[asyncio.AbstractEventLoop, list[JobCall]] = {}
        # Writes that were accepted, by callers, and finished, under the writer's lock.
        self._accepted = self._finished = 0
        self._contention = Contention()
        self._trouble = Trouble()
        self._start_afresh()
        _engines.add(self)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._writer = Writer(self._file)
        self._writes: SimpleQueue[JobCall | _Signal] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._batch: list[JobCall] = []  # what the writer's thread has taken
        self._reads: SimpleQueue[JobCall | _Signal] = SimpleQueue()
        self._reading_lock = threading.Lock()
        self._reading = 0
        self._readers: list[threading.Thread] = []
        # The one reader that is used on callers' own threads.
        self._here = threading.Lock()
        self._reader: _Reader | None = _Reader(self._file, busy_timeout=0)
        self._read_gate = LatencyGate()

    async def write(
        self, job: Job[T], *, is_small: bool = False, size: int = 0, must: bool = False
    ) -> T:
        """Run a job in a transaction of the writer and return its result once that is durable.

        A job may be run again after a rollback. It must not write before it raises a
        `SessionError`, but for a `SessionStorageError`: the transaction may be shared and goes on.

        Args:
            job: What to do.
            is_small: Whether it reads and writes little, whatever is stored.
            size: How many characters it stores.
            must: Whether it is accepted however many calls wait.

        Raises:
            StorageClosedError: If the engine was closed.
            StorageBusyError: If too many calls wait, or this one has waited for too long.
            SessionStorageError, sqlite3.IntegrityError
        """
        call = JobCall(job, is_small=is_small, size=size)
        with self._lock:
            self._refuse(0 if must else self._accepted - self._finished)
            self._accepted += 1
            at_once = not self._contention.is_likely and self._may_write_here(call)
            if not at_once:
                gathered = self._gathered.get(call.loop)
                self._gathered.setdefault(call.loop, []).append(call)
        if at_once:
            self._write_here(call)
        elif gathered is None:
            # Once whoever else is about to write from this loop has said so.
            call.loop.call_soon(self._hand_over, call.loop)
        try:
            return await call.outcome()  # type: ignore[no-any-return]
        finally:
            if call.wait is not None:
                call.wait.leave()

    async def read(self, job: Job[T], *, is_small: bool = False) -> T:
        """Run a job on a reader's connection and return its result.

        Args:
            job: What to do.
            is_small: Whether it reads little, whatever is stored.

        Raises:
            As `write`.
        """
        while True:
            if self._writer.files is None:
                await self.write(_nothing)
            try:
                return await self._read_anywhere(job, is_small=is_small)
            except ReplacedError:
                await self.write(_nothing)  # the writer notices, unless it has done so already

    async def _read_anywhere(self, job: Job[T], *, is_small: bool) -> T:
        if is_small and self._read_gate.is_open and not is_watched():
            await asyncio.sleep(0)  # others on this loop may want their turn
            result = self._read_here(job)
            if result is not _LATER:
                return result
        call = JobCall(job, is_small=is_small)
        with self._lock:
            self._refuse(self._reading)
            with self._reading_lock:
                self._reading += 1
            if len(self._readers) < min(self._reading, self._max_readers):
                self._readers.append(self._start(self._read_forever))
            self._reads.put(call)
        wait = Wait([call], self._timeout, self.path)
        try:
            return await call.answer()  # type: ignore[no-any-return]
        finally:
            wait.leave()

    async def check(self) -> None:
        """Raise what calls have found wrong with the file, if it is so still.

        Raises:
            SessionStorageError
        """
        if self._trouble.full is not None:
            await self.write(_rewrite_a_page)
            self._trouble.full = None
        damage = self._trouble.damage(self._writer.files)
        if damage is not None:
            await self.write(_nothing)  # it may have been replaced, which only a write notices
            raise damage

    def close(self) -> None:
        """Finish what was accepted, then let go of the threads and connections. Blocks.

        Raises:
            StorageBusyError: If that takes longer than a call may.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._hand_over_all()
            self._end_threads()
        # The garbage collector may close from one of these threads, which cannot wait for itself.
        inside = threading.current_thread() in (self._thread, *self._readers)
        if self._thread is not None and not inside:
            self._thread.join(self._timeout)
            if self._thread.is_alive():
                raise StorageBusyError(
                    f"{self.path}: it was not closed in {self._timeout:g} seconds, as what was "
                    "accepted is being written still; it closes by itself when that is done"
                )

    def _refuse(self, waiting: int) -> None:
        if self._closed:
            raise StorageClosedError(f"{self.path}: the storage was closed")
        if waiting >= self._max_waiting:
            raise StorageBusyError(
                f"{self.path}: {waiting} calls wait already; try again later, or raise max_waiting"
            )

    # On the callers' threads

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Do what a loop has gathered here and now, if it is little; else queue it."""
        with self._lock:
            calls = self._gathered.pop(loop, [])
            self._contention.record(len(calls))
            if not (len(calls) == 1 and self._may_write_here(calls[0])):
                self._queue(calls)
                if calls:
                    Wait(calls, self._timeout, self.path)
                return
        self._write_here(calls[0])

    def _hand_over_all(self) -> None:
        for calls in self._gathered.values():
            self._queue(calls)
        self._gathered = {}

    def _queue(self, calls: list[JobCall]) -> None:
        if calls and self._thread is None:
            self._thread = self._start(self._write_forever)
        for call in calls:
            self._writes.put(call)

    def _may_write_here(self, call: JobCall) -> bool:
        """Whether the call is to be done at once; if so, the writer's lock is held."""
        writer = self._writer
        if not (call.is_small and writer.gate.is_open and self._accepted - self._finished == 1):
            return False
        if is_watched() or not writer.lock.acquire(blocking=False):
            return False
        if not writer.is_open:
            writer.lock.release()
            return False
        return True

    def _write_here(self, call: JobCall) -> None:
        writer = self._writer
        try:
            if call.is_wanted and not writer.commit_now(call):
                self._writes.put(call)
                Wait([call], self._timeout, self.path)
                return
            self._finished += 1
            if call.error is not None:
                self._trouble.met(call.error, self._writer.files)
        except BaseException:
            # An interrupt on this thread: whoever waits for the call would wait for ever.
            call.interrupt()
            self._finished += 1
            raise
        finally:
            writer.lock.release()
        if writer.wants_checkpoint:
            self._writes.put(_Signal.LOOK)
        call.resolve()

    def _read_here(self, job: Job[T]) -> T:
        if not self._here.acquire(blocking=False):
            return _LATER  # type: ignore[no-any-return]
        started = time.perf_counter()
        try:
            if self._reader is None or self._closed:
                return _LATER  # type: ignore[no-any-return]
            return self._reader.run(job, self._writer.files)
        except Exception as error:  # noqa: BLE001 - as one of ours
            if isinstance(error, sqlite3.Error) and is_busy(error):
                return _LATER  # type: ignore[no-any-return]
            known = typed_error(error, self.path)
            self._trouble.met(known, self._writer.files)
            raise known from None  # what it was may quote what is stored
        finally:
            self._read_gate.record(time.perf_counter() - started)
            self._here.release()

    # Threads

    def _start(self, run: Callable[[], None]) -> threading.Thread:
        return start_thread(run, f"langswarm-sqlite-{self.path}")

    def _end_threads(self) -> None:
        for _ in self._readers:
            self._reads.put(_Signal.END)
        if self._thread is not None:
            self._writes.put(_Signal.END)

    def _write_forever(self) -> None:
        try:
            self._write_until_end()
        except BaseException:
            self._fail_writes()
            raise

    def _fail_writes(self) -> None:
        """Tell those that still wait that the thread has ended; the next call starts another.

        Nothing should end it but `close`: an exception here was raised in it from outside.
        """
        with self._lock:
            self._thread = None
            calls = self._batch
            while not self._writes.empty():
                waiting = self._writes.get()
                if isinstance(waiting, JobCall):
                    calls.append(waiting)
            self._batch = []
            self._finished += len(calls)
        logger.error("%s: the writer's thread has ended; %d calls waited", self.path, len(calls))
        for call in calls:
            begun = call.is_claimed
            kept = "it was begun and may be stored" if begun else "nothing of it was kept"
            message = f"{self.path}: the writer's thread has ended; {kept}; try again"
            call.error = StorageUnavailableError(message, may_be_stored=begun)
        deliver(calls)

    def _write_until_end(self) -> None:
        writer = self._writer
        more = True
        while more:
            more = self._next_batch()
            self._write_batch()
            if writer.wants_checkpoint:
                with writer.lock:
                    writer.checkpoint()
        for thread in self._readers:
            thread.join()
        with self._here:
            if self._reader is not None:
                self._reader.close()
            self._reader = None
        with writer.lock:
            writer.files = None
        # One that was not done on its caller's thread after all may have come after the end.
        while not self._writes.empty():
            self._next_batch()
            self._write_batch()
        with writer.lock:
            writer.end()

    def _write_batch(self) -> None:
        calls = self._batch
        with self._writer.lock:
            self._writer.commit(calls)
            self._finished += len(calls)
            for call in calls:
                if call.error is not None:
                    self._trouble.met(call.error, self._writer.files)
        self._batch = []  # nothing is kept of what came of them, which is its callers' alone
        deliver(calls)

    def _next_batch(self) -> bool:
        """Take the calls that wait; whether the queue goes on after them."""
        found = self._writes.get()
        try:
            while isinstance(found, JobCall):
                self._batch.append(found)
                if len(self._batch) == MAX_BATCH:
                    return True
                found = self._writes.get_nowait()
        except Empty:
            return True
        return found is not _Signal.END

    def _read_forever(self) -> None:
        reader = _Reader(self._file, self._file.busy_timeout)
        try:
            while self._read_next(reader):
                pass
        finally:
            reader.close()

    def _read_next(self, reader: _Reader) -> bool:
        """Do one of the reads that wait, and keep nothing of it; whether there may be more."""
        call = self._reads.get()
        if not isinstance(call, JobCall):
            return False
        started = time.perf_counter()
        try:
            if call.claim():
                call.result = reader.run(call.job, self._writer.files)
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            call.error = typed_error(error, self.path)
            self._trouble.met(call.error, self._writer.files)
        except BaseException:
            # Raised from outside, which ends this thread: another one reads what waits.
            call.error = StorageUnavailableError(
                f"{self.path}: the thread that read has ended; try again"
            )
            with self._lock:
                self._readers.remove(threading.current_thread())
                self._readers.append(self._start(self._read_forever))
            raise
        finally:
            with self._reading_lock:
                self._reading -= 1
            deliver([call])
        if call.is_small:
            self._read_gate.record(time.perf_counter() - started)
        return True

    # Forks

    def _before_fork(self) -> None:
        """Finish and close everything, and let nobody begin anew before the fork is done.

        SQLite must not be open across a fork: its locks do not survive it, but what it remembers
        of them does (https://www.sqlite.org/howtocorrupt.html, section 2.6).
        """
        self._lock.acquire()
        self._hand_over_all()
        self._end_threads()
        if self._thread is not None:
            self._thread.join()

    def _after_fork_in_parent(self) -> None:
        lock = self._lock
        self._start_afresh()
        lock.release()


def _nothing(_: sqlite3.Connection) -> None:
    return None


def _rewrite_a_page(connection: sqlite3.Connection) -> None:
    """Write what changes nothing and takes space in the log all the same."""
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


_engines: weakref.WeakSet[SQLiteEngine] = weakref.WeakSet()


def _for_each_engine(method: Callable[[SQLiteEngine], None]) -> Callable[[], None]:
    def call() -> None:
        for engine in list(_engines):
            method(engine)

    return call


os.register_at_fork(
    before=_for_each_engine(SQLiteEngine._before_fork),
    after_in_parent=_for_each_engine(SQLiteEngine._after_fork_in_parent),
    after_in_child=_for_each_engine(SQLiteEngine._start_afresh),
)
