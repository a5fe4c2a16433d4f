"""The SQL of the PostgreSQL storage: what is done inside one transaction, given its connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langswarm_session.models import SessionMessage, Turn
from langswarm_session.records import (
    NewSession,
    SessionRecord,
    SessionRef,
)
from langswarm_session.storage import rules
from langswarm_session.storage.postgres.pool import Connection
from langswarm_session.storage.postgres.rows import (
    maybe_text,
    to_note,
    to_record,
    to_text,
)
from langswarm_session.storage.postgres.schema import Tables
from langswarm_session.storage.postgres.statements import FIELDS
from langswarm_session.storage.rows import MESSAGE_COLUMNS, decode_messages
from langswarm_session.storage.session_rows import (
    NOTE_COLUMNS,
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
_SELECT = f"SELECT {MESSAGE_COLUMNS} FROM {{messages}} WHERE session = $1 "
_SAVE_FIGURES = (
    "UPDATE {sessions} SET last_seq = $2, message_count = $3, turn_count = $4 WHERE key = $1"
)
_SPANS = 1000
"""How many messages are looked at in one go for the turns they are in."""


class Log:
    """A session inside a transaction.

    Args:
        connection: The transaction's.
        tables: Where the tables are.
        row: The server's time and the session's fields.

    Attributes:
        record: The session.
        now: The server's time, in microseconds since 1970.
    """

    def __init__(self, connection: Connection, tables: Tables, row: Sequence[Any]) -> None:
        self._connection = connection
        self._tables = tables
        (self.now,) = decode_numbers(row[:1])
        self.record = to_record(row[1:])

    async def select(self, condition: str = "", *values: Any) -> list[SessionMessage]:
        """The session's messages, in the order the condition asks for."""
        return decode_messages(await self.run(_SELECT + condition, *values))

    async def clear(self) -> None:
        """Remove all messages and turns."""
        await self.run("DELETE FROM {messages} WHERE session = $1")
        await self.run("DELETE FROM {turns} WHERE session = $1")

    async def remove(self) -> None:
        """Remove the session and all it holds."""
        await self.clear()
        await self.run("DELETE FROM {sessions} WHERE key = $1")

    async def copy_to(self, target: Log, at: int | None) -> None:
        """Copy the log up to a sequence number, without a turn that is still open."""
        record = self.record
        last = record.last_seq if at is None else min(at, record.last_seq)
        if record.turn_token is not None and record.turn_id is not None:
            last = min(last, record.turn_id - 1)
        await self.run(
            f"INSERT INTO {{messages}} (session, {MESSAGE_COLUMNS}) SELECT $2, {MESSAGE_COLUMNS} "
            "FROM {messages} WHERE session = $1 AND seq <= $3",
            target.record.creation,
            last,
        )
        await self.run(
            "INSERT INTO {turns} (session, turn, status, answered, error, finished_at) SELECT $2, "
            "turn, status, answered, error, finished_at FROM {turns} WHERE session = $1 "
            "AND turn <= (SELECT max(seq) FROM {messages} WHERE session = $2)",
            target.record.creation,
        )
        rows = await target.run(
            "SELECT coalesce(max(seq), 0), count(*), count(DISTINCT turn) FROM {messages} "
            "WHERE session = $1"
        )
        names = ("last_seq", "message_count", "turn_count")
        target.record = target.record._replace(**dict(zip(names, rows[0], strict=True)))
        await target.run(_SAVE_FIGURES, *rows[0])

    async def select_turns(self, limit: int) -> list[Turn]:
        """The newest turns, oldest first; reads hardly more messages than they have."""
        spans = await self._spans(limit)
        rows = await self.run(
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
            rows = await self.run(
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

    async def run(self, template: str, *values: Any) -> list[Any]:
        """Run a statement whose first value is the session's key.

        Args:
            template: The statement, with our tables in braces.
            *values: Its other values.
        """
        return await self._connection.fetch(
            self._tables.sql(template), self.record.creation, *values
        )


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
