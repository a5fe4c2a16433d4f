"""``langswarm-session doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict

from rich.text import Text

from langswarm_session import __version__
from langswarm_session.cli.outcome import ExitCode
from langswarm_session.cli.output import console, printable, to_json, write_line
from langswarm_session.doctor import environment
from langswarm_session.findings import Finding, Level
from langswarm_session.manager import SessionManager

_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}


async def doctor(manager: SessionManager, *, full: bool, seconds: float, as_json: bool) -> ExitCode:
    """Look at the storage and at what is installed, and report.

    Args:
        manager: Where the sessions are.
        full: Whether all that is stored is read for it.
        seconds: How long the look at the storage may take.
        as_json: As one JSON object, in place of lines.

    Returns:
        The exit code: whether there is no problem.
    """
    findings = [*await manager.storage.examine(full=full, seconds=seconds), *environment()]
    healthy = all(each.level is not Level.PROBLEM for each in findings)
    if as_json:
        head = {"version": __version__, "storage": manager.storage.name, "healthy": healthy}
        write_line(to_json({**head, "findings": [asdict(each) for each in findings]}))
    else:
        _print(findings)
    return ExitCode.OK if healthy else ExitCode.FAILED


def _print(findings: list[Finding]) -> None:
    out = console()
    width = max(len(each.check) for each in findings)
    for each in findings:
        out.print(
            Text.assemble(
                (f"{each.level.value:8}", _STYLES[each.level]),
                printable(f"{each.check:{width}}  {each.message}"),
            ),
            soft_wrap=True,
        )
        if each.advice:
            out.print(Text(f"{'':8}{'':{width}}  -> {printable(each.advice)}"), soft_wrap=True)
    counts = {level: sum(each.level is level for each in findings) for level in Level}
    problems, warnings = counts[Level.PROBLEM], counts[Level.WARNING]
    out.print(f"\n{problems} problems, {warnings} warnings", style="bold")
