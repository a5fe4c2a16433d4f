"""Importing the door, with and without LangChain."""

from __future__ import annotations

from importlib.util import find_spec

import langchain_langswarm
import pytest
from door_imports import DoorImportTests, python


class TestImport(DoorImportTests):
    door = langchain_langswarm
    names = needs = [
        "RunnableWithSession",
        "SessionChatMessageHistory",
        "SessionMiddleware",
        "from_langchain",
        "from_langchain_messages",
        "to_langchain",
        "to_langchain_messages",
    ]
    framework = "langchain_core"
    extra = "langchain(-agents)?"
    inner = ("langchain_core.documents", "to_langchain")
    more = {"SessionMiddleware"}


def test_without_the_chat_history_the_rest_still_works() -> None:
    code = """
from langchain_langswarm import RunnableWithSession, from_langchain, to_langchain
try:
    from langchain_langswarm import SessionChatMessageHistory
except ImportError as error:
    print(error.name)
"""
    assert python(code, "langchain_core.chat_history").strip() == "langchain_core.chat_history"


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
