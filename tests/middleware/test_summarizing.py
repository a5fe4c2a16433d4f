from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from provider_server.client import ServerWorld

from langswarm_session import (
    BaseSession,
    ContextLengthError,
    InvalidInputError,
    MockFailure,
    MockProviderSession,
    SessionManager,
    SessionMessage,
    SummarizingMiddleware,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.middleware import summarizing
from langswarm_session.requests.window import SUMMARY


def message(role: str, content: Any) -> SessionMessage:
    return SessionMessage(role=role, content=content)


def talk(count: int) -> list[SessionMessage]:
    """So many messages, user and assistant in turn."""
    return [message(("user", "assistant")[n % 2], f"m{n}") for n in range(count)]


@pytest.fixture
def writer() -> MockProviderSession:
    """Who makes the summaries: it says how many messages there were, and the first."""

    def summary(request: Any) -> str:
        lines = request.messages[-1].text.split("\n\n", 1)[1].splitlines()
        return f"{len(lines)} lines from {lines[0]}"

    return MockProviderSession(summary)


@pytest.fixture
async def session(manager: SessionManager, writer: MockProviderSession) -> BaseSession:
    manager.add_provider_session("writer", writer)
    manager.add_global_middleware(
        SummarizingMiddleware(after=6, keep=2, provider="writer", model="small")
    )
    return await manager.create_session("ann", "mock", "echo")


def sent(mock: MockProviderSession) -> list[str]:
    return [each.text for each in mock.requests[-1].messages]


class TestDue:
    async def test_makes_a_summary_of_the_older_part(
        self, session: BaseSession, mock: MockProviderSession, writer: MockProviderSession
    ) -> None:
        await session.record(talk(6))
        await session.send_message("now")
        summary = session.context.summary
        assert summary is not None
        assert (summary.text, summary.last_seq) == ("4 lines from user: m0", 4)
        assert sent(mock) == [f"{SUMMARY}{summary.text}", "m4", "m5", "now"]
        assert writer.requests[-1].context.model == "small"
        assert len(await session.get_messages()) == 8

    async def test_not_before(self, session: BaseSession, writer: MockProviderSession) -> None:
        await session.record(talk(5))
        await session.send_message("now")
        assert session.context.summary is None
        assert len(writer.requests) == 0

    async def test_the_next_one_goes_on_from_it(
        self, session: BaseSession, writer: MockProviderSession, mock: MockProviderSession
    ) -> None:
        await session.record(talk(6))
        await session.send_message("a")
        await session.send_message("b")
        await session.send_message("c")
        summary = session.context.summary
        assert summary is not None
        assert summary.last_seq == 8
        assert (
            "(Before that: 4 lines from user: m0)\nuser: m4" in writer.requests[-1].messages[0].text
        )
        assert len(writer.requests) == 2
        assert sent(mock)[1:] == ["b", "You said: b", "c"]

    async def test_system_messages_stay(
        self, session: BaseSession, mock: MockProviderSession
    ) -> None:
        await session.add_system_message("be kind")
        await session.record(talk(6))
        await session.send_message("now")
        first, summary, *others = sent(mock)
        assert (first, others) == ("be kind", ["m4", "m5", "now"])
        assert summary.startswith(SUMMARY)

    async def test_a_call_is_not_parted_from_its_results(
        self, session: BaseSession, mock: MockProviderSession
    ) -> None:
        calls = [ToolCallBlock(id=each, name="look") for each in "ab"]
        results = [ToolResultBlock(tool_call_id=each, content=each) for each in "ab"]
        await session.record([*talk(3), message("assistant", [*calls])])
        await session.record([message("tool", [results[0]]), message("user", [results[1]])])
        await session.send_message("now")
        summary = session.context.summary
        assert summary is not None
        assert summary.last_seq == 3
        assert [each.role for each in mock.requests[-1].messages] == [
            "user",
            "assistant",
            "tool",
            "tool",
            "user",
        ]
        assert mock.requests[-1].repairs == []

    async def test_a_long_log_is_taken_in_steps(
        self, session: BaseSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(summarizing, "AT_ONCE", 10)
        await session.record(talk(26))
        covered = []
        for text in "abcd":
            await session.send_message(text)
            assert session.context.summary is not None
            covered.append(session.context.summary.last_seq)
        assert covered == [10, 20, 28, 28]

    async def test_turns_that_failed_are_left_out(
        self, session: BaseSession, mock: MockProviderSession, writer: MockProviderSession
    ) -> None:
        mock.fail_next(MockFailure.ERROR)
        with pytest.raises(Exception, match="failed"):
            await session.send_message("lost")
        await session.record(talk(6))
        await session.send_message("now")
        assert "lost" not in writer.requests[-1].messages[0].text

    async def test_tool_results_make_none(
        self, session: BaseSession, mock: MockProviderSession, writer: MockProviderSession
    ) -> None:
        await session.record(talk(4))
        mock.script(ToolCallBlock(id="c", name="look"))
        await session.send_message("look")
        await session.send_message(
            message("tool", [ToolResultBlock(tool_call_id="c", content="seen")])
        )
        assert len(writer.requests) == 0


class TestFailure:
    @pytest.mark.parametrize(
        "failure",
        [MockFailure.UNAVAILABLE, MockFailure.REFUSAL, ValueError("a bug"), " "],
    )
    async def test_is_logged_and_the_turn_goes_on(
        self,
        manager: SessionManager,
        mock: MockProviderSession,
        caplog: pytest.LogCaptureFixture,
        failure: Any,
    ) -> None:
        writer = MockProviderSession([failure, "better"])
        session = await manager.create_session("ann", "mock", "echo")
        session.add_middleware(SummarizingMiddleware(after=6, keep=2, provider=writer))
        await session.record(talk(6))
        with caplog.at_level(logging.WARNING, "langswarm_session.middleware.summarizing"):
            reply = await session.send_message("now")
        assert reply.text == "You said: now"
        assert session.context.summary is None
        assert "no summary was made" in caplog.text
        assert session.session_id in caplog.text
        await session.send_message("again")
        assert session.context.summary is not None
        assert session.context.summary.text == "better"

    @pytest.mark.parametrize(("after", "keep"), [(2, 2), (0, 0), (-1, 2), (3, 4)])
    def test_of_its_options(self, after: int, keep: int) -> None:
        with pytest.raises(InvalidInputError):
            SummarizingMiddleware(after, keep)


class TestBounds:
    """A summary is no longer than what it stands for."""

    async def test_one_that_runs_away_is_cut(
        self, manager: SessionManager, caplog: pytest.LogCaptureFixture
    ) -> None:
        writer = MockProviderSession(["blue is blue. " * 2500] * 9)
        manager.add_global_middleware(SummarizingMiddleware(after=4, keep=2, provider=writer))
        session = await manager.create_session("ann", "mock", "echo", max_input_tokens=200)
        with caplog.at_level(logging.WARNING, "langswarm_session.middleware.summarizing"):
            for number in range(8):
                await session.send_message(f"fact {number} " + "x" * 40)
        summary = session.context.summary
        assert summary is not None
        assert len(summary.text) <= 200
        assert summary.text.endswith(" [...]")
        assert "was cut to" in caplog.text
        assert all(len(request.messages[-1].text) < 2000 for request in writer.requests)

    async def test_one_of_a_caller_has_a_quarter_of_a_budget(
        self, manager: SessionManager, mock: MockProviderSession
    ) -> None:
        session = await manager.create_session("ann", "mock", "echo", max_input_tokens=100)
        await session.send_message("a")
        await session.set_summary("long " * 400)
        await session.send_message("b")
        assert len(sent(mock)[0]) <= 100
        assert sent(mock)[1:] == ["b"]


class TestWithVendors:
    @pytest.fixture(params=["openai", "anthropic", "threads", "chat"])
    async def vendor(
        self, request: pytest.FixtureRequest, world: ServerWorld
    ) -> AsyncIterator[BaseSession]:
        name = "anthropic" if request.param in ("anthropic", "threads") else "openai"
        mode = {"openai": "conversations", "anthropic": "messages"}.get(
            request.param, request.param
        )
        url = world.openai_url if name == "openai" else world.anthropic_url
        model = "gpt-5.4" if name == "openai" else "claude-opus-5-5"
        options = {"api_key": world.key, "base_url": url, "mode": mode}
        async with SessionManager("memory", {name: options}) as manager:
            manager.add_global_middleware(SummarizingMiddleware(after=6, keep=2))
            yield await manager.create_session("ann", name, model)

    async def test_by_the_sessions_own_provider(
        self, vendor: BaseSession, world: ServerWorld
    ) -> None:
        await vendor.record(talk(6))
        world.reply({"text": "They counted."})
        reply = await vendor.send_message("now")
        assert vendor.context.summary is not None
        assert vendor.context.summary.text == "They counted."
        # The summary is a user's message, which joins the next where speakers alternate.
        seen = int(reply.text.split()[2])
        assert reply.text == f"I see {seen} messages. The last says: now"
        assert seen in (3, 4)
        assert world.state()["refused"] == []
        reply = await vendor.send_message("and?")
        assert reply.text == f"I see {seen + 2} messages. The last says: and?"

    async def test_leaves_nothing_behind(self, vendor: BaseSession, world: ServerWorld) -> None:
        await vendor.record(talk(6))
        world.reply({"text": "They counted."})
        await vendor.send_message("now")
        await vendor.manager.delete_session(vendor.session_id)
        assert world.state()["conversations"] == {}
        assert all(each["conversation"] for each in world.state()["responses"].values())


class TestTooLong:
    """Summaries of more than the model takes.

    Left alone, they fail with every message from then on:
    https://github.com/earendil-works/pi/issues/8196, https://github.com/gsd-build/gsd-2/issues/2932
    """

    def narrow(self, most: int) -> MockProviderSession:
        def summary(request: Any) -> str:
            if len(request.messages[-1].text) > most:
                raise ContextLengthError("too long", provider="narrow")
            return "short"

        return MockProviderSession(summary)

    async def test_are_made_of_fewer_messages(self, manager: SessionManager) -> None:
        narrow = self.narrow(3000)
        manager.add_global_middleware(SummarizingMiddleware(after=6, keep=2, provider=narrow))
        session = await manager.create_session("ann", "mock", "echo")
        await session.record([message(("user", "assistant")[n % 2], "x" * 999) for n in range(10)])
        await session.send_message("on")
        summary = session.context.summary
        assert summary is not None
        assert (summary.text, summary.last_seq) == ("short", 2)

    async def test_cut_a_single_message(self, manager: SessionManager) -> None:
        narrow = self.narrow(3000)
        manager.add_global_middleware(SummarizingMiddleware(after=3, keep=2, provider=narrow))
        session = await manager.create_session("ann", "mock", "echo")
        await session.record([message("user", "x " * 9999), message("assistant", "y"), *talk(2)])
        await session.send_message("on")
        assert session.context.summary is not None
        assert session.context.summary.last_seq == 1
