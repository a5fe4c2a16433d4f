"""The database file: opening connections to it, and noticing that it is another one."""

from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from langswarm_session.storage.sqlite_errors import is_busy
from langswarm_session.storage.sqlite_schema import check, migrate, snapshot

Synchronous = Literal["FULL", "NORMAL"]
Identity = tuple[int, int]
"""A file's device and number, which its name does not tell."""


@dataclass(frozen=True, slots=True)
class DatabaseFile:
    """Where the database is, and how it is opened.

    Attributes:
        path: The file.
        synchronous: ``FULL`` to survive a power cut, ``NORMAL`` to survive a killed process only.
        busy_timeout: How long to wait for other processes, in seconds.
    """

    path: str
    synchronous: Synchronous
    busy_timeout: float

    def identity(self) -> Identity | None:
        """Which file is at the path now; None if there is none."""
        try:
            found = os.stat(self.path)  # noqa: PTH116 - at each commit, and Path takes 4 us more
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def log_size(self) -> int:
        """How many bytes the write-ahead log's file has."""
        try:
            return os.stat(f"{self.path}-wal").st_size  # noqa: PTH116 - at each commit, as above
        except FileNotFoundError:
            return 0

    def open(self) -> sqlite3.Connection:
        """A connection to write with; makes the file and brings its schema up to date.

        Raises:
            StorageVersionError, StorageCorruptError, sqlite3.Error, OSError
        """
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        connection = self._connect(self.path, self.busy_timeout)
        try:
            connection.execute(f"PRAGMA synchronous = {self.synchronous}")
            # Deleting means deleting: freed space is overwritten.
            connection.execute("PRAGMA secure_delete = ON")
            # Nobody waits for a checkpoint at a commit: the writer makes them afterwards.
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            with snapshot(connection):
                check(connection, self.path)
            self._use_wal(connection)
            migrate(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def open_to_read(self, busy_timeout: float) -> sqlite3.Connection:
        """A connection that cannot write.

        Args:
            busy_timeout: How long it waits for other processes, in seconds.

        Raises:
            sqlite3.Error: If the file cannot be opened.
        """
        address = Path(self.path).absolute().as_uri() + "?mode=ro"
        return self._connect(address, busy_timeout, uri=True)

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
        return sqlite3.connect(
            database,
            uri=uri,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=False,
        )
