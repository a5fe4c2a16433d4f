"""A chain with the memory of a session, called from many places at once and within itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import (
    ConfigurableFieldSpec,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
)
from langchain_langswarm import RunnableWithSession, SessionChatMessageHistory

from langswarm_session import NestedTurnError, SessionBusyError, SessionManager

Remember = Callable[..., RunnableWithSession]
Call = Callable[..., Any]
MakeManager = Callable[..., SessionManager]
Log = Callable[..., list[tuple[str, str]]]
Statuses = Callable[[], list[str]]

PATIENCE = 30
"""How long a thread waits for another before the test fails, in seconds."""


@pytest.fixture
def one_after_the_other(log: Log) -> Callable[[int], None]:
    """Checks that so many turns lost nothing, and that each saw those before it."""

    def check(count: int) -> None:
        messages = log()
        assert [kind for kind, _ in messages] == ["human", "ai"] * count
        asked = [text for kind, text in messages if kind == "human"]
        assert len(set(asked)) == count
        assert [text for kind, text in messages if kind == "ai"] == [
            f"{2 * place + 1}:{text}" for place, text in enumerate(asked)
        ]

    return check


# Many at once


def test_threads(
    memory: RunnableWithSession, config: RunnableConfig, one_after_the_other: Callable[[int], None]
) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: memory.invoke(f"{number}", config), range(32)))
    one_after_the_other(32)


async def test_tasks(
    memory: RunnableWithSession, config: RunnableConfig, one_after_the_other: Callable[[int], None]
) -> None:
    await asyncio.gather(*(memory.ainvoke(f"{number}", config) for number in range(32)))
    one_after_the_other(32)


async def test_streams(
    memory: RunnableWithSession, config: RunnableConfig, one_after_the_other: Callable[[int], None]
) -> None:
    async def consume(text: str) -> None:
        async for _ in memory.astream(text, config):
            pass

    await asyncio.gather(*(consume(f"{number}") for number in range(16)))
    one_after_the_other(16)


def test_two_loops_and_a_thread(
    memory: RunnableWithSession, config: RunnableConfig, one_after_the_other: Callable[[int], None]
) -> None:
    barrier = threading.Barrier(3)

    async def tasks(name: str) -> None:
        barrier.wait(PATIENCE)
        await asyncio.gather(*(memory.ainvoke(f"{name}{number}", config) for number in range(8)))

    def calls() -> None:
        barrier.wait(PATIENCE)
        for number in range(8):
            memory.invoke(f"c{number}", config)

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(asyncio.run, tasks(name)) for name in "ab"]
        done.append(pool.submit(calls))
        for each in done:
            each.result()
    one_after_the_other(24)


def test_two_managers_on_one_storage(
    chain: Any,
    make_manager: MakeManager,
    config: RunnableConfig,
    one_after_the_other: Callable[[int], None],
) -> None:
    memories = [RunnableWithSession(RunnableLambda(chain), make_manager()) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: memories[number % 2].invoke(f"{number}", config), range(16)))
    one_after_the_other(16)


async def test_batches_on_one_session(
    memory: RunnableWithSession, config: RunnableConfig, one_after_the_other: Callable[[int], None]
) -> None:
    outputs = memory.batch([f"a{number}" for number in range(8)], config)
    assert [output.text.partition(":")[2] for output in outputs] == [f"a{n}" for n in range(8)]
    await memory.abatch([f"b{number}" for number in range(8)], config)
    one_after_the_other(16)


def test_a_batch_on_several_sessions_runs_side_by_side(remember: Remember, log: Log) -> None:
    barrier = threading.Barrier(4)

    def chain(_: Any) -> str:
        barrier.wait(PATIENCE)
        return "together"

    sessions = [f"s{number}" for number in range(4)]
    configs: list[RunnableConfig] = [{"configurable": {"session_id": each}} for each in sessions]
    assert remember(chain).batch(sessions, configs) == ["together"] * 4
    for each in sessions:
        assert log(each) == [("human", each), ("ai", "together")]


async def test_a_failure_among_many_is_its_own(
    remember: Remember, config: RunnableConfig, statuses: Statuses
) -> None:
    def chain(messages: list[Any]) -> str:
        if messages[-1].text == "3":
            raise ValueError("not 3")
        return "ok"

    outputs = await remember(chain).abatch(
        [f"{number}" for number in range(6)], config, return_exceptions=True
    )
    assert [str(output) for output in outputs] == ["ok"] * 3 + ["not 3"] + ["ok"] * 2
    assert sorted(statuses()) == ["complete"] * 5 + ["failed"]


# Waiting


async def test_a_second_call_waits_for_a_stream(
    memory: RunnableWithSession, remember: Remember, config: RunnableConfig, log: Log
) -> None:
    async def pieces(_: Any) -> Any:
        yield "a"
        yield "b"

    stream = remember(pieces).astream("hi", config)
    assert await anext(stream) == "a"
    second = asyncio.create_task(memory.ainvoke("again", config))
    assert [piece async for piece in stream] == ["b"]
    assert await second == AIMessage("3:again")
    assert log()[:2] == [("human", "hi"), ("ai", "ab")]


async def test_with_no_time_to_wait_a_second_call_is_refused(
    chain: Any, make_manager: MakeManager, config: RunnableConfig
) -> None:
    memory = RunnableWithSession(RunnableLambda(chain), make_manager(turn_wait=0))
    stream = memory.astream("hi", config)
    await anext(stream)
    for busy in (memory, RunnableWithSession(RunnableLambda(chain), make_manager(turn_wait=0))):
        with pytest.raises(SessionBusyError):
            await busy.ainvoke("again", config)
        with pytest.raises(SessionBusyError):
            busy.invoke("again", config)
    await stream.aclose()
    assert (await memory.ainvoke("again", config)).text.endswith(":again")


# In a running loop


async def test_sync_calls_and_tasks_share_a_loop(
    memory: RunnableWithSession, config: RunnableConfig, one_after_the_other: Callable[[int], None]
) -> None:
    async def sync(number: int) -> None:
        memory.invoke(f"sync {number}", config)

    await asyncio.gather(*(memory.ainvoke(f"{number}", config) for number in range(4)))
    await asyncio.gather(*(sync(number) for number in range(4)))
    await asyncio.gather(*(asyncio.to_thread(memory.invoke, f"t{n}", config) for n in range(4)))
    one_after_the_other(12)


# Within itself


def other(config: RunnableConfig) -> RunnableConfig:
    return {"configurable": {**config["configurable"], "session_id": "other"}}


def calls_by_invoke(inner: Any, config: RunnableConfig) -> Any:
    return lambda _: inner.invoke("inner", config)


def calls_by_stream(inner: Any, config: RunnableConfig) -> Any:
    return lambda _: list(inner.stream("inner", config))[-1]


def calls_by_batch(inner: Any, config: RunnableConfig) -> Any:
    return lambda _: inner.batch(["inner", "inner"], config)[0]


def calls_in_parallel(inner: Any, config: RunnableConfig) -> Any:
    def call(_: Any) -> Any:
        return inner.invoke("inner", config)

    # One of them: what the others begin after its failure is not within the call any more.
    return RunnableParallel(a=call, b=lambda _: "b") | (lambda answers: answers["a"])


def calls_by_ainvoke(inner: Any, config: RunnableConfig) -> Any:
    async def call(_: Any) -> Any:
        return await inner.ainvoke("inner", config)

    return call


def calls_in_a_task(inner: Any, config: RunnableConfig) -> Any:
    async def call(_: Any) -> Any:
        return await asyncio.create_task(inner.ainvoke("inner", config))

    return call


def calls_sync_from_async(inner: Any, config: RunnableConfig) -> Any:
    async def call(_: Any) -> Any:
        return inner.invoke("inner", config)

    return call


SYNC = [calls_by_invoke, calls_by_stream, calls_by_batch, calls_in_parallel]
ASYNC = [calls_by_ainvoke, calls_in_a_task, calls_sync_from_async, *SYNC]


def nested(make: Any, chain: Any, manager: SessionManager, config: RunnableConfig) -> Any:
    inner = RunnableWithSession(RunnableLambda(chain), manager)
    return RunnableWithSession(make(inner, config), manager)


@pytest.mark.parametrize("make", SYNC, ids=lambda make: make.__name__)
@pytest.mark.parametrize("way", ["invoke", "stream", "batch"])
def test_a_call_inside_a_call_of_the_same_session_is_refused(
    make: Any,
    way: str,
    ways: dict[str, Call],
    chain: Any,
    manager: SessionManager,
    memory: RunnableWithSession,
    config: RunnableConfig,
    statuses: Statuses,
) -> None:
    outer = nested(make, chain, manager, config)
    with pytest.raises(NestedTurnError, match="another session"):
        asyncio.run(ways[way](outer, "outer", config))
    assert chain.seen == []
    assert statuses() == ["failed"]
    memory.invoke("again", config)
    assert statuses() == ["failed", "complete"]


@pytest.mark.parametrize("make", ASYNC, ids=lambda make: make.__name__)
@pytest.mark.parametrize("way", ["ainvoke", "astream", "abatch"])
async def test_a_call_inside_a_call_of_the_same_session_is_refused_async(
    make: Any,
    way: str,
    ways: dict[str, Call],
    chain: Any,
    manager: SessionManager,
    config: RunnableConfig,
    statuses: Statuses,
) -> None:
    outer = nested(make, chain, manager, config)
    with pytest.raises(NestedTurnError, match="another session"):
        await ways[way](outer, "outer", config)
    assert chain.seen == []
    assert statuses() == ["failed"]


@pytest.mark.parametrize("make", SYNC, ids=lambda make: make.__name__)
def test_a_call_inside_a_call_of_another_session_works(
    make: Any, chain: Any, manager: SessionManager, config: RunnableConfig, log: Log
) -> None:
    outer = nested(make, chain, manager, other(config))
    answer = outer.invoke("outer", config)
    assert answer.text.endswith(":inner")
    assert log() == [("human", "outer"), ("ai", answer.text)]
    assert log("other")[:2] == [("human", "inner"), ("ai", "1:inner")]


@pytest.mark.parametrize("make", ASYNC, ids=lambda make: make.__name__)
async def test_a_call_inside_a_call_of_another_session_works_async(
    make: Any, chain: Any, manager: SessionManager, config: RunnableConfig, log: Log
) -> None:
    outer = nested(make, chain, manager, other(config))
    answer = await outer.ainvoke("outer", config)
    assert log() == [("human", "outer"), ("ai", answer.text)]
    assert log("other")[:2] == [("human", "inner"), ("ai", "1:inner")]


async def test_a_step_of_the_same_session_is_refused(
    memory: RunnableWithSession, manager: SessionManager, config: RunnableConfig
) -> None:
    outer = RunnableWithSession(RunnableLambda(lambda _: "inner") | memory, manager)
    with pytest.raises(NestedTurnError):
        outer.invoke("outer", config)
    with pytest.raises(NestedTurnError):
        await outer.ainvoke("outer", config)


async def test_a_step_of_another_session_has_its_own_key(
    chain: Any, manager: SessionManager, log: Log
) -> None:
    spec = ConfigurableFieldSpec(id="topic", annotation=str)
    inner = RunnableWithSession(RunnableLambda(chain), manager, history_factory_config=[spec])
    outer = RunnableWithSession(RunnableLambda(lambda _: "inner") | inner, manager)
    config: RunnableConfig = {"configurable": {"session_id": "chat", "topic": "other"}}
    assert outer.invoke("outer", config) == AIMessage("1:inner")
    assert await outer.ainvoke("outer", config) == AIMessage("3:inner")
    assert log() == [("human", "outer"), ("ai", "1:inner"), ("human", "outer"), ("ai", "3:inner")]
    assert len(log("other")) == 4


def test_a_chain_may_go_on_without_the_call_that_was_refused(
    remember: Remember, memory: RunnableWithSession, config: RunnableConfig, log: Log
) -> None:
    def chain(_: Any) -> str:
        with pytest.raises(NestedTurnError):
            memory.invoke("inner", config)
        return "alone"

    assert remember(chain).invoke("outer", config) == "alone"
    assert log() == [("human", "outer"), ("ai", "alone")]


async def test_what_a_chain_writes_to_its_own_history_is_of_its_turn(
    remember: Remember,
    manager: SessionManager,
    config: RunnableConfig,
    log: Log,
    statuses: Statuses,
) -> None:
    history = SessionChatMessageHistory("chat", manager, user_id="ann")

    def chain(_: Any) -> str:
        history.add_ai_message("let me see")
        return f"{len(history.messages)}"

    async def achain(_: Any) -> str:
        await history.aadd_messages([HumanMessage("aside")])
        return f"{len(await history.aget_messages())}"

    assert remember(chain).invoke("hi", config) == "2"
    assert await remember(achain).ainvoke("again", config) == "5"
    assert [text for _, text in log()] == ["hi", "let me see", "2", "again", "aside", "5"]
    assert statuses() == ["complete", "complete"]


def test_the_callers_context_is_its_own_again_afterwards(
    memory: RunnableWithSession, config: RunnableConfig
) -> None:
    list(memory.stream("hi", config))
    stream = memory.stream("again", config)
    next(stream)
    stream.close()
    assert memory.invoke("so?", config).text.endswith(":so?"), "not a call inside a call"
