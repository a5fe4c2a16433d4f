"""LlamaIndex's memories, chat engines and agents on the stores."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, TextBlock, ToolCallBlock
from llama_index.core.chat_engine import ContextChatEngine, SimpleChatEngine
from llama_index.core.llms import MockLLM, mock
from llama_index.core.memory import ChatMemoryBuffer, ChatSummaryMemoryBuffer, Memory
from llama_index.core.memory.memory import BaseMemoryBlock
from llama_index.core.memory.memory_blocks import StaticMemoryBlock
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.storage.chat_store.base_db import MessageStatus
from llama_index_langswarm import AsyncSessionChatStore, SessionChatStore

from langswarm_session import (
    SessionManager,
    SessionMessage,
    ToolResultBlock,
)
from langswarm_session import (
    ToolCallBlock as NeutralCall,
)
from langswarm_session._sync.bridge import run

sys.path.insert(0, str(Path(__file__).parent))
from llama_index_model import CallingLLM

# LlamaIndex's workflows look at every attribute of an agent, pydantic's deprecated ones included.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")

Chats = Callable[[str], list[ChatMessage]]


async def log(manager: SessionManager, key: str = "chat") -> list[SessionMessage]:
    return await (await manager.get_session(key)).get_messages()


def texts(messages: Sequence[ChatMessage]) -> list[Any]:
    return [message.content for message in messages]


@pytest.fixture
def memory(database: AsyncSessionChatStore) -> Memory:
    return remembering(session_id="chat", chat_store=database, token_limit=20, token_flush_size=4)


def remembering(session_id: str, chat_store: AsyncSessionChatStore, **options: Any) -> Memory:
    """A `Memory` on a chat store, made so that older versions make it as well."""
    memory = Memory.from_defaults(session_id=session_id, **options)
    memory.sql_store = chat_store
    return memory


# Memories


def test_chat_memory_buffer(store: SessionChatStore, chats: Chats) -> None:
    memory = ChatMemoryBuffer.from_defaults(
        token_limit=4, chat_store=store, chat_store_key="chat", chat_history=chats("abcdef")
    )
    memory.put(ChatMessage("g"))
    assert memory.get_all() == [*chats("abcdef"), ChatMessage("g")]
    assert texts(memory.get()) == ["e", "f", "g"], "what fits, from a user's message on"
    assert texts(memory.get_all()) == list("abcdefg"), "the record keeps all"
    memory.reset()
    assert memory.get_all() == []


async def test_chat_memory_buffer_async(store: SessionChatStore, chats: Chats) -> None:
    memory = ChatMemoryBuffer.from_defaults(chat_store=store, chat_store_key="chat")
    await memory.aset(chats("ab"))
    await memory.aput(ChatMessage("c"))
    assert texts(await memory.aget()) == texts(await memory.aget_all()) == ["a", "b", "c"]
    await memory.areset()
    assert await memory.aget_all() == []


def test_chat_summary_memory_buffer(store: SessionChatStore, chats: Chats) -> None:
    memory = ChatSummaryMemoryBuffer.from_defaults(
        llm=MockLLM(max_tokens=2), token_limit=3, chat_store=store, chat_store_key="chat"
    )
    for chat in chats("abcdef"):
        memory.put(chat)
    window = memory.get()
    assert [message.role.value for message in window] == ["system", "user", "assistant"]
    assert texts(window[1:]) == ["e", "f"]
    assert store.get_messages("chat") == window, "it replaces what it has summed up"
    memory.put(ChatMessage("g"))
    assert texts(memory.get())[-1] == "g"
    assert len(run(log(store.manager))) == len(memory.get_all())


async def test_memory_flushes_to_the_archive(
    memory: Memory, database: AsyncSessionChatStore, manager: SessionManager, chats: Chats
) -> None:
    for letter in "abcdefghijklmnopqr":
        await memory.aput(ChatMessage(letter, role="assistant" if ord(letter) % 2 == 0 else "user"))
    active = await memory.aget_all(status=MessageStatus.ACTIVE)
    archived = await memory.aget_all(status=MessageStatus.ARCHIVED)
    assert archived
    assert active[0].role.value == "user"
    assert "".join(texts(archived + active)) == "abcdefghijklmnopqr"
    assert texts(await memory.aget()) == texts(active)
    assert len(await log(manager)) == 18


class Seen(BaseMemoryBlock[str]):
    """Keeps what is flushed from the queue."""

    got: list[str] = []

    async def _aget(self, messages: Any = None, **_: Any) -> str:
        return " ".join(self.got)

    async def _aput(self, messages: list[ChatMessage]) -> None:
        self.got += texts(messages)


async def test_memory_gives_its_blocks_what_it_flushes(database: AsyncSessionChatStore) -> None:
    block = Seen(name="seen")
    static = StaticMemoryBlock(
        name="info", static_content=[TextBlock(text="Ann is 30")], priority=0
    )
    memory = remembering(
        session_id="chat",
        chat_store=database,
        token_limit=30,
        token_flush_size=2,
        chat_history_token_ratio=0.2,
        memory_blocks=[static, block],
    )
    for n in range(8):
        await memory.aput_messages([ChatMessage(f"u{n}"), ChatMessage(f"a{n}", role="assistant")])
    archived = texts(await memory.aget_all(status=MessageStatus.ARCHIVED))
    assert block.got == archived != []
    first, *rest = await memory.aget()
    assert first.role.value == "system"
    assert "Ann is 30" in str(first.content)
    assert rest == await memory.aget_all(status=MessageStatus.ACTIVE)
    assert all(m.additional_kwargs == {} for m in rest + await memory.aget_all())


def test_memory_sync(database: AsyncSessionChatStore, chats: Chats) -> None:
    memory = remembering(session_id="chat", chat_store=database)
    memory.set(chats("ab"))
    memory.put(ChatMessage("c"))
    memory.put_messages(chats("de"))
    assert texts(memory.get()) == list("abcde")
    memory.set(chats("xy"))
    assert texts(memory.get_all()) == ["x", "y"]
    memory.reset()
    assert memory.get_all() == []


async def test_memory_sync_in_a_running_loop(memory: Memory, chats: Chats) -> None:
    memory.put_messages(chats("ab"))
    assert texts(memory.get()) == ["a", "b"]


async def test_another_memory_goes_on(
    memory: Memory, manager: SessionManager, chats: Chats
) -> None:
    await memory.aput_messages(chats("ab"))
    other = remembering(session_id="chat", chat_store=AsyncSessionChatStore(manager))
    assert await other.aget() == chats("ab")


# Chat engines


def echo(messages: Sequence[ChatMessage], **_: Any) -> ChatMessage:
    return ChatMessage(f"{len(messages)}:{messages[-1].content}", role="assistant")


class Scripted(MockLLM):
    """A chat model that says how many messages it got, and the last one's text."""

    def chat(self, messages: Sequence[ChatMessage], **_: Any) -> Any:
        from llama_index.core.base.llms.types import ChatResponse

        return ChatResponse(message=echo(messages))

    async def achat(self, messages: Sequence[ChatMessage], **_: Any) -> Any:
        return self.chat(messages)

    def stream_chat(self, messages: Sequence[ChatMessage], **_: Any) -> Any:
        from llama_index.core.base.llms.types import ChatResponse

        text = str(echo(messages).content)
        for end in range(1, len(text) + 1):
            message = ChatMessage(text[:end], role="assistant")
            yield ChatResponse(message=message, delta=text[end - 1])

    async def astream_chat(self, messages: Sequence[ChatMessage], **_: Any) -> Any:
        async def stream() -> AsyncGenerator[Any, None]:
            for response in self.stream_chat(messages):
                yield response

        return stream()


class Rain(BaseRetriever):
    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text="it rains"), score=1.0)]


@pytest.fixture(params=["buffer", "memory"])
def any_memory(
    request: pytest.FixtureRequest, store: SessionChatStore, database: AsyncSessionChatStore
) -> Any:
    if request.param == "buffer":
        return ChatMemoryBuffer.from_defaults(chat_store=store, chat_store_key="chat")
    return remembering(session_id="chat", chat_store=database)


@pytest.fixture(params=["simple", "context"])
def engine(request: pytest.FixtureRequest, any_memory: Any) -> Any:
    if request.param == "simple":
        return SimpleChatEngine.from_defaults(llm=Scripted(), memory=any_memory)
    return ContextChatEngine.from_defaults(retriever=Rain(), llm=Scripted(), memory=any_memory)


def test_chat_engines(engine: Any, any_memory: Any, manager: SessionManager) -> None:
    assert "one" in engine.chat("one").response
    response = engine.stream_chat("two")
    assert "two" in "".join(response.response_gen)
    history = any_memory.get_all()
    assert [m.role.value for m in history] == ["user", "assistant"] * 2
    assert [history[0].content, history[2].content] == ["one", "two"]
    assert [m.text for m in run(log(manager))] == texts(history)
    engine.chat("new", chat_history=[])
    assert len(any_memory.get_all()) == 2
    engine.reset()
    assert run(log(manager)) == []


async def test_chat_engines_async(engine: Any, any_memory: Any) -> None:
    assert "one" in (await engine.achat("one")).response
    response = await engine.astream_chat("two")
    assert "two" in "".join([piece async for piece in response.async_response_gen()])
    history = await any_memory.aget_all()
    assert [m.role.value for m in history] == ["user", "assistant"] * 2


# Agents


def weather(city: str) -> str:
    """The weather in a city."""
    if city == "Nowhere":
        raise ValueError("there is no such city")
    return f"sunny in {city}"


def calling(messages: Sequence[ChatMessage], **_: Any) -> ChatMessage:
    """Asks for the weather where the user is, twice at once, and says what it got."""
    last = messages[-1]
    if last.role.value == "user":
        calls = [
            ToolCallBlock(
                tool_call_id=f"call_{len(messages)}_{n}",
                tool_name="weather",
                tool_kwargs={"city": city},
            )
            for n, city in enumerate([str(last.content), "Nowhere"])
        ]
        return ChatMessage(blocks=[TextBlock(text="looking"), *calls], role="assistant")
    return ChatMessage(f"{len(messages)} messages; {last.content}", role="assistant")


def theirs() -> Any:
    if not hasattr(mock, "MockFunctionCallingLLM"):
        pytest.skip("this version of LlamaIndex has no model that calls tools for tests")
    return mock.MockFunctionCallingLLM(response_generator=calling, is_chat_model=True)


@pytest.fixture(params=[theirs, lambda: CallingLLM(calling)], ids=["their model", "ours"])
def agent(request: pytest.FixtureRequest) -> FunctionAgent:
    llm = request.param()
    return FunctionAgent(tools=[weather], llm=llm, name="forecaster", description="Knows it.")


@pytest.mark.parametrize("workflow", [False, True])
async def test_agents(
    agent: FunctionAgent, any_memory: Any, manager: SessionManager, workflow: bool
) -> None:
    runner = AgentWorkflow(agents=[agent]) if workflow else agent
    first = await runner.run("Oslo", memory=any_memory)
    second = await runner.run("Rome", memory=any_memory)
    assert "messages" in str(second)
    chats = await any_memory.aget_all()
    roles = ["user", "assistant", "tool", "tool", "assistant"]
    assert [m.role.value for m in chats] == roles * 2
    assert chats[4].content == str(first)
    assert [block.tool_name for block in chats[1].blocks[1:]] == ["weather", "weather"]
    stored = await log(manager)
    calls = [block.id for m in stored for block in m.blocks if isinstance(block, NeutralCall)]
    results = [
        block.tool_call_id
        for m in stored
        for block in m.blocks
        if isinstance(block, ToolResultBlock)
    ]
    assert sorted(calls) == sorted(results)
    assert len(set(calls)) == 4


async def test_an_agent_that_streams_goes_on_in_a_new_process_memory(
    agent: FunctionAgent, any_memory: Any, manager: SessionManager
) -> None:
    handler = agent.run("Oslo", memory=any_memory)
    async for _ in handler.stream_events():
        pass
    await handler
    other = remembering(session_id="chat", chat_store=AsyncSessionChatStore(manager))
    again = await agent.run("Rome", memory=other)
    assert str(again).startswith("9 messages")


async def test_two_agents_at_once_in_their_own_sessions(
    agent: FunctionAgent, database: AsyncSessionChatStore
) -> None:
    memories = [remembering(session_id=f"{n}", chat_store=database) for n in range(5)]
    await asyncio.gather(*(agent.run(f"city {n}", memory=m) for n, m in enumerate(memories)))
    for n, memory in enumerate(memories):
        assert (await memory.aget_all())[0].content == f"city {n}"
        assert len(await memory.aget_all()) == 5


async def test_memory_takes_the_store_itself(database: AsyncSessionChatStore, chats: Chats) -> None:
    if "chat_store" not in signature(Memory.from_defaults).parameters:
        pytest.skip("this version of LlamaIndex makes a memory only on its own store")
    memory = Memory.from_defaults(session_id="chat", chat_store=database)
    await memory.aput_messages(chats("ab"))
    assert await database.get_messages("chat") == chats("ab")


async def test_a_memory_is_handed_what_it_was_handed_before(
    database: AsyncSessionChatStore, store: SessionChatStore
) -> None:
    """Beyond the window's limit too: what fits is the memory's own affair."""
    memory = remembering(session_id="chat", chat_store=database, token_limit=100_000)
    buffer = ChatMemoryBuffer.from_defaults(chat_store=store, chat_store_key="other")
    for number in range(60):
        before = texts(await memory.aget()), texts(await buffer.aget())
        for role in ("user", "assistant"):
            message = ChatMessage(role=role, content=f"{role} {number}")
            await memory.aput(message)
            await buffer.aput(message)
        after = texts(await memory.aget()), texts(await buffer.aget())
        for old, new in zip(before, after, strict=True):
            assert new[: len(old)] == old
            assert len(new) == len(old) + 2
