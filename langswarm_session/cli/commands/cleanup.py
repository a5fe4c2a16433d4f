"""``langswarm-session cleanup``: archive or delete what nobody uses any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langswarm_session.cli.describe import local_time
from langswarm_session.cli.outcome import ExitCode
from langswarm_session.cli.output import to_json, write_line
from langswarm_session.cli.tables import note, print_table
from langswarm_session.errors import SessionError
from langswarm_session.manager import SessionManager
from langswarm_session.models import SessionStatus, utc_now
from langswarm_session.session import BaseSession
from langswarm_session.sessions.cleanup import LEFT_ALONE

_SHOWN = 50
"""How many sessions a dry run shows to a person."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be cleaned up.

    Attributes:
        hours: Sessions that nobody has written to for so many hours.
        delete: Delete them, whatever their status; else the active ones are archived.
        dry_run: Only say which.
    """

    hours: float
    delete: bool
    dry_run: bool

    @property
    def status(self) -> SessionStatus | None:
        """Which sessions it is about."""
        return None if self.delete else SessionStatus.ACTIVE


async def cleanup(manager: SessionManager, wish: Wish, *, as_json: bool) -> ExitCode:
    """Archive or delete sessions.

    Returns:
        The exit code: whether all that was to be done could be done.
    """
    if wish.dry_run:
        return await _show(manager, wish, as_json=as_json)
    done, failed = 0, list[tuple[str, SessionError]]()
    async for session in manager.iter_inactive_sessions(wish.hours, status=wish.status):
        try:
            done += await _clean(session, delete=wish.delete)
        except LEFT_ALONE:
            continue
        except SessionError as error:
            failed.append((session.session_id, error))
    _report(done, failed, "deleted" if wish.delete else "archived", as_json=as_json)
    return ExitCode.FAILED if failed else ExitCode.OK


async def _clean(session: BaseSession, *, delete: bool) -> bool:
    """Archive or delete a session that is as it was listed.

    Returns:
        Whether it was.

    Raises:
        SessionError: Of `LEFT_ALONE`, if it was written to since, or is gone; or any other.
    """
    listed = session.revision
    if not delete:
        await session.archive(expected_revision=listed)
        return True
    await session.refresh()  # the lease of a turn is renewed without a new revision
    if is_running(session):
        return False
    await session.delete(expected_revision=listed)
    return True


def is_running(session: BaseSession) -> bool:
    """Whether a turn of the session is being answered, however long ago it began."""
    record = session.core.record
    expires = record.turn_expires
    now = utc_now().timestamp() * 1_000_000
    return record.turn_token is not None and expires is not None and expires > now


async def question(manager: SessionManager, wish: Wish) -> str | None:
    """What to ask before sessions are deleted; None if there are none."""
    count = 0
    async for session in manager.iter_inactive_sessions(wish.hours, status=wish.status):
        count += not is_running(session)
    return f"Delete {count} sessions for good?" if count else None


async def _show(manager: SessionManager, wish: Wish, *, as_json: bool) -> ExitCode:
    found: list[BaseSession] = []
    count = 0
    names: list[str] = []
    async for session in manager.iter_inactive_sessions(wish.hours, status=wish.status):
        if wish.delete and is_running(session):
            continue
        count += 1
        if as_json:
            names.append(session.session_id)
        elif count <= _SHOWN:
            found.append(session)
    what = "deleted" if wish.delete else "archived"
    if as_json:
        write_line(to_json({"dry_run": True, what: count, "sessions": names}))
    elif not count:
        note("no sessions")
    else:
        rows = [
            (
                each.session_id,
                each.user_id,
                each.status.value,
                local_time(each.metrics.last_activity),
            )
            for each in found
        ]
        print_table(("SESSION", "USER", "STATUS", "LAST ACTIVITY"), rows)
        note(f"{count} sessions would be {what}")
    return ExitCode.OK


def _report(done: int, failed: list[tuple[str, SessionError]], what: str, *, as_json: bool) -> None:
    if as_json:
        errors: list[dict[str, Any]] = [
            {"session_id": name, "error": str(error)} for name, error in failed
        ]
        write_line(to_json({"dry_run": False, what: done, "failed": errors}))
        return
    for _, error in failed:
        note(f"error: {error}", "red")
    write_line(f"{done} sessions {what}")
