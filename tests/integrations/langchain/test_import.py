"""Importing the door, with and without LangChain."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import langchain_langswarm
import pytest

NAMES = [
    "RunnableWithSession",
    "SessionChatMessageHistory",
    "SessionMiddleware",
    "from_langchain",
    "from_langchain_messages",
    "to_langchain",
    "to_langchain_messages",
]

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


def test_without_langchain_core_it_says_which_extra_to_install() -> None:
    code = f"""
import langchain_langswarm
for name in {NAMES!r}:
    try:
        getattr(langchain_langswarm, name)
    except ImportError as error:
        print(type(error).__name__, error)
"""
    lines = python(code, "langchain_core").splitlines()
    assert len(lines) == len(NAMES)
    for line in lines:
        assert line.startswith("MissingDependencyError")
        assert re.search(r'pip install "langswarm-session\[langchain(-agents)?\]"', line)


def test_a_from_import_says_so_too() -> None:
    code = """
try:
    from langchain_langswarm import RunnableWithSession
except ImportError as error:
    print(error)
"""
    assert "langswarm-session[langchain]" in python(code, "langchain_core")


def test_a_fault_of_another_kind_is_not_taken_for_a_missing_extra() -> None:
    code = """
import langchain_langswarm
try:
    langchain_langswarm.to_langchain
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert python(code, "langchain_core.documents").strip() == "langchain_core.documents"


def test_without_the_chat_history_the_rest_still_works() -> None:
    code = """
from langchain_langswarm import RunnableWithSession, from_langchain, to_langchain
try:
    from langchain_langswarm import SessionChatMessageHistory
except ImportError as error:
    print(error.name)
"""
    assert python(code, "langchain_core.chat_history").strip() == "langchain_core.chat_history"


def test_only_the_middleware_needs_more_than_langchain_core() -> None:
    others = [name for name in NAMES if name != "SessionMiddleware"]
    code = f"import langchain_langswarm\nfor name in {others!r}: getattr(langchain_langswarm, name)"
    assert python(code, "langchain", "langgraph") == ""


@pytest.mark.skipif(find_spec("langchain") is None, reason="both are missing here")
@pytest.mark.parametrize("missing", ["langchain", "langgraph"])
def test_the_middleware_says_what_it_needs(missing: str) -> None:
    code = """
try:
    from langchain_langswarm import SessionMiddleware
except ImportError as error:
    print(error)
"""
    said = python(code, missing)
    assert said.startswith(f"{missing} is missing")
    assert "langswarm-session[langchain-agents]" in said


def test_the_import_alone_loads_no_framework() -> None:
    code = "import langchain_langswarm, sys; print('langchain_core' in sys.modules)"
    assert python(code).strip() == "False"


def test_its_names_are_listed() -> None:
    assert sorted(langchain_langswarm.__all__) == NAMES
    assert set(NAMES) <= set(dir(langchain_langswarm))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = langchain_langswarm.Nothing
