"""Anthropic's Messages API: messages with or without a thread, streaming, token counts, models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from anthropic.types import message_count_tokens_params as count_params
from anthropic.types import message_create_params as create_params
from anthropic.types.beta import message_count_tokens_params as beta_count_params
from anthropic.types.beta import message_create_params as beta_create_params
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Send

from . import anthropic_compaction as compaction
from . import anthropic_threads as threads
from .anthropic_binding import BETA as BINDING
from .anthropic_binding import check_binding, check_controls, new_outcome
from .anthropic_context import blocks_of, digest, input_tokens, normal
from .anthropic_errors import (
    Refusal,
    answer,
    betas_of,
    json_body,
    new_request_id,
    refusing,
    refusing_without_version,
)
from .anthropic_models import get_model, list_models
from .anthropic_profiles import check_profile, profile_of
from .anthropic_replies import compacted, make_reply
from .anthropic_rules import Context, check_model, check_request, check_size
from .anthropic_shape import shape_error
from .anthropic_stream import sse, stream_events
from .anthropic_system import check_betas, shown
from .anthropic_turns import check_latest, turns_of
from .anthropic_usage import usage_of
from .worlds import Json, World, thinking, world_of


@dataclass
class Turn:
    """One request to the model, checked and ready to be answered."""

    world: World
    body: Json
    context: Context
    thread: threads.Thread | None = None
    before: threads.Position | None = None

    def begin(self) -> None:
        """Let no other request continue from the same place."""
        if self.before is not None:
            self.before.in_flight = True

    def end(self) -> None:
        """The request is over, whatever came of it."""
        if self.before is not None:
            self.before.in_flight = False

    def finish(self, message: Json) -> None:
        """Keep what the turn has led to."""
        if self.thread is not None:
            threads.store(self.world, self.thread, self.before, self.context.messages, message)
        elif message["stop_reason"] == "pause_turn":
            before = self.body["messages"][-1]
            said = before["content"] if before["role"] == "assistant" else []
            _paused(self.world).add(digest([*said, *message["content"]]))


def _paused(world: World) -> set[str]:
    """The replies that a conversation may end with, because the server paused them."""
    kept: set[str] = world.anthropic.setdefault("paused", set())
    return kept


def _check_shape(request: Request, body: Json, plain: Any, beta: Any) -> None:
    """Refuse a body that does not have the SDK's shape; betas bring fields of their own."""
    asked = betas_of(request)
    check_profile(world_of(request), body, asked)
    check_controls(body.get("thinking"), asked)
    check_betas(body["messages"] if isinstance(body.get("messages"), list) else [], asked)
    kind = beta if asked or request.query_params.get("beta") == "true" else plain
    wrong = shape_error(_signed(request, body), kind)
    if wrong is None and body.get("thread") is not None and threads.BETA not in asked:
        wrong = "thread: Extra inputs are not permitted"
    if wrong is not None:
        raise Refusal(wrong)
    compaction.check_fields(body, asked)


def _signed(request: Request, body: Json) -> Json:
    """The body as its shape is checked: a server that signs no thinking needs no signatures."""
    if profile_of(world_of(request)).signs or not isinstance(body.get("messages"), list):
        return body
    messages = [dict(message) for message in body["messages"]]
    for message in messages:
        if isinstance(message.get("content"), list):
            message["content"] = [
                {"signature": ""} | block if block.get("type") == "thinking" else block
                for block in message["content"]
            ]
    return body | {"messages": messages}


def _context(request: Request, body: Json) -> Context:
    """The context of a request that stands for itself."""
    world = world_of(request)
    messages = body["messages"]
    last = normal(messages[-1])["content"] if messages else []
    return Context(
        model=body["model"],
        messages=messages,
        system=body.get("system"),
        tools=body.get("tools") or [],
        thinking=body.get("thinking"),
        tool_choice=body.get("tool_choice"),
        max_tokens=body.get("max_tokens"),
        betas=betas_of(request),
        paused=bool(body.get("compaction")) or (bool(messages) and digest(last) in _paused(world)),
        settings=world.settings,
        container=body.get("container"),
        alternates=bool(world.settings.get("alternates") or profile_of(world).alternates),
    )


def _turn(request: Request, body: Json) -> Turn:
    """The turn that a request is, with what the server holds of it."""
    world = world_of(request)
    check_model(body["model"])
    thread = body.get("thread")
    if thread is None:
        turn = Turn(world, body, _context(request, body))
    elif thread["type"] == "create":
        threads.check_supported(world, body)
        context = _context(request, body)
        fixed = {key: value for key, value in body.items() if key not in {"messages", "thread"}}
        held = threads.Thread(world.new_id("thread_"), body.get("system"), context.tools, fixed)
        turn = Turn(world, body, context, held)
    else:
        turn = _continued(request, world, body)
    _check(world, turn.context, body)
    return turn


def _check(world: World, context: Context, body: Json) -> None:
    """Refuse what the vendor refuses, and find what becomes of the thinking."""
    check_request(context)
    compaction.check_blocks(context.messages, body, context.betas)
    context.outcome = new_outcome(context.system, context.tools)
    if profile_of(world).signs:
        check_latest(world, turns_of(context.messages, context.stored))
        check_binding(
            world, context.model, context.outcome, context.messages, context.thinking, context.betas
        )
    check_size(context, input_tokens(context.system, context.tools, seen_by_model(context)))


def seen_by_model(context: Context) -> list[Json]:
    """The messages that the model is shown: from the newest compaction on, without what is dropped."""
    dropped = {(index, number) for index, number, _ in context.judged().dropped}
    kept = [
        message
        | {
            "content": [
                block
                for number, block in enumerate(blocks_of(message.get("content")))
                if (index, number) not in dropped
            ]
        }
        for index, message in enumerate(context.messages)
    ]
    return shown(compaction.visible(kept))


def _continued(request: Request, world: World, body: Json) -> Turn:
    before = threads.find(world, body["thread"]["previous_message_id"])
    threads.check_fixed(world, before, body)
    threads.check_supported(world, body)
    paused = before.stop_reason == "pause_turn"
    if not body["messages"] and not paused:
        raise Refusal("messages: at least one message is required")
    context = _context(request, body)
    context.messages = [*before.messages, *body["messages"]]
    context.system, context.tools = before.thread.system, before.thread.tools
    context.stored = len(before.messages)
    context.paused = paused and not body["messages"]
    return Turn(world, body, context, before.thread, before)


def _message(turn: Turn) -> Json:
    """The model's answer to a turn."""
    body, context = turn.body, turn.context
    given = seen_by_model(context)
    reply = _reply(turn, given)
    usage = usage_of(turn.world, context, given, body.get("cache_control"), turn.before, reply)
    context.messages = [normal(message) for message in context.messages]
    message = {
        "id": turn.world.new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": context.model,
        "content": reply["content"],
        "stop_reason": reply["stop_reason"],
        "stop_sequence": reply["stop_sequence"],
        "stop_details": reply["stop_details"],
        "container": reply["container"],
        "usage": usage,
    }
    if compaction.edits_of(body):
        message["context_management"] = {"applied_edits": []}
    if BINDING in context.betas:
        message["input_transformations"] = context.judged().transformations()
    return message


def _reply(turn: Turn, given: list[Json]) -> Json:
    """What the model says, or the compaction that was asked for."""
    body, context = turn.body, turn.context
    if body.get("compaction"):
        block = compaction.compaction_block(context.model, given, context.judged())
        return compacted(block, "compaction")
    if not compaction.threshold_passed(body, input_tokens(context.system, context.tools, given)):
        return make_reply(turn.world, context, body.get("stop_sequences"))
    block = {"type": "compaction", "content": compaction.summary_of(given)}
    context.judged().begin_at(block, "")
    reply = make_reply(turn.world, context, body.get("stop_sequences"))
    return reply | {"content": [block, *reply["content"]]}


class EventStream(StreamingResponse):
    """An SSE answer that calls `over` when it ends, however it ends."""

    def __init__(self, events: AsyncIterator[bytes], over: Callable[[], None]) -> None:
        headers = {"request-id": new_request_id(), "cache-control": "no-cache"}
        super().__init__(events, 200, headers, "text/event-stream")
        self.over = over

    async def stream_response(self, send: Send) -> None:
        """Send the events."""
        try:
            await super().stream_response(send)
        finally:
            self.over()


async def _events(turn: Turn, message: Json) -> AsyncIterator[bytes]:
    for event in stream_events(message):
        if event["type"] == "message_stop":
            turn.finish(message)
            turn.end()
        yield sse(event)


@refusing
async def create_message(request: Request) -> Response:
    """POST /messages."""
    return await created(request, await json_body(request))


async def created(request: Request, body: Json) -> Response:
    """The answer to a body, by whatever path it came."""
    stream = body.pop("stream", False)
    if not isinstance(stream, bool):
        raise Refusal("stream: Input should be a valid boolean")
    if world_of(request).settings.get("ignores_threads"):
        body.pop("thread", None)
    plain, beta = create_params.MessageCreateParamsBase, beta_create_params.MessageCreateParamsBase
    _check_shape(request, body, plain, beta)
    turn = _turn(request, body)
    turn.begin()
    try:
        await thinking(turn.world)
        message = _message(turn)
        if stream:
            return EventStream(_events(turn, message), turn.end)
        turn.finish(message)
    except BaseException:
        turn.end()
        raise
    turn.end()
    return answer(message)


@refusing
async def count_tokens(request: Request) -> Response:
    """POST /messages/count_tokens."""
    return await counted(request, await json_body(request))


async def counted(request: Request, body: Json) -> Response:
    """The count of a body, by whatever path it came."""
    if not profile_of(world_of(request)).counts:
        raise Refusal("Not Found", 404)
    if "thread" in body:
        raise Refusal("thread: Extra inputs are not permitted")
    plain = count_params.MessageCountTokensParams
    _check_shape(request, body, plain, beta_count_params.MessageCountTokensParams)
    context = _context(request, body)
    _check(world_of(request), context, body)
    tokens = input_tokens(context.system, context.tools, seen_by_model(context))
    return answer({"input_tokens": tokens})


@refusing_without_version
async def vertex(request: Request) -> Response:
    """POST .../models/{model}:rawPredict and the like: Google Cloud's way to the same API.

    https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai: the model is in the path,
    and the version in the body.
    """
    body = await json_body(request)
    if not body.pop("anthropic_version", None):
        raise Refusal("anthropic_version: Field required")
    model, _, how = request.path_params["call"].partition(":")
    if model == "count-tokens":
        return await counted(request, body)
    if "model" in body:
        raise Refusal("model: Extra inputs are not permitted")
    if (how == "streamRawPredict") is not bool(body.get("stream")):
        raise Refusal(f"stream: must fit the method '{how}'")
    return await created(request, body | {"model": model.replace("@", "-")})


VERTEX = "/projects/{project}/locations/{region}/publishers/anthropic/models/{call}"
vertex_routes = [Route(VERTEX, vertex, methods=["POST"])]
routes = [
    Route("/messages", create_message, methods=["POST"]),
    Route("/messages/count_tokens", count_tokens, methods=["POST"]),
    Route("/models", list_models),
    Route("/models/{model_id}", get_model),
]
