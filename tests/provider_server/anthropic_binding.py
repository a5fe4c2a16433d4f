"""Preserved thinking: what a thinking block is signed over, and what becomes of it when it comes back.

The rules: https://platform.claude.com/docs/en/build-with-claude/preserved-thinking ("What counts as
an edit", the two entries of `input_transformations`, the text of the error), .../prefix-checks, and
https://platform.claude.com/docs/en/build-with-claude/compaction-thinking-blocks (kept turns).

- A block is signed over `system`, the tools that are not deferred, and all that was said before it,
  but for `cache_control` and earlier thinking. Its shown text is not signed, so an edit of that is
  accepted (the probe of https://github.com/tdavison784/context-runtime, R3).
- It names the thinking block before it: one that is missing in between fails those behind it, a
  missing beginning fails none. A block that the model may not read keeps its place in that chain.
- `error` is a 400 at the first that fails; `drop_block` takes it and the rest of that turn's.
- For an account from before 2026-08-31 it passes unless the request sets the field, and is listed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import Any

from .anthropic_context import SECRET, blocks_of, digest, without_cache_control
from .anthropic_errors import Refusal
from .anthropic_table import EVERY, claude, reads
from .worlds import Json, World

THINKING = {"thinking", "redacted_thinking"}
BETA = "thinking-binding-controls-2026-08-01"
MARK = "Epreserved"
PREFIX_REASON = "prefix_binding_mismatch"


def seal(content: Json) -> str:
    """A signature that tells the server what it holds."""
    text = base64.urlsafe_b64encode(json.dumps(content, sort_keys=True).encode()).decode()
    mac = hmac.new(SECRET, text.encode(), hashlib.sha256).hexdigest()[:32]
    return f"{MARK}.{text}.{mac}"


def unseal(signature: str) -> Json | None:
    """What `seal` has sealed; None for anything else."""
    mark, _, rest = signature.partition(".")
    text, _, mac = rest.partition(".")
    right = hmac.new(SECRET, text.encode(), hashlib.sha256).hexdigest()[:32]
    if mark != MARK or not hmac.compare_digest(mac.encode(), right.encode()):
        return None
    content: Json = json.loads(base64.urlsafe_b64decode(text))
    return content


def seal_of(block: Json) -> Json | None:
    """What a thinking block's signature holds."""
    return unseal(str(block.get("signature") or block.get("data") or ""))


def comparable(block: Json) -> Json:
    """A block without its cache marks and what is as if it were not there."""
    bare: Json = without_cache_control(block)
    if bare.get("caller") == {"type": "direct"}:
        del bare["caller"]
    if bare.get("type") == "tool_result" and isinstance(bare.get("content"), str):
        bare["content"] = blocks_of(bare["content"])
    return {key: value for key, value in bare.items() if value is not None and value is not False}


@dataclass
class Prefix:
    """The digests of what stands before a place: one, or more behind a compaction."""

    frame: str
    states: list[str] = field(default_factory=list)
    parts: list[tuple[str, str]] = field(default_factory=list)
    """Each part's place in the request and its digest, to name the first that differs."""

    def add(self, role: str, part: Any, place: str) -> None:
        """Put a part behind what is there."""
        name = digest(role, part)
        self.states = [digest(state, name) for state in self.states]
        self.parts.append((place, name))


def frame_of(system: Any, tools: list[Json]) -> str:
    """The digest of what stands before the messages; deferred tools do not count."""
    texts = [comparable(block) for block in blocks_of(system)] if system else []
    shown = [without_cache_control(tool) for tool in tools if not tool.get("defer_loading")]
    return digest(texts, shown)


@dataclass
class Outcome:
    """What the check of a request has found, and what the model's next thinking is signed over."""

    prefix: Prefix
    dropped: list[tuple[int, int, str]] = field(default_factory=list)
    """Blocks that the model is not shown: message, block, reason."""
    allowed: list[tuple[int, int]] = field(default_factory=list)
    last: str | None = None
    """The thinking block that the next one follows."""

    def transformations(self) -> list[Json]:
        """The reply's `input_transformations`, in the request's order."""
        found = [(m, b, "thinking_dropped", why) for m, b, why in self.dropped]
        found += [(m, b, "thinking_mismatch_allowed", PREFIX_REASON) for m, b in self.allowed]
        return [
            {"type": kind, "path": f"messages.{m}.content.{b}", "reason": why}
            for m, b, kind, why in sorted(found)
        ]

    def begin_at(self, block: Json, place: str) -> None:
        """Begin at a compaction: behind the block, or behind what the API wrote it for."""
        held = unseal(block.get("signature") or "") or {}
        frame = self.prefix.frame
        self.prefix = Prefix(frame, [digest(frame)])
        self.prefix.add("assistant", comparable(block), place)
        if held.get("binds") and held["frame"] == frame:
            self.prefix.states += held["states"]
        self.last = held.get("last")


def organization_of(world: World) -> str:
    """The organization of the account (setting `organization`)."""
    return str(world.settings.get("organization", "org_1"))


def check_controls(thinking: Json | None, betas: set[str]) -> None:
    """Refuse the controls of a request that does not ask for their beta."""
    if isinstance(thinking, dict) and "block_binding" in thinking and BETA not in betas:
        kind = thinking.get("type", "adaptive")
        raise Refusal(f"thinking.{kind}.block_binding: Extra inputs are not permitted")


def behaviour(world: World, model: str, thinking: Json | None) -> str:
    """What a failing block leads to: "error", "drop_block", "allow", or "none" where none fails."""
    binding = (thinking or {}).get("block_binding")
    row = claude(model)
    if not row.binds:
        return "none"
    asked = (binding or {}).get("prefix_mismatch_behavior")
    if asked:
        return str(asked)
    old = world.settings.get("account", "new") == "old"
    return "allow" if old and row.checks != EVERY else "error"


@dataclass
class Check:
    """One walk over a request's messages."""

    world: World
    model: str
    betas: set[str]
    act: str
    outcome: Outcome
    failed_turn: int | None = None
    """The message of which the rest of the thinking is dropped."""
    started: bool = False
    """Whether a thinking block stands before this place, so that the next must follow it."""

    def see(self, index: int, number: int, block: Json) -> None:
        """Judge one thinking block at its place."""
        held = seal_of(block)
        if held is None:
            raise Refusal(self._sentence(index, number, block))
        outcome = self.outcome
        bound = claude(held["model"]).version >= (5, 1)
        if bound and held["org"] != organization_of(self.world):
            outcome.dropped.append((index, number, "organization_binding_mismatch"))
        elif not reads(self.model, held["model"]):
            outcome.dropped.append((index, number, "model_binding_mismatch"))
        elif self.failed_turn == index or not self._valid(held):
            if self.act == "error":
                raise Refusal(self._mismatch(index, number, block, held))
            if self.act == "drop_block":
                outcome.dropped.append((index, number, PREFIX_REASON))
                self.failed_turn = index
                return
            outcome.allowed.append((index, number))
        outcome.last, self.started = held["id"], True

    def _valid(self, held: Json) -> bool:
        """Whether a block stands behind what it was made behind."""
        if self.act == "none":
            return True
        follows = held["before"] == self.outcome.last or not self.started
        return follows and held["prefix"] in self.outcome.prefix.states

    def _sentence(self, index: int, number: int, block: Json) -> str:
        name = "signature" if block["type"] == "thinking" else "data"
        return f"messages.{index}.content.{number}: Invalid `{name}` in `{block['type']}` block"

    def _mismatch(self, index: int, number: int, block: Json, held: Json) -> str:
        """The vendor's sentences, in the order in which they were captured."""
        text = (
            f"{self._sentence(index, number, block)}. The block is bound to a different "
            "conversation. Remove the block, or set "
            '`thinking.block_binding.prefix_mismatch_behavior` to "drop_block".'
        )
        if BETA not in self.betas:
            text += f" That setting requires the `{BETA}` value in the `anthropic-beta` header."
        if held["frame"] != self.outcome.prefix.frame:
            return f"{text} The `system` prompt or `tools` differ from when it was created."
        then: list[str] = self.world.anthropic["made_behind"].get(held["id"], [])
        now = self.outcome.prefix.parts
        changed = [at for (at, name), old in zip(now, then, strict=False) if name != old]
        where = f", first at `{changed[0]}`" if changed else ""
        return f"{text} Content before this block differs from when it was created{where}."

    def walk(self, index: int, message: Json) -> None:
        """Judge one message, and put it behind the prefix."""
        role = message["role"]
        for number, block in enumerate(blocks_of(message.get("content"))):
            place = f"messages.{index}.content.{number}"
            if block["type"] in THINKING:
                self.see(index, number, block)
            elif block["type"] == "compaction":
                self.outcome.begin_at(block, place)
                self.started = False
            else:
                self.outcome.prefix.add(role, comparable(block), place)
        rest = {key: value for key, value in message.items() if key not in {"role", "content"}}
        if rest:
            self.outcome.prefix.add(role, rest, f"messages.{index}")


def new_outcome(system: Any, tools: list[Json]) -> Outcome:
    """The outcome of a request without messages."""
    frame = frame_of(system, tools)
    return Outcome(Prefix(frame, [digest(frame)]))


def check_binding(world: World, model: str, outcome: Outcome, messages: list[Json],
                  thinking: Json | None, betas: set[str]) -> None:  # fmt: skip
    """Judge every thinking block of a request."""
    world.anthropic.setdefault("made_behind", {})
    check = Check(world, model, betas, behaviour(world, model, thinking), outcome)
    for index, message in enumerate(messages):
        check.walk(index, message)


def sign_thinking(world: World, model: str, outcome: Outcome, before: list[Json]) -> str:
    """Sign a thinking block that comes behind these blocks of the reply."""
    prefix = Prefix(outcome.prefix.frame, outcome.prefix.states[:1], list(outcome.prefix.parts))
    for block in before:
        if block["type"] not in THINKING:
            prefix.add("assistant", comparable(block), "")
    name = f"thinking_{digest(model, prefix.states, outcome.last)[:24]}"
    made: dict[str, list[str]] = world.anthropic.setdefault("made_behind", {})
    made[name] = [part for _, part in prefix.parts]
    held = {"id": name, "model": model, "org": organization_of(world), "before": outcome.last}
    outcome.last = name
    return seal(held | {"frame": prefix.frame, "prefix": prefix.states[0]})


def seal_compaction(model: str, outcome: Outcome, summary: str) -> str:
    """The signature of the block that stands for all that the outcome has seen."""
    held = {"summary": digest(summary), "binds": claude(model).binds, "last": outcome.last}
    return seal(held | {"frame": outcome.prefix.frame, "states": outcome.prefix.states})


def sign(model: str, text: str) -> str:
    """A signature of thinking that stands behind nothing, for tests without a server."""
    held = {"id": f"thinking_{digest(text)[:24]}", "model": model, "org": "org_1", "before": None}
    return seal(held | {"frame": "", "prefix": ""})


def redact(model: str, text: str) -> str:
    """The data of a redacted block, alike."""
    return sign(model, text)
