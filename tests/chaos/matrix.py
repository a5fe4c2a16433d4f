"""The table of what was broken and what came of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable

from chaos.audit import Audit

PROPERTY = "chaos"
"""The name of the test reports' property that rows travel in, from xdist's workers as well."""

FIGURES = ("runs", "acknowledged", "lost", "doubled", "torn", "disordered", "miscounted", "leases")
HEADINGS = (
    "fault", "backend", "runs", "acknowledged", "lost", "doubled", "torn", "out of order",
    "miscounted", "leases recovered", "error seen meanwhile",
)  # fmt: skip


class Notes:
    """Where a test notes what it found, for the table.

    Args:
        record: Keeps a property of the test's report.
    """

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self._record = record

    def __call__(
        self, fault: str, backend: str, runs: int, found: Audit, errors: Counter[str]
    ) -> None:
        """Note a row, and fail if anything is wrong in it."""
        row = {
            "fault": fault,
            "backend": backend,
            "runs": runs,
            "errors": dict(errors),
            **{name: getattr(found, name) for name in FIGURES if name != "runs"},
        }
        self._record(PROPERTY, json.dumps(row))
        assert found.findings == []


def table(properties: Iterable[tuple[str, object]]) -> list[str]:
    """The table's lines, one row for each fault and backend."""
    rows: dict[tuple[str, str], tuple[Counter[str], Counter[str]]] = {}
    for name, value in properties:
        if name != PROPERTY:
            continue
        row = json.loads(str(value))
        figures, errors = rows.setdefault((row["fault"], row["backend"]), (Counter(), Counter()))
        figures.update({name: row[name] for name in FIGURES})
        errors.update(row["errors"])
    cells = [
        [*key, *(f"{figures[name]:,}" for name in FIGURES), _named(errors)]
        for key, (figures, errors) in sorted(rows.items())
    ]
    return _drawn([list(HEADINGS), ["---"] * len(HEADINGS), *cells]) if cells else []


def _named(errors: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in errors.most_common()) or "-"


def _drawn(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
