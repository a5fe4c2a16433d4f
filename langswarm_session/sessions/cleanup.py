"""Sessions that nobody has written to for a while: which they are, and archiving them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from langswarm_session._validation import check_seconds, check_status
from langswarm_session.errors import RevisionConflictError, SessionNotFoundError
from langswarm_session.models import SessionStatus
from langswarm_session.session import BaseSession

if TYPE_CHECKING:
    from langswarm_session.manager import SessionManager
    from langswarm_session.records import SessionRecord

_CLEANED = 1_000
"""How many sessions a cleanup asks for in one go."""

_AT_ONCE = 50
"""How many of them it archives at the same time."""

LEFT_ALONE = (RevisionConflictError, SessionNotFoundError)
"""What tells a cleanup that a session is inactive no more, or gone."""


async def archive_inactive(manager: SessionManager, max_inactive_hours: float) -> int:
    """See `SessionManager.cleanup_inactive_sessions`."""
    manager._check_open()
    since, archived, cursor = _hours_ago(max_inactive_hours), 0, None
    while True:
        page = await manager.storage.list_sessions(
            status=SessionStatus.ACTIVE, inactive_since=since, limit=_CLEANED, cursor=cursor
        )
        for first in range(0, len(page.records), _AT_ONCE):
            archived += await _archive(manager, page.records[first : first + _AT_ONCE])
        if page.next_cursor is None:
            return archived
        cursor = page.next_cursor


async def inactive(
    manager: SessionManager, max_inactive_hours: float, status: SessionStatus | str | None
) -> AsyncIterator[BaseSession]:
    """See `SessionManager.iter_inactive_sessions`."""
    manager._check_open()
    wanted = None if status is None else check_status(status)
    since, cursor = _hours_ago(max_inactive_hours), None
    while True:
        page = await manager.storage.list_sessions(
            status=wanted, inactive_since=since, cursor=cursor
        )
        for record in page.records:
            session = BaseSession(manager, record)
            if session.context.auto_archive:
                yield session
        if page.next_cursor is None:
            return
        cursor = page.next_cursor


async def _archive(manager: SessionManager, records: Sequence[SessionRecord]) -> int:
    """Archive those that are as they were and may be archived; together, as they can share
    a commit.

    Returns:
        How many were.
    """
    sessions = [BaseSession(manager, record) for record in records]
    outcomes = await asyncio.gather(
        *(each.archive(expected_revision=each.revision) for each in sessions
          if each.context.auto_archive),
        return_exceptions=True,
    )  # fmt: skip
    for outcome in outcomes:
        if outcome is not None and not isinstance(outcome, LEFT_ALONE):
            raise outcome
    return outcomes.count(None)


def _hours_ago(hours: float) -> int:
    """A point in time, in microseconds since 1970."""
    checked = check_seconds(hours, "max_inactive_hours")
    return time.time_ns() // 1000 - int(checked * 3_600_000_000)
