"""Which items of OpenAI's Responses API are calls, and what of an item may be sent back.

The fields are those of the SDK's ``openai/types/responses/response_input_item_param.py``, made from
the vendor's OpenAPI description.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Item = dict[str, Any]

USER_BLOCKS: dict[str, dict[str, type]] = {
    "mcp_approval_response": {"approval_request_id": str, "approve": bool},
    "computer_call_output": {"call_id": str, "output": dict},
    "local_shell_call_output": {"output": str},
    "shell_call_output": {"call_id": str, "output": list},
    "apply_patch_call_output": {"call_id": str, "status": str},
    "compaction": {"id": str, "encrypted_content": str},
}
"""The items that answer what hosted tools ask of a user, with their required fields; and what a
compaction of the Agents SDK left of a conversation."""

_IDS = {
    "message": re.compile(r"msg_[A-Za-z0-9_-]{1,60}"),
    "function_call": re.compile(r"fc_[A-Za-z0-9_-]{1,61}"),
    "custom_tool_call": re.compile(r"ctc_[A-Za-z0-9_-]{1,60}"),
}
"""What ids of items look like that need none. Another server's id, sent to OpenAI, is refused for
good: https://github.com/can1357/oh-my-pi/issues/977, and an empty one as well:
https://github.com/langchain-ai/langchainjs/issues/11044."""

_OUTPUT_ONLY = ("created_by", "logprobs")
"""Fields of items and their parts that servers show, and refuse when they are sent back.

``created_by`` is in no input type of the SDK. ``status`` is where the type requires it, and
refused elsewhere: https://github.com/can1357/oh-my-pi/pull/10415,
https://github.com/digitallyinduced/haskell-agent/pull/689.
"""

_WITH_STATUS = frozenset(
    (
        "message",
        "apply_patch_call",
        "apply_patch_call_output",
        "code_interpreter_call",
        "computer_call",
        "file_search_call",
        "image_generation_call",
        "local_shell_call",
        "program_output",
        "web_search_call",
    )
)

_MAY_BE_NULL = ("result",)
"""Fields that must be sent also where they are null: a picture that was not made has no result."""


_NOT_KEPT = frozenset(
    (
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "item_reference",
        "compaction_trigger",
    )
)
"""Types of items that are not kept as they came: they have blocks, or are in no reply."""


def as_input(item: Mapping[str, Any]) -> Item:
    """Return an item of a reply as it may be sent back: without what only servers say."""
    kind = item.get("type", "message")
    sent = {
        name: value
        for name, value in item.items()
        if (value is not None or name in _MAY_BE_NULL)
        and name not in _OUTPUT_ONLY
        and (name != "status" or kind in _WITH_STATUS)
    }
    for name in ("content", "output"):
        if isinstance(sent.get(name), list):
            sent[name] = [_part_as_input(part) for part in sent[name]]
    if not is_good_id(str(kind), sent.get("id")):
        sent.pop("id", None)
    if kind == "message" and item.get("role") == "assistant":
        sent |= {"type": "message", "status": "completed"}
    elif kind == "message":
        # A user's message in a compaction has an id, which no input type of the SDK has
        # (``response_input_item_param.Message``).
        sent.pop("id", None)
    return sent


def is_good_id(kind: str, item_id: object) -> bool:
    """Return whether an item's id may be sent with it; always true where the item must have one."""
    form = _IDS.get(kind)
    return form is None or (isinstance(item_id, str) and form.fullmatch(item_id) is not None)


def _part_as_input(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    return {name: value for name, value in part.items() if name not in _OUTPUT_ONLY}


def can_be_input(item: Mapping[str, Any]) -> bool:
    """Return whether an item that is kept as it came can go back to the server that gave it."""
    kind, item_id = item.get("type"), item.get("id")
    return (
        isinstance(kind, str)
        and bool(kind)
        and kind not in _NOT_KEPT
        and isinstance(item_id, str)
        and bool(item_id)
    )
