"""Agents in graphs, and states whose messages have no ids."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Annotated, Any, Required

import pytest
from langchain.agents import AgentState, create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_langswarm import SessionMiddleware
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from langswarm_session import SessionManager

Log = Callable[..., list[tuple[str, str]]]

HAS_DELTA = find_spec("langgraph.channels.delta") is not None


@pytest.fixture
def storage_kind() -> str:
    """One is enough here: what differs between the storages is tested elsewhere."""
    return "memory"


@pytest.fixture
def config() -> RunnableConfig:
    return {"configurable": {"session_id": "chat", "thread_id": "thread"}}


def texts(messages: list[AnyMessage]) -> list[str]:
    return [str(message.text) for message in messages]


# Messages without ids


if HAS_DELTA:
    from langgraph.channels.delta import DeltaChannel
    from langgraph.graph.message import _messages_delta_reducer

    def add(state: list[Any], writes: list[Any]) -> list[Any]:
        """As deepagents' reducer, which LangGraph does not know for one of messages."""
        return list(_messages_delta_reducer(state, writes))

    class UnnamedState(AgentState[Any]):
        messages: Required[Annotated[list[AnyMessage], DeltaChannel(add)]]


needs_delta = pytest.mark.skipif(not HAS_DELTA, reason="this LangGraph has no DeltaChannel")


def make_unnamed(
    manager: SessionManager, answers: list[str], *middleware: AgentMiddleware, **options: Any
) -> Any:
    """An agent whose state gives messages no ids."""
    return create_agent(
        FakeListChatModel(responses=answers),
        middleware=[SessionMiddleware(manager), *middleware],
        state_schema=UnnamedState,
        **options,
    )


def make_plain(manager: SessionManager, answers: list[str], **options: Any) -> Any:
    middleware = [SessionMiddleware(manager)]
    return create_agent(FakeListChatModel(responses=answers), middleware=middleware, **options)


def ask(text: str) -> dict[str, Any]:
    return {"messages": [("user", text)]}


@needs_delta
@pytest.mark.parametrize("keeps_thread", [False, True])
def test_what_is_said_without_an_id_is_stored(
    manager: SessionManager, config: RunnableConfig, log: Log, keeps_thread: bool
) -> None:
    saver = InMemorySaver() if keeps_thread else None
    agent = make_unnamed(manager, ["one", "two", "three"], checkpointer=saver)
    for _ in range(3):
        result = agent.invoke(ask("hi"), config)
    expected = [("human", "hi"), ("ai", "one"), ("human", "hi"), ("ai", "two"),
                ("human", "hi"), ("ai", "three")]  # fmt: skip
    assert log() == expected
    assert [(message.type, message.text) for message in result["messages"]] == expected
    assert all(message.id for message in result["messages"])


@pytest.mark.parametrize("is_unnamed", [pytest.param(True, marks=needs_delta), False])
def test_a_checkpoint_that_is_replayed_stores_nothing_twice(
    manager: SessionManager, config: RunnableConfig, log: Log, is_unnamed: bool
) -> None:
    make = make_unnamed if is_unnamed else make_plain
    agent = make(manager, ["one", "two"], checkpointer=InMemorySaver())
    agent.invoke(ask("hi"), config)
    begun = next(
        state for state in agent.get_state_history(config) if "before_agent" in str(state.next)
    )
    assert (begun.values["messages"][0].id is None) is is_unnamed
    place = {**config["configurable"], **begun.config["configurable"]}
    result = agent.invoke(None, {"configurable": place})
    assert log() == [("human", "hi"), ("ai", "one")]
    assert texts(result["messages"]) == ["hi", "one"]


class Remind(AgentMiddleware):
    """Puts a message without an id into the state before the model is asked."""

    def before_model(self, state: Any, runtime: Any) -> dict[str, Any]:
        return {"messages": [HumanMessage("be brief")]}


@needs_delta
def test_what_another_middleware_adds_without_an_id_is_stored_once(
    manager: SessionManager, config: RunnableConfig, log: Log
) -> None:
    agent = make_unnamed(manager, ["one", "two"], Remind(), checkpointer=InMemorySaver())
    for _ in range(2):
        result = agent.invoke(ask("hi"), config)
    turn = [("human", "hi"), ("human", "be brief")]
    assert log() == [*turn, ("ai", "one"), *turn, ("ai", "two")]
    assert all(message.id for message in result["messages"])


# An agent in a graph


def in_a_graph(agent: Any, **options: Any) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("ask", agent)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    return graph.compile(**options)


@pytest.mark.parametrize("keeps_thread", [False, True])
def test_a_graph_is_handed_what_is_new(
    manager: SessionManager, config: RunnableConfig, log: Log, keeps_thread: bool
) -> None:
    agent = make_plain(manager, ["one", "two", "three"])
    agent.invoke(ask("before"), config)
    graph = in_a_graph(agent, checkpointer=InMemorySaver() if keeps_thread else None)
    first = graph.invoke(ask("a"), config)
    second = graph.invoke(ask("b"), config)
    assert texts(first["messages"]) == ["a", "two"]
    assert texts(second["messages"]) == [*(["a", "two"] if keeps_thread else []), "b", "three"]
    assert [text for _, text in log()] == ["before", "one", "a", "two", "b", "three"]


def test_a_graph_is_handed_a_repeated_answer(
    manager: SessionManager, config: RunnableConfig, log: Log
) -> None:
    graph = in_a_graph(make_plain(manager, ["one"]))
    for _ in range(2):
        result = graph.invoke({"messages": [HumanMessage("a", id="a")]}, config)
        assert texts(result["messages"]) == ["a", "one"]
    assert log() == [("human", "a"), ("ai", "one")]
