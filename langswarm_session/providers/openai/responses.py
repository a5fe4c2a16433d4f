"""OpenAI's Responses API with nothing stored there: the window travels with each request."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from hashlib import sha256
from operator import attrgetter
from typing import Any

from langswarm_session._sanitize import one_line
from langswarm_session.blocks import ToolCallBlock
from langswarm_session.errors import (
    ProviderCapabilityError,
    ProviderRequestError,
    ProviderSessionError,
    ProviderStreamError,
    UnknownModelError,
)
from langswarm_session.formats.openai_items import Item
from langswarm_session.formats.openai_responses import (
    REASONING,
    compaction_of,
    from_output,
    from_response,
)
from langswarm_session.models import NOTES, SessionMessage
from langswarm_session.providers.openai.input import RequestInput
from langswarm_session.providers.openai.models import reasons
from langswarm_session.providers.openai.updates import allowed
from langswarm_session.providers.sdk import ABSENT, Sdk, check_options, opened, plain, refusal_of
from langswarm_session.records import ProviderReply, ProviderRequest, StreamEvent
from langswarm_session.tools import as_tools, to_responses

logger = logging.getLogger(__name__)

RESERVED = {
    "model": "it is the session's; change it with switch_provider()",
    "input": "it is made from the record",
    "conversation": "the session keeps it",
    "previous_response_id": "the session keeps the conversation",
    "store": "the provider's mode decides it",
    "stream": "use stream_message()",
    "background": "a reply is waited for",
}

UNBIDDEN = {
    "include": ("include", "encrypted content is not supported"),
    "prompt_cache_key": ("prompt_cache_key",),
}
"""Keywords that are given though no caller asks for them, and how servers name them when they
refuse them: ``Encrypted content is not supported with this model.``, or the keyword itself."""

FINISHED = ("response.completed", "response.incomplete")


class Responses:
    """Replies by Responses, stateless.

    Args:
        sdk: The client.
        max_retries: How often to try again; nothing can be doubled here.
        is_vendor: Tells whether the server is OpenAI's.
    """

    def __init__(self, sdk: Sdk, max_retries: int, is_vendor: Callable[[], bool]) -> None:
        self._sdk = sdk
        self._retries = max_retries
        self._is_vendor = is_vendor
        self._refused: set[tuple[str, str]] = set()

    async def send(self, request: ProviderRequest) -> ProviderReply:
        """Return the whole reply."""
        given = self._input(request)
        arguments = self._arguments(request, given)
        response = plain(self._sdk, await self._asked(request, arguments, store=False))
        return self._answer(response, request, given)

    async def stream(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """Yield the reply in pieces."""
        given = self._input(request)
        ask = partial(self._asked_once, request, given, self._arguments(request, given))
        async with aclosing(self._sdk.streamed(ask, self._tries(request))) as pieces:
            async for piece in pieces:
                yield piece

    async def _asked_once(
        self, request: ProviderRequest, given: RequestInput, arguments: dict[str, Any]
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """Yield the reply in pieces, asked for once."""
        events = await self._asked(request, arguments, retries=0, store=False, stream=True)
        async with aclosing(self._events(events, request.context.model)) as pieces:
            async for piece in pieces:
                if isinstance(piece, StreamEvent):
                    yield piece
                elif piece["type"] in FINISHED:
                    yield self._answer(piece["response"], request, given)
                    return
        raise ProviderStreamError(
            "the stream ended before the reply was complete; send the message again",
            provider=self._sdk.provider,
        )

    def _answer(
        self, response: Mapping[str, Any], request: ProviderRequest, given: RequestInput
    ) -> ProviderReply:
        message = self._reply(response, request.context.model)
        return ProviderReply(
            [message], notes=given.updates.notes, dropped_reasoning=dropped_reasoning(message)
        )

    async def count(self, request: ProviderRequest) -> int:
        """Return the tokens of the request's messages, by the server's own count.

        Raises:
            ProviderCapabilityError: If there is no count.
        """
        if not hasattr(self._sdk.client.responses, "input_tokens"):
            raise ProviderCapabilityError(
                "this version of the openai package counts no tokens; update it, or use the "
                "token_counter 'tiktoken'",
                provider=self._sdk.provider,
            )
        arguments = self._arguments(request, self._input(request))
        counted = ("model", "instructions", "extra_body")
        counting = self._patiently(
            request,
            "responses.input_tokens.count",
            {name: arguments[name] for name in counted if name in arguments},
            self._tries(request),
        )
        answer = plain(self._sdk, await self._sdk.counted(counting))
        if not isinstance(answer.get("input_tokens"), int):
            raise self._sdk.no_answer("no count")
        return int(answer["input_tokens"])

    def _tries(self, request: ProviderRequest) -> int:
        """Return how often to try again."""
        return self._retries if request.retries is None else request.retries

    async def compact(self, request: ProviderRequest) -> ProviderReply:
        """Return what OpenAI makes of a window: what users said, and an item for all the rest.

        ``instructions`` are left out, as those of the next request count:
        https://developers.openai.com/api/docs/guides/keep-prefix-unchanged

        Raises:
            ProviderCapabilityError: If there is no compaction.
        """
        model = request.context.model
        if not hasattr(self._sdk.client.responses, "compact"):
            raise self._no_compaction("this version of the openai package", "update it, or use")
        arguments = {"model": model, "extra_body": {"input": self._input(request).items}}
        try:
            answer = await self._patiently(
                request, "responses.compact", arguments, self._tries(request)
            )
        except ProviderSessionError as error:
            if refusal_of(error).status not in ABSENT or isinstance(error, UnknownModelError):
                raise
            raise self._no_compaction("this server", "use") from error
        response = plain(self._sdk, answer)
        if not isinstance(response.get("output"), list):
            raise self._sdk.no_answer("no output")
        with self._sdk.errors(model):
            return ProviderReply([compaction_of(response, model)])

    def _no_compaction(self, who: str, what: str) -> ProviderCapabilityError:
        return ProviderCapabilityError(
            f"{who} makes no compactions; {what} SummarizingMiddleware without native=True",
            provider=self._sdk.provider,
        )

    async def _asked(
        self,
        request: ProviderRequest,
        arguments: dict[str, Any],
        *,
        retries: int | None = None,
        **options: Any,
    ) -> Any:
        """Return what ``responses.create`` gives, without what this server refuses to be asked."""
        tries = self._tries(request) if retries is None else retries
        while True:
            try:
                call = arguments | options
                return await self._patiently(request, "responses.create", call, tries)
            except ProviderRequestError as error:
                if not self._learned(request, error, arguments):
                    raise

    async def _patiently(
        self, request: ProviderRequest, method: str, arguments: Mapping[str, Any], retries: int
    ) -> Any:
        """Return what a method of the client gives, tried again while that may help."""
        call = partial(attrgetter(method)(self._sdk.once), **arguments)
        return await self._sdk.patiently(call, retries, request.context.model)

    def _learned(
        self, request: ProviderRequest, error: ProviderRequestError, arguments: dict[str, Any]
    ) -> bool:
        """Return whether a refusal is about what no caller asked for; it is not asked for again."""
        model = request.context.model
        for name, words in UNBIDDEN.items():
            if self._may_ask(model, name) and name in arguments and _refuses(error, name, words):
                logger.info("model %r takes no %s and is asked without: %s",
                            model, name, one_line(error))  # fmt: skip
                self._refused.add((model, name))
                del arguments[name]
                if name in request.options:
                    arguments[name] = request.options[name]
                return True
        return False

    def _input(self, request: ProviderRequest, *, in_place: bool = True) -> RequestInput:
        """Return the input for the whole window.

        Args:
            request: The request.
            in_place: Whether system messages may stay where they were said, at OpenAI.
        """
        tools = request.options.get("tools")
        written = [to_responses(tool) for tool in as_tools(tools)] if tools else []
        return RequestInput(request, written, in_place=in_place and self._is_vendor())

    def _arguments(
        self, request: ProviderRequest, given: RequestInput, items: Sequence[Item] | None = None
    ) -> dict[str, Any]:
        """Return the keywords of ``responses.create``.

        The items travel in ``extra_body``: given as ``input`` the SDK looks for aliases and files
        in each of them (``maybe_transform``), which takes longer than all that is done here, and
        finds nothing, as they are JSON already.

        Args:
            request: The request.
            given: Its input.
            items: What of it is sent; all of it when None.
        """
        options = dict(request.options)
        check_options(self._sdk.provider, options, RESERVED)
        model = request.context.model
        body: dict[str, Any] = {
            **(options.pop("extra_body", None) or {}),
            "input": given.items if items is None else items,
        }
        options.pop("tools", None)
        if given.tools:
            body["tools"] = [dict(tool) for tool in given.tools]
        for name, first in (given.updates.settings or {}).items():
            options[name] = {**options[name], **first}
        choice = allowed(given.updates, options.pop("tool_choice", None))
        if choice is not None:
            options["tool_choice"] = choice
        arguments: dict[str, Any] = {"model": model, **options, "extra_body": body}
        if given.instructions:
            arguments["instructions"] = given.instructions
        include = options.get("include") or ()
        if self._may_ask(model, "include") and (reasons(model) or options.get("reasoning")):
            # So that it can be sent back to where it is not stored, or not any more.
            arguments["include"] = list(dict.fromkeys([REASONING, *include]))
        if self._is_vendor() and self._may_ask(model, "prompt_cache_key"):
            arguments.setdefault("prompt_cache_key", cache_key(request.session_id))
        return arguments

    def _may_ask(self, model: str, name: str) -> bool:
        return (model, name) not in self._refused

    async def _events(
        self, events: Any, model: str
    ) -> AsyncGenerator[StreamEvent | dict[str, Any], None]:
        """Return what a reader is shown, and of the rest the events themselves, as plain data.

        Raises:
            ProviderSessionError: If the stream is not one, breaks off, or tells of a failure.
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
        """Return the error for a response that failed."""
        error = (event.get("response") or {}).get("error") or event.get("error") or event
        return self._sdk.of_event(error, "the response failed")


def _refuses(error: ProviderRequestError, name: str, words: Sequence[str]) -> bool:
    """Return whether an error is about a keyword."""
    refusal = refusal_of(error)
    if refusal.status not in (400, 422):
        return False
    said = str(error).lower()
    return refusal.param.startswith(name) or any(word in said for word in words)


def dropped_reasoning(reply: SessionMessage) -> bool:
    """Return whether OpenAI says that reasoning of earlier replies is not valid any more.

    Reasoning of earlier turns that goes unread does not indicate that (``turn_boundary``).
    """
    changes = reply.metadata.get(NOTES, {}).get("input_transformations", ())
    return any(change.get("reason") != "turn_boundary" for change in changes)


def cache_key(session_id: str) -> str:
    """Return the key under which OpenAI looks for what it has cached of a session's requests.

    It is a digest, as a key has 64 characters at most, and a session's id may name a person.
    """
    return sha256(session_id.encode()).hexdigest()[:32]


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
    """Return the text that an event adds.

    Raises:
        TypeError: If it is not a text: what a reader is shown becomes part of the record.
    """
    delta = event.get("delta") or ""
    if not isinstance(delta, str):
        raise TypeError(f"expected text, got {type(delta).__name__}")
    return delta
