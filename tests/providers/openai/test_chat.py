from __future__ import annotations

import pytest

from langswarm_session import (
    AudioBlock,
    FileBlock,
    ImageBlock,
    InMemorySessionStorage,
    InvalidInputError,
    MessageRole,
    OpenAIProviderSession,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderResponseError,
    ProviderSessionError,
    ProviderStreamError,
    ProviderUnavailableError,
    RefusalBlock,
    SessionManager,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.providers import sdk

ASK = "POST /v1/chat/completions"
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


def weather(city: str) -> str:
    """The weather in a city."""
    return f"Snow in {city}."


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Retries that do not wait."""
    monkeypatch.setattr(sdk, "FIRST_DELAY", 0.001)


@pytest.fixture
async def session(world):
    provider = OpenAIProviderSession(world.key, base_url=world.openai_url)
    async with SessionManager(InMemorySessionStorage(), providers={"openai": provider}) as manager:
        yield await manager.create_session("u", "openai", "gpt-5.4")


async def shown_by(session, text, **options):
    """The reply, and what of it was shown."""
    shown = ""
    async for event in session.stream_message(text, **options):
        shown += event.text
        if event.message is not None:
            return event.message, shown
    raise AssertionError("a stream ends with its message")


def last(world):
    return world.requests(ASK)[-1]["body"]


class TestTurns:
    async def test_the_window_travels(self, world, session):
        await session.add_system_message("Be brief.")
        await session.send_message("one")
        reply = await session.send_message("two", instructions="In French.", temperature=0.1)
        assert reply.text == "I see 3 messages. The last says: two"
        assert last(world) == {
            "model": "gpt-5.4",
            "temperature": 0.1,
            "messages": [
                {"role": "system", "content": "In French.\n\nBe brief."},
                {"role": "user", "content": "one"},
                {"role": "assistant", "content": "I see 1 messages. The last says: one"},
                {"role": "user", "content": "two"},
            ],
        }
        assert session.context.provider_session_id is None

    async def test_streaming(self, session):
        reply, shown = await shown_by(session, "one")
        assert shown == reply.text == "I see 1 messages. The last says: one"
        assert reply.usage.input_tokens > 0
        reply, _ = await shown_by(session, "two")
        assert reply.usage.cached_tokens > 0

    async def test_servers_that_count_less(self, world, session):
        world.set(compat=True)
        reply = await session.send_message("one")
        assert (reply.usage.cached_tokens, reply.usage.reasoning_tokens) == (0, 0)
        reply, _ = await shown_by(session, "two")
        assert reply.usage.input_tokens > 0

    async def test_streams_without_usage(self, session):
        reply, _ = await shown_by(session, "one", stream_options={"include_usage": False})
        assert reply.usage is None

    @pytest.mark.parametrize("streaming", [False, True])
    async def test_parallel_calls_and_their_results(self, world, session, streaming):
        world.reply({"text": "Looking.", "tool_calls": [
            {"name": "weather", "arguments": {"city": city}} for city in ("Oslo", "Rome")
        ]})  # fmt: skip
        if streaming:
            events = [e async for e in session.stream_message("Both?", tools=[weather])]
            calls = [e.block for e in events if e.block is not None]
            reply = events[-1].message
        else:
            reply = await session.send_message("Both?", tools=[weather])
            calls = [block for block in reply.blocks if isinstance(block, ToolCallBlock)]
        assert (reply.text, reply.finish_reason) == ("Looking.", "tool_calls")
        assert [call.args for call in calls] == [{"city": "Oslo"}, {"city": "Rome"}]
        results = await session.call_tools(reply, [weather])
        reply = await session.send_message(results, tools=[weather])
        assert reply.text == "I see 2 messages. The last says: Snow in Rome."
        assert [m["content"] for m in last(world)["messages"][2:]] == [
            "Snow in Oslo.",
            "Snow in Rome.",
        ]

    async def test_a_call_without_result_is_answered(self, world, session):
        await session.send_message('call weather {"city": "Oslo"}', tools=[weather])
        reply = await session.send_message("Never mind.")
        assert reply.text == "I see 3 messages. The last says: Never mind."
        assert world.state()["refused"] == []

    async def test_arguments_that_are_no_json(self, world, session):
        world.reply({"tool_calls": [{"name": "weather", "arguments": "Oslo!"}]})
        reply = await session.send_message("Oslo?", tools=[weather])
        assert reply.blocks[0].extras == {"arguments": "Oslo!"}
        results = await session.call_tools(reply, [weather])
        assert results.blocks[0].is_error
        await session.send_message(results, tools=[weather])

    async def test_long_ids_of_other_providers(self, session):
        call = ToolCallBlock(id="x" * 64, name="weather", args={"city": "Oslo"})
        result = ToolResultBlock(tool_call_id=call.id, content="snow")
        await session.record(
            [
                SessionMessage(role=MessageRole.USER, content="Oslo?"),
                SessionMessage(role=MessageRole.ASSISTANT, content=[call]),
                SessionMessage(role=MessageRole.TOOL, content=[result]),
            ]
        )
        reply = await session.send_message("And?")
        assert reply.metadata["langswarm"]["repairs"][0]["kind"] == "id_changed"

    @pytest.mark.parametrize("streaming", [False, True])
    async def test_refusals(self, world, session, streaming):
        world.reply({"refusal": "I will not."})
        if streaming:
            reply, shown = await shown_by(session, "Do it.")
            assert shown == "I will not."
        else:
            reply = await session.send_message("Do it.")
        assert reply.blocks == [RefusalBlock(refusal="I will not.")]
        assert reply.finish_reason == "refusal"
        assert (await session.send_message("So?")).text == "I see 3 messages. The last says: So?"

    async def test_replies_that_are_cut_short(self, session):
        reply = await session.send_message("Tell me all.", max_completion_tokens=2)
        assert (reply.text, reply.finish_reason) == ("I see 1 ", "length")

    async def test_media(self, world, session):
        blocks = [
            TextBlock(text="Look."),
            ImageBlock(url="https://example.org/a.png"),
            ImageBlock(base64=PIXEL, mime_type="image/png"),
            ImageBlock(file_id="file-1"),
            AudioBlock(base64="YQ==", mime_type="audio/wav"),
            FileBlock(base64="JVBERi0=", filename="a.pdf"),
        ]
        reply = await session.send_message(blocks)
        kinds = [part["type"] for part in last(world)["messages"][0]["content"]]
        assert kinds == ["text", "image_url", "image_url", "text", "input_audio", "file"]
        # This API takes pictures by address and by value only.
        (repair,) = reply.metadata["langswarm"]["repairs"]
        assert (repair["kind"], repair["detail"]) == ("block_converted", "image")


class TestErrors:
    @pytest.mark.parametrize(
        ("kind", "options", "ending"),
        [
            ("rate_limit", {"retry_after": 0}, ProviderRateLimitError),
            ("server_error", {}, ProviderUnavailableError),
            ("overloaded", {}, ProviderUnavailableError),
            ("cut_before", {}, ProviderUnavailableError),
            ("cut_after", {}, ProviderUnavailableError),
            ("status_after", {"status": 502}, ProviderUnavailableError),
        ],
    )
    @pytest.mark.parametrize("streaming", [False, True])
    async def test_what_may_pass_is_tried_again(
        self, world, session, kind, options, ending, streaming
    ):
        world.fail(ASK, kind, times=2, **options)
        if streaming:
            await shown_by(session, "one")
        else:
            await session.send_message("one")
        assert len(world.requests(ASK)) == 3
        world.fail(ASK, kind, times=3, **options)
        with pytest.raises(ending):
            await session.send_message("two")
        assert (await session.send_message("three")).text.startswith("I see 3 messages.")

    @pytest.mark.parametrize(
        ("kind", "options", "ending"),
        [
            ("garbage", {}, ProviderResponseError),
            ("html", {}, ProviderResponseError),
            ("status", {"status": 400}, ProviderRequestError),
            ("rate_limit", {"retry_after": 3600}, ProviderRateLimitError),
        ],
    )
    @pytest.mark.parametrize("streaming", [False, True])
    async def test_what_does_not_pass_is_not(
        self, world, session, kind, options, ending, streaming
    ):
        world.fail(ASK, kind, **options)
        with pytest.raises(ending):
            await (shown_by(session, "one") if streaming else session.send_message("one"))
        assert len(world.requests(ASK)) == 1
        assert (await session.send_message("two")).text == "I see 1 messages. The last says: two"

    @pytest.mark.parametrize("at", range(2))
    @pytest.mark.parametrize("kind", ["cut_stream", "stream_error"])
    async def test_streams_that_break_off_before_their_first_piece(self, world, session, kind, at):
        world.fail(ASK, kind, at=at)
        reply, _ = await shown_by(session, "one")
        assert reply.text == "I see 1 messages. The last says: one"
        assert len(world.requests(ASK)) == 2
        assert len(await session.get_messages()) == 2

    @pytest.mark.parametrize("kind", ["cut_stream", "stream_error"])
    async def test_streams_that_keep_breaking_off(self, world, session, kind):
        world.fail(ASK, kind, at=1, times=-1)
        ending = ProviderStreamError if kind == "cut_stream" else ProviderUnavailableError
        with pytest.raises(ending):
            await shown_by(session, "one")
        assert len(world.requests(ASK)) == 3
        assert [m.text for m in await session.get_messages()] == ["one"]

    @pytest.mark.parametrize("at", range(2, 10))
    @pytest.mark.parametrize("kind", ["cut_stream", "stream_error"])
    async def test_streams_that_break_off(self, world, session, kind, at):
        world.fail(ASK, kind, at=at)
        ending = ProviderStreamError if kind == "cut_stream" else ProviderUnavailableError
        shown = ""
        with pytest.raises(ending) as caught:
            async for event in session.stream_message("one"):
                shown += event.text
        assert caught.value.retriable
        log = [m.text for m in await session.get_messages()]
        assert log == (["one", shown] if shown else ["one"])
        reply, _ = await shown_by(session, "two")
        assert reply.text == f"I see {3 if shown else 1} messages. The last says: two"

    @pytest.mark.parametrize(
        "body", [{}, {"choices": []}, {"choices": None}, {"choices": [{}]}, [], "x"]
    )
    async def test_answers_of_another_shape(self, world, session, body):
        world.fail(ASK, "status", status=200, body=body)
        with pytest.raises(ProviderResponseError, match="check the base_url"):
            await session.send_message("one")

    @pytest.mark.parametrize("name", ["model", "messages", "stream", "n"])
    async def test_options_that_the_session_decides(self, world, session, name):
        with pytest.raises(InvalidInputError, match=f"{name} is not to be given"):
            await session.send_message("one", **{name: None})
        assert world.requests() == []

    async def test_unknown_options(self, session):
        with pytest.raises(InvalidInputError, match="tempratur"):
            await session.send_message("one", tempratur=1)

    @pytest.mark.parametrize(
        ("model", "options", "said"),
        [
            ("notools-1", {"tools": [weather]}, "tools"),
            ("noreason-1", {"reasoning_effort": "low"}, "reasoning_effort"),
            ("unknown-1", {}, "no model 'unknown-1'"),
        ],
    )
    async def test_what_a_model_cannot_do(self, session, model, options, said):
        await session.update_context(model=model)
        with pytest.raises(ProviderSessionError, match=said) as caught:
            await session.send_message("one", **options)
        assert caught.value.provider == "openai"
        assert not caught.value.retriable

    async def test_a_model_without_eyes(self, session):
        await session.update_context(model="novision-1")
        with pytest.raises(ProviderRequestError, match="image_url is only supported by"):
            await session.send_message([ImageBlock(url="https://example.org/a.png")])
