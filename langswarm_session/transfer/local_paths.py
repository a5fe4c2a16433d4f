"""Messages without what points at files of this machine: for those that come from elsewhere.

LlamaIndex's blocks have a path, and LlamaIndex reads the file there and sends it to the model's
provider (``resolve_image`` in ``llama_index/core/base/llms/types.py``). In a message that was
imported the path is somebody else's, and the file the server's.
"""

from __future__ import annotations

from typing import Any

from langswarm_session.blocks import Block, OtherBlock, ToolResultBlock
from langswarm_session.models import SessionMessage

_LLAMA_INDEX = "llama_index"
_PATHS = ("path", "$path")
_BLOCK_CLASS = "$class"


def without_local_paths(message: SessionMessage) -> SessionMessage:
    """Return the message, or one without the paths that it has.

    What LlamaIndex keeps of a message besides its neutral form goes as a whole if it has a path.
    """
    changes: dict[str, Any] = {}
    native = message.native or {}
    if _has_path(native.get(_LLAMA_INDEX)):
        left = {name: part for name, part in native.items() if name != _LLAMA_INDEX}
        changes["native"] = left or None
    if not isinstance(message.content, str):
        blocks = [_without_path(block) for block in message.content]
        if blocks != message.content:
            changes["content"] = blocks
    return message.replaced(**changes) if changes else message


def _without_path(block: Block) -> Block:
    if isinstance(block, OtherBlock):
        if _BLOCK_CLASS in block.value and _has_path(block.value):
            return block.model_copy(update={"value": _emptied(block.value) or {}})
        return block
    if isinstance(block, ToolResultBlock):
        if isinstance(block.content, str):
            return block
        content = [_without_path(part) for part in block.content]
        return block if content == block.content else block.model_copy(update={"content": content})
    if _is_file(getattr(block, "url", None)):
        return block.model_copy(update={"url": None})
    return block


def _has_path(value: object) -> bool:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if any(part.get(name) is not None for name in _PATHS):
                return True
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
        elif _is_file(part):
            return True
    return False


def _emptied(value: Any) -> Any:
    """Return JSON values with nothing in the place of each path."""
    if isinstance(value, dict):
        if value.get("$path") is not None:
            return None
        return {
            name: None if name == "path" or _is_file(part) else _emptied(part)
            for name, part in value.items()
        }
    if isinstance(value, list):
        return [_emptied(part) for part in value]
    return value


def _is_file(value: object) -> bool:
    return isinstance(value, str) and value.strip().lower().startswith("file:")
