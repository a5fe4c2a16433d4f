"""``langswarm-session search``: messages by their text."""

from __future__ import annotations

import shlex
import sys
from typing import Any

from rich.text import Text

from langswarm_session.cli.describe import local_time
from langswarm_session.cli.outcome import looked_up
from langswarm_session.cli.output import printable, to_json, write_line
from langswarm_session.cli.tables import note, print_table
from langswarm_session.manager import SessionManager
from langswarm_session.models import MessageRole
from langswarm_session.search import MessageHit
from langswarm_session.sessions.listing import MessageHits

_WIDTH = 80
"""How many characters of a message are shown."""


async def search(
    manager: SessionManager,
    text: str,
    *,
    user: str | None,
    session: str | None,
    role: MessageRole | None,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """Print the messages that a text is in.

    Args:
        manager: Where they are.
        text: What to look for.
        user: Only in this user's sessions.
        session: Only in this session.
        role: Only what this role said.
        limit: How many at most.
        cursor: Where the page before ended.
        as_json: As one JSON object, in place of a table.

    Raises:
        InvalidInputError: If an argument cannot be used.
        SessionNotFoundError: If there is no such session.
    """
    with looked_up(session):
        hits = await manager.search_messages(
            text, user_id=user, session_id=session, role=role, limit=limit, cursor=cursor
        )
    if as_json:
        found = [_described(hit) for hit in hits]
        write_line(to_json({"hits": found, "next_cursor": hits.next_cursor}))
    else:
        _print(hits)


def _described(hit: MessageHit) -> dict[str, Any]:
    message = hit.message
    return {
        "session_id": hit.session_id,
        "user_id": hit.user_id,
        "seq": message.seq,
        "turn_id": message.turn_id,
        "message_id": message.id,
        "role": message.role.value,
        "timestamp": message.timestamp.isoformat(),
        "snippet": hit.snippet(_WIDTH)._asdict(),
    }


def _print(hits: MessageHits) -> None:
    if not hits:
        note("nothing found")
        return
    print_table(
        ("SESSION", "#", "TIME", "USER", "ROLE", "TEXT"),
        (
            (
                hit.session_id,
                str(hit.message.seq),
                local_time(hit.message.timestamp),
                hit.user_id,
                hit.message.role.value,
                _marked(hit),
            )
            for hit in hits
        ),
    )
    if hits.next_cursor is not None:
        cursor = shlex.quote(hits.next_cursor)
        note(f"more follow: --limit for more at once, or --cursor {cursor}")


def _marked(hit: MessageHit) -> Text:
    """The snippet with its match in colour, or, where there is none, between asterisks."""
    before, match, after = map(printable, hit.snippet(_WIDTH))
    star = "" if sys.stdout.isatty() else "**"
    return Text.assemble(before, (f"{star}{match}{star}", "bold reverse"), after)
