from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import OpenAI
from provider_server.client import ServerWorld
from provider_server.openai_items import stored_form
from provider_server.worlds import World

from langswarm_session import (
    BaseSession,
    ImageBlock,
    InvalidInputError,
    MockProviderSession,
    OpenAIProviderSession,
    ProviderCapabilityError,
    ProviderSessionError,
    RefusalBlock,
    SessionContext,
    SessionManager,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    VideoBlock,
)
from langswarm_session.formats.openai_responses import from_items, to_items
from langswarm_session.requests.normalize import Target, normalize
from langswarm_session.sessions.reconcile import compare

GPT = "gpt-5.4"
TOOL = {"name": "look", "parameters": {"type": "object", "properties": {}}}
CONTEXT = SessionContext(session_id="s", user_id="u", provider="openai", model=GPT)
TARGET = OpenAIProviderSession("key", mode="conversations").target(CONTEXT, {})


def message(role: str, content: Any) -> SessionMessage:
    return SessionMessage(role=role, content=content)


@pytest.fixture
async def session(world: ServerWorld) -> AsyncIterator[BaseSession]:
    options = {"api_key": world.key, "base_url": world.openai_url, "mode": "conversations"}
    async with SessionManager("memory", {"openai": options}) as manager:
        yield await manager.create_session("ann", "openai", GPT)


def add_there(world: ServerWorld, session: BaseSession, *items: dict[str, Any]) -> None:
    """Put items into the conversation behind the record's back."""
    with OpenAI(api_key=world.key, base_url=world.openai_url) as client:
        conversation = str(session.context.provider_session_id)
        client.conversations.items.create(conversation, items=list(items))  # type: ignore[arg-type]


def said(role: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": text}


def texts_of(messages: Sequence[SessionMessage]) -> list[str]:
    return [each.text for each in messages]


class TestReconcile:
    async def test_finds_both_sides_equal(self, session: BaseSession, world: ServerWorld) -> None:
        await session.add_system_message("be kind")
        await session.record([message("user", "a"), message("assistant", "b")])
        await session.record([message("assistant", "c")])
        world.reply({"text": "I look", "tool_calls": [{"name": "look", "arguments": {}}]})
        reply = await session.send_message("look", tools=[TOOL])
        await session.send_message(
            message("tool", [ToolResultBlock(tool_call_id=reply.blocks[-1].id or "", content="x")]),
            tools=[TOOL],
        )
        found = await session.reconcile()
        assert found.is_equal
        assert found.pulled == []

    async def test_finds_what_only_the_record_has(self, session: BaseSession) -> None:
        await session.send_message("one")
        await session.record([message("user", "noted"), message("assistant", "elsewhere")])
        found = await session.reconcile()
        assert texts_of(found.only_local) == ["noted", "elsewhere"]
        assert found.only_remote == []
        assert all(each.seq for each in found.only_local)

    async def test_finds_what_only_the_provider_has(
        self, session: BaseSession, world: ServerWorld
    ) -> None:
        await session.send_message("one")
        add_there(world, session, said("user", "there"), said("assistant", "indeed"))
        found = await session.reconcile()
        assert texts_of(found.only_remote) == ["there", "indeed"]
        assert found.only_local == []
        assert not found.is_equal
        assert len(await session.get_messages()) == 2

    async def test_pulls_it_once(self, session: BaseSession, world: ServerWorld) -> None:
        await session.send_message("one")
        add_there(world, session, said("user", "there"), said("assistant", "indeed"))
        found = await session.reconcile(pull=True)
        assert texts_of(found.pulled) == ["there", "indeed"]
        again = await session.reconcile(pull=True)
        assert again.is_equal
        assert len(await session.get_messages()) == 4

    async def test_the_next_turn_is_in_step(self, session: BaseSession, world: ServerWorld) -> None:
        await session.send_message("one")
        add_there(world, session, said("user", "there"), said("assistant", "indeed"))
        await session.reconcile(pull=True)
        reply = await session.send_message("two")
        assert reply.text == "I see 5 messages. The last says: two"
        sent = world.requests("POST /v1/responses")[-1]["body"]["input"]
        assert len(sent) == 1
        assert (await session.reconcile()).is_equal

    async def test_what_was_pulled_stays_there_when_a_turn_is_not(
        self, session: BaseSession, world: ServerWorld
    ) -> None:
        await session.send_message("one")
        add_there(world, session, said("user", "there"), said("assistant", "indeed"))
        await session.reconcile(pull=True)
        await session.record([message("user", "a"), message("assistant", "b")])
        reply = await session.send_message("two")
        assert reply.text == "I see 7 messages. The last says: two"
        assert (await session.reconcile()).is_equal

    async def test_both_sides_have_something(
        self, session: BaseSession, world: ServerWorld
    ) -> None:
        await session.send_message("one")
        add_there(world, session, said("user", "there"), said("assistant", "indeed"))
        await session.record([message("user", "here")])
        found = await session.reconcile(pull=True)
        assert texts_of(found.only_local) == ["here"]
        assert texts_of(found.pulled) == ["there", "indeed"]
        await session.reconcile(pull=True)
        assert len(await session.get_messages()) == 5
        reply = await session.send_message("two")
        assert reply.text == "I see 6 messages. The last says: two"
        found = await session.reconcile()
        assert found.is_equal

    async def test_pulls_a_call_and_goes_on_from_it(
        self, session: BaseSession, world: ServerWorld
    ) -> None:
        await session.send_message("one")
        call = {"type": "function_call", "call_id": "c9", "name": "look", "arguments": "{}"}
        add_there(world, session, said("user", "look"), call)
        await session.reconcile(pull=True)
        assert session.context.provider_calls == ["c9"]
        result = ToolResultBlock(tool_call_id="c9", content="seen")
        reply = await session.send_message(message("tool", [result]), tools=[TOOL])
        assert reply.text.endswith("The last says: seen")
        assert "repairs" not in reply.metadata["langswarm"]

    async def test_what_was_changed_to_be_sent_is_no_difference(self, session: BaseSession) -> None:
        await session.record(
            [
                message("user", [TextBlock(text="see"), VideoBlock(url="https://e.org/v")]),
                message("assistant", [RefusalBlock(refusal="no")]),
                message("assistant", [ToolCallBlock(id="odd id", name="web search")]),
                message("user", ""),
            ]
        )
        await session.send_message("one")
        found = await session.reconcile()
        assert found.is_equal

    async def test_before_there_is_a_copy(self, session: BaseSession) -> None:
        with pytest.raises(InvalidInputError, match="no copy"):
            await session.reconcile()

    async def test_a_copy_that_is_gone(self, session: BaseSession, world: ServerWorld) -> None:
        await session.send_message("one")
        world.lose("conversation")
        with pytest.raises(ProviderSessionError, match=session.session_id):
            await session.reconcile()

    async def test_of_a_provider_that_keeps_none(self, manager: SessionManager) -> None:
        class Forgetful(MockProviderSession):
            async def get_messages(self, native: str, limit: int | None = None) -> Any:
                raise ProviderCapabilityError("keeps nothing")

        manager.add_provider_session("p", Forgetful())
        session = await manager.create_session("ann", "p", "m", provider_session_id="x")
        with pytest.raises(ProviderCapabilityError):
            await session.reconcile()

    async def test_with_the_mocks_conversations(
        self, manager: SessionManager, mock: MockProviderSession
    ) -> None:
        native = await mock.create_provider_session("ann")
        session = await manager.create_session("ann", "mock", "echo", provider_session_id=native)
        await session.send_message("one")
        assert (await session.reconcile()).is_equal
        await session.record(message("user", "noted"))
        assert texts_of((await session.reconcile()).only_local) == ["noted"]


PARTS = st.sampled_from(
    [
        message("user", "a"),
        message("user", [TextBlock(text="b"), ImageBlock(url="https://e.org/a.png")]),
        message("user", ""),
        message("system", "s"),
        message("assistant", "c"),
        message("assistant", [TextBlock(text="d"), ToolCallBlock(id="x", name="look")]),
        message("assistant", [TextBlock(text="e", id="m1"), TextBlock(text="f", id="m2")]),
        message("tool", [ToolResultBlock(tool_call_id="x", content="of it")]),
    ]
)


class TestCompare:
    @given(st.lists(PARTS, max_size=8))
    @settings(max_examples=60)
    def test_a_log_is_equal_to_what_was_sent_of_it(self, parts: list[SessionMessage]) -> None:
        log = [each.model_copy(update={"id": str(n)}) for n, each in enumerate(parts)]
        items = to_items(normalize(log, TARGET)[0])
        world = World("key")
        copy = from_items([stored_form(world, item) for item in items])
        assert compare(log, copy, TARGET) == ([], [])

    @given(st.lists(PARTS.filter(lambda each: each.role == "user" and each.content), min_size=1))
    @settings(max_examples=30)
    def test_what_was_not_sent_is_found(self, parts: list[SessionMessage]) -> None:
        log = [each.model_copy(update={"id": str(n)}) for n, each in enumerate(parts)]
        only_local, only_remote = compare(log, log[:-1], Target())
        assert [only_remote, len(only_local)] == [[], 1]
        only_local, only_remote = compare(log[:-1], log, Target())
        assert [only_local, len(only_remote)] == [[], 1]
