"""Agents that are broken off: what happened is in the record, and the next run works."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRetryMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import InjectedToolCallId, tool
from langchain_langswarm import SessionChatMessageHistory, SessionMiddleware, watch
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError

from langswarm_session import (
    InvalidInputError,
    ISession,
    ISessionMiddleware,
    SessionManager,
    SessionMessage,
    create_session_manager,
)
from langswarm_session._sync.bridge import run

Log = Callable[..., list[tuple[str, str]]]
Statuses = Callable[..., list[str]]


class Fragile(BaseChatModel):
    """A model that calls the tools it is told to: ``use look calm``; with ``fail`` it raises.

    It refuses what a provider would: a call whose result does not follow.
    """

    seen: list[list[BaseMessage]] = []
    failures: list[Exception] = []
    in_blocks: bool = False

    @property
    def _llm_type(self) -> str:
        return "fragile"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
        return self

    def _answer(self, messages: list[BaseMessage]) -> AIMessage:
        self.seen.append(list(messages))
        waiting: set[str | None] = set()
        for message in messages:
            if message.type == "tool":
                waiting.remove(message.tool_call_id)
            else:
                assert not waiting, f"400: no result of {waiting}"
                waiting = {call["id"] for call in getattr(message, "tool_calls", ())}
        assert not waiting
        text = str(messages[-1].text)
        if self.failures:
            raise self.failures.pop()
        if isinstance(messages[-1], HumanMessage) and text.startswith("use "):
            names = text.split()[1:]
            calls = [{"name": name, "args": {}, "id": f"{name}-{len(self.seen)}"} for name in names]
            return AIMessage("", tool_calls=calls)
        return AIMessage(f"about {text}")

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages))])

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        answer = self._answer(messages)
        if answer.tool_calls:
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_calls=answer.tool_calls))
            return
        for word in answer.text.split():
            if word == "break":
                raise ConnectionError("broken off")
            block = {"type": "text", "text": word + " ", "index": 0}
            content: Any = [block] if self.in_blocks else word + " "
            chunk = ChatGenerationChunk(message=AIMessageChunk(content))
            if run_manager:
                run_manager.on_llm_new_token(content, chunk=chunk)
            yield chunk


@tool
def look() -> str:
    """Look."""
    return "saw it"


@tool
def fall() -> str:
    """Fall."""
    raise LookupError("fell")


@pytest.fixture
def model() -> Fragile:
    return Fragile(seen=[], failures=[])


@pytest.fixture
def build(manager: SessionManager, model: Fragile) -> Callable[..., Any]:
    def build(*middleware: Any, tools: Any = (look, fall), **options: Any) -> Any:
        return create_agent(
            model, list(tools), middleware=[SessionMiddleware(manager), *middleware], **options
        )

    return build


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    kept = (watch._parents, watch._inputs, watch._runs, watch._awaited)
    assert kept == ({}, {}, {}, set())


@pytest.fixture(params=["invoke", "ainvoke"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    async def ask(agent: Any, text: str, config: Any) -> Any:
        value = {"messages": [("human", text)]}
        if request.param == "invoke":
            return agent.invoke(value, config)
        return await agent.ainvoke(value, config)

    return ask


async def test_a_model_that_raises(
    ask: Any, build: Any, model: Fragile, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    agent = build()
    model.failures.append(ConnectionError("down"))
    with pytest.raises(ConnectionError):
        await ask(agent, "a", config)
    assert (log(), statuses()) == ([("human", "a")], ["failed"])
    await ask(agent, "b", config)
    assert [text for _, text in log()] == ["a", "b", "about b"]
    assert statuses() == ["failed", "complete"]


async def test_a_model_that_raises_after_a_tool(
    ask: Any, build: Any, model: Fragile, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    @tool("look")
    def cut() -> str:
        """Cut the line."""
        model.failures.append(ConnectionError("down"))
        return "saw it"

    agent = build(tools=[cut])
    with pytest.raises(ConnectionError):
        await ask(agent, "use look", config)
    assert [text for _, text in log()] == ["use look", "", "saw it"]
    await ask(agent, "b", config)
    assert [str(m.text) for m in model.seen[-1]] == ["use look", "", "saw it", "b"]
    assert statuses() == ["failed", "complete"]


@pytest.mark.parametrize("place", [0, 1], ids=["before", "behind"])
async def test_a_model_that_is_asked_again(
    place: int, ask: Any, manager: SessionManager, model: Fragile, config: RunnableConfig,
    log: Log, statuses: Statuses,
) -> None:  # fmt: skip
    middleware: list[Any] = [SessionMiddleware(manager)]
    middleware.insert(place, ModelRetryMiddleware(max_retries=1, initial_delay=0))
    model.failures.append(ConnectionError("down"))
    await ask(create_agent(model, middleware=middleware), "a", config)
    assert (log(), statuses()) == ([("human", "a"), ("ai", "about a")], ["complete"])


class Arrays:
    """As of numpy: no comparison tells of two whether they are equal."""

    def __eq__(self, other: object) -> Any:
        return Unclear()

    __ne__ = __eq__
    __hash__ = None  # type: ignore[assignment]


class Unclear:
    def __bool__(self) -> bool:
        raise ValueError("the truth value is ambiguous")


ARTIFACTS = {
    "an object in a dict": {"at": datetime(2026, 1, 1, tzinfo=UTC)},
    "an object": object(),
    "an array": Arrays(),
    "half of a character": "\ud800",
}


@pytest.fixture(params=ARTIFACTS.values(), ids=list(ARTIFACTS))
def artifact(request: pytest.FixtureRequest) -> Any:
    return request.param


def paying(build: Any, artifact: Any, **options: Any) -> Any:
    """An agent with a tool that leaves an artifact."""

    @tool(response_format="content_and_artifact")
    def pay() -> tuple[str, Any]:
        """Pay."""
        return "a secret was paid", artifact

    return build(tools=[pay, fall], **options)


async def test_a_result_is_stored_without_an_artifact_that_cannot_be(
    artifact: Any, ask: Any, build: Any, config: RunnableConfig, log: Log, statuses: Statuses,
    manager: SessionManager, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    output = await ask(paying(build, artifact), "use pay", config)
    assert [text for _, text in log()] == [
        "use pay", "", "a secret was paid", "about a secret was paid"
    ]  # fmt: skip
    assert statuses() == ["complete"]
    assert output["messages"][2].artifact is artifact
    assert SessionChatMessageHistory("chat", manager, user_id="ann").messages[2].artifact is None
    (warning,) = caplog.messages
    for part in ("'chat'", "'pay'", "artifact"):
        assert part in warning


async def test_nor_is_the_artifact_lost_where_a_middleware_changes_the_result(
    artifact: Any, build: Any, redacting: SessionManager, config: RunnableConfig
) -> None:
    output = paying(build, artifact).invoke({"messages": "use pay"}, config)
    assert output["messages"][2].text == "a *** was paid"
    assert output["messages"][2].artifact is artifact


async def test_a_thread_with_such_a_result_goes_on_after_a_call_that_failed(
    ask: Any, build: Any, config: RunnableConfig, statuses: Statuses
) -> None:
    artifact = ARTIFACTS["an object in a dict"]
    agent = paying(build, artifact, checkpointer=InMemorySaver())
    config["configurable"]["thread_id"] = "t"
    await ask(agent, "use pay", config)
    with pytest.raises(LookupError):
        await ask(agent, "use fall", config)
    output = await ask(agent, "b", config)
    assert statuses() == ["complete", "failed", "complete"]
    assert output["messages"][2].artifact == artifact


async def test_an_artifact_that_can_be_stored_is(
    ask: Any, build: Any, config: RunnableConfig, manager: SessionManager,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    await ask(paying(build, {"sum": (100, "EUR")}), "use pay", config)
    stored = SessionChatMessageHistory("chat", manager, user_id="ann").messages[2]
    assert stored.artifact == {"sum": (100, "EUR")}
    assert caplog.messages == []


async def test_whatever_else_cannot_be_stored_of_a_result_is_told(
    ask: Any, build: Any, config: RunnableConfig, statuses: Statuses
) -> None:
    @tool("pay")
    def pay(call: Annotated[str, InjectedToolCallId]) -> ToolMessage:
        """Pay."""
        more = {"at": object()}
        return ToolMessage("paid", tool_call_id=call, additional_kwargs=more)

    with pytest.raises(InvalidInputError):
        await ask(build(tools=[pay]), "use pay", config)
    assert statuses() == ["failed"]


async def test_a_tool_that_raises_beside_one_that_does_not(
    ask: Any, build: Any, model: Fragile, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    looked = threading.Event()

    @tool("look")
    def look_first() -> str:
        """Look."""
        looked.set()
        return "saw it"

    @tool("fall")
    def fall_then() -> str:
        """Fall."""
        assert looked.wait(10)
        raise LookupError("fell")

    agent = build(tools=[look_first, fall_then])
    with pytest.raises(LookupError):
        await ask(agent, "use look fall", config)
    assert statuses() == ["failed"]
    assert [text for _, text in log()][:2] == ["use look fall", ""]
    await ask(agent, "b", config)
    kinds = [message.type for message in model.seen[-1]]
    assert kinds == ["human", "ai", "tool", "tool", "human"]


def test_a_tool_that_takes_longer_than_one_that_raises_is_not_lost(
    build: Any, config: RunnableConfig, log: Log, model: Fragile
) -> None:
    fell = threading.Event()

    @tool("look")
    def look_on() -> str:
        """Look."""
        assert fell.wait(10)
        return "saw it"

    @tool("fall")
    def fall_first() -> str:
        """Fall."""
        fell.set()
        raise LookupError("fell")

    agent = build(tools=[look_on, fall_first])
    with pytest.raises(LookupError):
        agent.invoke({"messages": "use look fall"}, config)
    assert [text for _, text in log()] == ["use look fall", "", "saw it"]
    agent.invoke({"messages": "b"}, config)
    results = [str(message.text) for message in model.seen[-1] if message.type == "tool"]
    assert results[0] == "saw it"
    assert "No result" in results[1]


async def test_a_tool_that_is_cancelled(
    build: Any, model: Fragile, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    inside = asyncio.Event()

    @tool("wait")
    async def wait() -> str:
        """Wait."""
        inside.set()
        await asyncio.Event().wait()
        return "never"

    agent = build(tools=[wait])
    running = asyncio.create_task(agent.ainvoke({"messages": "use wait"}, config))
    await inside.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [text for _, text in log()] == ["use wait", ""]
    assert statuses() == ["cancelled"]
    await agent.ainvoke({"messages": "b"}, config)
    assert "No result" in str(model.seen[-1][2].text)
    assert [text for _, text in log()] == ["use wait", "", "b", "about b"]


class Slow(ISessionMiddleware):
    """Takes its time over a tool's result."""

    def __init__(self) -> None:
        self.inside, self.go = asyncio.Event(), asyncio.Event()

    async def process_outgoing_message(
        self, session: ISession, message: SessionMessage
    ) -> SessionMessage:
        if message.role.value == "tool":
            self.inside.set()
            await self.go.wait()
        return message

    async def process_incoming_message(
        self, session: ISession, message: SessionMessage
    ) -> SessionMessage:
        return message


async def test_a_result_that_is_being_stored_when_the_run_is_cancelled(
    build: Any, manager: SessionManager, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    slow = Slow()
    manager.add_global_middleware(slow)
    running = asyncio.create_task(build().ainvoke({"messages": "use look"}, config))
    await slow.inside.wait()
    running.cancel()
    asyncio.get_running_loop().call_soon(slow.go.set)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [text for _, text in log()] == ["use look", "", "saw it"]
    assert statuses() == ["cancelled"]


async def test_a_run_that_is_cancelled_while_it_waits_for_its_turn(
    build: Any, manager: SessionManager, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    session = await manager.get_or_create_session("chat", "ann")
    outside = contextvars.copy_context()
    async with await session.begin_turn("first"):
        line = manager.core.locks.queue._lines[session.ref]
        running = asyncio.create_task(build().ainvoke({"messages": "a"}, config), context=outside)
        async with asyncio.timeout(10):
            while not line.places:  # noqa: ASYNC110
                await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert (log(), statuses()) == ([("human", "first")], ["complete"])


# Streams


async def pieces(
    way: str, agent: Any, text: str, config: Any, **options: Any
) -> AsyncIterator[Any]:
    """The stream in one way or the other, closed as soon as its reader stops."""
    if way == "stream":
        stream = agent.stream({"messages": text}, config, **options)
        try:
            for piece in stream:
                yield piece
        finally:
            stream.close()
    else:
        astream = agent.astream({"messages": text}, config, **options)
        try:
            async for piece in astream:
                yield piece
        finally:
            await astream.aclose()


@pytest.mark.parametrize("way", ["stream", "astream"])
@pytest.mark.parametrize(
    ("after", "told"),
    [
        ("before_agent", []),
        ("model", ["use look", ""]),
        ("tools", ["use look", "", "saw it"]),
    ],
)
async def test_a_stream_that_is_broken_off_between_two_steps(
    way: str, after: str, told: list[str], build: Any, model: Fragile, config: RunnableConfig,
    log: Log, statuses: Statuses,
) -> None:  # fmt: skip
    agent = build()
    stream = pieces(way, agent, "use look", config)
    async for piece in stream:
        if next(iter(piece)).endswith(after):
            break
    await stream.aclose()
    # An async graph may have gone on by one step meanwhile.
    assert [text for _, text in log()][: len(told)] == told
    assert set(statuses()) <= {"cancelled"}
    await agent.ainvoke({"messages": "b"}, config)
    assert [text for _, text in log()][-2:] == ["b", "about b"]
    assert statuses()[-1] == "complete"


@pytest.mark.parametrize("in_blocks", [False, True])
@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_a_stream_that_is_broken_off_within_an_answer_keeps_what_was_shown(
    way: str, in_blocks: bool, build: Any, model: Fragile, config: RunnableConfig, log: Log,
    statuses: Statuses,
) -> None:  # fmt: skip
    """Claude with tools and OpenAI's Responses stream blocks, and not a string."""
    model.in_blocks = in_blocks
    shown = ""
    stream = pieces(way, build(), "one two three", config, stream_mode="messages")
    async for chunk, _ in stream:
        shown += chunk.text
        if "two" in shown:
            break
    await stream.aclose()
    assert shown == "about one two "
    # What was on its way to the reader may be there as well.
    (human, answer) = log()
    assert (human, answer[0]) == (("human", "one two three"), "ai")
    assert answer[1].startswith(shown)
    assert statuses() in (["cancelled"], ["complete"])


@pytest.mark.parametrize("in_blocks", [False, True])
@pytest.mark.parametrize("way", ["stream", "astream"])
async def test_a_model_that_breaks_off_within_an_answer(
    way: str, in_blocks: bool, build: Any, model: Fragile, config: RunnableConfig, log: Log,
    statuses: Statuses,
) -> None:  # fmt: skip
    model.in_blocks = in_blocks
    with pytest.raises(ConnectionError):
        async for _ in pieces(way, build(), "one break two", config, stream_mode="messages"):
            pass
    assert log() == [("human", "one break two"), ("ai", "about one ")]
    assert statuses() == ["failed"]


def test_a_stream_that_nobody_holds_any_more(
    build: Any, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    agent = build()
    stream = agent.stream({"messages": "use look"}, config)
    next(stream)
    next(stream)
    del stream
    assert statuses() == ["cancelled"]
    agent.invoke({"messages": "b"}, config)
    assert [text for _, text in log()] == ["use look", "", "b", "about b"]


# Errors that no hook is told of


class Faulty(AgentMiddleware):
    """Fails once the model has answered."""

    def after_model(self, state: Any, runtime: Any) -> None:
        raise ZeroDivisionError

    async def aafter_model(self, state: Any, runtime: Any) -> None:
        raise ZeroDivisionError


async def test_another_middlewares_error(
    ask: Any, build: Any, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    with pytest.raises(ZeroDivisionError) as kept:
        await ask(build(Faulty()), "a", config)
    assert (log(), statuses()) == ([("human", "a"), ("ai", "about a")], ["failed"])
    await ask(build(), "b", config)
    assert statuses() == ["failed", "complete"]
    assert kept.value.__traceback__ is not None, "whoever keeps the error keeps no session busy"


async def test_too_many_steps(
    ask: Any, build: Any, config: RunnableConfig, statuses: Statuses, log: Log
) -> None:
    with pytest.raises(GraphRecursionError):
        await ask(build(), "use look", {**config, "recursion_limit": 3})
    assert [text for _, text in log()] == ["use look", "", "saw it"]
    assert statuses() == ["failed"]


async def test_a_thread_that_goes_on_after_a_failure(
    ask: Any, build: Any, model: Fragile, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    agent = build(checkpointer=InMemorySaver())
    config["configurable"]["thread_id"] = "t"
    model.failures.append(ConnectionError("down"))
    with pytest.raises(ConnectionError):
        await ask(agent, "a", config)
    await agent.ainvoke(None, config)
    assert [text for _, text in log()] == ["a", "about a"]
    assert statuses() == ["complete"], "the turn is tried again"


async def test_a_thread_with_a_call_that_failed_takes_a_new_message(
    ask: Any, build: Any, model: Fragile, config: RunnableConfig, log: Log
) -> None:
    agent = build(checkpointer=InMemorySaver())
    config["configurable"]["thread_id"] = "t"
    with pytest.raises(LookupError):
        await ask(agent, "use fall", config)
    await ask(agent, "b", config)
    assert "No result" in str(model.seen[-1][2].text)
    assert [text for _, text in log()] == ["use fall", "", "b", "about b"]


PROGRAM = """
import os, sys
sys.path[:0] = {path!r}
from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_langswarm import SessionMiddleware
from langswarm_session import create_session_manager

class Model(GenericFakeChatModel):
    def bind_tools(self, tools, **kwargs):
        return self

@tool
def look() -> str:
    "Look."
    return "saw it"

@tool
def die() -> str:
    "Die."
    os._exit(7)

calls = [[{{"name": "look", "args": {{}}, "id": "1"}}], [{{"name": "die", "args": {{}}, "id": "2"}}]]
model = Model(messages=iter([AIMessage("", tool_calls=call) for call in calls]))
manager = create_session_manager("sqlite", {{"db_path": {db_path!r}}})
agent = create_agent(model, [look, die], middleware=[SessionMiddleware(manager)])
config = {{"configurable": {{"session_id": "chat"}}}}
agent.invoke({{"messages": "go"}}, config)
"""


def test_a_process_that_is_killed_within_a_tool(
    db_path: str, model: Fragile, config: RunnableConfig
) -> None:
    program = textwrap.dedent(PROGRAM).format(path=sys.path, db_path=db_path)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=100, check=False,
        env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 7, done.stderr.decode()
    manager = create_session_manager("sqlite", {"db_path": db_path})
    agent = create_agent(model, [look], middleware=[SessionMiddleware(manager)])
    output = agent.invoke({"messages": "b"}, {"configurable": {"session_id": "chat"}})
    told = [(message.type, str(message.text)) for message in output["messages"]]
    assert told == [
        ("human", "go"), ("ai", ""), ("tool", "saw it"), ("ai", ""), ("human", "b"), ("ai", "about b")
    ]  # fmt: skip
    assert "No result" in str(model.seen[0][4].text)

    async def statuses() -> list[str]:
        session = await manager.get_session("chat")
        found = [turn.status.value for turn in await session.get_turns()]
        await manager.close()
        return found

    assert run(statuses()) == ["failed", "complete"]
