"""What the Agents SDK's compaction does to the record."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from agents import Agent, Runner, function_tool
from agents.memory import OpenAIResponsesCompactionSession, SessionSettings, SQLiteSession
from agents.memory import session as sdk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai_agents_langswarm import AgentSession

from langswarm_session import (
    BaseSession,
    MockProviderSession,
    ProviderRateLimitError,
    ProviderSessionFactory,
    SessionManager,
    SessionMessage,
)
from langswarm_session._sync.bridge import run
from langswarm_session.requests.normalize import Target
from langswarm_session.storage.replacements import REPLACES

sys.path.insert(0, str(Path(__file__).parent))
from agents_model import ScriptedModel, assistant_message, function_call

httpx: Any = import_module("httpx2" if find_spec("httpx2") else "httpx")
"""What the SDK speaks HTTP by: httpx2 from openai 3 on."""

pytestmark = pytest.mark.skipif(
    not hasattr(sdk, "_CompactionSnapshot"), reason="this version of the SDK asks for no snapshot"
)

OpenChat = Callable[..., AgentSession]

COMPACTED: list[Any] = [{"type": "compaction", "id": "cmp_1", "encrypted_content": "x"}]


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def answer(text: str) -> Any:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {
        "id": f"msg_{text}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }


def talk(first: int, last: int) -> list[Any]:
    return [item for n in range(first, last) for item in (user(f"q{n}"), answer(f"a{n}"))]


def compacting(
    chat: AgentSession, meanwhile: Callable[[], Awaitable[Any]] | None = None
) -> OpenAIResponsesCompactionSession:
    """The SDK's session that has everything compacted to one item, while something else happens."""

    async def compact(**_: Any) -> Any:
        if meanwhile is not None:
            await meanwhile()
        return SimpleNamespace(output=COMPACTED, usage=None)

    client: Any = SimpleNamespace(responses=SimpleNamespace(compact=compact))
    return OpenAIResponsesCompactionSession("chat", chat, client=client, compaction_mode="input")


async def stored(manager: SessionManager) -> list[SessionMessage]:
    return await (await manager.get_session("chat")).get_messages()


async def test_a_snapshot_is_replaced_and_stays_in_the_record(
    chat: AgentSession, manager: SessionManager
) -> None:
    await chat.add_items(talk(0, 3))
    before = await stored(manager)
    snapshot = await chat._get_compaction_snapshot(10)
    assert snapshot is not None
    assert (snapshot.items, snapshot.complete) == (talk(0, 3), True)
    assert await snapshot.replace_suffix(0, COMPACTED)
    assert await chat.get_items() == COMPACTED
    after = await stored(manager)
    assert after[:-1] == before
    assert after[-1].metadata[REPLACES] == [[1, 6]]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
async def test_a_part_of_a_snapshot_is_replaced(chat: AgentSession, limit: int) -> None:
    await chat.add_items(talk(0, 3))
    snapshot = await chat._get_compaction_snapshot(limit)
    assert snapshot is not None
    assert (snapshot.items, snapshot.complete) == (talk(0, 3)[-limit:], False)
    assert await snapshot.replace_suffix(limit - 1, COMPACTED)
    assert await chat.get_items() == [*talk(0, 3)[:-1], *COMPACTED]
    assert await chat.get_items(2) == [*talk(0, 3)[-2:-1], *COMPACTED]


async def test_a_part_of_what_a_model_gave_in_a_row_is_not_replaced(chat: AgentSession) -> None:
    await chat.add_items([user("q"), answer("a"), answer("b")])
    snapshot = await chat._get_compaction_snapshot(1)
    assert snapshot is not None
    assert snapshot.items == [answer("b")]
    assert not await snapshot.replace_suffix(0, COMPACTED)
    assert len(await chat.get_items()) == 3


async def test_nothing_is_replaced_where_somebody_wrote_meanwhile(
    open_chat: OpenChat, manager: SessionManager
) -> None:
    chat, other = open_chat(), open_chat()
    await chat.add_items(talk(0, 2))
    for write in (
        lambda: other.add_items([user("meanwhile")]),
        other.pop_item,
        other.clear_session,
    ):
        snapshot = await chat._get_compaction_snapshot(10)
        assert snapshot is not None
        await write()
        items = await other.get_items()
        assert not await snapshot.replace_suffix(0, COMPACTED)
        assert await chat.get_items() == items
    assert await stored(manager) == []


async def test_a_context_that_changes_meanwhile_does_not_matter(
    chat: AgentSession, manager: SessionManager
) -> None:
    await chat.add_items(talk(0, 2))
    snapshot = await chat._get_compaction_snapshot(10)
    assert snapshot is not None
    await (await manager.get_session("chat")).update_context(title="a talk")
    assert await snapshot.replace_suffix(0, COMPACTED)
    assert await chat.get_items() == COMPACTED


async def test_nobodys_snapshot_is_empty(chat: AgentSession) -> None:
    snapshot = await chat._get_compaction_snapshot(10)
    assert snapshot is not None
    assert (snapshot.items, snapshot.complete) == ([], True)
    assert not await snapshot.replace_suffix(0, COMPACTED)


async def test_a_subclass_is_not_bypassed(manager: SessionManager) -> None:
    class Upper(AgentSession):
        pass

    assert await Upper("chat", manager)._get_compaction_snapshot(10) is None


async def test_an_explicit_compaction_leaves_what_it_has_not_read(
    open_chat: OpenChat, manager: SessionManager
) -> None:
    chat, other = open_chat(), open_chat()
    session = compacting(chat, lambda: other.add_items([user("meanwhile")]))
    await session.add_items(talk(0, 2))
    await session.get_items()
    await session.add_items(talk(2, 3))
    await session.run_compaction({"force": True})
    assert await chat.get_items() == [user("meanwhile"), *COMPACTED]
    assert len(await stored(manager)) == 8


async def test_what_was_cleared_meanwhile_does_not_come_back(open_chat: OpenChat) -> None:
    chat, other = open_chat(), open_chat()
    session = compacting(chat, other.clear_session)
    await session.add_items(talk(0, 2))
    await session.run_compaction({"force": True})
    assert await chat.get_items() == []


async def test_what_others_wrote_between_is_left_where_it_is(open_chat: OpenChat) -> None:
    chat, other = open_chat(), open_chat()
    await chat.add_items(talk(0, 1))
    await chat.get_items()
    for n in range(1, 3):
        await other.add_items([user(f"other {n}")])
        await chat.add_items(talk(n, n + 1))
        await chat.add_items([user(f"more {n}")])
    assert await chat._atomic_replace_items(COMPACTED)
    assert await chat.get_items() == [user("other 1"), user("other 2"), *COMPACTED]


async def test_compacting_to_nothing_leaves_nothing(
    chat: AgentSession, manager: SessionManager
) -> None:
    await chat.add_items(talk(0, 2))
    assert await chat._atomic_replace_items([])
    assert await chat.get_items() == []
    assert len(await stored(manager)) == 5


async def test_a_compaction_that_is_popped_brings_back_what_it_replaced(chat: AgentSession) -> None:
    await chat.add_items(talk(0, 2))
    await chat._atomic_replace_items(COMPACTED)
    assert [await chat.pop_item()] == COMPACTED
    assert await chat.get_items() == talk(0, 2)


async def test_clearing_removes_what_was_replaced(
    chat: AgentSession, manager: SessionManager
) -> None:
    await chat.add_items(talk(0, 2))
    await chat._atomic_replace_items(COMPACTED)
    await chat.clear_session()
    assert await chat.get_items() == await stored(manager) == []


class Reads(MockProviderSession):
    """A provider that reads OpenAI's compactions."""

    def target(self, context: Any, options: Any) -> Target:
        return dataclasses.replace(super().target(context, options), compactions="openai")


KEPT_AND_COMPACTED: list[Any] = [user("q2"), *COMPACTED]


async def compacted(chat: AgentSession, manager: SessionManager) -> BaseSession:
    """Return a session that was compacted twice: of the last turn the user's message is kept."""
    await chat.add_items([{"role": "system", "content": "be brief"}, *talk(0, 2)])
    await chat._atomic_replace_items(COMPACTED)
    await chat.add_items(talk(2, 3))
    await chat._atomic_replace_items(KEPT_AND_COMPACTED)
    await chat.add_items(talk(3, 4))
    return await manager.get_session("chat")


ALL = ["be brief", *(f"{who}{n}" for n in range(4) for who in "qa")]


async def test_who_cannot_read_a_compaction_gets_what_it_stands_for(
    chat: AgentSession, manager: SessionManager
) -> None:
    session = await compacted(chat, manager)
    assert [message.text for message in await session.get_window()] == ALL
    mock = MockProviderSession(["fine"])
    manager.add_provider_session("other", mock)
    await session.switch_provider("other", "m")
    await session.send_message("go on")
    assert [message.text for message in mock.requests[-1].window] == [*ALL, "go on"]
    assert mock.requests[-1].repairs == []
    assert await chat.get_items(3) == [*talk(3, 4)[1:], user("go on"), *(await chat.get_items(1))]


async def test_who_reads_compactions_gets_them(chat: AgentSession, manager: SessionManager) -> None:
    session = await compacted(chat, manager)
    reads, cannot = Reads(["fine"] * 2), MockProviderSession(["fine"])
    manager.add_provider_session("reads", reads)
    manager.add_provider_session("cannot", cannot)
    await session.switch_provider("reads", "m")
    await session.send_message("one")
    window = [message.text for message in await session.get_window()]
    assert window == ["q2", "", "q3", "a3", "one", "fine"]
    assert [message.text for message in reads.requests[-1].window] == window[:-1]
    await session.switch_provider("cannot", "m")
    await session.send_message("two")
    assert [m.text for m in cannot.requests[-1].window] == [*ALL, "one", "fine", "two"]
    await session.switch_provider("reads", "m")
    await session.send_message("three")
    sent = [message.text for message in reads.requests[-1].window]
    assert sent == [*window, "two", "fine", "three"]


@pytest.mark.parametrize("is_vendor", [True, False])
async def test_openai_gets_its_compaction_and_compatible_servers_do_not(
    chat: AgentSession, manager: SessionManager, is_vendor: bool
) -> None:
    """As in https://github.com/can1357/oh-my-pi/issues/6343, where the others got neither."""
    bodies: list[Any] = []

    def answered(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        response = {
            "id": "resp_1",
            "object": "response",
            "created_at": 1,
            "model": "gpt-5.5",
            "status": "completed",
            "output": [answer("fine")],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
        return httpx.Response(200, json=response)

    session = await compacted(chat, manager)
    async with httpx.AsyncClient(transport=httpx.MockTransport(answered)) as http:
        address = "https://api.openai.com/v1" if is_vendor else "https://models.example/v1"
        client = openai.AsyncOpenAI(api_key="k", base_url=address, http_client=http)
        provider = ProviderSessionFactory.create_provider_session(
            "openai", client=client, mode="responses"
        )
        manager.add_provider_session("openai", provider)
        await session.switch_provider("openai", "gpt-5.5")
        await session.send_message("go on")
    sent = json.dumps(bodies[-1])
    assert ('"compaction"' in sent) is is_vendor
    assert ("q0" in sent) is not is_vendor
    assert "go on" in sent


async def test_a_provider_that_takes_over_gets_what_a_compaction_stands_for(
    chat: AgentSession, manager: SessionManager
) -> None:
    session = await compacted(chat, manager)
    manager.add_provider_session("reads", Reads([ProviderRateLimitError("busy")]))
    other = MockProviderSession(["fine"])
    manager.add_provider_session("other", other)
    await session.update_context(fallback=[{"provider": "other", "model": "m"}])
    await session.switch_provider("reads", "m")
    await session.send_message("go on")
    assert [message.text for message in other.requests[-1].window] == [*ALL, "go on"]


async def test_only_what_a_window_needs_is_read(
    chat: AgentSession, manager: SessionManager
) -> None:
    session = await compacted(chat, manager)
    mock = MockProviderSession(["fine"])
    manager.add_provider_session("other", mock)
    await session.switch_provider("other", "m")
    await session.update_context(max_messages=4)
    await session.send_message("go on")
    assert [m.text for m in mock.requests[-1].window] == ["be brief", "q3", "a3", "go on"]


async def test_a_summary_that_everyone_reads_is_for_everyone(
    chat: AgentSession, manager: SessionManager
) -> None:
    await chat.add_items(talk(0, 2))
    await chat._atomic_replace_items([user("in short")])
    session = await manager.get_session("chat")
    assert [message.text for message in await session.get_window()] == ["in short"]
    assert len(await session.get_messages()) == 5


async def test_other_doors_have_what_was_replaced(
    chat: AgentSession, manager: SessionManager
) -> None:
    pytest.importorskip("langchain_core")
    langchain = pytest.importorskip("langchain_langswarm")
    await compacted(chat, manager)
    history = langchain.SessionChatMessageHistory("chat", manager)
    assert [str(message.text) for message in await history.aget_messages()] == ALL


async def test_a_fork_is_without_what_was_replaced(
    chat: AgentSession, manager: SessionManager
) -> None:
    await chat.add_items(talk(0, 3))
    await chat._atomic_replace_items(COMPACTED)
    await (await manager.get_session("chat")).fork(session_id="copy")
    assert await AgentSession("copy", manager).get_items() == COMPACTED


async def test_the_oldest_that_have_expired_are_removed(
    chat: AgentSession, manager: SessionManager
) -> None:
    await chat.add_items(talk(0, 4))
    expired = [*talk(0, 1), user("q1"), user("q3")]

    def is_expired(item: Any) -> bool:
        return item in expired

    snapshot = await chat._get_compaction_snapshot(2, prune_prefix=is_expired)
    assert snapshot is not None
    assert await snapshot.replace_suffix(0, COMPACTED)
    assert await chat.get_items() == [*talk(1, 3)[1:], *COMPACTED]
    assert len(await stored(manager)) == 6


async def test_encrypted_items_are_compacted(open_chat: OpenChat) -> None:
    pytest.importorskip("cryptography")
    from agents.extensions.memory import EncryptedSession

    chat, other = open_chat(), open_chat()

    def encrypted(chat: Any) -> Any:
        return EncryptedSession("chat", chat, encryption_key="k" * 32, ttl=600)

    session = encrypted(chat)
    await session.add_items(talk(0, 3))
    snapshot = await session._get_compaction_snapshot(10)
    assert (snapshot.items, snapshot.complete) == (talk(0, 3), True)
    assert await snapshot.replace_suffix(0, COMPACTED)
    assert await encrypted(other).get_items() == COMPACTED
    assert all("__enc__" in item for item in await other.get_items())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 3)),
        st.tuples(st.just("compact"), st.integers(1, 8), st.integers(0, 8)),
        st.tuples(st.just("read"), st.integers(1, 8)),
    ),
    max_size=12,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_items_are_those_of_the_sdks_own(chat: AgentSession, steps: list[Any]) -> None:
    """Compaction may be anywhere: the items are what they are in the SDK's own store."""

    async def check() -> None:
        await chat.clear_session()
        own = SQLiteSession("chat")
        added = 0
        try:
            for name, *numbers in steps:
                for session in (own, chat):
                    if name == "add":
                        await session.add_items(talk(added, added + numbers[0]))
                    elif name == "compact":
                        snapshot = await session._get_compaction_snapshot(numbers[0])
                        assert snapshot is not None
                        output = [user(f"kept {added}"), *COMPACTED]
                        await snapshot.replace_suffix(numbers[1], output)
                added += numbers[0]
                assert await chat.get_items() == await own.get_items()
                for limit in (1, 2, 5):
                    assert await chat.get_items(limit) == await own.get_items(limit)
        finally:
            own.close()

    run(check())


@function_tool
def look(city: str) -> str:
    return f"sunny in {city}"


async def final_items(session: Any) -> list[Any]:
    """What is left of a talk of six turns with tools, each of which is compacted."""
    made = 0

    async def compact(**_: Any) -> Any:
        nonlocal made
        made += 1
        return SimpleNamespace(output=[user(f"kept {made}"), *COMPACTED], usage=None)

    client: Any = SimpleNamespace(responses=SimpleNamespace(compact=compact))
    compacting = OpenAIResponsesCompactionSession(
        "chat",
        session,
        client=client,
        compaction_mode="input",
        should_trigger_compaction=lambda context: len(context["session_items"]) >= 4,
    )
    steps: list[Any] = []
    for n in range(6):
        steps.append([function_call("look", {"city": "Oslo"}, f"call_{n}", f"fc_{n}")])
        steps.append([assistant_message(f"sunny {n}", f"msg_{n}")])
    agent = Agent[Any](name="a", model=ScriptedModel(steps), tools=[look])
    for n in range(6):
        await Runner.run(agent, f"q{n}", session=compacting)
    assert made
    return await session.get_items(1000)


@pytest.mark.parametrize("limit", [None, 3, 5, 6])
async def test_runs_leave_what_they_do_with_the_sdks_own(open_chat: OpenChat, limit: Any) -> None:
    own = SQLiteSession("chat", session_settings=SessionSettings(limit=limit))
    try:
        expected = await final_items(own)
    finally:
        own.close()
    assert await final_items(open_chat(session_settings=SessionSettings(limit=limit))) == expected
