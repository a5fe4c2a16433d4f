"""The permissions of the files that hold conversations.

SQLite makes a new file with the mode 0644, less what the umask takes away, and gives its ``-wal``,
``-shm`` and ``-journal`` the permissions of the database (https://www.sqlite.org/compile.html,
``SQLITE_DEFAULT_FILE_PERMISSIONS``). So a file that is created with the right mode before SQLite
opens it is all that is needed.
"""

from __future__ import annotations

import os

from langswarm_session.errors import InvalidInputError

PRIVATE = 0o600
"""For the user that the process runs as, and nobody else."""

_ALL = 0o777


def check_mode(mode: object) -> int:
    """Return the permissions of new files.

    Args:
        mode: The permissions, as in ``0o660``; a text holds the octal digits, as in ``"0660"``.

    Raises:
        InvalidInputError: If they are not permissions that this process could use the file with.
    """
    number = _octal(mode) if isinstance(mode, str) else mode
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= _ALL:
        raise InvalidInputError(
            f"mode {mode!r} is not a file's permissions; write them in octal, as in 0o660 or '0660'"
        )
    if number & PRIVATE != PRIVATE:
        raise InvalidInputError(
            f"mode {number:#o} keeps the owner from reading or writing; add 0o600 to it"
        )
    return number


def _octal(text: str) -> int | None:
    try:
        return int(text, 8)
    except ValueError:
        return None


def create_file(path: str | os.PathLike[str], mode: int) -> bool:
    """Create an empty file with exactly these permissions; False if there is a file already.

    Nobody can open it with more permissions meanwhile: what the umask took away is added last.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        return False
    try:
        os.fchmod(handle, mode)
    finally:
        os.close(handle)
    return True


def writers_only(mode: int) -> int:
    """Return the permissions that let only those open a file who may write to one of this mode."""
    writes = mode & 0o222
    return writes | writes << 1
