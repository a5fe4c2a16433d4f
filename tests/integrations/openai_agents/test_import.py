"""Importing the door, with and without its framework."""

from __future__ import annotations

import os
import subprocess
import sys

import openai_agents_langswarm
import pytest

NAMES = ["AgentSession", "from_openai_agents", "to_openai_agents"]

BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in {blocked!r} or name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def python(code: str, *blocked: str) -> str:
    """What a program prints in an interpreter of its own that cannot import some packages."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=blocked) + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_the_framework_it_says_which_extra_to_install() -> None:
    code = """
try:
    from openai_agents_langswarm import AgentSession
except ImportError as error:
    print(type(error).__name__, error)
"""
    said = python(code, "agents")
    assert said.startswith("MissingDependencyError")
    assert 'pip install "langswarm-session[openai-agents]"' in said


def test_the_converters_need_no_framework() -> None:
    code = """
from openai_agents_langswarm import from_openai_agents, to_openai_agents
print(to_openai_agents(from_openai_agents([{"role": "user", "content": "hi"}])))
"""
    assert python(code, "agents", "openai").strip() == "[{'role': 'user', 'content': 'hi'}]"


def test_a_fault_of_another_kind_is_not_taken_for_a_missing_extra() -> None:
    code = """
import openai_agents_langswarm
try:
    openai_agents_langswarm.AgentSession
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert python(code, "agents.memory").strip() == "agents.memory"


def test_it_needs_no_other_framework() -> None:
    code = f"import openai_agents_langswarm\nfor name in {NAMES!r}: getattr(openai_agents_langswarm, name)"
    others = {"langchain", "langchain_core", "langgraph", "llama_index", "agents"} - {"agents"}
    assert python(code, *others) == ""


def test_the_import_alone_loads_no_framework() -> None:
    code = "import openai_agents_langswarm, sys; print('agents' in sys.modules)"
    assert python(code).strip() == "False"


def test_its_names_are_listed() -> None:
    assert sorted(openai_agents_langswarm.__all__) == NAMES
    assert set(NAMES) <= set(dir(openai_agents_langswarm))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = openai_agents_langswarm.Nothing
