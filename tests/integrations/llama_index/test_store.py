"""The chat store for LlamaIndex's older memories."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.storage.chat_store import SimpleChatStore
from llama_index_langswarm import AsyncSessionChatStore, SessionChatStore

from langswarm_session import (
    InvalidInputError,
    ISession,
    ISessionMiddleware,
    SessionInactiveError,
    SessionManager,
    SessionMessage,
    SessionNotFoundError,
    ToolResultBlock,
)
from langswarm_session._sync.bridge import run

Chats = Callable[[str], list[ChatMessage]]


def said(store: SessionChatStore, key: str = "chat") -> str:
    return "".join(str(message.content) for message in store.get_messages(key))


async def log(manager: SessionManager, key: str = "chat") -> list[SessionMessage]:
    return await (await manager.get_session(key)).get_messages()


# The interface


def test_setting_replaces(store: SessionChatStore, chats: Chats) -> None:
    store.set_messages("chat", chats("abc"))
    assert store.get_messages("chat") == chats("abc")
    store.set_messages("chat", chats("xy"))
    assert store.get_messages("chat") == chats("xy")
    store.set_messages("chat", [])
    assert store.get_messages("chat") == []


def test_an_index_is_a_position(store: SessionChatStore, chats: Chats) -> None:
    store.set_messages("chat", chats("abcdef"))
    assert store.delete_message("chat", 1) == chats("ab")[1]
    assert store.delete_message("chat", 1).content == "c"
    assert store.delete_message("chat", -2).content == "e"
    assert said(store) == "adf"
    for idx in (3, -4):
        assert store.delete_message("chat", idx) is None
    assert store.delete_last_message("chat").content == "f"
    assert said(store) == "ad"
    store.add_message("chat", ChatMessage("x"), idx=1)
    store.add_message("chat", ChatMessage("y"), idx=0)
    store.add_message("chat", ChatMessage("z"), idx=99)
    store.add_message("chat", ChatMessage("!"))
    assert said(store) == "yaxdz!"


def test_what_is_not_there(store: SessionChatStore, chats: Chats) -> None:
    assert store.get_messages("chat") == []
    assert store.delete_messages("chat") is None
    assert store.delete_message("chat", 0) is None
    assert store.delete_last_message("chat") is None
    store.set_messages("chat", [])
    assert store.get_keys() == []
    with pytest.raises(SessionNotFoundError):
        run(store.manager.get_session("chat"))
    store.add_message("chat", ChatMessage("a"), idx=5)
    assert said(store) == "a"


def test_deleting_all_of_a_key(store: SessionChatStore, chats: Chats) -> None:
    store.set_messages("chat", chats("abc"))
    store.set_messages("other", chats("x"))
    assert store.delete_messages("chat") == chats("abc")
    assert store.get_messages("chat") == []
    assert store.get_keys() == ["other"]
    assert store.delete_messages("chat") is None
    store.add_message("chat", ChatMessage("d"))
    assert said(store) == "d"


async def test_the_async_methods_are_the_same(store: SessionChatStore, chats: Chats) -> None:
    await store.aset_messages("chat", chats("abc"))
    await store.async_add_message("chat", ChatMessage("d"))
    assert (await store.adelete_message("chat", 1)).content == "b"
    assert (await store.adelete_last_message("chat")).content == "d"
    assert [m.content for m in await store.aget_messages("chat")] == ["a", "c"]
    assert await store.aget_keys() == ["chat"]
    assert len(await store.adelete_messages("chat")) == 2
    assert await store.aget_messages("chat") == []


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("set_messages"), st.text("abc", max_size=5)),
        st.tuples(st.just("add_message"), st.sampled_from("abc"), st.none() | st.integers(0, 6)),
        st.tuples(st.just("delete_message"), st.integers(0, 6)),
        st.tuples(st.just("delete_last_message")),
        st.tuples(st.just("delete_messages")),
    ),
    max_size=8,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_it_does_what_llama_indexs_own_does(
    store: SessionChatStore, operations: list[tuple[Any, ...]], chats: Chats
) -> None:
    store.delete_messages("chat")
    own = SimpleChatStore()
    for name, *arguments in operations:
        if name == "set_messages":
            arguments = [chats(arguments[0])]
        elif name == "add_message":
            arguments[0] = ChatMessage(arguments[0])
        elif name == "delete_last_message" and not own.get_messages("chat"):
            continue  # theirs raises
        theirs = getattr(own, name)("chat", *copy.deepcopy(arguments))
        ours = getattr(store, name)("chat", *arguments)
        assert ours == theirs or (not ours and not theirs)
        assert store.get_messages("chat") == own.get_messages("chat")
        session = run(store.manager.get_or_create_session("chat"))
        assert session.metrics.message_count == len(own.get_messages("chat"))


# The record


async def test_what_stays_the_same_is_not_touched(
    store: SessionChatStore, manager: SessionManager, chats: Chats
) -> None:
    await store.aset_messages("chat", chats("abcd"))
    before = await log(manager)
    await store.aset_messages("chat", chats("abcd"))
    assert await log(manager) == before
    await store.aset_messages("chat", [*chats("ab"), ChatMessage("x"), *chats("abcd")[2:]])
    after = await log(manager)
    assert after[:2] == before[:2]
    assert [(m.text, m.seq) for m in after[2:]] == [("x", 5), ("c", 6), ("d", 7)]
    assert [m.id for m in after[3:]] == [m.id for m in before[2:]]
    assert [m.timestamp for m in after[3:]] == [m.timestamp for m in before[2:]]


async def test_the_first_write_creates_the_session(
    store: SessionChatStore, manager: SessionManager, chats: Chats
) -> None:
    await store.aset_messages("chat", chats("a"))
    session = await manager.get_session("chat")
    assert (session.user_id, session.context.provider) == ("default", "llama_index")
    await SessionChatStore(manager, user_id="ann").async_add_message("hers", ChatMessage("a"))
    assert (await manager.get_session("hers")).user_id == "ann"


def test_another_users_session_does_not_exist(manager: SessionManager, chats: Chats) -> None:
    anns, bobs = (SessionChatStore(manager, user_id=name) for name in ("ann", "bob"))
    anns.set_messages("chat", chats("ab"))
    assert bobs.get_messages("chat") == bobs.get_keys() == []
    assert bobs.delete_messages("chat") is bobs.delete_message("chat", 0) is None
    for write in (
        lambda: bobs.add_message("chat", ChatMessage("x")),
        lambda: bobs.set_messages("chat", chats("x")),
    ):
        with pytest.raises(SessionNotFoundError):
            write()
    assert anns.get_messages("chat") == chats("ab")
    unnamed = SessionChatStore(manager)
    assert (anns.get_keys(), unnamed.get_keys()) == (["chat"], [])
    assert (unnamed.user_id, unnamed.get_messages("chat")) == ("default", [])


@pytest.mark.parametrize("kind", [SessionChatStore, AsyncSessionChatStore])
def test_a_misspelt_argument_is_refused(manager: SessionManager, kind: Any) -> None:
    with pytest.raises(TypeError, match="user"):
        kind(manager, user="ann")


def test_keys_come_from_all_pages(store: SessionChatStore) -> None:
    keys = [f"chat {n}" for n in range(230)]
    for key in keys:
        store.add_message(key, ChatMessage("hi"))
    for key in reversed(keys[:5]):
        store.add_message(key, ChatMessage("again"))
    assert store.get_keys() == keys, "in the order of creation, as a dict has them"


def test_what_cannot_be_stored_stores_nothing(store: SessionChatStore, chats: Chats) -> None:
    bad = ChatMessage("x", additional_kwargs={"a": object()})
    for write in (
        lambda: store.add_message("new", bad),
        lambda: store.set_messages("new", [*chats("a"), bad]),
    ):
        with pytest.raises(InvalidInputError):
            write()
    assert store.get_keys() == []
    store.set_messages("chat", chats("abc"))
    with pytest.raises(InvalidInputError):
        store.set_messages("chat", [*chats("a"), bad])
    with pytest.raises(InvalidInputError):
        store.add_message("chat", bad, idx=1)
    assert said(store) == "abc"


def test_an_archived_session_can_be_read_only(store: SessionChatStore, chats: Chats) -> None:
    store.set_messages("chat", chats("ab"))
    run(store.manager.archive_session("chat"))
    for write in (
        lambda: store.add_message("chat", ChatMessage("c")),
        lambda: store.delete_last_message("chat"),
        lambda: store.set_messages("chat", []),
    ):
        with pytest.raises(SessionInactiveError):
            write()
    assert said(store) == "ab"


async def test_one_of_several_results_is_deleted(
    store: SessionChatStore, manager: SessionManager
) -> None:
    session = await manager.get_or_create_session("chat")
    results = [ToolResultBlock(tool_call_id=str(n), content=f"{n}") for n in range(3)]
    await session.record(SessionMessage(role="tool", content=results))
    assert (await store.adelete_message("chat", 1)).content == "1"
    (message,) = await log(manager)
    assert message.content == [results[0], results[2]]
    assert message.seq == 1


def test_middleware_sees_what_is_new(store: SessionChatStore, chats: Chats) -> None:
    class Redact(ISessionMiddleware):
        async def process_outgoing_message(
            self, session: ISession, message: SessionMessage
        ) -> SessionMessage:
            return message.replaced(content=message.text.replace("secret", "***"))

        process_incoming_message = process_outgoing_message

    store.manager.add_global_middleware(Redact())
    store.add_message("chat", ChatMessage("a secret", role="assistant"))
    store.add_message("chat", ChatMessage("secret"), idx=0)
    store.set_messages("chat", [*store.get_messages("chat"), ChatMessage("my secret")])
    assert [m.content for m in store.get_messages("chat")] == ["***", "a ***", "my ***"]


# Anywhere


async def test_sync_calls_work_in_a_running_loop(store: SessionChatStore, chats: Chats) -> None:
    store.set_messages("chat", chats("ab"))
    store.delete_last_message("chat")
    assert said(store) == "a"


def test_ten_threads_lose_nothing(store: SessionChatStore) -> None:
    def work(n: int) -> None:
        for m in range(5):
            store.add_message("chat", ChatMessage(f"{n}.{m}"))
        assert store.delete_message("chat", 0) is not None

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(work, range(10)))
    left = [m.content for m in store.get_messages("chat")]
    assert len(left) == len(set(left)) == 40


def test_deleting_at_once_removes_each_once(store: SessionChatStore, chats: Chats) -> None:
    store.set_messages("chat", [ChatMessage(str(n)) for n in range(20)])
    with ThreadPoolExecutor(10) as pool:
        removed = list(pool.map(lambda n: store.delete_message("chat", n % 3), range(20)))
    kept = [m.content for m in store.get_messages("chat")]
    assert sorted([m.content for m in removed if m] + kept, key=int) == [str(n) for n in range(20)]


def test_two_loops_use_one_store(store: SessionChatStore) -> None:
    async def work(name: str) -> None:
        for n in range(5):
            await store.async_add_message("chat", ChatMessage(f"{name}{n}"))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: asyncio.run(work(name)), "ab"))
    assert len(store.get_messages("chat")) == 10


# Written down


def test_a_memory_is_written_down_with_its_store(store: SessionChatStore, chats: Chats) -> None:
    memory = ChatMemoryBuffer.from_defaults(chat_store=store, chat_store_key="chat")
    memory.set(chats("ab"))
    text = memory.to_string()
    back = ChatMemoryBuffer.from_string(text)
    assert back.get_all() == chats("ab")
    assert type(back.chat_store) is SessionChatStore
    assert back.chat_store.manager is store.manager
    assert set(json.loads(text)["chat_store"]) == {"address", "user_id", "class_name"}


@pytest.mark.parametrize("kind", [SessionChatStore, AsyncSessionChatStore])
def test_the_ways_of_writing_it_down(manager: SessionManager, kind: Any) -> None:
    store = kind(manager=manager, user_id="ann")
    for back in (
        kind.model_validate(store.model_dump()),
        kind.model_validate_json(store.model_dump_json()),
        pickle.loads(pickle.dumps(store)),
        copy.deepcopy(store),
        copy.copy(store),
        store.model_copy(deep=True),
    ):
        assert type(back) is kind
        assert back.manager is manager
        assert (back.user_id, back.address) == ("ann", store.address)
