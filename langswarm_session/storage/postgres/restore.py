"""Whole sessions in and out of the PostgreSQL storage: what is known of turns, and restoring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from langswarm_session.archive import SessionArchive, TurnNote
from langswarm_session.models import SessionMessage
from langswarm_session.records import SessionRecord, SessionRef
from langswarm_session.storage import rules
from langswarm_session.storage.postgres.pool import Connection
from langswarm_session.storage.postgres.rows import encode, maybe_text, to_note, to_row
from langswarm_session.storage.postgres.schema import Tables
from langswarm_session.storage.postgres.statements import COLUMNS
from langswarm_session.storage.postgres.transactions import OWN, load, own
from langswarm_session.storage.session_rows import NOTE_COLUMNS

_NOTES = (
    f"SELECT {NOTE_COLUMNS} FROM {{turns}} WHERE session = "
    f"(SELECT key FROM {{sessions}} WHERE {OWN}) AND turn > $4 ORDER BY turn LIMIT $5"
)
_VALUES = ", ".join(f"${n}" for n in range(1, len(SessionRecord._fields)))
_CREATE = (
    f"INSERT INTO {{sessions}} ({COLUMNS}) VALUES ({_VALUES}) "
    "ON CONFLICT (session_id) DO NOTHING RETURNING key"
)
_MESSAGES = (
    "INSERT INTO {messages} (session, seq, turn, role, content, timestamp, id, extra) "
    "SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::smallint[], $5::text[], "
    "$6::bigint[], $7::bytea[], $8::text[])"
)
_NOTE = (
    "INSERT INTO {turns} (session, turn, status, answered, key, digest, error, finished_at) "
    "SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::boolean[], $5::text[], $6::text[], "
    "$7::text[], $8::bigint[])"
)
_AT_ONCE = 500
"""How many rows go in one statement at most."""

_HEAVY = 1_000_000
"""With so many characters of messages a statement is sent."""


async def turn_notes(
    connection: Connection, tables: Tables, ref: SessionRef, after: int, limit: int
) -> list[TurnNote]:
    """What is known of turns; see `ISessionStorage.get_turn_notes`."""
    rows = await connection.fetch(tables.sql(_NOTES), *own(ref), after, limit)
    if not rows:
        await load(connection, tables, ref, lock=False)
    return [TurnNote(**to_note(row)._asdict()) for row in rows]


async def restore(connection: Connection, tables: Tables, archive: SessionArchive) -> SessionRecord:
    """Insert a whole session; see `ISessionStorage.restore_session`.

    Raises:
        SessionExistsError: If the id is taken.
    """
    created = await connection.fetch(tables.sql(_CREATE), *to_row(archive.record)[:-1])
    if not created:
        raise rules.exists(archive.record.session_id)
    place = created[0][0]
    for rows in _batches(archive.messages()):
        await _insert(connection, tables.sql(_MESSAGES), place, rows)
    notes = archive.notes()
    while rows := [_note_row(note) for note in islice(notes, _AT_ONCE)]:
        await _insert(connection, tables.sql(_NOTE), place, rows)
    return archive.record._replace(creation=place)


def _batches(messages: Iterable[SessionMessage]) -> Iterator[list[tuple[Any, ...]]]:
    """The messages' rows, neither too many nor too large in one go."""
    rows: list[tuple[Any, ...]] = []
    weight = 0
    for message in messages:
        row = (message.seq, message.turn_id, *encode(message))
        rows.append(row)
        weight += len(row[3] or "") + len(row[6] or "")
        if len(rows) == _AT_ONCE or weight > _HEAVY:
            yield rows
            rows, weight = [], 0
    if rows:
        yield rows


async def _insert(
    connection: Connection, statement: str, place: int, rows: list[tuple[Any, ...]]
) -> None:
    await connection.fetch(statement, place, *map(list, zip(*rows, strict=True)))


def _note_row(note: TurnNote) -> tuple[Any, ...]:
    return (
        note.turn,
        note.status.value,
        note.answered,
        maybe_text(note.key),
        maybe_text(note.digest),
        maybe_text(note.error),
        note.finished_at,
    )
