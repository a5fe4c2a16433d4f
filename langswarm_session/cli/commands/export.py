"""``langswarm-session export``: sessions to a file or a pipe."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from langswarm_session.cli.outcome import looked_up
from langswarm_session.cli.output import printable, to_json, write_line
from langswarm_session.cli.tables import note
from langswarm_session.errors import InvalidInputError
from langswarm_session.manager import SessionManager
from langswarm_session.session import BaseSession
from langswarm_session.transfer.export_formats import Exporter, ExportFormat

Write = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The sessions to export.

    Attributes:
        sessions: These, in this order.
        user: Only this user's; without any session named, all of them.
        everything: All there are.
    """

    sessions: Sequence[str]
    user: str | None
    everything: bool

    def check(self) -> None:
        """Raises InvalidInputError unless it is clear which are meant."""
        if self.everything and (self.sessions or self.user is not None):
            raise InvalidInputError("--all goes with neither a session nor --user")
        if not (self.sessions or self.user is not None or self.everything):
            raise InvalidInputError("name sessions, or a user with --user, or say --all")

    async def found(self, manager: SessionManager) -> AsyncIterator[BaseSession]:
        """The sessions."""
        if not self.sessions:
            async for session in manager.iter_sessions(self.user):
                yield session
        for name in self.sessions:
            yield await manager.get_session(name, user_id=self.user)


async def export(
    manager: SessionManager,
    chosen: Chosen,
    *,
    form: ExportFormat,
    output: Path | None,
    as_json: bool,
) -> None:
    """Write sessions.

    Args:
        manager: Where they are.
        chosen: Which.
        form: In which format.
        output: Into which file, which is there when all of it is; None: standard output.
        as_json: Whether what is said about it is JSON.

    Raises:
        SessionNotFoundError: If one of those named is not there; nothing is written then.
    """
    chosen.check()
    for name in chosen.sessions:
        with looked_up(name):
            await manager.get_session(name, user_id=chosen.user)
    exporter = Exporter(form, to_json if output is None else _dump)
    with _writer(output, form) as write:
        async for piece in exporter.write(chosen.found(manager)):
            write(piece)
    _report(exporter, output, as_json=as_json)


def _dump(value: object) -> str:
    # Escaped: what splits lines for some programs, and not in JSON.
    text = json.dumps(value, ensure_ascii=False)
    for char in "\x85\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


@contextmanager
def _writer(output: Path | None, form: ExportFormat) -> Iterator[Write]:
    """What writes text: to standard output, or to a file that appears when all is written."""
    if output is None:
        # JSON is escaped already; other text must not steer a terminal.
        safe = sys.stdout.isatty() and form in (ExportFormat.MARKDOWN, ExportFormat.HTML)
        yield (lambda text: sys.stdout.write(printable(text))) if safe else sys.stdout.write
        return
    if output.exists() and not output.is_file():  # a device or a pipe
        with output.open("w", encoding="utf-8", newline="") as file:
            yield file.write
        return
    with _replacing(output) as file:
        yield file.write


@contextmanager
def _replacing(output: Path) -> Iterator[IO[str]]:
    """A file beside the one that is wanted, which takes its place at the end."""
    number, name = tempfile.mkstemp(prefix=f".{output.name}.", dir=output.absolute().parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(output)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def _report(exporter: Exporter, output: Path | None, *, as_json: bool) -> None:
    lost = dict(exporter.lost)
    if as_json:
        if output is not None:
            counts = {"sessions": exporter.sessions, "messages": exporter.messages}
            write_line(to_json({**counts, "output": str(output), "left_out": lost}))
        return
    if output is not None:
        note(f"{exporter.sessions} sessions with {exporter.messages} messages in {output}")
    elif not exporter.sessions:
        note("no sessions")
    if lost:
        parts = ", ".join(f"{kind} ({count})" for kind, count in sorted(lost.items()))
        note(f"put into words or left out, as the format has no place for it: {parts}")
