"""The database file: opening connections to it, and noticing that it is another one.

A file that is removed or replaced while it is used goes on without a name, and so does its
write-ahead log; SQLite finds the log by its name alone, and would use one file's log for another.
So whoever opens the file, or puts another in its place, has it to himself meanwhile, and removes a
log that belongs to no file any more.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from langswarm_session.errors import StorageCorruptError, StorageUnavailableError
from langswarm_session.storage.sqlite.copy import sync
from langswarm_session.storage.sqlite.errors import ReplacedError, is_busy
from langswarm_session.storage.sqlite.expected import mend
from langswarm_session.storage.sqlite.file_mode import PRIVATE, create_file
from langswarm_session.storage.sqlite.file_status import file_status
from langswarm_session.storage.sqlite.lock import locked
from langswarm_session.storage.sqlite.schema import check, migrate, snapshot

Synchronous = Literal["FULL", "NORMAL"]
Identity = tuple[int, int, int]
"""A file's device and number, which its name does not tell."""

_SHARED = ("1073741826", "1073742335")
"""The bytes that are locked by whoever has a SQLite file open (https://sqlite.org/fileformat.html,
section 1.3.1)."""
_PATIENCE = 2.0
"""How long to wait for a log that was removed to be put right, in seconds."""

_LONGEST = 2_000_000.0
"""How long SQLite can wait, in seconds: with more milliseconds than 31 bits it does not at all."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenFiles:
    """The files that a connection has open, told from others of the same names.

    Attributes:
        name: What the database was opened by.
        path: Where that was, without symbolic links.
        log: Its write-ahead log.
        database_identity: Which file the database is.
        log_identity: Which one the log is.
    """

    name: str
    path: str
    log: str
    database_identity: Identity | None
    log_identity: Identity | None

    @property
    def has_database(self) -> bool:
        """Whether the database still goes by its name."""
        return identity(self.name) == self.database_identity

    @property
    def has_log(self) -> bool:
        """Whether the log still goes by its name."""
        return identity(self.log) == self.log_identity

    @property
    def are_there(self) -> bool:
        """Whether both still go by their names."""
        return self.has_database and self.has_log

    def look(self) -> int:
        """See that both still go by their names; how many bytes the log has.

        Raises:
            ReplacedError: If one does not.
        """
        log = file_status(self.log)
        if (log and log.identity) != self.log_identity or not self.has_database:
            raise ReplacedError(self.name)
        return 0 if log is None else log.size


@dataclass(frozen=True, slots=True)
class DatabaseFile:
    """Where the database is, and how it is opened.

    Attributes:
        path: The file.
        synchronous: ``FULL`` to survive a power cut, ``NORMAL`` to survive a killed process only.
        busy_timeout: How long to wait for other processes, in seconds.
        mode: The permissions of the file, if it has to be created.
    """

    path: str
    synchronous: Synchronous
    busy_timeout: float
    mode: int = PRIVATE

    def open(self) -> tuple[sqlite3.Connection, OpenFiles]:
        """A connection to write with; makes the file and brings its schema up to date.

        Raises:
            StorageVersionError, StorageCorruptError, StorageUnavailableError, StorageBusyError,
            sqlite3.Error, OSError
        """
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + min(self.busy_timeout, _PATIENCE)
        while True:
            path = os.path.realpath(self.path)  # where SQLite has the log as well
            with self.alone(path):
                removed = _removed_in_use(path)
                if removed is None:
                    return self._open(path)
            if time.monotonic() > deadline:
                raise StorageUnavailableError(
                    f"{removed} was removed while the database is in use, and what was written "
                    "now would be lost; end whoever uses it, or let it write if that is the -wal"
                )
            time.sleep(0.02)

    def open_to_read(self, busy_timeout: float, files: OpenFiles | None) -> sqlite3.Connection:
        """A connection that cannot write.

        Args:
            busy_timeout: How long it waits for other processes, in seconds.
            files: What the connection that writes has open.

        Raises:
            ReplacedError: If that is not what is there.
            sqlite3.Error: If the file cannot be opened.
        """
        if files is None or not files.are_there:
            raise ReplacedError(self.path)
        address = Path(self.path).absolute().as_uri() + "?mode=ro"
        connection = self._connect(address, busy_timeout, uri=True)
        try:
            # SQLite opens the log at the first use.
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            if not files.are_there:
                raise ReplacedError(self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def alone(self, path: str) -> AbstractContextManager[None]:
        """Let no other process open the file, or put another in its place, meanwhile.

        Raises:
            StorageBusyError: If another does so for too long.
        """
        return locked(path, self.mode, self.busy_timeout)

    def remove_stale_log(self, files: OpenFiles) -> None:
        """Remove the log of a database that was removed or replaced, unless that has been done.

        Args:
            files: What this process has open still, so that no other can be taken for it.
        """
        with self.alone(files.path):
            if files.has_log and not files.has_database:
                _remove_log(files.path)

    def replace(self, files: OpenFiles, make_copy: Callable[[Path], None]) -> None:
        """Put a copy of the database in its place, unless another has come there meanwhile.

        Args:
            files: What this process has open.
            make_copy: Makes the copy at a path.
        """
        copy = _copy_of(files.path)
        with self.alone(files.path):
            if not files.has_database:
                return
            copy.unlink(missing_ok=True)
            try:
                make_copy(copy)
                _remove_log(files.path)
                copy.replace(files.path)
                sync(copy.parent)
            finally:
                copy.unlink(missing_ok=True)

    def _open(self, path: str) -> tuple[sqlite3.Connection, OpenFiles]:
        there = identity(path)
        _copy_of(path).unlink(missing_ok=True)  # of one who was killed as he made it
        if there is None:
            _remove_log(path)
            create_file(path, self.mode)
        elif not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            # SQLite would open it to read, and leave a log that cannot be written when this can.
            raise StorageUnavailableError(
                f"{path}: the database cannot be written; give this user the right to write to it"
            )
        connection = self._connect(self.path, self.busy_timeout)
        try:
            self._prepare(connection, path)
        except BaseException:
            connection.close()
            raise
        log = f"{path}-wal"
        return connection, OpenFiles(self.path, path, log, there or identity(path), identity(log))

    def _prepare(self, connection: sqlite3.Connection, path: str) -> None:
        connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        # Deleting means deleting: freed space is overwritten.
        connection.execute("PRAGMA secure_delete = ON")
        # Nobody waits for a checkpoint at a commit: the writer makes them afterwards.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        with snapshot(connection):
            check(connection, self.path)
        check_end(connection, path)
        self._use_wal(connection)
        if not migrate(connection, self.path):
            mend(connection, self.path)

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        # SQLite does not wait by itself when several processes switch a new file at once.
        deadline = time.monotonic() + self.busy_timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _connect(self, database: str, timeout: float, *, uri: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(
            database,
            uri=uri,
            timeout=min(timeout, _LONGEST),
            isolation_level=None,
            check_same_thread=False,
        )
        # What a file's own views and triggers may call of SQLite's functions: the harmless ones
        # (https://www.sqlite.org/security.html, "Untrusted SQLite Database Files").
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection


def identity(path: str) -> Identity | None:
    """Which file goes by a name now; None if there is none."""
    found = file_status(path)
    return None if found is None else found.identity


def check_end(connection: sqlite3.Connection, path: str) -> None:
    """Refuse a file that was cut short within its last page, which SQLite would take to be whole.

    Raises:
        StorageCorruptError
    """
    logs = (file_status(f"{path}{suffix}") for suffix in ("-wal", "-journal"))
    if any(log is not None and log.size for log in logs):
        return  # what is in them may be that page
    found = file_status(path)
    if found is not None and found.size % connection.execute("PRAGMA page_size").fetchone()[0]:
        raise StorageCorruptError(
            f"{path}: the database is damaged; restore a copy (it ends within a page)"
        )


def _copy_of(path: str) -> Path:
    return Path(f"{path}-langswarm-copy")


def _remove_log(path: str) -> None:
    """Remove a write-ahead log, and its index, that belong to no file any more."""
    for name in (f"{path}-wal", f"{path}-shm"):
        with suppress(FileNotFoundError):
            Path(name).unlink()


def _removed_in_use(path: str) -> str | None:
    """Which file that others use beside the database has no name any more, as far as Linux tells.

    Whoever came now would be given another log, or another index of it that holds other locks, and
    all would write to the one file.
    """
    missing = [f"{path}{each}" for each in ("-wal", "-shm") if not Path(f"{path}{each}").exists()]
    return missing[0] if missing and _is_in_use(path) and _has_log(path) else None


def _is_in_use(path: str) -> bool:
    """Whether a process has the database open, as far as Linux tells."""
    try:
        found = Path(path).stat()
        locks = Path("/proc/locks").read_text()
    except OSError:
        return False
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    wanted = ["READ", f"{device}:{found.st_ino}", *_SHARED]
    # 1: POSIX ADVISORY READ <pid> <device>:<number> <first> <last>
    fields = (line.split() for line in locks.splitlines())
    return any([*each[3:4], *each[5:8]] == wanted for each in fields)


def _has_log(path: str) -> bool:
    """Whether the database is one with a write-ahead log, and not with a rollback journal.

    SQLite is asked, since a process that closes a file which it opened itself loses all the locks
    that SQLite holds for it there. What needs locks to be read has a log: SQLITE_CANTOPEN without
    (https://www.sqlite.org/uri.html, "nolock").
    """
    address = Path(path).absolute().as_uri() + "?mode=ro&nolock=1"
    try:
        with closing(sqlite3.connect(address, uri=True)) as connection:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        return error.sqlite_errorcode == sqlite3.SQLITE_CANTOPEN
    return False
