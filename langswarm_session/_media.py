"""What the formats share about pictures, files and other data."""

from __future__ import annotations

import binascii
import re
from typing import Any

from langswarm_session.blocks import AudioBlock, FileBlock, ImageBlock, VideoBlock

Media = ImageBlock | AudioBlock | VideoBlock | FileBlock

DEFAULT_TYPES = {
    "image": "image/png",
    "audio": "audio/wav",
    "video": "video/mp4",
    "file": "application/pdf",
}
"""The media types assumed where none is named."""

_WEB_URL = re.compile(r"https?://[^\s/?#]+\S*")


def inline(block: Media) -> tuple[str, str] | None:
    """The media type and base64 text of data given by value, in the block or in a data URL."""
    if block.base64:
        return block.mime_type or DEFAULT_TYPES[block.type], block.base64
    if block.url and block.url.startswith("data:"):
        head, _, data = block.url[5:].partition(",")
        kind, *parameters = head.split(";")
        if "base64" in parameters and data:
            return kind or block.mime_type or DEFAULT_TYPES[block.type], data
    return None


def data_url(block: Media) -> str | None:
    """Data given by value as a data URL (RFC 2397)."""
    given = inline(block)
    return None if given is None else f"data:{given[0]};base64,{given[1]}"


def web_url(block: Media) -> str | None:
    """The block's address on the web, if it has one."""
    return block.url if block.url and _WEB_URL.fullmatch(block.url) else None


def is_base64(data: str) -> bool:
    """Whether a text is base64 (RFC 4648, section 4) of anything at all."""
    try:
        return bool(binascii.a2b_base64(data.encode("ascii"), strict_mode=True))
    except (binascii.Error, ValueError):
        return False


def without_none(**values: Any) -> dict[str, Any]:
    """The keywords that have a value."""
    return {name: value for name, value in values.items() if value is not None}
