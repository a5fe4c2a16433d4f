"""What is built holds what it needs; building it takes a network, so its description is checked."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_there_is_a_licence() -> None:
    assert PROJECT["project"]["license"] == "MIT"
    assert PROJECT["project"]["license-files"] == ["LICENSE"]
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


def test_the_source_distribution_holds_what_the_tests_use() -> None:
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    # Without a slash a name is one at any depth, as in a .gitignore.
    assert all(name.startswith("/") for name in included)
    assert all((ROOT / name[1:]).exists() for name in included)
    folders = {"benchmarks", "docs", "examples", "integrations", "langswarm_session", "notebooks"}
    files = {"Makefile", "LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"}
    assert {f"/{name}" for name in folders | files | {"tests", ".ci"}} == set(included)
