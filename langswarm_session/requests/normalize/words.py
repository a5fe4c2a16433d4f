"""Blocks in words, for models that do not take them."""

from __future__ import annotations

import re

from pydantic_core import to_json

from langswarm_session.blocks import (
    AudioBlock,
    Block,
    FileBlock,
    ImageBlock,
    OtherBlock,
    RefusalBlock,
    ToolCallBlock,
    VideoBlock,
    text_of,
)

MEDIA = (ImageBlock, AudioBlock, VideoBlock, FileBlock)
"""The blocks that are no text."""


_DATA = re.compile(r"data:[^\"\\]*")
_BESIDE = ("type", "id", "call_id", "status", "created_by", "approval_request_id")
_LONGEST = 2000


def in_words(block: Block) -> str:
    """Return what can be said of a block to a model that does not take it. Never empty."""
    if isinstance(block, RefusalBlock):
        return block.refusal if block.refusal.strip() else "[refused]"
    if isinstance(block, AudioBlock) and block.extras and block.extras.get("transcript"):
        return str(block.extras["transcript"])
    if isinstance(block, FileBlock) and block.text:
        return f"[file {block.filename or ''}]\n{block.text}"
    if isinstance(block, MEDIA):
        name = getattr(block, "filename", None) or block.url or block.mime_type or ""
        name = "" if not name or name.startswith("data:") else f" {name[:200]}"
        return f"[{block.type}{name}]"
    text = text_of([block])
    return text if text.strip() else f"[{block.type}]"


def call_in_words(call: ToolCallBlock) -> str:
    """Return a call of a tool, for a model that cannot be sent any. Never empty."""
    return f"[call of {call.name or 'a tool'}] {to_json(call.args, inf_nan_mode='null').decode()}"


def other_in_words(block: OtherBlock) -> str:
    """Return a short text for a block of a provider's own format. Never empty."""
    value = {name: each for name, each in block.value.items() if name not in _BESIDE}
    text = _DATA.sub("[data]", to_json(value).decode()) if value else ""
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return f"[{block.kind or 'a block'}] {text}".rstrip()
