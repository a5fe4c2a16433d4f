"""Anthropic's Messages API: the window travels with each request, and is cached there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
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
from langswarm_session.providers.sdk import Sdk, check_options, plain
from langswarm_session.records import ProviderReply, ProviderRequest, StreamEvent
from langswarm_session.sendable import Repair, RepairKind
from langswarm_session.tools import Tool, as_tools, to_anthropic

MAX_TOKENS = 8192
"""How long a reply may be unless the caller says: the API wants a number."""

STREAM_FROM = 16_000
"""From this many tokens on the SDK refuses to wait for a whole reply; it is streamed then."""

FILES_BETA = "files-api-2025-04-14"

PAUSES = 10
"""How often a model may pause a turn before it is taken to be a turn without end."""

RESERVED = {
    "model": "it is the session's; change it with switch_provider()",
    "messages": "they are made from the record",
    "thread": "the provider's mode decides it",
    "stream": "use stream_message()",
}

Arguments = dict[str, Any]


class Messages:
    """Replies by Messages, stateless.

    Args:
        sdk: The client.
        max_retries: How often the SDK tries again; nothing can be doubled here.
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
        arguments = {
            **self.fixed(request),
            "messages": to_messages(request.messages),
        }
        return ProviderReply([await self.replied(request, arguments)])

    async def stream(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """The reply in pieces."""
        arguments = {
            **self.fixed(request),
            "messages": to_messages(request.messages),
        }
        async for event in self.streamed(request, arguments):
            yield event if isinstance(event, StreamEvent) else ProviderReply([event])

    async def count(self, request: ProviderRequest) -> int:
        """Tokens of the request's messages, by Anthropic's own count."""
        fixed = self.fixed(request)
        wanted = {key: fixed[key] for key in ("system", "tools", "tool_choice") if key in fixed}
        client, betas = self._endpoint(request, fixed)
        with self._sdk.errors(request.context.model):
            counted = await client.count_tokens(
                model=request.context.model,
                messages=to_messages(request.messages),
                **betas,
                **wanted,
            )
        return int(plain(self._sdk, counted)["input_tokens"])

    def fixed(self, request: ProviderRequest) -> Arguments:
        """Keywords of ``messages.create`` but for the messages."""
        options = dict(request.options)
        check_options(self._sdk.provider, options, RESERVED)
        said = [system(request.window), options.pop("instructions", None)]
        given = options.pop("system", None)
        if isinstance(given, list):
            said_first = [{"type": "text", "text": text} for text in said if text]
            options["system"] = [*said_first, *given]
        elif any((*said, given)):
            options["system"] = "\n\n".join(text for text in (*said, given) if text)
        tools = options.pop("tools", None)
        if tools:
            options["tools"] = [to_anthropic(tool) for tool in as_tools(tools)]
        else:
            self._declare_tools(request, options)
        if self._cache and "cache_control" not in options:
            options["cache_control"] = {"type": "ephemeral"}
        if "max_tokens" not in options:
            thinking = options.get("thinking")
            budget = thinking.get("budget_tokens", 0) if isinstance(thinking, Mapping) else 0
            options["max_tokens"] = self._max_tokens + budget
        return {"model": request.context.model, **options}

    def _declare_tools(self, request: ProviderRequest, options: Arguments) -> None:
        """Declare the tools of past calls: the API refuses calls of tools that it is not told of."""
        blocks = [block for message in request.messages for block in message.blocks]
        calls = [block for block in blocks if isinstance(block, ToolCallBlock)]
        names = dict.fromkeys(call.name for call in calls)
        if not names and not any(isinstance(block, ToolResultBlock) for block in blocks):
            return
        options["tools"] = [to_anthropic(Tool(name)) for name in names or ["tool"]]
        options["tool_choice"] = {"type": "none"}
        request.report(Repair(kind=RepairKind.TOOLS_DECLARED, detail=", ".join(names)))

    async def replied(self, request: ProviderRequest, arguments: Arguments) -> SessionMessage:
        """The whole reply to a request."""
        if arguments["max_tokens"] > STREAM_FROM:
            async for event in self.streamed(request, arguments):
                if isinstance(event, SessionMessage):
                    return event
        replies: list[SessionMessage] = []
        client, betas = self._endpoint(request, arguments)
        while True:
            with self._sdk.errors(request.context.model):
                answer = await client.create(**arguments, **betas)
            message = plain(self._sdk, answer)
            if "content" not in message:
                raise self._sdk.no_answer("no content")
            replies.append(self._reply(message, request))
            if message.get("stop_reason") != "pause_turn" or len(replies) > PAUSES:
                return joined(replies)
            arguments = _after_pause(arguments, message)

    async def streamed(
        self, request: ProviderRequest, arguments: Arguments
    ) -> AsyncGenerator[StreamEvent | SessionMessage, None]:
        """The reply to a request in pieces, then as a whole."""
        replies: list[SessionMessage] = []
        client, betas = self._endpoint(request, arguments)
        while True:
            message: dict[str, Any] | None = None
            is_open = False
            try:
                with self._sdk.errors(request.context.model):
                    manager = client.stream(**arguments, **betas)
                    events = await manager.__aenter__()
                    is_open = True
                with self._sdk.errors(request.context.model, streaming=True):
                    async for event in events:
                        if event.type == "message_start":
                            self.on_start(plain(self._sdk, event)["message"], request, arguments)
                        shown = _shown(self._sdk, event)
                        if shown is not None:
                            yield shown
                        if event.type == "message_stop":
                            message = plain(self._sdk, events.current_message_snapshot)
            finally:
                if is_open:
                    await manager.__aexit__(None, None, None)
            if message is None:
                raise ProviderStreamError(
                    "the stream ended before the reply was complete; send the message again",
                    provider=self._sdk.provider,
                )
            replies.append(self._reply(message, request))
            if message.get("stop_reason") != "pause_turn" or len(replies) > PAUSES:
                yield joined(replies)
                return
            arguments = _after_pause(arguments, message)

    def on_start(
        self, message: Mapping[str, Any], request: ProviderRequest, arguments: Arguments
    ) -> None:
        """What is to be looked at before anything of a streamed reply is shown."""

    def _reply(self, message: Mapping[str, Any], request: ProviderRequest) -> SessionMessage:
        return from_message(message, request.context.model)

    def _endpoint(
        self, request: ProviderRequest, arguments: Mapping[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Where to send a request, and its betas."""
        retries = self._retries if request.retries is None else request.retries
        client = self._sdk.client.with_options(max_retries=retries)
        betas = [FILES_BETA] if needs_files_api(request.messages) else []
        if not betas and "betas" not in arguments and "thread" not in arguments:
            return client.messages, {}
        if betas and "betas" in arguments:
            arguments["betas"].extend(betas)
            betas = []
        return client.beta.messages, {"betas": betas} if betas else {}


def _after_pause(arguments: Arguments, message: Mapping[str, Any]) -> Arguments:
    """The request that lets a model go on which paused: its own words are sent back to it."""
    if "thread" in arguments:
        thread = {"type": "continue", "previous_message_id": message["id"]}
        kept = {key: value for key, value in arguments.items() if key not in ("system", "tools")}
        return {**kept, "thread": thread, "messages": []}
    said = {"role": "assistant", "content": message["content"]}
    return {**arguments, "messages": [*arguments["messages"], said]}


def _shown(sdk: Sdk, event: Any) -> StreamEvent | None:
    if event.type == "text":
        return StreamEvent(text=event.text)
    if event.type == "thinking":
        return StreamEvent(reasoning=event.thinking)
    if event.type == "content_block_stop" and event.content_block.type == "tool_use":
        return StreamEvent(block=from_block(plain(sdk, event.content_block)))
    return None
