"""How the turns of chains and agents end when nobody reads on, or somebody stops them."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import anyio
import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models.fake_chat_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableGenerator, RunnableLambda
from langchain_langswarm import RunnableWithSession, SessionMiddleware

from langswarm_session import SessionManager, TurnCancelledError

CONFIG: Any = {"configurable": {"session_id": "chat"}}
LONG = "one two three four five six seven eight nine ten " * 200


def chain(manager: SessionManager) -> Callable[[], AsyncIterator[str]]:
    made = RunnableWithSession(FakeListChatModel(responses=[LONG], sleep=0.001), manager)

    async def stream() -> AsyncIterator[str]:
        async for chunk in made.astream("Count.", CONFIG):
            yield str(chunk.content)

    return stream


def agent(manager: SessionManager) -> Callable[[], AsyncIterator[str]]:
    model = FakeListChatModel(responses=[LONG], sleep=0.001)
    made = create_agent(model, middleware=[SessionMiddleware(manager)])

    async def stream() -> AsyncIterator[str]:
        given: Any = {"messages": [("user", "Count.")]}
        async for chunk, _ in made.astream(given, CONFIG, stream_mode="messages"):
            yield str(chunk.content)

    return stream


MAKERS = [chain, agent]


async def kept(manager: SessionManager) -> tuple[list[str], str]:
    """How the turns stand, and what is kept of the answer; waits until none is open."""
    session = await manager.get_session("chat")
    statuses = ["open"]
    async with asyncio.timeout(60):
        while "open" in statuses:
            await asyncio.sleep(0.01)
            statuses = [turn.status.value for turn in await session.get_turns()]
    answers = [each.text for each in await session.get_messages() if each.role == "assistant"]
    return statuses, "".join(answers)


async def reading(stream: AsyncIterator[str], seen: list[str], ready: asyncio.Event) -> None:
    async for text in stream:
        seen.append(text)
        if len(seen) == 5:
            ready.set()


async def in_scope(stream: AsyncIterator[str], seen: list[str]) -> None:
    ready = asyncio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(reading, stream, seen, ready)
        await ready.wait()
        group.cancel_scope.cancel()


async def twice(stream: AsyncIterator[str], seen: list[str]) -> None:
    ready = asyncio.Event()
    task = asyncio.create_task(reading(stream, seen, ready))
    await ready.wait()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([task])


async def in_response(stream: AsyncIterator[str], seen: list[str]) -> None:
    """As Starlette's server ends a response whose client went away."""
    responses = pytest.importorskip("starlette.responses")
    gone = asyncio.Event()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and message.get("body"):
            seen.append(message["body"].decode())
            if len(seen) == 5:
                gone.set()

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    scope = {"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}}
    await responses.StreamingResponse(stream)(scope, receive, send)


@pytest.mark.parametrize("way", [in_scope, twice, in_response])
@pytest.mark.parametrize("make", MAKERS)
async def test_what_was_shown_is_kept_when_the_reader_goes(
    manager: SessionManager, make: Any, way: Any
) -> None:
    seen: list[str] = []
    await way(make(manager)(), seen)
    statuses, answer = await kept(manager)
    assert statuses == ["cancelled"]
    assert answer.startswith("".join(seen))


@pytest.mark.filterwarnings(
    "ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("make", MAKERS)
async def test_what_was_shown_is_kept_when_its_loop_is_closed(
    manager: SessionManager, make: Any
) -> None:
    """As Streamlit's ``st.write_stream`` reads in a script that is run again."""

    def script() -> list[str]:
        loop = asyncio.new_event_loop()
        stream = make(manager)()
        seen = [loop.run_until_complete(anext(stream)) for _ in range(5)]
        loop.close()
        return seen

    seen = await asyncio.to_thread(script)
    statuses, answer = await kept(manager)
    assert statuses == ["cancelled"]
    assert answer.startswith("".join(seen))
    gc.collect()


@pytest.mark.parametrize("make", MAKERS)
async def test_cancelling_ends_a_stream(manager: SessionManager, make: Any) -> None:
    seen: list[str] = []
    ready = asyncio.Event()
    task = asyncio.create_task(reading(make(manager)(), seen, ready))
    await ready.wait()
    assert await (await manager.get_session("chat")).cancel() is True
    statuses, answer = await kept(manager)
    assert statuses == ["cancelled"]
    assert answer.startswith("".join(seen))
    with pytest.raises(TurnCancelledError):
        await task
    assert task.cancelling() == 0


@pytest.mark.parametrize("make", MAKERS)
async def test_cancelling_ends_a_stream_whose_reader_is_busy(
    manager: SessionManager, make: Any
) -> None:
    async with aclosing(make(manager)()) as stream:  # type: ignore[type-var]
        seen = [await anext(stream) for _ in range(5)]
        assert await (await manager.get_session("chat")).cancel() is True
        statuses, answer = await kept(manager)
        assert statuses == ["cancelled"]
        assert answer.startswith("".join(seen))
        with pytest.raises(TurnCancelledError):
            async for _ in stream:
                pass


@pytest.mark.parametrize("make", MAKERS)
async def test_closing_the_manager_ends_a_stream(manager: SessionManager, make: Any) -> None:
    seen: list[str] = []
    ready = asyncio.Event()
    task = asyncio.create_task(reading(make(manager)(), seen, ready))
    await ready.wait()
    await manager.close()
    statuses, answer = await kept(SessionManager(manager.storage))
    assert statuses == ["cancelled"]
    assert answer.startswith("".join(seen))
    with pytest.raises(TurnCancelledError):
        await task


class Held:
    """An answer that is waited for."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.ended = 0

    async def answer(self, _: Any) -> AIMessage:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended += 1
        raise AssertionError


async def test_cancelling_ends_a_chain_that_is_awaited(manager: SessionManager) -> None:
    held = Held()
    memory = RunnableWithSession(RunnableLambda(held.answer), manager)
    task = asyncio.create_task(memory.ainvoke("x", CONFIG))
    await held.begun.wait()
    assert await (await manager.get_session("chat")).cancel() is True
    with pytest.raises(TurnCancelledError):
        await task
    assert held.ended == 1
    assert await kept(manager) == (["cancelled"], "")


class HeldModel(AgentMiddleware[Any, Any]):
    """Holds the model's call in an agent."""

    def __init__(self) -> None:
        super().__init__()
        self.held = Held()

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await self.held.answer(request)


async def test_cancelling_ends_an_agent_that_is_awaited(manager: SessionManager) -> None:
    model = HeldModel()
    made = create_agent(
        FakeListChatModel(responses=["x"]), middleware=[SessionMiddleware(manager), model]
    )
    given: Any = {"messages": [("user", "x")]}
    task = asyncio.create_task(made.ainvoke(given, CONFIG))
    await model.held.begun.wait()
    assert await (await manager.get_session("chat")).cancel() is True
    with pytest.raises(TurnCancelledError):
        await task
    assert model.held.ended == 1
    assert await kept(manager) == (["cancelled"], "")


async def test_cancelling_ends_an_agents_tool(manager: SessionManager) -> None:
    held = Held()

    async def look() -> str:
        """Look."""
        return str(await held.answer(None))

    class Calling(GenericFakeChatModel):
        def bind_tools(self, tools: Any, **options: Any) -> Any:
            return self

    call = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}])
    made = create_agent(
        Calling(messages=iter([call])), [look], middleware=[SessionMiddleware(manager)]
    )
    given: Any = {"messages": [("user", "x")]}
    task = asyncio.create_task(made.ainvoke(given, CONFIG))
    await held.begun.wait()
    assert await (await manager.get_session("chat")).cancel() is True
    with pytest.raises(TurnCancelledError):
        await task
    assert held.ended == 1
    session = await manager.get_session("chat")
    assert [turn.status for turn in await session.get_turns()] == ["cancelled"]
    assert [len(message.blocks) for message in await session.get_messages()] == [1, 1]


def test_cancelling_breaks_a_sync_stream_off_at_its_next_piece(manager: SessionManager) -> None:
    def pieces(_: Any) -> Any:
        for text in ("one ", "two ", "three "):
            yield AIMessageChunk(text)
            if text == "one ":
                began.set()
                go_on.wait()

    began, go_on = threading.Event(), threading.Event()
    memory = RunnableWithSession(RunnableGenerator(pieces), manager)
    seen: list[str] = []
    errors: list[BaseException] = []

    def read() -> None:
        try:
            seen.extend(str(chunk.content) for chunk in memory.stream("x", CONFIG))
        except TurnCancelledError as error:
            errors.append(error)

    async def stop() -> None:
        assert await (await manager.get_session("chat")).cancel() is True

    thread = threading.Thread(target=read)
    thread.start()
    began.wait()
    asyncio.run(stop())
    statuses, answer = asyncio.run(kept(manager))
    go_on.set()
    thread.join()
    assert statuses == ["cancelled"]
    assert answer == "one "
    assert len(errors) == 1
