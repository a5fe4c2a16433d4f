"""The SQL of the SQLite storage: what is done inside one transaction, given its connection."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from langswarm_session.errors import StorageCorruptError
from langswarm_session.models import SessionMessage, Turn
from langswarm_session.records import (
    LogMeasure,
    NewSession,
    SessionRecord,
    SessionRef,
)
from langswarm_session.storage import rules
from langswarm_session.storage.measuring import measure_span
from langswarm_session.storage.rows import (
    MESSAGE_COLUMNS,
    MessageRow,
    decode_messages,
    encode_id,
)
from langswarm_session.storage.session_rows import (
    NOTE_COLUMNS,
    decode_note,
    decode_numbers,
    decode_record,
    to_turn,
)

COLUMNS = ", ".join(SessionRecord._fields[:-1])
FIELDS = f"{COLUMNS}, key"
"""The columns of a `SessionRecord`, which ends with the session's key: its creation."""

OWN = "session_id = ? AND user_id = ? AND key = ifnull(?, key)"
"""Finds the row of a `SessionRef`, whose values come in this order."""

_INSERT = f"INSERT INTO messages (session, {MESSAGE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_OWN_MESSAGES = (
    f"SELECT {MESSAGE_COLUMNS} FROM messages "
    f"WHERE session = (SELECT key FROM sessions WHERE {OWN}) "
)
_CREATE = (
    "INSERT INTO sessions (session_id, user_id, provider, model, backend, status, context, "
    "created_at, last_activity) VALUES (?, ?, ?, ?, ?, 'active', ?, ?, ?) "
    f"ON CONFLICT (session_id) DO NOTHING RETURNING {FIELDS}"
)
_ENDS = (
    "SELECT (SELECT seq FROM messages WHERE session = :session ORDER BY seq LIMIT 1), "
    "(SELECT seq FROM messages WHERE session = :session ORDER BY seq DESC LIMIT 1)"
)
_COUNT = "SELECT count(*) FROM messages WHERE session = ? AND seq > ?"
_NTH = "SELECT seq FROM messages WHERE session = ? AND seq > ? ORDER BY seq LIMIT 1 OFFSET ?"
# As the index of them says it.
_SEVERAL = """SELECT seq FROM messages WHERE session = ? AND seq > ?
AND instr(substr(extra, instr(extra, '"tool_result"') + 13), '"tool_result"') > 0 ORDER BY seq
"""

MAX_SEQ = 2**63 - 1
"""More than any sequence number."""

MessageRows = Sequence[MessageRow]
"""New messages as rows without their numbers, made outside of the transaction."""


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def load(connection: sqlite3.Connection, ref: SessionRef) -> SessionRecord:
    """Return the session's row.

    Raises:
        SessionNotFoundError: If there is no such session.
    """
    row = connection.execute(f"SELECT {FIELDS} FROM sessions WHERE {OWN}", ref).fetchone()
    if row is None:
        raise rules.not_found(ref.session_id)
    return decode_record(row)


def find(connection: sqlite3.Connection, session_id: str, user_id: str | None) -> SessionRecord:
    """Return the row of the session of that name.

    Args:
        user_id: Whose session it must be; None for any user's.

    Raises:
        SessionNotFoundError: If there is none.
    """
    row = connection.execute(
        f"SELECT {FIELDS} FROM sessions WHERE session_id = ? AND user_id = ifnull(?, user_id)",
        (session_id, user_id),
    ).fetchone()
    if row is None:
        raise rules.not_found(session_id)
    return decode_record(row)


def create(connection: sqlite3.Connection, session: NewSession, context: str) -> SessionRecord:
    """Insert a session.

    Raises:
        SessionExistsError: If the id is taken.
    """
    moment = now()
    values = (
        session.session_id,
        session.user_id,
        session.provider,
        session.model,
        session.backend.value,
        context,
        moment,
        moment,
    )
    row = connection.execute(_CREATE, values).fetchone()
    if row is None:
        raise rules.exists(session.session_id)
    return decode_record(row)


def insert(
    connection: sqlite3.Connection, session: int, turn: int, first: int, rows: MessageRows
) -> None:
    """Insert the messages of a turn, numbered from the first on.

    Raises:
        sqlite3.IntegrityError: If an id is stored already.
        StorageCorruptError: If a trigger kept one of them out, which SQLite tells nobody.
    """
    inserted = connection.executemany(
        _INSERT,
        [
            (session, seq, role, content, timestamp, message_id, turn, extra)
            for seq, (role, content, timestamp, message_id, extra) in enumerate(rows, first)
        ],
    ).rowcount
    if rows and inserted != len(rows):
        raise StorageCorruptError(
            "a trigger of the database keeps messages from being stored; find it with "
            "langswarm-session doctor, and remove it"
        )


def select_own(
    connection: sqlite3.Connection, ref: SessionRef, condition: str, values: tuple[Any, ...]
) -> list[SessionMessage]:
    """Return messages of the session that is referred to, in the order the condition asks for.

    Raises:
        SessionNotFoundError: If there is no such session.
    """
    messages = decode_messages(connection.execute(_OWN_MESSAGES + condition, (*ref, *values)))
    if not messages:
        load(connection, ref)
    return messages


def select(
    connection: sqlite3.Connection, session: int, condition: str = "", values: tuple[Any, ...] = ()
) -> list[SessionMessage]:
    """A session's messages, in the order the condition asks for."""
    return decode_messages(
        connection.execute(
            f"SELECT {MESSAGE_COLUMNS} FROM messages WHERE session = ? {condition}",
            (session, *values),
        )
    )


def measure(
    connection: sqlite3.Connection, ref: SessionRef, after: int, skip: int | None
) -> LogMeasure:
    """How much of a log there is; see `ISessionStorage.measure_log`."""
    record = load(connection, ref)
    session = record.creation
    ends = connection.execute(_ENDS, {"session": session}).fetchone()
    first, last = (None, None) if ends == (None, None) else decode_numbers(ends)
    rows = connection.execute(_SEVERAL, (session, after)).fetchall()
    several = [decode_numbers(row)[0] for row in rows]
    spans = measure_span(first, last, record.message_count, after, skip)
    if spans is not None:
        return LogMeasure(*spans, several)
    [count] = connection.execute(_COUNT, (session, after)).fetchone()
    row = None if skip is None else connection.execute(_NTH, (session, after, skip)).fetchone()
    return LogMeasure(count, None if row is None else decode_numbers(row)[0], several)


def select_stored(
    connection: sqlite3.Connection, session: int, messages: Sequence[SessionMessage]
) -> dict[str, SessionMessage]:
    """Those of the messages whose ids are stored, as they are stored."""
    stored: dict[str, SessionMessage] = {}
    for message in messages:
        found = select(connection, session, "AND id = ?", (encode_id(message.id),))
        stored.update((known.id, known) for known in found)
    return stored


def select_turns(connection: sqlite3.Connection, record: SessionRecord, limit: int) -> list[Turn]:
    """The newest turns, oldest first; reads no more messages than they have."""
    session = record.creation
    spans: dict[int, list[tuple[int, int]]] = {}
    rows = connection.execute(
        "SELECT turn, seq, timestamp FROM messages WHERE session = ? ORDER BY seq DESC", (session,)
    )
    for turn, seq, timestamp in map(decode_numbers, rows):
        if turn not in spans and len(spans) == limit:
            break
        spans.setdefault(turn, []).append((seq, timestamp))
    notes = connection.execute(
        f"SELECT {NOTE_COLUMNS} FROM turns WHERE session = ? AND turn >= ?",
        (session, min(spans, default=0)),
    )
    known = {note.turn: note for note in map(decode_note, notes)}
    return [to_turn(record, turn, spans[turn], known.get(turn)) for turn in sorted(spans)]


def copy_log(
    connection: sqlite3.Connection, source: SessionRecord, target: int, at: int | None
) -> None:
    """Copy a log up to a sequence number, without a turn that is still open."""
    last = source.last_seq if at is None else at
    if source.turn_token is not None and source.turn_id is not None:
        last = min(last, source.turn_id - 1)
    connection.execute(
        f"INSERT INTO messages (session, {MESSAGE_COLUMNS}) SELECT ?, {MESSAGE_COLUMNS} "
        "FROM messages WHERE session = ? AND seq <= ?",
        (target, source.creation, last),
    )
    connection.execute(
        "INSERT INTO turns (session, turn, status, answered, error, finished_at) "
        "SELECT ?, turn, status, answered, error, finished_at FROM turns "
        "WHERE session = ? AND turn <= (SELECT max(seq) FROM messages WHERE session = ?)",
        (target, source.creation, target),
    )
    connection.execute(
        "UPDATE sessions SET (last_seq, message_count, turn_count) = (SELECT ifnull(max(seq), 0), "
        "count(*), count(DISTINCT turn) FROM messages WHERE session = ?) WHERE key = ?",
        (target, target),
    )
