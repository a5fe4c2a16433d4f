"""Anthropic's Messages API: the window travels with each request, and is cached there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Any

from langswarm_session.blocks import ToolCallBlock, ToolResultBlock
from langswarm_session.errors import ProviderStreamError
from langswarm_session.formats.anthropic import (
    from_block,
    from_message,
    joined,
    needs_files_api,
    system,
    to_messages,
)
from langswarm_session.models import SessionMessage
from langswarm_session.providers.sdk import Sdk, check_options, opened, plain
from langswarm_session.records import ProviderReply, ProviderRequest, StreamEvent
from langswarm_session.sendable import Repair, RepairKind
from langswarm_session.tools import Tool, as_tools, to_anthropic

MAX_TOKENS = 8192
"""How long a reply may be unless the caller says: the API wants a number."""

STREAM_FROM = 8192
"""Beyond this many tokens the SDK refuses to wait for a whole reply of some models, and a
connection that is idle for so long may break: the reply is streamed then."""

FILES_BETA = "files-api-2025-04-14"

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

Arguments = dict[str, Any]


class Messages:
    """Replies by Messages, stateless.

    Args:
        sdk: The client.
        max_retries: How often to try again; nothing can be doubled here.
        max_tokens: How long a reply may be unless the caller says.
        cache: Whether what was sent before is to be read from the cache.
    """

    def __init__(self, sdk: Sdk, max_retries: int, max_tokens: int, cache: bool) -> None:
        self._sdk = sdk
        self._retries = max_retries
        self._max_tokens = max_tokens
        self._cache = cache

    async def send(self, request: ProviderRequest) -> ProviderReply:
        """The whole reply."""
        arguments = self.whole(request, self.fixed(request))
        return ProviderReply([joined(await self.replies(request, arguments))])

    async def stream(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """The reply in pieces."""
        arguments = self.whole(request, self.fixed(request))
        async with aclosing(self.streamed(request, arguments)) as events:
            async for event in events:
                yield event if isinstance(event, StreamEvent) else ProviderReply([joined(event)])

    async def count(self, request: ProviderRequest) -> int:
        """Tokens of the request's messages, by Anthropic's own count."""
        whole = self.whole(request, self.fixed(request))
        wanted = {key: whole[key] for key in ("messages", "betas", *COUNTED) if key in whole}
        client, arguments = self._endpoint(request, wanted)
        call = partial(client.count_tokens, model=request.context.model, **arguments)
        counted = plain(self._sdk, await self._sdk.counted(self._patiently(request, call)))
        if not isinstance(counted.get("input_tokens"), int):
            raise self._sdk.no_answer("no count")
        return int(counted["input_tokens"])

    # What is sent

    def fixed(self, request: ProviderRequest) -> Arguments:
        """Keywords of ``messages.create`` but for the messages and what they make necessary."""
        options = dict(request.options)
        check_options(self._sdk.provider, options, RESERVED)
        self._set_system(request, options)
        tools = options.pop("tools", None)
        if tools:
            options["tools"] = [to_anthropic(tool) for tool in as_tools(tools)]
        if self._cache and "cache_control" not in options:
            options["cache_control"] = {"type": "ephemeral"}
        if options.get("cache_control") is None:
            options.pop("cache_control", None)
        if "max_tokens" not in options:
            thinking = options.get("thinking")
            budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
            options["max_tokens"] = self._max_tokens + (budget if isinstance(budget, int) else 0)
        return {"model": request.context.model, **options}

    def _set_system(self, request: ProviderRequest, options: Arguments) -> None:
        """What the record's system messages say, then the caller's own."""
        said = [system(request.window), options.pop("instructions", None)]
        given = options.pop("system", None)
        if isinstance(given, list):
            said_first = [{"type": "text", "text": text} for text in said if text]
            options["system"] = [*said_first, *given]
        elif any((*said, given)):
            options["system"] = "\n\n".join(str(text) for text in (*said, given) if text)

    def whole(self, request: ProviderRequest, fixed: Arguments) -> Arguments:
        """The arguments of a request with the whole window."""

        def report(repair: Repair) -> None:
            if repair not in request.repairs:
                request.report(repair)

        arguments = {**fixed, "messages": to_messages(request.messages, report)}
        if "tools" not in fixed:
            names = _tools_used(request.messages)
            if names:
                # The API refuses calls of tools that it is not told of.
                arguments["tools"] = [to_anthropic(Tool(name)) for name in names]
                arguments["tool_choice"] = {"type": "none"}
                report(Repair(kind=RepairKind.TOOLS_DECLARED, detail=", ".join(names)))
        return arguments

    def _endpoint(
        self, request: ProviderRequest, arguments: Arguments
    ) -> tuple[Any, dict[str, Any]]:
        """Where to send a request, once, and its arguments with its betas."""
        client = self._sdk.once
        betas = list(arguments.get("betas") or ())
        if needs_files_api(request.window) and FILES_BETA not in betas:
            betas.append(FILES_BETA)
        if betas:
            return client.beta.messages, {**arguments, "betas": betas}
        return client.messages, arguments

    # What comes back

    async def replies(self, request: ProviderRequest, arguments: Arguments) -> list[SessionMessage]:
        """The whole reply: one message, or more where the model paused."""
        if _is_long(arguments):
            async with aclosing(self.streamed(request, arguments)) as events:
                return [event async for event in events if isinstance(event, list)][-1]
        replies: list[SessionMessage] = []
        while True:
            client, sent = self._endpoint(request, arguments)
            answer = await self._patiently(request, partial(client.create, **sent))
            message = plain(self._sdk, answer)
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
        """The message that came; what is wrong with it is the server's fault."""
        with self._sdk.errors(request.context.model, reading=True):
            self.look_at(message, request, arguments)
            return from_message(message, request.context.model)

    async def streamed(
        self, request: ProviderRequest, arguments: Arguments
    ) -> AsyncGenerator[StreamEvent | list[SessionMessage], None]:
        """The reply in pieces, then the whole of it."""
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
        """The pieces of one stream, then its message."""
        client, sent = self._endpoint(request, arguments)
        async with AsyncExitStack() as stack:
            with self._sdk.errors(request.context.model):
                stream = await stack.enter_async_context(client.stream(**sent))
                await opened(self._sdk, stream)
            with self._sdk.errors(request.context.model, streaming=True):
                async for event in stream:
                    if event.type == "message_start":
                        self.look_at(plain(self._sdk, event)["message"], request, arguments)
                    shown = _shown(self._sdk, event)
                    if shown is not None:
                        yield shown
                    if event.type == "message_stop":
                        yield plain(self._sdk, stream.current_message_snapshot)
                        return
        raise ProviderStreamError(
            "the stream ended before the reply was complete; send the message again",
            provider=self._sdk.provider,
        )

    def look_at(
        self, message: Mapping[str, Any], request: ProviderRequest, arguments: Arguments
    ) -> None:
        """What is to be looked at before anything of a reply is shown."""

    def resumed(
        self, request: ProviderRequest, arguments: Arguments, message: Mapping[str, Any]
    ) -> Arguments:
        """The request that lets a model go on which paused: its own words are sent back to it."""
        *before, last = arguments["messages"]
        said = message["content"]
        if last["role"] == "assistant":  # it paused before
            last = {**last, "content": [*last["content"], *said]}
            return {**arguments, "messages": [*before, last]}
        paused = {"role": "assistant", "content": said}
        return {**arguments, "messages": [*before, last, paused]}


def _is_long(arguments: Mapping[str, Any]) -> bool:
    most = arguments["max_tokens"]
    return isinstance(most, int) and most > STREAM_FROM


def _tools_used(messages: list[SessionMessage]) -> list[str]:
    """The names of the tools that are called in messages, or any where there are results only."""
    blocks = [block for message in messages for block in message.blocks]
    names = dict.fromkeys(block.name for block in blocks if isinstance(block, ToolCallBlock))
    if not names and any(isinstance(block, ToolResultBlock) for block in blocks):
        return ["tool"]
    return list(names)


def _shown(sdk: Sdk, event: Any) -> StreamEvent | None:
    if event.type == "text":
        return StreamEvent(text=event.text)
    if event.type == "thinking":
        return StreamEvent(reasoning=event.thinking)
    if event.type == "content_block_stop" and event.content_block.type == "tool_use":
        return StreamEvent(block=from_block(plain(sdk, event.content_block)))
    return None
