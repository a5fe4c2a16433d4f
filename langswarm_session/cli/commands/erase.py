"""``langswarm-session erase``: everything of a person is gone."""

from __future__ import annotations

from typing import Any

from langswarm_session.cli.outcome import ExitCode
from langswarm_session.cli.output import printable, to_json, write_line
from langswarm_session.cli.tables import note
from langswarm_session.manager import SessionManager
from langswarm_session.sessions.erasure import ErasureReport


async def question(manager: SessionManager, user: str) -> str | None:
    """What to ask before a person's data is erased."""
    sessions = messages = 0
    async for session in manager.iter_sessions(user):
        sessions += 1
        messages += session.metrics.message_count
    return f"Erase {sessions} sessions with {messages} messages of {printable(user)!r} for good?"


async def erase(
    manager: SessionManager,
    user: str,
    *,
    at_providers: bool,
    scrub: bool,
    as_json: bool,
) -> ExitCode:
    """Erase a person's data and report.

    Args:
        manager: Where it is.
        user: Whose.
        at_providers: Whether what providers keep is removed as well.
        scrub: Whether what was deleted is overwritten.
        as_json: As one JSON object, in place of sentences.

    Returns:
        The exit code: whether nothing is left.
    """
    report = await manager.erase_user(user, at_providers=at_providers, scrub=scrub)
    if as_json:
        write_line(to_json(_described(report)))
    else:
        _print(report, scrub=scrub)
    return ExitCode.OK if report.complete else ExitCode.FAILED


def _described(report: ErasureReport) -> dict[str, Any]:
    def copies(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
        return [{"provider": name, "id": number} for name, number in pairs]

    return {
        "user_id": report.user_id,
        "complete": report.complete,
        "sessions": report.sessions,
        "messages": report.messages,
        "at_providers": copies(report.at_providers),
        "left_at_providers": copies(report.left_at_providers),
        "not_erased": [
            {
                "session_id": each.session_id,
                "at_providers": copies(list(each.at_providers.items())),
                "error": str(each.error),
            }
            for each in report.not_erased
        ],
        "scrub_error": None if report.scrub_error is None else str(report.scrub_error),
    }


def _print(report: ErasureReport, *, scrub: bool) -> None:
    for each in report.not_erased:
        note(f"error: not erased: {each.error}", "red")
    for provider, number in report.left_at_providers:
        note(f"error: {provider} still keeps {number}", "red")
    if report.scrub_error is not None:
        note(f"error: deleted, and not yet overwritten: {report.scrub_error}", "red")
    count = f"{len(report.sessions)} sessions with {report.messages} messages erased"
    copies = f", {len(report.at_providers)} copies at providers" if report.at_providers else ""
    left = "" if scrub else "; what was deleted has not been overwritten (--no-scrub)"
    write_line(f"{count}{copies}{left}")
    if report.not_erased:
        note("what is left stays until it can be erased at its provider; run it again then")
