"""Replies: scripted ones, and the deterministic one that says what the model saw."""

from __future__ import annotations

from typing import Any

from .anthropic_binding import THINKING, sign_thinking, unseal
from .anthropic_context import characters, last_user_text, output_tokens, seen
from .anthropic_profiles import profile_of
from .anthropic_rules import Context
from .anthropic_table import claude
from .anthropic_turns import remember_reply
from .worlds import Json, World, asked_call, next_reply, said, tokens_of

FINISH = {
    "stop": "end_turn",
    "length": "max_tokens",
    "content_filter": "refusal",
    "tool_calls": "tool_use",
    "pause": "pause_turn",
}
REASONING = "I look at what I was sent before I answer."


def thinks(context: Context) -> bool:
    """Whether a request has thinking on; newer models think unless told otherwise."""
    if context.thinking is None:
        return claude(context.model).thinks_unasked
    return context.thinking.get("type") in {"enabled", "adaptive"}


def make_reply(world: World, context: Context, stop_sequences: list[str] | None = None) -> Json:
    """The next reply: {"content", "stop_reason", "stop_sequence", "stop_details", "usage"}."""
    script = next_reply(world)
    given = script or {}
    if context.max_tokens == 0 and script is None:
        return _finished([], "max_tokens", given)
    blocks = given["blocks"] if "blocks" in given else _content(world, context, given)
    content = _signed(world, context, blocks)
    remember_reply(world, content)
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
        "container": given.get("container"),
    }


def compacted(block: Json, reason: str) -> Json:
    """The reply that is nothing but a compaction."""
    return _finished([block], reason, {})


def _reason(given: Json, content: list[Json]) -> str:
    if "finish" in given:
        return FINISH.get(given["finish"]) or str(given["finish"])
    if "refusal" in given:
        return "refusal"
    return "tool_use" if any(b["type"] == "tool_use" for b in content) else "end_turn"


def _content(world: World, context: Context, given: Json) -> list[Json]:
    content: list[Json] = []
    reasoning = given.get("reasoning")
    if reasoning is None and world.settings.get("reasoning") and thinks(context):
        reasoning = REASONING
    if reasoning is not None:
        content.append({"type": "thinking", "thinking": _displayed(reasoning, context)})
    calls = given.get("tool_calls")
    if calls is None and not given.keys() & {"text", "refusal"}:
        calls = _asked_for(context)
    if "text" in given:
        content += [{"type": "text", "text": given["text"]}] if given["text"] else []
    elif not calls and "refusal" not in given:
        text = said(seen(context.messages), last_user_text(context.messages))
        content.append({"type": "text", "text": text})
    return content + [_call(world, call) for call in calls or ()]


def _displayed(text: str, context: Context) -> str:
    """What is shown of a thought.

    Newer models show nothing unless `display` says so, signed all the same
    (https://platform.claude.com/docs/en/build-with-claude/thinking, "display").
    """
    omitted = "omitted" if claude(context.model).omits else "summarized"
    display = (context.thinking or {}).get("display") or omitted
    return "" if display == "omitted" else text


def _asked_for(context: Context) -> list[Json]:
    """The tool call which the user asks for in so many words, or which tool_choice forces."""
    names = [tool["name"] for tool in context.offered if "name" in tool]
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


def _signed(world: World, context: Context, blocks: list[Json]) -> list[Json]:
    """The blocks of a reply, its thinking signed where a script has not signed it."""
    content: list[Json] = []
    for block in blocks:
        key = "signature" if block["type"] == "thinking" else "data"
        given = str(block.get(key) or "")
        if not profile_of(world).signs:
            block = {name: value for name, value in block.items() if name != "signature"}
        elif block["type"] in THINKING and unseal(given) is None and not given.startswith("raw:"):
            block = block | {key: sign_thinking(world, context.model, context.judged(), content)}
        content.append(block)
    return content


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
