"""The facts that a write is decided on, and the plan that comes of it, in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, TypeVar

from langswarm_session.models import SessionMessage
from langswarm_session.records import SessionRecord
from langswarm_session.storage.decisions import Facts, MessagePlace, Plan, TurnFacts, Write
from langswarm_session.storage.rows import decode_id, decode_roles, encode_message
from langswarm_session.storage.session_rows import (
    NOTE_COLUMNS,
    NoteRow,
    decode_note,
    decode_numbers,
)
from langswarm_session.storage.sqlite import transactions as log

_SAVED = SessionRecord._fields[1:-1]
_SAVE = f"UPDATE sessions SET {', '.join(f'{name} = ?' for name in _SAVED)} WHERE key = ?"
_FOLLOWING = (
    "SELECT seq FROM messages WHERE session = ? AND seq >= ? AND turn != ? ORDER BY seq LIMIT 1"
)
_ROLES = "SELECT seq, role FROM messages WHERE session = ? AND seq >= ? AND seq < ? ORDER BY seq"
_PLACE = "SELECT seq, id, turn FROM messages WHERE session = ? AND seq = ?"
_DELETE = "DELETE FROM messages WHERE session = ? AND seq = ?"
_CHANGE = (
    "UPDATE messages SET role = ?, content = ?, timestamp = ?, extra = ? "
    "WHERE session = ? AND seq = ?"
)
_SAVE_NOTE = (
    f"INSERT OR REPLACE INTO turns (session, {NOTE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_FORGET = "DELETE FROM turns WHERE session = ? AND turn = ?"

R = TypeVar("R")


def decide(connection: sqlite3.Connection, write: Write[R]) -> R:
    """Do a write as it is decided on what is stored.

    Raises:
        SessionError: If it is refused; then nothing was written.
    """
    facts = read_facts(connection, write)
    plan = write.decide(facts)
    if plan.record is not None:
        _apply(connection, plan.record, plan)
    return plan.result


def read_facts(connection: sqlite3.Connection, write: Write[Any]) -> Facts:
    """Return what a write is decided on.

    Raises:
        SessionNotFoundError: If there is no such session.
    """
    record = log.load(connection, write.ref)
    session = record.creation
    key = write.key
    note = None if key is None else _note(connection, session, "key", key.key)
    facts = Facts(
        record=record,
        now=log.now(),
        stored=log.select_stored(connection, session, write.messages),
        key_turn=None if note is None else note.turn,
        places=_places(connection, session, write),
    )
    for turn, with_messages in write.turns(facts).items():
        facts.turns[turn] = _turn(connection, session, turn, with_messages=with_messages)
    return facts


def _places(
    connection: sqlite3.Connection, session: int, write: Write[Any]
) -> dict[int, MessagePlace]:
    """Return the ids and turns, without reading what the messages say: they may be damaged."""
    places = {}
    for number in write.numbers():
        row = connection.execute(_PLACE, (session, number)).fetchone()
        if row is not None:
            seq, turn = decode_numbers((row[0], row[2]))
            places[seq] = MessagePlace(decode_id(row[1]), turn)
    return places


def _turn(
    connection: sqlite3.Connection, session: int, turn: int, *, with_messages: bool
) -> TurnFacts:
    # A turn's messages stand together, so the next turn's first one ends them.
    following = connection.execute(_FOLLOWING, (session, turn, turn)).fetchone()
    span = (turn, log.MAX_SEQ if following is None else following[0])
    # The roles only: a message that cannot be decoded does not keep a turn from its end.
    rows = connection.execute(_ROLES, (session, *span)).fetchall()
    condition = "AND seq >= ? AND seq < ? ORDER BY seq"
    return TurnFacts(
        note=_note(connection, session, "turn", turn),
        roles={seq: next(iter(decode_roles([code])), None) for seq, code in rows},
        is_last=following is None and bool(rows),
        messages=log.select(connection, session, condition, span) if with_messages else (),
    )


def _note(
    connection: sqlite3.Connection, session: int, column: str, value: object
) -> NoteRow | None:
    query = f"SELECT {NOTE_COLUMNS} FROM turns WHERE session = ? AND {column} = ?"
    row = connection.execute(query, (session, value)).fetchone()
    return None if row is None else decode_note(row)


def _apply(connection: sqlite3.Connection, record: SessionRecord, plan: Plan[Any]) -> None:
    session = record.creation
    connection.execute(_SAVE, (*record[1:-1], session))
    if plan.clears:
        connection.execute("DELETE FROM messages WHERE session = ?", (session,))
        connection.execute("DELETE FROM turns WHERE session = ?", (session,))
    connection.executemany(_DELETE, [(session, seq) for seq in plan.removed])
    connection.executemany(_CHANGE, [_changed(session, message) for message in plan.changed])
    _insert(connection, session, plan.added)
    for note in plan.notes:
        connection.execute(_SAVE_NOTE, (session, *note[:1], note.status.value, *note[2:]))
    connection.executemany(_FORGET, [(session, turn) for turn in plan.forgotten])


def _changed(session: int, message: SessionMessage) -> tuple[Any, ...]:
    role, content, timestamp, _, extra = encode_message(message)
    return role, content, timestamp, extra, session, message.seq


def _insert(connection: sqlite3.Connection, session: int, added: Sequence[SessionMessage]) -> None:
    if added:
        first, turn = added[0].seq or 0, added[0].turn_id or 0
        log.insert(connection, session, turn, first, list(map(encode_message, added)))
