"""Conformance of a provider by itself: replies, streams, conversations, failures and its life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import pytest

from langswarm_session._sync import bridge
from langswarm_session.errors import (
    ProviderAuthenticationError,
    ProviderCapabilityError,
    ProviderRateLimitError,
    ProviderSessionError,
    ProviderStreamError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnknownModelError,
)
from langswarm_session.interfaces import IProviderSession, ProviderCapability
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.records import ProviderReply, ProviderRequest, StreamEvent
from langswarm_session.requests.normalize import Target
from langswarm_session.testing.provider_base import ASK, TELL, WORD, ProviderTests, is_reply

T = TypeVar("T")

# What a provider kept in another of its modes may still be removed, so that is not among them.
_NATIVE = ("create_provider_session", "get_provider_session", "get_messages")


class ReplyTests(ProviderTests):
    """What a provider does with a request."""

    async def test_a_reply_is_what_an_assistant_says(self, provider: IProviderSession) -> None:
        """In words, with sound figures, and a reason why it ended."""
        reply = await provider.send_message(self.request(provider, TELL))
        message = reply.messages[-1]
        assert is_reply(message)
        assert all(each.role is MessageRole.ASSISTANT for each in reply.messages)
        assert message.provider in (None, provider.name)
        assert message.finish_reason
        if message.usage is not None:
            usage = message.usage
            assert usage.cached_tokens <= usage.input_tokens
            assert usage.reasoning_tokens <= usage.output_tokens

    async def test_the_whole_window_is_sent(self, provider: IProviderSession) -> None:
        """What was said before is known."""
        said = SessionMessage(role=MessageRole.ASSISTANT, content="I will remember that.")
        reply = await self.ask(provider, TELL, said, ASK)
        assert self.remembers(reply, WORD, 3)

    async def test_a_stream_is_the_reply_in_pieces(self, provider: IProviderSession) -> None:
        """The pieces' text is the reply's; the whole reply comes once, and last."""
        *pieces, reply = [each async for each in _stream(provider, self.request(provider, TELL))]
        assert isinstance(reply, ProviderReply)
        assert all(isinstance(piece, StreamEvent) for piece in pieces)
        assert is_reply(reply.messages[-1])
        said = "".join(piece.text for piece in pieces if isinstance(piece, StreamEvent))
        assert said == "".join(message.text for message in reply.messages)

    async def test_a_stream_may_be_left(self, provider: IProviderSession) -> None:
        """Whoever stops reading gets no error, and the provider is as it was."""
        async with aclosing(_stream(provider, self.request(provider, TELL))) as events:
            await anext(events)
        assert is_reply(await self.ask(provider, TELL))

    async def test_many_at_once(self, provider: IProviderSession) -> None:
        """One provider answers all sessions."""
        asked = [self.ask(provider, TELL) for _ in range(5)]
        assert all(map(is_reply, await asyncio.gather(*asked)))

    async def test_it_says_what_it_takes(self, provider: IProviderSession) -> None:
        """Its target is for the model that is asked for, under its own name."""
        request = self.request(provider, TELL)
        target = provider.target(request.context, {})
        assert isinstance(target, Target)
        assert (target.provider, target.model) == (provider.name, self.model)

    async def test_it_counts_or_says_that_it_does_not(self, provider: IProviderSession) -> None:
        """More tokens for more words, where it counts at all."""
        few = await _outcome(provider.count_tokens(self.request(provider, "one")))
        if isinstance(few, ProviderSessionError):
            assert isinstance(few, ProviderCapabilityError)
            self.is_sound(few, provider)
            return
        many = await provider.count_tokens(self.request(provider, "one two three " * 50))
        assert 0 < few < many


class CapabilityTests(ProviderTests):
    """What a provider says of itself is so."""

    async def test_its_name_is_one(self, provider: IProviderSession) -> None:
        """It is what users write."""
        assert provider.name
        assert isinstance(provider.name, str)

    async def test_capabilities_are_known_ones(self, provider: IProviderSession) -> None:
        """They are a frozen set: nobody changes them."""
        assert isinstance(provider.capabilities, frozenset)
        assert provider.capabilities <= set(ProviderCapability)

    @pytest.mark.parametrize("operation", _NATIVE)
    async def test_it_keeps_no_conversations_unless_it_says_so(
        self, provider: IProviderSession, operation: str
    ) -> None:
        """Asking for what it cannot do is an error that says so, never nothing."""
        if ProviderCapability.NATIVE in provider.capabilities:
            pytest.skip("the provider keeps conversations")
        with self.fails(ProviderCapabilityError, provider):
            await getattr(provider, operation)("any")

    async def test_conversations_are_made_and_removed(self, provider: IProviderSession) -> None:
        """Each has an id of its own; one that is gone already can be removed again."""
        self._needs_native(provider)
        one = await provider.create_provider_session("ann")
        other = await provider.create_provider_session("ann")
        assert one
        assert one != other
        assert isinstance(await provider.get_provider_session(one), dict)
        assert await provider.get_messages(one) == []
        await provider.delete_provider_session(one)
        await provider.delete_provider_session(one)
        for ask in (provider.get_provider_session, provider.get_messages):
            with self.fails(ProviderSessionError, provider):
                await ask(one)
        assert await provider.get_messages(other) == []
        await provider.delete_provider_session(other)

    async def test_what_was_said_in_a_conversation_is_read_back(
        self, provider: IProviderSession
    ) -> None:
        """In order, the newest where a limit is given."""
        self._needs_native(provider)
        native = await provider.create_provider_session("ann")
        reply = await provider.send_message(self.request(provider, TELL, native=native))
        kept = reply.provider_session_id or native
        said = [TELL, reply.messages[-1].text]
        assert [each.text for each in await provider.get_messages(kept)] == said
        assert [each.text for each in await provider.get_messages(kept, 1)] == said[1:]
        assert await provider.get_messages(kept, 0) == []
        for each in {kept, native}:
            await provider.delete_provider_session(each)

    def _needs_native(self, provider: IProviderSession) -> None:
        if ProviderCapability.NATIVE not in provider.capabilities:
            pytest.skip("the provider keeps no conversations")


class FailureTests(ProviderTests):
    """Failures are errors of this package which say whose they are, and no key."""

    async def test_a_limit_of_requests(self, provider: IProviderSession) -> None:
        """It may be tried again; when, it says where it knows."""
        self.limit_rate(provider)
        with self.fails(ProviderRateLimitError, provider) as caught:
            await self.ask(provider, TELL)
        error = caught.value
        assert isinstance(error, ProviderRateLimitError)
        assert error.retriable
        assert error.retry_after is None or error.retry_after >= 0
        assert is_reply(await self.ask(provider, TELL))

    async def test_a_limit_of_requests_to_a_stream(self, provider: IProviderSession) -> None:
        """It is the same error, and no stream that breaks."""
        self.limit_rate(provider)
        with self.fails(ProviderRateLimitError, provider):
            await _read(provider, self.request(provider, TELL))
        assert is_reply(await self.ask(provider, TELL))

    async def test_an_outage(self, provider: IProviderSession) -> None:
        """It may be tried again."""
        self.go_down(provider)
        with self.fails(ProviderSessionError, provider) as caught:
            await self.ask(provider, TELL)
        assert isinstance(caught.value, ProviderUnavailableError | ProviderTimeoutError)
        assert caught.value.retriable
        assert is_reply(await self.ask(provider, TELL))

    async def test_a_stream_that_breaks(self, provider: IProviderSession) -> None:
        """It is an error, unless the provider could go on with it: never half a reply."""
        self.break_stream(provider)
        outcome = await _outcome(_read(provider, self.request(provider, TELL)))
        if isinstance(outcome, ProviderSessionError):
            assert isinstance(outcome, ProviderStreamError | ProviderUnavailableError)
            assert outcome.retriable
            self.is_sound(outcome, provider)
        else:
            shown, reply = outcome
            assert shown == reply.messages[-1].text
        assert is_reply(await self.ask(provider, TELL))

    async def test_a_key_that_is_refused(self) -> None:
        """The error says that it is the key, and not which."""
        provider = self.make_with_bad_key()
        with self.fails(ProviderAuthenticationError, provider) as caught:
            await self.ask(provider, TELL)
        assert not caught.value.retriable
        with self.fails(ProviderAuthenticationError, provider):
            await _read(provider, self.request(provider, TELL))
        self.shows_no_secret(repr(provider))
        await provider.close()

    async def test_a_model_that_does_not_exist(self, provider: IProviderSession) -> None:
        """The error names it."""
        if self.unknown_model is None:
            pytest.skip("set unknown_model to test this failure")
        with self.fails(UnknownModelError, provider) as caught:
            await self.ask(provider, TELL, model=self.unknown_model)
        assert self.unknown_model in str(caught.value)

    async def test_it_shows_no_secret_of_itself(self, provider: IProviderSession) -> None:
        """Neither before it was used nor after."""
        self.shows_no_secret(repr(provider), str(provider))
        await self.ask(provider, TELL)
        self.shows_no_secret(repr(provider), str(provider))


class LifeTests(ProviderTests):
    """Event loops, threads and closing."""

    async def test_closing_twice_is_closing_once(self) -> None:
        """Also before the first use."""
        unused = self.make_provider()
        used = self.make_provider()
        assert is_reply(await self.ask(used, TELL))
        for provider in (unused, used):
            await provider.close()
            await provider.close()

    async def test_one_event_loop_after_the_other(self) -> None:
        """A provider may outlive the loop that it was used on first."""
        provider = self.make_provider()

        async def use() -> bool:
            try:
                return is_reply(await self.ask(provider, TELL))
            finally:
                await provider.close()

        for _ in range(2):
            assert await asyncio.to_thread(asyncio.run, use())

    async def test_an_event_loop_while_another_runs(self, provider: IProviderSession) -> None:
        """As sync callers' calls run on the background loop, beside the caller's own."""

        async def use() -> bool:
            return is_reply(await self.ask(provider, TELL))

        async def close() -> None:
            await provider.close()

        assert await use()
        assert await asyncio.to_thread(lambda: bridge.run(use()))
        assert await use()
        await asyncio.to_thread(lambda: bridge.run(close()))


async def _outcome(call: Coroutine[Any, Any, T]) -> T | ProviderSessionError:
    """What a call gives, or the error that it raises."""
    try:
        return await call
    except ProviderSessionError as error:
        return error


async def _stream(
    provider: IProviderSession, request: ProviderRequest
) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
    async with aclosing(provider.stream_message(request)) as events:
        async for event in events:
            yield event


async def _read(provider: IProviderSession, request: ProviderRequest) -> tuple[str, ProviderReply]:
    """What a reader is shown, and the reply."""
    shown = ""
    async with aclosing(provider.stream_message(request)) as events:
        async for event in events:
            if isinstance(event, ProviderReply):
                return shown, event
            shown += event.text
    raise AssertionError("a stream ends with the reply, or with an error")
