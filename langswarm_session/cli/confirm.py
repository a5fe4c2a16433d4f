"""Asking a person before something is gone for good."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

import typer

from langswarm_session.cli.location import Place
from langswarm_session.cli.outcome import ExitCode, reported
from langswarm_session.cli.tables import note
from langswarm_session.errors import InvalidInputError
from langswarm_session.manager import SessionManager


def ask(
    place: Place,
    question: Callable[[SessionManager], Awaitable[str | None]],
    *,
    as_json: bool,
) -> None:
    """Go on only if the person says so.

    Nothing is open while the answer is waited for, so that Ctrl-C ends it at once.

    Args:
        place: Where the sessions are.
        question: Makes the question; None where there is nothing to ask about.
        as_json: Whether errors are JSON.

    Raises:
        typer.Exit: If the person does not want it, or there is nobody to ask.
        typer.Abort: At Ctrl-C.
    """
    with reported(as_json=as_json):
        if not sys.stdin.isatty():
            raise InvalidInputError("there is nobody to ask; say --yes if it is to be done")
    text = place.run(question, as_json=as_json)
    if text is not None and not typer.confirm(text, err=True):
        note("nothing was done")
        raise typer.Exit(ExitCode.FAILED)
