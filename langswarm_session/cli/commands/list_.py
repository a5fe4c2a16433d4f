"""``langswarm-session list``: the sessions, newest activity first."""

from __future__ import annotations

import shlex

from rich.table import Table
from rich.text import Text

from langswarm_session.cli.commands.show import summary
from langswarm_session.cli.describe import local_time
from langswarm_session.cli.output import console, printable, to_json, write_line
from langswarm_session.manager import SessionManager
from langswarm_session.models import SessionStatus
from langswarm_session.session import BaseSession
from langswarm_session.sessions.listing import SessionList


async def list_sessions(
    manager: SessionManager,
    *,
    user: str | None,
    status: SessionStatus | None,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """Print sessions.

    Args:
        manager: Where they are.
        user: Only this user's; None for all users.
        status: Only those with this status.
        limit: How many at most.
        cursor: Where the page before ended.
        as_json: As one JSON object, in place of a table.

    Raises:
        InvalidInputError: If an argument cannot be used.
    """
    if user is None:
        page = await manager.list_sessions(limit, status=status, cursor=cursor)
    else:
        page = await manager.list_user_sessions(user, limit, status=status, cursor=cursor)
    if as_json:
        sessions = [summary(session) for session in page]
        write_line(to_json({"sessions": sessions, "next_cursor": page.next_cursor}))
    else:
        _print(page)


def _print(page: SessionList[BaseSession]) -> None:
    notes = console(stderr=True)
    if not page:
        notes.print("no sessions")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("SESSION", "USER", "STATUS", "MODEL", "MESSAGES", "LAST ACTIVITY"):
        table.add_column(name, justify="right" if name == "MESSAGES" else "left", overflow="fold")
    for session in page:
        context, metrics = session.context, session.metrics
        cells = (
            session.session_id,
            session.user_id,
            session.status.value,
            f"{context.provider}/{context.model}",
            str(metrics.message_count),
            local_time(metrics.last_activity),
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console().print(table)
    if page.next_cursor is not None:
        cursor = shlex.quote(printable(page.next_cursor))
        notes.print(f"more follow: --limit for more at once, or --cursor {cursor}")
