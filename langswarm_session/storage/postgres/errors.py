"""PostgreSQL's errors as ours, and what may be tried again after which."""

from __future__ import annotations

import re
import ssl

import asyncpg  # type: ignore[import-untyped,import-not-found,unused-ignore]

from langswarm_session.errors import (
    InvalidInputError,
    SessionError,
    SessionStorageError,
    StorageBusyError,
    StorageCorruptError,
    StorageFullError,
    StorageUnavailableError,
)

_Kind = tuple[type[SessionError], str]

_TOO_LARGE = "a number, or the sum of the session's tokens, is too large to be stored"
_OUT_OF_RANGE = "a figure of the session is out of range: the database is damaged; restore a copy"
"""What is given is in range, as the driver or `langswarm_session._validation` have seen to."""
_TAKEN = "something else has these names; use another table_prefix"
_LOST = (
    "the tables or their functions are gone: if all are, the next call makes them again; if not, "
    "restore them from a backup, or drop the rest"
)
_CHANGED = (
    "the tables are not as they were made: restore them from a backup, or, if they are another "
    "program's, use another table_prefix"
)

_BY_STATE: dict[str, _Kind] = {
    "53100": (StorageFullError, "the server's disk is full; free some space and try again"),
    "53300": (StorageBusyError, "the server takes no more connections; try again"),
    "55P03": (StorageBusyError, "another process kept the session locked; try again"),
    "57014": (StorageBusyError, "the server took too long; try again"),
    "40001": (StorageBusyError, "other writes came in between; try again"),
    "40P01": (StorageBusyError, "other writes came in between; try again"),
    "25006": (StorageUnavailableError, "the server is read-only: a standby, or set so"),
    "42501": (StorageUnavailableError, "no permission to use the schema or its tables"),
    "3D000": (StorageUnavailableError, "there is no such database; create it"),
    "42P07": (StorageCorruptError, _TAKEN),
    "42710": (StorageCorruptError, _TAKEN),
    "42723": (StorageCorruptError, _TAKEN),
    "42P13": (StorageCorruptError, _TAKEN),
    "42703": (StorageCorruptError, _CHANGED),
    "42804": (StorageCorruptError, _CHANGED),
    "42P01": (StorageUnavailableError, _LOST),
    "42883": (StorageUnavailableError, _LOST),
    "3F000": (StorageUnavailableError, _LOST),
    "22003": (StorageCorruptError, _OUT_OF_RANGE),
    "54000": (InvalidInputError, "an id is too long to be stored"),
    "XX001": (StorageCorruptError, "the database is damaged; restore a copy"),
    "XX002": (StorageCorruptError, "an index of the database is damaged; REINDEX it"),
}  # fmt: skip

_BY_CLASS: dict[str, _Kind] = {
    "08": (StorageUnavailableError, "the connection broke"),
    "22": (InvalidInputError, "a value cannot be stored"),
    "28": (StorageUnavailableError, "the server refused the login"),
    "53": (StorageBusyError, "the server is short of resources; try again"),
    "57": (StorageUnavailableError, "the server is shutting down, starting or recovering"),
    "58": (StorageUnavailableError, "the server failed to read or write its files"),
}

GONE = frozenset({"42P01", "42883", "3F000"})
"""The states that say that our tables or functions are not there (any more)."""

STALE = frozenset({"26000", "42P05", "0A000"})
"""The states that say that a prepared statement is no good any more; nothing was run."""

_REFUSED = ("23", "40")
"""The classes of states that say that a statement was undone, and nothing else."""

_QUOTED = re.compile('"([^"]+)"')

_OF_PARAMETERS = frozenset({"22023", "42704", "55P02"})
"""The states that say, when a connection is made, that a parameter of the server is none, cannot be
set, or not to this."""

_TLS_BROKE = (ssl.SSLEOFError, ssl.SSLSyscallError, ssl.SSLZeroReturnError)
"""The errors of TLS that say that the connection ended; the others say that it is not to be."""

_SERVER_LEAVES = frozenset({"57P01", "57P02", "57P03", "57P05"})
_TRANSIENT = frozenset({"53300", "40001", "40P01"})


def state_of(error: BaseException) -> str:
    """The SQLSTATE of an error, or nothing."""
    return getattr(error, "sqlstate", None) or ""


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, so that the outcome of what was sent is unknown."""
    state = state_of(error)
    if state:
        return state in _SERVER_LEAVES or state.startswith("08")
    if isinstance(error, asyncpg.InterfaceError):
        return not isinstance(error, ValueError)
    return isinstance(error, (OSError, EOFError, asyncpg.InternalClientError))


def is_refused(error: BaseException) -> bool:
    """Whether the server undid the statement, and its connection is as good as before."""
    return state_of(error).startswith(_REFUSED)


def may_repeat(error: BaseException) -> bool:
    """Whether nothing was kept, and the same may succeed when it is done again."""
    return state_of(error) in _TRANSIENT | STALE


def may_connect_later(error: BaseException) -> bool:
    """Whether a connection that could not be made may be made in a while."""
    if isinstance(error, TimeoutError):
        return False
    if isinstance(error, ssl.SSLError) and not isinstance(error, _TLS_BROKE):
        return False
    return is_lost(error) or state_of(error) in _TRANSIENT


def is_of_parameters(error: BaseException) -> bool:
    """Whether a connection could not be made for a parameter that the address sets."""
    return state_of(error) in _OF_PARAMETERS


def typed_error(error: BaseException, name: str) -> SessionError:
    """Our error for one of the driver's; errors that are ours already come back as they are.

    Args:
        error: What was raised.
        name: What to call the database in messages, without secrets.
    """
    if isinstance(error, SessionError):
        return error
    state = state_of(error)
    kind, hint = _kind(error, state)
    said = _message(error) or _message(error.__cause__) if state else _said(error)
    return kind(f"{name}: {hint}" + (f" ({said})" if said else ""))


def unreachable(error: BaseException, name: str) -> SessionError:
    """Our error for a connection that could not be made."""
    if isinstance(error, TimeoutError):
        return StorageUnavailableError(f"{name}: the server cannot be reached: no answer in time")
    if is_of_parameters(error):
        # Which one, and not what it was to be, which the server says next.
        parameter = _QUOTED.search(str(error))
        which = f" for {parameter[1]!r}" if parameter else ""
        return InvalidInputError(f"{name}: the server does not take what the dsn sets{which}")
    return typed_error(error, name)


def _kind(error: BaseException, state: str) -> _Kind:
    # What the driver cannot send it says as the server would, with the reason as the cause.
    if isinstance(error, OverflowError) or isinstance(error.__cause__, OverflowError):
        return InvalidInputError, _TOO_LARGE
    if state:
        other = (SessionStorageError, f"the database refused the operation [{state}]")
        return _BY_STATE.get(state) or _BY_CLASS.get(state[:2], other)
    if isinstance(error, TimeoutError):
        return StorageBusyError, "the server did not answer in time; try again"
    if is_lost(error):
        return StorageUnavailableError, "the server cannot be reached"
    if isinstance(error, asyncpg.ClientConfigurationError):
        return InvalidInputError, "the address (dsn) cannot be used"
    if isinstance(error, UnicodeError):
        return InvalidInputError, "a value cannot be stored"
    return SessionStorageError, "the driver failed"


def _message(error: BaseException | None) -> str | None:
    # That a connection ended is the driver's own error; what the server said last is its cause.
    return getattr(error, "message", None)


def _said(error: BaseException) -> str:
    # Of others only the name: they may quote the address with its password.
    return str(error) if isinstance(error, OSError) else type(error).__name__
