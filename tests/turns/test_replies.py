"""Fallback and switching: who answers, and that the conversation goes with it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from provider_server.client import ServerWorld

from langswarm_session import (
    BaseSession,
    ContextLengthError,
    FallbackEvent,
    InvalidInputError,
    ISessionLifecycleHook,
    MockFailure,
    MockProviderSession,
    ProviderAuthenticationError,
    ProviderCapability,
    ProviderCapabilityError,
    ProviderQuotaError,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderSessionError,
    ProviderStreamError,
    ProviderUnavailableError,
    ReasoningBlock,
    SessionManager,
    SessionMessage,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.models import Fallback
from langswarm_session.turns.circuit_breaker import REST_SECONDS, CircuitBreaker

GPT, CLAUDE = "gpt-5.4", "claude-opus-5-5"
RESPONSES, MESSAGES = "POST /v1/responses", "POST /v1/messages"
TOOL = {"name": "look", "parameters": {"type": "object", "properties": {}}}


class Watching(ISessionLifecycleHook):
    """Keeps what the hooks are told."""

    def __init__(self) -> None:
        self.events: list[FallbackEvent] = []
        self.repairs: list[str] = []

    async def on_provider_fallback(self, session: Any, event: FallbackEvent) -> None:
        self.events.append(event)

    async def on_request_repaired(self, session: Any, repairs: Any) -> None:
        self.repairs += [repair.kind.value for repair in repairs]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hook() -> Watching:
    return Watching()


@pytest.fixture
async def vendors(
    world: ServerWorld, clock: Clock, hook: Watching
) -> AsyncIterator[SessionManager]:
    """A manager with both vendors at the stand-in, and the mock."""
    providers = {
        "openai": {"api_key": world.key, "base_url": world.openai_url, "mode": "conversations"},
        "anthropic": {"api_key": world.key, "base_url": world.anthropic_url, "mode": "messages"},
        "mock": MockProviderSession(),
    }
    async with SessionManager("memory", providers) as manager:
        manager.core.breaker.clock = clock
        manager.add_global_hook(hook)
        yield manager


def asked(world: ServerWorld, path: str) -> list[Any]:
    return [each["body"] for each in world.requests(path)]


def texts_of(body: dict[str, Any]) -> list[str]:
    """What a request carries, by vendor's format."""
    found = []
    for item in body.get("input", body.get("messages")):
        content = item.get("content", item.get("output", item.get("name")))
        if isinstance(content, list):
            content = "".join(str(part.get("text", part["type"])) for part in content)
        found.append(content)
    return found


def fallback_of(message: SessionMessage) -> dict[str, str] | None:
    return message.metadata.get("langswarm", {}).get("fallback")


class TestFallback:
    @pytest.fixture
    async def session(self, vendors: SessionManager) -> BaseSession:
        return await vendors.create_session(
            "ann", "openai", GPT, fallback=[("anthropic", CLAUDE), "mock"]
        )

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("cut_before", {}),
            ("server_error", {}),
            ("rate_limit", {"retry_after": 1}),
            ("overloaded", {}),
        ],
    )
    async def test_takes_over_with_the_same_conversation(
        self,
        session: BaseSession,
        world: ServerWorld,
        hook: Watching,
        caplog: pytest.LogCaptureFixture,
        kind: str,
        options: dict[str, Any],
    ) -> None:
        await session.send_message("one")
        world.fail(RESPONSES, kind, times=-1, **options)
        with caplog.at_level(logging.WARNING, "langswarm_session.turns.replies"):
            reply = await session.send_message("two")
        assert reply.text == "I see 3 messages. The last says: two"
        assert (reply.provider, reply.model) == ("anthropic", CLAUDE)
        told = fallback_of(reply)
        assert told is not None
        assert (told["provider"], told["model"]) == ("openai", GPT)
        assert "Error: " in told["reason"]
        assert [(each.by_provider, each.by_model) for each in hook.events] == [
            ("anthropic", CLAUDE)
        ]
        assert "anthropic answers in place of openai" in caplog.text
        assert session.context.provider == "openai"

    async def test_goes_down_the_chain(
        self, session: BaseSession, world: ServerWorld, hook: Watching
    ) -> None:
        world.fail(RESPONSES, "server_error", times=-1)
        world.fail(MESSAGES, "overloaded", times=-1)
        reply = await session.send_message("one")
        assert (reply.provider, reply.model, reply.text) == ("mock", GPT, "You said: one")
        assert [each.by_provider for each in hook.events] == ["mock"]

    async def test_leaves_the_first_alone_for_a_while_and_returns(
        self, session: BaseSession, world: ServerWorld, clock: Clock, hook: Watching
    ) -> None:
        await session.send_message("one")
        world.fail(RESPONSES, "server_error")
        await session.send_message("two")
        before = len(world.requests(RESPONSES))
        clock.now += REST_SECONDS - 1
        third = await session.send_message("three")
        assert third.provider == "anthropic"
        assert str((fallback_of(third) or {})["reason"]).startswith("left alone after ")
        assert len(world.requests(RESPONSES)) == before
        clock.now += 2
        fourth = await session.send_message("four")
        assert fourth.provider == "openai"
        assert fallback_of(fourth) is None
        assert len(hook.events) == 2

    async def test_the_first_is_told_only_what_it_has_not_seen(
        self, session: BaseSession, world: ServerWorld, clock: Clock
    ) -> None:
        first = await session.send_message("one")
        world.fail(RESPONSES, "cut_before")
        second = await session.send_message("two")
        clock.now += REST_SECONDS + 1
        third = await session.send_message("three")
        assert third.text == "I see 5 messages. The last says: three"
        assert texts_of(asked(world, RESPONSES)[-1]) == ["two", second.text, "three"]
        assert third.provider == first.provider == "openai"
        assert len(world.state()["conversations"]) == 1

    async def test_a_rate_limit_says_itself_for_how_long(
        self, session: BaseSession, world: ServerWorld, clock: Clock
    ) -> None:
        world.fail(RESPONSES, "rate_limit", retry_after=300)
        assert (await session.send_message("one")).provider == "anthropic"
        clock.now += 299
        assert (await session.send_message("two")).provider == "anthropic"
        clock.now += 2
        assert (await session.send_message("three")).provider == "openai"

    async def test_those_left_alone_are_asked_when_nobody_else_answers(
        self, session: BaseSession, world: ServerWorld, vendors: SessionManager
    ) -> None:
        world.fail(RESPONSES, "server_error")
        await session.send_message("one")
        world.fail(MESSAGES, "server_error", times=-1)
        mock = vendors.core.providers.of("mock", "")
        assert isinstance(mock, MockProviderSession)
        mock.fail_next(MockFailure.UNAVAILABLE)
        reply = await session.send_message("two")
        assert reply.provider == "openai"
        assert fallback_of(reply) is None

    async def test_the_last_error_is_raised_when_nobody_answers(
        self, session: BaseSession, world: ServerWorld, vendors: SessionManager, turns: Any
    ) -> None:
        for path in (RESPONSES, MESSAGES):
            world.fail(path, "server_error", times=-1)
        mock = vendors.core.providers.of("mock", "")
        assert isinstance(mock, MockProviderSession)
        mock.fail_next(MockFailure.RATE_LIMIT, times=2)
        with pytest.raises(ProviderRateLimitError, match=session.session_id):
            await session.send_message("one")
        assert await turns(session) == ["failed"]

    async def test_other_sessions_know_of_the_outage(
        self, session: BaseSession, world: ServerWorld, vendors: SessionManager
    ) -> None:
        world.fail(RESPONSES, "server_error")
        await session.send_message("one")
        other = await vendors.create_session("bob", "openai", GPT, fallback=["mock"])
        assert (await other.send_message("hi")).provider == "mock"
        assert len(world.requests(RESPONSES)) == 1
        # Without anybody else to ask it is asked, and others know that it is well again.
        alone = await vendors.create_session("bob", "openai", GPT)
        assert (await alone.send_message("hi")).provider == "openai"
        assert (await other.send_message("hi")).provider == "openai"

    async def test_both_states_go_with_the_session(
        self, session: BaseSession, world: ServerWorld, vendors: SessionManager
    ) -> None:
        await session.send_message("one")
        world.fail(RESPONSES, "server_error")
        await session.send_message("two")
        again = await vendors.get_session(session.session_id)
        assert again.context.provider_session_id in world.state()["conversations"]
        await vendors.delete_session(session.session_id)
        assert world.state()["conversations"] == {}
        assert world.state()["orphan_items"] == []

    async def test_where_no_credit_is_left(
        self, vendors: SessionManager, world: ServerWorld
    ) -> None:
        body = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
        world.fail(RESPONSES, "status", status=429, body=body, times=-1)
        alone = await vendors.create_session("ann", "openai", GPT)
        with pytest.raises(ProviderQuotaError) as caught:
            await alone.send_message("one")
        assert not caught.value.retriable
        assert len(world.requests(RESPONSES)) == 1
        session = await vendors.create_session("ann", "openai", GPT, fallback=["mock"])
        assert (await session.send_message("one")).provider == "mock"


async def test_a_message_that_is_too_long_takes_nothing_from_the_next(
    vendors: SessionManager, world: ServerWorld
) -> None:
    """Leaving out what was before it does not help, so nothing stays left out."""
    session = await vendors.create_session("ann", "openai", GPT)
    for number in range(4):
        await session.send_message(f"fact {number}")
    world.set(max_input_tokens=2000)
    with pytest.raises(ContextLengthError):
        await session.send_message("x " * 8000)
    reply = await session.send_message("and now?")
    assert reply.text.startswith("I see 9 messages")


class TestNoFallback:
    async def test_where_the_key_is_refused(
        self, vendors: SessionManager, world: ServerWorld
    ) -> None:
        world.fail(RESPONSES, "status", status=401, times=-1)
        session = await vendors.create_session("ann", "openai", GPT, fallback=["mock"])
        with pytest.raises(ProviderAuthenticationError):
            await session.send_message("one")

    async def test_where_the_request_is_refused(self, vendors: SessionManager) -> None:
        session = await vendors.create_session("ann", "openai", GPT, fallback=["mock"])
        with pytest.raises(ProviderRequestError):
            await session.send_message("one", temperature="hot")

    async def test_where_the_model_is_unknown(self, vendors: SessionManager) -> None:
        session = await vendors.create_session("ann", "openai", "unknown", fallback=["mock"])
        with pytest.raises(ProviderSessionError, match="unknown"):
            await session.send_message("one")

    async def test_where_none_is_named(self, vendors: SessionManager, world: ServerWorld) -> None:
        world.fail(RESPONSES, "server_error", times=-1)
        session = await vendors.create_session("ann", "openai", GPT)
        with pytest.raises(ProviderUnavailableError):
            await session.send_message("one")

    async def test_where_a_provider_fails_otherwise(self, manager: SessionManager) -> None:
        broken = MockProviderSession([ValueError("a bug")])
        manager.add_provider_session("broken", broken)
        session = await manager.create_session("ann", "broken", "m", fallback=["mock"])
        with pytest.raises(ProviderSessionError, match="broken.*failed: ValueError") as caught:
            await session.send_message("one")
        assert isinstance(caught.value.__cause__, ValueError)


class Toolless(MockProviderSession):
    name = "toolless"
    capabilities = frozenset({ProviderCapability.STREAMING})


class TestChain:
    """With mocks: what does not depend on a vendor."""

    @pytest.fixture
    def first(self, manager: SessionManager) -> MockProviderSession:
        provider = MockProviderSession()
        manager.add_provider_session("first", provider)
        return provider

    async def test_the_sessions_own_model_is_meant_where_none_is_named(
        self, manager: SessionManager, first: MockProviderSession, mock: MockProviderSession
    ) -> None:
        session = await manager.create_session(
            "ann", "first", "recall", fallback=[{"provider": "mock", "model": None}]
        )
        first.fail_next(MockFailure.TIMEOUT)
        reply = await session.send_message("one")
        assert (reply.provider, reply.model) == ("mock", "recall")
        assert mock.requests[-1].context.model == "recall"

    async def test_another_model_of_the_same_provider(
        self, manager: SessionManager, mock: MockProviderSession
    ) -> None:
        session = await manager.create_session(
            "ann", "mock", "echo", fallback=[("mock", "recall")], provider_session_id="conv"
        )
        mock.fail_next(MockFailure.RATE_LIMIT)
        reply = await session.send_message("one")
        assert reply.model == "recall"
        request = mock.requests[-1]
        assert request.context.provider_session_id is None
        assert request.context.backend == "local_memory"

    async def test_tools_pass_over_those_that_take_none(
        self, manager: SessionManager, first: MockProviderSession
    ) -> None:
        manager.add_provider_session("toolless", Toolless())
        session = await manager.create_session("ann", "first", "m", fallback=["toolless", "mock"])
        first.fail_next(MockFailure.UNAVAILABLE)
        reply = await session.send_message("one", tools=[TOOL])
        assert reply.provider == "mock"

    async def test_the_own_provider_must_take_them(self, manager: SessionManager) -> None:
        manager.add_provider_session("toolless", Toolless())
        session = await manager.create_session("ann", "toolless", "m", fallback=["mock"])
        with pytest.raises(ProviderCapabilityError):
            await session.send_message("one", tools=[TOOL])

    async def test_only_the_last_choice_tries_again_by_itself(
        self, manager: SessionManager, first: MockProviderSession, mock: MockProviderSession
    ) -> None:
        session = await manager.create_session("ann", "first", "m", fallback=["mock"])
        first.fail_next(MockFailure.UNAVAILABLE)
        await session.send_message("one")
        assert first.requests[-1].retries == 0
        assert mock.requests[-1].retries is None
        await session.send_message("two")
        assert len(first.requests) == 1
        assert mock.requests[-1].retries is None

    async def test_is_replayed_by_its_key_without_asking_anybody(
        self, manager: SessionManager, first: MockProviderSession, mock: MockProviderSession
    ) -> None:
        session = await manager.create_session("ann", "first", "m", fallback=["mock"])
        first.fail_next(MockFailure.UNAVAILABLE)
        reply = await session.send_message("one", idempotency_key="k")
        assert (await session.send_message("one", idempotency_key="k")).id == reply.id
        assert len(mock.requests) == 1

    @pytest.mark.parametrize("fallback", [[""], [3], [("a", "b", "c")], "mock"])
    async def test_a_chain_that_is_none_is_refused(
        self, manager: SessionManager, fallback: Any
    ) -> None:
        with pytest.raises(InvalidInputError):
            await manager.create_session("ann", "mock", "m", fallback=fallback)


class TestStreaming:
    @pytest.fixture
    async def session(self, vendors: SessionManager) -> BaseSession:
        return await vendors.create_session("ann", "openai", GPT, fallback=[("anthropic", CLAUDE)])

    @staticmethod
    async def read(session: BaseSession, text: str) -> tuple[str, SessionMessage]:
        pieces, message = "", None
        async for event in session.stream_message(text):
            pieces += event.text
            message = event.message or message
        assert message is not None
        return pieces, message

    @pytest.mark.parametrize("kind", ["server_error", "cut_before"])
    async def test_takes_over_before_the_first_piece(
        self, session: BaseSession, world: ServerWorld, hook: Watching, kind: str
    ) -> None:
        world.fail(RESPONSES, kind, times=-1)
        pieces, message = await self.read(session, "one")
        assert pieces == message.text == "I see 1 messages. The last says: one"
        assert message.provider == "anthropic"
        assert fallback_of(message) is not None
        assert len(hook.events) == 1

    async def test_not_after_the_first_piece(
        self, manager: SessionManager, mock: MockProviderSession, hook: Watching, texts: Any
    ) -> None:
        manager.add_global_hook(hook)
        first = MockProviderSession()
        manager.add_provider_session("first", first)
        session = await manager.create_session("ann", "first", "m", fallback=["mock"])
        first.fail_next(MockFailure.BROKEN_STREAM)
        with pytest.raises(ProviderStreamError):
            await self.read(session, "one two three")
        assert len(mock.requests) == 0
        assert hook.events == []
        assert (await texts(session))[0] == "one two three"
        # The next turn goes on.
        assert (await session.send_message("again")).text == "You said: again"

    async def test_a_stream_that_says_nothing_before_its_end(self, manager: SessionManager) -> None:
        class Silent(MockProviderSession):
            async def stream_message(self, request: Any) -> AsyncIterator[Any]:
                for _ in ():
                    yield _

        manager.add_provider_session("silent", Silent())
        session = await manager.create_session("ann", "silent", "m", fallback=["mock"])
        _, message = await self.read(session, "one")
        assert message.provider == "mock"


class TestSwitching:
    async def converse(self, session: BaseSession, world: ServerWorld) -> SessionMessage:
        """A turn with reasoning and two parallel calls, and their results."""
        calls = [{"name": "look", "arguments": {"at": each}} for each in "ab"]
        world.reply({"reasoning": "hm", "text": "I look.", "tool_calls": calls})
        reply = await session.send_message("what is there?", tools=[TOOL])
        ids = [block.id for block in reply.blocks if isinstance(block, ToolCallBlock)]
        assert len(ids) == 2
        results = [ToolResultBlock(tool_call_id=str(each), content=f"of {each}") for each in ids]
        message = SessionMessage(role="tool", content=results)
        return await session.send_message(message, tools=[TOOL])

    @pytest.mark.parametrize("start", ["openai", "anthropic"])
    async def test_both_ways_with_tools_and_reasoning(
        self, vendors: SessionManager, world: ServerWorld, hook: Watching, start: str
    ) -> None:
        models = {"openai": GPT, "anthropic": CLAUDE}
        other = "anthropic" if start == "openai" else "openai"
        session = await vendors.create_session("ann", start, models[start])
        await self.converse(session, world)
        await session.switch_provider(other, models[other])
        reply = await session.send_message("and you?")
        assert reply.provider == other
        assert reply.text.endswith("The last says: and you?")
        await self.converse(session, world)
        await session.switch_provider(start, models[start])
        last = await session.send_message("once more")
        assert (last.provider, last.model) == (start, models[start])
        assert world.state()["refused"] == []
        made = [b for m in await session.get_messages() for b in m.blocks]
        assert sum(isinstance(block, ReasoningBlock) for block in made) >= 1
        assert "reasoning_dropped" in hook.repairs

    async def test_with_calls_that_were_never_answered(
        self, vendors: SessionManager, world: ServerWorld, hook: Watching
    ) -> None:
        session = await vendors.create_session("ann", "openai", GPT)
        world.reply({"tool_calls": [{"name": "look", "arguments": {}}]})
        await session.send_message("what is there?", tools=[TOOL])
        await session.switch_provider("anthropic", CLAUDE)
        reply = await session.send_message("never mind")
        assert reply.text.endswith("The last says: never mind")
        assert "call_answered" in [each["kind"] for each in reply.metadata["langswarm"]["repairs"]]
        assert "call_answered" in hook.repairs
        await session.switch_provider("openai", GPT)
        assert (await session.send_message("back?")).provider == "openai"

    async def test_each_goes_on_from_its_own_state(
        self, vendors: SessionManager, world: ServerWorld
    ) -> None:
        session = await vendors.create_session("ann", "openai", GPT)
        await session.send_message("one")
        conversation = session.context.provider_session_id
        await session.switch_provider("anthropic", CLAUDE)
        assert session.context.provider_session_id is None
        two = await session.send_message("two")
        await session.switch_provider("openai", GPT)
        assert session.context.provider_session_id == conversation
        three = await session.send_message("three")
        assert three.text == "I see 5 messages. The last says: three"
        assert texts_of(asked(world, RESPONSES)[-1]) == ["two", two.text, "three"]

    @pytest.mark.parametrize("how", ["delete", "clear"])
    async def test_a_state_left_behind_is_removed_too(
        self, vendors: SessionManager, world: ServerWorld, how: str
    ) -> None:
        session = await vendors.create_session("ann", "openai", GPT)
        await session.send_message("one")
        await session.switch_provider("anthropic", CLAUDE)
        await session.send_message("two")
        if how == "delete":
            await vendors.delete_session(session.session_id)
        else:
            await session.clear_messages()
            assert session.context.provider_states == {}
            await session.switch_provider("openai", GPT)
            reply = await session.send_message("new")
            assert reply.text == "I see 1 messages. The last says: new"
        kept = world.state()["conversations"]
        assert len(kept) == (0 if how == "delete" else 1)
        assert world.state()["orphan_items"] == []


class TestRebuilding:
    async def test_a_conversation_that_is_gone_is_made_anew_from_the_record(
        self, vendors: SessionManager, world: ServerWorld, caplog: pytest.LogCaptureFixture
    ) -> None:
        session = await vendors.create_session("ann", "openai", GPT)
        await session.send_message("one")
        lost = session.context.provider_session_id
        world.lose("conversation")
        with caplog.at_level(logging.WARNING):
            reply = await session.send_message("two")
        assert reply.text == "I see 3 messages. The last says: two"
        assert str(lost) in caplog.text
        assert session.context.provider_session_id != lost
        assert len(world.state()["conversations"]) == 1
        assert (await session.reconcile()).is_equal


class TestOutages:
    def test_end_by_time_or_by_an_answer(self) -> None:
        clock = Clock()
        outages, who = CircuitBreaker(clock), Fallback(provider="p", model="m")
        assert outages.open_reason(who) is None
        outages.record_failure(who, ProviderUnavailableError("down"))
        assert outages.open_reason(who) == "ProviderUnavailableError: down"
        assert outages.open_reason(Fallback(provider="p", model="other")) is None
        outages.record_success(who)
        assert outages.open_reason(who) is None
        outages.record_failure(who, ProviderUnavailableError("down"))
        clock.now += REST_SECONDS
        assert outages.open_reason(who) is None

    @pytest.mark.parametrize("kind", [ProviderRateLimitError, ProviderUnavailableError])
    def test_last_as_long_as_the_server_says(self, kind: type[ProviderSessionError]) -> None:
        clock = Clock()
        outages, who = CircuitBreaker(clock), Fallback(provider="p")
        outages.record_failure(who, kind("slow", retry_after=5))
        clock.now += 4
        assert outages.open_reason(who) is not None
        clock.now += 1
        assert outages.open_reason(who) is None
