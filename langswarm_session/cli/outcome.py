"""How a command ends: which exit code, and which one line on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import IO

import typer

from langswarm_session.cli import INTERRUPTED, MISSING_EXTRA
from langswarm_session.cli.output import printable, to_json
from langswarm_session.errors import (
    ImportFormatError,
    InvalidInputError,
    MissingDependencyError,
    SessionNotFoundError,
    UnknownProviderError,
    UnknownStorageError,
)


class ExitCode(IntEnum):
    """What the exit codes mean."""

    OK = 0
    FAILED = 1
    USAGE = 2
    MISSING_EXTRA = MISSING_EXTRA
    NO_SESSION = 4
    INTERRUPTED = INTERRUPTED


EXIT_CODES = (
    "Exit codes: 0 done; 1 it failed; 2 the command was not understood; 3 an extra is not "
    "installed; 4 there is no such session; 130 interrupted. Errors are one line on standard "
    "error."
)


def exit_code(error: BaseException) -> ExitCode:
    """The exit code for an error."""
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    if isinstance(error, SessionNotFoundError):
        return ExitCode.NO_SESSION
    if isinstance(error, MissingDependencyError):
        return ExitCode.MISSING_EXTRA
    if isinstance(error, ImportFormatError):
        return ExitCode.FAILED
    if isinstance(error, InvalidInputError | UnknownProviderError | UnknownStorageError):
        return ExitCode.USAGE
    return ExitCode.FAILED


def report(message: str, kind: str, code: ExitCode, *, as_json: bool) -> None:
    """Write an error to standard error, in one line."""
    if as_json:
        line = to_json({"error": kind, "message": message, "exit_code": int(code)})
    else:
        line = f"error: {' '.join(printable(message).split())}"
    sys.stderr.write(f"{line}\n")


def report_error(error: BaseException, *, as_json: bool) -> ExitCode:
    """Write an exception to standard error, in one line, and say which exit code it stands for."""
    code = exit_code(error)
    report(str(error) or type(error).__name__, type(error).__name__, code, as_json=as_json)
    return code


@contextmanager
def looked_up(session_id: str | None) -> Iterator[None]:
    """Say of a session that is not there what helps at the command line.

    Raises:
        SessionNotFoundError: In place of the one that is meant for programs.
    """
    try:
        yield
    except SessionNotFoundError:
        raise SessionNotFoundError(
            "there is no such session; `list` shows which there are", session_id=session_id
        ) from None


@contextmanager
def reported(*, as_json: bool) -> Iterator[None]:
    """Turn what a command raises into one line on standard error and an exit code.

    Raises:
        typer.Exit: With the code, if the command raised.
    """
    try:
        yield
        sys.stdout.flush()
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        _drop(sys.stdout)
        raise typer.Exit(ExitCode.OK) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
        code = report_error(error, as_json=as_json)
        try:
            sys.stdout.flush()
        except OSError:  # a full disk, say, at which the interpreter would fail once more
            _drop(sys.stdout)
        raise typer.Exit(code) from None


def _drop(stream: IO[str]) -> None:
    """Let what is still to be written to a stream go nowhere."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
