"""Where the messages of a chat come from: a person, a pipe, or the demonstration."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress

from langswarm_session.cli.output import console

DEMO = ("Hello, my name is Ada.", "What did I say before?")
"""What is said by itself when nobody says anything."""


def typed() -> Iterator[str]:
    """What a person types, until Ctrl-D."""
    with suppress(ImportError):
        import readline  # noqa: F401 - it gives `input` editing and the lines before
    out = console()
    while True:
        try:
            line = input("you> ").strip()
        except KeyboardInterrupt:
            out.print("\n(Ctrl-D ends the chat)", style="dim")
        except EOFError:
            out.print()
            return
        else:
            if line:
                yield line


def piped(*, demo: bool) -> Iterator[str]:
    """The lines of standard input that are not empty.

    Args:
        demo: Where there is none, those of the demonstration, written down as they are said.
    """
    empty = True
    for line in sys.stdin:
        if line.strip():
            empty = False
            yield line.strip()
    if empty and demo:
        for line in DEMO:
            console().print(f"you> {line}")
            yield line
