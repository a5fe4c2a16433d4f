"""LangChain's content blocks as blocks of a session's messages, and back.

https://docs.langchain.com/oss/python/langchain/messages#standard-content-blocks
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage

from langchain_langswarm.plain import encode
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
from langswarm_session.formats.arguments import RAW

_MEDIA: dict[str, Callable[..., Block]] = {
    "image": ImageBlock,
    "audio": AudioBlock,
    "video": VideoBlock,
    "file": FileBlock,
}

# What reading a block that is not as its type says runs into. (A ValidationError is a ValueError.)
_MALFORMED = (AttributeError, LookupError, TypeError, ValueError)


def blocks_of(message: BaseMessage) -> list[Block]:
    """Return a message's content as blocks; what is malformed is kept as it is."""
    blocks: list[Any]
    try:
        blocks = list(message.content_blocks)
    except _MALFORMED:
        blocks = list(message.content)
    return [_from_block(block) for block in blocks]


def _from_block(block: Any) -> Block:
    if isinstance(block, str):
        return TextBlock(text=block)
    values = dict(block)
    if str(values.get("id")).startswith("lc_"):  # LangChain's own, another each time
        del values["id"]
    try:
        return _standard_block(values)
    except _MALFORMED:
        return OtherBlock(value=encode(values))


def _standard_block(block: dict[str, Any]) -> Block:
    """Convert a standard LangChain content block to a session block."""
    kind = block.get("type")
    shared = {"id": block.get("id"), "extras": encode(block.get("extras"))}
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
        return ToolCallBlock(id=block.get("id"), name=block["name"], args=encode(block["args"]))
    if kind == "invalid_tool_call":
        return invalid_call(block)
    if kind == "non_standard":
        return OtherBlock(value=encode(block["value"]), **shared)
    return OtherBlock(value=encode(block))


def invalid_call(call: Mapping[str, Any]) -> Block:
    """Return a call whose arguments are not a JSON object, with the model's text for them."""
    call_id, name, args = call.get("id"), call.get("name") or "", call.get("args") or ""
    if not (isinstance(call_id, str | None) and isinstance(name, str) and isinstance(args, str)):
        return OtherBlock(value=encode(dict(call)))
    return ToolCallBlock(id=call_id, name=name, extras={RAW: args})


def to_content(content: str | Sequence[Block]) -> str | list[dict[str, Any]]:
    """Blocks as LangChain's content: text alone as a string, all else as standard blocks."""
    if isinstance(content, str):
        return content
    if not content:
        return ""
    if len(content) == 1 and isinstance(content[0], TextBlock) and _is_bare(content[0]):
        return content[0].text
    return [_to_block(block) for block in content]


def _is_bare(block: TextBlock) -> bool:
    return block.id is None and block.extras is None and block.annotations is None


def _to_block(block: Block) -> dict[str, Any]:
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
