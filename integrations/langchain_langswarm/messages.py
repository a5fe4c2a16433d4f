"""LangChain messages as session messages, and back, exactly.

A session message takes over what it has fields for; whatever of a LangChain message these could not
give back is kept beside them, in ``native["langchain"]``.
"""

from __future__ import annotations

from collections.abc import Iterable
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

from langchain_langswarm.blocks import blocks_of, to_content
from langchain_langswarm.plain import FORMAT as FORMAT
from langchain_langswarm.plain import decode, encode
from langchain_langswarm.texts import from_text, to_text
from langchain_langswarm.usage import to_usage_metadata, usage_of
from langswarm_session.blocks import (
    Block,
    OtherBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.checks import storable
from langswarm_session.errors import InvalidInputError
from langswarm_session.models import MessageRole, SessionMessage

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
_CHAT_ROLES = {
    "assistant": MessageRole.ASSISTANT,
    "ai": MessageRole.ASSISTANT,
    "system": MessageRole.SYSTEM,
    "developer": MessageRole.SYSTEM,
}
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
_SHARED = ("type", "id", "name", "content")
"""The fields of a ChatMessage that the others have too."""


def from_langchain(message: BaseMessage) -> SessionMessage:
    """A LangChain message as a session message. A chunk becomes a whole message.

    Args:
        message: Any message but a `RemoveMessage`, which is an instruction and not a message.

    Returns:
        The session message; `to_langchain` gives an equal message back, but for pydantic objects
        in its free-form fields (``additional_kwargs["parsed"]`` of a structured answer, say):
        their data comes back, not the object.

    Raises:
        InvalidInputError: If it is no message, or holds what cannot be stored.
    """
    if not isinstance(message, BaseMessage) or isinstance(message, RemoveMessage):
        raise InvalidInputError(f"a {type(message).__name__} is not a message that can be stored")
    while isinstance(message, BaseMessageChunk):  # a subclass of a chunk class becomes that first
        message = message_chunk_to_message(message)
    kind = message.type
    if kind not in _CLASSES:
        raise InvalidInputError(f"messages of the type {kind!r} cannot be stored")
    with storable(f"a message of the type {kind!r}"):
        text = from_text(message)
        if text is not None:
            return text
        neutral = _neutral(message, kind)
        kept = _kept(message, neutral)
        # What encode() made is JSON already and needs no second look.
        return neutral.model_copy(update={"native": {FORMAT: kept}}) if kept else neutral


def from_langchain_messages(messages: Iterable[BaseMessage]) -> list[SessionMessage]:
    """LangChain messages as session messages, each by `from_langchain`.

    Raises:
        InvalidInputError: If one is no message, or holds what cannot be stored.
    """
    return [from_langchain(message) for message in messages]


def to_langchain(message: SessionMessage) -> BaseMessage:
    """A session message as a LangChain message.

    Args:
        message: One that `from_langchain` made comes back equal; any other is converted, with
            what LangChain has no field for left out. Of several tools' results in one message
            that is all but the first: see `to_langchain_messages`.
    """
    text = to_text(message)
    if text is not None:
        return text
    values = _values(message)
    kept = message.native.get(FORMAT) if message.native else None
    if kept is None:
        return _CLASSES[values["type"]](**values)
    kept = decode(kept)
    if kept.get("type") == "chat":
        values = {name: value for name, value in values.items() if name in _SHARED}
    values.update(kept)
    made = _CLASSES[values["type"]](**values)
    fields = made.__dict__
    for name, value in kept.items():
        # Some constructors derive a field from others; what was stored is what it was.
        if name in fields and fields[name] != value:
            setattr(made, name, value)
    return made


def to_langchain_messages(messages: Iterable[SessionMessage]) -> list[BaseMessage]:
    """Session messages as LangChain messages, each tool's result as a message of its own.

    Args:
        messages: Any. One without a result becomes one message, as by `to_langchain`. Of the
            results in another the first keeps its id and the others have it with their number;
            what else it holds follows as a user's message.
    """
    return [made for message in messages for made in _split(message)]


def _split(message: SessionMessage) -> list[BaseMessage]:
    """The messages that LangChain has for one of ours."""
    results = _results(message)
    if not results or (len(message.blocks) == 1 and message.role is MessageRole.TOOL):
        return [to_langchain(message)]
    others: list[Block] = [
        block for block in message.blocks if not isinstance(block, ToolResultBlock)
    ]
    parts: list[tuple[MessageRole, list[Block]]] = [
        (MessageRole.TOOL, [result]) for result in results
    ]
    if others:
        parts.append((MessageRole.USER, others))
    return [
        to_langchain(
            message.model_copy(
                update={
                    "id": message.id if number == 1 else f"{message.id}:{number}",
                    "role": role,
                    "content": content,
                }
            )
        )
        for number, (role, content) in enumerate(parts, 1)
    ]


def _results(message: SessionMessage) -> list[ToolResultBlock]:
    """A message's tool results, unless it is LangChain's own and comes back as it was."""
    if (
        isinstance(message.content, str)
        or message.role in (MessageRole.ASSISTANT, MessageRole.SYSTEM)
        or (message.native and FORMAT in message.native)
    ):
        return []
    return [block for block in message.content if isinstance(block, ToolResultBlock)]


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
        fields |= _about_reply(message)
    else:
        content = _content(message)
    return SessionMessage(content=content, **fields)


def _about_reply(message: AIMessage) -> dict[str, Any]:
    """What is known of a reply beside what it says."""
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


def _kept(message: BaseMessage, neutral: SessionMessage) -> dict[str, Any]:
    """What of the message would come back otherwise from its neutral form alone."""
    fields = {**message.__dict__, **(message.__pydantic_extra__ or {})}
    expected = {**_DEFAULTS, **_values(neutral)}
    if message.additional_kwargs:
        # An AIMessage would derive these from the others unless it is told.
        del expected["tool_calls"], expected["invalid_tool_calls"]
    kept = {
        name: value
        for name, value in fields.items()
        if name not in expected or value != expected[name]
    }
    return encode(kept) if kept else kept


def _values(message: SessionMessage) -> dict[str, Any]:
    """The fields of the LangChain message for the neutral form, its type among them."""
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
        ],
    }


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
    blocks += [OtherBlock(value=encode(dict(call))) for call in message.invalid_tool_calls]
    return blocks
