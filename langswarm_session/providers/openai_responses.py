"""OpenAI's Responses API with nothing stored there: the window travels with each request."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from hashlib import sha256
from itertools import takewhile
from operator import attrgetter
from typing import Any

from langswarm_session.blocks import ReasoningBlock, ToolCallBlock
from langswarm_session.errors import (
    ProviderCapabilityError,
    ProviderRequestError,
    ProviderSessionError,
    ProviderStreamError,
)
from langswarm_session.formats.openai_items import Item
from langswarm_session.formats.openai_responses import (
    REASONING,
    from_output,
    from_response,
    instructions,
    is_system,
    to_items,
)
from langswarm_session.models import SessionMessage
from langswarm_session.printable import one_line
from langswarm_session.providers.openai_models import has_instructions_of_turns, reasons
from langswarm_session.providers.sdk import Sdk, check_options, opened, plain, refusal_of
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
        response = await self._asked(request, self._arguments(request), store=False)
        return ProviderReply([self._reply(plain(self._sdk, response), request.context.model)])

    async def stream(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """Yield the reply in pieces."""
        ask = partial(self._pieces, request, self._arguments(request))
        async with aclosing(self._sdk.streamed(ask, self._tries(request))) as pieces:
            async for piece in pieces:
                yield piece

    async def _pieces(
        self, request: ProviderRequest, arguments: dict[str, Any]
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """Yield the reply in pieces, asked for once."""
        model = request.context.model
        events = await self._asked(request, arguments, retries=0, store=False, stream=True)
        async with aclosing(self._events(events, model)) as pieces:
            async for piece in pieces:
                if isinstance(piece, StreamEvent):
                    yield piece
                elif piece["type"] in FINISHED:
                    yield ProviderReply([self._reply(piece["response"], model)])
                    return
        raise ProviderStreamError(
            "the stream ended before the reply was complete; send the message again",
            provider=self._sdk.provider,
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
        arguments = self._arguments(request)
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

    def _arguments(self, request: ProviderRequest) -> dict[str, Any]:
        """Return the keywords of ``responses.create`` for the whole window."""
        text, messages = self._split(request, request.messages, request.messages)
        items = to_items(messages, known=request.window, verbatim=own_replies(request))
        return self._keywords(request, text, items)

    def _split(
        self,
        request: ProviderRequest,
        window: Sequence[SessionMessage],
        messages: Sequence[SessionMessage],
        *,
        in_place: bool = True,
    ) -> tuple[str, list[SessionMessage]]:
        """Return the system text that travels apart, and the messages that are items.

        Args:
            request: The request.
            window: Where the system messages are.
            messages: Those of them to send.
            in_place: Whether system messages may stay where they were said, at OpenAI.
        """
        if not (in_place and self._is_vendor()):
            return instructions(window), [m for m in messages if not is_system(m)]
        if has_instructions_of_turns(request.context.model):
            return "", list(messages)
        head = list(takewhile(is_system, window))
        apart = {message.id for message in head}
        return instructions(head), [m for m in messages if m.id not in apart]

    def _keywords(self, request: ProviderRequest, text: str, items: list[Item]) -> dict[str, Any]:
        """Return the keywords of ``responses.create``.

        The items travel in ``extra_body``: given as ``input`` the SDK looks for aliases and files
        in each of them (``maybe_transform``), which takes longer than all that is done here, and
        finds nothing, as they are JSON already.
        """
        options = dict(request.options)
        check_options(self._sdk.provider, options, RESERVED)
        model = request.context.model
        texts = [text, options.pop("instructions", None)]
        tools = options.pop("tools", None)
        body: dict[str, Any] = {**(options.pop("extra_body", None) or {}), "input": items}
        if tools:
            body["tools"] = [to_responses(tool) for tool in as_tools(tools)]
        arguments: dict[str, Any] = {"model": model, **options, "extra_body": body}
        if any(texts):
            arguments["instructions"] = "\n\n".join(text for text in texts if text)
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


def _refuses(error: ProviderRequestError, name: str, words: Sequence[str]) -> bool:
    """Return whether an error is about a keyword."""
    refusal = refusal_of(error)
    if refusal.status not in (400, 422):
        return False
    said = str(error).lower()
    return refusal.param.startswith(name) or any(word in said for word in words)


def own_replies(request: ProviderRequest) -> Callable[[SessionMessage], bool]:
    """Return what tells the replies that go back exactly as they came, ids included.

    A reply whose reasoning is left out goes back without ids: OpenAI refuses an item whose id
    belongs to reasoning that is not there, as in https://github.com/openai/codex/issues/20774.
    """
    stored = {message.id: message for message in request.window}
    source = (request.target.provider, request.target.model)

    def is_own(message: SessionMessage) -> bool:
        before = stored.get(message.id)
        if before is None or (message.provider, message.model) != source:
            return False
        return before is message or _thoughts(before) == _thoughts(message)

    return is_own


def _thoughts(message: SessionMessage) -> int:
    return sum(isinstance(block, ReasoningBlock) for block in message.blocks)


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
    """The text that an event adds.

    Raises:
        TypeError: If it is no text: what a reader is shown becomes part of the record.
    """
    delta = event.get("delta") or ""
    if not isinstance(delta, str):
        raise TypeError(f"expected text, got {type(delta).__name__}")
    return delta
