"""An answer of Chat Completions in the shape of the server's dialect, whole and streamed.

The shapes: https://api-docs.deepseek.com/guides/thinking_mode (`reasoning_content`),
https://openrouter.ai/docs/use-cases/reasoning-tokens (`reasoning`, `reasoning_details`),
https://docs.mistral.ai/capabilities/reasoning (thinking chunks), and
https://ai.google.dev/gemini-api/docs/openai (`extra_content.google.thought_signature`). Streamed calls
that share index 0: https://github.com/ollama/ollama/issues/7881.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from .chat_dialects import Dialect
from .openai_model import Answer
from .openai_stream import pieces
from .worlds import Json

Delta = tuple[Json, str | None]


def finish_reason(answer: Answer) -> str:
    """Why the model stopped, in chat's words."""
    if answer.finish in {"length", "content_filter", "error", "function_call"}:
        return answer.finish
    return "tool_calls" if answer.tool_calls or answer.message.get("tool_calls") else "stop"


def call_view(call: Json, dialect: Dialect, number: int = 0) -> Json:
    """A tool call in chat's form."""
    arguments = call["arguments"]
    if dialect.arguments_as_object:
        arguments = json.loads(arguments)
    view: Json = {"id": call["id"], "type": "function"}
    view["function"] = {"name": call["name"], "arguments": arguments}
    if dialect.signs_calls and number == 0:
        view["extra_content"] = {"google": {"thought_signature": f"sig-{call['id']}"}}
    return view


def reasoning_view(text: str, field: str) -> Json:
    """The fields of a message, or a delta, that reasoning is in."""
    if field == "reasoning":
        detail = {"type": "reasoning.text", "text": text, "format": "unknown", "index": 0}
        return {"reasoning": text, "reasoning_details": [detail]}
    return {field: text}


def thinking_chunk(text: str) -> Json:
    """Reasoning as a part of the content."""
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}


def message_view(answer: Answer, dialect: Dialect, *, plain: bool) -> Json:
    """The answer as a message."""
    if answer.message:
        return {"role": "assistant"} | answer.message
    text = answer.text if answer.text or not answer.tool_calls else None
    message: Json = {"role": "assistant", "content": text}
    if not plain:
        message |= {"refusal": answer.refusal, "annotations": []}
    if answer.reasoning is not None and dialect.reasoning == "chunks":
        message["content"] = [thinking_chunk(answer.reasoning)]
        message["content"] += [{"type": "text", "text": text}] if text else []
    elif answer.reasoning is not None and dialect.reasoning:
        message |= reasoning_view(answer.reasoning, dialect.reasoning)
    if answer.tool_calls:
        calls = enumerate(answer.tool_calls)
        message["tool_calls"] = [call_view(call, dialect, number) for number, call in calls]
    return message


def deltas(answer: Answer, dialect: Dialect) -> Iterator[Delta]:
    """The pieces of a streamed answer, each with the reason for the end if it is the last."""
    if answer.deltas or answer.message:
        for delta in answer.deltas or [{"role": "assistant"} | answer.message]:
            yield delta, None
        yield {}, finish_reason(answer)
        return
    yield {"role": "assistant", "content": "" if answer.text else None, "refusal": None}, None
    yield from _reasoning_deltas(answer, dialect)
    for piece in pieces(answer.text or ""):
        yield {"content": piece}, None
    for piece in pieces(answer.refusal or ""):
        yield {"refusal": piece}, None
    for number, call in enumerate(answer.tool_calls):
        yield from _call_deltas(call, number, dialect)
    yield {}, finish_reason(answer)


def _reasoning_deltas(answer: Answer, dialect: Dialect) -> Iterator[Delta]:
    for piece in pieces(answer.reasoning or "") if dialect.reasoning else ():
        if dialect.reasoning == "chunks":
            yield {"content": [thinking_chunk(piece)]}, None
        else:
            yield reasoning_view(piece, dialect.reasoning), None


def _call_deltas(call: Json, number: int, dialect: Dialect) -> Iterator[Delta]:
    """The pieces of one call, with the index that the server gives them."""
    index: Json = {"own": {"index": number}, "zero": {"index": 0}, "none": {}}[dialect.call_index]
    view = call_view(call, dialect, number)
    if dialect.whole_calls:
        yield {"tool_calls": [index | view]}, None
        return
    first = view | {"function": view["function"] | {"arguments": ""}}
    yield {"tool_calls": [index | first]}, None
    text = call["arguments"]
    for start in range(0, len(text), 8):
        piece = {"function": {"arguments": text[start : start + 8]}}
        yield {"tool_calls": [index | piece]}, None
