"""Threads and connections under the SQLite storage.

One writer thread takes whatever writes have queued up and commits them together, so that many
sessions share the cost of one ``fsync``; a few reader threads with connections of their own read
beside it. Callers on any thread and any event loop await the outcome on their own loop.

A hop to one of these threads and back takes half of what one through aiosqlite takes (35 against
84 microseconds for a statement and its rows), and aiosqlite has one connection with one queue for
reads and writes alike, without a group commit: ``benchmarks/`` measures it beside this engine.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal, TypeVar

from langswarm_session.errors import (
    SessionError,
    SessionStorageError,
    StorageBusyError,
    StorageClosedError,
    StorageCorruptError,
    StorageFullError,
    StorageUnavailableError,
)
from langswarm_session.storage.calls import Call, deliver
from langswarm_session.storage.sqlite_schema import check, migrate, snapshot

logger = logging.getLogger(__name__)

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]
Synchronous = Literal["FULL", "NORMAL"]

MAX_BATCH = 512
"""How many writes share a commit at most, so that the first of them need not wait long."""

_ERRORS: dict[int, tuple[type[SessionStorageError], str]] = {
    sqlite3.SQLITE_BUSY: (StorageBusyError, "another process kept the database locked; try again"),
    sqlite3.SQLITE_LOCKED: (StorageBusyError, "the database is locked; try again"),
    sqlite3.SQLITE_FULL: (StorageFullError, "the disk is full; free some space and try again"),
    sqlite3.SQLITE_READONLY: (StorageUnavailableError, "the database cannot be written"),
    sqlite3.SQLITE_CANTOPEN: (StorageUnavailableError, "the database cannot be opened"),
    sqlite3.SQLITE_PERM: (StorageUnavailableError, "no permission to use the database"),
    sqlite3.SQLITE_IOERR: (StorageUnavailableError, "the disk failed to read or write"),
    sqlite3.SQLITE_CORRUPT: (StorageCorruptError, "the database is damaged; restore a copy"),
    sqlite3.SQLITE_NOTADB: (StorageCorruptError, "the file is not a SQLite database"),
}


def typed_error(error: Exception, path: str) -> SessionError:
    """Our error for one of SQLite's; errors that are ours already come back as they are."""
    if isinstance(error, SessionError):
        return error
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StorageFullError(f"{path}: the disk is full; free some space and try again")
        return StorageUnavailableError(f"{path}: the database cannot be opened ({error.strerror})")
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    kind, hint = _ERRORS.get(primary, (SessionStorageError, "the database refused the operation"))
    return kind(f"{path}: {hint} ({error})")


class _Call(Call):
    """A job, and who waits for its outcome."""

    __slots__ = ("job",)

    def __init__(self, job: Job[Any]) -> None:
        super().__init__()
        self.job = job


class SQLiteEngine:
    """Runs jobs against one database file.

    Args:
        path: The file.
        synchronous: ``FULL`` to survive a power cut, ``NORMAL`` to survive a killed process only.
        busy_timeout: How long to wait for other processes, in seconds.
        max_readers: How many reads may go on at once.
    """

    def __init__(
        self, path: str, *, synchronous: Synchronous, busy_timeout: float, max_readers: int
    ) -> None:
        self.path = path
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._max_readers = max_readers
        self._closed = False
        self._start_afresh()
        _engines.add(self)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._reading_lock = threading.Lock()
        self._reading = 0
        self._file: tuple[int, int] | None = None
        self._writes: SimpleQueue[_Call | None] = SimpleQueue()
        self._reads: SimpleQueue[_Call | None] = SimpleQueue()
        self._writer: threading.Thread | None = None
        self._readers: list[threading.Thread] = []

    async def write(self, job: Job[T]) -> T:
        """Run a job in a transaction of the writer and return its result once that is durable.

        A job may be run again after a rollback. It must not write before it raises a
        `SessionError`: the transaction may be shared and goes on.
        """
        call = _Call(job)
        self._submit(call)
        return await call.future  # type: ignore[no-any-return]

    async def read(self, job: Job[T]) -> T:
        """Run a job on a reader's connection and return its result."""
        if self._file is None:
            await self.write(_nothing)
        call = _Call(job)
        with self._lock:
            self._refuse_if_closed()
            with self._reading_lock:
                self._reading += 1
            if len(self._readers) < min(self._reading, self._max_readers):
                self._readers.append(self._start(self._read_forever))
            self._reads.put(call)
        return await call.future  # type: ignore[no-any-return]

    def close(self) -> None:
        """Finish what was accepted, then let go of the threads and connections. Blocks."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._end_threads()
        # The garbage collector may close from one of these threads, which cannot wait for itself.
        inside = threading.current_thread() in (self._writer, *self._readers)
        if self._writer is not None and not inside:
            self._writer.join()

    def _end_threads(self) -> None:
        for _ in self._readers:
            self._reads.put(None)
        self._writes.put(None)

    def _before_fork(self) -> None:
        """Finish and close everything, and let nobody begin anew before the fork is done.

        SQLite must not be open across a fork: its locks do not survive it, but what it remembers
        of them does (https://www.sqlite.org/howtocorrupt.html, section 2.6).
        """
        self._lock.acquire()
        self._end_threads()
        if self._writer is not None:
            self._writer.join()

    def _after_fork_in_parent(self) -> None:
        lock = self._lock
        self._start_afresh()
        lock.release()

    def _submit(self, call: _Call) -> None:
        with self._lock:
            self._refuse_if_closed()
            if self._writer is None:
                self._writer = self._start(self._write_forever)
            self._writes.put(call)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StorageClosedError(f"{self.path}: the storage was closed")

    def _start(self, run: Callable[[], None]) -> threading.Thread:
        # Daemons, so that a forgotten close() cannot keep the interpreter from its exit.
        thread = threading.Thread(target=run, name=f"langswarm-sqlite-{self.path}", daemon=True)
        thread.start()
        return thread

    # The writer's thread

    def _write_forever(self) -> None:
        connection: sqlite3.Connection | None = None
        more = True
        while more:
            calls, more = self._next_batch()
            if calls:
                try:
                    connection = self._current(connection)
                except Exception as error:  # noqa: BLE001 - whoever waits gets it
                    connection = None
                    self._file = None
                    for call in calls:
                        call.error = typed_error(error, self.path)
                else:
                    self._commit(connection, calls)
            deliver(calls)
        for thread in self._readers:
            thread.join()
        # The last connection to close folds the write-ahead log into the file.
        if connection is not None:
            connection.close()

    def _next_batch(self) -> tuple[list[_Call], bool]:
        """The calls that wait, at least one unless the queue has ended; and whether it goes on."""
        calls: list[_Call] = []
        call = self._writes.get()
        try:
            while call is not None:
                calls.append(call)
                if len(calls) == MAX_BATCH:
                    return calls, True
                call = self._writes.get_nowait()
        except Empty:
            return calls, True
        return calls, False

    def _commit(self, connection: sqlite3.Connection, calls: list[_Call]) -> None:
        """Run the calls in one transaction; if that fails, each in one of its own."""
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            for call in calls:
                call.error = typed_error(error, self.path)
            return
        try:
            for call in calls:
                try:
                    call.result, call.error = call.job(connection), None
                except SessionError as error:
                    call.error = error
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if len(calls) > 1:
                for call in calls:
                    self._commit(connection, [call])
            elif isinstance(error, sqlite3.IntegrityError):
                calls[0].error = error  # for the job's owner, who knows what it means
            else:
                calls[0].error = typed_error(error, self.path)

    def _current(self, connection: sqlite3.Connection | None) -> sqlite3.Connection:
        """The connection, opened if need be, to the file that is at the path now."""
        if connection is None:
            connection = self._open()
            self._file = self._identity()
        elif self._identity() != self._file:
            # What is written to a file that has no name any more is lost with the process.
            connection.close()
            raise StorageUnavailableError(
                f"{self.path}: the database was removed or replaced while it was in use; nothing "
                "of this write was kept, and the next one uses the file that is there then"
            )
        return connection

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = Path(self.path).stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _open(self) -> sqlite3.Connection:
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        connection = self._connect(self.path)
        try:
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            # Deleting means deleting: freed space is overwritten.
            connection.execute("PRAGMA secure_delete = ON")
            with snapshot(connection):
                check(connection, self.path)
            self._use_wal(connection)
            migrate(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        # SQLite does not wait by itself when several processes switch a new file at once.
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    # The readers' threads

    def _read_forever(self) -> None:
        connection: sqlite3.Connection | None = None
        file: tuple[int, int] | None = None
        while (call := self._reads.get()) is not None:
            try:
                if connection is not None and file != self._file:
                    connection.close()
                    connection = None
                if connection is None:
                    file = self._file
                    address = Path(self.path).absolute().as_uri() + "?mode=ro"
                    connection = self._connect(address, uri=True)
                call.result = call.job(connection)
            except Exception as error:  # noqa: BLE001 - whoever waits gets it
                call.error = typed_error(error, self.path)
            with self._reading_lock:
                self._reading -= 1
            deliver([call])
        if connection is not None:
            connection.close()

    def _connect(self, database: str, *, uri: bool = False) -> sqlite3.Connection:
        return sqlite3.connect(
            database,
            uri=uri,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
        )


def _nothing(_: sqlite3.Connection) -> None:
    return None


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
