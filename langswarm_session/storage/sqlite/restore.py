"""Whole sessions in and out of the SQLite storage: what is known of turns, and restoring."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from langswarm_session.archive import SessionArchive, TurnNote
from langswarm_session.records import SessionRecord, SessionRef
from langswarm_session.storage import rules
from langswarm_session.storage.rows import MESSAGE_COLUMNS, encode_message
from langswarm_session.storage.session_rows import NOTE_COLUMNS, decode_note, decode_record
from langswarm_session.storage.sqlite import transactions as log

_NOTES = (
    f"SELECT {NOTE_COLUMNS} FROM turns WHERE session = (SELECT key FROM sessions "
    f"WHERE {log.OWN}) AND turn > ? ORDER BY turn LIMIT ?"
)
_CREATE = (
    f"INSERT INTO sessions ({log.COLUMNS}) VALUES "
    f"({', '.join('?' * (len(SessionRecord._fields) - 1))}) "
    f"ON CONFLICT (session_id) DO NOTHING RETURNING {log.FIELDS}"
)
_MESSAGE = f"INSERT INTO messages (session, {MESSAGE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_NOTE = f"INSERT INTO turns (session, {NOTE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


def turn_notes(
    connection: sqlite3.Connection, ref: SessionRef, after: int, limit: int
) -> list[TurnNote]:
    """Return what is known of turns; see `ISessionStorage.get_turn_notes`."""
    rows = connection.execute(_NOTES, (*ref, after, limit)).fetchall()
    if not rows:
        log.load(connection, ref)
    return [TurnNote(**decode_note(row)._asdict()) for row in rows]


def restore(connection: sqlite3.Connection, archive: SessionArchive) -> SessionRecord:
    """Insert a whole session; see `ISessionStorage.restore_session`.

    Raises:
        SessionExistsError: If the id is taken.
        sqlite3.IntegrityError: If a message's id or a key comes twice.
    """
    row = connection.execute(_CREATE, archive.record[:-1]).fetchone()
    if row is None:
        raise rules.exists(archive.record.session_id)
    record = decode_record(row)
    place = record.creation
    connection.executemany(_MESSAGE, _rows(place, archive))
    connection.executemany(
        _NOTE,
        (
            (
                place,
                note.turn,
                note.status.value,
                note.answered,
                note.key,
                note.digest,
                note.error,
                note.finished_at,
            )
            for note in archive.notes()
        ),
    )
    return record


def _rows(session: int, archive: SessionArchive) -> Iterator[tuple[Any, ...]]:
    for message in archive.messages():
        role, content, timestamp, message_id, extra = encode_message(message)
        yield session, message.seq, role, content, timestamp, message_id, message.turn_id, extra
