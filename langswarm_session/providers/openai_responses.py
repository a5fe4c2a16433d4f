"""OpenAI's Responses API with nothing stored there: the window travels with each request."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from operator import attrgetter
from typing import Any

from langswarm_session.blocks import ToolCallBlock
from langswarm_session.errors import (
    ProviderCapabilityError,
    ProviderRequestError,
    ProviderResponseError,
    ProviderSessionError,
)
from langswarm_session.formats.openai_responses import (
    REASONING,
    from_output,
    from_response,
    instructions,
    to_items,
)
from langswarm_session.models import SessionMessage
from langswarm_session.providers.sdk import Sdk, check_options, opened, plain, refusal_of
from langswarm_session.records import ProviderReply, ProviderRequest, StreamEvent
from langswarm_session.tools import as_tools, to_responses

RESERVED = {
    "model": "it is the session's; change it with switch_provider()",
    "input": "it is made from the record",
    "conversation": "the session keeps it",
    "previous_response_id": "the session keeps the conversation",
    "store": "the provider's mode decides it",
    "stream": "use stream_message()",
    "background": "a reply is waited for",
}

FINISHED = ("response.completed", "response.incomplete")


class Responses:
    """Replies by Responses, stateless.

    Args:
        sdk: The client.
        max_retries: How often to try again; nothing can be doubled here.
    """

    def __init__(self, sdk: Sdk, max_retries: int) -> None:
        self._sdk = sdk
        self._retries = max_retries

    async def send(self, request: ProviderRequest) -> ProviderReply:
        """The whole reply."""
        arguments = self._arguments(request, request.messages)
        model = request.context.model
        response = await self._asked(request, "responses.create", **arguments, store=False)
        return ProviderReply([self._reply(plain(self._sdk, response), model)])

    async def stream(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """The reply in pieces."""
        arguments = self._arguments(request, request.messages)
        model = request.context.model
        events = await self._asked(
            request, "responses.create", **arguments, store=False, stream=True
        )
        async with aclosing(self._events(events, model)) as pieces:
            async for piece in pieces:
                if isinstance(piece, StreamEvent):
                    yield piece
                elif piece["type"] in FINISHED:
                    yield ProviderReply([self._reply(piece["response"], model)])
                    return

    async def count(self, request: ProviderRequest) -> int:
        """Tokens of the request's messages, by OpenAI's own count."""
        arguments = self._arguments(request, request.messages)
        wanted = {key: arguments[key] for key in ("model", "input", "tools", "instructions")
                  if key in arguments}  # fmt: skip
        if not hasattr(self._sdk.client.responses, "input_tokens"):
            raise ProviderCapabilityError(
                "this version of the openai package counts no tokens; update it, or use the "
                "token_counter 'tiktoken'",
                provider=self._sdk.provider,
            )
        try:
            counted = await self._asked(request, "responses.input_tokens.count", **wanted)
        except (ProviderRequestError, ProviderResponseError) as error:
            if refusal_of(error).status != 404:
                raise
            raise ProviderCapabilityError(
                "this server counts no tokens; use the token_counter 'tiktoken' or 'estimate'",
                provider=self._sdk.provider,
            ) from error
        return int(plain(self._sdk, counted)["input_tokens"])

    async def _asked(self, request: ProviderRequest, method: str, **arguments: Any) -> Any:
        """What a method of the client gives."""
        retries = self._retries if request.retries is None else request.retries
        call = partial(attrgetter(method)(self._sdk.once), **arguments)
        return await self._sdk.patiently(call, retries, request.context.model)

    def _arguments(
        self, request: ProviderRequest, messages: Sequence[SessionMessage]
    ) -> dict[str, Any]:
        """Keywords of ``responses.create``."""
        options = dict(request.options)
        check_options(self._sdk.provider, options, RESERVED)
        arguments: dict[str, Any] = {
            "model": request.context.model,
            "input": to_items(messages, known=request.window),
        }
        said = [instructions(request.window), options.pop("instructions", None)]
        if any(said):
            arguments["instructions"] = "\n\n".join(text for text in said if text)
        tools = options.pop("tools", None)
        if tools:
            arguments["tools"] = [to_responses(tool) for tool in as_tools(tools)]
        if options.get("reasoning"):
            # So that it can be sent back to where it is not stored, or not any more.
            options["include"] = list(dict.fromkeys([REASONING, *(options.get("include") or ())]))
        return {**arguments, **options}

    async def _events(
        self, events: Any, model: str
    ) -> AsyncGenerator[StreamEvent | dict[str, Any], None]:
        """What a reader is shown, and of the rest the events themselves, as plain data.

        Raises:
            ProviderSessionError: If what came is no stream, breaks off, or tells of a failure.
        """
        await opened(self._sdk, events)
        with self._sdk.errors(model, streaming=True):
            try:
                async for event in events:
                    data = plain(self._sdk, event)
                    shown = _shown(data)
                    if shown is not None:
                        yield shown
                    elif data["type"] in ("error", "response.failed"):
                        raise self._failure(data)
                    else:
                        yield data
            finally:
                await events.close()

    def _reply(self, response: Mapping[str, Any], model: str) -> SessionMessage:
        if response.get("status") in ("failed", "cancelled"):
            raise self._failure({"response": response})
        if not isinstance(response.get("output"), list):
            raise self._sdk.no_answer("no output")
        with self._sdk.errors(model, reading=True):  # whatever is wrong with it
            return from_response(response, model)

    def _failure(self, event: Mapping[str, Any]) -> ProviderSessionError:
        """The error for a response that failed."""
        error = (event.get("response") or {}).get("error") or event.get("error") or event
        return self._sdk.of_event(error, "the response failed")


def _shown(event: Mapping[str, Any]) -> StreamEvent | None:
    kind = event.get("type")
    if kind in ("response.output_text.delta", "response.refusal.delta"):
        return StreamEvent(text=_delta(event))
    if kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
        return StreamEvent(reasoning=_delta(event))
    if kind == "response.output_item.done":
        blocks = from_output([event["item"]])
        call = next((block for block in blocks if isinstance(block, ToolCallBlock)), None)
        return None if call is None else StreamEvent(block=call)
    return None


def _delta(event: Mapping[str, Any]) -> str:
    """The text that an event adds.

    Raises:
        TypeError: If it is no text: what a reader is shown becomes part of the record.
    """
    delta = event.get("delta") or ""
    if not isinstance(delta, str):
        raise TypeError(f"expected text, got {type(delta).__name__}")
    return delta
