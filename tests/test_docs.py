"""The examples of the README and of docs/ run as printed, and their links lead somewhere.

A block may have an HTML comment above it: ``continues`` (the python block before), ``pytest`` (run
by pytest), ``not run: why``. A text block shows what the block before it prints.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
OTHER_PAGES = ["CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"]
LINKED_FROM = [
    *PAGES,
    *(ROOT / name for name in OTHER_PAGES),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>.+?) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Example(NamedTuple):
    page: str
    language: str
    mark: str
    code: str
    prints: str | None = None


def examples_of(page: Path) -> list[Example]:
    examples: list[Example] = []
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        language, mark, code = block["language"], block["mark"] or "", block["code"]
        if language == "text":
            examples[-1] = examples[-1]._replace(prints=(examples[-1].prints or "") + code)
        elif mark == "continues":
            examples.append(examples[-1]._replace(code=examples[-1].code + code))
        elif not mark.startswith("not run"):
            examples.append(Example(page.stem, language, mark, code))
    return examples


EXAMPLES = [example for page in PAGES for example in examples_of(page)]


def run(arguments: list[str], folder: Path, **options: str) -> str:
    done = subprocess.run(
        arguments,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **options},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def keys(world) -> dict[str, str]:
    """The environment of somebody with keys, whose vendors are the stand-in server."""
    return {
        "OPENAI_API_KEY": world.key,
        "OPENAI_BASE_URL": world.openai_url,
        "ANTHROPIC_API_KEY": world.key,
        "ANTHROPIC_BASE_URL": world.anthropic_url,
    }


def in_language(language: str) -> list:
    examples = [example for example in EXAMPLES if example.language == language]
    return [
        pytest.param(example, id=f"{example.page}-{number}")
        for number, example in enumerate(examples)
    ]


@pytest.mark.parametrize("example", in_language("python"))
def test_python(example: Example, tmp_path: Path, keys: dict[str, str]):
    file = tmp_path / "test_example.py"
    file.write_text(example.code, encoding="utf-8")
    if example.mark == "pytest":
        assert " passed" in run([sys.executable, "-m", "pytest", "-q", str(file)], tmp_path)
    else:
        printed = run([sys.executable, "-W", "error", str(file)], tmp_path, **keys)
        assert printed == (example.prints or printed)
        run(
            [sys.executable, str(file)], tmp_path, **keys
        )  # a second run finds what the first one left


@pytest.mark.parametrize("example", in_language("sh"))
def test_shell(example: Example, tmp_path: Path):
    script = tmp_path / "langswarm-session"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m langswarm_session.cli "$@"\n')
    script.chmod(0o755)
    path = os.pathsep.join((str(tmp_path), os.environ["PATH"]))
    run(["sh", "-e", "-c", example.code], tmp_path, PATH=path)


def test_the_diff_is_what_the_chain_s_example_does():
    page = ROOT / "docs" / "langchain.md"
    diff = re.search(r"```diff\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[1]
    chain = examples_of(page)[0].code
    assert "RunnableWithSession" in chain
    for line in diff.splitlines():
        if line.startswith("+"):
            assert line[1:] in chain


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("page", LINKED_FROM, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for link in LINK.finditer(page.read_text(encoding="utf-8")):
        target = page.parent / link["path"] if link["path"] else page
        assert target.exists(), link[0]
        assert link["anchor"] is None or link["anchor"] in anchors(target), link[0]


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    linked = {link["path"] for link in LINK.finditer(index)}
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"} == linked


def test_the_readme_is_a_door():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200
