"""The model: what it answers, as output items, and what that costs."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .openai_binding import Outcome, seal_reasoning
from .openai_context import seen_by_model
from .openai_items import PREFIXES, characters_of, sealed
from .worlds import Json, World, asked_call, next_reply, said, tokens_of


@dataclass
class Answer:
    """What the model says, before it is put into the form of either API."""

    text: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[Json] = field(default_factory=list)
    items: list[Json] = field(default_factory=list)
    finish: str = "stop"
    usage: Json = field(default_factory=dict)
    error: Json | None = None
    message: Json = field(default_factory=dict)
    """A whole message of chat, as a script gives it."""
    deltas: list[Json] = field(default_factory=list)
    """The pieces of a streamed one."""


def answer_of(
    world: World, model: str, context: list[Json], names: set[str], limit: int | None
) -> Answer:
    """The scripted answer, or the one that says what the model saw."""
    script = next_reply(world) or {}
    answer = Answer(
        text=script.get("text"),
        reasoning=script.get("reasoning"),
        refusal=script.get("refusal"),
        tool_calls=[as_call(world, call) for call in script.get("tool_calls", ())],
        items=copy.deepcopy(script.get("items", [])),
        finish=script.get("finish", "stop"),
        usage=script.get("usage", {}),
        error=script.get("error"),
        message=copy.deepcopy(script.get("message", {})),
        deltas=copy.deepcopy(script.get("deltas", [])),
    )
    if answer.finish == "refusal" and answer.refusal is None:
        answer.refusal = "I'm sorry, but I can't help with that."
    count, last, is_user = seen_by_model(context)
    raw = answer.message or answer.deltas
    if not (answer.text or answer.refusal or answer.tool_calls or answer.items or raw):
        call = asked_call(last) if is_user else None
        if call and call[0] in names:
            made = {"name": call[0], "arguments": call[1]}
            answer.tool_calls = [as_call(world, made)]
        elif answer.text is None:
            answer.text = said(count, last)
    if world.settings.get("reasoning") and answer.reasoning is None:
        answer.reasoning = f"Thinking about: {last}"
    if model.startswith("noreason"):
        answer.reasoning = None
    if limit is not None and answer.text and tokens_of(len(answer.text)) > limit:
        answer.text, answer.finish = answer.text[: 4 * limit], "length"
    return answer


def as_call(world: World, call: Json) -> Json:
    """A tool call with an id, its arguments as the JSON text of the vendor."""
    arguments = call.get("arguments", {})
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    id_ = call.get("id") or world.new_id("call_")
    return {"id": id_, "name": call["name"], "arguments": text}


def output_items(world: World, answer: Answer, model: str, outcome: Outcome) -> list[Json]:
    """The answer as output items, in the order in which they come; reasoning is sealed."""
    items = list(_items(world, answer))
    for item in items:
        if item["type"] != "reasoning":
            outcome.add(item)
        elif not item.get("encrypted_content"):
            text = "".join(part["text"] for part in item["summary"])
            item["encrypted_content"] = seal_reasoning(world, model, outcome, item["id"], text)
    return items


def _items(world: World, answer: Answer) -> Iterator[Json]:
    """The output items."""
    status = "incomplete" if answer.finish in {"length", "content_filter"} else "completed"
    if answer.reasoning is not None:
        summary = [{"type": "summary_text", "text": answer.reasoning}]
        yield {"id": world.new_id("rs_"), "type": "reasoning", "summary": summary}
    for raw in answer.items:
        raw.setdefault("id", world.new_id(f"{PREFIXES.get(raw['type'], 'item')}_"))
        yield raw
    parts: list[Json] = []
    if answer.text is not None and (answer.text or not answer.tool_calls):
        part: Json = {"type": "output_text", "text": answer.text}
        parts.append(part | {"annotations": [], "logprobs": []})
    if answer.refusal is not None:
        parts.append({"type": "refusal", "refusal": answer.refusal})
    if parts:
        message = {"id": world.new_id("msg_"), "type": "message", "role": "assistant"}
        yield message | {"status": status, "content": parts}
    for call in answer.tool_calls:
        item = {"id": world.new_id("fc_"), "type": "function_call", "call_id": call["id"]}
        item |= {"name": call["name"], "arguments": call["arguments"]}
        yield item | {"status": "completed"}


def compaction_item(world: World, context: list[Json], model: str) -> Json:
    """A compaction of this context."""
    count, last, _ = seen_by_model(context)
    summary = f"{count} messages, the last: {last[:40]}"
    content = sealed(model=model, summary=summary)
    return {"id": world.new_id("cmp_"), "type": "compaction", "encrypted_content": content}


def merged(usage: Json, scripted: Json) -> Json:
    """The usage, with what a script says of it."""
    result: Json = dict(usage)
    for key, value in scripted.items():
        old: Any = result.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[key] = merged(old, value) if both else value
    return result


def output_tokens(items: list[Json]) -> tuple[int, int]:
    """Output tokens, and how many of them are reasoning."""
    thought = sum(characters_of(item) for item in items if item["type"] == "reasoning")
    rest = sum(characters_of(item) for item in items if item["type"] != "reasoning")
    reasoning = tokens_of(thought)
    return tokens_of(rest) + reasoning, reasoning
