from __future__ import annotations

from contextlib import aclosing

import pytest

from langswarm_session import (
    ImageBlock,
    InvalidInputError,
    MessageRole,
    MockFailure,
    MockProviderSession,
    ProviderCapability,
    ProviderRateLimitError,
    ProviderReply,
    ProviderRequest,
    ProviderSessionError,
    ProviderStreamError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ReasoningBlock,
    RefusalBlock,
    SessionContext,
    SessionMessage,
    StreamEvent,
    Target,
    TextBlock,
    TokenUsage,
    ToolCallBlock,
)


@pytest.fixture
def ask():
    """Makes the request for what was said, in a conversation with this model."""

    def ask(*said, model="echo", native=None):
        context = SessionContext(
            session_id="s", user_id="u", provider="mock", model=model, provider_session_id=native
        )
        messages = [SessionMessage(role=MessageRole.USER, content=text) for text in said]
        return ProviderRequest(session_id="s", context=context, messages=messages)

    return ask


async def reply_of(provider, request):
    (message,) = (await provider.send_message(request)).messages
    return message


async def stream_of(provider, request):
    return [event async for event in provider.stream_message(request)]


class TestReplies:
    async def test_echo_is_what_any_model_does(self, ask):
        message = await reply_of(MockProviderSession(), ask("one", "two", model="gpt-4o"))
        assert (message.text, message.role, message.finish_reason) == (
            "You said: two",
            MessageRole.ASSISTANT,
            "stop",
        )

    async def test_recall_shows_that_the_conversation_goes_on(self, ask):
        provider = MockProviderSession()
        first = await reply_of(provider, ask("one", model="recall"))
        assert first.text == "You said: one (That is the first thing I hear from you.)"
        second = await reply_of(provider, ask("one", "two", model="recall"))
        assert second.text == "You said: two (Before that: one I remember 2 messages.)"

    async def test_the_same_request_has_the_same_answer(self, ask):
        one, other = MockProviderSession(), MockProviderSession()
        first, second = await reply_of(one, ask("x")), await reply_of(other, ask("x"))
        assert (first.text, first.usage) == (second.text, second.usage)
        assert first.id != second.id
        assert first.provider_message_id != second.provider_message_id

    async def test_a_script_comes_first(self, ask):
        provider = MockProviderSession(["one"])
        provider.script("two", "three")
        said = [(await reply_of(provider, ask("x"))).text for _ in range(4)]
        assert said == ["one", "two", "three", "You said: x"]

    async def test_a_function_may_make_replies(self, ask):
        provider = MockProviderSession(lambda request: request.messages[-1].text[::-1])
        assert (await reply_of(provider, ask("abc"))).text == "cba"

    async def test_a_reply_may_be_blocks(self, ask):
        call = ToolCallBlock(id="c", name="look", args={"at": "it"})
        provider = MockProviderSession([call, [TextBlock(text="x"), call], MockFailure.REFUSAL])
        replies = [await reply_of(provider, ask("x")) for _ in range(3)]
        assert replies[0].content == [call]
        assert replies[1].content == [TextBlock(text="x"), call]
        assert isinstance(replies[2].content[0], RefusalBlock)
        assert [reply.finish_reason for reply in replies] == ["tool_calls", "tool_calls", "refusal"]

    async def test_a_reply_may_be_a_message(self, ask):
        given = SessionMessage(
            role="assistant", content="x", usage=TokenUsage(input_tokens=3), finish_reason="length"
        )
        assert await reply_of(MockProviderSession([given]), ask("x")) == given

    async def test_usage_is_estimated(self, ask):
        message = await reply_of(MockProviderSession(["x" * 41]), ask("y" * 20, "z" * 20))
        assert (message.usage.input_tokens, message.usage.output_tokens) == (10, 11)

    async def test_requests_are_kept_for_a_look(self, ask):
        provider = MockProviderSession()
        requests = [ask(str(i)) for i in range(120)]
        for request in requests:
            await provider.send_message(request)
        assert list(provider.requests) == requests[-100:]


class TestStreams:
    async def test_a_word_at_a_time_and_the_whole_at_the_end(self, ask):
        *pieces, reply = await stream_of(MockProviderSession(["  one\ntwo  three "]), ask("x"))
        assert "".join(map(str, pieces)) == "  one\ntwo  three "
        assert len(pieces) == 4
        assert isinstance(reply, ProviderReply)
        assert reply.messages[0].text == "  one\ntwo  three "

    async def test_blocks_in_one_piece(self, ask):
        blocks = [ReasoningBlock(reasoning="hm"), TextBlock(text="a b")]
        *pieces, reply = await stream_of(MockProviderSession([blocks]), ask("x"))
        assert pieces[0] == StreamEvent(block=blocks[0])
        assert [str(piece) for piece in pieces] == ["", "a ", "b"]
        assert reply.messages[0].content == blocks

    async def test_a_broken_one_breaks_half_way(self, ask):
        provider = MockProviderSession([MockFailure.BROKEN_STREAM])
        seen = []
        with pytest.raises(ProviderStreamError):
            async for event in provider.stream_message(ask("one two")):
                seen.append(str(event))
        assert seen == ["You ", "said: "]

    async def test_what_cannot_even_begin(self, ask):
        provider = MockProviderSession([MockFailure.UNAVAILABLE])
        with pytest.raises(ProviderUnavailableError):
            await anext(provider.stream_message(ask("x")))


class TestFailures:
    @pytest.mark.parametrize(
        ("failure", "error"),
        [
            ("rate_limit", ProviderRateLimitError),
            ("timeout", ProviderTimeoutError),
            (MockFailure.UNAVAILABLE, ProviderUnavailableError),
            (MockFailure.BROKEN_STREAM, ProviderStreamError),
            (MockFailure.ERROR, ProviderSessionError),
            (ZeroDivisionError(), ZeroDivisionError),
        ],
        ids=lambda value: getattr(value, "__name__", type(value).__name__),
    )
    async def test_on_demand(self, ask, failure, error):
        provider = MockProviderSession(["after"])
        provider.fail_next(failure, times=2)
        for _ in range(2):
            with pytest.raises(error) as caught:
                await provider.send_message(ask("x"))
            assert type(caught.value) is error
        assert (await reply_of(provider, ask("x"))).text == "after"

    async def test_a_rate_limit_says_when_to_come_back(self, ask):
        with pytest.raises(ProviderRateLimitError) as caught:
            await MockProviderSession([MockFailure.RATE_LIMIT]).send_message(ask("x"))
        assert caught.value.retry_after > 0
        assert caught.value.retriable
        assert caught.value.provider == "mock"

    def test_of_no_such_kind(self):
        with pytest.raises(ValueError, match="explosion"):
            MockProviderSession().fail_next("explosion")

    @pytest.mark.parametrize("options", [{"replies": "x"}, {"delay": -1}, {"piece_delay": -1}])
    def test_what_it_cannot_be_made_from(self, options):
        with pytest.raises(InvalidInputError):
            MockProviderSession(**options)


class TestConversations:
    async def test_it_keeps_those_that_it_is_asked_to(self, ask):
        provider = MockProviderSession()
        native = await provider.create_provider_session("ann")
        await provider.send_message(ask("one", native=native))
        await provider.send_message(ask("one", "two", native=native))
        kept = [m.text for m in await provider.get_messages(native)]
        assert kept == ["one", "You said: one", "two", "You said: two"]
        assert [m.text for m in await provider.get_messages(native, 1)] == ["You said: two"]
        assert await provider.get_messages(native, 0) == []
        assert await provider.get_provider_session(native) == {"id": native, "message_count": 4}

    async def test_and_no_others(self, ask):
        provider = MockProviderSession()
        native = await provider.create_provider_session("ann")
        await provider.send_message(ask("x"))
        await provider.send_message(ask("x", native="another"))
        assert await provider.get_messages(native) == []

    async def test_a_deleted_one_is_gone(self):
        provider = MockProviderSession()
        native = await provider.create_provider_session("ann")
        await provider.delete_provider_session(native)
        for attempt in (provider.get_messages, provider.get_provider_session):
            with pytest.raises(ProviderSessionError, match=native):
                await attempt(native)
        await provider.delete_provider_session(native)

    async def test_a_lost_one_is_made_anew_from_the_window(self, ask):
        provider = MockProviderSession()
        reply = await provider.send_message(ask("one", "two", native="lost"))
        assert reply.provider_session_id != "lost"
        kept = await provider.get_messages(reply.provider_session_id)
        assert [m.text for m in kept] == ["one", "two", "You said: two"]

    async def test_a_stream_that_is_left_adds_nothing(self, ask):
        provider = MockProviderSession()
        native = await provider.create_provider_session("ann")
        async with aclosing(provider.stream_message(ask("x", native=native))) as events:
            await anext(events)
        assert await provider.get_messages(native) == []

    async def test_what_was_never_acknowledged_is_dropped(self, ask):
        provider = MockProviderSession()
        native = await provider.create_provider_session("ann")
        first = await provider.send_message(ask("one", native=native))
        await provider.send_message(ask("one", "lost", native=native))
        request = ask("one", "two", native=native)
        request.context = request.context.model_copy(
            update={"provider_context": first.provider_context}
        )
        await provider.send_message(request)
        kept = [m.text for m in await provider.get_messages(native)]
        assert kept == ["one", "You said: one", "two", "You said: two"]

    async def test_the_system_is_not_in_it(self, ask):
        provider = MockProviderSession()
        native = await provider.create_provider_session("ann")
        request = ask("x", native=native)
        system = SessionMessage(role=MessageRole.SYSTEM, content="be kind")
        await provider.send_message(
            ProviderRequest("s", request.context, [system, *request.messages], 2)
        )
        assert [m.role for m in await provider.get_messages(native)] == ["user", "assistant"]


class TestTarget:
    async def test_it_takes_everything(self, session, mock):
        picture = ImageBlock(url="https://example.org/a.png")
        await session.send_message([picture])
        assert mock.requests[-1].messages[0].content == [picture]
        assert (mock.requests[-1].target.provider, mock.requests[-1].target.model) == (
            "mock",
            "echo",
        )

    async def test_it_may_be_as_strict_as_another(self, make_manager):
        target = Target(strict=True, takes=lambda block, in_result: block.type == "text")
        mock = MockProviderSession(target=target)
        manager = make_manager(providers={"mock": mock})
        session = await manager.create_session("ann", "mock", "echo")
        reply = await session.send_message([ImageBlock(url="https://example.org/a.png")])
        assert reply.text == "You said: [image https://example.org/a.png]"
        (repair,) = reply.metadata["langswarm"]["repairs"]
        assert repair["kind"] == "block_converted"


def test_it_can_do_all_there_is():
    assert MockProviderSession.capabilities == set(ProviderCapability)


async def test_delays_are_waited_for(ask, monkeypatch):
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    monkeypatch.setattr("langswarm_session.providers.mock.asyncio.sleep", sleep)
    provider = MockProviderSession(["one", "one two"], delay=5, piece_delay=2)
    await provider.send_message(ask("x"))
    await stream_of(provider, ask("x"))
    assert waited == [5, 5, 2, 2]
