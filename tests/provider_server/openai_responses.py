"""The responses API: the model run on a conversation, on an earlier response, or on its own."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import openai_shapes as shapes
from .openai_binding import binds, check_reasoning, version_of
from .openai_context import (
    check_context,
    check_model,
    check_unique,
    compacted,
    count_input,
    count_only,
    resolve,
    without_foreign,
)
from .openai_conversations import check_offered, include_of, page
from .openai_errors import ApiError, body_of, endpoint, no_match, not_found
from .openai_items import NAME, check_item, kind_of, shown, stored_form
from .openai_model import (
    Answer,
    answer_of,
    compaction_item,
    merged,
    output_items,
    output_tokens,
)
from .openai_state import conversation_of, keep_item, locked, openai_of
from .openai_stream import EventStream, response_events, sse
from .worlds import Json, World, count_tokens, thinking, world_of

WRITES_SINCE = (5, 6)
"""Writing to the cache is billed, and told, from this version on."""


@dataclass
class Run:
    """One run of the model."""

    world: World
    body: Json
    conversation: Json | None
    before: list[Json]
    new: list[Json]
    id: str
    created_at: int
    output: list[Json] = field(default_factory=list)
    usage: Json | None = None
    removed: list[Json] = field(default_factory=list)
    answer: Answer = field(default_factory=Answer)

    @property
    def include(self) -> list[str]:
        """What the response shows beyond the usual."""
        return self.body.get("include") or []

    @property
    def stored(self) -> bool:
        """Whether the response can be retrieved later."""
        return self.body.get("store") is not False

    @property
    def status(self) -> str:
        """How the run ended."""
        if self.answer.finish in {"failed", "error"}:
            return "failed"
        short = {"length", "content_filter"}
        return "incomplete" if self.answer.finish in short else "completed"

    def release(self) -> None:
        """Let others have the conversation."""
        if self.conversation is not None:
            self.conversation["busy"] = False


def check_body(world: World, body: Json) -> None:
    """Refuse what is wrong with the request, but for its items."""
    shapes.check_request(shapes.RESPONSE, body, ("input",))
    if "model" not in body:
        code = "missing_required_parameter"
        raise ApiError("Missing required parameter: 'model'.", param="model", code=code)
    reasoning = "reasoning.effort" if body.get("reasoning") else None
    check_model(body["model"], tools=bool(body.get("tools")), reasoning=reasoning)
    check_include(world, body)
    shapes.check_metadata(body.get("metadata"))
    if body.get("conversation") and body.get("previous_response_id"):
        raise ApiError(
            "Mutually exclusive parameters: 'previous_response_id' and 'conversation'. Ensure "
            "you are only providing one of: 'previous_response_id' or 'conversation'.",
            param="previous_response_id",
            code="mutually_exclusive_parameters",
        )
    if body.get("background"):
        raise ApiError("The stand-in server has no background mode.", param="background")
    for number, tool in enumerate(body.get("tools") or ()):
        if tool["type"] == "function" and not re.fullmatch(NAME, tool["name"]):
            raise no_match(f"tools[{number}].name", NAME)


def input_items(world: World, body: Json) -> list[Json]:
    """The new items of a request, as the server keeps them."""
    given: Any = body.get("input")
    if isinstance(given, str):
        given = [{"role": "user", "content": given}] if given else []
    if not given and not body.get("conversation") and not body.get("previous_response_id"):
        raise ApiError(
            "One of 'input' or 'previous_response_id' or 'prompt' or 'conversation' must be "
            "provided.",
            param="input",
            code="missing_required_parameter",
        )
    for number, item in enumerate(given or ()):
        check_item(item, f"input[{number}]")
    typed = [item | {"type": kind_of(item)} for item in given or ()]
    return [stored_form(world, resolve(world, item)) for item in typed]


def earlier_response(world: World, id_: str) -> list[Json]:
    """All that an earlier response was given and gave."""
    found = openai_of(world)["responses"].get(id_)
    if found is None:
        raise ApiError(
            f"Previous response with id '{id_}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    context: list[Json] = found["context"]
    return context


def begin(world: World, body: Json) -> Run:
    """Check everything, and take the conversation."""
    check_body(world, body)
    conversation, before = None, []
    if body.get("conversation"):
        asked = body["conversation"]
        conversation = conversation_of(world, asked if isinstance(asked, str) else asked["id"])
        before = list(conversation["items"])
    elif body.get("previous_response_id"):
        before = earlier_response(world, body["previous_response_id"])
    new = input_items(world, body)
    if conversation is not None and conversation["busy"]:
        raise locked()
    check_unique(before + new)
    run = Run(world, body, conversation, before, new, world.new_id("resp_"), int(time.time()))
    context = compacted(before + new)
    if world.settings.get("stored_reasoning") == "drop":
        context = without_foreign(context, new, body["model"])
    check_context(world, context, body["model"])
    think(run, context)
    if conversation is not None:
        conversation["busy"] = True
    return run


def tools_of(body: Json, context: list[Json]) -> set[str]:
    """The names of the functions that the model may call: declared, or added behind (`additional_tools`),
    and of those the `allowed_tools` of the choice."""
    tools = list(body.get("tools") or [])
    for item in context:
        tools += item["tools"] if item["type"] == "additional_tools" else []
    names = {tool["name"] for tool in tools if tool["type"] == "function"}
    choice = body.get("tool_choice")
    if choice == "none":
        return set()
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        return names & {tool.get("name") for tool in choice["tools"]}
    return names


def think(run: Run, context: list[Json]) -> None:
    """Have the model answer: output and usage."""
    body, world, model = run.body, run.world, run.body["model"]
    outcome = check_reasoning(world, body, context)
    run.removed, context = outcome.removed, outcome.context
    tokens, cached = count_input(world, body, context)
    check_size(world, tokens)
    run.answer = answer_of(
        world, model, context, tools_of(body, context), body.get("max_output_tokens")
    )
    if context and context[-1]["type"] == "compaction_trigger":
        context = context[:-1]
    compacts = [
        rule for rule in body.get("context_management") or () if rule["type"] == "compaction"
    ]
    first = []
    if any(tokens >= (rule.get("compact_threshold") or tokens + 1) for rule in compacts):
        first = [compaction_item(world, context, model)]
        outcome.add(first[0])
    run.output = first + output_items(world, run.answer, model, outcome)
    made, thought = output_tokens(run.output)
    written = tokens - cached if version_of(model) >= WRITES_SINCE else 0
    count_tokens(world, tokens, cached, written)
    usage = {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": tokens + made,
    }
    run.usage = merged(usage, run.answer.usage)


def check_size(world: World, tokens: int) -> None:
    """Refuse a context beyond the model's (setting `max_input_tokens`)."""
    most = world.settings.get("max_input_tokens")
    if most is not None and tokens > most:
        raise ApiError(
            "Your input exceeds the context window of this model. Please adjust your input and "
            "try again.",
            param="input",
            code="context_length_exceeded",
        )


def check_include(world: World, body: Json) -> None:
    """Encrypted reasoning is not there for models that do not reason, or (setting `refuses_include`)
    on servers that do not know `include`."""
    include = body.get("include") or []
    if include and world.settings.get("refuses_include"):
        raise ApiError("Unknown parameter: 'include'.", param="include", code="unknown_parameter")
    reasons = not body["model"].startswith(("noreason", "gpt-4"))
    if "reasoning.encrypted_content" in include and not reasons:
        text = "Encrypted content is not supported with this model."
        raise ApiError(text, param="include")


def tools_view(tools: list[Json]) -> list[Json]:
    """Tools as a response repeats them."""
    defaults = {"strict": True, "parameters": None}
    return [defaults | tool if tool["type"] == "function" else tool for tool in tools]


def response_view(run: Run, status: str, output: list[Json]) -> Json:
    """The response object."""
    body = run.body
    return {
        "id": run.id,
        "object": "response",
        "created_at": run.created_at,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "metadata": body.get("metadata") or {},
        "model": body["model"],
        "output": output,
        "parallel_tool_calls": body.get("parallel_tool_calls") is not False,
        "previous_response_id": body.get("previous_response_id"),
        "conversation": {"id": run.conversation["id"]} if run.conversation else None,
        "reasoning": body.get("reasoning") or {"effort": None, "summary": None},
        "store": run.stored,
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": tools_view(body.get("tools") or []),
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation") or "disabled",
        "usage": None,
        "user": body.get("user"),
    }


def final_view(run: Run) -> Json:
    """The response at its end."""
    failed = run.status == "failed"
    output = [] if failed else [shown(item, run.include) for item in run.output]
    response = response_view(run, run.status, output)
    if failed:
        error = {"code": "server_error", "message": "The model failed to answer."}
        return response | {"error": error | (run.answer.error or {})}
    if run.status == "incomplete":
        reason = "max_output_tokens" if run.answer.finish == "length" else "content_filter"
        response["incomplete_details"] = {"reason": reason}
    if binds(run.body["model"]):
        response["input_transformations"] = run.removed
    return response | {"usage": run.usage}


def finish(run: Run) -> None:
    """Keep what the vendor keeps of a run, and let the conversation go."""
    state = openai_of(run.world)
    kept = run.status == "completed" or run.answer.finish == "length"
    conversation = run.conversation
    if conversation is not None and conversation["id"] not in state["conversations"]:
        conversation = None
    if kept and (run.stored or conversation is not None):
        for item in run.new + run.output:
            keep_item(run.world, item, conversation)
        for item, after in zip(run.output, run.output[1:], strict=False):
            if item["type"] == "reasoning":
                state["partners"][item["id"]] = after
    if run.stored:
        context = run.before + run.new + (run.output if kept else [])
        whole = final_view(run) | {"output": run.output if run.status != "failed" else []}
        inputs = run.before + run.new
        state["responses"][run.id] = {"response": whole, "context": context, "input": inputs}
    run.release()


async def stream(run: Run) -> AsyncIterator[bytes]:
    """The events of a run; its outcome is kept right after the last of them."""
    begun = response_view(run, "in_progress", [])
    for number, (name, data) in enumerate(response_events(begun, final_view(run))):
        if number == 2:
            await thinking(run.world)
        yield sse({"type": name, "sequence_number": number} | data, name)
    finish(run)


async def create(request: Request) -> Json | Response:
    """POST /responses."""
    world, body = world_of(request), await body_of(request)
    check_offered(world, request)
    run = begin(world, body)
    if body.get("stream"):
        return EventStream(stream(run), run.release)
    try:
        await thinking(world)
        finish(run)
    finally:
        run.release()
    return final_view(run)


def response_of(request: Request) -> Json:
    """The stored response in the path."""
    world = world_of(request)
    check_offered(world, request)
    id_ = request.path_params["response_id"]
    found: Json | None = openai_of(world)["responses"].get(id_)
    if found is None:
        raise not_found("Response", id_)
    return found


async def retrieve(request: Request) -> Json:
    """GET /responses/{id}."""
    response: Json = response_of(request)["response"]
    include = include_of(request)
    return response | {"output": [shown(item, include) for item in response["output"]]}


async def delete(request: Request) -> Json:
    """DELETE /responses/{id}."""
    id_ = response_of(request)["response"]["id"]
    del openai_of(world_of(request))["responses"][id_]
    return {"id": id_, "object": "response", "deleted": True}


async def list_input(request: Request) -> Json:
    """GET /responses/{id}/input_items."""
    return page(request, response_of(request)["input"])


async def compact(request: Request) -> Json:
    """POST /responses/compact: all user messages, then one compaction item (the SDK's CompactedResponse)."""
    world, body = world_of(request), await body_of(request)
    check_offered(world, request)
    check_model(body["model"], tools=False, reasoning=None)
    earlier = body.get("previous_response_id")
    context = earlier_response(world, earlier) if earlier else []
    context = compacted(context + input_items(world, body | {"conversation": None}))
    check_context(world, context, body["model"])
    tokens, cached = count_input(world, body, context)
    users = [item for item in context if item.get("role") == "user"]
    output = [*users, compaction_item(world, context, body["model"])]
    made, _ = output_tokens(output[-1:])
    usage = {"input_tokens": tokens, "output_tokens": made, "total_tokens": tokens + made}
    usage |= {"input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0}}
    usage |= {"output_tokens_details": {"reasoning_tokens": 0}}
    head = {"id": world.new_id("resp_"), "object": "response.compaction"}
    return head | {"created_at": int(time.time()), "output": output, "usage": usage}


async def count(request: Request) -> Json:
    """POST /responses/input_tokens."""
    world, body = world_of(request), await body_of(request)
    check_offered(world, request)
    context = input_items(world, body)
    check_context(world, context, body["model"])
    tokens = count_only(context, body.get("instructions") or "", body.get("tools") or [])
    return {"object": "response.input_tokens", "input_tokens": tokens}


routes = [
    Route("/responses", endpoint(create), methods=["POST"]),
    Route("/responses/compact", endpoint(compact), methods=["POST"]),
    Route("/responses/input_tokens", endpoint(count), methods=["POST"]),
    Route("/responses/{response_id}", endpoint(retrieve), methods=["GET"]),
    Route("/responses/{response_id}", endpoint(delete), methods=["DELETE"]),
    Route("/responses/{response_id}/input_items", endpoint(list_input), methods=["GET"]),
]
