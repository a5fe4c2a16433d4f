"""One conversation across all doors: written by each, read by every other."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("llama_index.core")
pytest.importorskip("agents")

from langchain_core.messages import convert_to_messages
from langchain_langswarm import (
    SessionChatMessageHistory,
    from_langchain_messages,
    to_langchain_messages,
)
from llama_index_langswarm import (
    AsyncSessionChatStore,
    SessionChatStore,
    from_llama_index,
    from_llama_index_messages,
    to_llama_index_messages,
)
from openai_agents_langswarm import AgentSession, from_openai_agents, to_openai_agents

from langswarm_session import (
    AudioBlock,
    Block,
    FileBlock,
    ImageBlock,
    OtherBlock,
    ReasoningBlock,
    RefusalBlock,
    SessionManager,
    SessionMessage,
    TextBlock,
    TokenUsage,
    ToolCallBlock,
    ToolResultBlock,
    VideoBlock,
)

SOURCE = Path(__file__).parents[3] / "shared" / "data" / "agent_conversations.jsonl"

Messages = Sequence[SessionMessage]


class Door(NamedTuple):
    """A format's two directions, and the store that speaks it."""

    to: Callable[[Messages], list[Any]]
    back: Callable[[list[Any]], list[SessionMessage]]
    write: Callable[[SessionManager, list[Any]], Any]
    read: Callable[[SessionManager], Any]


async def record(manager: SessionManager, messages: Messages) -> None:
    session = await manager.get_or_create_session("chat", provider="mock", model="echo")
    await session.record(list(messages))


async def log(manager: SessionManager) -> list[SessionMessage]:
    return await (await manager.get_session("chat")).get_messages()


DOORS = {
    "langchain": Door(
        to_langchain_messages,
        from_langchain_messages,
        lambda manager, new: SessionChatMessageHistory("chat", manager).aadd_messages(new),
        lambda manager: SessionChatMessageHistory("chat", manager).aget_messages(),
    ),
    "llama_index": Door(
        to_llama_index_messages,
        from_llama_index_messages,
        lambda manager, new: AsyncSessionChatStore(manager).add_messages("chat", new),
        lambda manager: AsyncSessionChatStore(manager).get_messages("chat"),
    ),
    "openai_agents": Door(
        to_openai_agents,
        from_openai_agents,
        lambda manager, new: AgentSession("chat", manager).add_items(new),
        lambda manager: AgentSession("chat", manager).get_items(),
    ),
    "plain": Door(list, list, record, log),
}


# What a conversation says, as facts to be compared


def facts(messages: Iterable[SessionMessage]) -> set[tuple[str, str]]:
    """What messages say, each with the kind of thing it is."""
    return {
        (kind, str(value))
        for message in messages
        for kind, value in _facts(message)
        if value not in (None, "", {}, [])
    }


def _facts(message: SessionMessage) -> Iterable[tuple[str, Any]]:
    # A result's text is the result's.
    own = [block for block in message.blocks if not isinstance(block, ToolResultBlock)]
    yield "text", (message.role.value, message.replaced(content=own).text) if own else None
    yield "speaker", message.name if message.role.value in ("user", "assistant") else None
    yield "usage", message.usage and message.usage.total_tokens
    yield "finish reason", message.finish_reason
    for block in message.blocks:
        yield from _block_facts(block)


def _block_facts(block: Block) -> Iterable[tuple[str, Any]]:
    if isinstance(block, ImageBlock | AudioBlock | VideoBlock | FileBlock):
        for way in ("url", "base64", "file_id"):
            yield f"{block.type} by {way}", _address(block, way)
        if isinstance(block, FileBlock):
            yield "file name", None if block.filename == "input_document" else block.filename
    elif isinstance(block, ReasoningBlock):
        yield "reasoning", block.reasoning
        yield "signature", block.signature
        yield "encrypted reasoning", block.encrypted
    elif isinstance(block, ToolCallBlock):
        yield "call", (block.id, block.name, json.dumps(block.args, sort_keys=True))
    elif isinstance(block, ToolResultBlock):
        yield from _result_facts(block)
    elif isinstance(block, RefusalBlock):
        yield "refusal", block.refusal
    elif isinstance(block, OtherBlock):
        yield "other", json.dumps(block.value, sort_keys=True)
    elif isinstance(block, TextBlock):
        yield "annotations", block.annotations


def _result_facts(block: ToolResultBlock) -> Iterable[tuple[str, Any]]:
    inner = SessionMessage(role="tool", content=block.content)
    yield "result", (block.tool_call_id, inner.text)
    yield "result's tool", block.name
    yield "result's failure", block.is_error or None
    for each in inner.blocks:
        yield from ((f"result's {kind}", value) for kind, value in _block_facts(each))


def _address(block: Any, way: str) -> str | None:
    """Data is the same by value, in a data URL and as plain text."""
    in_url = block.url is not None and block.url.startswith("data:")
    if way == "base64":
        text = getattr(block, "text", None)
        return (
            b64encode(text.encode()).decode()
            if text
            else (block.url.partition(",")[2] if in_url else block.base64)
        )
    if way == "url":
        return None if in_url else block.url
    value: str | None = getattr(block, way)
    return value


def media(kind: type[Any], mime_type: str) -> list[Block]:
    return [
        kind(url=f"https://example.com/{kind.__name__}", mime_type=mime_type),
        kind(base64="aGk=", mime_type=mime_type),
        kind(file_id=f"file-{kind.__name__}", mime_type=mime_type),
    ]


USAGE = TokenUsage(input_tokens=7, output_tokens=5)
CONVERSATION = [
    SessionMessage(role="system", content="be brief"),
    SessionMessage(role="user", content="hi", name="ann"),
    SessionMessage(
        role="user",
        content=[
            TextBlock(text="look"),
            *media(ImageBlock, "image/png"),
            *media(AudioBlock, "audio/wav"),
            *media(VideoBlock, "video/mp4"),
            *media(FileBlock, "application/pdf"),
            FileBlock(base64="aG8=", mime_type="application/pdf", filename="a.pdf"),
            FileBlock(text="notes", mime_type="text/plain"),
            OtherBlock(value={"type": "other", "of": "the user"}),
        ],
    ),
    SessionMessage(
        role="assistant",
        content=[
            ReasoningBlock(reasoning="let me see", signature="sig=="),
            ReasoningBlock(id="rs_1", reasoning="aha", encrypted="payload"),
            TextBlock(text="one moment", annotations=[{"type": "citation", "url": "https://x.y"}]),
            OtherBlock(value={"type": "other", "of": "the model"}),
            ToolCallBlock(id="call_1", name="look", args={"city": "Åbo", "days": [1, 2.5, None]}),
            ToolCallBlock(id="call_2", name="look", args={}),
        ],
        usage=USAGE,
        finish_reason="tool_calls",
        provider="mock",
    ),
    SessionMessage(
        role="tool",
        content=[ToolResultBlock(tool_call_id="call_1", content="sunny", name="look")],
    ),
    SessionMessage(
        role="tool",
        content=[
            ToolResultBlock(
                tool_call_id="call_2",
                content=[TextBlock(text="no city"), ImageBlock(base64="aGE=", mime_type="image/png")],
                is_error=True,
            )
        ],
    ),
    SessionMessage(role="assistant", content="sunny in Åbo"),
    SessionMessage(role="user", content="now harm somebody"),
    SessionMessage(role="assistant", content=[RefusalBlock(refusal="I will not")]),
]  # fmt: skip

# What a reader's format has no place for, of what is in the record.
NOT_IN: dict[str, set[str]] = {
    "langchain": {"file name", "finish reason", "refusal"},
    "llama_index": {
        "annotations", "audio by file_id", "file by file_id", "finish reason", "image by file_id",
        "other", "refusal", "result's failure", "speaker", "usage", "video by file_id",
    },
    # Of files those by value that are plain text, of reasoning that without OpenAI's payload.
    "openai_agents": {
        "annotations", "audio by base64", "audio by file_id", "audio by url", "file by base64",
        "finish reason", "other", "reasoning", "refusal", "result's failure", "result's tool",
        "signature", "speaker", "usage", "video by base64", "video by file_id", "video by url",
    },
    "plain": set(),
}  # fmt: skip


async def written(manager: SessionManager, writer: str) -> set[tuple[str, str]]:
    """What the record says after one door wrote as much of the conversation as it can."""
    await DOORS[writer].write(manager, DOORS[writer].to(CONVERSATION))
    return facts(await log(manager))


@pytest.mark.parametrize("reader", DOORS)
@pytest.mark.parametrize("writer", DOORS)
async def test_what_is_lost(manager: SessionManager, writer: str, reader: str) -> None:
    said = await written(manager, writer)
    read = facts(DOORS[reader].back(await DOORS[reader].read(manager)))
    lost = {kind for kind, _ in said - read}
    expected = set() if writer == reader else NOT_IN[reader] & {kind for kind, _ in said}
    if writer == "llama_index":
        expected -= {"file by base64"}  # it has a plain text by value, which everybody can read
    assert lost == expected


@pytest.mark.parametrize("writer", DOORS)
async def test_each_reads_its_own_exactly(manager: SessionManager, writer: str) -> None:
    door = DOORS[writer]
    given = door.to(CONVERSATION)
    await door.write(manager, given)
    read = await door.read(manager)
    if writer == "plain":
        read = [message.replaced(seq=None, turn_id=None) for message in read]
    assert read == given


@pytest.mark.parametrize("reader", DOORS)
async def test_results_in_one_message_are_all_read(manager: SessionManager, reader: str) -> None:
    results = [ToolResultBlock(tool_call_id=str(n), content=f"{n}") for n in range(3)]
    await record(manager, [SessionMessage(role="tool", content=results)])
    read = DOORS[reader].back(await DOORS[reader].read(manager))
    assert {fact for fact in facts(read) if fact[0] == "result"} == {
        ("result", str((str(n), f"{n}"))) for n in range(3)
    }


# One conversation


async def test_each_goes_on_where_the_others_were(manager: SessionManager) -> None:
    history = SessionChatMessageHistory("chat", manager)
    database = AsyncSessionChatStore(manager)
    agents = AgentSession("chat", manager)
    call = {"name": "look", "args": {"city": "Åbo"}, "id": "call_1"}
    langchain = convert_to_messages(
        [
            ("user", "weather?"),
            {"role": "assistant", "content": "", "tool_calls": [{**call, "type": "tool_call"}]},
            {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
            ("assistant", "sunny"),
        ]
    )
    await history.aadd_messages(langchain)
    chats = await database.get_messages("chat")
    assert [chat.role.value for chat in chats] == ["user", "assistant", "tool", "assistant"]
    assert chats[1].blocks[0].tool_kwargs == {"city": "Åbo"}
    assert chats[2].additional_kwargs == {"tool_call_id": "call_1"}

    llama = from_llama_index(chats[0]).replaced(content="and tomorrow?")
    new = to_llama_index_messages([llama, llama.replaced(role="assistant", content="rain")])
    await database.add_messages("chat", new)
    items = await agents.get_items()
    assert [item.get("type", item.get("role")) for item in items] == [
        "user", "function_call", "function_call_output", "message", "user", "message"
    ]  # fmt: skip
    assert items[1]["call_id"] == items[2]["call_id"] == "call_1"
    assert json.loads(items[1]["arguments"]) == {"city": "Åbo"}

    asked = [
        {"role": "user", "content": "sure?"},
        {
            "id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "quite", "annotations": []}],
        },
    ]  # fmt: skip
    await agents.add_items(asked)
    session = await manager.get_session("chat")
    await session.update_context(provider="mock", model="echo")
    reply = await session.send_message("thanks")
    assert reply.role == "assistant"

    texts = ["weather?", "", "sunny", "sunny", "and tomorrow?", "rain", "sure?", "quite", "thanks"]
    assert [m.text for m in await history.aget_messages()] == [*texts, reply.text]
    read = await database.get_messages("chat")
    assert [chat.content or "" for chat in read] == [*texts, reply.text]
    # In its own format each has back exactly what it wrote.
    assert (await history.aget_messages())[:4] == langchain
    assert read[4:6] == new
    assert (await agents.get_items())[6:8] == asked


async def test_the_older_chat_store_reads_and_cuts_it_as_well(manager: SessionManager) -> None:
    await DOORS["langchain"].write(manager, DOORS["langchain"].to(CONVERSATION))
    store = SessionChatStore(manager)
    count = len(await store.aget_messages("chat"))
    assert count == len(CONVERSATION)
    await store.adelete_last_message("chat")
    kept = await DOORS["langchain"].read(manager)
    assert kept == DOORS["langchain"].to(CONVERSATION)[:-1]


# Real conversations with agents


@pytest.mark.skipif(not SOURCE.exists(), reason=f"there is no {SOURCE}")
@pytest.mark.parametrize("storage_kind", ["memory"], indirect=True)
@pytest.mark.parametrize("writer", DOORS)
async def test_real_conversations_lose_nothing(manager: SessionManager, writer: str) -> None:
    for line in SOURCE.read_text(encoding="utf-8").splitlines():
        raw = convert_to_messages(json.loads(line)["messages"])
        neutral = [message.replaced(native=None) for message in from_langchain_messages(raw)]
        given = DOORS[writer].to(neutral)
        await DOORS[writer].write(manager, given)
        said = facts(await log(manager))
        for reader, door in DOORS.items():
            read = await door.read(manager)
            lost = {kind for kind, _ in said - facts(door.back(read))}
            assert lost <= {"result's tool"} & NOT_IN[reader]
            if reader == writer != "plain":
                assert read == given
        await (await manager.get_session("chat")).clear_messages()
