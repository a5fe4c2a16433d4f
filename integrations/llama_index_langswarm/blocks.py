"""LlamaIndex's content blocks as blocks of a session's messages, and back."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_index.core.base.llms import types
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
from langswarm_session.formats.arguments import RAW, call_of
from llama_index_langswarm.plain import BLOCKS, decode, encode, read

_REASONING = {"id": "id", "signature": "signature", "encrypted_content": "encrypted"}
_UNTITLED = "input_document"
"""What LlamaIndex calls a document without a title."""


def from_block(block: Any) -> Block:
    """Convert a LlamaIndex block to a session block."""
    make = _BLOCKS.get(type(block))
    return OtherBlock(value=fields_of(block)) if make is None else make(block)


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
    """Return data given by value as base64 text; LlamaIndex has it as bytes of that."""
    given: bytes = data if isinstance(data, bytes) else read(data)
    try:
        return given.decode("ascii")
    except UnicodeDecodeError:
        return base64.b64encode(given).decode()


def _file(block: types.DocumentBlock) -> FileBlock:
    title = None if block.title == _UNTITLED else block.title
    return FileBlock(filename=title, **_media(block, block.data, block.document_mimetype))


def _reasoning(block: types.ThinkingBlock) -> ReasoningBlock:
    told = block.additional_information or {}
    known = {
        ours: told[theirs]
        for theirs, ours in _REASONING.items()
        if isinstance(told.get(theirs), str)
    }
    return ReasoningBlock(reasoning=block.content or "", **known)


def _call(block: types.ToolCallBlock) -> ToolCallBlock:
    return _tool_call(block.tool_call_id, block.tool_name, block.tool_kwargs)


def _tool_call(call_id: str | None, name: str, arguments: Any) -> ToolCallBlock:
    if isinstance(arguments, str):
        return call_of(call_id, name, arguments)
    args = encode(arguments) if isinstance(arguments, dict) else {}
    return ToolCallBlock(id=call_id, name=name, args=args)


def former_calls(calls: Any) -> list[Block]:
    """Return the calls of a message from before LlamaIndex had blocks for them (OpenAI's shape)."""
    found: list[Block] = []
    for call in calls if isinstance(calls, list) else []:
        given = call.model_dump() if isinstance(call, BaseModel) else call
        function = given.get("function") if isinstance(given, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            found.append(_tool_call(given.get("id"), function["name"], function.get("arguments")))
    return found


def to_blocks(blocks: Sequence[Block]) -> list[Any]:
    """Blocks as LlamaIndex's; those that it has nothing for are left out."""
    made = [_to_block(block) for block in blocks]
    return [block for block in made if block is not None]


def _to_block(block: Block) -> Any:
    """Return a block as one of LlamaIndex's; None where it has none for it."""
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
        broken = (block.extras or {}).get(RAW)
        arguments = decode(block.args) if broken is None else broken
        return types.ToolCallBlock.model_construct(
            tool_call_id=block.id, tool_name=block.name, tool_kwargs=arguments
        )
    if isinstance(block, OtherBlock):
        kind = block.value.get("$class")
        return restored(None, block.value) if isinstance(kind, str) and kind in BLOCKS else None
    if isinstance(block, ToolResultBlock):
        return types.TextBlock.model_construct(text=text_of([block]))
    return _to_media(block)


def _to_media(block: ImageBlock | AudioBlock | VideoBlock | FileBlock) -> Any:
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


def fields_of(block: BaseModel) -> dict[str, Any]:
    """Return a block as JSON values, with its class."""
    name, fields = type(block).__name__, dict(block.__dict__)
    if BLOCKS.get(name) is not type(block):
        raise InvalidInputError(f"a block of the type {name} in a message cannot be stored")
    return {"$class": name, **{field: encode(value) for field, value in fields.items()}}


def restored(block: Any, kept: Mapping[str, Any]) -> Any:
    """Return a block with what was kept of it beside its neutral form; None: all of it was kept."""
    fields = {name: decode(value) for name, value in kept.items() if name != "$class"}
    if "$class" in kept:
        return BLOCKS[kept["$class"]].model_construct(**fields)
    return type(block).model_construct(**{**block.__dict__, **fields})


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
