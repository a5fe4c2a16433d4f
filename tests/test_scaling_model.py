"""`docs/scaling.md` says what the model says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.report import Section
from benchmarks.scaling_model import Assumptions, machines, rates, report, weights

ROOT = Path(__file__).parents[1]


def cells(section: Section, row: str) -> list[float]:
    return [float(cell) for name, found in section.rows if name == row for cell in found if cell]


def test_the_document_has_the_models_tables() -> None:
    document = (ROOT / "docs" / "scaling.md").read_text()
    rows = [line for line in report(Assumptions()).splitlines() if line.startswith("|")]
    assert [line for line in rows if line not in document.splitlines()] == []


def test_twice_the_users_are_twice_the_work() -> None:
    one, two = Assumptions(), Assumptions(users_a_day=2 * Assumptions.users_a_day)
    for section, row in (
        (rates, "turns"),
        (weights, "all of it a day (GiB)"),
        (machines, "cores busy in them"),
    ):
        doubled = [2 * each for each in cells(section(one), row)]
        assert cells(section(two), row) == pytest.approx(doubled)
    day = cells(rates(one), "turns")
    assert day == pytest.approx([12_000_000, 138.888889, 416.666667])


def test_from_the_command_line() -> None:
    command = [sys.executable, "-m", "benchmarks.scaling_model", "--users-a-day", "1000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "| users a day | 1,000 |" in done.stdout
    assert done.stdout.strip() == report(Assumptions(users_a_day=1_000)).strip()
