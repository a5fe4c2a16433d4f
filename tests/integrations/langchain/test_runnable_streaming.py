"""A chain with the memory of a session, streamed: whole, broken off, and held back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_langswarm import RunnableWithSession, SessionChatMessageHistory

from langswarm_session import InvalidInputError, SessionManager

Log = Callable[..., list[tuple[str, str]]]
Statuses = Callable[[], list[str]]
Streaming = Callable[..., RunnableWithSession]

HELD = [("human", "hi"), ("ai", "one two")]


class ChainError(Exception):
    pass


def words(inputs: Iterator[Any]) -> Iterator[AIMessageChunk]:
    """A chain that answers in three pieces."""
    list(inputs)
    for word in ("one ", "two ", "three"):
        yield AIMessageChunk(word)


async def awords(inputs: AsyncIterator[Any]) -> AsyncIterator[AIMessageChunk]:
    async for _ in inputs:
        pass
    for chunk in words(iter(())):
        yield chunk


def silent(inputs: Iterator[Any]) -> Iterator[str]:
    """A chain that says nothing."""
    list(inputs)
    yield from ()


def broken(inputs: Iterator[Any]) -> Iterator[AIMessageChunk]:
    """A chain that fails after its second piece."""
    chunks = words(inputs)
    yield next(chunks)
    yield next(chunks)
    raise ChainError("out of order")


async def abroken(inputs: AsyncIterator[Any]) -> AsyncIterator[AIMessageChunk]:
    for chunk in broken(iter([value async for value in inputs])):
        yield chunk


@pytest.fixture
def streaming(manager: SessionManager) -> Streaming:
    """Gives generators, a sync and an async one, the memory of a session."""

    def streaming(sync: Any = words, asynchronous: Any = awords, **keys: Any) -> Any:
        return RunnableWithSession(RunnableGenerator(sync, asynchronous), manager, **keys)

    return streaming


@pytest.fixture
def memory(streaming: Streaming) -> RunnableWithSession:
    return streaming()


# Whole streams


def test_pieces_come_as_they_are_and_are_stored_as_one_message(
    memory: RunnableWithSession, config: RunnableConfig, manager: SessionManager
) -> None:
    chunks = list(memory.stream("hi", config))
    assert chunks[:3] == list(words(iter(())))
    assert SessionChatMessageHistory("chat", manager, user_id="ann").messages == [
        HumanMessage("hi"),
        AIMessage("one two three"),
    ]


async def test_pieces_come_as_they_are_async(
    memory: RunnableWithSession, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    chunks = [chunk.text async for chunk in memory.astream("hi", config)]
    assert "".join(chunks) == "one two three"
    assert chunks[:3] == ["one ", "two ", "three"]
    assert log() == [("human", "hi"), ("ai", "one two three")]
    assert statuses() == ["complete"]


def test_a_piece_comes_before_the_next_is_made(
    streaming: Streaming, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    made: list[str] = []

    def chain(inputs: Iterator[Any]) -> Iterator[str]:
        list(inputs)
        for word in ("a", "b"):
            made.append(word)
            yield word

    stream = streaming(chain).stream("hi", config)
    assert next(stream) == "a"
    assert made == ["a"]
    assert (statuses(), log()) == (["open"], [("human", "hi")])
    assert "".join(stream) == "b"
    assert statuses() == ["complete"]


def test_dicts_are_added_up(manager: SessionManager, config: RunnableConfig, log: Log) -> None:
    chain: Runnable[Any, Any] = RunnableParallel(
        answer=RunnableGenerator(words) | StrOutputParser(), asked=RunnablePassthrough()
    )
    memory = RunnableWithSession(chain, manager, output_messages_key="answer")
    chunks = list(memory.stream("hi", config))
    assert [chunk["answer"] for chunk in chunks if chunk.get("answer")] == ["one ", "two ", "three"]
    assert log() == [("human", "hi"), ("ai", "one two three")]


def test_calls_in_pieces_are_stored_whole(
    streaming: Streaming, config: RunnableConfig, manager: SessionManager
) -> None:
    def chain(inputs: Iterator[Any]) -> Iterator[AIMessageChunk]:
        list(inputs)
        for name, args in (("look", '{"at": '), (None, '"sea"}')):
            piece = {"name": name, "args": args, "id": name and "c", "index": 0}
            yield AIMessageChunk("", tool_call_chunks=[piece])

    list(streaming(chain).stream("hi", config))
    (_, answer) = SessionChatMessageHistory("chat", manager, user_id="ann").messages
    call = {"name": "look", "args": {"at": "sea"}, "id": "c", "type": "tool_call"}
    assert answer == AIMessage("", tool_calls=[call])


async def test_a_models_pieces_are_stored_whole(
    manager: SessionManager, config: RunnableConfig, log: Log
) -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("one two three")]))
    memory = RunnableWithSession(model, manager)
    chunks = [chunk async for chunk in memory.astream("hi", config)]
    assert len(chunks) > 3
    assert log() == [("human", "hi"), ("ai", "one two three")]


async def test_an_input_in_pieces_is_one_message(
    memory: RunnableWithSession, config: RunnableConfig, log: Log
) -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "wea"
        yield "ther?"

    list(memory.transform(iter(["h", "i"]), config))
    _ = [chunk async for chunk in memory.atransform(pieces(), config)]
    assert [text for kind, text in log() if kind == "human"] == ["hi", "weather?"]


async def test_a_stream_goes_through_a_pipe(
    memory: RunnableWithSession, config: RunnableConfig, log: Log
) -> None:
    parsed = memory | StrOutputParser()
    assert "".join(parsed.stream("hi", config)) == "one two three"
    pieces = [piece async for piece in parsed.astream("again", config)]
    assert pieces[:3] == ["one ", "two ", "three"]
    assert len(log()) == 4


def test_a_stream_without_pieces_stores_no_answer(
    streaming: Streaming, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    assert list(streaming(silent).stream("hi", config)) == []
    assert (log(), statuses()) == ([("human", "hi")], ["complete"])


async def test_events_show_the_pieces(
    memory: RunnableWithSession, config: RunnableConfig, log: Log
) -> None:
    pieces = [
        event["data"]["chunk"].text
        async for event in memory.astream_events("hi", config)
        if event["event"] == "on_chain_stream" and event["name"] == "RunnableWithSession"
    ]
    assert "".join(pieces) == "one two three"
    assert log() == [("human", "hi"), ("ai", "one two three")]


# Broken streams


def test_a_closed_stream_leaves_a_cancelled_turn(
    memory: RunnableWithSession, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    stream = memory.stream("hi", config)
    assert [next(stream).text, next(stream).text] == ["one ", "two "]
    stream.close()
    assert statuses() == ["cancelled"]
    assert [(kind, text.strip()) for kind, text in log()] == HELD
    assert len(list(memory.stream("again", config))) >= 3, "the session is free"


async def test_a_closed_stream_leaves_a_cancelled_turn_async(
    memory: RunnableWithSession, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    stream = memory.astream("hi", config)
    assert [(await anext(stream)).text, (await anext(stream)).text] == ["one ", "two "]
    await stream.aclose()
    assert statuses() == ["cancelled"]
    assert [(kind, text.strip()) for kind, text in log()] == HELD
    await memory.ainvoke("again", config)
    assert statuses() == ["cancelled", "complete"]


def test_what_there_is_of_an_answer_is_kept_whatever_its_id(
    streaming: Streaming, config: RunnableConfig, log: Log
) -> None:
    def chain(inputs: Iterator[Any]) -> Iterator[AIMessageChunk]:
        list(inputs)
        yield AIMessageChunk("part", id="1")
        yield AIMessageChunk("ial", id="1")

    for _ in range(2):
        stream = streaming(chain).stream("hi", config)
        next(stream)
        stream.close()
    assert log() == [("human", "hi"), ("ai", "part")] * 2


def test_a_loop_that_is_left_leaves_a_cancelled_turn(
    memory: RunnableWithSession, config: RunnableConfig, statuses: Statuses
) -> None:
    for _ in memory.stream("hi", config):
        break
    memory.invoke("again", config)
    assert statuses() == ["cancelled", "complete"]


async def test_a_loop_that_is_left_leaves_a_cancelled_turn_async(
    memory: RunnableWithSession, config: RunnableConfig, statuses: Statuses
) -> None:
    async for _ in memory.astream("hi", config):
        break
    await memory.ainvoke("again", config)
    assert statuses() == ["cancelled", "complete"]


async def test_a_loop_over_a_pipe_that_is_left_leaves_a_cancelled_turn(
    memory: RunnableWithSession, config: RunnableConfig, statuses: Statuses
) -> None:
    parsed = memory | StrOutputParser()
    async for _ in parsed.astream("hi", config):
        break
    await parsed.ainvoke("again", config)
    assert statuses() == ["cancelled", "complete"]


def test_a_chain_that_breaks_leaves_a_failed_turn(
    streaming: Streaming,
    memory: RunnableWithSession,
    config: RunnableConfig,
    log: Log,
    statuses: Statuses,
) -> None:
    got: list[str] = []
    with pytest.raises(ChainError):
        got.extend(chunk.text for chunk in streaming(broken).stream("hi", config))
    assert got == ["one ", "two "]
    assert statuses() == ["failed"]
    assert [(kind, text.strip()) for kind, text in log()] == HELD
    memory.invoke("again", config)
    assert statuses() == ["failed", "complete"]


async def test_a_chain_that_breaks_leaves_a_failed_turn_async(
    streaming: Streaming, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    with pytest.raises(ChainError):
        _ = [chunk async for chunk in streaming(broken, abroken).astream("hi", config)]
    assert statuses() == ["failed"]
    assert [(kind, text.strip()) for kind, text in log()] == HELD


async def test_what_there_is_of_an_answer_says_so(
    streaming: Streaming, config: RunnableConfig, manager: SessionManager
) -> None:
    with pytest.raises(ChainError):
        list(streaming(broken).stream("hi", config))
    async for _ in streaming().astream("again", config):
        break
    await streaming().ainvoke("so?", config)
    messages = await (await manager.get_session("chat")).get_messages()
    assert [message.finish_reason for message in messages if message.role == "assistant"] == [
        "failed",
        "cancelled",
        None,
    ]


@pytest.mark.parametrize("way", ["astream", "ainvoke"])
async def test_a_cancelled_task_leaves_a_cancelled_turn(
    way: str, streaming: Streaming, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    started = asyncio.Event()

    async def waiting(inputs: AsyncIterator[Any]) -> AsyncIterator[AIMessageChunk]:
        yield AIMessageChunk("one ")
        started.set()
        await asyncio.Event().wait()

    async def consume() -> None:
        memory = streaming(words, waiting)
        if way == "ainvoke":
            await memory.ainvoke("hi", config)
        async for _ in memory.astream("hi", config):
            pass

    task = asyncio.create_task(consume())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert statuses() == ["cancelled"]
    assert log()[0] == ("human", "hi")
    assert log()[1:] == ([("ai", "one ")] if way == "astream" else [])
    await streaming().ainvoke("again", config)
    assert statuses() == ["cancelled", "complete"]


def test_a_stream_of_no_messages_fails_at_its_end(
    streaming: Streaming,
    memory: RunnableWithSession,
    config: RunnableConfig,
    statuses: Statuses,
    log: Log,
) -> None:
    def numbers(inputs: Iterator[Any]) -> Iterator[int]:
        yield from (1, 2)

    with pytest.raises(InvalidInputError, match="expected a string"):
        list(streaming(numbers).stream("hi", config))
    assert statuses() == ["failed"]
    assert log() == [("human", "hi"), ("ai", "3")]
    memory.invoke("again", config)
    assert statuses() == ["failed", "complete"]


# Streams that are held back


def test_a_held_stream_comes_in_one_piece_after_the_middleware(
    streaming: Streaming, redacting: SessionManager, config: RunnableConfig, log: Log
) -> None:
    def chain(inputs: Iterator[Any]) -> Iterator[str]:
        list(inputs)
        yield from ("sec", "ret")

    assert list(streaming(chain).stream("hi", config)) == ["***"]
    assert log() == [("human", "hi"), ("ai", "***")]


def test_a_held_stream_without_pieces_has_none(
    streaming: Streaming, redacting: SessionManager, config: RunnableConfig, statuses: Statuses
) -> None:
    assert list(streaming(silent).stream("hi", config)) == []
    assert statuses() == ["complete"]


async def test_a_held_stream_comes_in_one_piece_async(
    memory: RunnableWithSession, redacting: SessionManager, config: RunnableConfig
) -> None:
    (piece,) = [chunk async for chunk in memory.astream("hi", config)]
    assert piece.text == "one two three"


def test_a_repeated_stream_comes_in_one_piece(
    streaming: Streaming, memory: RunnableWithSession, log: Log
) -> None:
    config: RunnableConfig = {"configurable": {"session_id": "chat", "idempotency_key": "k1"}}
    assert len(list(memory.stream("hi", config))) >= 3
    (piece,) = streaming(broken).stream("hi", config)
    assert piece == AIMessage("one two three")
    assert len(log()) == 2


# What callbacks show of a chain that gives nothing yet


class Blocks(GenericFakeChatModel):
    """A model that streams its text in blocks, as Claude's does that has tools."""

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        for number, word in enumerate(("one ", "two ", "three")):
            block = {"type": "text", "text": word, "index": 0}
            last = "last" if number == 2 else None
            message = AIMessageChunk([block], id="run", chunk_position=last)
            yield ChatGenerationChunk(message=message)


class Words(GenericFakeChatModel):
    """A model that streams its text."""

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        for chunk in words(iter(())):
            yield ChatGenerationChunk(message=chunk)


async def shown_by_events(memory: Runnable[Any, Any], config: RunnableConfig) -> str:
    events = memory.astream_events("hi", config)
    shown = ""
    async with contextlib.aclosing(events):  # type: ignore[type-var]
        async for event in events:
            if event["event"] == "on_chat_model_stream":
                shown += event["data"]["chunk"].text
            if len(shown) > 4:
                return shown
    raise AssertionError("nothing was shown")


async def shown_by_graph(memory: Runnable[Any, Any], config: RunnableConfig) -> str:
    langgraph = pytest.importorskip("langgraph.graph")

    async def node(state: Any, config: RunnableConfig) -> dict[str, Any]:
        return {"messages": [await memory.ainvoke(state["messages"][-1].text, config)]}

    builder = langgraph.StateGraph(langgraph.MessagesState).add_node("node", node)
    graph = builder.add_edge(langgraph.START, "node").compile()
    shown = ""
    stream = graph.astream({"messages": "hi"}, config, stream_mode="messages")
    async with contextlib.aclosing(stream):
        async for chunk, _ in stream:
            shown += chunk.text
            if len(shown) > 4:
                return shown
    raise AssertionError("nothing was shown")


async def shown_by_callback(memory: Runnable[Any, Any], config: RunnableConfig) -> str:
    shown: list[str] = []
    enough = asyncio.Event()

    class Show(AsyncCallbackHandler):
        run_inline = True

        async def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
            if len(shown) == 2:
                enough.set()
                await asyncio.Event().wait()
            shown.append(chunk.message.text)

    call = asyncio.ensure_future(memory.ainvoke("hi", {**config, "callbacks": [Show()]}))
    async with asyncio.timeout(60):
        await enough.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    return "".join(shown)


@pytest.mark.parametrize("model", [Words, Blocks])
@pytest.mark.parametrize("show", [shown_by_events, shown_by_graph, shown_by_callback])
async def test_what_a_callback_has_shown_is_kept(
    show: Any, model: Any, manager: SessionManager, config: RunnableConfig, log: Log,
    statuses: Statuses,
) -> None:  # fmt: skip
    async def all_of_it(messages: Any, config: RunnableConfig) -> Any:
        chunks = [chunk async for chunk in asker.astream(messages, config)]
        return "".join(str(chunk.text) for chunk in chunks)

    asker = model(messages=iter(()))
    shown = await show(RunnableWithSession(RunnableLambda(all_of_it), manager), config)
    assert statuses() == ["cancelled"]
    (_, answer) = log()
    assert answer[0] == "ai"
    assert answer[1].startswith(shown), "the model may be ahead of its reader"
    assert "one two three".startswith(answer[1])


def test_tokens_that_nobody_is_shown_are_no_answer(
    manager: SessionManager, config: RunnableConfig, log: Log
) -> None:
    """A question that a chain has rewritten for its search, say."""

    def search(rewritten: AIMessage) -> str:
        raise ChainError(rewritten.text)

    chain = Words(messages=iter(())) | RunnableLambda(search)
    with pytest.raises(ChainError, match="one two three"):
        list(RunnableWithSession(chain, manager).stream("hi", config))
    assert log() == [("human", "hi")]


@pytest.mark.parametrize("way", ["ainvoke", "astream"])
async def test_a_graph_around_the_chain_shows_nothing_that_a_middleware_holds(
    way: str, redacting: SessionManager, config: RunnableConfig, log: Log
) -> None:
    langgraph = pytest.importorskip("langgraph.graph")
    model = GenericFakeChatModel(messages=iter([AIMessage("a secret word")]))
    memory = RunnableWithSession(model, redacting)

    async def node(state: Any, config: RunnableConfig) -> dict[str, Any]:
        if way == "ainvoke":
            return {"messages": [await memory.ainvoke("hi", config)]}
        return {"messages": [chunk async for chunk in memory.astream("hi", config)]}

    builder = langgraph.StateGraph(langgraph.MessagesState).add_node("node", node)
    graph = builder.add_edge(langgraph.START, "node").compile()
    stream = graph.astream({"messages": "hi"}, config, stream_mode="messages")
    assert "".join([str(chunk.text) async for chunk, _ in stream]) == "a *** word"
    assert log() == [("human", "hi"), ("ai", "a *** word")]
