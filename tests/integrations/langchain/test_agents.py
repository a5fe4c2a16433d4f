"""Agents with the memory of a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import tool
from langchain_langswarm import (
    RunnableWithSession,
    SessionChatMessageHistory,
    SessionMiddleware,
)
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from langswarm_session import InvalidInputError, SessionManager

Log = Callable[..., list[tuple[str, str]]]
Statuses = Callable[[], list[str]]

TALK = [
    ("human", "sea"),
    ("ai", ""),
    ("tool", "saw sea"),
    ("ai", "3:saw sea"),
    ("human", "sky"),
    ("ai", ""),
    ("tool", "saw sky"),
    ("ai", "7:saw sky"),
]


class Caller(BaseChatModel):
    """A model that calls ``look`` for each question, and then says what came back."""

    @property
    def _llm_type(self) -> str:
        return "caller"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
        return self

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        answer = AIMessage(f"{len(messages)}:{messages[-1].text}")
        if isinstance(messages[-1], HumanMessage):
            call = {"name": "look", "args": {"at": messages[-1].text}, "id": f"c{len(messages)}"}
            answer = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=answer)])


def look(at: str) -> str:
    """Look at something."""
    if at == "nothing":
        raise LookupError(at)
    return f"saw {at}"


def remembering(agent: Runnable[Any, Any], manager: SessionManager) -> RunnableWithSession:
    return RunnableWithSession(
        agent, manager, input_messages_key="messages", output_messages_key="messages"
    )


@pytest.fixture
def agent(manager: SessionManager) -> RunnableWithSession:
    return remembering(create_agent(Caller(), [look]), manager)


async def ask(way: str, agent: RunnableWithSession, text: str, config: RunnableConfig) -> None:
    value = {"messages": [("human", text)]}
    options = {"stream_mode": "values"} if way.endswith("values") else {}
    if way == "invoke":
        agent.invoke(value, config)
    elif way == "ainvoke":
        await agent.ainvoke(value, config)
    elif way == "events":
        _ = [event async for event in agent.astream_events(value, config)]
    elif way.startswith("stream"):
        list(agent.stream(value, config, **options))
    else:
        _ = [chunk async for chunk in agent.astream(value, config, **options)]


@pytest.mark.parametrize(
    "way", ["invoke", "ainvoke", "stream", "stream values", "astream", "astream values", "events"]
)
async def test_its_steps_are_stored_once_and_in_order(
    way: str, agent: RunnableWithSession, config: RunnableConfig, manager: SessionManager, log: Log
) -> None:
    await ask(way, agent, "sea", config)
    await ask(way, agent, "sky", config)
    assert log() == TALK
    messages = SessionChatMessageHistory("chat", manager, user_id="ann").messages
    calls = [
        call["id"] for each in messages if isinstance(each, AIMessage) for call in each.tool_calls
    ]
    results = [each.tool_call_id for each in messages if isinstance(each, ToolMessage)]
    assert calls == results == ["c1", "c5"]


def test_its_output_is_the_whole_conversation(
    agent: RunnableWithSession, config: RunnableConfig
) -> None:
    agent.invoke({"messages": "sea"}, config)
    output = agent.invoke({"messages": HumanMessage("sky")}, config)
    assert [(message.type, message.text) for message in output["messages"]] == TALK


def test_its_updates_are_streamed_as_they_are(
    agent: RunnableWithSession, config: RunnableConfig
) -> None:
    chunks = list(agent.stream({"messages": "sea"}, config))
    assert [next(iter(chunk)) for chunk in chunks] == ["model", "tools", "model"]


async def test_a_failure_leaves_a_failed_turn(
    agent: RunnableWithSession, config: RunnableConfig, statuses: Statuses, log: Log
) -> None:
    with pytest.raises(LookupError):
        await agent.ainvoke({"messages": "nothing"}, config)
    assert statuses() == ["failed"]
    await agent.ainvoke({"messages": "sea"}, config)
    assert log() == [("human", "nothing"), *TALK[:4]]


async def test_a_stream_that_is_broken_off_keeps_its_steps(
    agent: RunnableWithSession, config: RunnableConfig, statuses: Statuses, log: Log
) -> None:
    stream = agent.stream({"messages": "sea"}, config)
    assert "model" in next(stream)
    assert "tools" in next(stream)
    stream.close()
    assert statuses() == ["cancelled"]
    assert log() == TALK[:3]


# Stream modes

MODES: list[dict[str, Any]] = [
    {"stream_mode": mode, **more}
    for mode in ("messages", ["updates", "values"], ["messages", "custom"], ["updates"], "values")
    for more in ({}, {"subgraphs": True}, {"version": "v2"})
]


@pytest.mark.parametrize("options", MODES, ids=str)
async def test_each_stream_mode_stores_each_message_once(
    options: dict[str, Any], agent: RunnableWithSession, config: RunnableConfig, log: Log
) -> None:
    assert list(agent.stream({"messages": "sea"}, config, **options))
    assert [chunk async for chunk in agent.astream({"messages": "sky"}, config, **options)]
    assert log() == TALK


@pytest.mark.parametrize("options", MODES[:3], ids=str)
async def test_pieces_of_messages_are_stored_whole(
    options: dict[str, Any], manager: SessionManager, config: RunnableConfig, log: Log
) -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("one two"), AIMessage("three four")]))
    agent = remembering(create_agent(model), manager)
    for text in ("a", "b"):
        assert len(list(agent.stream({"messages": text}, config, **options))) > 1
    assert [text for _, text in log()] == ["a", "one two", "b", "three four"]


async def test_what_was_shown_of_a_message_is_kept(
    manager: SessionManager, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("one two three")]))
    agent = remembering(create_agent(model), manager)
    stream = agent.astream({"messages": "a"}, config, stream_mode="messages")
    shown = [(await anext(stream))[0].text for _ in range(3)]
    await stream.aclose()
    assert (statuses(), log()) == (["cancelled"], [("human", "a"), ("ai", "".join(shown))])


@pytest.mark.parametrize("options", [{}, {"subgraphs": True}, {"version": "v2"}], ids=str)
def test_a_stream_without_messages_fails_with_advice(
    options: dict[str, Any], agent: RunnableWithSession, config: RunnableConfig, log: Log,
    statuses: Statuses,
) -> None:  # fmt: skip
    """What a graph has besides, such as its whole state, is no answer and is not stored as one."""
    with pytest.raises(InvalidInputError, match="stream_mode|stream modes"):
        list(agent.stream({"messages": "sea"}, config, stream_mode=["tasks"], **options))
    assert (statuses(), log()) == (["failed"], [("human", "sea")])
    agent.invoke({"messages": "sea"}, config)
    assert statuses() == ["failed", "complete"]


def test_what_an_agent_within_a_tool_says_is_the_tools_result(
    manager: SessionManager, config: RunnableConfig, log: Log
) -> None:
    inner = create_agent(GenericFakeChatModel(messages=iter([AIMessage("closely seen")])))

    @tool("look")
    def look_closely(at: str) -> str:
        """Ask another agent."""
        return str(inner.invoke({"messages": [HumanMessage(at)]})["messages"][-1].text)

    agent = remembering(create_agent(Caller(), [look_closely]), manager)
    options: dict[str, Any] = {"stream_mode": "messages", "subgraphs": True}
    list(agent.stream({"messages": "sea"}, config, **options))
    assert [text for _, text in log()] == ["sea", "", "closely seen", "3:closely seen"]


# A graph that keeps a thread of its own


@pytest.mark.parametrize("way", ["invoke", "stream", "stream values", "ainvoke", "astream"])
async def test_a_thread_beside_the_record_doubles_nothing(
    way: str, manager: SessionManager, log: Log
) -> None:
    inner = create_agent(Caller(), [look], name="inner")
    graph = StateGraph(MessagesState).add_node("inner", inner).add_edge(START, "inner")
    memory = remembering(graph.compile(checkpointer=InMemorySaver()), manager)
    config: RunnableConfig = {
        "configurable": {"session_id": "chat", "user_id": "ann", "thread_id": "t"}
    }
    session = await manager.get_or_create_session("chat", "ann")
    await session.update_context(max_messages=3)  # the thread has more than the window
    asked = [f"question {number}" for number in range(4)]
    for text in asked:
        await ask(way, memory, text, config)
    assert [text for kind, text in log() if kind == "human"] == asked
    assert len(log()) == len(asked) * 4


async def test_an_agent_with_the_same_session_knows_a_question_that_came_without_an_id(
    manager: SessionManager, config: RunnableConfig, log: Log
) -> None:
    inner = create_agent(Caller(), [look], middleware=[SessionMiddleware(manager)], name="inner")
    graph = StateGraph(MessagesState).add_node("inner", inner).add_edge(START, "inner").compile()
    memory = remembering(graph, manager)
    memory.invoke({"messages": "sea"}, config)
    await memory.ainvoke({"messages": [("user", "sky")]}, config)
    assert log() == TALK
