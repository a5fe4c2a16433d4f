"""A message as the vendor's stream events."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from .worlds import Json

PIECE = 12
PIECES = 40


def sse(event: Json, name: str | None = None) -> bytes:
    """One event on the wire."""
    return f"event: {name or event['type']}\ndata: {json.dumps(event)}\n\n".encode()


def pieces(text: str) -> list[str]:
    """The text in pieces, never more than some forty."""
    size = max(PIECE, math.ceil(len(text) / PIECES))
    return [text[start : start + size] for start in range(0, len(text), size)]


def stream_events(message: Json) -> Iterator[Json]:
    """Every event of a message's stream."""
    begun: Json = {"content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None}
    begun["container"] = None
    usage = message["usage"] | {"output_tokens": 1}
    yield {"type": "message_start", "message": message | begun | {"usage": usage}}
    yield {"type": "ping"}
    for index, block in enumerate(message["content"]):
        yield {"type": "content_block_start", "index": index, "content_block": _start(block)}
        for delta in _deltas(block):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ended = ("stop_reason", "stop_sequence", "stop_details")
    spent = ("output_tokens", "output_tokens_details")
    counted = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    usage = {key: message["usage"][key] for key in (*counted, *spent)}
    delta = {key: message[key] for key in (*ended, "container")}
    last = {"type": "message_delta", "delta": delta, "usage": usage}
    if "context_management" in message:
        last["context_management"] = message["context_management"]
    yield last
    yield {"type": "message_stop"}


def _start(block: Json) -> Json:
    kind = block["type"]
    if kind == "text":
        return block | {"text": ""} | ({"citations": []} if block.get("citations") else {})
    if kind == "thinking":
        return block | {"thinking": "", "signature": ""}
    if kind in {"tool_use", "server_tool_use", "mcp_tool_use"}:
        return block | {"input": {}}
    if kind == "compaction" and "signature" not in block:
        return block | {"content": None}
    return block


def _deltas(block: Json) -> Iterator[Json]:
    kind = block["type"]
    if kind == "text":
        for piece in pieces(block["text"]):
            yield {"type": "text_delta", "text": piece}
        for citation in block.get("citations") or ():
            yield {"type": "citations_delta", "citation": citation}
    elif kind == "compaction" and "signature" not in block:
        # At a threshold it comes in one delta, on demand whole at its start: .../compaction-threshold
        yield {"type": "compaction_delta", "content": block["content"]}
    elif kind == "thinking":
        for piece in pieces(block["thinking"]):
            yield {"type": "thinking_delta", "thinking": piece}
        if block.get("signature"):
            yield {"type": "signature_delta", "signature": block["signature"]}
    elif kind in {"tool_use", "server_tool_use", "mcp_tool_use"}:
        yield {"type": "input_json_delta", "partial_json": ""}
        for piece in pieces(json.dumps(block["input"])):
            yield {"type": "input_json_delta", "partial_json": piece}
