"""The chat store for LlamaIndex's `Memory`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.storage.chat_store.base_db import MessageStatus
from llama_index_langswarm import AsyncSessionChatStore, SessionChatStore

from langswarm_session import InvalidInputError, SessionManager, SessionMessage, ToolResultBlock
from langswarm_session._sync.bridge import run

ACTIVE, ARCHIVED = MessageStatus.ACTIVE, MessageStatus.ARCHIVED

Chats = Callable[[str], list[ChatMessage]]


async def said(
    database: AsyncSessionChatStore, status: MessageStatus | None = ACTIVE, **options: Any
) -> str:
    messages = await database.get_messages("chat", status, **options)
    return "".join(str(message.content) for message in messages)


async def both(database: AsyncSessionChatStore) -> tuple[str, str]:
    return await said(database, ARCHIVED), await said(database, ACTIVE)


async def test_adding_and_reading(database: AsyncSessionChatStore, chats: Chats) -> None:
    await database.add_message("chat", ChatMessage("a"))
    await database.add_messages("chat", chats("bc"))
    await database.add_messages("chat", [])
    assert await database.get_messages("chat") == [ChatMessage("a"), *chats("bc")]
    assert await database.count_messages("chat") == 3
    assert await database.get_keys() == ["chat"]


@pytest.mark.parametrize(
    ("limit", "offset", "expected"),
    [(None, None, "abcde"), (2, None, "ab"), (2, 1, "bc"), (None, 3, "de"), (0, 0, ""),
     (9, 4, "e"), (2, 9, "")],
)  # fmt: skip
async def test_limit_and_offset_count_from_the_oldest(
    database: AsyncSessionChatStore, chats: Chats, limit: Any, offset: Any, expected: str
) -> None:
    await database.add_messages("chat", chats("abcde"))
    assert await said(database, limit=limit, offset=offset) == expected
    with pytest.raises(InvalidInputError):
        await database.get_messages("chat", limit=-1)


async def test_archived_messages_stay_archived(
    database: AsyncSessionChatStore, chats: Chats
) -> None:
    await database.add_messages("chat", chats("abcde"))
    assert await database.archive_oldest_messages("chat", 2) == chats("ab")
    assert await both(database) == ("ab", "cde")
    assert await said(database, limit=1) == "c"
    assert await said(database, ARCHIVED, offset=1) == "b"
    assert await said(database, None) == "abcde"
    assert [await database.count_messages("chat", status) for status in (None, ACTIVE, ARCHIVED)] == [5, 3, 2]  # fmt: skip
    await database.set_messages("chat", chats("xy"))
    assert await both(database) == ("ab", "xy")
    await database.add_message("chat", ChatMessage("z"))
    await database.delete_messages("chat", ACTIVE)
    assert await both(database) == ("ab", "")
    await database.add_message("chat", ChatMessage("n"))
    assert (await database.archive_oldest_messages("chat", 9))[0].content == "n"
    assert await both(database) == ("abn", "")
    await database.delete_messages("chat", ARCHIVED)
    assert await both(database) == ("", "")


async def test_messages_are_added_archived(database: AsyncSessionChatStore, chats: Chats) -> None:
    await database.add_message("chat", ChatMessage("a"))
    await database.add_messages("chat", chats("bc"), ARCHIVED)
    await database.add_message("chat", ChatMessage("d"))
    assert await both(database) == ("bc", "ad")
    assert [m.content for m in await database.archive_oldest_messages("chat", 1)] == ["a"]
    assert await both(database) == ("abc", "d")
    await database.set_messages("chat", chats("cx"), ARCHIVED)
    assert await both(database) == ("cx", "d")
    await database.delete_messages("chat")
    assert await said(database, None) == ""


async def test_what_the_other_store_moves_stays_archived(
    database: AsyncSessionChatStore, store: SessionChatStore, chats: Chats
) -> None:
    await database.add_messages("chat", chats("abcd"))
    await database.archive_oldest_messages("chat", 2)
    await store.async_add_message("chat", ChatMessage("x"), idx=0)
    assert await said(database, None) == "xabcd"
    assert await both(database) == ("ab", "xcd")


async def test_an_index_is_a_position_in_the_queue(
    database: AsyncSessionChatStore, chats: Chats
) -> None:
    await database.add_messages("chat", chats("abcde"))
    await database.archive_oldest_messages("chat", 1)
    assert (await database.delete_message("chat", 1)).content == "c"
    assert (await database.delete_message("chat", -1)).content == "e"
    assert await database.delete_message("chat", 5) is None
    assert await both(database) == ("a", "bd")
    assert [m.content for m in await database.delete_oldest_messages("chat", 1)] == ["b"]
    assert await both(database) == ("a", "d")


async def test_what_is_not_there(database: AsyncSessionChatStore) -> None:
    assert await database.get_messages("chat") == []
    assert await database.count_messages("chat", None) == 0
    assert await database.delete_message("chat", 0) is None
    assert await database.delete_oldest_messages("chat", 2) == []
    assert await database.archive_oldest_messages("chat", 2) == []
    await database.delete_messages("chat")
    await database.set_messages("chat", [])
    assert await database.get_keys() == []
    await database.add_message("chat", ChatMessage("a"))
    for n in (0, -1):
        assert await database.archive_oldest_messages("chat", n) == []
        assert await database.delete_oldest_messages("chat", n) == []
    assert await both(database) == ("", "a")


async def test_a_group_of_results_is_archived_whole(
    database: AsyncSessionChatStore, manager: SessionManager
) -> None:
    session = await manager.get_or_create_session("chat")
    results = [ToolResultBlock(tool_call_id=str(n), content=f"{n}") for n in range(3)]
    await session.record([SessionMessage(role="tool", content=results)])
    assert len(await database.archive_oldest_messages("chat", 1)) == 3
    assert await both(database) == ("012", "")


async def test_archiving_writes_none_of_the_messages(
    database: AsyncSessionChatStore, manager: SessionManager, chats: Chats
) -> None:
    await database.add_messages("chat", chats("abc"))
    session = await manager.get_session("chat")
    before = await session.get_messages()
    await database.archive_oldest_messages("chat", 2)
    assert await session.get_messages() == before
    await session.refresh()
    assert session.metrics.message_count == 3


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["add_messages", "set_messages"]),
            st.text("abc", max_size=4),
            st.sampled_from(MessageStatus),
        ),
        st.tuples(
            st.sampled_from(["archive_oldest_messages", "delete_oldest_messages"]),
            st.integers(0, 4),
        ),
        st.tuples(st.just("delete_message"), st.integers(0, 4)),
        st.tuples(st.just("delete_messages"), st.none() | st.sampled_from(MessageStatus)),
    ),
    max_size=8,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_it_does_what_two_lists_would(
    database: AsyncSessionChatStore, operations: list[tuple[Any, ...]], chats: Chats
) -> None:
    run(database.delete_messages("chat"))
    active, archived = list[ChatMessage](), list[ChatMessage]()
    in_order = True
    for name, argument, *status in operations:
        call = getattr(database, name)
        queue = archived if status == [ARCHIVED] else active
        if name == "add_messages":
            run(call("chat", chats(argument), *status))
            queue += chats(argument)
        elif name == "set_messages":
            run(call("chat", chats(argument), *status))
            queue[:] = chats(argument)
        elif name == "delete_message":
            expected = active.pop(argument) if argument < len(active) else None
            assert run(call("chat", argument)) == expected
        elif name == "delete_messages":
            run(call("chat", argument))
            for each, queue in ((ACTIVE, active), (ARCHIVED, archived)):
                if argument in (None, each):
                    queue.clear()
        else:
            oldest, active = active[:argument], active[argument:]
            assert run(call("chat", argument)) == oldest
            if name == "archive_oldest_messages" and oldest:
                # One that was added archived may stand behind those that are only now.
                in_order, archived = in_order and not archived, archived + oldest
        assert run(database.get_messages("chat")) == active
        assert run(database.count_messages("chat", None)) == len(active) + len(archived)
        stored = run(database.get_messages("chat", ARCHIVED))
        if in_order:
            assert stored == archived
        else:
            archived = stored
            assert len(stored) == len(archived)


async def test_archiving_at_once_archives_each_once(
    database: AsyncSessionChatStore,
) -> None:
    await database.add_messages("chat", [ChatMessage(str(n)) for n in range(20)])
    archived = await asyncio.gather(
        *(database.archive_oldest_messages("chat", 2) for _ in range(8))
    )
    texts = sorted((m.content for batch in archived for m in batch), key=int)
    assert texts == [str(n) for n in range(16)]
    assert await database.count_messages("chat") == 4


def test_two_loops_and_ten_threads(database: AsyncSessionChatStore) -> None:
    async def work(n: int) -> None:
        for m in range(4):
            await database.add_message("chat", ChatMessage(f"{n}.{m}"))
        await database.archive_oldest_messages("chat", 1)

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda n: asyncio.run(work(n)), range(10)))
    assert run(database.count_messages("chat", ARCHIVED)) == 10
    assert run(database.count_messages("chat", ACTIVE)) == 30
