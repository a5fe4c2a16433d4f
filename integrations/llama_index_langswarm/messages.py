"""LlamaIndex's messages as session messages, and back, exactly.

A session message takes over what it has fields for; whatever of a LlamaIndex message these could
not give back is kept beside them, in ``native["llama_index"]``.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

from llama_index.core.base.llms import types
from llama_index.core.base.llms.types import ChatMessage

from langswarm_session.blocks import Block, TextBlock, ToolCallBlock, ToolResultBlock
from langswarm_session.doors import storable, text_message, unchecked
from langswarm_session.errors import InvalidInputError
from langswarm_session.formats import native
from langswarm_session.formats.registry import MessageFormat
from langswarm_session.models import RESULT_ROLES, MessageRole, SessionMessage
from llama_index_langswarm.blocks import (
    fields_of,
    former_calls,
    from_block,
    restored,
    to_blocks,
)
from llama_index_langswarm.plain import decode, encode

FORMAT = "llama_index"
"""The key of LlamaIndex's own part in `SessionMessage.native`."""

_ROLES = {
    types.MessageRole.DEVELOPER: MessageRole.SYSTEM,
    types.MessageRole.CHATBOT: MessageRole.ASSISTANT,
    types.MessageRole.MODEL: MessageRole.ASSISTANT,
}
_ROLES_BACK = {role: types.MessageRole(role.value) for role in MessageRole}
_PLAIN_ROLES = (types.MessageRole.USER, types.MessageRole.ASSISTANT, types.MessageRole.SYSTEM)


def from_llama_index(message: ChatMessage) -> SessionMessage:
    """Return a LlamaIndex message as a session message, with an id and a time of its own.

    Args:
        message: Any message.

    Returns:
        The session message; `to_llama_index` gives an equal message back.

    Raises:
        InvalidInputError: If it is not a message, or holds what cannot be stored.
    """
    if not isinstance(message, ChatMessage):
        raise InvalidInputError(f"a {type(message).__name__} is not a message that can be stored")
    with storable("a message"):
        text = _plain_text(message)
        if text is not None:
            return text_message(MessageRole(message.role), text)
        neutral = _neutral(message)
        kept = _kept(message, neutral)
        # What encode() made is JSON already and needs no second look.
        return neutral.model_copy(update={"native": {FORMAT: kept}}) if kept else neutral


def from_llama_index_messages(messages: Iterable[ChatMessage]) -> list[SessionMessage]:
    """LlamaIndex messages as session messages, each by `from_llama_index`.

    Raises:
        InvalidInputError: If one is not a message, or holds what cannot be stored.
    """
    return [from_llama_index(message) for message in messages]


def to_llama_index(message: SessionMessage) -> ChatMessage:
    """Return a session message as a LlamaIndex message.

    Args:
        message: One that `from_llama_index` made comes back equal; any other is converted, with
            what LlamaIndex has no field for left out. Of several tools' results in one message
            the first is taken: `to_llama_index_messages` gives them all.
    """
    return to_llama_index_messages([message])[0]


def to_llama_index_messages(messages: Iterable[SessionMessage]) -> list[ChatMessage]:
    """Session messages as LlamaIndex messages, which have one tool's result each.

    Args:
        messages: Each becomes what `to_llama_index` says, or one message for each result.
    """
    return [chat for message in messages for chat in _chats(message)]


def size_of(message: SessionMessage) -> int:
    """Return how many messages `to_llama_index_messages` makes of one, without making them."""
    if isinstance(message.content, str):
        return 1
    results = sum(isinstance(block, ToolResultBlock) for block in message.content)
    return results + (results < len(message.content) or not results)


def _chats(message: SessionMessage) -> list[ChatMessage]:
    return native.restored(
        message, FORMAT, lambda kept: _as_they_were(message, kept), lambda: _made(message)
    )


def _as_they_were(message: SessionMessage, kept: dict[str, Any]) -> list[ChatMessage]:
    """Return the message that `from_llama_index` was given."""
    made = _made(message)
    if len(made) != 1:
        return made
    (chat,) = made
    if "role" in kept:
        chat.role = types.MessageRole(kept["role"])
    if "additional_kwargs" in kept:
        chat.additional_kwargs = decode(kept["additional_kwargs"])
    blocks = kept.get("blocks", ())
    # Where a middleware has put other blocks there, those are what counts.
    if blocks and len(chat.blocks) == kept.get("of", len(blocks)):
        pairs = zip_longest(blocks, chat.blocks[: len(blocks)])
        chat.blocks = [restored(block, fields) for fields, block in pairs]
    elif "of" in kept and len(chat.blocks) == kept["of"]:
        chat.blocks = []
    return made


def _neutral(message: ChatMessage) -> SessionMessage:
    """Return what of the message a session message has fields for."""
    role = _ROLES.get(message.role) or MessageRole(message.role)
    kwargs = message.additional_kwargs
    blocks = [from_block(block) for block in message.blocks]
    content: str | list[Block] = blocks
    if len(blocks) == 1 and isinstance(blocks[0], TextBlock):
        content = blocks[0].text
    if role in RESULT_ROLES:
        name = kwargs.get("name")
        result = ToolResultBlock(
            tool_call_id=str(kwargs.get("tool_call_id") or ""),
            content=content,
            name=name if isinstance(name, str) else None,
        )
        return SessionMessage(role=role, content=[result])
    if role is MessageRole.ASSISTANT and not any(isinstance(b, ToolCallBlock) for b in blocks):
        calls = former_calls(kwargs.get("tool_calls"))
        if calls:
            content = [block for block in blocks if block != TextBlock(text="")] + calls
    return SessionMessage(role=role, content=content)


def _kept(message: ChatMessage, neutral: SessionMessage) -> dict[str, Any]:
    """Return what of the message would come back otherwise from its neutral form alone."""
    (expected,) = _made(neutral)
    kept: dict[str, Any] = {}
    if message.role != expected.role:
        kept["role"] = types.MessageRole(message.role).value
    kwargs = encode(message.additional_kwargs)
    if kwargs != encode(expected.additional_kwargs):
        kept["additional_kwargs"] = kwargs
    theirs = [fields_of(block) for block in message.blocks]
    ours = [fields_of(block) for block in expected.blocks]
    if len(theirs) != len(ours):
        kept["blocks"], kept["of"] = theirs, len(ours)
    elif theirs != ours:
        kept["blocks"] = [_different(*pair) for pair in zip(theirs, ours, strict=True)]
    return kept


def _different(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Return the fields to keep of a block: none if it comes back as it is."""
    if theirs["$class"] != ours["$class"]:
        return theirs
    return {name: value for name, value in theirs.items() if value != ours[name]}


def _plain_text(message: ChatMessage) -> str | None:
    """Return the text of a message that holds nothing else and is restored from it exactly."""
    if len(message.blocks) != 1 or message.additional_kwargs or message.role not in _PLAIN_ROLES:
        return None
    (block,) = message.blocks
    if type(block) is not types.TextBlock or type(message.additional_kwargs) is not dict:
        return None
    fields = block.__dict__
    text = fields.get("text")
    if type(text) is not str or fields != {"block_type": "text", "text": text}:
        return None
    return text


def _made(message: SessionMessage) -> list[ChatMessage]:
    """Return the messages for the neutral form."""
    if isinstance(message.content, str):
        return [_text_chat(_ROLES_BACK[message.role], message.content)]
    role = _ROLES_BACK[message.role]
    results = [block for block in message.content if isinstance(block, ToolResultBlock)]
    others = [block for block in message.content if not isinstance(block, ToolResultBlock)]
    made = [_result(message.role, result) for result in results]
    if others or not results:
        if results and message.role in RESULT_ROLES:
            role = types.MessageRole.USER
        chat = _chat(role, to_blocks(others))
        # A call comes before its result, and what a user adds to a result after it.
        made.insert(0 if message.role is MessageRole.ASSISTANT else len(made), chat)
    return made


def _chat(role: types.MessageRole, blocks: list[Any], **kwargs: Any) -> ChatMessage:
    # The class's own validation would put in pictures that are there already.
    return ChatMessage.model_construct(role=role, blocks=blocks, additional_kwargs=kwargs)


def _text_chat(role: types.MessageRole, text: str) -> ChatMessage:
    """Return what `_chat` makes of one text, in a quarter of the time."""
    block = unchecked(types.TextBlock, {"block_type": "text", "text": text}, {"text"})
    fields = {"role": role, "additional_kwargs": {}, "blocks": [block]}
    return unchecked(ChatMessage, fields, set(fields))


def _result(role: MessageRole, result: ToolResultBlock) -> ChatMessage:
    function = role is MessageRole.FUNCTION
    content = result.content
    blocks = [TextBlock(text=content)] if isinstance(content, str) else content
    named = {} if result.name is None else {"name": result.name}
    return _chat(
        types.MessageRole.FUNCTION if function else types.MessageRole.TOOL,
        to_blocks(blocks),
        tool_call_id=result.tool_call_id,
        **named,
    )


message_format = MessageFormat(FORMAT, to_llama_index_messages, from_llama_index_messages)
"""What the package's entry point names."""
