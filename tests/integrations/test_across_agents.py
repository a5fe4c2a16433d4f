"""One conversation that agents of three frameworks and a provider have, one after the other."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain")
pytest.importorskip("llama_index.core")
pytest.importorskip("agents")

from agents import Agent, RunConfig, Runner, function_tool
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_langswarm import SessionMiddleware
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, TextBlock
from llama_index.core.base.llms.types import ToolCallBlock as LlamaCall
from llama_index.core.memory import Memory
from llama_index_langswarm import AsyncSessionChatStore
from openai_agents_langswarm import AgentSession

from langswarm_session import (
    MockProviderSession,
    SessionManager,
    SessionMessage,
    ToolCallBlock,
    ToolResultBlock,
)

sys.path.insert(0, str(Path(__file__).parent / "llama_index"))
sys.path.insert(0, str(Path(__file__).parent / "openai_agents"))
from agents_model import ScriptedModel, assistant_message, function_call
from llama_index_model import CallingLLM

# LlamaIndex's workflows look at every attribute of an agent, pydantic's deprecated ones included.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")


def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


# What each model was shown when it was asked last, as facts: who said what, calls and results.


def shown_to_langchain(messages: Sequence[BaseMessage]) -> list[tuple[str, ...]]:
    told: list[tuple[str, ...]] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            told.append(("result", message.tool_call_id, str(message.text)))
        elif message.text:
            told.append((message.type, str(message.text)))
        for call in message.tool_calls if isinstance(message, AIMessage) else ():
            told.append(("call", str(call["id"]), call["name"], json.dumps(call["args"])))
    return [("user" if one[0] == "human" else one[0], *one[1:]) for one in told]


def shown_to_llama_index(messages: Sequence[ChatMessage]) -> list[tuple[str, ...]]:
    told: list[tuple[str, ...]] = []
    for message in messages:
        if message.role.value == "tool":
            told.append(("result", message.additional_kwargs["tool_call_id"], str(message.content)))
            continue
        if message.content:
            told.append(("user" if message.role.value == "user" else "ai", message.content))
        for block in message.blocks:
            if isinstance(block, LlamaCall):
                arguments = json.dumps(block.tool_kwargs)
                told.append(("call", str(block.tool_call_id), block.tool_name, arguments))
    return told


def shown_to_the_agents_sdk(items: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    told: list[tuple[str, ...]] = []
    for item in items:
        kind = item.get("type", "message")
        if kind == "function_call":
            arguments = json.dumps(json.loads(item["arguments"]))
            told.append(("call", item["call_id"], item["name"], arguments))
        elif kind == "function_call_output":
            told.append(("result", item["call_id"], item["output"]))
        else:
            content = item["content"]
            text = content if isinstance(content, str) else "".join(p["text"] for p in content)
            told.append(("user" if item["role"] == "user" else "ai", text))
    return told


def shown_to_a_provider(messages: Sequence[SessionMessage]) -> list[tuple[str, ...]]:
    told: list[tuple[str, ...]] = []
    for message in messages:
        results = [block for block in message.blocks if isinstance(block, ToolResultBlock)]
        told += [
            ("result", block.tool_call_id, SessionMessage(role="tool", content=[block]).text)
            for block in results
        ]
        if not results and message.text:
            told.append(("user" if message.role == "user" else "ai", message.text))
        for block in message.blocks:
            if isinstance(block, ToolCallBlock):
                told.append(("call", str(block.id), block.name, json.dumps(block.args)))
    return told


# The agents: each asks for the weather and says what it got.


class LangChainModel(BaseChatModel):
    seen: list[Any] = []

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self.seen.append(messages)
        if isinstance(messages[-1], ToolMessage):
            answer = AIMessage("Oslo is sunny.")
        else:
            call = {"name": "weather", "args": {"city": "Oslo"}, "id": f"call_{messages[-1].text}"}
            answer = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=answer)])


async def by_langchain(manager: SessionManager, text: str) -> Any:
    model = LangChainModel(seen=[])
    agent = create_agent(model, [weather], middleware=[SessionMiddleware(manager)])
    config: Any = {"configurable": {"session_id": "trip", "user_id": "ann"}}
    await agent.ainvoke({"messages": [("user", text)]}, config)
    return [shown_to_langchain(each) for each in model.seen]


async def by_llama_index(manager: SessionManager, text: str) -> Any:
    seen: list[Sequence[ChatMessage]] = []

    def answer(messages: Sequence[ChatMessage]) -> ChatMessage:
        seen.append(list(messages))
        if messages[-1].role.value == "tool":
            return ChatMessage("Rome is sunny.", role="assistant")
        call = LlamaCall(
            tool_call_id=f"call_{text}", tool_name="weather", tool_kwargs={"city": "Rome"}
        )
        return ChatMessage(blocks=[TextBlock(text="looking"), call], role="assistant")

    memory = Memory.from_defaults(session_id="trip")
    memory.sql_store = AsyncSessionChatStore(manager, user_id="ann")
    agent = FunctionAgent(tools=[weather], llm=CallingLLM(answer))
    await agent.run(text, memory=memory)
    return [shown_to_llama_index(each) for each in seen]


async def by_the_agents_sdk(manager: SessionManager, text: str) -> Any:
    call = function_call("weather", {"city": "Bonn"}, f"call_{text}", item_id=f"fc_{text}")
    answer = assistant_message("Bonn is sunny.", item_id=f"msg_{text}")
    model = ScriptedModel([[call], [answer]])
    agent = Agent(name="forecaster", model=model, tools=[function_tool(weather)])
    session = AgentSession("trip", manager, user_id="ann")
    run_config = RunConfig(tracing_disabled=True)
    await Runner.run(agent, text, session=session, run_config=run_config)
    return [shown_to_the_agents_sdk(each) for each in model.inputs]


async def by_a_provider(manager: SessionManager, text: str) -> Any:
    session = await manager.get_session("trip", user_id="ann")
    await session.update_context(provider="mock", model="echo")
    provider = manager.core.providers.of("mock", "trip")
    assert isinstance(provider, MockProviderSession)
    await session.send_message(text)
    return [shown_to_a_provider(provider.requests[-1].messages)]


WRITERS = {
    "langchain": by_langchain,
    "llama_index": by_llama_index,
    "openai_agents": by_the_agents_sdk,
    "provider": by_a_provider,
}
CITIES = {"langchain": "Oslo", "llama_index": "Rome", "openai_agents": "Bonn"}


def said(who: str, text: str) -> list[tuple[str, ...]]:
    """What somebody adds to the conversation when asked something."""
    if who == "provider":
        return [("ai", f"You said: {text}")]
    city = CITIES[who]
    return [
        *([("ai", "looking")] if who == "llama_index" else []),
        ("call", f"call_{text}", "weather", json.dumps({"city": city})),
        ("result", f"call_{text}", f"sunny in {city}"),
        ("ai", f"{city} is sunny."),
    ]


@pytest.mark.parametrize(
    "order",
    [
        ("langchain", "llama_index", "openai_agents", "provider"),
        ("openai_agents", "llama_index", "langchain", "provider", "openai_agents"),
        ("llama_index", "langchain", "llama_index", "openai_agents", "langchain", "provider"),
    ],
    ids=" then ".join,
)
async def test_each_sees_all_before_it(manager: SessionManager, order: tuple[str, ...]) -> None:
    expected: list[tuple[str, ...]] = []
    for number, who in enumerate(order):
        asked = ("user", f"question {number}")
        seen = await WRITERS[who](manager, asked[1])
        assert seen[0] == [*expected, asked], f"what {who} was shown first"
        expected += [asked, *said(who, asked[1])]
        if who in CITIES:
            assert seen[-1] == expected[:-1], f"what {who} was shown with its tool's result"
    session = await manager.get_session("trip", user_id="ann")
    turns = await session.get_turns()
    assert {turn.status.value for turn in turns} == {"complete"}
    assert shown_to_a_provider(await session.get_messages()) == expected
