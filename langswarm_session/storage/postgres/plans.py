"""The facts that a write is decided on, and the plan that comes of it, in one transaction.

The session's row is locked first, so that nobody else can write in between. The clock that leases
and activity go by is the server's, as its clients are many.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from langswarm_session.models import SessionMessage
from langswarm_session.records import SessionRecord
from langswarm_session.storage.decisions import (
    Facts,
    MessagePlace,
    Plan,
    Repeat,
    TurnFacts,
    Write,
)
from langswarm_session.storage.postgres.pool import Connection
from langswarm_session.storage.postgres.rows import (
    encode,
    maybe_text,
    to_id,
    to_note,
    to_row,
    to_text,
)
from langswarm_session.storage.postgres.schema import Tables
from langswarm_session.storage.postgres.transactions import Log, load
from langswarm_session.storage.rows import decode_roles
from langswarm_session.storage.session_rows import NOTE_COLUMNS, NoteRow

_SAVED = SessionRecord._fields[1:-1]
_SAVE = (
    f"UPDATE {{sessions}} SET {', '.join(f'{name} = ${n}' for n, name in enumerate(_SAVED, 2))} "
    "WHERE key = $1"
)
_OF_TURN = (
    # A turn's messages stand together, so the next turn's first one ends them.
    "AND turn = $2 AND seq >= $2 AND seq < coalesce((SELECT seq FROM {messages} WHERE session = $1 "
    "AND seq > $2 AND turn <> $2 ORDER BY seq LIMIT 1), 9223372036854775807) ORDER BY seq"
)
_ROLES = f"SELECT seq, role FROM {{messages}} WHERE session = $1 {_OF_TURN}"
_LAST_TURN = "SELECT turn FROM {messages} WHERE session = $1 ORDER BY seq DESC LIMIT 1"
_DELETE = "DELETE FROM {messages} WHERE session = $1 AND seq = ANY($2)"
_CHANGE = (
    "UPDATE {messages} SET role = new.role, content = new.content, timestamp = new.timestamp, "
    "extra = new.extra FROM unnest($2::bigint[], $3::smallint[], $4::text[], $5::bigint[], "
    "$6::text[]) AS new (seq, role, content, timestamp, extra) "
    "WHERE session = $1 AND {messages}.seq = new.seq"
)
_INSERT = (
    "INSERT INTO {messages} (session, turn, seq, role, content, timestamp, id, extra) "
    "SELECT $1, $2, * FROM unnest($3::bigint[], $4::smallint[], $5::text[], $6::bigint[], "
    "$7::bytea[], $8::text[])"
)
_SAVE_NOTE = (
    f"INSERT INTO {{turns}} (session, {NOTE_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) "
    "ON CONFLICT (session, turn) DO UPDATE SET status = excluded.status, "
    "answered = excluded.answered, key = excluded.key, digest = excluded.digest, "
    "error = excluded.error, finished_at = excluded.finished_at"
)
_FORGET = "DELETE FROM {turns} WHERE session = $1 AND turn = ANY($2)"

R = TypeVar("R")


async def decide(
    connection: Connection, tables: Tables, write: Write[R], *, unclear: bool = False
) -> R:
    """Do a write as it is decided on what is stored.

    Args:
        connection: The transaction's.
        tables: Where the tables are.
        write: The write.
        unclear: Whether it may have been done already, and only the answer was lost.

    Raises:
        SessionError: If it is refused.
    """
    log = await load(connection, tables, write.ref)
    facts = await _facts(log, write)
    facts.repeat = Repeat.MAYBE if unclear else Repeat.NO
    plan = write.decide(facts)
    if plan.record is not None:
        await _apply(log, plan.record, plan)
    return plan.result


async def _facts(log: Log, write: Write[Any]) -> Facts:
    key = write.key
    note = None if key is None else await _note(log, "key", to_text(key.key))
    facts = Facts(
        record=log.record,
        now=log.now,
        stored=await _stored(log, write.messages),
        key_turn=None if note is None else note.turn,
        places=await _places(log, write.numbers()),
    )
    for turn, with_messages in write.turns(facts).items():
        facts.turns[turn] = await _turn(log, turn, with_messages=with_messages)
    return facts


async def _stored(log: Log, messages: Sequence[SessionMessage]) -> dict[str, SessionMessage]:
    if not messages:
        return {}
    ids = [to_id(message.id) for message in messages]
    return {known.id: known for known in await log.select("AND id = ANY($2)", ids)}


async def _places(log: Log, numbers: Collection[int]) -> dict[int, MessagePlace]:
    wanted = [seq for seq in numbers if 0 < seq < 2**63]
    messages = await log.select("AND seq = ANY($2)", wanted) if wanted else []
    return {each.seq or 0: MessagePlace(each.id, each.turn_id or 0) for each in messages}


async def _turn(log: Log, turn: int, *, with_messages: bool) -> TurnFacts:
    # The roles only: a message that cannot be decoded does not keep a turn from its end.
    rows = await log.run(_ROLES, turn)
    facts = TurnFacts(
        note=await _note(log, "turn", turn),
        roles={seq: next(iter(decode_roles([code])), None) for seq, code in rows},
    )
    if with_messages:
        [*newest] = await log.run(_LAST_TURN)
        facts.is_last = bool(newest) and newest[0][0] == turn
        facts.messages = await log.select(_OF_TURN, turn)
    return facts


async def _note(log: Log, column: str, value: object) -> NoteRow | None:
    query = f"SELECT {NOTE_COLUMNS} FROM {{turns}} WHERE session = $1 AND {column} = $2"
    rows = await log.run(query, value)
    return to_note(rows[0]) if rows else None


async def _apply(log: Log, record: SessionRecord, plan: Plan[Any]) -> None:
    if plan.clears:
        await log.clear()
    if plan.removed:
        await log.run(_DELETE, list(plan.removed))
    await _change(log, plan.changed)
    await _insert(log, plan.added)
    for note in plan.notes:
        await _save_note(log, note)
    if plan.forgotten:
        await log.run(_FORGET, list(plan.forgotten))
    await log.run(_SAVE, *to_row(record)[1:-1])


async def _change(log: Log, changed: Sequence[SessionMessage]) -> None:
    if changed:
        rows = [(message.seq, *encode(message)) for message in changed]
        seqs, roles, contents, times, _, extras = zip(*rows, strict=True)
        await log.run(_CHANGE, seqs, roles, contents, times, extras)


async def _insert(log: Log, added: Sequence[SessionMessage]) -> None:
    if added:
        columns = zip(*((message.seq, *encode(message)) for message in added), strict=True)
        await log.run(_INSERT, added[0].turn_id, *columns)


async def _save_note(log: Log, note: NoteRow) -> None:
    await log.run(
        _SAVE_NOTE,
        note.turn,
        note.status.value,
        note.answered,
        maybe_text(note.key),
        maybe_text(note.digest),
        maybe_text(note.error),
        note.finished_at,
    )
