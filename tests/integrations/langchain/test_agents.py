"""Agents with the memory of a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_langswarm import RunnableWithSession, SessionChatMessageHistory

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


@pytest.fixture
def agent(manager: SessionManager) -> RunnableWithSession:
    return RunnableWithSession(
        create_agent(Caller(), [look]),
        manager,
        input_messages_key="messages",
        output_messages_key="messages",
    )


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


@pytest.mark.parametrize("mode", ["messages", ["updates", "values"]], ids=str)
def test_a_stream_of_something_else_fails_with_advice(
    mode: Any, agent: RunnableWithSession, config: RunnableConfig, statuses: Statuses
) -> None:
    with pytest.raises(InvalidInputError, match="stream_mode"):
        list(agent.stream({"messages": "sea"}, config, stream_mode=mode))
    assert statuses() == ["failed"]
    agent.invoke({"messages": "sea"}, config)
    assert statuses() == ["failed", "complete"]
