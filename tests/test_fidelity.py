from __future__ import annotations

import pytest

from langswarm_session import (
    AudioBlock,
    InvalidInputError,
    OtherBlock,
    ProviderAuthenticationError,
    ReasoningBlock,
    SessionMessage,
    TextBlock,
    TokenUsage,
    ToolCallBlock,
    ToolResultBlock,
    UnknownProviderError,
    VideoBlock,
)

PLAIN = [
    SessionMessage(role="system", content="Be brief."),
    SessionMessage(role="user", content="How warm is it?"),
    SessionMessage(
        role="assistant",
        content=[ToolCallBlock(id="call_1", name="weather", args={"city": "Uppsala"})],
    ),
    SessionMessage(role="tool", content=[ToolResultBlock(tool_call_id="call_1", content="12")]),
    SessionMessage(role="assistant", content="12 degrees."),
]


@pytest.fixture(params=["langchain", "llama_index", "openai_agents"])
def door(request):
    module = {"langchain": "langchain_core", "llama_index": "llama_index.core"}
    pytest.importorskip(module.get(request.param, "agents"), reason=f"{request.param} is missing")
    return request.param


async def test_a_plain_conversation_loses_nothing_anywhere(session, door):
    await session.record(PLAIN)
    losses = await session.fidelity(door)
    assert [loss for loss in losses if any("content" in part for part in loss.lost)] == []


async def test_what_a_format_has_no_field_for_is_named(session, door):
    await session.record(
        [
            *PLAIN,
            SessionMessage(
                role="assistant",
                content=[
                    TextBlock(text="See."),
                    VideoBlock(url="https://example.org/v.mp4", mime_type="video/mp4"),
                ],
                usage=TokenUsage(input_tokens=1, output_tokens=2, details={"own": 1}),
                metadata={"mine": 1},
            ),
        ]
    )
    losses = {loss.seq: loss.lost for loss in await session.fidelity(door)}
    assert "metadata" in losses[6]


async def test_a_message_that_came_in_a_format_loses_nothing_there(session):
    pytest.importorskip("langchain_core")
    from langchain_core.messages import AIMessage
    from langchain_langswarm import from_langchain

    message = from_langchain(AIMessage("hi", additional_kwargs={"own": [1]}, id="m"))
    await session.record(message)
    assert await session.fidelity("langchain") == []


async def test_for_a_provider_it_names_the_repairs(manager, session):
    pytest.importorskip("openai")
    from langswarm_session import OpenAIProviderSession

    manager.add_provider_session("openai", OpenAIProviderSession("key", mode="responses"))
    await session.record(
        [
            SessionMessage(role="user", content="Look."),
            SessionMessage(
                role="assistant",
                content=[
                    ReasoningBlock(reasoning="hm", signature="of another"),
                    TextBlock(text="I see."),
                    OtherBlock(value={"type": "theirs"}),
                ],
            ),
        ]
    )
    (loss,) = await session.fidelity("openai")
    assert loss.seq == 2
    assert [part.split(":")[0] for part in loss.lost] == ["reasoning_dropped", "block_dropped"]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
async def test_a_provider_needs_no_key_to_be_asked_about(manager, session, provider, monkeypatch):
    pytest.importorskip(provider)
    monkeypatch.delenv(f"{provider.upper()}_API_KEY", raising=False)
    await session.send_message("hi")
    assert await session.fidelity(provider) == [], "a user's turn to come is no loss"
    await session.record(
        SessionMessage(role="user", content=[AudioBlock(base64="aGk=", mime_type="audio/wav")])
    )
    (loss,) = await session.fidelity(provider)
    assert loss.seq == 3


async def test_one_that_was_made_without_a_key_can_be_asked_about(manager, monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    session = await manager.create_session("ann", "openai", "gpt-5.4")
    with pytest.raises(ProviderAuthenticationError):
        await session.send_message("hi")
    await session.record(SessionMessage(role="user", content="hi"))
    assert await session.fidelity("openai") == []


async def test_a_managers_fallback_does_not_stand_for_the_target(make_manager):
    pytest.importorskip("anthropic")
    manager = make_manager(fallback="mock")
    session = await manager.create_session("ann", "mock", "echo")
    await session.record(
        [
            SessionMessage(role="user", content="hi"),
            SessionMessage(role="assistant", content=[OtherBlock(value={"type": "theirs"})]),
        ]
    )
    (loss,) = await session.fidelity("anthropic")
    assert loss.seq == 2
    with pytest.raises(UnknownProviderError, match="no framework or provider 'nobody'"):
        await session.fidelity("nobody")


async def test_a_framework_may_be_written_as_its_extra_is(session):
    pytest.importorskip("agents")
    pytest.importorskip("llama_index.core")
    await session.send_message("hi")
    for name in ("llama_index", "openai_agents"):
        assert await session.fidelity(name.replace("_", "-")) == await session.fidelity(name)


async def test_an_unknown_target_is_refused(session):
    with pytest.raises(UnknownProviderError, match="nobody"):
        await session.fidelity("nobody")
    with pytest.raises(InvalidInputError, match="langchain"):
        await session.fidelity("")
