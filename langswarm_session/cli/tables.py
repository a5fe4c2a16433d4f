"""Tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from langswarm_session.cli.output import console, printable

RIGHT = frozenset(
    {"MESSAGES", "SESSIONS", "TURNS", "FAILED", "INPUT", "CACHED", "OUTPUT", "TOKENS", "#"}
)
"""The columns of numbers."""


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table; text that is not one of ours is written out safely."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in RIGHT else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    console().print(table)


def note(text: str, style: str = "") -> None:
    """Say something beside the output."""
    console(stderr=True).print(Text(printable(text), style), soft_wrap=True)
