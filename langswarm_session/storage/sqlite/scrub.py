"""Overwriting what deleted sessions left behind in a SQLite file."""

from __future__ import annotations

import sqlite3
import time

from langswarm_session.errors import StorageBusyError


def scrub(path: str, *, timeout: float) -> None:
    """Write the file anew without what was deleted, and empty the write-ahead log. Blocks.

    ``secure_delete`` overwrites what is freed, but where pages were split before, copies of it may
    be left in them; ``VACUUM`` writes every page anew.

    Args:
        path: The file.
        timeout: How long to wait for other processes, in seconds.

    Raises:
        sqlite3.Error: If the file cannot be written.
        StorageBusyError: If others read the old state of the file all the time.
    """
    connection = sqlite3.connect(path, timeout=timeout, isolation_level=None)
    try:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("VACUUM")
        deadline = time.monotonic() + timeout
        # Who reads meanwhile sees the file as it was, and keeps the log from being emptied.
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > deadline:
                raise StorageBusyError(
                    f"{path}: another process reads the database as it was before; what was "
                    "deleted is overwritten once it has ended and the erasure is done again"
                )
            time.sleep(0.05)
    finally:
        connection.close()
