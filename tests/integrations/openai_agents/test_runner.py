"""The Agents SDK's runner on a session."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from agents import Agent, RunConfig, Runner, function_tool
from agents.exceptions import InputGuardrailTripwireTriggered
from agents.guardrail import GuardrailFunctionOutput, input_guardrail
from agents.memory import OpenAIResponsesCompactionSession, SessionSettings, SQLiteSession
from openai.types.responses import ResponseReasoningItem
from openai_agents_langswarm import AgentSession

from langswarm_session import SessionManager, ToolCallBlock, ToolResultBlock

sys.path.insert(0, str(Path(__file__).parent))
from agents_model import ScriptedModel, assistant_message, function_call


@function_tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def call(n: int, city: str) -> Any:
    return function_call("weather", {"city": city}, call_id=f"call_{n}", item_id=f"fc_{n}")


REASONING = ResponseReasoningItem(
    id="rs_1", type="reasoning", summary=[], encrypted_content="payload"
)
SCRIPT: list[list[Any]] = [
    [REASONING, call(1, "Oslo"), call(2, "Rome")],
    [assistant_message("both sunny", item_id="msg_1")],
    [assistant_message("you asked for two", item_id="msg_2")],
]


def forecaster(*steps: Any, **options: Any) -> tuple[Agent[Any], ScriptedModel]:
    model = ScriptedModel(steps or SCRIPT)
    return Agent(name="forecaster", model=model, tools=[weather], **options), model


async def plain(agent: Agent[Any], text: str, chat: Any, **options: Any) -> str:
    return str((await Runner.run(agent, text, session=chat, **options)).final_output)


async def in_a_thread(agent: Agent[Any], text: str, chat: Any, **options: Any) -> str:
    def work() -> str:
        # As a program without a running loop would.
        asyncio.set_event_loop(loop := asyncio.new_event_loop())
        try:
            return str(Runner.run_sync(agent, text, session=chat, **options).final_output)
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    return await asyncio.to_thread(work)


async def streamed(agent: Agent[Any], text: str, chat: Any, **options: Any) -> str:
    result = Runner.run_streamed(agent, text, session=chat, **options)
    async for _ in result.stream_events():
        pass
    return str(result.final_output)


Way = Callable[..., Any]


@pytest.fixture(params=[plain, in_a_thread, streamed], ids=lambda way: way.__name__)
def way(request: pytest.FixtureRequest) -> Way:
    return request.param


async def test_two_turns_with_tools(chat: AgentSession, manager: SessionManager, way: Way) -> None:
    agent, model = forecaster()
    assert await way(agent, "weather?", chat) == "both sunny"
    assert await way(agent, "how many?", chat) == "you asked for two"
    seen = model.inputs[-1]
    assert [item.get("type") or item["role"] for item in seen] == [
        "user", "reasoning", "function_call", "function_call", "function_call_output",
        "function_call_output", "message", "user",
    ]  # fmt: skip
    messages = await (await manager.get_session("chat")).get_messages()
    assert [m.role.value for m in messages] == [
        "user", "assistant", "tool", "tool", "assistant", "user", "assistant"
    ]  # fmt: skip
    blocks = [block for message in messages for block in message.blocks]
    calls = [block.id for block in blocks if isinstance(block, ToolCallBlock)]
    results = [block.tool_call_id for block in blocks if isinstance(block, ToolResultBlock)]
    assert calls == results == ["call_1", "call_2"]


async def test_the_model_sees_what_the_sdks_own_session_would_give(
    chat: AgentSession, way: Way
) -> None:
    ours, theirs = forecaster(), forecaster()
    own = SQLiteSession("chat")
    for text in ("weather?", "how many?"):
        await way(ours[0], text, chat)
        await way(theirs[0], text, own)
    assert ours[1].inputs == theirs[1].inputs
    assert await chat.get_items() == await own.get_items()
    own.close()


async def test_a_handoff(chat: AgentSession, way: Way) -> None:
    expert, _ = forecaster([assistant_message("snow", item_id="msg_9")])
    transfer = function_call("transfer_to_forecaster", {}, call_id="call_9", item_id="fc_9")
    desk = Agent(name="desk", model=ScriptedModel([[transfer]]), handoffs=[expert])
    assert await way(desk, "weather?", chat) == "snow"
    items = await chat.get_items()
    assert [item.get("type") or item["role"] for item in items] == [
        "user", "function_call", "function_call_output", "message"
    ]  # fmt: skip


async def test_session_settings_limit_what_is_read(chat: AgentSession, way: Way) -> None:
    agent, model = forecaster(*[[assistant_message(f"a{n}", item_id=f"msg_{n}")] for n in range(4)])
    for n in range(3):
        await way(agent, f"q{n}", chat)
    config = RunConfig(session_settings=SessionSettings(limit=2))
    await way(agent, "q3", chat, run_config=config)
    assert [item["content"] for item in model.inputs[-1] if item["role"] == "user"] == [
        "q2",
        "q3",
    ]
    assert len(await chat.get_items()) == 8


async def test_an_input_callback(chat: AgentSession) -> None:
    agent, model = forecaster(*[[assistant_message(f"a{n}", item_id=f"msg_{n}")] for n in range(2)])
    await plain(agent, "q0", chat)
    config = RunConfig(session_input_callback=lambda history, new: history[-1:] + new)
    await plain(agent, "q1", chat, run_config=config)
    assert [item["role"] for item in model.inputs[-1]] == ["assistant", "user"]
    assert len(await chat.get_items()) == 4


async def test_a_model_that_fails_keeps_what_there_is(chat: AgentSession, way: Way) -> None:
    agent, _ = forecaster([call(1, "Oslo")], RuntimeError("down"))
    with pytest.raises(RuntimeError, match="down"):
        await way(agent, "weather?", chat)
    items = await chat.get_items()
    assert items[0] == {"role": "user", "content": "weather?"}
    again, model = forecaster([assistant_message("sunny", item_id="msg_1")])
    assert await way(again, "and now?", chat) == "sunny"
    calls = {item["call_id"] for item in model.inputs[0] if item.get("type") == "function_call"}
    outputs = {
        item["call_id"] for item in model.inputs[0] if item.get("type") == "function_call_output"
    }
    assert calls == outputs


async def test_a_guardrail_that_trips(chat: AgentSession) -> None:
    @input_guardrail
    async def never(*_: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    agent, _ = forecaster([assistant_message("x")], input_guardrails=[never])
    own = SQLiteSession("chat")
    for session in (chat, own):
        with pytest.raises(InputGuardrailTripwireTriggered):
            await plain(agent, "hi", session)
    assert await chat.get_items() == await own.get_items()
    own.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_leaves_a_session_that_goes_on(chat: AgentSession, stream: bool) -> None:
    started = asyncio.Event()

    @function_tool
    async def slow() -> str:
        """Takes for ever."""
        started.set()
        await asyncio.Event().wait()
        return "never"

    step = function_call("slow", {}, call_id="call_1", item_id="fc_1")
    agent = Agent(name="slow", model=ScriptedModel([[step]]), tools=[slow])
    way = streamed if stream else plain
    task = asyncio.create_task(way(agent, "go", chat))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await chat.get_items())[0] == {"role": "user", "content": "go"}
    again, model = forecaster([assistant_message("here", item_id="msg_1")])
    assert await plain(again, "still there?", chat) == "here"
    types = [item.get("type") for item in model.inputs[0]]
    assert types.count("function_call") == types.count("function_call_output")


async def test_a_stream_that_is_cancelled_after_its_turn(chat: AgentSession) -> None:
    agent, _ = forecaster()
    result = Runner.run_streamed(agent, "weather?", session=chat)
    async for event in result.stream_events():
        if event.type == "run_item_stream_event":
            result.cancel(mode="after_turn")
    types = [item.get("type") for item in await chat.get_items()]
    assert types.count("function_call") == types.count("function_call_output") == 2


async def test_two_runs_at_once_lose_nothing(
    open_chat: Callable[..., AgentSession], way: Way
) -> None:
    async def one(n: int) -> None:
        script = [
            [function_call("weather", {"city": f"{n}"}, call_id=f"c{n}", item_id=f"fc_{n}")],
            [assistant_message(f"done {n}", item_id=f"msg_{n}")],
        ]
        await way(forecaster(*script)[0], f"q{n}", open_chat())

    await asyncio.gather(*(one(n) for n in range(4)))
    items = await open_chat().get_items()
    assert len(items) == 16
    assert {item.get("content") for item in items if item.get("role") == "user"} == {
        f"q{n}" for n in range(4)
    }
    for n in range(4):
        mine = [item["type"] for item in items if item.get("call_id") == f"c{n}"]
        assert mine == ["function_call", "function_call_output"]


COMPACTED: list[Any] = [{"type": "compaction", "id": "cmp_1", "encrypted_content": "x"}]


def compacting(chat: AgentSession, **options: Any) -> OpenAIResponsesCompactionSession:
    """The SDK's session that has its items compacted, by a client that makes one item of all."""

    async def compact(**_: Any) -> Any:
        return SimpleNamespace(output=COMPACTED, usage=None)

    client: Any = SimpleNamespace(responses=SimpleNamespace(compact=compact))
    return OpenAIResponsesCompactionSession(
        "chat", chat, client=client, compaction_mode="input", **options
    )


async def test_the_sdks_compaction_replaces_the_items(chat: AgentSession) -> None:
    session = compacting(chat)
    await session.add_items([{"role": "user", "content": f"{n}"} for n in range(12)])
    await session.run_compaction({"force": True})
    assert await session.get_items() == await chat.get_items() == COMPACTED


async def test_the_sdks_compaction_within_a_run(chat: AgentSession, way: Way) -> None:
    session = compacting(chat, should_trigger_compaction=lambda _: True)
    agent, model = forecaster()
    assert await way(agent, "weather?", session) == "both sunny"
    assert await chat.get_items() == COMPACTED
    assert await way(agent, "how many?", session) == "you asked for two"
    assert model.inputs[-1] == [*COMPACTED, {"role": "user", "content": "how many?"}]


async def test_a_compaction_is_one_write(chat: AgentSession, manager: SessionManager) -> None:
    await chat.add_items([{"role": "user", "content": f"{n}"} for n in range(12)])
    before = (await manager.get_session("chat")).revision
    assert await chat._atomic_replace_items(COMPACTED)
    assert await chat.get_items() == COMPACTED
    assert (await manager.get_session("chat")).revision == before + 1
    nobody = AgentSession("nobody", manager)
    assert not await nobody._atomic_replace_items(COMPACTED), "there is nothing to be replaced"
