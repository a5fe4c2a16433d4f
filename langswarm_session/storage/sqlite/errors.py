"""SQLite's errors, and the file system's, as ours."""

from __future__ import annotations

import errno
import re
import sqlite3
import traceback

from langswarm_session.errors import (
    InvalidInputError,
    SessionError,
    SessionStorageError,
    StorageBusyError,
    StorageCorruptError,
    StorageFullError,
    StorageUnavailableError,
)

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

_TAKEN_ID = re.compile(r"^UNIQUE .*\bmessages\.id\b")

_UNREADABLE = re.compile(
    r"could not decode|unsupported file format|no such (column|table)|already exists", re.IGNORECASE
)
"""What SQLite and its module say of a file whose content makes no sense, and quote it."""


class ReplacedError(StorageUnavailableError):
    """The files that were in use are not those that are there. For use inside of the storage.

    Args:
        path: The database.
    """

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path}: the database, or its write-ahead log, was removed or replaced while it was "
            "in use; nothing of this call was kept, and the next one uses the file that is there "
            "then"
        )


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else has the database locked."""
    return _primary(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def needs_reopening(error: sqlite3.Error) -> bool:
    """Whether a connection that met this may go on to do so when the cause is gone."""
    return _primary(error) in (
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR,
    )


def typed_error(error: Exception, path: str) -> SessionError:
    """Our error for one of SQLite's; errors that are ours already come back as they are."""
    if isinstance(error, SessionError):
        return error
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StorageFullError(f"{path}: the disk is full; free some space and try again")
        return StorageUnavailableError(f"{path}: the database cannot be opened ({error.strerror})")
    if isinstance(error, UnicodeEncodeError):
        return InvalidInputError("a text that was given has a character that cannot be stored")
    if isinstance(error, OverflowError):
        return InvalidInputError("a number that was given is too large to be stored")
    if isinstance(error, (ValueError, IndexError)) or _UNREADABLE.search(str(error)):
        # Its own text may quote what is stored.
        return StorageCorruptError(
            f"{path}: the database is damaged; restore a copy (what is stored cannot be decoded)"
        )
    if _primary(error) == sqlite3.SQLITE_CONSTRAINT and not _TAKEN_ID.search(str(error)):
        # Ids come from outside; all else that is unique, or must be there, is given by the storage.
        return StorageCorruptError(
            f"{path}: the database is damaged; restore a copy (its rows do not fit together)"
        )
    other = (SessionStorageError, "the database refused the operation")
    kind, hint = _ERRORS.get(_primary(error), other)
    return kind(f"{path}: {hint} ({error})")


def let_go(error: BaseException) -> None:
    """Let go of what a job that failed had in hand.

    A cursor that was not read to its end would be kept with the error, by whoever keeps that, and
    its connection at what the database was at that moment.
    """
    traceback.clear_frames(error.__traceback__)


def _primary(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
