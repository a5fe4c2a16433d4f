"""Writes that many sessions send together: the four that make up a turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langswarm_session.models import TurnStatus
from langswarm_session.records import IdempotencyKey, Lease, SessionRecord
from langswarm_session.storage.calls import Call
from langswarm_session.storage.postgres_pool import Connection
from langswarm_session.storage.postgres_rows import Batch, maybe_text, to_record, to_text
from langswarm_session.storage.postgres_schema import Tables

FIELDS = ", ".join(SessionRecord._fields)
_ARGUMENTS = ", ".join(f"${n}" for n in range(1, 24))
_WRITE = f"SELECT key, {FIELDS} FROM {{write}}({_ARGUMENTS})"

# What the function does, for one write, which spares the server its interpreter. It is planned
# anew each time unless it is prepared, which takes longer than the function.
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_MOVE_ONE = f"""
WITH moved AS (
    UPDATE {{sessions}} AS s SET
        revision = s.revision + 1,
        last_activity = greatest(s.last_activity, {_NOW}),
        last_seq = s.last_seq + $7,
        message_count = s.message_count + $7,
        turn_count = s.turn_count + ($2 IS NULL)::int,
        input_tokens = s.input_tokens + coalesce($8, 0),
        output_tokens = s.output_tokens + coalesce($9, 0),
        cached_tokens = s.cached_tokens + coalesce($10, 0),
        reasoning_tokens = s.reasoning_tokens + coalesce($11, 0),
        provider_state = coalesce($12, s.provider_state),
        turn_id = CASE WHEN $5::bigint IS NULL THEN s.turn_id ELSE s.last_seq + 1 END,
        turn_token = $3::text,
        turn_owner = CASE WHEN $3 IS NOT NULL THEN coalesce($4, s.turn_owner) END,
        turn_expires = CASE WHEN $3 IS NOT NULL THEN coalesce({_NOW} + $5, s.turn_expires) END
    WHERE s.session_id = $1
        AND s.turn_token IS NOT DISTINCT FROM $2
        AND ($2 IS NOT NULL OR s.status IN ('active', 'error'))
        AND s.revision = coalesce($6, s.revision)
    RETURNING s.*
), put AS (
    INSERT INTO {{messages}} (session, seq, turn, timestamp, role, id, content, extra)
    SELECT moved.key, moved.last_seq - $7 + m.n,
        CASE WHEN $2 IS NULL THEN moved.last_seq - $7 + 1 ELSE moved.turn_id END,
        m.moment, m.role, m.id, m.content, m.extra
    FROM moved, unnest($13::smallint[], $14::text[], $15::bigint[], $16::bytea[], $17::text[])
        WITH ORDINALITY AS m (role, content, moment, id, extra, n)
)"""
_COMPLETE_ONE = f""", done AS (
    UPDATE {{turns}} AS t SET status = 'complete', answered = true, error = NULL,
        finished_at = {_NOW}
    FROM moved WHERE t.session = moved.key AND t.turn = moved.turn_id
)"""
_SHOW_ONE = f" SELECT key, {FIELDS} FROM moved"
_WRITE_ONE = {
    None: _MOVE_ONE + _SHOW_ONE,
    TurnStatus.COMPLETE.value: _MOVE_ONE + _COMPLETE_ONE + _SHOW_ONE,
}
"""The statements for a turn that is not noted, and for the end of one that may be."""


class Write(Call):
    """A turn, its beginning, a part of it, or its end.

    Args:
        session_id: The session.
        batch: The messages to add; all of them must be new.
        token: The token of the lease that the write is under; None: it begins a turn.
        lease: The lease to take.
        keeps: Whether the lease is kept; it is given back otherwise.
        revision: The revision that the session must be at.
        state: The provider's new state.
        status: What to note of the turn.
        answered: Whether there is a reply among the messages.
        error: Why it was cancelled or failed.
        key: The turn's key.
        job: What to do in a transaction if any of that does not hold; the argument says whether
            the write may have been made already, and only the answer was lost.

    Attributes:
        weight: How many characters the messages have.
        is_plain: Whether one statement will do that notes nothing of the turn.
        is_odd: Whether to leave it to the job at once.
        unclear: Whether it was sent and no answer came.
    """

    __slots__ = (
        "_job",
        "batch",
        "is_odd",
        "is_plain",
        "session_id",
        "status",
        "unclear",
        "values",
        "weight",
    )

    def __init__(
        self,
        session_id: str,
        batch: Batch,
        job: Callable[[Connection, bool], Awaitable[Any]],
        *,
        token: str | None = None,
        lease: Lease | None = None,
        keeps: bool = False,
        revision: int | None = None,
        state: str | None = None,
        status: str | None = None,
        answered: bool = False,
        error: str | None = None,
        key: IdempotencyKey | None = None,
    ) -> None:
        super().__init__()
        self.session_id = session_id
        self.batch = batch
        self.weight = sum(len(row[1] or "") + len(row[4] or "") for row in batch.rows)
        self.status = status
        self.is_plain = key is None and status in _WRITE_ONE
        self.is_odd = self.unclear = False
        self._job = job
        self.values = (
            to_text(session_id),
            maybe_text(token),
            maybe_text(token if keeps else lease.token if lease else None),
            maybe_text(lease.owner if lease else None),
            int(lease.seconds * 1_000_000) if lease else None,
            revision,
            len(batch.rows),
            *(each or None for each in batch.sums),
            state,
            status,
            answered or None,
            maybe_text(error),
            maybe_text(key.key if key else None),
            maybe_text(key.digest if key else None),
        )

    async def job(self, connection: Connection) -> Any:
        """Do the write in a transaction of its own."""
        return await self._job(connection, self.unclear)


async def send(
    connection: Connection, tables: Tables, group: list[Write], *, may_wait: bool
) -> None:
    """Make writes in one statement, and set the result of each that was made.

    One that does not fit its session as it is now, or is under way in another transaction that is
    not to be waited for, is left without a result.

    Raises:
        asyncpg.PostgresError: If a message is stored already, or a key; then none was made.
    """
    rows = [row for write in group for row in write.batch.rows]
    messages = [_column(each) for each in zip(*rows, strict=True)] if rows else [()] * 5
    if may_wait and len(group) == 1 and group[0].is_plain and connection.prepares:
        query = tables.sql(_WRITE_ONE[group[0].status])
        found = await connection.fetch(query, *group[0].values[:12], *messages) or [(None,)]
    else:
        columns = map(_column, zip(*(write.values for write in group), strict=True))
        found = await connection.fetch(tables.sql(_WRITE), may_wait, *columns, *messages)
    for write, row in zip(group, found, strict=True):
        if row[0]:
            write.result = to_record(row[1:])
        elif row[0] is None:
            write.is_odd = True


def _column(values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """An array to send; none at all if it is all NULL, as the driver looks at each value."""
    return None if values.count(None) == len(values) else values
