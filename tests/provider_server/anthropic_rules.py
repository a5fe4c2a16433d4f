"""The vendor's rules for a request that its types do not tell. Each raises `Refusal`."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .anthropic_context import blocks_of, explicit_breakpoints, genuine
from .anthropic_errors import Refusal
from .worlds import Json

FILES_BETA = "files-api-2025-04-14"
TOOL_ID = re.compile(r"[a-zA-Z0-9_-]+")
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
THINKING = {"thinking", "redacted_thinking"}
ASSISTANT_ONLY = {*THINKING, "tool_use", "server_tool_use", "mcp_tool_use", "fallback"}
USER_ONLY = {"tool_result", "image", "document", "container_upload"}
MAX_MESSAGES = 100_000
MAX_INPUT_TOKENS = 200_000


@dataclass
class Context:
    """A request's whole effective context: what is stored, then what was sent."""

    model: str
    messages: list[Json]
    system: Any = None
    tools: list[Json] = field(default_factory=list)
    thinking: Json | None = None
    tool_choice: Json | None = None
    max_tokens: int | None = None
    betas: set[str] = field(default_factory=set)
    stored: int = 0
    """How many of the messages the server held already."""
    paused: bool = False
    """Whether the context may end with the assistant's, because the server paused that turn."""
    settings: Json = field(default_factory=dict)

    def at(self, index: int) -> str:
        """The path of a message as the client counts them."""
        if index < self.stored:
            return "thread"
        return f"messages.{index - self.stored}"


def check_model(model: str) -> None:
    """Refuse a model that this server does not have."""
    if not model.startswith("claude-") or "unknown" in model:
        raise Refusal(f"model: {model}", 404)


def check_size(context: Context, tokens: int) -> None:
    """Refuse a context beyond the model's (setting `max_input_tokens`)."""
    most = context.settings.get("max_input_tokens", MAX_INPUT_TOKENS)
    if tokens > most:
        raise Refusal(f"prompt is too long: {tokens} tokens > {most} maximum")


def check_request(context: Context) -> None:
    """Every rule, in the order in which the vendor seems to look."""
    check_model(context.model)
    _check_numbers(context)
    _check_tools(context)
    _check_system(context)
    _check_roles(context)
    for index in range(context.stored, len(context.messages)):
        _check_message(context, index)
    _check_pairs(context)
    _check_end(context)
    if context.settings.get("thinking_must_lead"):
        _check_thinking_leads(context)


def _check_numbers(context: Context) -> None:
    if context.max_tokens is not None and context.max_tokens < 0:
        raise Refusal("max_tokens: Input should be greater than or equal to 0")
    thinking = context.thinking or {"type": "disabled"}
    if thinking["type"] in {"disabled", "between_tools"}:
        return
    if "nothinking" in context.model:
        raise Refusal(f"thinking: '{context.model}' does not support thinking.")
    if thinking["type"] == "enabled":
        budget = thinking["budget_tokens"]
        if budget < 1024:
            raise Refusal(
                "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
            )
        if context.max_tokens is not None and budget >= context.max_tokens:
            raise Refusal("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if (context.tool_choice or {}).get("type") in {"any", "tool"}:
        raise Refusal("Thinking may not be enabled when tool_choice forces tool use.")


def _check_tools(context: Context) -> None:
    if context.tools and "notools" in context.model:
        raise Refusal(f"tools: '{context.model}' does not support tools.")
    names = [tool["name"] for tool in context.tools if "name" in tool]
    for index, tool in enumerate(context.tools):
        name = tool.get("name")
        if name is not None and not TOOL_NAME.fullmatch(name):
            raise Refusal(
                f"tools.{index}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
            )
        if "input_schema" in tool and tool["input_schema"].get("type") != "object":
            raise Refusal(f"tools.{index}.custom.input_schema.type: Input should be 'object'")
    if len(set(names)) != len(names):
        raise Refusal("tools: Tool names must be unique.")
    choice = context.tool_choice
    if choice and choice["type"] != "none" and not context.tools:
        raise Refusal("tool_choice: tool_choice may only be specified while providing tools.")
    if choice and choice["type"] == "tool" and choice["name"] not in names:
        raise Refusal(f"tool_choice: Tool '{choice['name']}' not found in provided tools.")


def _check_system(context: Context) -> None:
    if isinstance(context.system, list):
        for index, block in enumerate(context.system):
            _check_text(block["text"], f"system.{index}")
    sent = context.messages[context.stored :]
    system = None if context.stored else context.system
    count = sum(1 for _ in explicit_breakpoints([system, context.tools, sent]))
    if count > 4:
        raise Refusal(f"A maximum of 4 blocks with cache_control may be provided. Found {count}.")


def _check_roles(context: Context) -> None:
    messages = context.messages
    if not messages:
        raise Refusal("messages: at least one message is required")
    if len(messages) > MAX_MESSAGES:
        raise Refusal(f"messages: at most {MAX_MESSAGES} messages are allowed")
    if messages[0]["role"] != "user":
        raise Refusal('messages: first message must use the "user" role')
    before = "assistant"
    for index, message in enumerate(messages):
        role = message["role"]
        if role == "system":
            _check_system_message(context, index)
            continue
        if role == before and not context.settings.get("combines_roles"):
            raise Refusal(
                f'{context.at(index)}: roles must alternate between "user" and "assistant", '
                f'but found multiple "{role}" roles in a row'
            )
        before = role


def _check_system_message(context: Context, index: int) -> None:
    if "nosystem" in context.model:
        raise Refusal(f"{context.at(index)}: role 'system' is not supported on this model")
    if context.messages[index - 1]["role"] == "assistant":
        raise Refusal(f"{context.at(index)}: a `system` message must follow a `user` message")


def _check_message(context: Context, index: int) -> None:
    message, at = context.messages[index], context.at(index)
    content = message.get("content")
    if isinstance(content, str) and content:
        _check_text(content, at)
    if not content:
        if message["role"] == "system" and message.get("output_config"):
            return
        raise Refusal(
            f"{at}: all messages must have non-empty content except for the optional final "
            "assistant message"
        )
    blocks = blocks_of(content)
    for number, block in enumerate(blocks):
        _check_block(context, message["role"], block, f"{at}.content.{number}")
    if message["role"] == "assistant":
        _check_assistant_order(blocks, at)
    elif message["role"] == "user":
        _check_results_first(blocks, at)


def _check_block(context: Context, role: str, block: Json, at: str) -> None:
    kind = block["type"]
    if role == "user" and kind in ASSISTANT_ONLY:
        raise Refusal(f"{at}: `{kind}` blocks can only be in `assistant` messages")
    if role == "assistant" and kind in USER_ONLY:
        raise Refusal(f"{at}: `{kind}` blocks can only be in `user` messages")
    if kind == "text":
        _check_text(block["text"], at)
    elif kind == "tool_use":
        _check_tool_use(block, at)
    elif kind == "tool_result":
        _check_tool_result(context, block, at)
    elif kind in THINKING and not genuine(block, context.model):
        name = "signature" if kind == "thinking" else "data"
        raise Refusal(f"{at}: Invalid `{name}` in `{kind}` block")
    elif kind == "image":
        if "novision" in context.model:
            raise Refusal(f"{at}: '{context.model}' does not support image input.")
        _check_source(context, block["source"], f"{at}.image.source")
    elif kind == "document":
        _check_source(context, block["source"], f"{at}.document.source")


def _check_text(text: str, at: str) -> None:
    if not text:
        raise Refusal(f"{at}: text content blocks must be non-empty")
    if not text.strip():
        raise Refusal(f"{at}: text content blocks must contain non-whitespace text")


def _check_tool_use(block: Json, at: str) -> None:
    if not TOOL_ID.fullmatch(block["id"]):
        raise Refusal(f"{at}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
    if not TOOL_NAME.fullmatch(block["name"]):
        raise Refusal(f"{at}.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")


def _check_tool_result(context: Context, block: Json, at: str) -> None:
    content = block.get("content")
    if isinstance(content, str) or not content:
        return
    for number, inner in enumerate(content):
        _check_block(context, "user", inner, f"{at}.content.{number}")


def _check_source(context: Context, source: Json, at: str) -> None:
    kind = source["type"]
    if kind == "base64":
        try:
            data = base64.b64decode(source["data"], validate=True)
        except (binascii.Error, ValueError):
            raise Refusal(f"{at}.base64.data: invalid base64 data") from None
        if not data:
            raise Refusal(f"{at}.base64.data: cannot be empty")
    elif kind == "url" and not source["url"].startswith(("https://", "http://")):
        raise Refusal(f"{at}.url.url: Only HTTPS URLs are supported.")
    elif kind == "file" and FILES_BETA not in context.betas:
        raise Refusal(f"{at}: Input tag 'file' needs the `{FILES_BETA}` beta header")
    elif kind == "text" and not source["data"].strip():
        raise Refusal(f"{at}.text.data: text content must be non-empty")
    elif kind == "content" and isinstance(source["content"], list):
        for number, inner in enumerate(source["content"]):
            _check_block(context, "user", inner, f"{at}.content.{number}")


def _check_assistant_order(blocks: list[Json], at: str) -> None:
    other = called = False
    for number, block in enumerate(blocks):
        kind = block["type"]
        if kind in THINKING and other:
            raise Refusal(
                f"{at}.content.{number}: `thinking` and `redacted_thinking` blocks must come "
                "first in an `assistant` message"
            )
        if called and kind != "tool_use":
            _refuse_unanswered(at, [b["id"] for b in blocks[:number] if b["type"] == "tool_use"])
        other = other or kind not in THINKING
        called = called or kind == "tool_use"


def _check_results_first(blocks: list[Json], at: str) -> None:
    other = False
    for number, block in enumerate(blocks):
        if block["type"] == "tool_result" and other:
            raise Refusal(
                f"{at}.content.{number}: `tool_result` blocks must come first in a `user` message"
            )
        other = other or block["type"] != "tool_result"


def _refuse_unanswered(at: str, ids: list[str]) -> None:
    raise Refusal(
        f"{at}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(ids)}. Each `tool_use` block must have a corresponding `tool_result` block "
        "in the next message."
    )


def _ids(message: Json, kind: str, key: str) -> list[str]:
    return [b[key] for b in blocks_of(message.get("content")) if b.get("type") == kind]


def _turns(context: Context) -> Iterator[tuple[int, Json]]:
    """The messages of the user and the assistant, with their places."""
    for index, message in enumerate(context.messages):
        if message["role"] != "system":
            yield index, message


def _check_pairs(context: Context) -> None:
    known: set[str] = set()
    open_ids: list[str] = []
    asked_at = ""
    used = False
    for index, message in _turns(context):
        at = context.at(index)
        if message["role"] == "user":
            results = _ids(message, "tool_result", "tool_use_id")
            _check_results(open_ids, results, asked_at, at)
            used = used or bool(results)
            open_ids = []
            continue
        open_ids, asked_at = _ids(message, "tool_use", "id"), at
        used = used or bool(open_ids)
        for tool_id in open_ids:
            if tool_id in known:
                raise Refusal(f"{at}: `tool_use` ids must be unique. Found twice: {tool_id}")
            known.add(tool_id)
    if open_ids:
        _refuse_unanswered(asked_at, open_ids)
    if used and not context.tools and not _adds_tools(context):
        raise Refusal(
            "Requests which have `tool_use` or `tool_result` blocks in `messages` must define `tools`."
        )


def _check_results(open_ids: list[str], results: list[str], asked_at: str, at: str) -> None:
    for number, tool_id in enumerate(results):
        if tool_id not in open_ids:
            raise Refusal(
                f"{at}.content.{number}: unexpected `tool_use_id` found in `tool_result` blocks: "
                f"{tool_id}. Each `tool_result` block must have a corresponding `tool_use` block "
                "in the previous message."
            )
        if tool_id in results[:number]:
            raise Refusal(
                f"{at}.content.{number}: each tool_use must have a single result. Found multiple "
                f"`tool_result` blocks with id: {tool_id}"
            )
    missing = [tool_id for tool_id in open_ids if tool_id not in results]
    if missing:
        _refuse_unanswered(asked_at, missing)


def _adds_tools(context: Context) -> bool:
    """Whether a system message brings tools of its own."""
    return any(
        block.get("type") == "tool_addition"
        for message in context.messages
        if message["role"] == "system"
        for block in blocks_of(message.get("content"))
    )


def _check_end(context: Context) -> None:
    *_, (index, last) = _turns(context)
    if last["role"] == "user" or context.paused:
        return
    blocks = blocks_of(last.get("content"))
    at = context.at(index)
    if (
        blocks
        and blocks[-1]["type"] == "text"
        and blocks[-1]["text"] != blocks[-1]["text"].rstrip()
    ):
        raise Refusal(f"{at}: final assistant content cannot end with trailing whitespace")
    raise Refusal(
        "This model does not support assistant message prefill. The conversation must end with a "
        "user message."
    )


def _check_thinking_leads(context: Context) -> None:
    """With thinking on, the assistant's message before tool results must begin with thinking."""
    turns = list(_turns(context))
    if (context.thinking or {}).get("type") != "enabled" or len(turns) < 2:
        return
    (index, before), (_, last) = turns[-2:]
    blocks = blocks_of(before.get("content"))
    if _ids(last, "tool_result", "tool_use_id") and blocks[0]["type"] not in THINKING:
        raise Refusal(
            f"{context.at(index)}.content.0.type: Expected `thinking` or `redacted_thinking`, but "
            f"found `{blocks[0]['type']}`. When `thinking` is enabled, a final `assistant` message "
            "must start with a thinking block (preceeding the lastmost set of `tool_use` and "
            "`tool_result` blocks)."
        )
