"""Writes that many sessions send together: the four that make up a turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from langswarm_session.models import MessageRole, TurnStatus
from langswarm_session.storage.decisions import BeginTurn, EndTurn, PlainWrite
from langswarm_session.storage.postgres.calls import TimedCall
from langswarm_session.storage.postgres.pool import DURABLE, Connection
from langswarm_session.storage.postgres.rows import EncodedMessages, maybe_text, to_record, to_text
from langswarm_session.storage.postgres.schema import Tables
from langswarm_session.storage.postgres.statements import FIELDS, shape_of

_TYPES = (
    *("bool", "text[]", "text[]", "text[]", "text[]", "int8[]", "int8[]", "int4[]"),
    *("int8[]", "int8[]", "int8[]", "int8[]", "text[]", "text[]", "bool[]", "text[]", "text[]"),
    *("text[]", "int4[]", "int4[]", "int2[]", "text[]", "int8[]", "bytea[]", "text[]"),
)
# With all types given, no other function of that name fits better than ours.
_ARGUMENTS = ", ".join(f"${n}::pg_catalog.{kind}" for n, kind in enumerate(_TYPES, 1))
_WRITE = (
    f"SELECT {FIELDS} FROM {{write_together}}({_ARGUMENTS}) WITH ORDINALITY "
    # The function does not know whose session it must be, nor which creation of it. Another one
    # makes this divide by zero: then nothing of it is kept, and each write is done by its own job,
    # which says why. It takes a session that was deleted and created again to come to that. A
    # session that was not written to has no user here.
    "WHERE (1 OPERATOR(pg_catalog./) CASE WHEN user_id IS NULL THEN 1 ELSE "
    "(user_id OPERATOR(pg_catalog.=) ($26::pg_catalog.text[])[ordinality] AND "
    "key OPERATOR(pg_catalog.=) coalesce(($27::pg_catalog.int8[])[ordinality], key))"
    "::pg_catalog.int4 END) OPERATOR(pg_catalog.=) 1"
)
_WRITE_POOLED = f"{_WRITE} AND {DURABLE}"


class WriteCall(TimedCall):
    """A turn, its beginning, a part of it, or its end.

    Args:
        write: The write.
        batch: Its messages; all of them must be new.
        job: What to do in a transaction if anything stands in its way; the argument says whether
            the write may have been made already, and only the answer was lost.

    Attributes:
        values: What the statement is given of it, beside its messages.
        shape: The statement that does it without the function; None if there is none.
        is_odd: Whether to leave it to the job immediately.
    """

    __slots__ = (
        "_job",
        "batch",
        "is_odd",
        "session_id",
        "shape",
        "values",
    )

    def __init__(
        self,
        write: PlainWrite,
        batch: EncodedMessages,
        job: Callable[[Connection, bool], Awaitable[Any]],
    ) -> None:
        super().__init__(batch.size)
        self.session_id = write.ref.session_id
        self.batch = batch
        self.is_odd = False
        self._job = job
        key = None if write.is_of_open_turn else write.key
        self.values = (
            to_text(write.ref.session_id),
            *_lease_values(write),
            None if isinstance(write, EndTurn) else write.expected_revision,
            len(batch.rows),
            *(count or None for count in batch.sums),
            *_end_values(write),
            maybe_text(key.key if key else None),
            maybe_text(key.digest if key else None),
            to_text(write.ref.user_id),
            write.ref.creation,
        )
        self.shape = shape_of(self.values)

    async def job(self, connection: Connection) -> Any:
        """Do the write in a transaction of its own."""
        return await self._job(connection, self.unclear)


def _lease_values(write: PlainWrite) -> tuple[str | None, str | None, str | None, int | None]:
    """Return the token that a write is under, and the lease that holds after it."""
    if isinstance(write, BeginTurn):
        lease = write.lease
        seconds = int(lease.seconds * 1_000_000)
        return None, to_text(lease.token), to_text(lease.owner), seconds
    if isinstance(write, EndTurn):
        return to_text(write.end.token), None, None, None
    token = maybe_text(write.token)
    return token, token, None, None


def _end_values(write: PlainWrite) -> tuple[str | None, str | None, bool | None, str | None]:
    """Return the provider's new state, and the turn's status, whether it has a reply, its error."""
    if isinstance(write, EndTurn):
        end = write.end
        is_answered = any(each.role is MessageRole.ASSISTANT for each in write.messages)
        return write.state, end.status.value, is_answered or None, maybe_text(end.error)
    if write.key is None or write.is_of_open_turn:
        return None, None, None, None
    status = TurnStatus.OPEN if isinstance(write, BeginTurn) else TurnStatus.COMPLETE
    return None, status.value, None, None


async def send(
    connection: Connection, tables: Tables, group: list[WriteCall], *, may_wait: bool
) -> None:
    """Make writes, each to another session, in one statement; set the result of each that was made.

    One that does not fit its session as it is now, or is under way in another transaction that is
    not to be waited for, is left without a result.

    Raises:
        asyncpg.PostgresError: If a message is stored already, or a key, or a session is another
            user's than it must be; then none was made.
    """
    shape = group[0].shape if may_wait and len(group) == 1 else None
    if shape is not None and connection.prepares and not connection.is_pooled:
        values = shape.pick(group[0].values, group[0].batch.rows)
        found = await connection.fetch(tables.sql(shape.query), *values) or [(None,)]
    else:
        *columns, users, creations = map(
            _column, zip(*(write.values for write in group), strict=True)
        )
        given = (may_wait, *columns, *_messages(group), users, creations)
        query = _WRITE_POOLED if connection.is_pooled else _WRITE
        found = await connection.fetch(tables.sql(query), *given)
    for write, row in zip(group, found, strict=True):
        if row[-1]:
            write.result = to_record(row)
        elif row[-1] is None:
            write.is_odd = True


def _messages(group: list[WriteCall]) -> list[Any]:
    """The columns of all messages, with the number of each one's write and its place in that."""
    rows = [
        (number, place, *row)
        for number, write in enumerate(group, 1)
        for place, row in enumerate(write.batch.rows, 1)
    ]
    return [_column(each) for each in zip(*rows, strict=True)] if rows else [()] * 7


def _column(values: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """An array to send; none at all if it is all NULL, as the driver looks at each value."""
    return None if values.count(None) == len(values) else values
