"""A provider without a model: deterministic, offline, and failing on demand.

For trying things out without a key, and for testing an application against replies, tool calls and
failures of the caller's choice.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any, ClassVar

from langswarm_session.blocks import Block, RefusalBlock, TextBlock, ToolCallBlock, text_of
from langswarm_session.errors import (
    InvalidInputError,
    ProviderRateLimitError,
    ProviderSessionError,
    ProviderStreamError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from langswarm_session.interfaces import IProviderSession, ProviderCapability
from langswarm_session.models import (
    MessageRole,
    SessionContext,
    SessionMessage,
    TokenUsage,
    new_id,
)
from langswarm_session.records import ProviderReply, ProviderRequest, StreamEvent
from langswarm_session.requests.normalize import Target


class MockFailure(StrEnum):
    """What can go wrong on demand."""

    RATE_LIMIT = "rate_limit"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    BROKEN_STREAM = "broken_stream"
    REFUSAL = "refusal"
    ERROR = "error"


Answer = str | Block | list[Block] | SessionMessage | MockFailure | Exception
"""A scripted reply, or a failure in its place."""

Script = Iterable[Answer] | Callable[[ProviderRequest], Answer]
"""Replies one after the other, or a function that makes each."""


def echo(request: ProviderRequest) -> Answer:
    """Say again what was said last."""
    return f"You said: {request.messages[-1].text}"


def recall(request: ProviderRequest) -> Answer:
    """Say what the window holds, which shows that a conversation goes on."""
    said = [message.text for message in request.messages if message.role is MessageRole.USER]
    if len(said) == 1:
        return f"You said: {said[-1]} (That is the first thing I hear from you.)"
    return f"You said: {said[-1]} (Before that: {said[-2]} I remember {len(said)} messages.)"


MODELS: dict[str, Callable[[ProviderRequest], Answer]] = {"echo": echo, "recall": recall}
"""What the mock's models do; a name that is none of them echoes."""


class MockProviderSession(IProviderSession):
    """A provider without a model.

    It keeps the conversations that it was asked to create, for the sessions that name one of them.
    All else it is sent whole, and forgets.

    Args:
        replies: The replies, in order, or a function that makes each; when they have run out, or
            are None, the model's name decides: ``recall``, or else ``echo``. Where a failure or
            an exception stands in place of a reply, that is what happens.
        delay: Seconds before each reply.
        piece_delay: Seconds before each piece of a streamed reply.
        target: What requests are made to fit, to see without a key what a stricter provider would
            be sent; with None everything is taken as it is, but for calls without their results.

    Attributes:
        requests: The newest requests, as they came: what a test wants to look at.
    """

    name: ClassVar[str] = "mock"
    capabilities = frozenset(ProviderCapability)

    def __init__(
        self,
        replies: Script | None = None,
        *,
        delay: float = 0.0,
        piece_delay: float = 0.0,
        target: Target | None = None,
    ) -> None:
        if isinstance(replies, str):
            raise InvalidInputError("replies is a list of replies or a function, not one string")
        if delay < 0 or piece_delay < 0:
            raise InvalidInputError("delay and piece_delay must be at least 0")
        self._make = replies if callable(replies) else None
        self._script: deque[Answer] = deque()
        if replies is not None and not callable(replies):
            self._script.extend(replies)
        self._delay = delay
        self._piece_delay = piece_delay
        self._target = Target() if target is None else target
        self._targets: dict[str, Target] = {}
        self._conversations: dict[str, list[SessionMessage]] = {}
        self.requests: deque[ProviderRequest] = deque(maxlen=100)

    def script(self, *answers: Answer) -> None:
        """Add replies, or failures in their place, to those that are still to come."""
        self._script.extend(answers)

    def fail_next(self, failure: MockFailure | str | Exception, times: int = 1) -> None:
        """Fail before anything else that is scripted.

        Args:
            failure: How.
            times: How often.
        """
        answer = failure if isinstance(failure, Exception) else MockFailure(failure)
        self._script.extendleft([answer] * times)

    def target(self, context: SessionContext, options: Mapping[str, Any]) -> Target:
        """See `IProviderSession.target`."""
        model = context.model
        target = self._targets.get(model)
        if target is None:
            target = replace(self._target, provider=self.name, model=model)
            self._targets[model] = target
        return target

    async def send_message(self, request: ProviderRequest) -> ProviderReply:
        """See `IProviderSession.send_message`."""
        answer = self._next(request)
        if self._delay:
            await asyncio.sleep(self._delay)
        return self._kept(request, _reply(request, _raised(answer)))

    async def stream_message(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """See `IProviderSession.stream_message`; text comes a word at a time."""
        answer = self._next(request)
        if self._delay:
            await asyncio.sleep(self._delay)
        broken = answer is MockFailure.BROKEN_STREAM
        if broken:
            answer = MODELS.get(request.context.model, echo)(request)
        message = _reply(request, _raised(answer))
        events = list(_pieces(message))
        for event in events[: len(events) // 2] if broken else events:
            if self._piece_delay:
                await asyncio.sleep(self._piece_delay)
            yield event
        if broken:
            _raised(MockFailure.BROKEN_STREAM)
        yield self._kept(request, message)

    async def create_provider_session(self, user_id: str, **options: Any) -> str:
        """See `IProviderSession.create_provider_session`."""
        native = f"mock_{new_id()}"
        self._conversations[native] = []
        return native

    async def get_provider_session(self, provider_session_id: str) -> dict[str, Any]:
        """See `IProviderSession.get_provider_session`."""
        messages = self._conversation(provider_session_id)
        return {"id": provider_session_id, "message_count": len(messages)}

    async def get_messages(
        self, provider_session_id: str, limit: int | None = None
    ) -> list[SessionMessage]:
        """See `IProviderSession.get_messages`."""
        messages = self._conversation(provider_session_id)
        return messages[max(0, len(messages) - limit) :] if limit is not None else list(messages)

    async def delete_provider_session(self, provider_session_id: str) -> None:
        """See `IProviderSession.delete_provider_session`; one that is gone already is fine."""
        self._conversations.pop(provider_session_id, None)

    def _conversation(self, provider_session_id: str) -> list[SessionMessage]:
        try:
            return self._conversations[provider_session_id]
        except KeyError:
            raise ProviderSessionError(
                f"there is no conversation {provider_session_id!r}", provider=self.name
            ) from None

    def _next(self, request: ProviderRequest) -> Answer:
        self.requests.append(request)
        if self._script:
            return self._script.popleft()
        make = self._make or MODELS.get(request.context.model, echo)
        return make(request)

    def _kept(self, request: ProviderRequest, message: SessionMessage) -> ProviderReply:
        """Return the reply, after adding it to the conversation that the session names, if any."""
        context = request.context
        native = context.provider_session_id
        if native is None:
            return ProviderReply([message])
        kept = self._conversations.get(native)
        if kept is None:  # lost: recreated from the record
            native = f"mock_{new_id()}"
            kept = self._conversations[native] = []
            sent = request.messages
        else:
            # What is there beyond what the record knows of was never acknowledged.
            del kept[context.provider_context.get("length", len(kept)) :]
            sent = request.new_messages
        kept += [each for each in sent if each.role is not MessageRole.SYSTEM]
        kept.append(message)
        return ProviderReply([message], native, {"length": len(kept)})


def _reply(request: ProviderRequest, answer: Answer) -> SessionMessage:
    message = _message(answer)
    if message.usage is not None:
        return message
    # A quarter of the characters: a usual estimate for English text.
    usage = TokenUsage(
        input_tokens=(_size(request.messages) + 3) // 4, output_tokens=(_size([message]) + 3) // 4
    )
    return message.model_copy(update={"usage": usage})


def _message(answer: Answer) -> SessionMessage:
    if isinstance(answer, SessionMessage):
        return answer
    content: str | list[Block]
    if answer is MockFailure.REFUSAL:
        content = [RefusalBlock(refusal="I cannot help with that.")]
    elif isinstance(answer, str):
        content = answer
    else:
        content = list(answer) if isinstance(answer, list) else [answer]  # type: ignore[list-item]
    reason = "stop"
    if not isinstance(content, str):
        if any(isinstance(block, ToolCallBlock) for block in content):
            reason = "tool_calls"
        elif any(isinstance(block, RefusalBlock) for block in content):
            reason = "refusal"
    return SessionMessage(
        role=MessageRole.ASSISTANT,
        content=content,
        finish_reason=reason,
        provider_message_id=f"mock_{new_id()}",
    )


def _size(messages: Iterable[SessionMessage]) -> int:
    """Characters of the readable texts."""
    contents = [message.content for message in messages]
    return sum([len(each) if type(each) is str else len(text_of(each)) for each in contents])


def _raised(answer: Answer) -> Answer:
    """Return the answer, or raise the failure that it reports."""
    if isinstance(answer, Exception):
        raise answer
    if answer is MockFailure.RATE_LIMIT:
        raise ProviderRateLimitError(
            "the mock takes no more requests for now", provider="mock", retry_after=0.1
        )
    if answer is MockFailure.TIMEOUT:
        raise ProviderTimeoutError("the mock gave no answer in time", provider="mock")
    if answer is MockFailure.UNAVAILABLE:
        raise ProviderUnavailableError("the mock cannot be reached", provider="mock")
    if answer is MockFailure.BROKEN_STREAM:
        raise ProviderStreamError("the mock's stream broke off", provider="mock")
    if answer is MockFailure.ERROR:
        raise ProviderSessionError("the mock failed", provider="mock")
    return answer


def _pieces(message: SessionMessage) -> Iterable[StreamEvent]:
    for block in message.blocks:
        if isinstance(block, TextBlock):
            for word in re.findall(r"\S+\s*|\s+", block.text):
                yield StreamEvent(text=word)
        else:
            yield StreamEvent(block=block)
