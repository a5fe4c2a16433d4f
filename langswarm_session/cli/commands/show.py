"""``langswarm-session show``: a session with its messages."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from langswarm_session.cli.describe import local_time, transcript
from langswarm_session.cli.outcome import looked_up
from langswarm_session.cli.output import console, printable, to_json, write_line
from langswarm_session.manager import SessionManager
from langswarm_session.models import SessionMessage, Turn
from langswarm_session.session import BaseSession


async def show(
    manager: SessionManager, session_id: str, *, limit: int | None, as_json: bool
) -> None:
    """Print a session.

    Args:
        manager: Where it is.
        session_id: Its id.
        limit: How many of the newest messages; None for all.
        as_json: As one JSON object, in place of a transcript.

    Raises:
        SessionNotFoundError: If there is none.
    """
    with looked_up(session_id):
        session = await manager.get_session(session_id)
    messages = await session.get_messages(limit)
    turns = await session.get_turns(limit=max(1, len(messages)))
    if as_json:
        write_line(to_json({**summary(session), **_log(messages, turns)}))
    else:
        _print(session, messages, turns)


def summary(session: BaseSession) -> dict[str, Any]:
    """What `list` and `show` say of a session in JSON: its context and its figures."""
    context = session.context
    return {
        "session_id": session.session_id,
        "user_id": session.user_id,
        "status": session.status.value,
        "provider": context.provider,
        "model": context.model,
        "metrics": session.metrics.model_dump(mode="json"),
        "context": context.model_dump(
            mode="json", exclude={"session_id", "user_id", "provider", "model"}
        ),
    }


def _log(messages: list[SessionMessage], turns: list[Turn]) -> dict[str, Any]:
    return {
        "messages": [message.model_dump(mode="json") for message in messages],
        "turns": [turn.model_dump(mode="json", exclude={"session_id"}) for turn in turns],
    }


def _print(session: BaseSession, messages: list[SessionMessage], turns: list[Turn]) -> None:
    out = console()
    metrics, context = session.metrics, session.context
    facts = (
        f"user {session.user_id}",
        f"{context.provider}/{context.model}",
        session.status.value,
        f"{metrics.message_count} messages",
        f"{metrics.total_tokens} tokens",
        f"last activity {local_time(metrics.last_activity)}",
    )
    out.print(
        Text.assemble(
            ("session ", "dim"),
            (printable(session.session_id), "bold"),
            (printable(f"  {'  '.join(facts)}\n"), "dim"),
        ),
        soft_wrap=True,
    )
    left_out = metrics.message_count - len(messages)
    if left_out > 0:
        out.print(Text(f"({left_out} earlier messages are not shown)\n", "dim"))
    for text in transcript(messages, turns):
        out.print(text, soft_wrap=True)
