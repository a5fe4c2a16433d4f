"""Whose sessions each door reads and writes: all doors alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from langswarm_session import (
    InMemorySessionStorage,
    InvalidInputError,
    SessionManager,
    SessionMessage,
    SessionNotFoundError,
)
from langswarm_session.doors.keyed_sessions import KeyedSessions

pytest.importorskip("langchain_core")
pytest.importorskip("llama_index.core")
pytest.importorskip("agents")

from langchain_core.messages import HumanMessage
from langchain_langswarm import SessionChatMessageHistory
from llama_index.core.base.llms.types import ChatMessage
from llama_index_langswarm import AsyncSessionChatStore, SessionChatStore
from openai_agents_langswarm import AgentSession

SECRET = "the victim's"


class Door(NamedTuple):
    """A way to open a door to the session "chat", to read and to write through it."""

    open: Callable[..., Any]
    read: Callable[[Any], Awaitable[Any]]
    write: Callable[[Any], Awaitable[Any]]
    clear: Callable[[Any], Awaitable[Any]]


DOORS = {
    "KeyedSessions": Door(
        lambda manager, **user: KeyedSessions("a_door", manager, **user),
        lambda door: door.messages("chat"),
        lambda door: door.record("chat", [SessionMessage(role="user", content="hi")]),
        lambda door: door.clear("chat"),
    ),
    "SessionChatMessageHistory": Door(
        lambda manager, **user: SessionChatMessageHistory("chat", manager, **user),
        lambda door: door.aget_messages(),
        lambda door: door.aadd_messages([HumanMessage("hi")]),
        lambda door: door.aclear(),
    ),
    "SessionChatStore": Door(
        SessionChatStore,
        lambda door: door.aget_messages("chat"),
        lambda door: door.async_add_message("chat", ChatMessage("hi")),
        lambda door: door.adelete_messages("chat"),
    ),
    "AsyncSessionChatStore": Door(
        AsyncSessionChatStore,
        lambda door: door.get_messages("chat"),
        lambda door: door.add_message("chat", ChatMessage("hi")),
        lambda door: door.delete_messages("chat"),
    ),
    "AgentSession": Door(
        lambda manager, **user: AgentSession("chat", manager, **user),
        lambda door: door.get_items(),
        lambda door: door.add_items([{"role": "user", "content": "hi"}]),
        lambda door: door.clear_session(),
    ),
}

every_door = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)


class Watched(InMemorySessionStorage):
    """A storage that no door may ask for any user's sessions, and that counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.for_an_operator = False

    async def find_session(self, session_id: str, *, user_id: str | None = None) -> Any:
        assert user_id is not None or self.for_an_operator, "a door looked for anybody's session"
        self.calls["find_session"] += 1
        return await super().find_session(session_id, user_id=user_id)

    async def list_sessions(self, **options: Any) -> Any:
        assert options.get("user_id") is not None, "a door listed everybody's sessions"
        return await super().list_sessions(**options)


@pytest.fixture
def storage() -> Watched:
    return Watched()


@pytest.fixture
async def manager(storage: Watched) -> AsyncIterator[SessionManager]:
    async with SessionManager(storage) as manager:
        yield manager


async def given(manager: SessionManager, user_id: str) -> None:
    session = await manager.create_session(user_id, "mock", "echo", session_id="chat")
    await session.record(SessionMessage(role="user", content=SECRET))


async def delete(manager: SessionManager, storage: Watched) -> None:
    storage.for_an_operator = True
    await manager.delete_session("chat")
    storage.for_an_operator = False


@every_door
@pytest.mark.parametrize("user", [None, "", " ", "a\0", []])
def test_what_is_no_user_opens_no_door(manager: SessionManager, door: Door, user: Any) -> None:
    with pytest.raises((InvalidInputError, ValueError), match="user_id"):
        door.open(manager, user_id=user)


@every_door
@pytest.mark.parametrize("user", [{}, {"user_id": "default"}])
async def test_left_out_it_is_the_default_user(
    manager: SessionManager, door: Door, user: dict[str, str]
) -> None:
    opened = door.open(manager, **user)
    assert opened.user_id == "default"
    await door.write(opened)
    assert len(await door.read(opened)) == 1
    session = await manager.get_session("chat", user_id="default")
    assert session.metrics.message_count == 1


@every_door
@pytest.mark.parametrize("user", [{}, {"user_id": "attacker"}])
async def test_another_users_session_does_not_exist(
    manager: SessionManager, door: Door, user: dict[str, str]
) -> None:
    await given(manager, "victim")
    opened = door.open(manager, **user)
    assert not await door.read(opened)
    await door.clear(opened)
    with pytest.raises(SessionNotFoundError):
        await door.write(opened)
    assert not await door.read(opened)
    victims = await manager.get_session("chat", user_id="victim")
    assert [message.text for message in await victims.get_messages()] == [SECRET]


@every_door
async def test_a_session_that_was_created_again_is_found_by_its_owner_only(
    manager: SessionManager, storage: Watched, door: Door
) -> None:
    """The id is a door's key: the next call finds what has it now, if that is the user's own."""
    opened = door.open(manager, user_id="ann")
    await door.write(opened)
    await door.read(opened)
    await delete(manager, storage)
    assert not await door.read(opened)
    await door.write(opened)
    assert len(await door.read(opened)) == 1
    await delete(manager, storage)
    await given(manager, "victim")
    assert not await door.read(opened)
    with pytest.raises(SessionNotFoundError):
        await door.write(opened)


@every_door
async def test_knowing_the_owner_costs_no_further_call(
    manager: SessionManager, storage: Watched, door: Door
) -> None:
    """A door that knows its session from the call before writes without looking it up."""
    opened = door.open(manager, user_id="ann")
    await door.write(opened)
    storage.calls.clear()
    for _ in range(3):
        await door.write(opened)
    assert storage.calls["find_session"] == 0
