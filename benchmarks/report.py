"""What a run found, as markdown or as one JSON object."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Cell = float | int | str | None


@dataclass(frozen=True)
class Verdict:
    """A goal and what came of it.

    Attributes:
        what: What is compared.
        goal: What it should be, in words.
        measured: What it is; None where it could not be measured.
        met: Whether that is good enough; None where it could not be measured.
        unit: What follows the figure: `x` for a ratio.
    """

    what: str
    goal: str
    measured: Cell
    met: bool | None
    unit: str = "x"


@dataclass
class Section:
    """One table, its verdicts, and what has to be said about them.

    Attributes:
        title: What was measured, with its units.
        columns: Names of the columns after the first, which is the contender.
        rows: A name and one cell for each column.
    """

    title: str
    columns: Sequence[str]
    rows: list[tuple[str, list[Cell]]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, name: str, *cells: Cell) -> None:
        """Add a row; missing cells at its end stay empty."""
        self.rows.append((name, [*cells, *[None] * (len(self.columns) - len(cells))]))

    def at_most(
        self, what: str, measured: float | None, limit: float | None, unit: str = "x"
    ) -> None:
        """Add a goal that is met by a small figure; none if there is no limit."""
        if limit is None:
            return
        met = None if measured is None else measured <= limit
        self.verdicts.append(Verdict(what, f"at most {limit:g}{unit}", measured, met, unit))

    def at_least(
        self, what: str, measured: float | None, limit: float | None, unit: str = "x"
    ) -> None:
        """Add a goal that is met by a large figure; none if there is no limit."""
        if limit is None:
            return
        met = None if measured is None else measured >= limit
        self.verdicts.append(Verdict(what, f"at least {limit:g}{unit}", measured, met, unit))

    def holds(self, what: str, goal: str, met: bool, measured: str) -> None:
        """Add a goal that is met or not, without a figure."""
        self.verdicts.append(Verdict(what, goal, measured, met, unit=""))


def figure(value: Cell) -> str:
    """A cell as people read it: three significant digits, thousands set apart."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return (
        f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_MET = {True: "yes", False: "**no**", None: "not measured"}


def to_markdown(section: Section) -> str:
    """The section's table, its goals, its notes."""
    parts = [f"## {section.title}"]
    rows = [[name, *map(figure, cells)] for name, cells in section.rows]
    parts.append(_table(["", *section.columns], rows))
    if section.verdicts:
        goals = [
            [
                verdict.what,
                verdict.goal,
                "" if verdict.measured is None else figure(verdict.measured) + verdict.unit,
                _MET[verdict.met],
            ]
            for verdict in section.verdicts
        ]
        parts.append(_table(["goal", "wanted", "measured", "met?"], goals))
    parts += section.notes
    return "\n\n".join(parts) + "\n"


def facts_to_markdown(facts: dict[str, str]) -> str:
    """The machine's facts as a table."""
    return _table(["machine", ""], [[name, value] for name, value in facts.items()]) + "\n"


def to_json(sections: dict[str, Section], facts: dict[str, str]) -> dict[str, object]:
    """Everything, for a program to read."""
    return {
        "machine": facts,
        "sections": {
            name: {
                "title": section.title,
                "columns": list(section.columns),
                "rows": {row: dict(zip(section.columns, cells, strict=True))
                         for row, cells in section.rows},
                "goals": [asdict(verdict) for verdict in section.verdicts],
                "notes": section.notes,
            }
            for name, section in sections.items()
        },
    }  # fmt: skip


def summary(sections: dict[str, Section]) -> str:
    """How many goals were met, and every one that was not."""
    verdicts = [(name, verdict) for name, s in sections.items() for verdict in s.verdicts]
    failed = [
        f"- {name}: {v.what}: wanted {v.goal}, measured {figure(v.measured)}{v.unit}"
        for name, v in verdicts
        if v.met is False
    ]
    met = sum(verdict.met is True for _, verdict in verdicts)
    unknown = sum(verdict.met is None for _, verdict in verdicts)
    count = f"{met} of {len(verdicts)} goals met, {len(failed)} not, {unknown} not measured."
    return "\n".join(["## Summary", "", count, *([""] if failed else []), *failed]) + "\n"
