"""The writes of a turn as one statement each, where nothing stands in their way.

The statement moves the session's row, and checks whether it may; the messages follow. Where no row
fits, or an id or a key is stored already, the write is decided on what is stored:
`langswarm_session.storage.sqlite.plans`.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from langswarm_session.models import TurnStatus
from langswarm_session.records import IdempotencyKey, SessionRecord
from langswarm_session.storage import rules
from langswarm_session.storage.decisions import Append, BeginTurn, EndTurn, Write, is_plain
from langswarm_session.storage.session_rows import decode_record
from langswarm_session.storage.sqlite import transactions as log

_COUNTED = (
    "revision = revision + 1, last_activity = max(last_activity, ?), last_seq = last_seq + ?, "
    "message_count = message_count + ?, input_tokens = input_tokens + ?, "
    "output_tokens = output_tokens + ?, cached_tokens = cached_tokens + ?, "
    "reasoning_tokens = reasoning_tokens + ?"
)
_FREE = (
    f"WHERE {log.OWN} AND status IN {rules.WRITABLE!r} AND turn_token IS NULL "
    f"AND revision = ifnull(?, revision) RETURNING {log.FIELDS}"
)
_HELD = (
    f"WHERE {log.OWN} AND turn_token = ? AND revision = ifnull(?, revision) RETURNING {log.FIELDS}"
)
_APPEND = f"UPDATE sessions SET {_COUNTED}, turn_count = turn_count + 1 {_FREE}"
_ADD = f"UPDATE sessions SET {_COUNTED} {_HELD}"
_BEGIN = (
    f"UPDATE sessions SET {_COUNTED}, turn_count = turn_count + 1, turn_id = last_seq + 1, "
    f"turn_token = ?, turn_owner = ?, turn_expires = ? {_FREE}"
)
_END = (
    f"UPDATE sessions SET {_COUNTED}, provider_state = ifnull(?, provider_state), "
    f"turn_token = NULL, turn_owner = NULL, turn_expires = NULL {_HELD}"
)
_SAVE_KEY = (
    "INSERT INTO turns (session, turn, status, answered, key, digest) VALUES (?, ?, ?, 1, ?, ?)"
)
_SAVE_COMPLETE = (
    "UPDATE turns SET status = 'complete', answered = 1, error = NULL, finished_at = ? "
    "WHERE session = ? AND turn = ?"
)


def plain(
    connection: sqlite3.Connection, write: Write[Any], rows: log.MessageRows
) -> SessionRecord | None:
    """Do a write if it is plain, and return the session after it; None if it is not.

    Raises:
        sqlite3.IntegrityError: If an id or a key is stored already: it is not plain.
    """
    if not is_plain(write):
        return None
    if isinstance(write, Append):
        return _append(connection, write, rows)
    if isinstance(write, BeginTurn):
        return _begin(connection, write, rows)
    is_complete = write.end.status is TurnStatus.COMPLETE
    return _end(connection, write, rows) if is_complete else None


def _append(
    connection: sqlite3.Connection, write: Append, rows: log.MessageRows
) -> SessionRecord | None:
    values = (*_counted(write), *write.ref)
    if write.token is not None:
        record = _move(connection, _ADD, (*values, write.token, write.expected_revision))
        turn = None if record is None else record.turn_id
    else:
        record = _move(connection, _APPEND, (*values, write.expected_revision))
        turn = None if record is None else record.last_seq - len(rows) + 1
        _save_key(connection, record, turn, TurnStatus.COMPLETE, write.key)
    return _insert(connection, record, turn, rows)


def _begin(
    connection: sqlite3.Connection, write: BeginTurn, rows: log.MessageRows
) -> SessionRecord | None:
    lease = write.lease
    held = (lease.token, lease.owner, log.now() + int(lease.seconds * 1_000_000))
    values = (*_counted(write), *held, *write.ref, write.expected_revision)
    record = _move(connection, _BEGIN, values)
    turn = None if record is None else record.turn_id
    _save_key(connection, record, turn, TurnStatus.OPEN, write.key)
    return _insert(connection, record, turn, rows)


def _end(
    connection: sqlite3.Connection, write: EndTurn, rows: log.MessageRows
) -> SessionRecord | None:
    values = (*_counted(write), write.state, *write.ref, write.end.token, None)
    record = _move(connection, _END, values)
    if record is not None:
        _insert(connection, record, record.turn_id, rows)
        connection.execute(_SAVE_COMPLETE, (log.now(), record.creation, record.turn_id))
    return record


def _counted(write: Write[Any]) -> tuple[int, ...]:
    """Return the values of the columns that each of these writes moves."""
    size = len(write.messages)
    return (log.now(), size, size, *rules.usage_sums(write.messages))


def _move(
    connection: sqlite3.Connection, statement: str, values: tuple[Any, ...]
) -> SessionRecord | None:
    row = connection.execute(statement, values).fetchone()
    return None if row is None else decode_record(row)


def _save_key(
    connection: sqlite3.Connection,
    record: SessionRecord | None,
    turn: int | None,
    status: TurnStatus,
    key: IdempotencyKey | None,
) -> None:
    if key is not None and record is not None:
        values = (record.creation, turn, status.value, key.key, key.digest)
        connection.execute(_SAVE_KEY, values)


def _insert(
    connection: sqlite3.Connection,
    record: SessionRecord | None,
    turn: int | None,
    rows: log.MessageRows,
) -> SessionRecord | None:
    """Insert messages, which the row has counted already."""
    if record is not None:
        first = record.last_seq - len(rows) + 1
        log.insert(connection, record.creation, turn or 0, first, rows)
    return record
