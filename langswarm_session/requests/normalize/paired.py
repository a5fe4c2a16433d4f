"""Calls of a provider's own tools that the user's side answers, and what answers them.

The names and fields are those of the request and response types of OpenAI's SDK
(``openai.types.responses``: ``response_input_item_param`` and ``response_output_item``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from langswarm_session.blocks import Block, OtherBlock, ToolCallBlock, ToolResultBlock


class PairedKind(NamedTuple):
    """How a call of one type is answered.

    Attributes:
        id: The call's field with the id that the answer names.
        answer: The answer's type.
        answer_ids: The answer's fields that may have that id.
    """

    id: str
    answer: str
    answer_ids: tuple[str, ...]


PAIRED: Mapping[str, PairedKind] = {
    "apply_patch_call": PairedKind("call_id", "apply_patch_call_output", ("call_id",)),
    "computer_call": PairedKind("call_id", "computer_call_output", ("call_id",)),
    "local_shell_call": PairedKind("call_id", "local_shell_call_output", ("call_id", "id")),
    "mcp_approval_request": PairedKind("id", "mcp_approval_response", ("approval_request_id",)),
    "shell_call": PairedKind("call_id", "shell_call_output", ("call_id",)),
}
"""By the type of the call."""

Key = tuple[str, str]
"""What a call and its answer have in common: the call's type, empty for a function's, and id."""


def call_key(block: Block, kinds: Mapping[str, PairedKind] = PAIRED) -> Key | None:
    """Return the key of a call; None for a block that is not a call with an id."""
    if isinstance(block, ToolCallBlock):
        return ("", block.id) if block.id else None
    if not isinstance(block, OtherBlock) or block.kind not in kinds:
        return None
    call_id = block.value.get(kinds[block.kind].id)
    return (block.kind, call_id) if isinstance(call_id, str) and call_id else None


def answer_key(block: Block, kinds: Mapping[str, PairedKind] = PAIRED) -> Key | None:
    """Return the key of the call that a block answers; None for what answers none."""
    if isinstance(block, ToolResultBlock):
        return ("", block.tool_call_id) if block.tool_call_id else None
    if not isinstance(block, OtherBlock):
        return None
    for name, kind in kinds.items():
        if kind.answer == block.kind:
            ids = (block.value.get(field) for field in kind.answer_ids)
            call_id = next((each for each in ids if isinstance(each, str) and each), None)
            return None if call_id is None else (name, call_id)
    return None


def answered_keys(blocks: Iterable[Block]) -> set[Key]:
    """Return the keys of the calls that blocks answer."""
    return {key for block in blocks if (key := answer_key(block)) is not None}
