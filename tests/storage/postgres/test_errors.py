from __future__ import annotations

import ssl

import postgres_server  # noqa: F401 - skips the module without the driver
import pytest
from asyncpg import exceptions as E  # noqa: N812

from langswarm_session import (
    InvalidInputError,
    SessionError,
    SessionNotFoundError,
    SessionStorageError,
    StorageBusyError,
    StorageCorruptError,
    StorageFullError,
    StorageUnavailableError,
)
from langswarm_session.storage.postgres.errors import (
    is_lost,
    may_connect_later,
    may_repeat,
    typed_error,
    unreachable,
)


def test_a_figure_that_the_server_cannot_move_is_damage() -> None:
    # What is given is in range; only what somebody else stored can leave it.
    typed = typed_error(E.NumericValueOutOfRangeError("x"), "db")
    assert type(typed) is StorageCorruptError


def test_a_number_too_large_is_told_as_such() -> None:
    unsent = E.DataError("x")
    unsent.__cause__ = OverflowError("x")
    for error in (OverflowError("x"), unsent):
        typed = typed_error(error, "db")
        assert type(typed) is InvalidInputError
        assert "the sum of the session's tokens" in str(typed)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (E.DiskFullError("x"), StorageFullError),
        (E.TooManyConnectionsError("x"), StorageBusyError),
        (E.OutOfMemoryError("x"), StorageBusyError),
        (E.DeadlockDetectedError("x"), StorageBusyError),
        (E.QueryCanceledError("x"), StorageBusyError),
        (E.LockNotAvailableError("x"), StorageBusyError),
        (TimeoutError(), StorageBusyError),
        (E.AdminShutdownError("x"), StorageUnavailableError),
        (E.CannotConnectNowError("x"), StorageUnavailableError),
        (E.InvalidPasswordError("x"), StorageUnavailableError),
        (E.InvalidCatalogNameError("x"), StorageUnavailableError),
        (E.InsufficientPrivilegeError("x"), StorageUnavailableError),
        (E.ReadOnlySQLTransactionError("x"), StorageUnavailableError),
        (E.UndefinedTableError("x"), StorageUnavailableError),
        (E.PostgresIOError("x"), StorageUnavailableError),
        (E.ConnectionDoesNotExistError("x"), StorageUnavailableError),
        (E.InterfaceError("connection is closed"), StorageUnavailableError),
        (ConnectionRefusedError(111, "refused"), StorageUnavailableError),
        (E.DataCorruptedError("x"), StorageCorruptError),
        (E.DuplicateTableError("x"), StorageCorruptError),
        (E.DuplicateObjectError("x"), StorageCorruptError),
        (E.DuplicateFunctionError("x"), StorageCorruptError),
        (E.UndefinedColumnError("x"), StorageCorruptError),
        (E.ProgramLimitExceededError("x"), InvalidInputError),
        (E.DataError("x"), InvalidInputError),
        (E.ClientConfigurationError("secret"), InvalidInputError),
        (OverflowError("x"), InvalidInputError),
        (E.InternalServerError("x"), SessionStorageError),
        (RuntimeError("secret"), SessionStorageError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_each_error_has_its_kind(error: Exception, kind: type[SessionError]) -> None:
    typed = typed_error(error, "postgresql://host/db")
    assert type(typed) is kind
    assert str(typed).startswith("postgresql://host/db: ")
    assert "secret" not in str(typed)


def test_a_connection_that_ended_tells_what_the_server_said_last() -> None:
    last = E.ProtocolViolationError("x")
    last.message = "transaction blocks not allowed in statement pooling mode"
    ended = E.ConnectionDoesNotExistError("connection was closed in the middle of operation")
    ended.__cause__ = last
    assert "the connection broke (transaction blocks not allowed in statement pooling" in str(
        typed_error(ended, "db")
    )


def test_ours_stay_ours() -> None:
    error = SessionNotFoundError("x")
    assert typed_error(error, "db") is error


def test_what_may_be_tried_again() -> None:
    assert is_lost(E.ConnectionDoesNotExistError("x"))
    assert is_lost(ConnectionResetError())
    assert not is_lost(E.UniqueViolationError("x"))
    assert not is_lost(E.DataError("x"))
    assert may_repeat(E.SerializationError("x"))
    assert may_repeat(E.InvalidCachedStatementError("x"))
    assert not may_repeat(E.AdminShutdownError("x"))
    assert may_connect_later(E.CannotConnectNowError("x"))
    assert may_connect_later(ConnectionRefusedError())
    assert not may_connect_later(TimeoutError())
    assert not may_connect_later(E.InvalidPasswordError("x"))
    assert not may_connect_later(ssl.SSLCertVerificationError(1, "self-signed certificate"))
    assert may_connect_later(ssl.SSLEOFError(8, "EOF occurred in violation of protocol"))


def test_a_server_that_says_nothing_is_unreachable() -> None:
    assert type(unreachable(TimeoutError(), "db")) is StorageUnavailableError
    assert type(unreachable(E.InvalidPasswordError("x"), "db")) is StorageUnavailableError
