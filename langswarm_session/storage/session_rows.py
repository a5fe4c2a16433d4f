"""Sessions, and notes on turns, as rows of a database: checked as they are read.

SQLite stores what it is given whatever the column's type (https://www.sqlite.org/datatype3.html,
"flexible typing"), and anybody who may write to a database can change a row by hand. So nothing
that is read is taken for what it should be.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from types import NoneType
from typing import Any, NamedTuple

from langswarm_session.errors import StorageCorruptError
from langswarm_session.models import (
    SessionBackend,
    SessionStatus,
    Turn,
    TurnStatus,
    from_micros,
    to_micros,
)
from langswarm_session.records import SessionRecord

NOTE_COLUMNS = "turn, status, answered, key, digest, error, finished_at"
"""The columns of a note on a turn, in the order of `NoteRow`, after the session's key."""

_FIELDS = SessionRecord._fields
_TYPES: tuple[frozenset[type], ...] = tuple(
    frozenset({int if "int" in str(kind) else str} | ({NoneType} if "None" in str(kind) else set()))
    for kind in SessionRecord.__annotations__.values()
)
_COUNTS = slice(_FIELDS.index("revision"), _FIELDS.index("errors") + 1)
_MOST = 2**62
"""More than any figure comes to, and still far from what 64 bits cannot hold."""

_STATUSES = frozenset(each.value for each in SessionStatus)
_BACKENDS = frozenset(each.value for each in SessionBackend)
_OLDEST = to_micros(datetime.fromisoformat("0001-01-01T00:00:00Z"))
_NEWEST = to_micros(datetime.fromisoformat("9999-12-31T23:59:59.999999Z"))

_known_types: set[tuple[type, ...]] = set()
"""The types of rows that were found right. They are few, so that nearly all take one look."""


class NoteRow(NamedTuple):
    """What a storage noted of a turn; see `langswarm_session.archive.TurnNote`."""

    turn: int
    status: TurnStatus
    answered: bool
    key: str | None
    digest: str | None
    error: str | None
    finished_at: int | None


def damaged(what: str, session_id: str | None = None) -> StorageCorruptError:
    """Return the error for stored data that no storage puts there; what it holds is not quoted."""
    return StorageCorruptError(
        f"{what} cannot be decoded: the database is damaged; restore a copy", session_id=session_id
    )


def decode_record(row: Sequence[Any]) -> SessionRecord:
    """Return the session of a row of its fields.

    Raises:
        StorageCorruptError: If a field holds what no storage puts there.
    """
    values = tuple(row)
    types = tuple(map(type, values))
    if types not in _known_types:
        if not _fit(types):
            raise _damaged_record(values)
        _known_types.add(types)
    record = SessionRecord._make(values)
    if (
        not (record.session_id and record.user_id)
        or record.status not in _STATUSES
        or record.backend not in _BACKENDS
        or min(values[_COUNTS]) < 0
        or max(values[_COUNTS]) > _MOST
        or not _OLDEST <= record.created_at <= _NEWEST
        or not _OLDEST <= record.last_activity <= _NEWEST
        or not _has_turn(record)
    ):
        raise _damaged_record(values)
    return record


def _fit(types: tuple[type, ...]) -> bool:
    return len(types) == len(_TYPES) and all(
        kind in allowed for kind, allowed in zip(types, _TYPES, strict=True)
    )


def _has_turn(record: SessionRecord) -> bool:
    """Whether the turn that was begun last is one of the log, and there is one if it is open."""
    if record.turn_id is None:
        return record.turn_token is None
    return 1 <= record.turn_id <= record.last_seq


def _damaged_record(values: Sequence[object]) -> StorageCorruptError:
    session_id = values[0] if values else None
    return damaged("its row", session_id if isinstance(session_id, str) else None)


def decode_note(row: Sequence[Any]) -> NoteRow:
    """Return the note of a row with the `NOTE_COLUMNS`.

    Raises:
        StorageCorruptError: If a column holds what no storage puts there.
    """
    turn, status, answered, key, digest, error, finished = row
    known = decode_status(status)
    if type(turn) is not int or turn < 1 or answered not in (0, 1) or type(answered) is float:
        raise damaged("the note on a turn")
    if finished is not None:
        decode_moment(finished)
    return NoteRow(turn, known, bool(answered), _text(key), _text(digest), _text(error), finished)


def decode_status(status: Any) -> TurnStatus:
    """Return how a turn stands.

    Raises:
        StorageCorruptError: If there is no such status.
    """
    try:
        return TurnStatus(status)
    except ValueError:
        raise damaged("the status of a turn") from None


def decode_moment(micros: object) -> datetime:
    """Return a time that is stored as microseconds since 1970.

    Raises:
        StorageCorruptError: If it is none.
    """
    if type(micros) is int:
        try:
            return from_micros(micros)
        except ValueError:
            pass
    raise damaged("the time of a message or turn")


def to_turn(
    record: SessionRecord, turn: int, span: Sequence[tuple[int, int]], note: NoteRow | None
) -> Turn:
    """Return a turn, put together of its messages and of what is noted of it.

    Args:
        record: The session.
        turn: The turn.
        span: Number and time of each of its messages, newest first.
        note: What is noted of it, if anything.

    Raises:
        StorageCorruptError: If a message has no time.
    """
    status = TurnStatus.COMPLETE if note is None else note.status
    finished = None if note is None else note.finished_at
    if record.turn_token is not None and record.turn_id == turn:
        status = TurnStatus.OPEN
    elif finished is None:
        finished = span[0][1]
    return Turn(
        id=turn,
        session_id=record.session_id,
        status=status,
        first_seq=span[-1][0],
        last_seq=span[0][0],
        started_at=decode_moment(span[-1][1]),
        finished_at=None if finished is None else decode_moment(finished),
        idempotency_key=None if note is None else note.key,
        error=None if note is None else note.error,
    )


def decode_numbers(row: Sequence[object]) -> tuple[int, ...]:
    """Return a row of whole numbers.

    Raises:
        StorageCorruptError: If one of them is anything else.
    """
    numbers = tuple(each for each in row if type(each) is int)
    if len(numbers) != len(row):
        raise damaged("the place of a message")
    return numbers


def decode_names(row: Sequence[object]) -> tuple[str, ...]:
    """Return a row of names.

    Raises:
        StorageCorruptError: If one of them is anything else.
    """
    names = tuple(each for each in row if type(each) is str)
    if len(names) != len(row):
        raise damaged("the name of a session or user")
    return names


def _text(value: object) -> str | None:
    if value is None or type(value) is str:
        return value
    raise damaged("the note on a turn")
