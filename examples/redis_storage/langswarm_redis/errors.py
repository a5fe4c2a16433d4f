"""Redis' errors as those of langswarm-session, and what may be tried again after which."""

from __future__ import annotations

import re

from redis import exceptions

from langswarm_session.errors import (
    SessionError,
    SessionStorageError,
    StorageBusyError,
    StorageCorruptError,
    StorageFullError,
    StorageUnavailableError,
)

_BY_CODE: dict[str, tuple[type[SessionError], str]] = {
    "OOM": (StorageFullError, "the server's memory is full (maxmemory); nothing was stored"),
    "MISCONF": (StorageUnavailableError, "the server cannot write its files and takes no writes"),
    "READONLY": (StorageUnavailableError, "the server is a replica and takes no writes"),
    "NOREPLICAS": (StorageUnavailableError, "too few replicas follow the server"),
    "MASTERDOWN": (StorageUnavailableError, "the server has lost its primary"),
    "BUSY": (StorageBusyError, "a script keeps the server busy; try again"),
    "NOPERM": (StorageUnavailableError, "this user may not use the keys or commands it needs"),
    "NOAUTH": (StorageUnavailableError, "the server wants a password"),
    "WRONGPASS": (StorageUnavailableError, "the server refused the login"),
    "MOVED": (StorageUnavailableError, "the server is part of a cluster, which cannot be used"),
    "CROSSSLOT": (StorageUnavailableError, "the server is part of a cluster, which cannot be used"),
    "WRONGTYPE": (StorageCorruptError, "other keys have these names; use another prefix"),
}
_CODES = re.compile(rf"\b({'|'.join(_BY_CODE)})\b")
_KNOWN: dict[type[Exception], str] = {
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.NoPermissionError: "NOPERM",
}
_DAMAGED = re.compile(
    r"not an integer|user_script:\d+: (attempt to|bad argument)|must be strings or integers"
)
"""What the server says where a script, or a command, meets what is no number or not there."""

_NO_SPACE = re.compile(r"no space left", re.IGNORECASE)


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone or not to be made, so that trying again may help."""
    refused = (exceptions.AuthenticationError, exceptions.AuthorizationError)
    gone = (exceptions.ConnectionError, exceptions.TimeoutError, OSError)
    return isinstance(error, gone) and not isinstance(error, refused)


def typed_error(error: BaseException, name: str) -> SessionError:
    """Our error for one of the client's; errors that are ours already come back as they are.

    Args:
        error: What was raised, or the server's answer.
        name: What to call the server in messages, without secrets.
    """
    if isinstance(error, SessionError):
        return error
    typed = _typed(error, name)
    typed.__cause__ = error
    return typed


def _typed(error: BaseException, name: str) -> SessionError:
    said = str(error)
    if is_lost(error):
        return StorageUnavailableError(f"{name}: the server cannot be reached ({said})")
    if isinstance(error, exceptions.AuthenticationError):
        return StorageUnavailableError(f"{name}: the server refused the login ({said})")
    kind, hint = _BY_CODE.get(_code(error), (SessionStorageError, "the operation failed"))
    if _DAMAGED.search(said):
        kind, hint = StorageCorruptError, "what is stored is damaged; restore a copy"
    if _NO_SPACE.search(said):
        kind, hint = StorageFullError, "the server's disk is full"
    return kind(f"{name}: {hint} ({said or type(error).__name__})")


def _code(error: BaseException) -> str:
    """The code that the server's answer began with; the client takes off those it knows."""
    for kind, code in _KNOWN.items():
        if isinstance(error, kind):
            return code
    found = _CODES.search(str(error)) if isinstance(error, exceptions.ResponseError) else None
    return found[1] if found else ""
