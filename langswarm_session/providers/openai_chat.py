"""OpenAI's Chat Completions API, which most compatible servers speak."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from langswarm_session.errors import ProviderStreamError
from langswarm_session.formats.openai_chat import ChunkAssembler, from_completion, to_chat
from langswarm_session.models import SessionMessage
from langswarm_session.providers.openai_responses import RESERVED
from langswarm_session.providers.sdk import Sdk, check_options, opened, plain
from langswarm_session.records import ProviderReply, ProviderRequest, StreamEvent
from langswarm_session.tools import as_tools
from langswarm_session.tools import to_chat as tool_to_chat

_RESERVED = {key: RESERVED[key] for key in ("model", "stream")} | {
    "messages": RESERVED["input"],
    "n": "a turn has one reply",
}


class Chat:
    """Replies by Chat Completions: the window travels with each request.

    Args:
        sdk: The client.
        max_retries: How often to try again; nothing can be doubled here.
    """

    def __init__(self, sdk: Sdk, max_retries: int) -> None:
        self._sdk = sdk
        self._retries = max_retries

    async def send(self, request: ProviderRequest) -> ProviderReply:
        """The whole reply."""
        retries = self._retries if request.retries is None else request.retries
        call = partial(self._sdk.once.chat.completions.create, **self._arguments(request))
        completion = await self._sdk.patiently(call, retries, request.context.model)
        return ProviderReply([self._reply(plain(self._sdk, completion), request)])

    async def stream(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """The reply in pieces."""
        retries = self._retries if request.retries is None else request.retries
        ask = partial(self._pieces, request)
        async with aclosing(self._sdk.streamed(ask, retries)) as pieces:
            async for piece in pieces:
                yield piece

    async def _pieces(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """The reply in pieces, asked for once."""
        model = request.context.model
        arguments = self._arguments(request)
        arguments.setdefault("stream_options", {"include_usage": True})
        call = partial(self._sdk.once.chat.completions.create, **arguments, stream=True)
        chunks = await self._sdk.patiently(call, 0, model)
        await opened(self._sdk, chunks)
        whole = ChunkAssembler()
        with self._sdk.errors(model, streaming=True):
            try:
                async for chunk in chunks:
                    text = whole.add(plain(self._sdk, chunk))
                    if text:
                        yield StreamEvent(text=text)
            finally:
                await chunks.close()
        if not whole.is_complete:
            raise ProviderStreamError(
                "the stream ended before the reply was complete; send the message again",
                provider=self._sdk.provider,
            )
        reply = self._reply(whole.completion(), request)
        for block in reply.blocks:
            if block.type == "tool_call":
                yield StreamEvent(block=block)
        yield ProviderReply([reply])

    def _arguments(self, request: ProviderRequest) -> dict[str, Any]:
        """Keywords of ``chat.completions.create``."""
        options = dict(request.options)
        check_options(self._sdk.provider, options, _RESERVED)
        messages = to_chat(request.messages)
        more = options.pop("instructions", None)
        if more:
            messages.insert(0, {"role": "system", "content": more})
        tools = options.pop("tools", None)
        if tools:
            options["tools"] = [tool_to_chat(tool) for tool in as_tools(tools)]
        return {"model": request.context.model, "messages": messages, **options}

    def _reply(self, completion: dict[str, Any], request: ProviderRequest) -> SessionMessage:
        model = request.context.model
        with self._sdk.errors(model, reading=True):  # whatever is missing from it
            return from_completion(completion, model, self._sdk.provider)
