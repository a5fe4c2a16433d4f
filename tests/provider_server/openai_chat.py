"""Chat completions: the whole history in each request."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import openai_shapes as shapes
from .chat_answers import deltas, finish_reason, message_view
from .chat_dialects import DIALECTS, Dialect, as_openai, check_dialect
from .openai_context import check_model, count_pieces, fingerprint
from .openai_errors import ApiError, body_of, endpoint, no_match, too_long
from .openai_items import IMAGE_CHARACTERS, NAME, bad_url, good_url, text_of
from .openai_model import Answer, answer_of, merged
from .openai_stream import EventStream, sse
from .worlds import Json, World, count_tokens, thinking, tokens_of, world_of

MESSAGE_NAME = r"^[^\s<|\\/>]+$"
CALL_ID_LENGTH = 40


def check_messages(messages: Any) -> None:
    """Refuse messages that are wrong, one by one and in their order."""
    if not messages:
        message = "Invalid 'messages': empty array. Expected an array with minimum length 1."
        raise ApiError(message, param="messages", code="empty_array")
    for number, message in enumerate(messages):
        check_message(message, f"messages[{number}]")
    check_tool_order(messages)


def check_message(message: Any, at: str) -> None:
    """Refuse a message that is wrong by itself."""
    role = message.get("role") if isinstance(message, dict) else None
    if role not in shapes.CHAT_ROLES:
        supported = ", ".join(f"'{one}'" for one in shapes.CHAT_ROLES)
        raise ApiError(
            f"Invalid value: {role!r}. Supported values are: {supported}.",
            param=f"{at}.role",
            code="invalid_value",
        )
    shapes.CHAT_ROLES[role].check(message, at)
    if "name" in message and not re.fullmatch(MESSAGE_NAME, message["name"]):
        raise no_match(f"{at}.name", MESSAGE_NAME)
    if message.get("content") == []:
        raise ApiError(f"Invalid '{at}.content': empty array.", param=f"{at}.content")
    if role == "assistant":
        check_assistant(message, at)
    for number, part in enumerate(image_parts(message)):
        if not good_url(part["image_url"]["url"]):
            raise bad_url(f"{at}.content[{number}].image_url.url")


def check_assistant(message: Json, at: str) -> None:
    """An assistant message says something, and its calls are proper ones."""
    calls = message.get("tool_calls")
    if calls == []:
        raise ApiError(
            f"Invalid '{at}.tool_calls': empty array. Expected an array with minimum length 1, "
            "but got an empty array instead.",
            param=f"{at}.tool_calls",
            code="empty_array",
        )
    if not calls and message.get("content") is None and message.get("refusal") is None:
        text = "Invalid value for 'content': expected a string, got null."
        raise ApiError(text, param=f"{at}.content")
    for number, call in enumerate(calls or ()):
        place = f"{at}.tool_calls[{number}]"
        if len(call["id"]) > CALL_ID_LENGTH:
            raise too_long(f"{place}.id", CALL_ID_LENGTH, len(call["id"]))
        if call["type"] == "function":
            check_function(call["function"], f"{place}.function")


def check_function(function: Json, at: str) -> None:
    """A call has a proper name, and its arguments are a JSON string."""
    if not re.fullmatch(NAME, function["name"]):
        raise no_match(f"{at}.name", NAME)
    try:
        json.loads(function["arguments"])
    except ValueError:
        place = f"{at}.arguments"
        message = f"Invalid '{place}': expected a JSON string."
        raise ApiError(message, param=place, code="invalid_value") from None


def check_tool_order(messages: list[Json]) -> None:
    """Tool messages follow the calls they answer, and all calls are answered at once."""
    waiting: list[str] = []
    for number, message in enumerate([*messages, {"role": "end"}]):
        at = f"messages.[{number}].role"
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                raise ApiError(
                    "Invalid parameter: messages with role 'tool' must be a response to a "
                    "preceeding message with 'tool_calls'.",
                    param=at,
                )
            waiting.remove(message["tool_call_id"])
            continue
        if waiting:
            raise ApiError(
                "An assistant message with 'tool_calls' must be followed by tool messages "
                "responding to each 'tool_call_id'. The following tool_call_ids did not have "
                f"response messages: {', '.join(waiting)}",
                param=at,
            )
        waiting = [call["id"] for call in message.get("tool_calls") or ()]


def image_parts(message: Json) -> list[Json]:
    """The images of a message."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return [part for part in parts if part["type"] == "image_url"]


def as_item(message: Json) -> Json:
    """A message as the responses side reads it."""
    content = message.get("content") or message.get("refusal") or ""
    if message["role"] == "tool":
        return {"type": "function_call_output", "output": content}
    return {"type": "message", "role": message["role"], "content": content}


def piece_of(message: Json) -> tuple[str, int]:
    """A message for counting: what makes it the same, and its characters."""
    calls = json.dumps(message.get("tool_calls") or "")
    size = len(text_of(as_item(message))) + IMAGE_CHARACTERS * len(image_parts(message))
    for call in message.get("tool_calls") or ():
        function = call.get("function") or call.get("custom")
        size += len(function["name"]) + len(function.get("arguments", ""))
    return f"{message['role']}|{fingerprint(as_item(message))}|{calls}", size


def check_body(body: Json) -> None:
    """Refuse what the vendor refuses."""
    shapes.check_request(shapes.CHAT, body, ("messages",))
    reasoning = "reasoning_effort" if body.get("reasoning_effort") else None
    check_model(body["model"], tools=bool(body.get("tools")), reasoning=reasoning)
    shapes.check_metadata(body.get("metadata"))
    check_messages(body["messages"])
    if body.get("tools") == []:
        raise ApiError("Invalid 'tools': empty array.", param="tools", code="empty_array")
    for number, tool in enumerate(body.get("tools") or ()):
        if tool["type"] == "function" and not re.fullmatch(NAME, tool["function"]["name"]):
            raise no_match(f"tools[{number}].function.name", NAME)
    if body.get("stream_options") and not body.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise ApiError(message, param="stream_options")
    images = any(image_parts(message) for message in body["messages"])
    if body["model"].startswith("novision") and images:
        text = "Invalid content type. image_url is only supported by certain models."
        raise ApiError(text, param="messages")


def answered(world: World, body: Json) -> tuple[Answer, Json]:
    """The model's answer, and the usage."""
    tools = body.get("tools") or []
    names = {tool["function"]["name"] for tool in tools if tool["type"] == "function"}
    if body.get("tool_choice") == "none":
        names = set()
    context = [as_item(message) for message in body["messages"]]
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    answer = answer_of(world, body["model"], context, names, limit)
    if answer.finish == "failed" or (answer.finish == "error" and not world.settings.get("chat")):
        raise ApiError("The model failed to answer.", status=500, kind="server_error")
    head = json.dumps(tools) if tools else ""
    counted = [(f"chat|{body['model']}|{head}", len(head)), *map(piece_of, body["messages"])]
    tokens, cached = count_pieces(world, counted)
    most = world.settings.get("max_input_tokens")
    if most is not None and tokens > most:
        raise ApiError(
            f"This model's maximum context length is {most} tokens. However, your messages "
            f"resulted in {tokens} tokens. Please reduce the length of the messages.",
            param="messages",
            code="context_length_exceeded",
        )
    count_tokens(world, tokens, cached, 0)
    thought = tokens_of(len(answer.reasoning or ""))
    said = len(answer.text or "") + len(answer.refusal or "")
    said += sum(len(call["name"]) + len(call["arguments"]) for call in answer.tool_calls)
    made = tokens_of(said) + thought
    usage: Json = {
        "prompt_tokens": tokens,
        "completion_tokens": made,
        "total_tokens": tokens + made,
    }
    if not world.settings.get("compat"):
        usage |= {
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": thought,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }
    return answer, merged(usage, answer.usage)


async def stream(world: World, body: Json, id_: str) -> AsyncIterator[bytes]:
    """The chunks of a streamed answer."""
    answer, usage = body["_answered"]
    with_usage = (body.get("stream_options") or {}).get("include_usage")
    head: Json = {"id": id_, "object": "chat.completion.chunk", "created": int(time.time())}
    head |= {"model": body["model"]} | ({"usage": None} if with_usage else {})
    for number, (delta, finish) in enumerate(deltas(answer, dialect_of(world))):
        if number == 1:
            await thinking(world)
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        yield sse(head | {"choices": [choice]})
    if answer.error:
        yield sse(head | {"choices": []} | {"error": answer.error})
    if with_usage:
        yield sse(head | {"choices": [], "usage": usage})
    yield sse("[DONE]")


def dialect_of(world: World) -> Dialect:
    """The dialect of a world."""
    return DIALECTS[world.settings.get("chat", "openai")]


def in_error(answer: Answer) -> Json | None:
    """An error that comes with a 200, as routers answer (https://openrouter.ai/docs/api/reference/errors)."""
    return {"error": answer.error} if answer.error else None


async def create(request: Request) -> Json | Response:
    """POST /chat/completions."""
    world, body = world_of(request), await body_of(request)
    dialect = dialect_of(world)
    plain = as_openai(dialect, body)
    check_body(plain)
    check_dialect(dialect, body)
    answer, usage = answered(world, plain)
    if in_error(answer) and not body.get("stream"):
        return in_error(answer) or {}
    id_ = world.new_id("chatcmpl-")
    if body.get("stream"):
        ready = body | {"_answered": (answer, usage)}
        return EventStream(stream(world, ready, id_), lambda: None)
    await thinking(world)
    is_plain = bool(world.settings.get("compat") or world.settings.get("chat"))
    message = message_view(answer, dialect, plain=is_plain)
    choice = {"index": 0, "message": message, "logprobs": None}
    choice["finish_reason"] = finish_reason(answer)
    return {
        "id": id_,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [choice],
        "usage": usage,
    }


routes = [Route("/chat/completions", endpoint(create), methods=["POST"])]
