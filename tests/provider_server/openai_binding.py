"""Reasoning items and what stands before them: the newest models drop those behind a change.

https://developers.openai.com/api/docs/guides/keep-prefix-unchanged: `tools`, `text.format`, and every
earlier item count (before GPT-6.2 also `instructions`, which are for one turn and go behind the input
since then); a `configuration_update`, `additional_tools` or developer message that is appended is
no change; reasoning behind OpenAI's own compaction stays. What is dropped is in the response's
`input_transformations` (the SDK's `Response.input_transformations`: its ids and reasons). From which
model on: https://dev.to/aihubmix/gpt-62-drops-reasoning-on-prefix-edits-migrate-without-breaking-the-chain-18a7.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from .openai_items import sealed, unsealed
from .worlds import Json, World

VERSION = re.compile(r"gpt-(\d+)(?:[.-](\d+)(?!\d))?")
NOT_COMPARED = {"id", "status", "created_by", "logprobs", "annotations", "phase"}


def version_of(model: str) -> tuple[int, int]:
    """A model's version by its name, (0, 0) where it tells none."""
    match = VERSION.match(model)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)


def binds(model: str) -> bool:
    """Whether a model drops reasoning behind a changed prefix."""
    return version_of(model) >= (6, 2)


def digest(*parts: Any) -> str:
    """A short name for a value."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def comparable(value: Any) -> Any:
    """An item as it is compared: without ids and states, a text as its one part."""
    if isinstance(value, list):
        return [comparable(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {k: comparable(v) for k, v in value.items() if k not in NOT_COMPARED and v is not None}
    content = kept.get("content")
    if isinstance(content, str):
        kind = "output_text" if kept.get("role") == "assistant" else "input_text"
        kept["content"] = [{"type": kind, "text": content}]
    if kept.get("type") == "input_image" and kept.get("detail") == "auto":
        del kept["detail"]
    return kept


@dataclass
class Outcome:
    """What is left of a context, what was dropped, and what is thought next is bound to."""

    state: str
    compaction: str | None = None
    context: list[Json] = field(default_factory=list)
    removed: list[Json] = field(default_factory=list)

    def add(self, item: Json) -> None:
        """Put an item behind the prefix; a compaction begins it."""
        if item["type"] == "compaction":
            self.compaction = self.state = digest(item.get("encrypted_content"))
        else:
            self.state = digest(self.state, comparable(item))


def frame_of(body: Json) -> str:
    """What stands before the items."""
    head = [body.get("tools") or [], (body.get("text") or {}).get("format")]
    if not binds(body["model"]):
        head.append(body.get("instructions"))
    return digest(head)


def organization_of(world: World) -> str:
    """The organization of the account (setting `organization`)."""
    return str(world.settings.get("organization", "org_1"))


def check_reasoning(world: World, body: Json, context: list[Json]) -> Outcome:
    """Drop the reasoning that the model may not have."""
    outcome = Outcome(frame_of(body))
    for item in context:
        if item["type"] != "reasoning":
            outcome.add(item)
        elif binds(body["model"]):
            reason = _reason(world, body["model"], outcome, item)
            if reason:
                removed = {"type": "reasoning", "id": item["id"], "action": "removed"}
                outcome.removed.append(removed | {"reason": reason})
                continue
        outcome.context.append(item)
    return outcome


def _reason(world: World, model: str, outcome: Outcome, item: Json) -> str | None:
    """Why an item is dropped; None where it is not."""
    held = unsealed(item.get("encrypted_content") or "")
    if not held:
        return None
    if held.get("org", organization_of(world)) != organization_of(world):
        return "organization_mismatch"
    if held.get("model") != model and version_of(held.get("model", "")) >= version_of(model):
        return "model_mismatch"
    if "prefix" not in held or held.get("compaction") != outcome.compaction:
        return None
    return None if held["prefix"] == outcome.state else "prefix_mismatch"


def seal_reasoning(world: World, model: str, outcome: Outcome, id_: str, text: str) -> str:
    """The encrypted content of a reasoning item at this place."""
    held = {"model": model, "id": id_, "text": text}
    if binds(model):
        held |= {"org": organization_of(world), "prefix": outcome.state}
        held |= {"compaction": outcome.compaction or ""}
        if outcome.compaction is None:
            del held["compaction"]
    return sealed(**held)
