"""Compactions that a provider makes of a whole conversation."""

from __future__ import annotations

from typing import Any

import pytest

from langswarm_session import (
    BaseSession,
    InvalidInputError,
    InvalidReasoningError,
    MockProviderSession,
    OtherBlock,
    ProviderCapabilityError,
    ProviderReply,
    SessionManager,
    SessionMessage,
    SummarizingMiddleware,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)


class Compacting(MockProviderSession):
    """A provider that makes compactions: each says how many messages it stands for."""

    async def compact(self, request: Any) -> ProviderReply:
        block = OtherBlock(value={"type": "compaction", "of": len(request.messages)})
        return ProviderReply([SessionMessage(role="assistant", content=[block])])


def sent(mock: MockProviderSession) -> list[Any]:
    """Texts, and how many messages a compaction stands for."""
    return [
        each.text or [block.value["of"] for block in each.blocks if isinstance(block, OtherBlock)]
        for each in mock.requests[-1].window
    ]


@pytest.fixture
def compacting(manager: SessionManager) -> Compacting:
    provider = Compacting()
    manager.add_provider_session("vendor", provider)
    return provider


@pytest.fixture
async def session(manager: SessionManager, compacting: Compacting) -> BaseSession:
    session = await manager.create_session("ann", "vendor", "echo")
    await session.add_system_message("be kind")
    for text in "ab":
        await session.send_message(text)
    return session


async def test_requests_begin_with_it(session: BaseSession, compacting: Compacting) -> None:
    kept = await session.compact()
    assert (kept.provider, kept.seq) == ("vendor", 6)
    reply = await session.send_message("c")
    assert sent(compacting) == ["be kind", [5], "c"]
    assert reply.metadata["langswarm"]["prefix_change"]["reason"] == "summary"
    again = await session.manager.get_session(session.session_id)
    reply = await again.send_message("d")
    assert sent(compacting) == ["be kind", [5], "c", "You said: c", "d"]
    assert "prefix_change" not in reply.metadata.get("langswarm", {})
    assert len(await session.get_messages()) == 10


async def test_the_newest_counts(session: BaseSession, compacting: Compacting) -> None:
    await session.compact()
    await session.send_message("c")
    await session.compact()
    await session.send_message("d")
    assert sent(compacting) == ["be kind", [4], "d"]


async def test_other_providers_have_the_messages_before_it(
    session: BaseSession, compacting: Compacting, mock: MockProviderSession
) -> None:
    await session.compact()
    await session.switch_provider("mock", "echo")
    await session.send_message("c")
    assert sent(mock) == ["be kind", "a", "You said: a", "b", "You said: b", "c"]
    await session.switch_provider("vendor", "echo")
    await session.send_message("d")
    assert sent(compacting) == ["be kind", [5], "c", "You said: c", "d"]


async def test_it_stays_when_the_window_moves_on(
    session: BaseSession, compacting: Compacting
) -> None:
    await session.compact()
    await session.update_context(max_messages=4)
    for text in "cdef":
        await session.send_message(text)
        assert sent(compacting)[:2] == ["be kind", [5]]
        assert len(sent(compacting)) <= 6
    kept = sent(compacting)
    again = await session.manager.get_session(session.session_id)
    window = await again.get_window()
    assert window[1].blocks == [OtherBlock(value={"type": "compaction", "of": 5})]
    fork = await session.fork()
    await fork.send_message("g")
    await session.send_message("g")
    first, second = (list(request.window) for request in list(compacting.requests)[-2:])
    assert [each.content for each in first] == [each.content for each in second]
    assert kept[0] == "be kind"


async def test_one_within_a_reply(manager: SessionManager, compacting: Compacting) -> None:
    """As OpenAI's ``context_management`` gives it; without it the reply is sent elsewhere."""
    compacting.script(
        "one", [OtherBlock(value={"type": "compaction", "of": 2}), TextBlock(text="two")], "three"
    )
    session = await manager.create_session("ann", "vendor", "m", max_messages=4)
    for text in "abcd":
        await session.send_message(text)
    assert [each.text for each in compacting.requests[-2].window] == ["two", "c"]
    for text in "efg":
        await session.send_message(text)
        first = compacting.requests[-1].window[0]
        assert first.blocks == [OtherBlock(value={"type": "compaction", "of": 2})]


async def test_none_of_a_provider_that_makes_none(
    manager: SessionManager, mock: MockProviderSession
) -> None:
    session = await manager.create_session("ann", "mock", "echo")
    await session.send_message("a")
    with pytest.raises(ProviderCapabilityError, match="makes no compactions"):
        await session.compact()


class TestNative:
    async def test_makes_one_when_it_is_due(
        self, manager: SessionManager, compacting: Compacting
    ) -> None:
        manager.add_global_middleware(SummarizingMiddleware(after=6, keep=2, native=True))
        session = await manager.create_session("ann", "vendor", "echo")
        for number in range(6):
            await session.send_message(f"m{number}")
        assert sent(compacting) == [[6], "m3", "You said: m3", "m4", "You said: m4", "m5"]
        assert session.context.summary is None

    async def test_of_a_provider_that_makes_none_is_an_error(
        self, manager: SessionManager, mock: MockProviderSession
    ) -> None:
        manager.add_global_middleware(SummarizingMiddleware(after=3, keep=2, native=True))
        session = await manager.create_session("ann", "mock", "echo")
        for text in "ab":
            await session.send_message(text)
        with pytest.raises(ProviderCapabilityError, match="native=True"):
            await session.send_message("c")

    def test_takes_no_other_provider(self) -> None:
        with pytest.raises(InvalidInputError, match="leave out"):
            SummarizingMiddleware(native=True, model="small")


async def test_a_result_of_a_call_before_it(session: BaseSession, compacting: Compacting) -> None:
    compacting.script(ToolCallBlock(id="c", name="look"))
    await session.send_message("look")
    await session.compact()
    result = ToolResultBlock(tool_call_id="c", content="seen")
    await session.send_message(SessionMessage(role="tool", content=[result]))
    roles = [each.role for each in compacting.requests[-1].window]
    assert roles[-2:] == ["assistant", "tool"]
    assert compacting.requests[-1].repairs == []


async def test_it_is_reported_behind_a_later_system_message(session: BaseSession) -> None:
    await session.compact()
    await session.add_system_message("be brief")
    reply = await session.send_message("c")
    assert reply.metadata["langswarm"]["prefix_change"]["reason"] == "summary"
    reply = await session.send_message("d")
    assert "prefix_change" not in reply.metadata.get("langswarm", {})


async def test_a_raised_limit_changes_nothing_before_it(session: BaseSession) -> None:
    await session.update_context(max_messages=4)
    for text in "cd":
        await session.send_message(text)
    await session.compact()
    await session.send_message("e")
    await session.update_context(max_messages=50)
    reply = await session.send_message("f")
    assert "prefix_change" not in reply.metadata.get("langswarm", {})


async def test_one_that_is_refused_is_left_out_for_good(
    session: BaseSession, compacting: Compacting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only who made it can read it, as after the organization changed.

    https://github.com/lidge-jun/opencodex/pull/2228: the turn fails, and every later one as well.
    """
    await session.compact()
    await session.send_message("c")
    answer, asked = Compacting.send_message, []

    async def send(self: Compacting, request: Any) -> ProviderReply:
        asked.append(request)
        if any(isinstance(block, OtherBlock) for each in request.window for block in each.blocks):
            raise InvalidReasoningError("encrypted content could not be decrypted")
        return await answer(self, request)

    monkeypatch.setattr(Compacting, "send_message", send)
    reply = await session.send_message("d")
    assert reply.metadata["langswarm"]["prefix_change"]["reason"] == "reasoning"
    assert sent(compacting)[:3] == ["be kind", "a", "You said: a"]
    assert len(asked) == 3
    reply = await session.send_message("e")
    assert "prefix_change" not in reply.metadata.get("langswarm", {})
    assert len(asked) == 4
