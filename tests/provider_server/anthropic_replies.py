"""Replies: scripted ones, and the deterministic one that says what the model saw."""

from __future__ import annotations

from typing import Any

from .anthropic_context import characters, last_user_text, output_tokens, redact, seen, sign
from .anthropic_rules import Context
from .worlds import Json, World, asked_call, next_reply, said, tokens_of

FINISH = {
    "stop": "end_turn",
    "length": "max_tokens",
    "content_filter": "refusal",
    "tool_calls": "tool_use",
    "pause": "pause_turn",
}
REASONING = "I look at what I was sent before I answer."


def thinks(thinking: Json | None) -> bool:
    """Whether a request has thinking on."""
    return (thinking or {}).get("type") in {"enabled", "adaptive"}


def make_reply(world: World, context: Context, stop_sequences: list[str] | None = None) -> Json:
    """The next reply: {"content", "stop_reason", "stop_sequence", "stop_details", "usage"}."""
    script = next_reply(world)
    given = script or {}
    if context.max_tokens == 0 and script is None:
        return _finished([], "max_tokens", given)
    if "blocks" in given:
        content = [_signed(block, context.model) for block in given["blocks"]]
    else:
        content = _content(world, context, given)
    content, cut_at = _stopped(content, stop_sequences or [])
    return _finished(content, "stop_sequence" if cut_at else _reason(given, content), given, cut_at)


def _finished(content: list[Json], reason: str, given: Json, cut_at: str | None = None) -> Json:
    details = None
    if reason == "refusal":
        details = {"type": "refusal", "category": given.get("category")}
        details["explanation"] = given.get("refusal")
    thought = sum(characters(b) for b in content if b["type"] == "thinking")
    return {
        "thinking_tokens": tokens_of(thought),
        "content": content,
        "stop_reason": reason,
        "stop_sequence": cut_at,
        "stop_details": details,
        "usage": given.get("usage") or {},
        "output_tokens": output_tokens(content),
    }


def _reason(given: Json, content: list[Json]) -> str:
    if "finish" in given:
        return FINISH.get(given["finish"]) or str(given["finish"])
    if "refusal" in given:
        return "refusal"
    return "tool_use" if any(b["type"] == "tool_use" for b in content) else "end_turn"


def _content(world: World, context: Context, given: Json) -> list[Json]:
    content: list[Json] = []
    reasoning = given.get("reasoning")
    if reasoning is None and world.settings.get("reasoning") and thinks(context.thinking):
        reasoning = REASONING
    if reasoning is not None:
        content.append(_thinking(reasoning, context))
    calls = given.get("tool_calls")
    if calls is None and not given.keys() & {"text", "refusal"}:
        calls = _asked_for(context)
    if "text" in given:
        content += [{"type": "text", "text": given["text"]}] if given["text"] else []
    elif not calls and "refusal" not in given:
        text = said(seen(context.messages), last_user_text(context.messages))
        content.append({"type": "text", "text": text})
    return content + [_call(world, call) for call in calls or ()]


def _thinking(text: str, context: Context) -> Json:
    if (context.thinking or {}).get("display") == "omitted":
        text = ""
    return {"type": "thinking", "thinking": text, "signature": sign(context.model, text)}


def _asked_for(context: Context) -> list[Json]:
    """The tool call which the user asks for in so many words, or which tool_choice forces."""
    names = [tool["name"] for tool in context.tools if "name" in tool]
    choice = context.tool_choice or {"type": "auto"}
    call = asked_call(last_user_text(context.messages))
    if call and call[0] in names and choice["type"] != "none":
        return [{"name": call[0], "arguments": call[1]}]
    if choice["type"] in {"any", "tool"}:
        return [{"name": choice.get("name", names[0]), "arguments": {}}]
    return []


def _call(world: World, call: Json) -> Json:
    arguments: Any = call.get("arguments", {})
    return {
        "type": "tool_use",
        "id": call.get("id") or world.new_id("toolu_"),
        "name": call["name"],
        "input": arguments,
        "caller": {"type": "direct"},
    }


def _signed(block: Json, model: str) -> Json:
    """A raw block, with the signature it lacks."""
    if block["type"] == "thinking" and not block.get("signature"):
        return block | {"signature": sign(model, block["thinking"])}
    if block["type"] == "redacted_thinking" and "." not in block.get("data", ""):
        return block | {"data": redact(model, block.get("data", ""))}
    return block


def _stopped(content: list[Json], sequences: list[str]) -> tuple[list[Json], str | None]:
    """The content up to the first stop sequence in a text."""
    for index, block in enumerate(content):
        found = [s for s in sequences if block["type"] == "text" and s in block["text"]]
        if found:
            first = min(found, key=block["text"].index)
            text = block["text"][: block["text"].index(first)]
            rest = [block | {"text": text}] if text else []
            return content[:index] + rest, first
    return content, None
