"""What names a local file in a message that comes from outside.

A framework reads such a file where the message is used, and sends it to a model: LlamaIndex's
blocks have a ``path``, which ``resolve_image()`` and the like open
(``llama_index.core.utils.resolve_binary``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from langswarm_session.blocks import Block, OtherBlock, ToolCallBlock, ToolResultBlock
from langswarm_session.models import SessionMessage

_URL = re.compile(r"\s*file:", re.IGNORECASE)
_URL_KEYS = frozenset(("url", "uri", "$url", "image_url", "file_url", "file_uri"))
_MARKS = frozenset(("$path", "$url"))
"""What marks a path and an address in the values that a door keeps (`formats.plain`)."""


def without_local_files(message: SessionMessage) -> SessionMessage:
    """Return the message without paths and addresses of local files; the same one if none."""
    content = message.content
    if not isinstance(content, str):
        content = [_block(block) for block in content]
    native = message.native
    if native is not None:
        native = {name: _cleaned(kept, paths=True) for name, kept in native.items()}
    if content == message.content and native == message.native:
        return message
    return message.model_copy(update={"content": content, "native": native})


def _block(block: Block) -> Block:
    changed: dict[str, Any] = {}
    url = getattr(block, "url", None)
    if url is not None and _URL.match(url):
        changed["url"] = None
    if block.extras is not None:
        changed["extras"] = _cleaned(block.extras, paths=False) or {}
    if isinstance(block, OtherBlock):
        changed["value"] = _cleaned(block.value, paths=True) or {}
    elif isinstance(block, ToolCallBlock):
        changed["args"] = _cleaned(block.args, paths=False, urls=False) or {}
    elif isinstance(block, ToolResultBlock) and not isinstance(block.content, str):
        changed["content"] = [_block(inner) for inner in block.content]
    return block.model_copy(update=changed) if changed else block


def _cleaned(value: Any, *, paths: bool, urls: bool = True) -> Any:
    """Return JSON data with None in place of what names a local file.

    Args:
        value: The data.
        paths: Whether text under the key ``path`` is such a name; in a caller's own data it need
            not be one.
        urls: Whether addresses are looked at.
    """
    if isinstance(value, list):
        return [_cleaned(item, paths=paths, urls=urls) for item in value]
    if not isinstance(value, Mapping):
        return value
    if len(value) == 1 and not value.keys().isdisjoint(_MARKS):
        ((mark, inner),) = value.items()
        local = mark == "$path" or (isinstance(inner, str) and _URL.match(inner))
        return None if local else dict(value)
    return {
        key: None
        if _is_local(key, item, paths=paths, urls=urls)
        else _cleaned(item, paths=paths, urls=urls)
        for key, item in value.items()
    }


def _is_local(key: str, value: Any, *, paths: bool, urls: bool) -> bool:
    if not isinstance(value, str):
        return False
    return (paths and key == "path") or (
        urls and key in _URL_KEYS and _URL.match(value) is not None
    )
