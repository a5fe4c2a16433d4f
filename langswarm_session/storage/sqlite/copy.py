"""A copy of a database as a connection sees it, to take the place of the file."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from langswarm_session.storage.sqlite.file_mode import PRIVATE, create_file


def copy_database(connection: sqlite3.Connection, path: str, copy: Path) -> None:
    """Copy a database, with what is only in its write-ahead log. Blocks.

    Args:
        connection: A connection to it.
        path: The database, whose owner and permissions the copy is given.
        copy: Where the copy is to be, which is on the disk when this returns.

    Raises:
        sqlite3.Error, OSError: If there is no space for it, for one.
    """
    # Nobody else can open it before it has the permissions of the database.
    create_file(copy, PRIVATE)
    with closing(sqlite3.connect(copy)) as target:
        target.execute("PRAGMA journal_mode = OFF")
        connection.backup(target)
    own, theirs = copy.stat(), Path(path).stat()
    if (own.st_uid, own.st_gid) != (theirs.st_uid, theirs.st_gid):
        os.chown(copy, theirs.st_uid, theirs.st_gid)
    # Last, so that no other owner or group is given what is theirs.
    shutil.copymode(path, copy)
    sync(copy)


def sync(path: Path) -> None:
    """See that a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
