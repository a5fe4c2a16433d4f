"""``langswarm-session import``: sessions from a file or a pipe."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from langswarm_session.cli.location import exists
from langswarm_session.cli.outcome import ExitCode
from langswarm_session.cli.output import to_json, write_line
from langswarm_session.cli.tables import note
from langswarm_session.errors import StorageUnavailableError
from langswarm_session.manager import SessionManager
from langswarm_session.transfer.importing import (
    ImportedSession,
    ImportOptions,
    OnConflict,
    import_sessions,
)


async def import_(
    manager: SessionManager, file: str, options: ImportOptions, *, as_json: bool
) -> ExitCode:
    """Read sessions and store them.

    All of the file is looked at before any of it is stored.

    Args:
        manager: Where to.
        file: Where from; ``-`` for standard input.
        options: How.
        as_json: Whether what is said about it is JSON.

    Returns:
        The exit code: whether all were stored, or left out on purpose.

    Raises:
        ImportFormatError: At what cannot be imported; nothing was stored.
    """
    with _opened(file) as lines:
        # A database that is not there is not to be made for a file that turns out to be wrong.
        judge = manager if exists(manager) else SessionManager("memory")
        results = await _all(judge, lines, replace(options, dry_run=True))
        failed = any(each.error is not None for each in results)
        stored = not (failed or options.dry_run)
        if stored:
            lines.seek(0)
            results = await _all(manager, lines, options)
            # Others may have been quicker since then.
            failed = any(each.error is not None for each in results)
    _report(results, options, stored=stored, as_json=as_json)
    return ExitCode.FAILED if failed else ExitCode.OK


async def _all(
    manager: SessionManager, lines: IO[bytes], options: ImportOptions
) -> list[ImportedSession]:
    return [each async for each in import_sessions(manager, lines, options)]


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    """The file, to be read twice."""
    if file == "-":
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.seek(0)
            yield copy
        return
    try:
        with Path(file).open("rb") as opened:
            yield opened
    except FileNotFoundError:
        raise StorageUnavailableError(f"there is no file {file!r} to import") from None


def _described(each: ImportedSession) -> dict[str, Any]:
    return {
        "session_id": each.session_id,
        "source_id": each.source_id,
        "user_id": each.user_id,
        "messages": each.messages,
        "turns": each.turns,
        "skipped": each.skipped,
        "notes": list(each.notes),
        "error": None if each.error is None else str(each.error),
    }


def _report(
    results: list[ImportedSession], options: ImportOptions, *, stored: bool, as_json: bool
) -> None:
    done = [each for each in results if each.error is None and not each.skipped]
    if as_json:
        sessions = [_described(each) for each in results]
        count = len(done) if stored else 0
        write_line(to_json({"imported": count, "dry_run": options.dry_run, "sessions": sessions}))
        return
    for each in results:
        if each.error is not None:
            note(f"error: {each.error}", "red")
        elif each.source_id != each.session_id and each.source_id is not None:
            note(f"session {each.source_id} is now {each.session_id}")
    for text, count in _counted(done).items():
        note(f"{count} sessions: {text}")
    messages = sum(each.messages for each in done)
    skipped = sum(each.skipped for each in results)
    left_out = f", {skipped} skipped as they are there already" if skipped else ""
    if stored:
        write_line(f"{len(done)} sessions with {messages} messages imported{left_out}")
    elif options.dry_run:
        write_line(f"{len(done)} sessions with {messages} messages could be imported{left_out}")
    else:
        choices = ", ".join(f"--on-conflict {each.value}" for each in OnConflict if each != "fail")
        note(f"nothing was imported; {choices} say what to do about ids that are taken")


def _counted(results: list[ImportedSession]) -> dict[str, int]:
    notes: dict[str, int] = {}
    for each in results:
        for text in each.notes:
            notes[text] = notes.get(text, 0) + 1
    return notes
