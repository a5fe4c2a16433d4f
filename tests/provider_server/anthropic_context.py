"""What a request gives the model to see: texts, characters, signatures. Pure functions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from .worlds import Json, tokens_of

SECRET = b"the stand-in server's own secret, the same in every process"
MEDIA_CHARACTERS = 6000
PRIVATE_KEYS = {"type", "cache_control", "id", "tool_use_id", "signature", "caller", "citations"}


def blocks_of(content: Any) -> list[Json]:
    """The content as blocks, without cache_control at their top."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [dict(block) for block in content or ()]


def without_cache_control(value: Any) -> Any:
    """A copy without any cache_control, a tool's own input left as it is."""
    if isinstance(value, dict):
        return {
            key: item if key == "input" else without_cache_control(item)
            for key, item in value.items()
            if key != "cache_control"
        }
    if isinstance(value, list):
        return [without_cache_control(item) for item in value]
    return value


def normal(message: Json) -> Json:
    """The message as it is kept and compared: blocks, no cache_control."""
    blocks = without_cache_control(blocks_of(message.get("content")))
    kept = {key: value for key, value in message.items() if key != "content"}
    return kept | {"content": blocks}


def text_of(block: Json) -> str:
    """The text of a text or tool_result block, empty for others."""
    if block.get("type") == "text":
        return str(block["text"])
    if block.get("type") == "tool_result":
        return "".join(text_of(inner) for inner in blocks_of(block.get("content")))
    return ""


def last_user_text(messages: list[Json]) -> str:
    """The last text or tool result of the last user message."""
    users = [message for message in messages if message["role"] == "user"]
    blocks = blocks_of(users[-1]["content"]) if users else []
    texts = [text_of(b) for b in blocks if b.get("type") in {"text", "tool_result"}]
    return texts[-1] if texts else ""


def seen(messages: list[Json]) -> int:
    """How many user and assistant messages there are."""
    return sum(message["role"] in {"user", "assistant"} for message in messages)


def characters(value: Any) -> int:
    """The characters of a block or message that the model reads; media count a flat number."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(characters(item) for item in value)
    if not isinstance(value, dict):
        return 0
    if value.get("type") in {"image", "document"} and "source" in value:
        source = value["source"]
        plain = source.get("data", "") if source.get("type") == "text" else None
        return len(plain) if plain is not None else MEDIA_CHARACTERS
    if value.get("type") in {"tool_use", "server_tool_use", "mcp_tool_use"}:
        return len(value["name"]) + len(json.dumps(value["input"], separators=(",", ":")))
    return sum(characters(item) for key, item in value.items() if key not in PRIVATE_KEYS)


def frame_characters(system: Any, tools: Any) -> int:
    """The characters of what stands before the messages."""
    count = sum(characters(block) for block in blocks_of(system)) if system else 0
    tools = without_cache_control(list(tools or ()))
    return count + sum(len(json.dumps(tool, separators=(",", ":"))) for tool in tools)


def input_tokens(system: Any, tools: Any, messages: list[Json]) -> int:
    """The tokens of a whole context."""
    inside = sum(characters(blocks_of(message.get("content"))) for message in messages)
    return tokens_of(frame_characters(system, tools) + inside)


def output_tokens(content: list[Json]) -> int:
    """The tokens of a reply, at least one."""
    return max(1, tokens_of(characters(content)))


def digest(*parts: Any) -> str:
    """A short name for a value."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def explicit_breakpoints(value: Any) -> Iterator[Json]:
    """Every cache_control within a value, however deep."""
    if isinstance(value, dict):
        if value.get("cache_control"):
            yield value["cache_control"]
        for key, item in value.items():
            if key not in {"input", "input_schema", "cache_control"}:
                yield from explicit_breakpoints(item)
    elif isinstance(value, list):
        for item in value:
            yield from explicit_breakpoints(item)
