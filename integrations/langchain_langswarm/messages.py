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

from langchain_langswarm.fields import neutral_of, values_of
from langchain_langswarm.plain import FORMAT as FORMAT
from langchain_langswarm.plain import decode, encode
from langchain_langswarm.texts import from_text, to_text
from langswarm_session.blocks import (
    Block,
    ToolResultBlock,
)
from langswarm_session.doors import storable
from langswarm_session.errors import InvalidInputError
from langswarm_session.formats.native import restored
from langswarm_session.formats.registry import MessageFormat
from langswarm_session.models import MessageRole, SessionMessage, new_id

_CLASSES: dict[str, type[BaseMessage]] = {
    "human": HumanMessage,
    "ai": AIMessage,
    "system": SystemMessage,
    "tool": ToolMessage,
    "function": FunctionMessage,
    "chat": ChatMessage,
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
    """Return a LangChain message as a session message. A chunk becomes a whole message.

    Args:
        message: Any message but a `RemoveMessage`, which is an instruction and not a message.

    Returns:
        The session message; `to_langchain` gives an equal message back, but for pydantic objects
        in its free-form fields (``additional_kwargs["parsed"]`` of a structured answer, say):
        their data comes back, not the object.

    Raises:
        InvalidInputError: If it is not a message, or holds what cannot be stored.
    """
    if not isinstance(message, BaseMessage) or isinstance(message, RemoveMessage):
        raise InvalidInputError(f"a {type(message).__name__} is not a message that can be stored")
    with storable("a message"):
        while isinstance(message, BaseMessageChunk):  # a chunk class's subclass becomes that first
            message = message_chunk_to_message(message)
    kind = message.type
    if kind not in _CLASSES:
        raise InvalidInputError(f"messages of the type {kind!r} cannot be stored")
    with storable(f"a message of the type {kind!r}"):
        text = from_text(message)
        if text is not None:
            return text
        neutral = neutral_of(message, kind)
        kept = _kept(message, neutral)
        # What encode() made is JSON already and needs no second look.
        return neutral.model_copy(update={"native": {FORMAT: kept}}) if kept else neutral


def from_langchain_messages(messages: Iterable[BaseMessage]) -> list[SessionMessage]:
    """LangChain messages as session messages, each by `from_langchain`.

    Raises:
        InvalidInputError: If one is not a message, or holds what cannot be stored.
    """
    return [from_langchain(message) for message in messages]


def to_langchain(message: SessionMessage) -> BaseMessage:
    """Return a session message as a LangChain message.

    Args:
        message: One that `from_langchain` made comes back equal; any other is converted, with
            what LangChain has no field for left out. Of several tools' results in one message
            that is all but the first: see `to_langchain_messages`.
    """
    text = to_text(message)
    if text is not None:
        return text
    values = values_of(message)
    return restored(
        message,
        FORMAT,
        lambda kept: _as_it_was(values, decode(kept)),
        lambda: _CLASSES[values["type"]](**values),
    )


def _as_it_was(values: dict[str, Any], kept: dict[str, Any]) -> BaseMessage:
    """Return the message that `from_langchain` was given."""
    if kept.get("type") == "chat":
        values = {name: value for name, value in values.items() if name in _SHARED}
        values |= {"type": "chat", "role": ""}
    made = _CLASSES[values["type"]](**values)
    _restore(made, kept)
    return made


def to_langchain_messages(messages: Iterable[SessionMessage]) -> list[BaseMessage]:
    """Session messages as LangChain messages, each tool's result as a message of its own.

    Args:
        messages: Any. One without a result becomes one message, as by `to_langchain`. Of the
            results in another the first keeps its id and the others have it with their number;
            what else it holds follows as a user's message.
    """
    return [made for message in messages for made in _split(message)]


def with_unique_ids(messages: Iterable[SessionMessage]) -> list[BaseMessage]:
    """Convert messages like `to_langchain_messages`, each to one with a unique id.

    A graph keeps one message of each id, and gives a new one to each that comes without: in a
    thread that would be another message with each call. Where an id is missing, or another message
    has it, the record's stands in.
    """
    made: list[BaseMessage] = []
    seen: set[str] = set()
    for stored in messages:
        for message in _split(stored):
            if message.id is None or message.id in seen:
                message.id = stored.id
            seen.add(message.id)
            made.append(message)
    return made


def with_new_id(message: SessionMessage) -> SessionMessage:
    """Return a LangChain message under a new id; `to_langchain` restores its own id.

    Two answers may have one id: LangChain's cache and models for tests give the same ones again.
    """
    native = message.native or {}
    kept = {"id": message.id, **decode(native.get(FORMAT, {}))}
    return message.model_copy(update={"id": new_id(), "native": {**native, FORMAT: encode(kept)}})


def _restore(made: BaseMessage, kept: dict[str, Any]) -> None:
    """Put what was kept of a message back as it was.

    Not by its class, which checks only what it is made of: what was assigned later may be anything
    (LangChain's cache assigns a usage without counts), and must not make a log unreadable.
    """
    fields, more = made.__dict__, made.__pydantic_extra__
    assert more is not None, "a message takes any field"
    for name, value in kept.items():
        (fields if name in fields else more)[name] = value
    made.__pydantic_fields_set__.update(kept)


def _split(message: SessionMessage) -> list[BaseMessage]:
    """Return the LangChain messages for one session message."""
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
    """Return a message's tool results, unless it is LangChain's own and comes back as it was."""
    if (
        isinstance(message.content, str)
        or message.role in (MessageRole.ASSISTANT, MessageRole.SYSTEM)
        or (message.native and FORMAT in message.native)
    ):
        return []
    return [block for block in message.content if isinstance(block, ToolResultBlock)]


def _kept(message: BaseMessage, neutral: SessionMessage) -> dict[str, Any]:
    """Return what of the message would come back otherwise from its neutral form alone."""
    fields = {**message.__dict__, **(message.__pydantic_extra__ or {})}
    expected = {**_DEFAULTS, **values_of(neutral)}
    kept = {
        name: value
        for name, value in fields.items()
        if name not in expected or value != expected[name]
    }
    return encode(kept) if kept else kept


message_format = MessageFormat(FORMAT, to_langchain_messages, from_langchain_messages)
"""What the package's entry point names."""
