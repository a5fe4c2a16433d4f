"""The fields of LangChain's messages as those of a session's messages, and back."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from langchain_langswarm.blocks import blocks_of, invalid_call, to_content
from langchain_langswarm.plain import encode
from langchain_langswarm.usage import to_usage_metadata, usage_of
from langswarm_session.blocks import (
    Block,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.errors import InvalidInputError
from langswarm_session.formats.arguments import RAW
from langswarm_session.models import MessageRole, SessionMessage

_TYPES = {
    MessageRole.USER: "human",
    MessageRole.ASSISTANT: "ai",
    MessageRole.SYSTEM: "system",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "function",
}
_KINDS: dict[str, type | tuple[type, ...]] = {
    "content": (str, list, tuple),
    "additional_kwargs": dict,
    "response_metadata": dict,
    "tool_calls": list,
    "invalid_tool_calls": list,
}
_ROLES = {kind: role for role, kind in _TYPES.items()}
_CHAT_ROLES = {
    "assistant": MessageRole.ASSISTANT,
    "ai": MessageRole.ASSISTANT,
    "system": MessageRole.SYSTEM,
    "developer": MessageRole.SYSTEM,
}


def neutral_of(message: BaseMessage, kind: str) -> SessionMessage:
    """Return what of the message a session message has fields for.

    Raises:
        InvalidInputError: If one of its fields is not even of the kind that its readers take.
    """
    for name, kinds in _KINDS.items():
        if name in message.__dict__ and not isinstance(message.__dict__[name], kinds):
            kind = type(message.__dict__[name]).__name__
            raise InvalidInputError(f"the {name} of a message cannot be a {kind}")
    fields: dict[str, Any] = {"role": _ROLES.get(kind) or _chat_role(message), "name": message.name}
    if message.id:
        fields["id"] = message.id
    content: str | list[Block]
    if isinstance(message, ToolMessage):
        content = [
            ToolResultBlock(
                tool_call_id=message.tool_call_id,
                content=_content(message),
                name=message.name,
                is_error=message.status == "error",
            )
        ]
    elif isinstance(message, AIMessage):
        content = _ai_content(message)
        fields |= _about_reply(message)
    else:
        content = _content(message)
    return SessionMessage(content=content, **fields)


def _about_reply(message: AIMessage) -> dict[str, Any]:
    """Return what is known of a reply beside what it says."""
    told = message.response_metadata

    def text(*names: str) -> str | None:
        value = next((told[name] for name in names if told.get(name)), None)
        return value if isinstance(value, str) else None

    # Who made it is not told: what a provider sees as its own must have come from it directly.
    return {
        "usage": usage_of(message.usage_metadata),
        "model": text("model_name", "model"),
        "finish_reason": text("finish_reason", "stop_reason"),
        "provider_message_id": text("id"),
    }


def values_of(message: SessionMessage) -> dict[str, Any]:
    """Return the fields of the LangChain message for the neutral form, its type among them."""
    kind = _TYPES[message.role]
    values: dict[str, Any] = {"type": kind, "id": message.id, "content": message.content}
    if message.name is not None:
        values["name"] = message.name
    elif kind == "function":
        values["name"] = ""
    if kind == "ai" and message.usage is not None:
        values["usage_metadata"] = to_usage_metadata(message.usage)
    if kind == "tool":
        values["tool_call_id"] = ""
    if isinstance(message.content, str):
        return values
    if kind == "ai":
        values.update(_ai_values(message.content))
    elif kind == "tool":
        values.update(_tool_values(message.content))
    else:
        values["content"] = to_content(message.content)
    return values


def _ai_values(content: list[Block]) -> dict[str, Any]:
    calls = [block for block in content if isinstance(block, ToolCallBlock)]
    if not calls:
        return {"content": to_content(content)}
    others = [block for block in content if not isinstance(block, ToolCallBlock)]
    return {
        "content": to_content(others),
        "tool_calls": [
            {"name": call.name, "args": call.args, "id": call.id, "type": "tool_call"}
            for call in calls
            if not _is_invalid(call)
        ],
        "invalid_tool_calls": [
            {
                "name": call.name,
                "args": (call.extras or {})[RAW],
                "id": call.id,
                "error": None,
                "type": "invalid_tool_call",
            }
            for call in calls
            if _is_invalid(call)
        ],
    }


def _is_invalid(call: ToolCallBlock) -> bool:
    """Return whether the model's arguments were no JSON object."""
    return RAW in (call.extras or {})


def _tool_values(content: list[Block]) -> dict[str, Any]:
    result = next((block for block in content if isinstance(block, ToolResultBlock)), None)
    if result is None:
        return {"content": to_content(content)}
    values = {"tool_call_id": result.tool_call_id, "content": to_content(result.content)}
    if result.is_error:
        values["status"] = "error"
    if result.name is not None:
        values["name"] = result.name
    return values


def _chat_role(message: BaseMessage) -> MessageRole:
    # Any text may be a ChatMessage's role.
    return _CHAT_ROLES.get(str(getattr(message, "role", "")), MessageRole.USER)


def _content(message: BaseMessage) -> str | list[Block]:
    if isinstance(message.content, str):
        return message.content
    return blocks_of(message)


def _ai_content(message: AIMessage) -> str | list[Block]:
    if isinstance(message.content, str) and not (message.tool_calls or message.invalid_tool_calls):
        return message.content
    if isinstance(message.content, str):
        blocks: list[Block] = [TextBlock(text=message.content)] if message.content else []
    else:
        blocks = [block for block in blocks_of(message) if not isinstance(block, ToolCallBlock)]
    blocks += [
        ToolCallBlock(id=call["id"], name=call["name"], args=encode(call["args"]))
        for call in message.tool_calls
    ]
    # Chat models send these as calls, and want their results: see _convert_message_to_dict in
    # langchain_openai.chat_models.base and _format_messages in langchain_anthropic.chat_models.
    blocks += [invalid_call(call) for call in message.invalid_tool_calls]
    return blocks
