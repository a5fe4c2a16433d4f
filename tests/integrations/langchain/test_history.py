"""LangChain's chat message history on a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_langswarm import SessionChatMessageHistory

from langswarm_session import (
    BaseSession,
    InvalidInputError,
    ISession,
    ISessionLifecycleHook,
    ISessionMiddleware,
    ManagerClosedError,
    MessageConflictError,
    MessageRefusedError,
    SessionInactiveError,
    SessionManager,
    SessionMessage,
    SessionNotFoundError,
    set_session_manager,
)
from langswarm_session._sync.bridge import run
from langswarm_session.blocks import ToolResultBlock

TALK = [
    SystemMessage("be brief"),
    HumanMessage("weather?", id="q"),
    AIMessage("", tool_calls=[{"name": "look", "args": {"at": "Åbo"}, "id": "c"}]),
    ToolMessage("21", tool_call_id="c", artifact=(1, b"2")),
    AIMessage("21 degrees", response_metadata={"id": "r"}),
]


@pytest.fixture
def history(manager: SessionManager) -> SessionChatMessageHistory:
    return SessionChatMessageHistory("chat", manager)


@pytest.fixture
def shared(manager: SessionManager) -> Iterator[SessionManager]:
    """The manager, shared with the whole program."""
    set_session_manager(manager)
    yield manager
    set_session_manager(None)


def test_it_is_a_chat_message_history(history: SessionChatMessageHistory) -> None:
    assert isinstance(history, BaseChatMessageHistory)
    assert "'chat'" in repr(history)


def test_messages_come_back_in_order(history: SessionChatMessageHistory) -> None:
    history.add_messages(TALK[:2])
    history.add_message(TALK[2])
    history.add_messages(tuple(TALK[3:]))
    assert history.messages == TALK
    assert str(history).splitlines()[:2] == ["System: be brief", "Human: weather?"]


async def test_messages_come_back_in_order_async(history: SessionChatMessageHistory) -> None:
    await history.aadd_messages(TALK[:2])
    await history.aadd_messages(TALK[2:])
    assert await history.aget_messages() == TALK


async def test_sync_calls_work_in_a_running_loop(history: SessionChatMessageHistory) -> None:
    history.add_messages(TALK[:2])
    await history.aadd_messages(TALK[2:])
    assert history.messages == TALK
    history.clear()
    assert await history.aget_messages() == []


def test_texts_can_be_added(history: SessionChatMessageHistory) -> None:
    history.add_user_message("hi")
    history.add_ai_message("hello")
    assert history.messages == [HumanMessage("hi"), AIMessage("hello")]


def test_ten_threads_lose_nothing(history: SessionChatMessageHistory) -> None:
    def write(thread: int) -> None:
        for number in range(10):
            history.add_messages(
                [HumanMessage(f"{thread}.{number}"), AIMessage(f"{thread}.{number}")]
            )

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(write, range(10)))
    texts = [message.text for message in history.messages]
    assert len(texts) == 200
    assert texts[::2] == texts[1::2], "the messages of one call stay together"
    for thread in range(10):
        own = [text for text in texts[::2] if text.startswith(f"{thread}.")]
        assert own == [f"{thread}.{number}" for number in range(10)]


def test_two_histories_are_one_session(
    history: SessionChatMessageHistory, make_manager: Callable[[], SessionManager]
) -> None:
    history.add_messages(TALK)
    other = SessionChatMessageHistory("chat", make_manager())
    assert other.messages == TALK
    other.add_user_message("more")
    assert history.messages == [*TALK, HumanMessage("more")]


def test_the_shared_manager_is_used_where_none_is_given(shared: SessionManager) -> None:
    SessionChatMessageHistory("chat").add_messages(TALK)
    assert SessionChatMessageHistory("chat", shared).messages == TALK


def test_messages_of_one_call_are_one_turn(
    history: SessionChatMessageHistory, statuses: Callable[[], list[str]]
) -> None:
    history.add_messages(TALK)
    history.add_messages(TALK[2:])
    assert statuses() == ["complete", "complete"]


# The session


async def test_the_first_write_creates_the_session(
    history: SessionChatMessageHistory, manager: SessionManager
) -> None:
    await history.aadd_messages(TALK)
    session = await manager.get_session("chat")
    assert (session.user_id, session.context.provider) == ("default", "langchain")


async def test_a_new_session_is_the_named_users(manager: SessionManager) -> None:
    await SessionChatMessageHistory("chat", manager, user_id="ann").aadd_messages(TALK)
    assert (await manager.get_session("chat")).user_id == "ann"


def test_reading_creates_nothing(
    history: SessionChatMessageHistory, exists: Callable[[str], bool]
) -> None:
    assert history.messages == []
    assert str(history) == ""
    history.clear()
    history.add_messages([])
    assert not exists("chat")


def test_clearing_keeps_the_session(
    history: SessionChatMessageHistory, exists: Callable[[str], bool]
) -> None:
    history.add_messages(TALK)
    history.clear()
    assert history.messages == []
    assert exists("chat")
    history.add_messages(TALK)
    assert history.messages == TALK, "the ids are free again"


async def test_clearing_async(history: SessionChatMessageHistory) -> None:
    await history.aadd_messages(TALK)
    await history.aclear()
    assert await history.aget_messages() == []


def test_another_users_session_does_not_exist(manager: SessionManager) -> None:
    anns = SessionChatMessageHistory("chat", manager, user_id="ann")
    bobs = SessionChatMessageHistory("chat", manager, user_id="bob")
    anns.add_messages(TALK)
    assert bobs.messages == []
    with pytest.raises(SessionNotFoundError):
        bobs.add_user_message("hi")
    bobs.clear()
    assert anns.messages == TALK
    unnamed = SessionChatMessageHistory("chat", manager)
    assert (unnamed.user_id, unnamed.messages) == ("default", [])


def test_a_session_deleted_underneath_begins_anew(
    history: SessionChatMessageHistory, manager: SessionManager
) -> None:
    history.add_messages(TALK)
    run(manager.delete_session("chat"))
    assert history.messages == []
    history.add_messages(TALK[:2])
    run(manager.delete_session("chat"))
    history.add_messages(TALK[2:])
    assert history.messages == TALK[2:]


def test_a_session_that_changed_hands_is_refused(manager: SessionManager) -> None:
    anns = SessionChatMessageHistory("chat", manager, user_id="ann")
    anns.add_messages(TALK)
    run(manager.delete_session("chat"))
    SessionChatMessageHistory("chat", manager, user_id="bob").add_user_message("private")
    assert anns.messages == []
    with pytest.raises(SessionNotFoundError):
        anns.add_user_message("hi")


def test_an_archived_session_can_be_read_only(
    history: SessionChatMessageHistory, manager: SessionManager
) -> None:
    history.add_messages(TALK)
    run(manager.archive_session("chat"))
    with pytest.raises(SessionInactiveError):
        history.add_user_message("more")
    assert history.messages == TALK


async def test_a_closed_manager_says_so(
    history: SessionChatMessageHistory, manager: SessionManager
) -> None:
    await history.aadd_messages(TALK)
    await manager.close()
    with pytest.raises(ManagerClosedError):
        await history.aget_messages()
    with pytest.raises(ManagerClosedError):
        history.add_user_message("hi")


@pytest.mark.parametrize("session_id", ["", "  ", "a\0b", "x" * 513, None, 1.5, True])
def test_an_id_that_cannot_be_one_is_refused(manager: SessionManager, session_id: Any) -> None:
    history = SessionChatMessageHistory(session_id, manager)
    with pytest.raises(InvalidInputError, match="session_id"):
        _ = history.messages
    with pytest.raises(InvalidInputError, match="session_id"):
        history.add_user_message("hi")


# The messages


def test_chunks_become_whole_messages(history: SessionChatMessageHistory) -> None:
    history.add_message(AIMessageChunk("a") + AIMessageChunk("b"))
    (message,) = history.messages
    assert type(message) is AIMessage
    assert message == AIMessage("ab")


def test_a_repeated_id_is_stored_once(history: SessionChatMessageHistory) -> None:
    history.add_messages([HumanMessage("hi", id="1"), HumanMessage("hi", id="1")])
    history.add_messages([HumanMessage("hi", id="1"), AIMessage("hello", id="2")])
    assert history.messages == [HumanMessage("hi", id="1"), AIMessage("hello", id="2")]


def test_messages_without_ids_are_never_the_same(history: SessionChatMessageHistory) -> None:
    message = HumanMessage("hi")
    history.add_messages([message, message])
    history.add_message(message)
    assert history.messages == [message] * 3


def test_an_id_with_another_content_is_refused(history: SessionChatMessageHistory) -> None:
    history.add_message(HumanMessage("hi", id="1"))
    with pytest.raises(MessageConflictError):
        history.add_messages([HumanMessage("new"), HumanMessage("changed", id="1")])
    assert history.messages == [HumanMessage("hi", id="1")]


@pytest.mark.parametrize(
    "bad",
    [RemoveMessage(id="1"), ToolMessage("a", tool_call_id="c", artifact=object()), "text"],
    ids=lambda bad: type(bad).__name__,
)
def test_what_cannot_be_stored_stores_nothing(
    history: SessionChatMessageHistory, exists: Callable[[str], bool], bad: Any
) -> None:
    with pytest.raises(InvalidInputError):
        history.add_messages([HumanMessage("hi"), bad])
    assert not exists("chat")


SURROGATES: dict[str, BaseMessage] = {
    "text": HumanMessage("\ud800"),
    "block": HumanMessage([{"type": "text", "text": "\ud800"}]),
    "id": HumanMessage("hi", id="\ud800"),
    "kwargs": HumanMessage("hi", additional_kwargs={"a": "\ud800"}),
    "arguments": AIMessage("", tool_calls=[{"name": "f", "args": {"\ud800": 1}, "id": "c"}]),
}


@pytest.mark.parametrize("place", SURROGATES)
def test_a_lone_surrogate_stores_nothing(history: SessionChatMessageHistory, place: str) -> None:
    with pytest.raises(InvalidInputError):
        history.add_messages([HumanMessage("hi"), SURROGATES[place]])
    assert history.messages == []


@pytest.mark.parametrize("depth", [140, 230, 5000])
def test_data_nested_too_deeply_leaves_the_session_readable(
    history: SessionChatMessageHistory, depth: int
) -> None:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    try:
        history.add_message(ToolMessage("a", tool_call_id="c", artifact=nested))
    except InvalidInputError:
        assert depth > 140
    assert len(history.messages) <= 1


# The one write path


class Watch(ISessionLifecycleHook):
    def __init__(self) -> None:
        self.seen: list[str] = []

    async def on_session_created(self, session: ISession) -> None:
        self.seen.append(f"created {session.session_id}")

    async def on_message_sent(self, session: ISession, message: SessionMessage) -> None:
        self.seen.append(f"sent {message.text}")

    async def on_message_received(self, session: ISession, message: SessionMessage) -> None:
        self.seen.append(f"received {message.text}")


def test_hooks_see_what_is_written(
    history: SessionChatMessageHistory, manager: SessionManager
) -> None:
    watch = Watch()
    manager.add_global_hook(watch)
    history.add_messages([HumanMessage("hi"), AIMessage("hello")])
    assert watch.seen == ["created chat", "sent hi", "received hello"]


def test_middleware_changes_what_is_written(redacting: SessionManager) -> None:
    history = SessionChatMessageHistory("chat", redacting)
    history.add_messages(
        [
            HumanMessage("my secret"),
            AIMessage("secret!", tool_calls=[{"name": "f", "args": {"a": "secret"}, "id": "c"}]),
            ToolMessage("the secret", tool_call_id="c"),
        ]
    )
    assert [message.text for message in history.messages] == ["my ***", "***!", "the ***"]
    assert "secret" not in repr(history.messages)


def test_middleware_that_refuses_a_message_stores_none(manager: SessionManager) -> None:
    class Refuse(ISessionMiddleware):
        async def process_incoming_message(
            self, session: ISession, message: SessionMessage
        ) -> SessionMessage:
            raise MessageRefusedError("not that")

    manager.add_global_middleware(Refuse())
    history = SessionChatMessageHistory("chat", manager)
    with pytest.raises(MessageRefusedError, match="not that"):
        history.add_messages([HumanMessage("hi"), AIMessage("hello")])
    assert history.messages == []


def test_a_hook_may_read_the_history_itself(manager: SessionManager) -> None:
    counts: list[int] = []

    class Count(ISessionLifecycleHook):
        async def on_message_sent(self, session: ISession, message: SessionMessage) -> None:
            counts.append(len(SessionChatMessageHistory(session.session_id, manager).messages))

    manager.add_global_hook(Count())
    SessionChatMessageHistory("chat", manager).add_user_message("hi")
    assert counts == [1]


async def test_within_a_turn_of_the_session_it_adds_to_that_turn(
    session: BaseSession, manager: SessionManager, turns: Callable[[BaseSession], Any]
) -> None:
    history = SessionChatMessageHistory(session.session_id, manager, user_id=session.user_id)
    async with await session.begin_turn("weather?"):
        history.add_messages(TALK[2:])
    assert [message.type for message in history.messages] == ["human", "ai", "tool", "ai"]
    assert await turns(session) == ["complete"]


async def test_several_results_in_one_message_are_several_messages(
    history: SessionChatMessageHistory, manager: SessionManager
) -> None:
    session = await manager.create_session("default", "mock", "echo", session_id="chat")
    results = [ToolResultBlock(tool_call_id=name, content=f"saw {name}") for name in "abc"]
    await session.record(SessionMessage(id="m", role="tool", content=results))
    messages = await history.aget_messages()
    assert [(m.id, m.tool_call_id, m.text) for m in messages if isinstance(m, ToolMessage)] == [
        ("m", "a", "saw a"), ("m:2", "b", "saw b"), ("m:3", "c", "saw c")
    ]  # fmt: skip
    assert messages == history.messages, "with the same ids each time"
