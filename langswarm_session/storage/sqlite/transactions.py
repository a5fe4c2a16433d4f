"""The SQL of the SQLite storage: what is done inside one transaction, given its connection.

Each write moves the session's row with one statement that checks at once whether it may; only when
no row fits is the reason looked for. Nothing is written before the last check has passed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from langswarm_session.errors import StorageCorruptError
from langswarm_session.models import SessionMessage, Turn, TurnStatus
from langswarm_session.records import (
    Appended,
    IdempotencyKey,
    LogMeasure,
    NewSession,
    SessionRecord,
    SessionRef,
)
from langswarm_session.storage import rules
from langswarm_session.storage.edits import check_edit
from langswarm_session.storage.measuring import measure_span
from langswarm_session.storage.rows import (
    ASSISTANT,
    MESSAGE_COLUMNS,
    MessageRow,
    decode_id,
    decode_messages,
    decode_roles,
    encode_id,
    encode_message,
)
from langswarm_session.storage.session_rows import (
    NOTE_COLUMNS,
    NoteRow,
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

_COUNTED = (
    "revision = revision + 1, last_activity = max(last_activity, ?), last_seq = last_seq + ?, "
    "message_count = message_count + ?, input_tokens = input_tokens + ?, "
    "output_tokens = output_tokens + ?, cached_tokens = cached_tokens + ?, "
    "reasoning_tokens = reasoning_tokens + ?"
)
_LEASED = "turn_token = ?, turn_owner = ?, turn_expires = ?"
_FREE = (
    f"WHERE {OWN} AND status IN {rules.WRITABLE!r} AND turn_token IS NULL "
    f"AND revision = ifnull(?, revision) RETURNING {FIELDS}"
)
_HELD = f"WHERE {OWN} AND turn_token = ? AND revision = ifnull(?, revision) RETURNING {FIELDS}"

APPEND = f"UPDATE sessions SET {_COUNTED}, turn_count = turn_count + 1 {_FREE}"
BEGIN = (
    f"UPDATE sessions SET {_COUNTED}, turn_count = turn_count + 1, turn_id = last_seq + 1, "
    f"{_LEASED} {_FREE}"
)
RESUME = f"UPDATE sessions SET {_COUNTED}, turn_id = ?, {_LEASED} {_FREE}"
ADD = f"UPDATE sessions SET {_COUNTED} {_HELD}"
END = (
    f"UPDATE sessions SET {_COUNTED}, errors = errors + ?, provider_state = ifnull(?, "
    f"provider_state), turn_token = NULL, turn_owner = NULL, turn_expires = NULL {_HELD}"
)
EDIT = f"UPDATE sessions SET {_COUNTED}, turn_count = turn_count + ? {_FREE}"
_INSERT = f"INSERT INTO messages (session, {MESSAGE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_OWN_MESSAGES = (
    f"SELECT {MESSAGE_COLUMNS} FROM messages "
    f"WHERE session = (SELECT key FROM sessions WHERE {OWN}) "
)
_CHANGE = (
    "UPDATE messages SET role = ?, content = ?, timestamp = ?, extra = ? "
    "WHERE session = ? AND seq = ?"
)
_CREATE = (
    "INSERT INTO sessions (session_id, user_id, provider, model, backend, status, context, "
    "created_at, last_activity) VALUES (?, ?, ?, ?, ?, 'active', ?, ?, ?) "
    f"ON CONFLICT (session_id) DO NOTHING RETURNING {FIELDS}"
)
_SAVE_KEY = (
    "INSERT INTO turns (session, turn, status, answered, key, digest) VALUES (?, ?, ?, 1, ?, ?)"
)
_SAVE_STATUS = (
    "INSERT INTO turns (session, turn, status, answered, error, finished_at) "
    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (session, turn) DO UPDATE SET status = excluded.status, "
    "answered = excluded.answered, error = excluded.error, finished_at = excluded.finished_at"
)

_SAVE_COMPLETE = (
    "UPDATE turns SET status = 'complete', answered = 1, error = NULL, finished_at = ? "
    "WHERE session = ? AND turn = ?"
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

_ROW = 100
"""Characters that the other columns of a message are worth."""

MAX_SEQ = 2**63 - 1
"""More than any sequence number."""

Place = int
"""A session's key: what its messages and turns refer to."""


@dataclass(slots=True)
class Batch:
    """Messages to store, with their rows made beforehand, outside the transaction.

    Attributes:
        messages: Those that are new.
        stored: Those whose id turned out to be stored already, as they are stored.
        order: The ids of all, as they were given.
    """

    messages: Sequence[SessionMessage]
    stored: dict[str, SessionMessage] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    rows: list[MessageRow] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = [encode_message(message) for message in self.messages]

    @property
    def size(self) -> int:
        """How many characters the rows have, roughly."""
        return sum(_ROW + len(row[1] or "") + len(row[4] or "") for row in self.rows)

    def counted(self, least: int = 0) -> tuple[int, ...]:
        """Return the values of the columns that every write moves.

        Args:
            least: How many numbers to take if there are fewer messages.
        """
        size = len(self.messages)
        return (now(), max(size, least), size, *rules.usage_sums(self.messages))

    def merged(self, placed: list[SessionMessage]) -> list[SessionMessage]:
        """All messages as stored, in the order they were given."""
        if not self.stored:
            return placed
        known = {**self.stored, **{message.id: message for message in placed}}
        return [known[message_id] for message_id in dict.fromkeys(self.order)]


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


def update_free(
    connection: sqlite3.Connection,
    statement: str,
    values: tuple[Any, ...],
    ref: SessionRef,
    expected_revision: int | None,
) -> SessionRecord:
    """Move the row of a session that no turn holds; a turn whose lease ran out is ended.

    Raises:
        SessionNotFoundError, SessionInactiveError, RevisionConflictError, SessionBusyError
    """
    row = connection.execute(statement, (*values, *ref, expected_revision)).fetchone()
    if row is None:
        make_free(connection, load(connection, ref), expected_revision)
        row = connection.execute(statement, (*values, *ref, None)).fetchone()
    return decode_record(row)


def make_free(
    connection: sqlite3.Connection, record: SessionRecord, expected_revision: int | None
) -> None:
    """Say why a session cannot be written to, or end the turn whose lease ran out.

    Raises:
        SessionInactiveError, RevisionConflictError, SessionBusyError
    """
    rules.check_writable(record)
    rules.check_revision(record, expected_revision)
    if rules.check_free(record, now()):
        turn = record.turn_id
        assert turn is not None, "a session with a lease has a turn"
        save_status(connection, record.creation, turn, TurnStatus.FAILED, rules.LOST_OWNER)
        connection.execute(
            "UPDATE sessions SET turn_token = NULL, turn_owner = NULL, turn_expires = NULL, "
            "errors = errors + 1, revision = revision + 1 WHERE key = ?",
            (record.creation,),
        )


def update_held(
    connection: sqlite3.Connection,
    statement: str,
    values: tuple[Any, ...],
    ref: SessionRef,
    token: str,
    expected_revision: int | None = None,
) -> SessionRecord:
    """Move the row of a session whose lease is held.

    Raises:
        SessionNotFoundError, TurnLostError, RevisionConflictError
    """
    values = (*values, *ref, token, expected_revision)
    row = connection.execute(statement, values).fetchone()
    if row is None:
        record = load(connection, ref)
        if record.turn_token == token:
            rules.check_revision(record, expected_revision)
        raise rules.lost(ref.session_id)
    return decode_record(row)


def held_turn(connection: sqlite3.Connection, ref: SessionRef, token: str) -> int:
    """The turn whose lease is held.

    Raises:
        SessionNotFoundError, TurnLostError
    """
    record = load(connection, ref)
    if record.turn_token != token:
        raise rules.lost(ref.session_id)
    return record.turn_id or 0


def insert(
    connection: sqlite3.Connection, record: SessionRecord, turn: int, batch: Batch
) -> list[SessionMessage]:
    """Insert messages, which the row has counted already, and return them all as stored.

    Raises:
        sqlite3.IntegrityError: If an id is stored already.
        StorageCorruptError: If a trigger kept one of them out, which SQLite tells nobody.
    """
    place = record.creation
    first = record.last_seq - len(batch.messages) + 1
    inserted = connection.executemany(
        _INSERT,
        [
            (place, seq, role, content, timestamp, message_id, turn, extra)
            for seq, (role, content, timestamp, message_id, extra) in enumerate(batch.rows, first)
        ],
    ).rowcount
    if batch.rows and inserted != len(batch.rows):
        raise StorageCorruptError(
            "a trigger of the database keeps messages from being stored; find it with "
            "langswarm-session doctor, and remove it"
        )
    return batch.merged(
        [message._placed(seq, turn) for seq, message in enumerate(batch.messages, first)]
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
    connection: sqlite3.Connection, place: Place, condition: str = "", values: tuple[Any, ...] = ()
) -> list[SessionMessage]:
    """A session's messages, in the order the condition asks for."""
    return decode_messages(
        connection.execute(
            f"SELECT {MESSAGE_COLUMNS} FROM messages WHERE session = ? {condition}",
            (place, *values),
        )
    )


def measure(
    connection: sqlite3.Connection, ref: SessionRef, after: int, skip: int | None
) -> LogMeasure:
    """How much of a log there is; see `ISessionStorage.measure_log`."""
    record = load(connection, ref)
    place = record.creation
    ends = connection.execute(_ENDS, {"session": place}).fetchone()
    first, last = (None, None) if ends == (None, None) else decode_numbers(ends)
    rows = connection.execute(_SEVERAL, (place, after)).fetchall()
    several = [decode_numbers(row)[0] for row in rows]
    spans = measure_span(first, last, record.message_count, after, skip)
    if spans is not None:
        return LogMeasure(*spans, several)
    [count] = connection.execute(_COUNT, (place, after)).fetchone()
    row = None if skip is None else connection.execute(_NTH, (place, after, skip)).fetchone()
    return LogMeasure(count, None if row is None else decode_numbers(row)[0], several)


def select_turn(connection: sqlite3.Connection, place: Place, turn: int) -> list[SessionMessage]:
    """A turn's messages, oldest first."""
    # A turn's messages never have a smaller number than the turn, which spares the index a scan.
    return select(connection, place, "AND seq >= ? AND turn = ? ORDER BY seq", (turn, turn))


def select_stored(
    connection: sqlite3.Connection, place: Place, messages: Sequence[SessionMessage]
) -> dict[str, SessionMessage]:
    """Those of the messages whose ids are stored, as they are stored."""
    stored: dict[str, SessionMessage] = {}
    for message in messages:
        found = select(connection, place, "AND id = ?", (encode_id(message.id),))
        stored.update((known.id, known) for known in found)
    return stored


def known_turn(
    connection: sqlite3.Connection,
    record: SessionRecord,
    batch: Batch,
    key: IdempotencyKey | None,
) -> rules.KnownTurn | None:
    """The turn the key was used in before, or the one of the last message, if all are stored."""
    place = record.creation
    note = None if key is None else _select_note(connection, place, "key = ?", key.key)
    turn = None if note is None else note.turn
    if turn is None and batch.stored and not batch.messages and rules.leads_to_turn(key):
        turn = batch.stored[batch.order[-1]].turn_id
        note = _select_note(connection, place, "turn = ?", turn)
    if turn is None:
        return None
    last_turn = connection.execute(
        "SELECT turn FROM messages WHERE session = ? ORDER BY seq DESC LIMIT 1", (place,)
    ).fetchone()
    status = TurnStatus.COMPLETE if note is None else note.status
    if record.turn_token is not None and record.turn_id == turn:
        status = TurnStatus.OPEN
    return rules.KnownTurn(turn, last_turn == (turn,), status, note and note.digest)


def _select_note(
    connection: sqlite3.Connection, place: Place, condition: str, value: object
) -> NoteRow | None:
    row = connection.execute(
        f"SELECT {NOTE_COLUMNS} FROM turns WHERE session = ? AND {condition}", (place, value)
    ).fetchone()
    return None if row is None else decode_note(row)


def drop_reply(connection: sqlite3.Connection, place: Place, turn: int, after: int) -> int:
    """Remove what there was of an unfinished turn's reply; returns how many messages.

    Args:
        after: The number of the last message that it is known to have begun with.
    """
    return connection.execute(
        "DELETE FROM messages WHERE session = :session AND turn = :turn AND seq >= ("
        "SELECT min(seq) FROM messages WHERE session = :session AND turn = :turn "
        "AND seq > :after AND role = :assistant)",
        {"session": place, "turn": turn, "after": after, "assistant": ASSISTANT},
    ).rowcount


def save_key(
    connection: sqlite3.Connection,
    place: Place,
    turn: int,
    status: TurnStatus,
    key: IdempotencyKey,
) -> None:
    """Note a turn's key, which no other turn has from now on."""
    connection.execute(
        "UPDATE turns SET key = NULL, digest = NULL WHERE session = ? AND key = ?",
        (place, key.key),
    )
    connection.execute(_SAVE_KEY, (place, turn, status.value, key.key, key.digest))


def save_status(
    connection: sqlite3.Connection,
    place: Place,
    turn: int,
    status: TurnStatus,
    error: str | None = None,
) -> None:
    """Note how a turn stands, and whether it belongs in the window."""
    # The roles only, so that a message that cannot be decoded does not keep a turn from its end.
    query = "SELECT role FROM messages WHERE session = ? AND seq >= ? AND turn = ?"
    codes = [code for (code,) in connection.execute(query, (place, turn, turn)).fetchall()]
    answered = rules.answered(status, decode_roles(codes))
    finished = None if status is TurnStatus.OPEN else now()
    connection.execute(_SAVE_STATUS, (place, turn, status.value, answered, error, finished))


def save_complete(connection: sqlite3.Connection, place: Place, turn: int) -> None:
    """Note that a turn is complete, where anything else was noted of it."""
    connection.execute(_SAVE_COMPLETE, (now(), place, turn))


def edit(
    connection: sqlite3.Connection,
    ref: SessionRef,
    expected_revision: int,
    remove: Sequence[int],
    change: Sequence[tuple[SessionMessage, MessageRow]],
    batch: Batch,
) -> Appended:
    """Remove, change and add messages; see `ISessionStorage.edit_messages`."""
    record = load(connection, ref)
    place = record.creation
    rules.check_append(record, None, expected_revision, now())
    changed = [message for message, _ in change]
    found = select_places(connection, place, {*remove, *(each.seq or 0 for each in changed)})
    new = check_edit(
        record,
        remove,
        changed,
        batch.messages,
        known={seq: message_id for seq, (message_id, _) in found.items()},
        taken=select_stored(connection, place, batch.messages),
    )
    size, removed = len(batch.messages), {*remove}
    if not (size or removed or change):
        return Appended(record, [])
    make_free(connection, record, expected_revision)
    values = (now(), size, size - len(removed), *rules.usage_sums(new), min(size, 1))
    record = update_free(connection, EDIT, values, ref, None)
    delete(connection, place, removed)
    put(connection, place, change)
    stored = insert(connection, record, record.last_seq - size + 1, batch)
    for turn in {found[seq][1] for seq in removed}:
        settle_turn(connection, place, turn)
    return Appended(record, stored, size)


def select_places(
    connection: sqlite3.Connection, place: Place, seqs: Iterable[int]
) -> dict[int, tuple[str, int]]:
    """The ids and turns, by number, of those of the messages that are there."""
    query = "SELECT seq, id, turn FROM messages WHERE session = ? AND seq = ?"
    found = [connection.execute(query, (place, seq)).fetchone() for seq in seqs]
    places = {}
    for number, message_id, of in filter(None, found):
        seq, turn = decode_numbers((number, of))
        places[seq] = decode_id(message_id), turn
    return places


def delete(connection: sqlite3.Connection, place: Place, seqs: Iterable[int]) -> None:
    """Remove messages."""
    connection.executemany(
        "DELETE FROM messages WHERE session = ? AND seq = ?", [(place, seq) for seq in seqs]
    )


def put(
    connection: sqlite3.Connection,
    place: Place,
    changed: Iterable[tuple[SessionMessage, MessageRow]],
) -> None:
    """Put messages in the place of the stored ones with the same numbers."""
    connection.executemany(
        _CHANGE,
        [
            (role, content, timestamp, extra, place, message.seq)
            for message, (role, content, timestamp, _, extra) in changed
        ],
    )


def settle_turn(connection: sqlite3.Connection, place: Place, turn: int) -> None:
    """Bring what is noted of a turn in line with the messages that it still has."""
    note = _select_note(connection, place, "turn = ?", turn)
    if note is None:
        return
    # A turn's messages stand together, so the next turn's first one ends them.
    following = connection.execute(
        "SELECT seq FROM messages WHERE session = ? AND seq >= ? AND turn != ? ORDER BY seq",
        (place, turn, turn),
    ).fetchone()
    end = MAX_SEQ if following is None else following[0]
    left = select(connection, place, "AND seq >= ? AND seq < ?", (turn, end))
    if not left:
        connection.execute("DELETE FROM turns WHERE session = ? AND turn = ?", (place, turn))
        return
    connection.execute(
        "UPDATE turns SET key = NULL, digest = NULL, answered = ? WHERE session = ? AND turn = ?",
        (rules.answered(note.status, [each.role for each in left]), place, turn),
    )


def select_turns(connection: sqlite3.Connection, record: SessionRecord, limit: int) -> list[Turn]:
    """The newest turns, oldest first; reads no more messages than they have."""
    place = record.creation
    spans: dict[int, list[tuple[int, int]]] = {}
    rows = connection.execute(
        "SELECT turn, seq, timestamp FROM messages WHERE session = ? ORDER BY seq DESC", (place,)
    )
    for turn, seq, timestamp in map(decode_numbers, rows):
        if turn not in spans and len(spans) == limit:
            break
        spans.setdefault(turn, []).append((seq, timestamp))
    notes = connection.execute(
        f"SELECT {NOTE_COLUMNS} FROM turns WHERE session = ? AND turn >= ?",
        (place, min(spans, default=0)),
    )
    known = {note.turn: note for note in map(decode_note, notes)}
    return [to_turn(record, turn, spans[turn], known.get(turn)) for turn in sorted(spans)]


def copy_log(
    connection: sqlite3.Connection, source: SessionRecord, target: Place, at: int | None
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
