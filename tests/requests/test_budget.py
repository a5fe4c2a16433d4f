from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from provider_server.client import ServerWorld

from langswarm_session import (
    BaseSession,
    FileBlock,
    ImageBlock,
    MissingDependencyError,
    MockProviderSession,
    OtherBlock,
    ProviderCapabilityError,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderResponseError,
    ProviderUnavailableError,
    ReasoningBlock,
    RefusalBlock,
    SessionManager,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.requests.budget import (
    PER_MEDIA,
    PER_MESSAGE,
    estimate,
    fit,
    tiktoken_counter,
)
from langswarm_session.testing import strategies

CLAUDE = "claude-opus-5-5"
COUNT = "POST /v1/messages/count_tokens"


def message(role: str, content: Any) -> SessionMessage:
    return SessionMessage(role=role, content=content)


class TestEstimate:
    @pytest.mark.parametrize(
        ("content", "tokens"),
        [
            ("", 0),
            ("abcd", 1),
            ("abcde", 2),
            ("é" * 4, 2),
            ([], 0),
            ([TextBlock(text="abcd"), TextBlock(text="abcd")], 2),
            ([RefusalBlock(refusal="no thanks")], 3),
            ([ReasoningBlock(reasoning="hmhm", encrypted="x" * 900)], 1),
            ([ToolCallBlock(name="look", args={"at": "a"})], 4),
            ([ToolResultBlock(tool_call_id="c", content="abcd")], 1),
            ([ToolResultBlock(tool_call_id="c", content="")], 0),
            ([ToolResultBlock(tool_call_id="c", content=[ImageBlock(url="u")])], PER_MEDIA),
            ([ImageBlock(url="u")], PER_MEDIA),
            ([FileBlock(file_id="file-1")], PER_MEDIA),
            ([FileBlock(text="x" * 40)], 10),
            ([OtherBlock(value={"a": "bcde"})], 3),
        ],
    )
    def test_is_a_quarter_of_the_bytes(self, content: Any, tokens: int) -> None:
        assert estimate(message("user", content)) == PER_MESSAGE + tokens

    @given(strategies.messages())
    @settings(max_examples=50)
    def test_counts_any_message(self, any_message: SessionMessage) -> None:
        assert estimate(any_message) >= PER_MESSAGE


logs = st.lists(st.sampled_from(["user", "assistant", "system", "tool"]), max_size=10)


class TestFit:
    @given(logs, st.integers(0, 12), st.integers(0, 10))
    def test_takes_the_newest_that_fit(self, roles: list[str], budget: int, keep: int) -> None:
        log = [message(role, str(place)) for place, role in enumerate(roles)]
        keep = min(keep, len(log))
        kept = fit(log, budget, lambda _: 1, keep).messages
        assert kept[len(kept) - (len(log) - keep) :] == log[keep:]
        assert [m for m in log if m.role == "system"] == [m for m in kept if m.role == "system"]
        places = [int(m.text) for m in kept if m.role != "system"]
        assert places == sorted(places)
        older = [place for place in places if place < keep]
        assert len(kept) <= max(budget, len([m for m in log[:keep] if m.role == "system"])
                                + len(log) - keep)  # fmt: skip
        assert older == [p for p in range(min(older, default=keep), keep) if roles[p] != "system"]

    def test_takes_no_result_without_its_call(self) -> None:
        log = [message(role, "x") for role in ("user", "assistant", "tool", "user", "user")]
        assert fit(log, 3, lambda _: 1, 4).messages == log[3:]


class FakeEncoding:
    """Counts words, and remembers how it was asked."""

    def encode(self, text: str, *, disallowed_special: tuple[str, ...]) -> list[str]:
        assert disallowed_special == ()
        return text.split()


@pytest.fixture
def tiktoken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A tiktoken that needs no network; returns what it was asked for."""
    asked: list[str] = []

    def for_model(model: str) -> FakeEncoding:
        asked.append(model)
        if model != "gpt-5.4":
            raise KeyError(model)
        return FakeEncoding()

    def get(name: str) -> FakeEncoding:
        asked.append(name)
        return FakeEncoding()

    module = SimpleNamespace(encoding_for_model=for_model, get_encoding=get)
    monkeypatch.setitem(sys.modules, "tiktoken", module)
    return asked


async def session_of(manager: SessionManager, model: str = "echo", **context: Any) -> BaseSession:
    return await manager.create_session("ann", "mock", model, **context)


def sent(mock: MockProviderSession) -> list[str]:
    return [each.text for each in mock.requests[-1].messages]


class TestTiktoken:
    def test_counts_by_the_models_tokenizer(self, tiktoken: list[str]) -> None:
        count = tiktoken_counter("gpt-5.4")
        assert count(message("user", "three words here")) == PER_MESSAGE + 3
        assert tiktoken == ["gpt-5.4"]

    def test_counts_by_the_newest_for_a_model_it_does_not_know(self, tiktoken: list[str]) -> None:
        assert tiktoken_counter("claude")(message("user", "two words")) == PER_MESSAGE + 2
        assert tiktoken == ["claude", "o200k_base"]

    async def test_cuts_a_window(
        self, manager: SessionManager, mock: MockProviderSession, tiktoken: list[str]
    ) -> None:
        session = await session_of(
            manager, "gpt-5.4", max_input_tokens=18, token_counter="tiktoken"
        )
        for text in ("a a a a a", "b", "c"):
            await session.send_message(text)
        assert sent(mock) == ["b", "You said: b", "c"]

    async def test_says_what_to_install(
        self, manager: SessionManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "tiktoken", None)
        session = await session_of(manager, max_input_tokens=5, token_counter="tiktoken")
        with pytest.raises(MissingDependencyError, match=r"langswarm-session\[tiktoken\]"):
            await session.send_message("hi")


class TestBudget:
    async def test_sends_the_newest_that_fit(
        self, manager: SessionManager, mock: MockProviderSession
    ) -> None:
        session = await session_of(manager, max_input_tokens=30)
        await session.add_system_message("be kind")  # 6
        await session.record([message("user", "x" * 400), message("assistant", "hi")])
        await session.record(message("user", "y" * 16))  # 8
        await session.send_message("z" * 16)  # 8
        assert sent(mock) == ["be kind", "y" * 16, "z" * 16]

    async def test_what_is_left_begins_with_a_user(
        self, manager: SessionManager, mock: MockProviderSession
    ) -> None:
        session = await session_of(manager, max_input_tokens=30)
        await session.record([message("user", "x" * 400), message("assistant", "y" * 16)])  # 8
        await session.send_message("z" * 16)  # 8
        assert sent(mock) == ["z" * 16]

    async def test_is_not_looked_at_unless_it_is_set(
        self, manager: SessionManager, mock: MockProviderSession
    ) -> None:
        session = await session_of(manager, token_counter="provider")
        await session.send_message("x" * 9999)
        await session.send_message("y")
        assert len(sent(mock)) == 3

    async def test_the_newest_turn_is_sent_whatever_it_takes(
        self, manager: SessionManager, mock: MockProviderSession
    ) -> None:
        session = await session_of(manager, max_input_tokens=1)
        await session.send_message("a")
        await session.send_message("x" * 999)
        assert sent(mock) == ["x" * 999]

    @pytest.mark.parametrize(
        ("limits", "before"), [({"max_input_tokens": 1}, []), ({"max_messages": 1}, ["user"])]
    )
    async def test_a_tools_result_goes_with_its_call(
        self,
        manager: SessionManager,
        mock: MockProviderSession,
        limits: dict[str, int],
        before: list[str],
    ) -> None:
        session = await session_of(manager, **limits)
        mock.script([ToolCallBlock(id="c", name="look"), ToolCallBlock(id="d", name="look")])
        await session.send_message("x" * 99)
        results = [ToolResultBlock(tool_call_id=each, content="seen") for each in "cd"]
        await session.send_message(SessionMessage(role="tool", content=results))
        request = mock.requests[-1]
        assert [each.role for each in request.messages] == [*before, "assistant", "tool"]
        assert request.repairs == []

    async def test_of_a_provider_that_does_not_count(
        self, manager: SessionManager, caplog: pytest.LogCaptureFixture
    ) -> None:
        provider = NoCount()
        manager.add_provider_session("p", provider)
        session = await manager.create_session(
            "ann", "p", "m", max_input_tokens=9, token_counter="provider"
        )
        await session.record([message("user", "x" * 99), message("assistant", "y")])
        await session.send_message("hi")
        assert sent(provider) == ["hi"]
        await session.send_message("again")
        assert caplog.text.count("tokens are estimated") == 1
        assert provider.asked == 1

    @pytest.mark.parametrize(
        "error",
        [ProviderRequestError("no"), ProviderResponseError("no"), ProviderRateLimitError("no")],
    )
    async def test_of_a_count_that_is_refused(
        self,
        manager: SessionManager,
        mock: MockProviderSession,
        caplog: pytest.LogCaptureFixture,
        error: Exception,
    ) -> None:
        session = await session_of(manager, max_input_tokens=9, token_counter="provider")
        await session.record([message("user", "x" * 99), message("assistant", "y")])
        mock.count_tokens = AsyncMock(side_effect=error)  # type: ignore[method-assign]
        await session.send_message("hi")
        assert sent(mock) == ["hi"]
        await session.send_message("hi again")
        assert mock.count_tokens.await_count == 2
        assert caplog.text.count("tokens are estimated") == 1

    async def test_of_a_provider_that_is_down(
        self, manager: SessionManager, mock: MockProviderSession
    ) -> None:
        """Gateways answer 500 for good where they cannot count, while they give replies.

        https://github.com/BerriAI/litellm/pull/38902
        """
        session = await session_of(manager, max_input_tokens=9, token_counter="provider")
        await session.record([message("user", "x" * 99), message("assistant", "y")])
        mock.count_tokens = failing  # type: ignore[method-assign]
        await session.send_message("hi")
        assert sent(mock) == ["hi"]

    async def test_of_a_stand_in_that_does_not_count(
        self, manager: SessionManager, mock: MockProviderSession
    ) -> None:
        stand_in = NoCount()
        manager.add_provider_session("p", stand_in)
        session = await manager.create_session(
            "ann", "mock", "m", fallback=["p"], max_input_tokens=9, token_counter="provider"
        )
        await session.record([message("user", "x" * 99), message("assistant", "y")])
        mock.count_tokens = failing  # type: ignore[method-assign]
        mock.fail_next("unavailable")
        reply = await session.send_message("hi")
        assert reply.provider == "p"
        assert sent(stand_in) == ["hi"]


class NoCount(MockProviderSession):
    """A provider that counts no tokens."""

    asked = 0

    async def count_tokens(self, request: Any) -> int:
        self.asked += 1
        raise ProviderCapabilityError("p counts no tokens", provider="p")


async def failing(request: Any) -> int:
    raise ProviderUnavailableError("down", provider="mock")


class Counting(MockProviderSession):
    """A provider whose tokens are words, and who dislikes estimates."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []

    async def count_tokens(self, request: Any) -> int:
        self.counts.append(sum(len(each.text.split()) for each in request.messages))
        return self.counts[-1]


class TestProvidersCount:
    async def test_is_asked_again_for_what_was_left(self, manager: SessionManager) -> None:
        provider = Counting()
        manager.add_provider_session("p", provider)
        session = await manager.create_session(
            "ann", "p", "m", max_input_tokens=20, token_counter="provider"
        )
        long = "x" * 400  # one word, though the estimate says a hundred tokens
        await session.record([message("user", long) for _ in range(8)])
        await session.record([message("assistant", "a b c d e f g h i j k l")])
        await session.send_message("m n o")
        first, *more = provider.counts
        assert first == 23
        assert more == sorted(more, reverse=True)
        assert more[-1] <= 20
        assert sent(provider)[-2:] == ["a b c d e f g h i j k l", "m n o"]
        assert len(sent(provider)) > 2

    async def test_is_not_asked_again_where_all_fits(self, manager: SessionManager) -> None:
        provider = Counting()
        manager.add_provider_session("p", provider)
        session = await manager.create_session(
            "ann", "p", "m", max_input_tokens=20, token_counter="provider"
        )
        await session.send_message("one")
        assert provider.counts == [1]

    async def test_by_anthropic_cuts_the_window(self, world: ServerWorld) -> None:
        options = {"api_key": world.key, "base_url": world.anthropic_url, "mode": "messages"}
        async with SessionManager("memory", {"anthropic": options}) as manager:
            session = await manager.create_session(
                "ann", "anthropic", CLAUDE, max_input_tokens=60, token_counter="provider"
            )
            await session.record([message("user", "x" * 400), message("assistant", "y" * 40)])
            await session.record([message("user", "z" * 40), message("assistant", "w" * 40)])
            reply = await session.send_message("hi")
        counts = world.requests(COUNT)
        assert 2 <= len(counts) <= 3
        assert reply.usage is not None
        assert reply.usage.input_tokens <= 60
        body = world.requests("POST /v1/messages")[-1]["body"]
        assert len(body["messages"]) >= 3

    @pytest.mark.parametrize("counter", ["estimate", "tiktoken"])
    async def test_is_asked_only_where_it_was_chosen(
        self, world: ServerWorld, tiktoken: list[str], counter: str
    ) -> None:
        options = {"api_key": world.key, "base_url": world.anthropic_url, "mode": "messages"}
        async with SessionManager("memory", {"anthropic": options}) as manager:
            session = await manager.create_session(
                "ann", "anthropic", CLAUDE, max_input_tokens=10, token_counter=counter
            )
            await session.send_message("one")
            await session.send_message("two")
        assert [each["path"] for each in world.requests()] == ["/v1/messages", "/v1/messages"]

    @pytest.mark.parametrize("status", [404, 405, 501])
    async def test_of_a_server_that_has_none(self, world: ServerWorld, status: int) -> None:
        options = {"api_key": world.key, "base_url": world.openai_url, "mode": "responses"}
        async with SessionManager("memory", {"openai": options}) as manager:
            session = await manager.create_session(
                "ann", "openai", "gpt-5.4", max_input_tokens=10, token_counter="provider"
            )
            world.fail("POST /v1/responses/input_tokens", "status", times=-1, status=status)
            await session.send_message("one")
            await session.send_message("two")
        assert len(world.requests("POST /v1/responses/input_tokens")) == 1
        assert len(world.requests("POST /v1/responses")) == 2

    @pytest.mark.parametrize("status", [404, 405, 501])
    async def test_of_a_server_like_anthropics_that_has_none(
        self, world: ServerWorld, status: int
    ) -> None:
        options = {"api_key": world.key, "base_url": world.anthropic_url, "mode": "messages"}
        async with SessionManager("memory", {"anthropic": options}) as manager:
            session = await manager.create_session(
                "ann", "anthropic", CLAUDE, max_input_tokens=10, token_counter="provider"
            )
            world.fail(COUNT, "status", times=-1, status=status)
            await session.send_message("one")
            await session.send_message("two")
        assert len(world.requests(COUNT)) == 1
