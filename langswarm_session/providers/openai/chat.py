"""OpenAI's Chat Completions API, which most compatible servers speak, each in its dialect."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from itertools import takewhile
from typing import Any

from langswarm_session.blocks import Block, ReasoningBlock
from langswarm_session.errors import (
    ContextLengthError,
    InvalidReasoningError,
    ProviderAuthenticationError,
    ProviderQuotaError,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderStreamError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SessionError,
)
from langswarm_session.formats.dialects import Dialect
from langswarm_session.formats.openai_chat import (
    NATIVE,
    ChatMessage,
    failure_of,
    from_completion,
    in_turn,
    takes_back,
    takes_in,
    to_chat,
)
from langswarm_session.formats.openai_chunks import ChunkAssembler
from langswarm_session.formats.surrogates import TextPieces, well_formed_data
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.providers.claude_models import BINDS, model_of
from langswarm_session.providers.failures import excerpt
from langswarm_session.providers.openai.dialects import MEDIA, Dialects
from langswarm_session.providers.openai.responses import RESERVED, cache_key
from langswarm_session.providers.sdk import Sdk, check_options, opened, plain, whole_answer
from langswarm_session.records import ProviderReply, ProviderRequest, StreamEvent
from langswarm_session.requests.normalize import Repair, RepairKind, SystemPlacement, Target
from langswarm_session.requests.prefix import Prefix
from langswarm_session.tools import as_tools
from langswarm_session.tools import to_chat as tool_to_chat

_RESERVED = {key: RESERVED[key] for key in ("model", "stream")} | {
    "messages": RESERVED["input"],
    "n": "a turn has one reply",
}

_LESSONS = 5
"""How often one request is made again in a corrected dialect."""

_TEACHING = (400, 404, 422, 500)
"""The statuses of refusals that may name what a server does not take: llama.cpp's templates fail
with 500, vLLM's with 400 or 404. Others tell of something else, whatever their words."""

_TOLD = (InvalidReasoningError, ProviderRequestError, ProviderUnavailableError)

_SILENT = (
    ContextLengthError,
    ProviderAuthenticationError,
    ProviderQuotaError,
    ProviderRateLimitError,
    ProviderTimeoutError,
)


class Chat:
    """Replies by Chat Completions: the window travels with each request.

    Args:
        sdk: The client.
        max_retries: How often to try again; nothing can be doubled here.
        dialects: How the server speaks.
    """

    def __init__(self, sdk: Sdk, max_retries: int, dialects: Dialects) -> None:
        self._sdk = sdk
        self._retries = max_retries
        self._dialects = dialects

    def target(self, model: str) -> Target:
        """Return what the server and a model accept."""
        dialect = self._dialects.of(model)
        return Target(
            provider=self._sdk.provider,
            model=model,
            strict=True,
            takes=partial(takes_in, dialect=dialect),
            takes_back=partial(takes_back, dialect=dialect),
            system=dialect.system,
            alternates=dialect.alternates,
            answers_results=dialect.answers_results,
            needs_user=dialect.needs_user,
            takes_calls=dialect.takes_calls,
            call_id_length=dialect.call_id_length,
            call_id_exact=dialect.call_id_exact,
            any_call_id=dialect.any_call_id,
            keeps_call_ids=dialect.echoes,
        )

    async def send(self, request: ProviderRequest) -> ProviderReply:
        """Return the whole reply."""
        completion = await self._sdk.patiently(
            partial(self._completion, request), self._tries(request), request.context.model
        )
        return ProviderReply([self._reply(well_formed_data(completion), request)])

    async def stream(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """Yield the reply in pieces."""
        ask = partial(self._pieces, request)
        async with aclosing(self._sdk.streamed(ask, self._tries(request))) as pieces:
            async for piece in pieces:
                yield piece

    def _tries(self, request: ProviderRequest) -> int:
        return self._retries if request.retries is None else request.retries

    async def _completion(self, request: ProviderRequest) -> dict[str, Any]:
        """Return a completion, asked for once in each dialect."""
        lessons = _Lessons(self._dialects, request)
        while True:
            try:
                with self._sdk.errors(request.context.model):
                    answer = await self._create(request, lessons.dialect, streams=False)
                completion = plain(self._sdk, answer)
                self._check(completion)
            except SessionError as error:
                if not lessons.learn(error, self.target):
                    raise
            else:
                return completion

    async def _pieces(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """Yield the reply in pieces, asked for once in each dialect."""
        lessons = _Lessons(self._dialects, request)
        has_begun = False
        while True:
            try:
                async with aclosing(self._streamed(request, lessons.dialect)) as pieces:
                    async for piece in pieces:
                        has_begun = True
                        yield piece
            except SessionError as error:
                if has_begun or not lessons.learn(error, self.target):
                    raise
            else:
                return

    async def _streamed(
        self, request: ProviderRequest, dialect: Dialect
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """Yield the reply in pieces."""
        model = request.context.model
        with self._sdk.errors(model):
            chunks = await self._create(request, dialect, streams=True)
        completion = await whole_answer(self._sdk, chunks)
        whole: ChunkAssembler | None = None
        if completion is None:
            whole, texts, thoughts = ChunkAssembler(), TextPieces(), TextPieces()
            await opened(self._sdk, chunks)
            with self._sdk.errors(model, streaming=True):
                try:
                    async for chunk in chunks:
                        piece = whole.add(plain(self._sdk, chunk))
                        text, thought = texts.passed(piece.text), thoughts.passed(piece.reasoning)
                        if text or thought:
                            yield StreamEvent(text=text, reasoning=thought)
                finally:
                    await chunks.close()
            with self._sdk.errors(model, reading=True):
                completion = whole.completion()
        self._check(completion)
        if whole is not None and not whole.is_complete:
            raise ProviderStreamError(
                "the stream ended before the reply was complete; send the message again",
                provider=self._sdk.provider,
            )
        reply = self._reply(well_formed_data(completion), request)
        if whole is None and reply.text:
            yield StreamEvent(text=reply.text)
        for block in reply.blocks:
            if block.type == "tool_call":
                yield StreamEvent(block=block)
        yield ProviderReply([reply])

    def _check(self, completion: dict[str, Any]) -> None:
        with self._sdk.errors(reading=True):
            failure = failure_of(completion)
        if failure is not None:
            raise self._sdk.of_event(failure, "no reply, and no reason")

    async def _create(self, request: ProviderRequest, dialect: Dialect, *, streams: bool) -> Any:
        arguments = self._arguments(request, dialect)
        if streams:
            arguments["stream"] = True
            if dialect.streams_usage:
                arguments.setdefault("stream_options", {"include_usage": True})
        # The SDK walks through its types for each message that is given as such. For a window of a
        # hundred that takes ten times as long as the rest of a turn; `extra_body` is sent as it is.
        extra = {**(arguments.get("extra_body") or {}), "messages": arguments["messages"]}
        return await self._sdk.once.chat.completions.create(
            **{**arguments, "messages": [], "extra_body": extra}
        )

    def _arguments(self, request: ProviderRequest, dialect: Dialect) -> dict[str, Any]:
        """Keywords of ``chat.completions.create``."""
        options = dict(request.options)
        check_options(self._sdk.provider, options, _RESERVED)
        instructions = options.pop("instructions", None)
        tools = options.pop("tools", None)
        if tools:
            options["tools"] = [tool_to_chat(tool) for tool in as_tools(tools)]
        if dialect.takes_cache_key:
            options.setdefault("prompt_cache_key", cache_key(request.session_id))
        messages = self._messages(request, dialect, instructions, options.get("tools"))
        return {"model": request.context.model, "messages": messages, **options}

    def _messages(
        self, request: ProviderRequest, dialect: Dialect, instructions: str | None, tools: object
    ) -> list[ChatMessage]:
        """Return the request's messages, and the fingerprint that the reply is made under."""
        first = [{"role": "system", "content": instructions}] if instructions else []
        system = list(takewhile(lambda each: each.role is MessageRole.SYSTEM, request.messages))
        first += to_chat(system, dialect)
        binds = is_bound(request.context.model)
        prefix = Prefix(request, system=first, tools=tools, binds=binds)
        sent: list[ChatMessage] = []
        for message in request.messages[len(system) :]:
            said = message
            if message.role is MessageRole.ASSISTANT and not prefix.allows(message):
                said = _without_reasoning(message, request)
            for part in to_chat(
                [said], dialect, provider=self._sdk.provider, model=request.context.model
            ):
                prefix.add(part)
                sent.append(part)
        prefix.end()
        if dialect.system is SystemPlacement.FIRST and len(first) > 1:
            first = [{"role": "system", "content": "\n\n".join(map(_content, first))}]
        return [*first, *(in_turn(sent) if dialect.alternates else sent)]

    def _reply(self, completion: dict[str, Any], request: ProviderRequest) -> SessionMessage:
        model = request.context.model
        with self._sdk.errors(model, reading=True):  # whatever is missing from it
            return from_completion(completion, model, self._sdk.provider)


class _Lessons:
    """What is learned of a server's dialect while one request is made.

    Args:
        dialects: How the server speaks, as far as that is known.
        request: The request.
    """

    def __init__(self, dialects: Dialects, request: ProviderRequest) -> None:
        self._dialects = dialects
        self._request = request
        self._before = dialects.of(request.context.model)
        self._left = _LESSONS

    @property
    def dialect(self) -> Dialect:
        """The dialect to make the request in."""
        return self._dialects.of(self._request.context.model)

    def learn(self, error: SessionError, target: Callable[[str], Target]) -> bool:
        """Return whether a refusal names its reason, so that it is worth asking again.

        It may be an answer's status, or come inside an answer or a stream that began with 200.

        Args:
            error: What came of the request.
            target: Tells what the server and a model accept.
        """
        request, model = self._request, self._request.context.model
        cause = error.__cause__ or error.__context__
        status = getattr(cause, "status_code", None)
        said = excerpt(f"{error} {cause} {getattr(cause, 'body', None)}")
        dialect = self.dialect
        teaches = status in _TEACHING or (status is None and isinstance(error, _TOLD))
        if (
            isinstance(error, _SILENT)
            or not teaches
            or not self._left
            or not self._dialects.learn(dialect, model, said)
        ):
            self._dialects.keep(model, self._before)  # what did not help was no lesson
            return False
        self._left -= 1
        request.retarget(target(model))
        # New content is never dropped silently: its sender must learn that the model cannot see it.
        refused = [kind for name, kind in MEDIA.items()
                   if getattr(dialect, name) and not getattr(self.dialect, name)]  # fmt: skip
        return not _shows(request.window[len(request.window) - request.new_count :], tuple(refused))


def _shows(messages: Sequence[SessionMessage], kinds: tuple[type[Block], ...]) -> bool:
    """Return whether a user shows something of these kinds in messages."""
    said = [each for each in messages if each.role is MessageRole.USER]
    return any(isinstance(block, kinds) for each in said for block in each.blocks)


def _content(message: ChatMessage) -> str:
    return str(message["content"])


def is_bound(model: str) -> bool:
    """Return whether a model's reasoning is valid only behind what it was made behind.

    So it is with Claude's newest models, also through routers:
    https://docs.litellm.ai/docs/providers/anthropic_preserved_thinking
    """
    claude = model_of(model)
    return claude is not None and claude.does(BINDS)


def _without_reasoning(message: SessionMessage, request: ProviderRequest) -> SessionMessage:
    """Return a reply without its reasoning, which is not valid in this request."""
    kept = [block for block in message.blocks if not isinstance(block, ReasoningBlock)]
    # A gateway's own fields, such as litellm's `thinking_blocks`, may have it too.
    native = {name: value for name, value in (message.native or {}).items() if name != NATIVE}
    if len(kept) == len(message.blocks) and native == (message.native or {}):
        return message
    detail = "not valid behind what comes before it"
    request.report(Repair(kind=RepairKind.REASONING_DROPPED, message_id=message.id, detail=detail))
    return message.model_copy(update={"content": kept, "native": native or None})
