"""What is written to the terminal or the pipe, and in which form.

Messages hold text that anybody may have written, so nothing of it reaches a terminal as markup or
as a control sequence.
"""

from __future__ import annotations

import json
import os
import sys
from io import TextIOWrapper
from typing import Any

from rich.console import Console
from rich.text import Text

from langswarm_session._sanitize import UNSAFE
from langswarm_session._sanitize import printable as printable

_PIPE_WIDTH = 10_000
"""Lines that go to another program are not wrapped and not cut."""


class _Console(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """A console that takes text as it is: no markup, no emoji codes, no highlighting."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return _Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=width)


def prepare_streams() -> None:
    """Make the standard streams take any text, and be there where the caller closed them."""
    for name, mode, errors in (
        ("stdin", "r", "replace"),
        ("stdout", "w", "backslashreplace"),
        ("stderr", "w", "backslashreplace"),
    ):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=errors)


def clipped(text: str, length: int) -> str:
    """The printable text in one line, cut to a length."""
    line = " ".join(printable(text).split())
    return line if len(line) <= length else f"{line[: length - 3]}..."


def to_json(value: Any, *, indent: int | None = None) -> str:
    """The value as JSON that is safe to print: what `printable` writes out is escaped."""
    readable = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not readable, indent=indent)
    return UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def write_line(line: str) -> None:
    """Write a line to standard output as it is."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
