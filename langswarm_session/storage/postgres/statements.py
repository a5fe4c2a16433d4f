"""Statements that do one write without the function, which spares the server its interpreter.

Each write has a shape: which of its values are there, and how many messages. A shape has a
statement with nothing in it that this shape does not need. It is prepared at its first use on a
connection; planned anew each time, it would take longer than the function does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from langswarm_session.models import TurnStatus
from langswarm_session.records import SessionRecord
from langswarm_session.storage.postgres.rows import MessageRow

COLUMNS = ", ".join(SessionRecord._fields[:-1])
FIELDS = f"{COLUMNS}, key"
"""The columns of a `SessionRecord`, which ends with the session's key: its creation."""

_MOST = 4
"""Writes of more messages are left to the function, so that there are not too many statements."""

_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_SUMS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
_COLUMNS = ("role", "content", "timestamp", "id", "extra")
_TYPES = ("smallint", "text", "bigint", "bytea", "text")

# The places of a write's values; those after the state are for the function only.
_SESSION, _TOKEN, _NEXT_TOKEN, _OWNER, _SECONDS, _REVISION, _SIZE = range(7)
_FIRST_SUM, _STATE, _STATUS, _ANSWERED, _ERROR, _KEY, _DIGEST = 7, 11, 12, 13, 14, 15, 16
_USER, _CREATION = 17, 18


class Shape(NamedTuple):
    """A statement, and which values it takes.

    Attributes:
        query: The statement, with our tables in braces.
        places: Which of a write's values come first; its messages' rows follow, one by one.
    """

    query: str
    places: tuple[int, ...]

    def pick(self, values: Sequence[Any], rows: Sequence[MessageRow]) -> Iterator[Any]:
        """The values for the statement."""
        for place in self.places:
            yield values[place]
        for row in rows:
            yield from row


def shape_of(values: Sequence[Any]) -> Shape | None:
    """The shape of a write; None if it takes the function.

    Args:
        values: The write's, as `langswarm_session.storage.postgres.batches.WriteCall` has them.
    """
    status, size = values[_STATUS], values[_SIZE]
    if values[_KEY] is not None or size > _MOST or status not in (None, TurnStatus.COMPLETE.value):
        return None
    return _make(
        size,
        ends=status is not None,
        held=values[_TOKEN] is not None,
        keeps=values[_NEXT_TOKEN] is not None,
        leases=values[_SECONDS] is not None,
        checks=values[_REVISION] is not None,
        named=values[_CREATION] is None,
        counts=values[_FIRST_SUM:_STATE] != (None,) * len(_SUMS),
        states=values[_STATE] is not None,
    )


@lru_cache(maxsize=1024)
def _make(
    size: int,
    *,
    ends: bool,
    held: bool,
    keeps: bool,
    leases: bool,
    checks: bool,
    named: bool,
    counts: bool,
    states: bool,
) -> Shape:
    places: list[int] = []

    def given(place: int) -> str:
        places.append(place)
        return f"${len(places)}"

    where = [f"s.session_id = {given(_SESSION)} AND s.user_id = {given(_USER)}"]
    changes = [
        "revision = s.revision + 1",
        f"last_activity = greatest(s.last_activity, {_NOW})",
        f"last_seq = s.last_seq + {size}",
        f"message_count = s.message_count + {size}",
    ]
    if held:
        where.append(f"s.turn_token = {given(_TOKEN)}")
    else:
        where.append("s.turn_token IS NULL AND s.status IN ('active', 'error')")
        changes.append("turn_count = s.turn_count + 1")
    equal = (("revision", _REVISION, checks), ("key", _CREATION, not named))
    where += [f"s.{name} = {given(place)}" for name, place, is_given in equal if is_given]
    if counts:
        sums = enumerate(_SUMS, _FIRST_SUM)
        changes += [f"{n} = s.{n} + coalesce({given(at)}::bigint, 0)" for at, n in sums]
    if states:
        changes.append(f"provider_state = {given(_STATE)}")
    if held and not keeps:
        changes.append("turn_token = NULL, turn_owner = NULL, turn_expires = NULL")
    if leases:
        changes += [
            "turn_id = s.last_seq + 1",
            f"turn_token = {given(_NEXT_TOKEN)}",
            f"turn_owner = {given(_OWNER)}",
            f"turn_expires = {_NOW} + {given(_SECONDS)}::bigint",
        ]
    query = (
        f"WITH moved AS (UPDATE {{sessions}} AS s SET {', '.join(changes)} "
        f"WHERE {' AND '.join(where)} RETURNING s.*)"
    )
    if size:
        query += _put(size, "moved.turn_id" if held else f"moved.last_seq - {size - 1}", places)
    if ends:
        query += (
            ", done AS (UPDATE {turns} AS t SET status = 'complete', answered = true, "
            f"error = NULL, finished_at = {_NOW} "
            "FROM moved WHERE t.session = moved.key AND t.turn = moved.turn_id)"
        )
    return Shape(f"{query} SELECT {FIELDS} FROM moved", tuple(places))


def _put(size: int, turn: str, places: Sequence[int]) -> str:
    """What inserts the messages."""
    number = len(places)
    rows: list[str] = []
    for n in range(1, size + 1):
        typed = [f"${number + at}::{kind}" for at, kind in enumerate(_TYPES, 1)]
        rows.append(f"({n}, {', '.join(typed)})")
        number += len(_TYPES)
    names = ", ".join(_COLUMNS)
    return (
        f", put AS (INSERT INTO {{messages}} (session, seq, turn, {names}) "
        f"SELECT moved.key, moved.last_seq - {size} + m.n, {turn}, "
        f"{', '.join(f'm.{name}' for name in _COLUMNS)} "
        f"FROM moved, (VALUES {', '.join(rows)}) AS m (n, {names}))"
    )
