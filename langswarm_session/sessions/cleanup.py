"""Sessions that nobody has written to for a while: which they are, and archiving them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from langswarm_session._validation import check_seconds, check_status
from langswarm_session.errors import RevisionConflictError, SessionNotFoundError
from langswarm_session.models import SessionStatus

if TYPE_CHECKING:
    from langswarm_session.models import SessionContext
    from langswarm_session.records import SessionRecord
    from langswarm_session.turns.core import ManagerCore


class Archivable(Protocol):
    """A session that may be archived."""

    @property
    def context(self) -> SessionContext:
        """The context, as of the last call."""

    @property
    def revision(self) -> int:
        """The revision, as of the last call."""

    async def archive(self, *, expected_revision: int | None = None) -> None:
        """Archive the session."""


ArchivableT = TypeVar("ArchivableT", bound=Archivable)

OpenSession = Callable[["SessionRecord"], ArchivableT]
"""Makes the session of a record."""

_CLEANED = 1_000
"""How many sessions a cleanup asks for in one go."""

_AT_ONCE = 50
"""How many of them it archives at the same time."""

LEFT_ALONE = (RevisionConflictError, SessionNotFoundError)
"""What tells a cleanup that a session has become active, or was deleted."""


async def archive_inactive(
    shared: ManagerCore, open_session: OpenSession[ArchivableT], max_inactive_hours: float
) -> int:
    """See `SessionManager.cleanup_inactive_sessions`."""
    shared.check_open()
    since, archived, cursor = _hours_ago(max_inactive_hours), 0, None
    while True:
        page = await shared.storage.list_sessions(
            status=SessionStatus.ACTIVE, inactive_since=since, limit=_CLEANED, cursor=cursor
        )
        sessions = [open_session(record) for record in page.records]
        for first in range(0, len(sessions), _AT_ONCE):
            archived += await _archive(sessions[first : first + _AT_ONCE])
        if page.next_cursor is None:
            return archived
        cursor = page.next_cursor


async def inactive(
    shared: ManagerCore,
    open_session: OpenSession[ArchivableT],
    max_inactive_hours: float,
    status: SessionStatus | str | None,
) -> AsyncIterator[ArchivableT]:
    """See `SessionManager.iter_inactive_sessions`."""
    shared.check_open()
    wanted = None if status is None else check_status(status)
    since, cursor = _hours_ago(max_inactive_hours), None
    while True:
        page = await shared.storage.list_sessions(
            status=wanted, inactive_since=since, cursor=cursor
        )
        for record in page.records:
            session = open_session(record)
            if session.context.auto_archive:
                yield session
        if page.next_cursor is None:
            return
        cursor = page.next_cursor


async def _archive(sessions: Sequence[Archivable]) -> int:
    """Archive those that are as they were and may be archived; together, as they can share
    a commit.

    Returns:
        How many were.
    """
    outcomes = await asyncio.gather(
        *(session.archive(expected_revision=session.revision) for session in sessions
          if session.context.auto_archive),
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
