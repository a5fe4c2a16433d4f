"""How much of a request the next one begins with, part by part."""

from __future__ import annotations

import json
from typing import Any

ASIDE = {"cache_control", "id", "status", "prompt_cache_breakpoint"}
"""What may differ in a part: cache marks, and the ids of items (calls keep their `call_id`)."""


def bare(value: Any) -> Any:
    """A part without what may differ; a text as its one block."""
    if isinstance(value, list):
        return [bare(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {key: bare(one) for key, one in value.items() if key not in ASIDE}
    if value.get("type") in {"tool_use", "server_tool_use"}:
        kept |= {"id": value.get("id"), "input": value.get("input")}
    return kept


def blocks(content: Any) -> list[Any]:
    """Content as blocks."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return list(content or [None])


def parts(body: dict[str, Any]) -> list[str]:
    """The parts of a request, in the order in which a model reads them, each as one text."""
    found = [["tool", tool] for tool in body.get("tools") or ()]
    found += [["system", block] for block in blocks(body.get("system") or body.get("instructions"))]
    messages = body.get("messages", body.get("input"))
    messages = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    for message in messages or ():
        rest = {key: value for key, value in message.items() if key != "content"}
        if "role" in message:
            found += [[rest, block] for block in blocks(message.get("content"))]
        else:
            found.append([message])
    return [json.dumps(bare(part), sort_keys=True) for part in found]


def share(before: dict[str, Any], after: dict[str, Any]) -> float:
    """How much of the first request's parts the second begins with."""
    one, other = parts(before), parts(after)
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return same / len(one) if one else 1.0
