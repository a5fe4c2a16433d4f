"""LangChain messages as session messages, and back, exactly.

A session message takes over what it has fields for; whatever of a LangChain message these could not
give back is kept beside them, in ``native["langchain"]``.
"""

from __future__ import annotations

from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    BaseMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    message_chunk_to_message,
)
from langchain_langswarm.plain import decode, encode
from pydantic import ValidationError

from langswarm_session.blocks import (
    AudioBlock,
    Block,
    FileBlock,
    ImageBlock,
    OtherBlock,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    VideoBlock,
)
from langswarm_session.errors import InvalidInputError
from langswarm_session.models import MessageRole, SessionMessage, TokenUsage

FORMAT = "langchain"
"""The key of LangChain's own part in `SessionMessage.native`."""

_CLASSES: dict[str, type[BaseMessage]] = {
    "human": HumanMessage,
    "ai": AIMessage,
    "system": SystemMessage,
    "tool": ToolMessage,
    "function": FunctionMessage,
    "chat": ChatMessage,
}
_TYPES = {
    MessageRole.USER: "human",
    MessageRole.ASSISTANT: "ai",
    MessageRole.SYSTEM: "system",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "function",
}
_ROLES = {kind: role for role, kind in _TYPES.items()}
_MEDIA = {"image": ImageBlock, "audio": AudioBlock, "video": VideoBlock, "file": FileBlock}
_DEFAULTS: dict[str, Any] = {
    "additional_kwargs": {},
    "response_metadata": {},
    "name": None,
    "tool_calls": [],
    "invalid_tool_calls": [],
    "usage_metadata": None,
    "artifact": None,
    "status": "success",
}


def from_langchain(message: BaseMessage) -> SessionMessage:
    """A LangChain message as a session message. A chunk becomes a whole message.

    Args:
        message: Any message but a `RemoveMessage`, which is an instruction and not a message.

    Returns:
        The session message; `to_langchain` gives an equal message back.

    Raises:
        InvalidInputError: If it is no message, or holds what cannot be stored.
    """
    if not isinstance(message, BaseMessage) or isinstance(message, RemoveMessage):
        raise InvalidInputError(f"a {type(message).__name__} is not a message that can be stored")
    if isinstance(message, BaseMessageChunk):
        message = message_chunk_to_message(message)
    kind = message.type
    if kind not in _CLASSES:
        raise InvalidInputError(f"messages of the type {kind!r} cannot be stored")
    try:
        neutral = _neutral(message, kind)
        kept = _kept(message, kind, neutral)
        # What encode() made is JSON already and needs no second look.
        return neutral.model_copy(update={"native": {FORMAT: kept}}) if kept else neutral
    except ValidationError as error:
        raise InvalidInputError(
            f"a message of the type {kind!r} holds what cannot be stored: {error.errors()[0]['msg']}"
        ) from error


def to_langchain(message: SessionMessage) -> BaseMessage:
    """A session message as a LangChain message.

    Args:
        message: One that `from_langchain` made comes back equal; any other is converted, with
            what LangChain has no field for left out.
    """
    kind, values = _values(message)
    kept = message.native.get(FORMAT) if message.native else None
    if kept is None:
        return _CLASSES[kind](**values)
    kept = decode(kept)
    kind = kept.pop("$type", kind)
    made = _CLASSES[kind](**{**values, **kept})
    for name, value in kept.items():
        # Some constructors derive a field from others; what was stored is what it was.
        if getattr(made, name) != value:
            setattr(made, name, value)
    return made


def _neutral(message: BaseMessage, kind: str) -> SessionMessage:
    """What of the message a session message has fields for."""
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
        fields["usage"] = _usage(message.usage_metadata)
        reason = message.response_metadata.get("finish_reason") or message.response_metadata.get(
            "stop_reason"
        )
        fields["finish_reason"] = reason if isinstance(reason, str) else None
        native_id = message.response_metadata.get("id")
        fields["provider_message_id"] = native_id if isinstance(native_id, str) else None
    else:
        content = _content(message)
    return SessionMessage(content=content, **fields)


def _kept(message: BaseMessage, kind: str, neutral: SessionMessage) -> dict[str, Any]:
    """What of the message would come back otherwise from its neutral form alone."""
    back_kind, back = _values(neutral)
    fields = {**message.__dict__, **(message.__pydantic_extra__ or {})}
    del fields["type"]
    expected = {**_DEFAULTS, **back}
    if message.additional_kwargs:
        # An AIMessage would derive these from the others unless it is told.
        del expected["tool_calls"], expected["invalid_tool_calls"]
    kept = {
        name: encode(value)
        for name, value in fields.items()
        if name not in expected or value != expected[name]
    }
    if back_kind != kind:
        kept["$type"] = kind
    return kept


def _values(message: SessionMessage) -> tuple[str, dict[str, Any]]:
    """The type and fields of the LangChain message for the neutral form."""
    content = message.content
    kind = _TYPES[message.role]
    values: dict[str, Any] = {"id": message.id, "content": content}
    if message.name is not None:
        values["name"] = message.name
    elif kind == "function":
        values["name"] = ""
    usage = message.usage
    if usage is not None and kind == "ai":
        values["usage_metadata"] = _usage_metadata(usage)
    if isinstance(content, str):
        if kind == "tool":
            values["tool_call_id"] = ""
        return kind, values
    if kind == "tool":
        result = next((block for block in content if isinstance(block, ToolResultBlock)), None)
        if result is not None:
            values["tool_call_id"] = result.tool_call_id
            values["content"] = _lc_content(result.content)
            if result.is_error:
                values["status"] = "error"
            if result.name is not None:
                values["name"] = result.name
            return kind, values
        values["tool_call_id"] = ""
    calls = [block for block in content if isinstance(block, ToolCallBlock)]
    if calls and kind == "ai":
        values["tool_calls"] = [
            {"name": call.name, "args": call.args, "id": call.id, "type": "tool_call"}
            for call in calls
        ]
        content = [block for block in content if not isinstance(block, ToolCallBlock)]
    values["content"] = _lc_content(content)
    return kind, values


def _chat_role(message: BaseMessage) -> MessageRole:
    role = str(getattr(message, "role", ""))
    return MessageRole(role) if role in MessageRole._value2member_map_ else MessageRole.USER


def _content(message: BaseMessage) -> str | list[Block]:
    if isinstance(message.content, str):
        return message.content
    return [_block(dict(block)) for block in message.content_blocks]


def _ai_content(message: AIMessage) -> str | list[Block]:
    if isinstance(message.content, str) and not (message.tool_calls or message.invalid_tool_calls):
        return message.content
    if isinstance(message.content, str):
        blocks: list[Block] = [TextBlock(text=message.content)] if message.content else []
    else:
        blocks = [_block(dict(block)) for block in message.content_blocks]
        blocks = [block for block in blocks if not isinstance(block, ToolCallBlock)]
    blocks += [
        ToolCallBlock(id=call["id"], name=call["name"], args=call["args"])
        for call in message.tool_calls
    ]
    blocks += [OtherBlock(value=encode(dict(call))) for call in message.invalid_tool_calls]
    return blocks


def _block(block: dict[str, Any]) -> Block:
    """A standard content block of LangChain's as one of ours."""
    kind = block.pop("type", None)
    made_up = str(block.get("id")).startswith("lc_")  # LangChain's own, another each time
    shared = {
        "id": None if made_up else block.get("id"),
        "extras": encode(block.get("extras")),
    }
    if kind == "text":
        return TextBlock(text=block["text"], annotations=encode(block.get("annotations")), **shared)
    if kind == "reasoning":
        extras = block.get("extras") or {}
        return ReasoningBlock(
            reasoning=block.get("reasoning", ""),
            signature=extras.get("signature"),
            encrypted=extras.get("encrypted_content"),
            **shared,
        )
    if kind in _MEDIA:
        names = ("url", "base64", "file_id", "mime_type")
        return _MEDIA[kind](**{name: block.get(name) for name in names}, **shared)
    if kind == "text-plain":
        return FileBlock(
            text=block.get("text"),
            url=block.get("url"),
            file_id=block.get("file_id"),
            filename=block.get("title"),
            mime_type="text/plain",
            **shared,
        )
    if kind == "tool_call":
        return ToolCallBlock(id=block.get("id"), name=block["name"], args=block["args"])
    if kind == "non_standard":
        return OtherBlock(value=encode(block["value"]), **shared)
    return OtherBlock(value=encode({"type": kind, **block}))


def _lc_content(content: str | list[Block]) -> str | list[dict[str, Any]]:
    """Blocks as LangChain's content: text alone as a string, all else as standard blocks."""
    if isinstance(content, str):
        return content
    if not content:
        return ""
    if len(content) == 1 and isinstance(content[0], TextBlock) and _is_bare(content[0]):
        return content[0].text
    return [_lc_block(block) for block in content]


def _is_bare(block: TextBlock) -> bool:
    return block.id is None and block.extras is None and block.annotations is None


def _lc_block(block: Block) -> dict[str, Any]:
    if isinstance(block, OtherBlock):
        return {"type": "non_standard", "value": block.value}
    if isinstance(block, RefusalBlock):
        return {"type": "text", "text": block.refusal, "extras": {"refusal": True}}
    if isinstance(block, ToolResultBlock):
        return {"type": "non_standard", "value": block.model_dump(exclude_none=True)}
    values = block.model_dump(exclude_none=True)
    if isinstance(block, ReasoningBlock):
        extras = {
            "signature": values.pop("signature", None),
            "encrypted_content": values.pop("encrypted", None),
        }
        given = {name: value for name, value in extras.items() if value is not None}
        if given:
            values["extras"] = {**values.get("extras", {}), **given}
    elif isinstance(block, FileBlock) and block.text is not None:
        values["type"], title = "text-plain", values.pop("filename", None)
        if title is not None:
            values["title"] = title
    return values


def _usage(metadata: Any) -> TokenUsage | None:
    if metadata is None:
        return None
    return TokenUsage(
        input_tokens=metadata["input_tokens"],
        output_tokens=metadata["output_tokens"],
        cached_tokens=(metadata.get("input_token_details") or {}).get("cache_read") or 0,
        reasoning_tokens=(metadata.get("output_token_details") or {}).get("reasoning") or 0,
    )


def _usage_metadata(usage: TokenUsage) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.cached_tokens:
        metadata["input_token_details"] = {"cache_read": usage.cached_tokens}
    if usage.reasoning_tokens:
        metadata["output_token_details"] = {"reasoning": usage.reasoning_tokens}
    return metadata
