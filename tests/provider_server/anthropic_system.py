"""`role: "system"` within `messages`: where it may stand and what it may carry.

All of it, sentences of the errors included, from
https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages; the two about
the place were captured in https://github.com/router-for-me/CLIProxyAPI and in a proxy's tests
(`role 'system' must precede an 'assistant' message or end the array; ...`).
"""

from __future__ import annotations

from collections.abc import Iterator

from .anthropic_context import blocks_of, explicit_breakpoints
from .anthropic_errors import Refusal
from .anthropic_table import claude
from .worlds import Json

CLEAR_AT = "mid-conversation-system-clear-at-2026-08-21"
TOOL_CHANGES = "mid-conversation-tool-changes-2026-07-01"
INLINE_TOOLS = "inline-tools-2026-09-15"
OUTPUT_CONFIG = "mid-conversation-output-config-2026-07-01"
CHANGES = {"tool_addition", "tool_removal"}
DIRECTIVE = "the directive-only form (content: [] with output_config) is accepted at any position"


def is_directive(message: Json) -> bool:
    """Whether a system message says nothing and only sets the effort."""
    return not message.get("content") and bool(message.get("output_config"))


def check_system_messages(messages: list[Json], model: str, stored: int) -> None:
    """Refuse what is wrong with the system messages among these."""
    for index, message in enumerate(messages):
        if message["role"] != "system":
            if message.get("clear_at") is not None:
                at = f"messages.{index - stored}.clear_at"
                raise Refusal(f"{at}: clear_at is only permitted on role 'system' messages")
            continue
        at = f"messages.{index - stored}"
        if not claude(model).system:
            raise Refusal("role 'system' is not supported on this model")
        _check_model(message, model, at)
        if index == 0 and not is_directive(message):
            raise Refusal(
                f"{at}: use the top-level 'system' parameter for the initial system prompt"
            )
        _check_turn_scoped(message, at)
        if not message.get("content") and not message.get("output_config"):
            raise Refusal(f"{at}: system content must contain at least one block")
    _check_places(messages, stored)


def check_betas(messages: list[Json], betas: set[str]) -> None:
    """Refuse what a request's betas do not know, before its shape is checked."""
    for index, message in enumerate(messages):
        at = f"messages.{index}"
        if not isinstance(message, dict) or message.get("role") != "system":
            continue
        if message.get("clear_at") is not None and CLEAR_AT not in betas:
            raise Refusal(f"{at}.clear_at: Extra inputs are not permitted")
        if message.get("output_config") is not None and OUTPUT_CONFIG not in betas:
            raise Refusal(f"{at}.output_config: Extra inputs are not permitted")
        for place, kind, tool in _changes(message, at):
            _check_change(place, kind, tool, betas)


def _changes(message: Json, at: str) -> Iterator[tuple[str, str, Json]]:
    """The tool changes of a message: place, kind, tool."""
    for number, block in enumerate(blocks_of(message.get("content"))):
        if block.get("type") in CHANGES:
            yield f"{at}.content.{number}", str(block["type"]), block.get("tool") or {}


def _check_change(at: str, kind: str, tool: Json, betas: set[str]) -> None:
    if not betas & {TOOL_CHANGES, INLINE_TOOLS}:
        raise Refusal(
            f"{at}: Input tag '{kind}' found using 'type' does not match any of the expected "
            "tags: 'text'"
        )
    if tool.get("type") == "tool_definition" and INLINE_TOOLS not in betas:
        raise Refusal(
            f"{at}.tool: Input tag 'tool_definition' found using 'type' does not match any of the "
            "expected tags: 'tool_reference', 'mcp_tool_reference', 'mcp_toolset_reference'"
        )


def _check_model(message: Json, model: str, at: str) -> None:
    """Refuse changes that a model does not take."""
    row = claude(model)
    if message.get("output_config") is not None and not row.effort_changes and row.version != (0,):
        raise Refusal(f"{at}: output_config is not supported on this model")
    for place, kind, _ in _changes(message, at):
        if not row.tool_changes:
            raise Refusal(f"{place}: `{kind}` is not supported on this model")


def _check_turn_scoped(message: Json, at: str) -> None:
    """A message for one turn carries texts and nothing else."""
    if message.get("clear_at") != "next_user_message":
        return
    scope = "a turn-scoped system message"
    why = "(clear_at: 'next_user_message')"
    blocks = blocks_of(message.get("content"))
    if any(block["type"] != "text" for block in blocks):
        raise Refusal(f"{at}: {scope} supports text blocks only {why}")
    if message.get("output_config") is not None:
        raise Refusal(f"{at}: output_config is not permitted on {scope} {why}")
    for number, block in enumerate(blocks):
        if any(explicit_breakpoints(block)):
            raise Refusal(f"{at}.content.{number}: cache_control is not permitted on {scope} {why}")


def _check_places(messages: list[Json], stored: int) -> None:
    """A run of system messages follows a user's and precedes the assistant's, or ends it all."""
    index = 0
    while index < len(messages):
        end = index
        while end < len(messages) and messages[end]["role"] == "system":
            end += 1
        run = messages[index:end]
        if run and not all(is_directive(message) for message in run):
            _check_place(messages, index, end, stored)
        index = max(end, index + 1)


def _check_place(messages: list[Json], start: int, end: int, stored: int) -> None:
    at = f"messages.{start - stored}"
    before = messages[start - 1] if start else None
    if before is None or (before["role"] == "assistant" and not _ends_in_server_result(before)):
        raise Refusal(
            f"{at}: role 'system' must follow a 'user' message or an 'assistant' message ending "
            "in a server tool result"
        )
    if end < len(messages) and messages[end]["role"] != "assistant":
        raise Refusal(
            f"{at}: role 'system' must precede an 'assistant' message or end the array; {DIRECTIVE}"
        )
    changes = any(
        b["type"] in CHANGES for m in messages[start:end] for b in blocks_of(m["content"])
    )
    if changes and before["role"] == "assistant":
        raise Refusal(f"{at}: tool changes are not permitted immediately after a paused turn")


def _ends_in_server_result(message: Json) -> bool:
    blocks = blocks_of(message.get("content"))
    return bool(blocks) and blocks[-1]["type"].endswith("_tool_result")


def tools_at_the_end(tools: list[Json], messages: list[Json]) -> list[Json]:
    """The tools that the model is offered after all of these messages."""
    known = {tool.get("name"): tool for tool in tools}
    offered = {name: tool for name, tool in known.items() if not tool.get("defer_loading")}
    for index, message in enumerate(messages):
        if message["role"] != "system":
            continue
        for number, block in enumerate(blocks_of(message.get("content"))):
            if block["type"] in CHANGES and "tool" in block:
                _change(block, known, offered, f"messages.{index}.content.{number}")
    return list(offered.values())


def _change(block: Json, known: dict[object, Json], offered: dict[object, Json], at: str) -> None:
    """Work one addition or removal in."""
    tool = block["tool"]
    if tool["type"] == "tool_definition":
        name = tool["definition"].get("name")
        known[name] = tool["definition"]
    elif tool["type"] != "tool_reference":
        return
    else:
        name = tool["name"]
    if name not in known:
        raise Refusal(
            f"{at}: tool '{name}' is not declared in `tools`",
            details={"error_code": "tool_reference_unresolved"},
        )
    if block["type"] == "tool_addition":
        offered[name] = known[name]
    else:
        offered.pop(name, None)


def shown(messages: list[Json]) -> list[Json]:
    """The messages without those that a later user's has cleared."""
    users = [index for index, message in enumerate(messages) if message["role"] == "user"]
    last = users[-1] if users else -1
    return [
        message
        for index, message in enumerate(messages)
        if message.get("clear_at") != "next_user_message" or index > last
    ]
