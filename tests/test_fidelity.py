from __future__ import annotations

import pytest

from langswarm_session import (
    InvalidInputError,
    OtherBlock,
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


async def test_an_unknown_target_is_refused(session):
    with pytest.raises(UnknownProviderError, match="nobody"):
        await session.fidelity("nobody")
    with pytest.raises(InvalidInputError, match="langchain"):
        await session.fidelity("")
