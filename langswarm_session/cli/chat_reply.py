"""A reply on its way to the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from langswarm_session.cli.output import printable


class ReplyWriter:
    """Writes a reply as it comes, piece by piece.

    Args:
        out: Where to.

    Attributes:
        began: Whether any of it was written.
    """

    def __init__(self, out: Console) -> None:
        self.began = False
        self._out = out
        self._in_line = False

    def label(self, text: str, style: str) -> None:
        """Write who speaks."""
        self._write(text, style)

    def write(self, text: str) -> None:
        """Write what comes next."""
        self.began = True
        self._write(text)

    def write_apart(self, text: str) -> None:
        """Write what comes next, on lines of its own."""
        if self.began:
            self.end()
        self.write(f"{text}\n")

    def end(self) -> None:
        """End the line, if it was begun."""
        if self._in_line:
            self._write("\n")

    def _write(self, text: str, style: str = "") -> None:
        self._out.print(Text(printable(text), style), end="", soft_wrap=True)
        self._in_line = not text.endswith("\n")
