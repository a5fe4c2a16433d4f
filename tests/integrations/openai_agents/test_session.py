"""The session protocol of the Agents SDK."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from agents.memory import Session, SessionSettings, SQLiteSession
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai_agents_langswarm import AgentSession

from langswarm_session import (
    InvalidInputError,
    ISession,
    ISessionMiddleware,
    ManagerClosedError,
    MessageRefusedError,
    SessionInactiveError,
    SessionManager,
    SessionMessage,
    SessionNotFoundError,
    ToolResultBlock,
    create_session_manager,
    set_session_manager,
)
from langswarm_session._sync.bridge import run

CALLS = [
    {"type": "function_call", "id": f"fc_{n}", "call_id": f"call_{n}", "name": "f",
     "arguments": "{}", "status": "completed"}
    for n in range(3)
]  # fmt: skip
RESULTS = [
    {"type": "function_call_output", "call_id": f"call_{n}", "output": f"{n}"} for n in range(3)
]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


TALK = [user("weather?"), *CALLS, *RESULTS, user("thanks")]


async def test_it_is_a_session_of_the_sdk(chat: AgentSession) -> None:
    assert isinstance(chat, Session)
    assert chat.session_id == "chat"
    assert chat.session_settings == SessionSettings()


async def test_items_come_back_as_they_went_in(
    chat: AgentSession, open_chat: Callable[..., AgentSession]
) -> None:
    given = copy.deepcopy(TALK)
    await chat.add_items(given)
    assert given == TALK
    assert await chat.get_items() == TALK
    assert await open_chat().get_items() == TALK


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, 5, 8, 99])
async def test_the_newest_are_read(chat: AgentSession, limit: int) -> None:
    await chat.add_items(TALK)
    assert await chat.get_items(limit) == TALK[max(0, len(TALK) - limit) :]


async def test_the_settings_say_how_many(open_chat: Callable[..., AgentSession]) -> None:
    chat = open_chat(session_settings={"limit": 2})
    await chat.add_items(TALK)
    await chat.add_items([user("bye")])
    assert await chat.get_items() == [*TALK[-1:], user("bye")]
    assert await chat.get_items(3) == [*TALK[-2:], user("bye")]
    assert await open_chat(session_settings=SessionSettings(limit=9)).get_items() == [
        *TALK,
        user("bye"),
    ]
    assert (await chat.pop_item()) == user("bye")
    assert await open_chat(session_settings=SessionSettings(limit=1)).get_items() == TALK[-1:]
    with pytest.raises(InvalidInputError):
        await chat.get_items(-1)


async def test_popping_takes_the_newest(chat: AgentSession, manager: SessionManager) -> None:
    await chat.add_items(TALK)
    for n in range(len(TALK), 0, -1):
        assert await chat.pop_item() == TALK[n - 1]
        assert await chat.get_items() == TALK[: n - 1]
    assert await chat.pop_item() is None
    assert (await manager.get_session("chat")).metrics.message_count == 0
    await chat.add_items(TALK)
    assert await chat.get_items() == TALK


async def test_a_message_that_gave_an_item_away_stays_where_it_was(
    chat: AgentSession, manager: SessionManager
) -> None:
    await chat.add_items(TALK[:4])
    session = await manager.get_session("chat")
    before = await session.get_messages()
    await chat.pop_item()
    after = await session.get_messages()
    assert [(m.id, m.seq, m.timestamp) for m in after] == [
        (m.id, m.seq, m.timestamp) for m in before
    ]
    assert after[1].content == before[1].blocks[:2]


async def test_popping_what_others_wrote(chat: AgentSession, manager: SessionManager) -> None:
    session = await manager.get_or_create_session("chat")
    results = [ToolResultBlock(tool_call_id=str(n), content=f"{n}") for n in range(3)]
    await session.record(
        [
            SessionMessage(role="tool", content=results),
            SessionMessage(role="assistant", content=[]),
        ]
    )
    assert (await chat.pop_item())["output"] == "2"
    assert [m.content for m in await session.get_messages()] == [results[:2], []]
    assert [item["output"] for item in await chat.get_items(5)] == ["0", "1"]
    assert (await chat.pop_item())["output"] == "1"
    assert (await chat.pop_item())["output"] == "0"
    assert await chat.pop_item() is None


async def test_clearing_keeps_the_session(chat: AgentSession, manager: SessionManager) -> None:
    await chat.add_items(TALK)
    await chat.clear_session()
    assert await chat.get_items() == []
    assert (await manager.get_session("chat")).metrics.message_count == 0


async def test_reading_creates_nothing(chat: AgentSession, manager: SessionManager) -> None:
    assert await chat.get_items() == await chat.get_items(3) == []
    assert await chat.pop_item() is None
    await chat.clear_session()
    await chat.add_items([])
    with pytest.raises(InvalidInputError):
        await chat.add_items([user("a"), {"role": "user", "content": object()}])
    with pytest.raises(SessionNotFoundError):
        await manager.get_session("chat")


async def test_the_first_write_creates_the_session(
    chat: AgentSession, manager: SessionManager
) -> None:
    await chat.add_items(TALK)
    session = await manager.get_session("chat")
    assert (session.user_id, session.context.provider) == ("default", "openai_agents")
    assert [turn.status.value for turn in await session.get_turns()] == ["complete"]


async def test_another_users_session_does_not_exist(
    open_chat: Callable[..., AgentSession],
) -> None:
    anns, bobs = open_chat(user_id="ann"), open_chat(user_id="bob")
    await anns.add_items(TALK)
    assert await bobs.get_items() == []
    assert await bobs.pop_item() is None
    await bobs.clear_session()
    with pytest.raises(SessionNotFoundError):
        await bobs.add_items(TALK)
    assert await anns.get_items() == TALK
    assert (open_chat().user_id, await open_chat().get_items()) == ("default", [])


async def test_an_archived_session_can_be_read_only(
    chat: AgentSession, manager: SessionManager
) -> None:
    await chat.add_items(TALK)
    await manager.archive_session("chat")
    for write in (chat.pop_item, lambda: chat.add_items(TALK)):
        with pytest.raises(SessionInactiveError):
            await write()
    assert await chat.get_items() == TALK
    await manager.close()
    with pytest.raises(ManagerClosedError):
        await chat.get_items()


async def test_the_shared_manager_is_used_where_none_is_given() -> None:
    async with create_session_manager("memory") as manager:
        set_session_manager(manager)
        try:
            assert AgentSession("chat").manager is manager
        finally:
            set_session_manager(None)


async def test_middleware_sees_what_is_written(chat: AgentSession, manager: SessionManager) -> None:
    class Redact(ISessionMiddleware):
        async def process_outgoing_message(
            self, session: ISession, message: SessionMessage
        ) -> SessionMessage:
            if "refuse" in message.text:
                raise MessageRefusedError("not that")
            return message.replaced(content=message.text.replace("secret", "***"))

        process_incoming_message = process_outgoing_message

    manager.add_global_middleware(Redact())
    answer = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
              "content": [{"type": "output_text", "text": "a secret", "annotations": []}]}  # fmt: skip
    await chat.add_items([user("my secret"), answer])
    assert [item["content"] for item in await chat.get_items()] == ["my ***", "a ***"]
    with pytest.raises(MessageRefusedError):
        await chat.add_items([user("fine"), user("refuse")])
    assert len(await chat.get_items()) == 2


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add_items"), st.lists(st.sampled_from(TALK), max_size=4)),
        st.tuples(st.just("pop_item")),
        st.tuples(st.just("get_items"), st.integers(1, 6)),
        st.tuples(st.just("clear_session")),
    ),
    max_size=10,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_it_does_what_the_sdks_own_does(
    chat: AgentSession, operations: list[tuple[Any, ...]]
) -> None:
    async def check() -> None:
        await chat.clear_session()
        own = SQLiteSession("chat")
        try:
            for name, *arguments in operations:
                theirs = await getattr(own, name)(*arguments)
                assert await getattr(chat, name)(*arguments) == theirs
                assert await chat.get_items() == await own.get_items()
        finally:
            own.close()

    run(check())


async def test_adding_and_popping_at_once_loses_nothing(
    open_chat: Callable[..., AgentSession],
) -> None:
    chats = [open_chat() for _ in range(5)]
    await asyncio.gather(
        *(chats[n % 5].add_items([user(f"{n}.{m}") for m in range(3)]) for n in range(10))
    )
    popped = await asyncio.gather(*(chats[n % 5].pop_item() for n in range(12)))
    left = [item["content"] for item in await chats[0].get_items()]
    assert sorted([item["content"] for item in popped] + left) == sorted(
        f"{n}.{m}" for n in range(10) for m in range(3)
    )


def test_ten_threads_with_loops_of_their_own(open_chat: Callable[..., AgentSession]) -> None:
    async def work(n: int) -> None:
        chat = open_chat()
        for m in range(4):
            await chat.add_items([user(f"{n}.{m}")])
        await chat.pop_item()

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda n: asyncio.run(work(n)), range(10)))
    assert len(run(open_chat().get_items())) == 30
