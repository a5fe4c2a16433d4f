"""The SQL of the PostgreSQL storage: what is done inside one transaction, given its connection.

Whoever writes to a session locks its row first, decides, and puts the changed row back last; only
the writes of `langswarm_session.storage.postgres.batches` spare themselves that. The clock that
leases and activity go by is the server's, as its clients are many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from langswarm_session.models import SessionMessage, Turn, TurnStatus
from langswarm_session.records import (
    Appended,
    IdempotencyKey,
    Lease,
    NewSession,
    SessionRecord,
    SessionRef,
    TurnEnd,
    TurnStart,
)
from langswarm_session.storage import rules
from langswarm_session.storage.edits import check_edit
from langswarm_session.storage.postgres.pool import Connection
from langswarm_session.storage.postgres.rows import (
    Batch,
    encode,
    maybe_text,
    to_id,
    to_note,
    to_record,
    to_row,
    to_text,
)
from langswarm_session.storage.postgres.schema import Tables
from langswarm_session.storage.postgres.statements import FIELDS
from langswarm_session.storage.rows import ASSISTANT, MESSAGE_COLUMNS, decode_messages, decode_roles
from langswarm_session.storage.session_rows import (
    NOTE_COLUMNS,
    NoteRow,
    decode_numbers,
    to_turn,
)

_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
OWN = "session_id = $1 AND user_id = $2 AND key = coalesce($3::bigint, key)"
"""Finds the row of a `SessionRef`, whose values come in this order; see `own`."""

_LOAD = f"SELECT {_NOW}, {FIELDS} FROM {{sessions}} WHERE {OWN}"
_FIND = (
    f"SELECT {FIELDS} FROM {{sessions}} "
    "WHERE session_id = $1 AND user_id = coalesce($2::text, user_id)"
)
_CREATE = (
    "INSERT INTO {sessions} (session_id, user_id, provider, model, backend, status, context, "
    f"created_at, last_activity) SELECT $1, $2, $3, $4, $5, 'active', $6, now, now "
    f"FROM (SELECT {_NOW} AS now) AS clock "
    f"ON CONFLICT (session_id) DO NOTHING RETURNING created_at, {FIELDS}"
)
_SAVED = SessionRecord._fields[1:-1]
_SAVE = (
    f"UPDATE {{sessions}} SET {', '.join(f'{name} = ${n}' for n, name in enumerate(_SAVED, 2))} "
    "WHERE key = $1"
)
_SELECT = f"SELECT {MESSAGE_COLUMNS} FROM {{messages}} WHERE session = $1 "
_OF_TURN = (
    # A turn's messages stand together, so the next turn's first one ends them.
    "AND turn = $2 AND seq >= $2 AND seq < coalesce((SELECT seq FROM {messages} WHERE session = $1 "
    "AND seq > $2 AND turn <> $2 ORDER BY seq LIMIT 1), 9223372036854775807) "
)
_INSERT = (
    "INSERT INTO {messages} (session, turn, seq, role, content, timestamp, id, extra) "
    "SELECT $1, $2, * FROM unnest($3::bigint[], $4::smallint[], $5::text[], $6::bigint[], "
    "$7::bytea[], $8::text[])"
)
_CHANGE = (
    "UPDATE {messages} SET role = new.role, content = new.content, timestamp = new.timestamp, "
    "extra = new.extra FROM unnest($2::bigint[], $3::smallint[], $4::text[], $5::bigint[], "
    "$6::text[]) AS new (seq, role, content, timestamp, extra) "
    "WHERE session = $1 AND {messages}.seq = new.seq"
)
_DROP_REPLY = (
    "DELETE FROM {messages} WHERE session = $1 AND turn = $2 AND seq >= (SELECT min(seq) "
    f"FROM {{messages}} WHERE session = $1 AND turn = $2 AND seq > $3 AND role = {ASSISTANT}) "
    "RETURNING seq"
)
_SAVE_STATUS = (
    "INSERT INTO {turns} (session, turn, status, answered, error, finished_at) "
    "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (session, turn) DO UPDATE SET "
    "status = excluded.status, answered = excluded.answered, error = excluded.error, "
    "finished_at = excluded.finished_at"
)
_NO_LEASE: dict[str, Any] = {"turn_token": None, "turn_owner": None, "turn_expires": None}
_SPANS = 1000
"""How many messages are looked at in one go for the turns they are in."""


class Log:
    """A session inside a transaction.

    Args:
        connection: The transaction's.
        tables: Where the tables are.
        row: The server's time and the session's fields.

    Attributes:
        record: The session, with the changes that `save` will write.
        now: The server's time, in microseconds since 1970.
    """

    def __init__(self, connection: Connection, tables: Tables, row: Sequence[Any]) -> None:
        self._connection = connection
        self._tables = tables
        (self.now,) = decode_numbers(row[:1])
        self.record = to_record(row[1:])
        self._place = self.record.creation

    async def save(self) -> SessionRecord:
        """Write the session's row."""
        row = to_row(self.record)
        await self._run(_SAVE, *row[1:-1])
        return self.record

    def change(self, **fields: Any) -> None:
        """Change the row, which moves its revision."""
        self.record = self.record._replace(revision=self.record.revision + 1, **fields)

    def add(self, size: int, sums: tuple[int, int, int, int] = (0, 0, 0, 0), **fields: Any) -> None:
        """Count messages in the row."""
        record = self.record
        self.change(
            last_activity=max(record.last_activity, self.now),
            last_seq=record.last_seq + size,
            message_count=record.message_count + size,
            input_tokens=record.input_tokens + sums[0],
            output_tokens=record.output_tokens + sums[1],
            cached_tokens=record.cached_tokens + sums[2],
            reasoning_tokens=record.reasoning_tokens + sums[3],
            **fields,
        )

    async def make_free(self, expected_revision: int | None) -> None:
        """Raise if the session cannot be written to; end a turn whose lease ran out."""
        rules.check_writable(self.record)
        rules.check_revision(self.record, expected_revision)
        if rules.check_free(self.record, self.now):
            turn = self.record.turn_id
            assert turn is not None, "a session with a lease has a turn"
            await self.save_status(turn, TurnStatus.FAILED, rules.LOST_OWNER)
            self.change(errors=self.record.errors + 1, **_NO_LEASE)

    def check_held(self, token: str) -> int:
        """The turn that the lease is on.

        Raises:
            TurnLostError: If it is not held any more.
        """
        if self.record.turn_token != token or self.record.turn_id is None:
            raise rules.lost(self.record.session_id)
        return self.record.turn_id

    async def insert(self, batch: Batch, turn: int) -> list[SessionMessage]:
        """Insert messages that the row has counted already; returns them all as stored."""
        last = self.record.last_seq
        if batch.rows:
            columns = zip(*batch.rows, strict=True)
            seqs = range(last - len(batch.rows) + 1, last + 1)
            await self._run(_INSERT, turn, list(seqs), *columns)
        return batch.placed(last, turn)

    async def select(self, condition: str = "", *values: Any) -> list[SessionMessage]:
        """The session's messages, in the order the condition asks for."""
        return decode_messages(await self._run(_SELECT + condition, *values))

    async def select_turn(self, turn: int) -> list[SessionMessage]:
        """A turn's messages, oldest first."""
        return await self.select(_OF_TURN + "ORDER BY seq", turn)

    async def select_stored(self, messages: Sequence[SessionMessage]) -> dict[str, SessionMessage]:
        """Those of the messages whose ids are stored, as they are stored."""
        ids = [to_id(message.id) for message in messages]
        return {known.id: known for known in await self.select("AND id = ANY($2)", ids)}

    async def known_turn(self, batch: Batch, key: IdempotencyKey | None) -> rules.KnownTurn | None:
        """The turn the key was used in, or the one of the last message, if all are stored."""
        note = None if key is None else await self._note("key = $2", to_text(key.key))
        turn = None if note is None else note.turn
        if turn is None and batch.stored and not batch.messages and rules.leads_to_turn(key):
            turn = batch.stored[batch.order[-1]].turn_id
            note = await self._note("turn = $2", turn)
        if turn is None:
            return None
        rows = await self._run(
            "SELECT turn FROM {messages} WHERE session = $1 ORDER BY seq DESC LIMIT 1"
        )
        status = TurnStatus.COMPLETE if note is None else note.status
        if self.record.turn_token is not None and self.record.turn_id == turn:
            status = TurnStatus.OPEN
        is_last = bool(rows) and rows[0][0] == turn
        return rules.KnownTurn(turn, is_last, status, note and note.digest)

    async def _note(self, condition: str, value: object) -> NoteRow | None:
        query = f"SELECT {NOTE_COLUMNS} FROM {{turns}} WHERE session = $1 AND {condition}"
        rows = await self._run(query, value)
        return to_note(rows[0]) if rows else None

    async def drop_reply(self, turn: int, after: int) -> None:
        """Remove what there was of an unfinished turn's reply.

        Args:
            turn: The turn.
            after: The number of the last message that it is known to have begun with.
        """
        rows = await self._run(_DROP_REPLY, turn, after)
        self.record = self.record._replace(message_count=self.record.message_count - len(rows))

    async def save_key(self, turn: int, status: TurnStatus, key: IdempotencyKey) -> None:
        """Note a turn's key, which no other turn has from now on."""
        await self._run(
            "UPDATE {turns} SET key = NULL, digest = NULL WHERE session = $1 AND key = $2",
            to_text(key.key),
        )
        await self._run(
            "INSERT INTO {turns} (session, turn, status, answered, key, digest) "
            "VALUES ($1, $2, $3, true, $4, $5)",
            turn,
            status.value,
            to_text(key.key),
            to_text(key.digest),
        )

    async def save_status(self, turn: int, status: TurnStatus, error: str | None = None) -> None:
        """Note how a turn stands, and whether it belongs in the window."""
        # The roles only: a message that cannot be decoded does not keep a turn from its end.
        query = "SELECT role FROM {messages} WHERE session = $1 " + _OF_TURN
        rows = await self._run(query, turn)
        answered = rules.answered(status, decode_roles(code for (code,) in rows))
        finished = None if status is TurnStatus.OPEN else self.now
        await self._run(_SAVE_STATUS, turn, status.value, answered, maybe_text(error), finished)

    async def save_complete(self, turn: int) -> None:
        """Note that a turn is complete, where anything else was noted of it."""
        await self._run(
            "UPDATE {turns} SET status = 'complete', answered = true, error = NULL, "
            "finished_at = $3 WHERE session = $1 AND turn = $2",
            turn,
            self.now,
        )

    async def select_places(self, seqs: Iterable[int]) -> dict[int, SessionMessage]:
        """Those of the messages that are there, by number."""
        wanted = [seq for seq in seqs if 0 < seq < 2**63]
        found = await self.select("AND seq = ANY($2)", wanted)
        return {message.seq or 0: message for message in found}

    async def delete(self, seqs: Iterable[int]) -> None:
        """Remove messages."""
        await self._run("DELETE FROM {messages} WHERE session = $1 AND seq = ANY($2)", list(seqs))

    async def put(self, changed: Sequence[SessionMessage]) -> None:
        """Put messages in the place of the stored ones with the same numbers."""
        rows = [(message.seq, *encode(message)) for message in changed]
        if rows:
            seqs, roles, contents, times, _, extras = zip(*rows, strict=True)
            await self._run(_CHANGE, seqs, roles, contents, times, extras)

    async def settle_turn(self, turn: int) -> None:
        """Bring what is noted of a turn in line with the messages that it still has."""
        note = await self._note("turn = $2", turn)
        if note is None:
            return
        left = await self.select_turn(turn)
        if not left:
            await self._run("DELETE FROM {turns} WHERE session = $1 AND turn = $2", turn)
            return
        await self._run(
            "UPDATE {turns} SET key = NULL, digest = NULL, answered = $3 "
            "WHERE session = $1 AND turn = $2",
            turn,
            rules.answered(note.status, [each.role for each in left]),
        )

    async def clear(self) -> None:
        """Remove all messages and turns."""
        await self._run("DELETE FROM {messages} WHERE session = $1")
        await self._run("DELETE FROM {turns} WHERE session = $1")

    async def remove(self) -> None:
        """Remove the session and all it holds."""
        await self.clear()
        await self._run("DELETE FROM {sessions} WHERE key = $1")

    async def copy_to(self, target: Log, at: int | None) -> None:
        """Copy the log up to a sequence number, without a turn that is still open."""
        record = self.record
        last = record.last_seq if at is None else min(at, record.last_seq)
        if record.turn_token is not None and record.turn_id is not None:
            last = min(last, record.turn_id - 1)
        await self._run(
            f"INSERT INTO {{messages}} (session, {MESSAGE_COLUMNS}) SELECT $2, {MESSAGE_COLUMNS} "
            "FROM {messages} WHERE session = $1 AND seq <= $3",
            target._place,
            last,
        )
        await self._run(
            "INSERT INTO {turns} (session, turn, status, answered, error, finished_at) SELECT $2, "
            "turn, status, answered, error, finished_at FROM {turns} WHERE session = $1 "
            "AND turn <= (SELECT max(seq) FROM {messages} WHERE session = $2)",
            target._place,
        )
        rows = await target._run(
            "SELECT coalesce(max(seq), 0), count(*), count(DISTINCT turn) FROM {messages} "
            "WHERE session = $1"
        )
        names = ("last_seq", "message_count", "turn_count")
        target.record = target.record._replace(**dict(zip(names, rows[0], strict=True)))

    async def select_turns(self, limit: int) -> list[Turn]:
        """The newest turns, oldest first; reads hardly more messages than they have."""
        spans = await self._spans(limit)
        rows = await self._run(
            f"SELECT {NOTE_COLUMNS} FROM {{turns}} WHERE session = $1 AND turn >= $2",
            min(spans, default=0),
        )
        known = {note.turn: note for note in map(to_note, rows)}
        return [to_turn(self.record, turn, spans[turn], known.get(turn)) for turn in sorted(spans)]

    async def _spans(self, limit: int) -> dict[int, list[tuple[int, int]]]:
        """Number and time of the messages, newest first, of the newest turns."""
        spans: dict[int, list[tuple[int, int]]] = {}
        before = 2**63 - 1
        while limit > 0:
            rows = await self._run(
                "SELECT turn, seq, timestamp FROM {messages} WHERE session = $1 AND seq < $2 "
                f"ORDER BY seq DESC LIMIT {_SPANS}",
                before,
            )
            for turn, seq, timestamp in map(decode_numbers, rows):
                if turn not in spans and len(spans) == limit:
                    return spans
                spans.setdefault(turn, []).append((seq, timestamp))
                before = seq
            if len(rows) < _SPANS:
                break
        return spans

    async def _run(self, template: str, *values: Any) -> list[Any]:
        return await self._connection.fetch(self._tables.sql(template), self._place, *values)


def own(ref: SessionRef) -> tuple[str, str, int | None]:
    """Return the values of `OWN`."""
    return to_text(ref.session_id), to_text(ref.user_id), ref.creation


async def find(
    connection: Connection, tables: Tables, session_id: str, user_id: str | None
) -> SessionRecord:
    """Return the session of that name.

    Args:
        user_id: Whose session it must be; None for any user's.

    Raises:
        SessionNotFoundError: If there is none.
    """
    rows = await connection.fetch(tables.sql(_FIND), to_text(session_id), maybe_text(user_id))
    if not rows:
        raise rules.not_found(session_id)
    return to_record(rows[0])


async def load(
    connection: Connection, tables: Tables, ref: SessionRef, *, lock: bool = True
) -> Log:
    """The session, which nobody else can write to for the rest of the transaction.

    Args:
        lock: False for one that is only read.

    Raises:
        SessionNotFoundError: If there is none.
    """
    query = tables.sql(_LOAD + " FOR UPDATE" if lock else _LOAD)
    rows = await connection.fetch(query, *own(ref))
    if not rows:
        raise rules.not_found(ref.session_id)
    return Log(connection, tables, rows[0])


async def create(connection: Connection, tables: Tables, session: NewSession, context: str) -> Log:
    """Insert a session.

    Raises:
        SessionExistsError: If the id is taken.
    """
    rows = await connection.fetch(
        tables.sql(_CREATE),
        to_text(session.session_id),
        to_text(session.user_id),
        to_text(session.provider),
        to_text(session.model),
        session.backend.value,
        context,
    )
    if not rows:
        raise rules.exists(session.session_id)
    return Log(connection, tables, rows[0])


async def _sorted_out(log: Log, messages: Sequence[SessionMessage]) -> Batch:
    """The messages that are new, and those that are stored already."""
    stored = await log.select_stored(messages)
    fresh = rules.new_messages(log.record.session_id, messages, stored)
    return Batch(fresh, stored, [message.id for message in messages])


def _was_made(batch: Batch, unclear: bool) -> bool:
    """Whether a write whose answer was lost has been made: all its messages are there."""
    return unclear and bool(batch.stored) and not batch.messages


async def append(
    log: Log,
    messages: Sequence[SessionMessage],
    token: str | None,
    expected_revision: int | None,
    key: IdempotencyKey | None,
    *,
    unclear: bool = False,
) -> Appended:
    """Add messages; see `ISessionStorage.append`.

    Args:
        unclear: Whether it may have been done already.
    """
    batch = await _sorted_out(log, messages)
    if _was_made(batch, unclear):
        return Appended(log.record, batch.placed(0, 0), len(batch.stored))
    if not batch.messages:
        if batch.stored:
            known = None if key is None else await log.known_turn(batch, key)
            if rules.is_replay(known, key, token, log.record):
                return Appended(log.record, await log.select_turn(known.turn))
            rules.check_append(log.record, token, expected_revision, log.now)
        return Appended(log.record, batch.placed(0, 0))
    if token is not None:
        turn = log.check_held(token)
        rules.check_revision(log.record, expected_revision)
        log.add(len(batch.messages), batch.sums)
        return await _stored(log, batch, turn)
    if key is not None:
        known = await log.known_turn(batch, key)
        if known is not None and rules.check_known(known, key, log.record) == "replay":
            return Appended(log.record, await log.select_turn(known.turn))
    await log.make_free(expected_revision)
    turn = log.record.last_seq + 1
    log.add(len(batch.messages), batch.sums, turn_count=log.record.turn_count + 1)
    if key is not None:
        await log.save_key(turn, TurnStatus.COMPLETE, key)
    return await _stored(log, batch, turn)


async def _stored(log: Log, batch: Batch, turn: int) -> Appended:
    stored = await log.insert(batch, turn)
    return Appended(await log.save(), stored, len(batch.messages))


async def begin_turn(
    log: Log,
    messages: Sequence[SessionMessage],
    lease: Lease,
    key: IdempotencyKey | None,
    expected_revision: int | None,
    *,
    unclear: bool = False,
) -> TurnStart:
    """Begin a turn; see `ISessionStorage.begin_turn`.

    Args:
        unclear: Whether it may have been done already.
    """
    batch = await _sorted_out(log, messages)
    if _was_made(batch, unclear) and log.record.turn_token == lease.token:
        begun = batch.placed(0, 0)
        own = [message for message in begun if message.turn_id == log.record.turn_id]
        return TurnStart(log.record, begun, added=len(own))
    held = {
        "turn_token": lease.token,
        "turn_owner": lease.owner,
        "turn_expires": log.now + int(lease.seconds * 1_000_000),
    }
    known = await log.known_turn(batch, key)
    outcome, asked = None, 0
    if known is not None:
        begun = await log.select_turn(known.turn)
        asked = rules.last_begun(len(messages), batch.stored.values(), known.turn)
        outcome = rules.check_begun(known, key, log.record, begun, asked)
        if outcome == "replay":
            return TurnStart(log.record, begun, replayed=True)
    await log.make_free(expected_revision)
    if known is not None and outcome == "resume":
        return await _resume(log, known.turn, asked, held, key, batch.stored.values())
    turn = log.record.last_seq + 1
    turns = log.record.turn_count + 1
    log.add(len(batch.messages), batch.sums, turn_id=turn, turn_count=turns, **held)
    if not batch.messages:  # no other turn may have its number
        log.record = log.record._replace(last_seq=turn)
    if key is not None:
        await log.save_key(turn, TurnStatus.OPEN, key)
    stored = await log.insert(batch, turn)
    return TurnStart(await log.save(), stored, added=len(batch.messages))


async def _resume(
    log: Log,
    turn: int,
    asked: int,
    held: dict[str, Any],
    key: IdempotencyKey | None,
    asked_for: Iterable[SessionMessage],
) -> TurnStart:
    """Open again a turn that has no whole reply, with what it began with."""
    await log.drop_reply(turn, asked)
    log.add(0, turn_id=turn, **held)
    await log.save_status(turn, TurnStatus.OPEN)
    left = await log.select_turn(turn)
    return TurnStart(await log.save(), rules.begun_with(key, asked_for, left))


async def end_turn(
    log: Log,
    end: TurnEnd,
    messages: Sequence[SessionMessage],
    state: str | None,
    *,
    unclear: bool = False,
) -> Appended:
    """End a turn; see `ISessionStorage.end_turn`.

    Args:
        unclear: Whether it may have been done already.
    """
    batch = await _sorted_out(log, messages)
    if unclear and await _has_ended(log, end, batch):
        return Appended(log.record, batch.placed(0, 0), len(batch.stored))
    turn = log.check_held(end.token)
    rules.check_ends(log.record.session_id, batch.stored.values(), turn)
    changes: dict[str, Any] = dict(_NO_LEASE)
    if state is not None:
        changes["provider_state"] = state
    if end.status is TurnStatus.FAILED:
        changes["errors"] = log.record.errors + 1
    log.add(len(batch.messages), batch.sums, **changes)
    stored = await log.insert(batch, turn)
    if end.status is TurnStatus.COMPLETE:
        await log.save_complete(turn)
    else:
        await log.save_status(turn, end.status, end.error)
    return Appended(await log.save(), stored, len(batch.messages))


async def _has_ended(log: Log, end: TurnEnd, batch: Batch) -> bool:
    """Whether a turn's end whose answer was lost has been stored."""
    if log.record.turn_token == end.token or log.record.turn_id is None or batch.messages:
        return False
    if batch.stored:
        return True
    rows = await log._run(
        "SELECT status, error FROM {turns} WHERE session = $1 AND turn = $2", log.record.turn_id
    )
    if not rows:
        return end.status is TurnStatus.COMPLETE
    return (rows[0][0], rows[0][1]) == (end.status.value, maybe_text(end.error))


async def edit(
    log: Log,
    expected_revision: int,
    remove: Sequence[int],
    change: Sequence[SessionMessage],
    batch: Batch,
) -> Appended:
    """Remove, change and add messages; see `ISessionStorage.edit_messages`."""
    rules.check_append(log.record, None, expected_revision, log.now)
    found = await log.select_places({*remove, *(each.seq or 0 for each in change)})
    new = check_edit(
        log.record,
        remove,
        change,
        batch.messages,
        known={seq: message.id for seq, message in found.items()},
        taken=await log.select_stored(batch.messages),
    )
    size, removed = len(batch.messages), {*remove}
    if not (size or removed or change):
        return Appended(log.record, [])
    await log.make_free(expected_revision)
    log.add(size, rules.usage_sums(new), turn_count=log.record.turn_count + min(size, 1))
    log.record = log.record._replace(message_count=log.record.message_count - len(removed))
    await log.delete(removed)
    await log.put(change)
    stored = await log.insert(batch, log.record.last_seq - size + 1)
    for turn in {found[seq].turn_id or 0 for seq in removed}:
        await log.settle_turn(turn)
    return Appended(await log.save(), stored, size)
