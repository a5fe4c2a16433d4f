"""Turns as the script for them gives them."""

from __future__ import annotations

from collections.abc import Sequence

from langswarm_session.models import Turn, TurnStatus, from_micros


def to_turns(
    session_id: str, open_turn: bytes | None, rows: Sequence[list[bytes | None]]
) -> list[Turn]:
    """The turns of rows that come newest first, oldest first."""
    return [_turn(session_id, open_turn, row) for row in reversed(rows)]


def _turn(session_id: str, open_turn: bytes | None, row: list[bytes | None]) -> Turn:
    turn, first_seq, last_seq, started, ended, status, key, error, finished = row
    is_open = turn == open_turn
    return Turn(
        id=int(turn or 0),
        session_id=session_id,
        status=TurnStatus.OPEN if is_open else TurnStatus((status or b"complete").decode()),
        first_seq=int(first_seq or 0),
        last_seq=int(last_seq or 0),
        started_at=from_micros(int(started or 0)),
        finished_at=None if is_open else from_micros(int(finished or ended or 0)),
        idempotency_key=None if key is None else key.decode(),
        error=None if error is None else error.decode(),
    )
