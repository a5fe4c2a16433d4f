"""The vendor's rules for a request that its types do not tell. Each raises `Refusal`."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Any

from .anthropic_binding import THINKING, Outcome, new_outcome
from .anthropic_context import blocks_of, explicit_breakpoints
from .anthropic_errors import Refusal
from .anthropic_system import CHANGES, check_system_messages, is_directive, tools_at_the_end
from .anthropic_table import claude
from .anthropic_turns import Turn, check_container, check_turns, turns_of
from .worlds import Json

FILES_BETA = "files-api-2025-04-14"
TOOL_ID = re.compile(r"[a-zA-Z0-9_-]+")
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
ASSISTANT_ONLY = {*THINKING, "tool_use", "server_tool_use", "mcp_tool_use", "fallback"}
USER_ONLY = {"tool_result", "image", "document", "container_upload"}
SYSTEM_ONLY = CHANGES
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
    container: object = None
    outcome: Outcome | None = None
    """What became of the thinking in it."""

    alternates: bool = False
    """Whether neighbours of one role are refused in place of combined."""

    @property
    def offered(self) -> list[Json]:
        """The tools that the model may call."""
        return tools_at_the_end(self.tools, self.messages)

    def judged(self) -> Outcome:
        """What became of the thinking in it; nothing, if nobody has looked."""
        if self.outcome is None:
            self.outcome = new_outcome(self.system, self.tools)
        return self.outcome

    def at(self, index: int) -> str:
        """The path of a message as the client counts them."""
        if index < self.stored:
            return "thread"
        return f"messages.{index - self.stored}"


def check_model(model: str) -> None:
    """Refuse a model that this server does not have."""
    if "claude-" not in model or "unknown" in model:
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
    check_system_messages(context.messages, context.model, context.stored)
    for index in range(context.stored, len(context.messages)):
        _check_message(context, index)
    turns = turns_of(context.messages, context.stored)
    check_turns(turns)
    _check_declared(context, turns)
    check_container(turns, context.container)
    _check_end(context, turns)
    if context.settings.get("thinking_must_lead"):
        _check_thinking_leads(context, turns)


def _check_numbers(context: Context) -> None:
    """Which thinking a model takes: https://platform.claude.com/docs/en/build-with-claude/thinking."""
    if context.max_tokens is not None and context.max_tokens < 0:
        raise Refusal("max_tokens: Input should be greater than or equal to 0")
    forced = (context.tool_choice or {}).get("type") in {"any", "tool"}
    row = claude(context.model)
    if forced and not row.forced:
        raise Refusal('tool_choice: type "tool" and "any" are not supported for this model.')
    thinking = context.thinking or {"type": "disabled"}
    kind = thinking["type"]
    if context.thinking and ((kind == "disabled" and not row.silenced)
                             or (kind == "enabled" and not row.budget)):  # fmt: skip
        raise Refusal(
            f'"thinking.type.{kind}" is not supported for this model. Use '
            '"thinking.type.adaptive" and "output_config.effort" to control thinking behavior.'
        )
    if kind in {"disabled", "between_tools"}:
        return
    if "nothinking" in context.model:
        raise Refusal(f"thinking: '{context.model}' does not support thinking.")
    if kind == "enabled":
        budget = thinking["budget_tokens"]
        if budget < 1024:
            raise Refusal(
                "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
            )
        if context.max_tokens is not None and budget >= context.max_tokens:
            raise Refusal("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if forced:
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
    said = [message for message in messages if message["role"] != "system"]
    if not said or (said[0]["role"] != "user" and not _is_compaction(said[0])):
        raise Refusal('messages: first message must use the "user" role')
    before = ""
    for index, message in enumerate(messages):
        role = message["role"]
        if role == before and role != "system" and context.alternates:
            raise Refusal(
                f'{context.at(index)}: roles must alternate between "user" and "assistant", '
                f'but found multiple "{role}" roles in a row'
            )
        before = role if role != "system" else before


def _is_compaction(message: Json) -> bool:
    """Whether a message begins with what the API has made of the conversation before."""
    blocks = blocks_of(message.get("content"))
    return bool(blocks) and blocks[0]["type"] == "compaction"


def _check_message(context: Context, index: int) -> None:
    message, at = context.messages[index], context.at(index)
    content = message.get("content")
    if isinstance(content, str) and content:
        _check_text(content, at)
    if not content:
        if message["role"] == "system" and is_directive(message):
            return
        raise Refusal(
            f"{at}: all messages must have non-empty content except for the optional final "
            "assistant message"
        )
    blocks = blocks_of(content)
    for number, block in enumerate(blocks):
        _check_block(context, message["role"], block, f"{at}.content.{number}")


def _check_block(context: Context, role: str, block: Json, at: str) -> None:
    kind = block["type"]
    if role == "user" and kind in ASSISTANT_ONLY:
        raise Refusal(f"{at}: `{kind}` blocks can only be in `assistant` messages")
    if role != "system" and kind in SYSTEM_ONLY:
        raise Refusal(f"{at}: `{kind}` blocks can only be in `system` messages")
    if role == "assistant" and kind in USER_ONLY:
        raise Refusal(f"{at}: `{kind}` blocks can only be in `user` messages")
    if kind == "text":
        _check_text(block["text"], at)
    elif kind == "tool_use":
        _check_tool_use(block, at)
    elif kind == "tool_result":
        _check_tool_result(context, block, at)
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


def _check_declared(context: Context, turns: list[Turn]) -> None:
    """A conversation that has used tools declares some."""
    used = any(block["type"] in {"tool_use", "tool_result"} for t in turns for _, block in t.blocks)
    if used and not context.tools and not _adds_tools(context):
        raise Refusal(
            "Requests which have `tool_use` or `tool_result` blocks in `messages` must define `tools`."
        )


def _adds_tools(context: Context) -> bool:
    """Whether a system message, or a compaction, brings tools of its own."""
    return any(
        block.get("type") == "tool_addition" or block.get("tool_changes")
        for message in context.messages
        for block in blocks_of(message.get("content"))
    )


def _check_end(context: Context, turns: list[Turn]) -> None:
    if turns[-1].role == "user" or context.paused:
        return
    at, last = turns[-1].blocks[-1]
    if last["type"] == "text" and last["text"] != last["text"].rstrip():
        raise Refusal(f"{at}: final assistant content cannot end with trailing whitespace")
    raise Refusal(
        "This model does not support assistant message prefill. The conversation must end with a "
        "user message."
    )


def _check_thinking_leads(context: Context, turns: list[Turn]) -> None:
    """With a thinking budget, the assistant's message before tool results begins with thinking.

    https://platform.claude.com/docs/en/build-with-claude/extended-thinking (models of manual
    thinking only, so it is a setting).
    """
    if (context.thinking or {}).get("type") != "enabled" or len(turns) < 2:
        return
    before, last = turns[-2:]
    at, first = before.blocks[0]
    if last.ids("tool_result", "tool_use_id") and first["type"] not in THINKING:
        raise Refusal(
            f"{at}.content.0.type: Expected `thinking` or `redacted_thinking`, but "
            f"found `{first['type']}`. When `thinking` is enabled, a final `assistant` message "
            "must start with a thinking block (preceeding the lastmost set of `tool_use` and "
            "`tool_result` blocks)."
        )
