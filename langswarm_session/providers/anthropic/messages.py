"""Anthropic's Messages API: the window travels with each request, and is cached there."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from langswarm_session._sanitize import one_line
from langswarm_session.blocks import (
    Block,
    FileBlock,
    ImageBlock,
    ReasoningBlock,
    TextBlock,
    ToolCallBlock,
)
from langswarm_session.errors import (
    ProviderCapabilityError,
    ProviderSessionError,
    ProviderStreamError,
    SessionError,
)
from langswarm_session.formats import anthropic
from langswarm_session.formats.anthropic import dropped_thinking, from_block, from_message, joined
from langswarm_session.formats.surrogates import TextPieces, well_formed_data
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.providers.anthropic.changes import Arguments
from langswarm_session.providers.anthropic.dialects import Dialect, Server
from langswarm_session.providers.anthropic.requests import (
    COMPACTION_NOTE,
    Draft,
    Wishes,
    compaction_block,
    compaction_of,
    draft,
)
from langswarm_session.providers.claude_models import model_of
from langswarm_session.providers.sdk import Sdk, check_options, opened, plain, whole_answer
from langswarm_session.records import ProviderReply, ProviderRequest, StreamEvent
from langswarm_session.requests.normalize import Target
from langswarm_session.requests.normalize.target import SystemPlacement

logger = logging.getLogger(__name__)

MAX_TOKENS = 8192
"""How long a reply may be unless the caller says: the API wants a number."""

STREAM_FROM = 8192
"""Beyond this many tokens the SDK refuses to wait for a whole reply of some models, and a
connection that is idle for so long may break: the reply is streamed then."""

PAUSES = 10
"""How often a model may pause a turn before it is taken to be a turn without end."""

RESERVED = {
    "model": "it is the session's; change it with switch_provider()",
    "messages": "they are made from the record",
    "thread": "the provider's mode decides it",
    "stream": "use stream_message()",
}

COUNTED = ("system", "tools", "tool_choice", "thinking")
"""The keywords that change how many tokens a request has."""


class Messages:
    """Replies by Messages, stateless.

    Args:
        sdk: The client.
        server: What is known of the server.
        max_retries: How often to try again; nothing can be doubled here.
        wishes: What the caller wants of every request.
        compact_above: From how many tokens of a conversation on it is compacted; None for never.
    """

    def __init__(
        self,
        sdk: Sdk,
        server: Server,
        max_retries: int,
        wishes: Wishes,
        compact_above: int | None = None,
    ) -> None:
        self._sdk = sdk
        self._server = server
        self._retries = max_retries
        self._wishes = wishes
        self._compact_above = compact_above
        self._taught: WeakKeyDictionary[ProviderRequest, Dialect | None] = WeakKeyDictionary()

    def target(self, model: str) -> Target:
        """Return what the server accepts of a model."""
        dialect = self._server.abilities(model).dialect
        checked = dialect.checks_signatures
        return Target(
            provider=self._sdk.provider,
            model=model,
            strict=True,
            takes=partial(_takes, dialect),
            takes_back=anthropic.takes_back(unsigned=not checked, empty_texts=dialect.empty_texts),
            # All models' that are Anthropic's: what this one cannot read the API leaves out.
            reads=(lambda writer: model_of(writer) is not None) if checked else None,
            user_blocks=anthropic.USER_BLOCKS,
            alternates=True,
            needs_user=True,
            system=(
                SystemPlacement.AFTER_USER if dialect.system_messages else SystemPlacement.FIRST
            ),
        )

    async def send(self, request: ProviderRequest) -> ProviderReply:
        """Return the whole reply."""
        is_compacted = await self.compact_if_long(request)
        while True:
            drafted = self.drafted(request)
            try:
                replies = await self.replies(request, drafted.whole())
            except SessionError as error:
                if not self.learns(request, error):
                    raise
            else:
                return replied(replies, drafted, request if is_compacted else None)

    async def stream(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """Yield the reply in pieces."""
        is_compacted = await self.compact_if_long(request)
        has_begun = False
        while True:
            drafted = self.drafted(request)
            try:
                async with aclosing(self.streamed(request, drafted.whole())) as events:
                    async for event in events:
                        has_begun = True
                        if isinstance(event, StreamEvent):
                            yield event
                        else:
                            yield replied(event, drafted, request if is_compacted else None)
            except SessionError as error:
                if has_begun or not self.learns(request, error):
                    raise
            else:
                return

    def learns(self, request: ProviderRequest, error: SessionError) -> bool:
        """Return whether to ask again, now that the request leaves out what was refused."""
        model = request.context.model
        before = self._server.known(model)
        able = self._server.abilities(model).dialect
        if not self._server.learns(model, error):
            if request in self._taught:  # what did not help was no lesson
                self._server.keep(model, self._taught.pop(request))
            return False
        self._taught.setdefault(request, before)
        request.retarget(self.target(model))
        less = self._server.abilities(model).dialect
        refused: list[type[Block]] = [ImageBlock] if able.images and not less.images else []
        refused += [FileBlock] if able.documents and not less.documents else []
        # New content is never dropped silently: its sender must learn that the model cannot see it.
        new = request.window[len(request.window) - request.new_count :]
        shown = (block for each in new if each.role is MessageRole.USER for block in each.blocks)
        return not any(isinstance(block, tuple(refused)) for block in shown)

    async def count(self, request: ProviderRequest) -> int:
        """Tokens of the request's messages, by Anthropic's own count.

        Raises:
            ProviderCapabilityError: If the server counts none.
        """
        whole = self.drafted(request).whole()
        wanted = {key: whole[key] for key in ("messages", "betas", *COUNTED) if key in whole}
        client, arguments = self._endpoint(wanted)
        call = partial(client.count_tokens, model=request.context.model, **arguments)
        counted = plain(self._sdk, await self._sdk.counted(self._patiently(request, call)))
        if not isinstance(counted.get("input_tokens"), int):
            raise self._sdk.no_answer("no count")
        return int(counted["input_tokens"])

    # Compaction

    async def compact(self, request: ProviderRequest) -> ProviderReply:
        """Return a summary that stands for a whole request.

        Raises:
            ProviderCapabilityError: If the server or the model does not compact.
            ProviderSessionError: If no summary came back.
        """
        model = request.context.model
        if not self._server.abilities(model).dialect.compaction:
            raise ProviderCapabilityError(
                f"{self._sdk.address} does not compact conversations with {model!r}; use "
                "SummarizingMiddleware without native=True",
                provider=self._sdk.provider,
            )
        (message,) = await self.replies(request, compaction_of(self.drafted(request)))
        if compaction_block(message) is None:
            raise ProviderSessionError(
                f"{self._sdk.provider} gave no summary: {message.finish_reason}",
                provider=self._sdk.provider,
            )
        return ProviderReply([message])

    async def compact_if_long(self, request: ProviderRequest) -> bool:
        """Compact what was before this turn, if it is longer than the caller wants it.

        Returns:
            Whether it was, and the request's notes say so. Where that failed, the conversation goes
            on as it is.
        """
        before = self._to_compact(request)
        if before is None:
            return False
        try:
            reply = await self.compact(before)
        except SessionError as error:
            logger.warning("session %r: not compacted: %s", request.session_id, one_line(error))
            return False
        through = max((each.seq or 0 for each in before.window), default=0)
        noted = {"block": compaction_block(reply.messages[0]), "through": through}
        request.notes = {**request.notes, COMPACTION_NOTE: noted}
        return True

    def _to_compact(self, request: ProviderRequest) -> ProviderRequest | None:
        """Return the messages before this turn, if they are to be compacted."""
        above, window = self._compact_above, request.window
        if above is None or len(window) <= request.new_count:
            return None
        before, new = window[: -request.new_count], window[-request.new_count :]
        last = before[-1]
        if last.role is not MessageRole.ASSISTANT or last.usage is None:
            return None
        if any(message.role is MessageRole.TOOL for message in new):
            return None
        long = last.usage.input_tokens + last.usage.output_tokens > above
        return request.with_window(before) if long else None

    # What is sent

    def drafted(self, request: ProviderRequest) -> Draft:
        """Return what a request says."""
        options = dict(request.options)
        check_options(self._sdk.provider, options, RESERVED)
        able = self._server.abilities(request.context.model)
        return draft(request, options, able, self._wishes)

    def _endpoint(self, arguments: Arguments) -> tuple[Any, dict[str, Any]]:
        """Where to send a request, once, and its arguments."""
        client = self._sdk.once
        return client.beta.messages if arguments.get("betas") else client.messages, arguments

    # What comes back

    async def replies(self, request: ProviderRequest, arguments: Arguments) -> list[SessionMessage]:
        """Return the whole reply: one message, or more where the model paused."""
        if _is_long(arguments):
            async with aclosing(self.streamed(request, arguments)) as events:
                return [event async for event in events if isinstance(event, list)][-1]
        replies: list[SessionMessage] = []
        while True:
            client, sent = self._endpoint(arguments)
            answer = await self._patiently(request, partial(client.create, **sent))
            message = _content_of(well_formed_data(plain(self._sdk, answer)))
            if not isinstance(message.get("content"), list):
                raise self._sdk.no_answer("no content")
            replies.append(self._reply(message, request, arguments))
            if message.get("stop_reason") != "pause_turn" or len(replies) > PAUSES:
                return replies
            arguments = self.resumed(request, arguments, message)

    async def _patiently(self, request: ProviderRequest, call: Callable[[], Awaitable[Any]]) -> Any:
        return await self._sdk.patiently(call, self._tries(request), request.context.model)

    def _tries(self, request: ProviderRequest) -> int:
        """How often to try again."""
        return self._retries if request.retries is None else request.retries

    def _reply(
        self, message: Mapping[str, Any], request: ProviderRequest, arguments: Arguments
    ) -> SessionMessage:
        """Return the message that came; what is wrong with it is the server's fault."""
        with self._sdk.errors(request.context.model, reading=True):
            self.look_at(message, request, arguments)
            return from_message(message, request.context.model)

    async def streamed(
        self, request: ProviderRequest, arguments: Arguments
    ) -> AsyncGenerator[StreamEvent | list[SessionMessage], None]:
        """Yield the reply in pieces, then the whole reply."""
        replies: list[SessionMessage] = []
        while True:
            message: dict[str, Any] | None = None
            ask = partial(self._events, request, arguments)
            async with aclosing(self._sdk.streamed(ask, self._tries(request))) as events:
                async for event in events:
                    if isinstance(event, StreamEvent):
                        yield event
                    else:
                        message = event
            assert message is not None  # a stream gives its message or an error
            with self._sdk.errors(request.context.model, reading=True):
                replies.append(from_message(message, request.context.model))
            if message.get("stop_reason") != "pause_turn" or len(replies) > PAUSES:
                yield replies
                return
            arguments = self.resumed(request, arguments, message)

    async def _events(
        self, request: ProviderRequest, arguments: Arguments
    ) -> AsyncGenerator[StreamEvent | dict[str, Any], None]:
        """Yield the pieces of one stream, then its message."""
        client, sent = self._endpoint(arguments)
        async with AsyncExitStack() as stack:
            with self._sdk.errors(request.context.model):
                stream = await stack.enter_async_context(client.stream(**sent))
                whole = await whole_answer(self._sdk, stream)
                if whole is None:
                    await opened(self._sdk, stream)
            if whole is not None:
                message = _content_of(well_formed_data(whole))
                if not isinstance(message.get("content"), list):
                    raise self._sdk.no_answer("no content")
                with self._sdk.errors(request.context.model, reading=True):
                    self.look_at(message, request, arguments)
                    said = from_message(message, request.context.model)
                for event in _told(said):
                    yield event
                yield message
                return
            texts, thoughts = TextPieces(), TextPieces()
            with self._sdk.errors(request.context.model, streaming=True):
                async for event in stream:
                    if event.type == "message_start":
                        self.look_at(plain(self._sdk, event)["message"], request, arguments)
                    shown = _shown(self._sdk, event)
                    if shown is not None:
                        yield replace(
                            shown,
                            text=texts.passed(shown.text),
                            reasoning=thoughts.passed(shown.reasoning),
                        )
                    if event.type == "message_stop":
                        snapshot = plain(self._sdk, stream.current_message_snapshot)
                        yield dict(well_formed_data(snapshot))
                        return
        raise ProviderStreamError(
            "the stream ended before the reply was complete; send the message again",
            provider=self._sdk.provider,
        )

    def look_at(
        self, message: Mapping[str, Any], request: ProviderRequest, arguments: Arguments
    ) -> None:
        """Return the failure to check for before anything of a reply is shown."""

    def resumed(
        self, request: ProviderRequest, arguments: Arguments, message: Mapping[str, Any]
    ) -> Arguments:
        """Return the request that lets a paused model continue from its own words."""
        *before, last = arguments["messages"]
        said = message["content"]
        if last["role"] == "assistant":  # it paused before
            last = {**last, "content": [*last["content"], *said]}
            return {**arguments, "messages": [*before, last]}
        paused = {"role": "assistant", "content": said}
        return {**arguments, "messages": [*before, last, paused]}


def _takes(dialect: Dialect, block: Block, in_result: bool) -> bool:
    """Return whether a block can be sent to a server."""
    if isinstance(block, ImageBlock) and not dialect.images:
        return False
    if isinstance(block, FileBlock) and not dialect.documents:
        return False
    return anthropic.takes(block, in_result)


def _is_long(arguments: Mapping[str, Any]) -> bool:
    most = arguments["max_tokens"]
    return isinstance(most, int) and most > STREAM_FROM


def replied(
    replies: list[SessionMessage], drafted: Draft, compacted: ProviderRequest | None
) -> ProviderReply:
    """Return a reply, with what the next request must know.

    Args:
        replies: What the model gave, with pauses in between.
        drafted: What it was asked.
        compacted: The request, if its notes are new.
    """
    notes = drafted.notes
    if notes is None and compacted is not None:
        notes = dict(compacted.notes)
    dropped = any(map(dropped_thinking, replies))
    return ProviderReply([joined(replies)], notes=notes, dropped_reasoning=dropped)


def _content_of(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose content is a list, where a server gives its text alone."""
    content = message.get("content")
    if not isinstance(content, str):
        return message
    return {**message, "content": [{"type": "text", "text": content}] if content else []}


def _told(said: SessionMessage) -> Iterator[StreamEvent]:
    """Return what a reader sees of a reply that came whole."""
    for block in said.blocks:
        if isinstance(block, TextBlock):
            yield StreamEvent(text=block.text)
        elif isinstance(block, ReasoningBlock):
            yield StreamEvent(reasoning=block.reasoning)
        elif isinstance(block, ToolCallBlock):
            yield StreamEvent(block=block)


def _shown(sdk: Sdk, event: Any) -> StreamEvent | None:
    if event.type == "text":
        return StreamEvent(text=event.text)
    if event.type == "thinking":
        return StreamEvent(reasoning=event.thinking)
    if event.type == "content_block_stop" and event.content_block.type == "tool_use":
        return StreamEvent(block=from_block(plain(sdk, event.content_block)))
    return None
