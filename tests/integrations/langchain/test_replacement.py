"""In place of LangChain's RunnableWithMessageHistory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import ConfigurableFieldSpec, RunnableConfig, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_langswarm import RunnableWithSession, SessionChatMessageHistory

from langswarm_session import SessionManager

Give = Callable[[str], Any]

# What a program names, what it passes, and what its chain gives.
PROGRAMS: dict[str, tuple[dict[str, str], Give, Give]] = {
    "messages": ({}, HumanMessage, AIMessage),
    "strings": ({}, str, str),
    "lists": ({}, lambda text: [HumanMessage(text)], lambda text: [AIMessage(text)]),
    "a dict with the history": (
        {"input_messages_key": "question", "history_messages_key": "history"},
        lambda text: {"question": text, "language": "fi"},
        str,
    ),
    "a dict of messages": (
        {"input_messages_key": "question"},
        lambda text: {"question": [HumanMessage(text)]},
        lambda text: {"output": AIMessage(text)},
    ),
    "an output key": (
        {
            "input_messages_key": "question",
            "history_messages_key": "history",
            "output_messages_key": "a",
        },
        lambda text: {"question": HumanMessage(text)},
        lambda text: {"a": [AIMessage(text)], "b": 1},
    ),
}


class Histories:
    """LangChain's own histories, in memory, by the values of the config."""

    def __init__(self) -> None:
        self.by_id: dict[Any, InMemoryChatMessageHistory] = {}

    def one(self, session_id: str) -> InMemoryChatMessageHistory:
        return self.get((session_id,))

    def two(self, user_id: str, thread: str) -> InMemoryChatMessageHistory:
        return self.get((user_id, thread))

    def get(self, key: Any) -> InMemoryChatMessageHistory:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is deprecated, and warns once
            return self.by_id.setdefault(key, InMemoryChatMessageHistory())


WARNS = tuple(map(int, version("langchain-core").split(".")[:3])) >= (1, 3, 3)
"""Whether this version of LangChain has deprecated it."""


def deprecated(*args: Any, **options: Any) -> RunnableWithMessageHistory:
    if not WARNS:
        return RunnableWithMessageHistory(*args, **options)
    with pytest.warns(DeprecationWarning, match="RunnableWithMessageHistory") as caught:
        before = RunnableWithMessageHistory(*args, **options)
    assert {warning.category.__name__ for warning in caught} == {"LangChainDeprecationWarning"}
    return before


@pytest.mark.parametrize("program", PROGRAMS)
async def test_one_import_and_one_argument_are_changed(
    program: str,
    manager: SessionManager,
    new_chain: Callable[..., Any],
    call: Callable[..., Any],
) -> None:
    keys, take, give = PROGRAMS[program]
    histories = Histories()
    before = deprecated(RunnableLambda(new_chain(give)), histories.one, **keys)
    after = RunnableWithSession(RunnableLambda(new_chain(give)), manager, **keys)
    config: RunnableConfig = {"configurable": {"session_id": "chat"}}
    for text in ("hi", "again", "bye"):
        assert await call(after, take(text), config) == await call(before, take(text), config)
    kept = histories.one("chat").messages
    assert len(kept) == 6
    assert SessionChatMessageHistory("chat", manager).messages == kept


def test_own_keys_are_used_as_before(
    manager: SessionManager, new_chain: Callable[..., Any]
) -> None:
    specs = [ConfigurableFieldSpec(id=name, annotation=str) for name in ("user_id", "thread")]
    chain, histories = RunnableLambda(new_chain()), Histories()
    before = deprecated(chain, histories.two, history_factory_config=specs)
    after = RunnableWithSession(chain, manager, history_factory_config=specs)
    for user_id, thread in [("ann", "1"), ("ann", "2"), ("ann", "1"), ("bob", "1")]:
        config: RunnableConfig = {"configurable": {"user_id": user_id, "thread": thread}}
        assert after.invoke("hi", config) == before.invoke("hi", config)


def test_missing_keys_are_a_value_error_as_before(
    manager: SessionManager, new_chain: Callable[..., Any]
) -> None:
    chain = RunnableLambda(new_chain())
    for memory in (deprecated(chain, Histories().one), RunnableWithSession(chain, manager)):
        with pytest.raises(ValueError, match="session_id"):
            memory.invoke("hi")


async def test_our_history_works_in_langchains_runnable(
    manager: SessionManager, new_chain: Callable[..., Any], call: Callable[..., Any]
) -> None:
    """For who wants to change in two steps."""
    memory = deprecated(
        RunnableLambda(new_chain()),
        lambda session_id: SessionChatMessageHistory(session_id, manager),
    )
    config: RunnableConfig = {"configurable": {"session_id": "chat"}}
    await call(memory, HumanMessage("hi"), config)
    assert await call(memory, HumanMessage("again"), config) == AIMessage("3:again")
    assert SessionChatMessageHistory("chat", manager).messages == [
        HumanMessage("hi"),
        AIMessage("1:hi"),
        HumanMessage("again"),
        AIMessage("3:again"),
    ]
