"""How much of a log LlamaIndex's store reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.storage.chat_store.base_db import MessageStatus
from llama_index_langswarm import AsyncSessionChatStore, SessionChatStore

from langswarm_session import SessionManager, SessionMessage, TextBlock, ToolResultBlock

ACTIVE, ARCHIVED = MessageStatus.ACTIVE, MessageStatus.ARCHIVED

SIZE = 600


def chats(first: int, last: int) -> list[ChatMessage]:
    return [ChatMessage(str(n), role="assistant" if n % 2 else "user") for n in range(first, last)]


def texts(messages: list[ChatMessage]) -> list[str]:
    return [str(message.content) for message in messages]


@pytest.fixture
async def long(database: AsyncSessionChatStore) -> AsyncSessionChatStore:
    """A store with a long log, a part of it archived."""
    await database.add_messages("chat", chats(0, SIZE))
    await database.archive_oldest_messages("chat", 100)
    return database


@pytest.fixture
def read(manager: SessionManager, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Returns how many messages were read since it was called last."""
    storage, sizes = manager.storage, list[int]()
    get_messages = storage.get_messages

    async def count(*args: Any, **options: Any) -> list[SessionMessage]:
        messages = await get_messages(*args, **options)
        sizes.append(len(messages))
        return messages

    monkeypatch.setattr(storage, "get_messages", count)

    def read() -> int:
        total = sum(sizes)
        sizes.clear()
        return total

    return read


async def test_counting_reads_no_message(
    long: AsyncSessionChatStore, read: Callable[[], int]
) -> None:
    counts = [await long.count_messages("chat", status) for status in (None, ACTIVE, ARCHIVED)]
    assert counts == [SIZE, SIZE - 100, 100]
    assert read() == 0


async def test_a_page_reads_its_messages(
    long: AsyncSessionChatStore, read: Callable[[], int]
) -> None:
    for status, first in ((None, 0), (ACTIVE, 100), (ARCHIVED, 0)):
        page = await long.get_messages("chat", status, limit=5, offset=50)
        assert texts(page) == [str(first + 50 + n) for n in range(5)]
        assert read() == 5
    assert texts(await long.get_messages("chat", ARCHIVED, limit=5, offset=98)) == ["98", "99"]
    assert texts(await long.get_messages("chat", offset=SIZE - 103)) == ["597", "598", "599"]
    assert await long.get_messages("chat", ARCHIVED, offset=100) == []
    assert await long.get_messages("chat", limit=0) == []
    assert read() == 5


async def test_an_edit_reads_what_it_touches(
    long: AsyncSessionChatStore, store: SessionChatStore, read: Callable[[], int]
) -> None:
    assert texts(await long.archive_oldest_messages("chat", 3)) == ["100", "101", "102"]
    assert read() == 3 + 20, "what follows is looked at for results"
    assert texts(await long.delete_oldest_messages("chat", 2)) == ["103", "104"]
    assert str((await long.delete_message("chat", 200)).content) == "305"
    assert str((await long.delete_message("chat", -1)).content) == "599"
    assert str((await store.adelete_last_message("chat")).content) == "598"
    assert str((await store.adelete_message("chat", 7)).content) == "7"
    assert read() == 2 + 1 + 1 + 1 + 1


async def test_no_result_stays_active_without_its_call(
    database: AsyncSessionChatStore,
) -> None:
    call = ToolCallBlock(tool_call_id="1", tool_name="t", tool_kwargs={})
    results = [ChatMessage(f"r{n}", role="tool", tool_call_id="1") for n in range(25)]
    turn = [ChatMessage("q"), ChatMessage(role="assistant", blocks=[call]), *results]
    await database.add_messages("chat", [*turn, ChatMessage("a", role="assistant"), *turn])
    assert await database.archive_oldest_messages("chat", 1) == turn[:1]
    assert await database.archive_oldest_messages("chat", 1) == turn[1:]
    assert (await database.get_messages("chat"))[0].content == "a"
    assert await database.archive_oldest_messages("chat", 5) == [
        ChatMessage("a", role="assistant"),
        *turn,
    ]
    assert await database.get_messages("chat") == []


async def test_missing_numbers_are_no_positions(long: AsyncSessionChatStore) -> None:
    expected = [str(n) for n in range(100, SIZE)]
    for idx in (0, 250, 250, 0, 90):
        assert str((await long.delete_message("chat", idx)).content) == expected.pop(idx)
    assert await long.count_messages("chat") == len(expected)
    assert await long.count_messages("chat", ARCHIVED) == 100
    for offset in (0, 89, 90, 249, 250, 400):
        page = await long.get_messages("chat", limit=4, offset=offset)
        assert texts(page) == expected[offset : offset + 4]


async def test_the_results_of_several_tools_are_several_messages(
    database: AsyncSessionChatStore, manager: SessionManager, read: Callable[[], int]
) -> None:
    session = await manager.get_or_create_session("chat")
    results = [ToolResultBlock(tool_call_id=str(n), content=f"r{n}") for n in range(3)]
    await session.record([SessionMessage(role="user", content=f"{n}") for n in range(4)])
    await session.record(SessionMessage(role="tool", content=[*results, TextBlock(text="t")]))
    await session.record([SessionMessage(role="user", content=f"{n}") for n in range(4, 8)])
    expected = ["0", "1", "2", "3", "r0", "r1", "r2", "t", "4", "5", "6", "7"]
    assert await database.count_messages("chat") == len(expected)
    for offset in range(13):
        page = await database.get_messages("chat", limit=3, offset=offset)
        assert texts(page) == expected[offset : offset + 3]
    assert str((await database.delete_message("chat", 6)).content) == "r2"
    assert str((await database.delete_message("chat", -5)).content) == "t"
    await database.archive_oldest_messages("chat", 5)
    read()
    assert await database.count_messages("chat") == 4
    assert texts(await database.get_messages("chat", offset=1, limit=2)) == ["5", "6"]
    assert read() == 2, "what is archived does not matter"
    assert await database.count_messages("chat", ARCHIVED) == 6
