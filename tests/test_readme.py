"""The README's examples run as printed.

A block may have an HTML comment above it: ``continues`` (the python block before), ``pytest`` (run
by pytest), ``not run: why``. A text block says what the block before it prints.
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
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>.+?) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL
)


class Example(NamedTuple):
    language: str
    mark: str
    code: str
    prints: str | None = None


def examples() -> list[Example]:
    found: list[Example] = []
    for block in BLOCK.finditer(README):
        language, mark, code = block["language"], block["mark"] or "", block["code"]
        if language == "text":
            found[-1] = found[-1]._replace(prints=(found[-1].prints or "") + code)
        elif mark == "continues":
            before = found[-1]
            found.append(before._replace(code=before.code + code))
        elif not mark.startswith("not run"):
            found.append(Example(language, mark, code))
    return found


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


def scripts(language: str) -> list[Example]:
    return [example for example in examples() if example.language == language]


@pytest.mark.parametrize("example", scripts("python"), ids=range(len(scripts("python"))))
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


@pytest.mark.parametrize("example", scripts("sh"), ids=range(len(scripts("sh"))))
def test_shell(example: Example, tmp_path: Path):
    script = tmp_path / "langswarm-session"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m langswarm_session.cli "$@"\n')
    script.chmod(0o755)
    path = os.pathsep.join((str(tmp_path), os.environ["PATH"]))
    run(["sh", "-e", "-c", example.code], tmp_path, PATH=path)


def test_the_diff_is_what_the_chain_s_example_does():
    diff = re.search(r"```diff\n(.*?)```", README, re.DOTALL)[1]
    chain = next(example.code for example in scripts("python") if "RunnableWithS" in example.code)
    for line in diff.splitlines():
        if line.startswith("+"):
            assert line[1:] in chain


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)(.+?)\)", README):
        assert (ROOT / target).exists(), target
