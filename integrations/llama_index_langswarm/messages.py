"""LlamaIndex's messages as session messages, and back, exactly.

A session message takes over what it has fields for; whatever of a LlamaIndex message these could
not give back is kept beside them, in ``native["llama_index"]``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from llama_index.core.base.llms import types
from llama_index.core.base.llms.types import ChatMessage
from pydantic import AnyUrl, BaseModel, ValidationError

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
    text_of,
)
from langswarm_session.errors import InvalidInputError
from langswarm_session.models import MessageRole, SessionMessage
from llama_index_langswarm.plain import BLOCKS, decode, encode, read

FORMAT = "llama_index"
"""The key of LlamaIndex's own part in `SessionMessage.native`."""

_ROLES = {
    types.MessageRole.DEVELOPER: MessageRole.SYSTEM,
    types.MessageRole.CHATBOT: MessageRole.ASSISTANT,
    types.MessageRole.MODEL: MessageRole.ASSISTANT,
}
_RESULT_ROLES = (MessageRole.TOOL, MessageRole.FUNCTION)
_ROLES_BACK = {role: types.MessageRole(role.value) for role in MessageRole}
_PLAIN_ROLES = (types.MessageRole.USER, types.MessageRole.ASSISTANT, types.MessageRole.SYSTEM)
_REASONING = {"id": "id", "signature": "signature", "encrypted_content": "encrypted"}


def from_llama_index(message: ChatMessage) -> SessionMessage:
    """A LlamaIndex message as a session message, with an id and a time of its own.

    Args:
        message: Any message.

    Returns:
        The session message; `to_llama_index` gives an equal message back.

    Raises:
        InvalidInputError: If it is no message, or holds what cannot be stored.
    """
    if not isinstance(message, ChatMessage):
        raise InvalidInputError(f"a {type(message).__name__} is not a message that can be stored")
    try:
        text = _plain_text(message)
        if text is not None:
            return SessionMessage(role=MessageRole(message.role.value), content=text)
        neutral = _neutral(message)
        kept = _kept(message, neutral)
        # What encode() made is JSON already and needs no second look.
        return neutral.model_copy(update={"native": {FORMAT: kept}}) if kept else neutral
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise InvalidInputError(f"a message holds what cannot be stored: {reason}") from error
    except RecursionError:
        raise InvalidInputError(
            "a message holds data that is nested too deeply, or in itself"
        ) from None


def to_llama_index(message: SessionMessage) -> ChatMessage:
    """A session message as a LlamaIndex message.

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


def _chats(message: SessionMessage) -> list[ChatMessage]:
    made = _made(message)
    kept = message.native.get(FORMAT) if message.native else None
    if kept is None or len(made) != 1:
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
        chat.blocks = [_restored(block, fields) for fields, block in pairs]
    elif "of" in kept and len(chat.blocks) == kept["of"]:
        chat.blocks = []
    return made


def _neutral(message: ChatMessage) -> SessionMessage:
    """What of the message a session message has fields for."""
    role = _ROLES.get(message.role) or MessageRole(message.role.value)
    kwargs = message.additional_kwargs
    blocks = [_block(block) for block in message.blocks]
    content: str | list[Block] = blocks
    if len(blocks) == 1 and isinstance(blocks[0], TextBlock):
        content = blocks[0].text
    if role in _RESULT_ROLES:
        name = kwargs.get("name")
        result = ToolResultBlock(
            tool_call_id=str(kwargs.get("tool_call_id") or ""),
            content=content,
            name=name if isinstance(name, str) else None,
        )
        return SessionMessage(role=role, content=[result])
    if role is MessageRole.ASSISTANT and not any(isinstance(b, ToolCallBlock) for b in blocks):
        calls = _former_calls(kwargs.get("tool_calls"))
        if calls:
            content = [block for block in blocks if block != TextBlock(text="")] + calls
    return SessionMessage(role=role, content=content)


def _kept(message: ChatMessage, neutral: SessionMessage) -> dict[str, Any]:
    """What of the message would come back otherwise from its neutral form alone."""
    (expected,) = _made(neutral)
    kept: dict[str, Any] = {}
    if message.role != expected.role:
        kept["role"] = message.role.value
    kwargs = encode(message.additional_kwargs)
    if kwargs != encode(expected.additional_kwargs):
        kept["additional_kwargs"] = kwargs
    theirs = [_fields(block) for block in message.blocks]
    ours = [_fields(block) for block in expected.blocks]
    if len(theirs) != len(ours):
        kept["blocks"], kept["of"] = theirs, len(ours)
    elif theirs != ours:
        kept["blocks"] = [_different(*pair) for pair in zip(theirs, ours, strict=True)]
    return kept


def _fields(block: BaseModel) -> dict[str, Any]:
    """A block as JSON values, with its class."""
    name, fields = type(block).__name__, dict(block.__dict__)
    if BLOCKS.get(name) is not type(block):
        raise InvalidInputError(f"a block of the type {name} in a message cannot be stored")
    return {"$class": name, **{field: encode(value) for field, value in fields.items()}}


def _different(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """The fields to keep of a block: none if it comes back as it is."""
    if theirs["$class"] != ours["$class"]:
        return theirs
    return {name: value for name, value in theirs.items() if value != ours[name]}


def _restored(block: Any, kept: Mapping[str, Any]) -> Any:
    fields = {name: decode(value) for name, value in kept.items() if name != "$class"}
    if "$class" in kept:
        return BLOCKS[kept["$class"]].model_construct(**fields)
    return type(block).model_construct(**{**block.__dict__, **fields})


def _block(block: Any) -> Block:
    """A block of LlamaIndex's as one of ours."""
    make = _BLOCKS.get(type(block))
    return OtherBlock(value=_fields(block)) if make is None else make(block)


def _media(block: Any, data: Any, mime_type: str | None, **extras: Any) -> dict[str, Any]:
    url = block.url
    if url is None and block.path is not None:
        url = Path(block.path).absolute().as_uri()
    given = {name: value for name, value in extras.items() if value is not None}
    return {
        "url": None if url is None else str(url),
        "base64": None if data is None else _text(data),
        "mime_type": mime_type,
        "extras": given or None,
    }


def _text(data: Any) -> str:
    """Data given by value as base64 text; LlamaIndex has it as bytes of that."""
    given: bytes = data if isinstance(data, bytes) else read(data)
    try:
        return given.decode("ascii")
    except UnicodeDecodeError:
        return base64.b64encode(given).decode()


def _file(block: types.DocumentBlock) -> FileBlock:
    title = None if block.title == _UNTITLED else block.title
    return FileBlock(filename=title, **_media(block, block.data, block.document_mimetype))


def _reasoning(block: types.ThinkingBlock) -> ReasoningBlock:
    known = {
        ours: block.additional_information[theirs]
        for theirs, ours in _REASONING.items()
        if isinstance(block.additional_information.get(theirs), str)
    }
    return ReasoningBlock(reasoning=block.content or "", **known)


def _call(block: types.ToolCallBlock) -> ToolCallBlock:
    return _tool_call(block.tool_call_id, block.tool_name, block.tool_kwargs)


def _tool_call(call_id: str | None, name: str, arguments: Any) -> ToolCallBlock:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = None
    args = encode(arguments) if isinstance(arguments, dict) else {}
    return ToolCallBlock(id=call_id, name=name, args=args)


def _former_calls(calls: Any) -> list[Block]:
    """The calls of a message from before LlamaIndex had blocks for them (OpenAI's shape)."""
    found: list[Block] = []
    for call in calls if isinstance(calls, list) else []:
        given = call.model_dump() if isinstance(call, BaseModel) else call
        function = given.get("function") if isinstance(given, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            found.append(_tool_call(given.get("id"), function["name"], function.get("arguments")))
    return found


_UNTITLED = "input_document"
"""What LlamaIndex calls a document without a title."""

_BLOCKS: dict[type, Callable[[Any], Block]] = {
    types.TextBlock: lambda block: TextBlock(text=block.text),
    types.ImageBlock: lambda block: ImageBlock(
        **_media(block, block.image, block.image_mimetype, detail=block.detail)
    ),
    types.AudioBlock: lambda block: AudioBlock(
        **_media(block, block.audio, block.format and f"audio/{block.format}")
    ),
    types.VideoBlock: lambda block: VideoBlock(
        **_media(block, block.video, block.video_mimetype, detail=block.detail, fps=block.fps)
    ),
    types.DocumentBlock: _file,
    types.ThinkingBlock: _reasoning,
    types.ToolCallBlock: _call,
}


def _plain_text(message: ChatMessage) -> str | None:
    """The text of a message that is nothing but one, and comes back from it as it is."""
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
    """The messages for the neutral form."""
    if isinstance(message.content, str):
        return [_text_chat(_ROLES_BACK[message.role], message.content)]
    role = _ROLES_BACK[message.role]
    results = [block for block in message.content if isinstance(block, ToolResultBlock)]
    others = [block for block in message.content if not isinstance(block, ToolResultBlock)]
    made = [_result(message.role, result) for result in results]
    if others or not results:
        if results and message.role in _RESULT_ROLES:
            role = types.MessageRole.USER
        chat = _chat(role, _li_blocks(others))
        # A call comes before its result, and what a user adds to a result after it.
        made.insert(0 if message.role is MessageRole.ASSISTANT else len(made), chat)
    return made


def _chat(role: types.MessageRole, blocks: list[Any], **kwargs: Any) -> ChatMessage:
    # The class's own validation would put in pictures that are there already.
    return ChatMessage.model_construct(role=role, blocks=blocks, additional_kwargs=kwargs)


def _text_chat(role: types.MessageRole, text: str) -> ChatMessage:
    """What `_chat` makes of one text, in a quarter of the time: a log is mostly such messages."""
    block = _bare(types.TextBlock, {"block_type": "text", "text": text}, {"text"})
    fields = {"role": role, "additional_kwargs": {}, "blocks": [block]}
    made: ChatMessage = _bare(ChatMessage, fields, set(fields))
    return made


def _bare(kind: type[Any], fields: dict[str, Any], given: set[str]) -> Any:
    made = _new(kind)
    _set(made, "__dict__", fields)
    _set(made, "__pydantic_fields_set__", given)
    _set(made, "__pydantic_extra__", None)
    _set(made, "__pydantic_private__", None)
    return made


_new = object.__new__
_set = object.__setattr__


def _result(role: MessageRole, result: ToolResultBlock) -> ChatMessage:
    function = role is MessageRole.FUNCTION
    content = result.content
    blocks = [TextBlock(text=content)] if isinstance(content, str) else content
    named = {} if result.name is None else {"name": result.name}
    return _chat(
        types.MessageRole.FUNCTION if function else types.MessageRole.TOOL,
        _li_blocks(blocks),
        tool_call_id=result.tool_call_id,
        **named,
    )


def _li_blocks(blocks: Sequence[Block]) -> list[Any]:
    made = [_li_block(block) for block in blocks]
    return [block for block in made if block is not None]


def _li_block(block: Block) -> Any:
    """A block as one of LlamaIndex's; None where it has none for it."""
    if isinstance(block, TextBlock):
        return types.TextBlock.model_construct(text=block.text)
    if isinstance(block, RefusalBlock):
        return types.TextBlock.model_construct(text=block.refusal)
    if isinstance(block, ReasoningBlock):
        known = {theirs: getattr(block, ours) for theirs, ours in _REASONING.items()}
        return types.ThinkingBlock.model_construct(
            content=block.reasoning or None,
            additional_information={name: v for name, v in known.items() if v is not None},
        )
    if isinstance(block, ToolCallBlock):
        return types.ToolCallBlock.model_construct(
            tool_call_id=block.id, tool_name=block.name, tool_kwargs=decode(block.args)
        )
    if isinstance(block, OtherBlock):
        if block.value.get("$class") in BLOCKS:
            return _restored(None, block.value)
        return None
    if isinstance(block, ToolResultBlock):
        return types.TextBlock.model_construct(text=text_of([block]))
    return _li_media(block)


def _li_media(block: ImageBlock | AudioBlock | VideoBlock | FileBlock) -> Any:
    data = None if block.base64 is None else block.base64.encode()
    extras = block.extras or {}
    if isinstance(block, FileBlock):
        if data is None and block.text is not None:
            data = base64.b64encode(block.text.encode())
        if data is None and block.url is None:
            return None
        return types.DocumentBlock.model_construct(
            data=data,
            url=block.url,
            title=block.filename or _UNTITLED,
            document_mimetype=block.mime_type,
        )
    if data is None and block.url is None:
        return None
    url = _url(block.url)
    if isinstance(block, ImageBlock):
        return types.ImageBlock.model_construct(
            image=data, url=url, image_mimetype=block.mime_type, detail=extras.get("detail")
        )
    if isinstance(block, VideoBlock):
        return types.VideoBlock.model_construct(
            video=data,
            url=url,
            video_mimetype=block.mime_type,
            detail=extras.get("detail"),
            fps=extras.get("fps"),
        )
    kind = block.mime_type and block.mime_type.removeprefix("audio/")
    return types.AudioBlock.model_construct(audio=data, url=url, format=kind)


def _url(url: str | None) -> Any:
    try:
        return None if url is None else AnyUrl(url)
    except ValidationError:
        return url
