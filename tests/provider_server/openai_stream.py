"""The events of a streamed response, in the vendor's order."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from .worlds import Json

Event = tuple[str, Json]
TERMINAL = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "failed": "response.failed",
}


class EventStream(StreamingResponse):
    """A stream of server-sent events that calls `at_end` however it ends."""

    def __init__(self, events: AsyncIterator[bytes], at_end: Callable[[], None]) -> None:
        headers = {"x-request-id": "req_standin", "cache-control": "no-cache"}
        super().__init__(events, 200, headers, "text/event-stream")
        self._at_end = at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._at_end()


def sse(data: Any, name: str | None = None) -> bytes:
    """One server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data)
    return ((f"event: {name}\n" if name else "") + f"data: {text}\n\n").encode()


def pieces(text: str) -> list[str]:
    """A text in the pieces that it streams in."""
    return re.findall(r"\s*\S+\s*$|\s*\S+|\s+", text) or []


def response_events(begun: Json, final: Json) -> Iterator[Event]:
    """All events of a response from its beginning (without output) to its end."""
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    if final["status"] != "failed":
        for index, item in enumerate(final["output"]):
            yield from item_events(index, item)
    yield TERMINAL[final["status"]], {"response": final}


def item_events(index: int, item: Json) -> Iterator[Event]:
    """The events of one output item."""
    where: Json = {"item_id": item["id"], "output_index": index}
    yield "response.output_item.added", {"output_index": index, "item": begun_view(item)}
    if item["type"] == "message":
        for number, part in enumerate(item["content"]):
            yield from part_events(where | {"content_index": number}, part)
    elif item["type"] == "function_call":
        yield from argument_events(where, item)
    elif item["type"] == "reasoning":
        for number, part in enumerate(item["summary"]):
            yield from summary_events(where | {"summary_index": number}, part)
    elif item["type"] == "web_search_call":
        for step in ("in_progress", "searching", "completed"):
            yield f"response.web_search_call.{step}", where
    yield "response.output_item.done", {"output_index": index, "item": item}


def begun_view(item: Json) -> Json:
    """An output item as it is before its content comes."""
    empty: dict[str, Json] = {
        "message": {"status": "in_progress", "content": []},
        "function_call": {"status": "in_progress", "arguments": ""},
        "reasoning": {"summary": []},
        "web_search_call": {"status": "in_progress"},
    }
    return item | empty.get(item["type"], {})


def part_events(where: Json, part: Json) -> Iterator[Event]:
    """The events of one content part of a message."""
    is_text = part["type"] == "output_text"
    key = "text" if is_text else "refusal"
    empty: Json = {key: ""} | ({"annotations": [], "logprobs": []} if is_text else {})
    extra: Json = {"logprobs": []} if is_text else {}
    name = "response.output_text" if is_text else "response.refusal"
    yield "response.content_part.added", where | {"part": {"type": part["type"]} | empty}
    for piece in pieces(part[key]):
        yield f"{name}.delta", where | {"delta": piece} | extra
    if is_text:
        for number, note in enumerate(part.get("annotations") or []):
            about = {"annotation": note, "annotation_index": number}
            yield f"{name}.annotation.added", where | about
    yield f"{name}.done", where | {key: part[key]} | extra
    yield "response.content_part.done", where | {"part": part}


def argument_events(where: Json, item: Json) -> Iterator[Event]:
    """The events of a function call's arguments."""
    text = item["arguments"]
    for start in range(0, len(text), 8):
        yield "response.function_call_arguments.delta", where | {"delta": text[start : start + 8]}
    yield "response.function_call_arguments.done", where | {"arguments": text}


def summary_events(where: Json, part: Json) -> Iterator[Event]:
    """The events of one part of a reasoning summary."""
    name = "response.reasoning_summary"
    yield f"{name}_part.added", where | {"part": {"type": "summary_text", "text": ""}}
    for piece in pieces(part["text"]):
        yield f"{name}_text.delta", where | {"delta": piece}
    yield f"{name}_text.done", where | {"text": part["text"]}
    yield f"{name}_part.done", where | {"part": part}
