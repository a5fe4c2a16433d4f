"""Turns as the script for them gives them."""

from __future__ import annotations

from collections.abc import Sequence

from langswarm_redis.rows import to_name, to_number
from langswarm_session.models import Turn, TurnStatus
from langswarm_session.storage.session_rows import damaged, decode_moment, decode_status


def to_turns(
    session_id: str, open_turn: bytes | None, rows: Sequence[list[bytes | None]]
) -> list[Turn]:
    """The turns of rows that come newest first, oldest first."""
    return [_turn(session_id, open_turn, row) for row in reversed(rows)]


def _turn(session_id: str, open_turn: bytes | None, row: list[bytes | None]) -> Turn:
    turn, first_seq, last_seq, started, ended, status, key, error, finished = row
    if turn is None or first_seq is None or last_seq is None or started is None or ended is None:
        raise damaged("a turn of a session")
    is_open = turn == open_turn
    noted = TurnStatus.COMPLETE if status is None else decode_status(to_name(status))
    return Turn(
        id=to_number(turn),
        session_id=session_id,
        status=TurnStatus.OPEN if is_open else noted,
        first_seq=to_number(first_seq),
        last_seq=to_number(last_seq),
        started_at=decode_moment(to_number(started)),
        finished_at=None if is_open else decode_moment(to_number(finished or ended)),
        idempotency_key=None if key is None else to_name(key),
        error=None if error is None else to_name(error),
    )
