"""The lock on opening a database file, or on putting another in its place.

Whoever may open a file to read it, a folder included, can lock it with ``flock`` and keep all
others waiting (https://man7.org/linux/man-pages/man2/flock.2.html: "a shared or exclusive lock can
be placed on a file regardless of the mode in which the file was opened"). So the lock is a file of
its own that only those can open who may write to the database; it is there only while it is held.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from langswarm_session.errors import StorageBusyError, StorageUnavailableError
from langswarm_session.storage.sqlite.file_mode import writers_only

logger = logging.getLogger(__name__)

_NO_LOCKS = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK})
"""What file systems that do not lock say."""

_PAUSE = 0.005


@contextmanager
def locked(path: str, mode: int, seconds: float) -> Iterator[None]:
    """Let no other process that uses this lock open a database, or replace it, meanwhile.

    Args:
        path: The database, without symbolic links.
        mode: Its permissions, if it is still to be created.
        seconds: How long to wait for another process.

    Raises:
        StorageBusyError: If another process holds the lock for longer.
        StorageUnavailableError: If this user may not open the lock.
    """
    if not os.access(Path(path).parent, os.W_OK, effective_ids=_EFFECTIVE):
        # Nothing can be created, removed or renamed in there by this process.
        logger.debug("%s: its folder cannot be written, and so not locked", path)
        yield
        return
    name = f"{path}-langswarm-lock"
    handle = _acquire(path, name, mode, time.monotonic() + seconds, seconds)
    try:
        yield
    finally:
        # While it is held, so that nobody else's is removed.
        with suppress(FileNotFoundError):
            Path(name).unlink()
        if handle is not None:
            os.close(handle)


_EFFECTIVE = os.access in os.supports_effective_ids


def _acquire(path: str, name: str, mode: int, deadline: float, seconds: float) -> int | None:
    """Open and lock the file; None where the file system does not lock."""
    while True:
        try:
            handle = _try(path, name, mode)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            logger.debug("%s cannot be locked (%s)", name, error)
            return None
        if handle is not None:
            return handle
        if time.monotonic() > deadline:
            raise _too_late(path, name, seconds)
        time.sleep(_PAUSE)


def _try(path: str, name: str, mode: int) -> int | None:
    """Open and lock the file; None if another process has it."""
    try:
        handle = _open(path, name, mode)
    except PermissionError:
        return None  # another user may be about to set its permissions
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It may have been removed by the process that held it before.
        if os.fstat(handle).st_ino == Path(name).stat().st_ino:
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _open(path: str, name: str, mode: int) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    try:
        handle = os.open(name, flags | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(name, flags)
    _share(handle, path, mode)
    return handle


def _share(handle: int, path: str, mode: int) -> None:
    """Let those lock a new file who may write to the database."""
    with suppress(FileNotFoundError):
        database = Path(path).stat()
        mode = database.st_mode
        if database.st_gid != os.fstat(handle).st_gid:
            # For a user who is not in that group, it stays the owner's alone.
            with suppress(PermissionError):
                os.fchown(handle, -1, database.st_gid)
    os.fchmod(handle, writers_only(mode))


def _too_late(path: str, name: str, seconds: float) -> StorageBusyError | StorageUnavailableError:
    if not os.access(name, os.W_OK, effective_ids=_EFFECTIVE) and Path(name).exists():
        return StorageUnavailableError(
            f"{name} cannot be opened, which locks the database while it is being opened; "
            "if no process of its owner uses the database, remove it"
        )
    return StorageBusyError(
        f"{path}: another process has been opening it for {seconds:g} seconds; try again"
    )
