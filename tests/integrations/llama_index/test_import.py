"""Importing the door, with and without its framework."""

from __future__ import annotations

import os
import subprocess
import sys

import llama_index_langswarm
import pytest

NAMES = [
    "AsyncSessionChatStore",
    "SessionChatStore",
    "from_llama_index",
    "from_llama_index_messages",
    "to_llama_index",
    "to_llama_index_messages",
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


def test_without_the_framework_it_says_which_extra_to_install() -> None:
    code = f"""
import llama_index_langswarm
for name in {NAMES!r}:
    try:
        getattr(llama_index_langswarm, name)
    except ImportError as error:
        print(type(error).__name__, error)
"""
    lines = python(code, "llama_index").splitlines()
    assert len(lines) == len(NAMES)
    for line in lines:
        assert line.startswith("MissingDependencyError")
        assert 'pip install "langswarm-session[llama-index]"' in line


def test_a_fault_of_another_kind_is_not_taken_for_a_missing_extra() -> None:
    code = """
import llama_index_langswarm
try:
    llama_index_langswarm.AsyncSessionChatStore
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert (
        python(code, "llama_index.core.storage.chat_store").strip()
        == "llama_index.core.storage.chat_store"
    )


def test_it_needs_no_other_framework() -> None:
    code = (
        f"import llama_index_langswarm\nfor name in {NAMES!r}: getattr(llama_index_langswarm, name)"
    )
    others = {"langchain", "langchain_core", "langgraph", "llama_index", "agents"} - {"llama_index"}
    assert python(code, *others) == ""


def test_the_import_alone_loads_no_framework() -> None:
    code = "import llama_index_langswarm, sys; print('llama_index' in sys.modules)"
    assert python(code).strip() == "False"


def test_its_names_are_listed() -> None:
    assert sorted(llama_index_langswarm.__all__) == NAMES
    assert set(NAMES) <= set(dir(llama_index_langswarm))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = llama_index_langswarm.Nothing
