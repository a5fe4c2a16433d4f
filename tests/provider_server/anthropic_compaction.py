"""Compaction by the API: on demand (a signed block), and at a threshold (an unsigned one).

https://platform.claude.com/docs/en/build-with-claude/compaction-on-demand, .../compaction-threshold;
the sentences of the errors were captured by probes: P1-P13 of the specification S13 in
https://github.com/search?q=S13+%22Context+management%22+claudio, and D02-V11 (`error_code`s).
"""

from __future__ import annotations

from .anthropic_binding import Outcome, seal_compaction, unseal
from .anthropic_context import blocks_of, digest, last_user_text, seen
from .anthropic_errors import Refusal
from .anthropic_table import claude
from .worlds import Json

ON_DEMAND = "compact-2026-09-04"
AT_THRESHOLD = "compact-2026-01-12"
EDITING = "context-management-2025-06-27"
EDIT = "compact_20260112"
LEAST_TRIGGER = 50_000
TRIGGER = 150_000


def edits_of(body: Json) -> list[Json]:
    """The edits of the request's context management."""
    return list((body.get("context_management") or {}).get("edits") or [])


def check_fields(body: Json, betas: set[str]) -> None:
    """Refuse `compaction` and `context_management` where they are not known, or not together."""
    edits = edits_of(body)
    if body.get("compaction") is not None:
        _check_on_demand(body, betas)
    if body.get("context_management") is not None and not betas & {EDITING, AT_THRESHOLD}:
        raise Refusal("context_management: Extra inputs are not permitted")
    for number, edit in enumerate(edits):
        if edit["type"] == EDIT and AT_THRESHOLD not in betas:
            raise Refusal(
                f"context_management.edits.{number}: Input tag '{EDIT}' found using 'type' does "
                "not match any of the expected tags: 'clear_thinking_20251015', "
                "'clear_tool_uses_20250919'"
            )
        if edit["type"] == "clear_thinking_20251015" and number:
            raise Refusal(
                "context_management: `clear_thinking_20251015` must be the first strategy in "
                "`context_management.edits` when provided"
            )
        trigger = (edit.get("trigger") or {}).get("value", LEAST_TRIGGER)
        if edit["type"] == EDIT and trigger < LEAST_TRIGGER:
            raise Refusal(
                f"context_management.edits.{number}.{EDIT}: trigger.value must be at least "
                f"{LEAST_TRIGGER}"
            )


def _check_on_demand(body: Json, betas: set[str]) -> None:
    if ON_DEMAND not in betas:
        raise Refusal("compaction: Extra inputs are not permitted")
    if not claude(body["model"]).compacts:
        raise Refusal("compaction: not supported on this model")
    output = body.get("output_config") or {}
    budget = output.get("task_budget") or {}
    forced = (body.get("tool_choice") or {}).get("type") in {"any", "tool"}
    beside = {
        "context_management": body.get("context_management") is not None,
        "stop_sequences": bool(body.get("stop_sequences")),
        "output_config.format": output.get("format") is not None,
        "output_config.task_budget.remaining": budget.get("remaining") is not None,
        "tool_choice": forced,
    }
    for name in (name for name, given in beside.items() if given):
        raise Refusal(f"compaction: cannot be combined with `{name}`")


def check_blocks(messages: list[Json], body: Json, betas: set[str]) -> None:
    """Refuse compaction blocks that are not first, not as they came, or not known."""
    found = [
        (index, number, block)
        for index, message in enumerate(messages)
        for number, block in enumerate(blocks_of(message.get("content")))
        if block["type"] == "compaction"
    ]
    for index, number, block in found:
        if block.get("signature") is None:
            _check_unsigned(block, f"messages.{index}.content.{number}", body, betas)
    signed = [one for one in found if one[2].get("signature") is not None]
    if len(signed) > 1:
        raise Refusal("messages: at most one signed `compaction` block may be sent")
    for index, number, block in signed:
        _check_signed(index, number, block, betas)


def _check_unsigned(block: Json, at: str, body: Json, betas: set[str]) -> None:
    if not betas & {ON_DEMAND, AT_THRESHOLD}:
        raise Refusal(f"{at}: Input tag 'compaction' found using 'type' does not match any of the "
                      "expected tags")  # fmt: skip
    if AT_THRESHOLD not in betas and block.get("content") is not None:
        raise Refusal(f"{at}: a `compaction` block with `content` requires its `signature`")
    if not any(edit["type"] == EDIT for edit in edits_of(body)):
        raise Refusal(
            f"`compaction` blocks require a `{EDIT}` strategy in `context_management.edits`."
        )


def _check_signed(index: int, number: int, block: Json, betas: set[str]) -> None:
    at = f"messages.{index}.content.{number}"
    if ON_DEMAND not in betas:
        raise Refusal(f"{at}: `signature` requires anthropic-beta: {ON_DEMAND}")
    if (index, number) != (0, 0):
        raise _coded(
            "compaction_block_misplaced",
            f"{at}: `compaction` block must be sent first, in place of the messages it "
            "summarizes; remove those messages",
        )
    held = unseal(block["signature"])
    if held is None or "summary" not in held:
        raise _coded("compaction_signature_invalid", f"{at}: invalid `signature`")
    if held["summary"] != digest(block.get("content")):
        raise _coded("compaction_content_mismatch", f"{at}: `content` differs from what was signed")


def _coded(code: str, message: str) -> Refusal:
    return Refusal(message, details={"error_code": code})


def summary_of(messages: list[Json]) -> str:
    """What a compaction says here."""
    return f"Summary of {seen(messages)} messages, the last: {last_user_text(messages)[:80]}"


def compaction_block(model: str, messages: list[Json], outcome: Outcome) -> Json:
    """The signed block that stands for these messages."""
    text = summary_of(messages)
    signature = seal_compaction(model, outcome, text)
    return {"type": "compaction", "content": text, "signature": signature}


def visible(messages: list[Json]) -> list[Json]:
    """The messages from the newest compaction on: what is before it is not shown to the model."""
    for index in range(len(messages) - 1, -1, -1):
        blocks = blocks_of(messages[index].get("content"))
        places = [n for n, block in enumerate(blocks) if block["type"] == "compaction"]
        if places:
            return [messages[index] | {"content": blocks[places[-1] :]}, *messages[index + 1 :]]
    return messages


def threshold_passed(body: Json, tokens: int) -> bool:
    """Whether the request asks for a compaction at fewer tokens than it has."""
    for edit in edits_of(body):
        if edit["type"] == EDIT:
            return tokens >= (edit.get("trigger") or {}).get("value", TRIGGER)
    return False
