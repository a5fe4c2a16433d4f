"""The prose avoids phrases that read as a translation.

The documentation has none of them. The package has fewer with each change: lower its count when
you remove some, and never raise it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PHRASES = (
    "whoever",
    "anew",
    "gone on with",
    "let go of",
    "is to be had",
    "what of it",
    "of ours",
    "looked at",
    "one's own",
)
PROSE = sorted(
    [
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "benchmarks").glob("*.md"),
        *(ROOT / "examples").glob("*/*.md"),
        *(ROOT / "notebooks").glob("*.ipynb"),
    ]
)
CODE = sorted(
    path
    for folder in ("langswarm_session", "integrations")
    for path in (ROOT / folder).rglob("*.py")
)
HITS_IN_CODE: dict[str, int] = {
    "whoever": 70,
    "anew": 32,
    "gone on with": 7,
    "let go of": 11,
    "what of it": 7,
    "of ours": 15,
    "looked at": 24,
    "one's own": 1,
}
"""How often the package may still have each phrase; one that is not listed may not occur."""


def text_of(path: Path) -> str:
    """The prose of a file on one line, since a phrase may be broken over two."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return re.sub(r"[\s#]+", " ", text).lower()


def hits(text: str) -> dict[str, int]:
    """How often each phrase that occurs in a text does so."""
    counts = {phrase: len(re.findall(rf"\b{phrase}\b", text)) for phrase in PHRASES}
    return {phrase: count for phrase, count in counts.items() if count}


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_documentation_has_no_such_phrase(path: Path):
    assert hits(text_of(path)) == {}


def test_the_package_has_fewer_of_them_with_each_change():
    counts = hits(" ".join(map(text_of, CODE)))
    assert {name: n for name, n in counts.items() if n > HITS_IN_CODE.get(name, 0)} == {}
