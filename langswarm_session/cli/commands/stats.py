"""``langswarm-session stats``: figures over many sessions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from langswarm_session.cli.outcome import ExitCode
from langswarm_session.cli.output import console, to_json, write_line
from langswarm_session.cli.tables import note, print_table
from langswarm_session.manager import SessionManager
from langswarm_session.records import StorageHealth
from langswarm_session.sessions.statistics import Statistics, Sums, add_up

_COLUMNS = (
    "SESSIONS",
    "MESSAGES",
    "TURNS",
    "FAILED",
    "INPUT",
    "CACHED",
    "OUTPUT",
    "TOKENS",
)


async def stats(manager: SessionManager, *, user: str | None, top: int, as_json: bool) -> ExitCode:
    """Print figures.

    Args:
        manager: Where the sessions are.
        user: Only this user's; None for all users.
        top: How many users are shown to a person.
        as_json: As one JSON object, in place of tables.

    Returns:
        The exit code: whether the storage is well.
    """
    statistics = await add_up(manager.iter_sessions(user))
    health = await manager.health()
    if as_json:
        write_line(to_json(_described(statistics, health)))
    else:
        _print(statistics, health, top)
    return ExitCode.OK if health.ok else ExitCode.FAILED


def _described(statistics: Statistics, health: StorageHealth) -> dict[str, Any]:
    return {
        "total": asdict(statistics.total),
        "by_status": dict(statistics.by_status),
        "by_model": [
            {"provider": provider, "model": model, **asdict(sums)}
            for (provider, model), sums in statistics.by_model.items()
        ],
        "by_user": [{"user_id": user, **asdict(sums)} for user, sums in statistics.by_user.items()],
        "storage": asdict(health),
    }


def _print(statistics: Statistics, health: StorageHealth, top: int) -> None:
    out = console()
    statuses = ", ".join(f"{count} {name}" for name, count in sorted(statistics.by_status.items()))
    out.print(f"sessions: {statistics.total.sessions}" + (f" ({statuses})" if statuses else ""))
    size = "" if health.size_bytes is None else f", {health.size_bytes / 2**20:.1f} MiB"
    latency = f"{health.latency_seconds * 1000:.1f} ms"
    out.print(
        f"storage: {health.backend}, {health.sessions} sessions, {health.messages} messages{size}, "
        f"a small read takes {latency}\n"
    )
    models = {f"{provider}/{model}": s for (provider, model), s in statistics.by_model.items()}
    _print_sums("MODEL", models, len(models))
    out.print()
    _print_sums("USER", statistics.by_user, top)
    left_out = len(statistics.by_user) - top
    if left_out > 0:
        note(f"{left_out} more users: --top shows more, and --json all of them")


def _print_sums(name: str, sums: dict[str, Sums], top: int) -> None:
    """A table of what most tokens went to."""
    most = sorted(sums.items(), key=lambda each: (-each[1].total_tokens, each[0]))[:top]
    print_table((name, *_COLUMNS), [(label, *_cells(each)) for label, each in most])


def _cells(sums: Sums) -> tuple[str, ...]:
    values = (
        sums.sessions,
        sums.messages,
        sums.turns,
        sums.errors,
        sums.input_tokens,
        sums.cached_tokens,
        sums.output_tokens,
        sums.total_tokens,
    )
    return tuple(map(str, values))
