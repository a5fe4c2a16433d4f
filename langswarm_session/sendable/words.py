"""Blocks in words, for whoever does not take them."""

from __future__ import annotations

from langswarm_session.blocks import (
    AudioBlock,
    Block,
    FileBlock,
    ImageBlock,
    RefusalBlock,
    VideoBlock,
    text_of,
)

MEDIA = (ImageBlock, AudioBlock, VideoBlock, FileBlock)
"""The blocks that are no text."""


def in_words(block: Block) -> str:
    """What can be said of a block to a model that does not take it. Never empty."""
    if isinstance(block, RefusalBlock):
        return block.refusal if block.refusal.strip() else "[refused]"
    if isinstance(block, FileBlock) and block.text:
        return f"[file {block.filename or ''}]\n{block.text}"
    if isinstance(block, MEDIA):
        name = getattr(block, "filename", None) or block.url or block.mime_type or ""
        name = "" if not name or name.startswith("data:") else f" {name[:200]}"
        return f"[{block.type}{name}]"
    text = text_of([block])
    return text if text.strip() else f"[{block.type}]"
