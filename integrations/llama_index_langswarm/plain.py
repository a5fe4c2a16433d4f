"""Values of LlamaIndex's messages as JSON values, and back, exactly.

JSON has no tuples, bytes, addresses, paths, or keys that are not strings; those, and LlamaIndex's
own blocks, are written as an object with one key that begins with ``$``.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from io import IOBase
from pathlib import Path, PurePath
from typing import Any

from llama_index.core.base.llms import types
from pydantic import AnyUrl, BaseModel

from langswarm_session.errors import InvalidInputError

BLOCKS: dict[str, type[BaseModel]] = {
    kind.__name__: kind
    for kind in (
        types.TextBlock,
        types.ImageBlock,
        types.AudioBlock,
        types.VideoBlock,
        types.DocumentBlock,
        types.CachePoint,
        types.CacheControl,
        types.CitableBlock,
        types.CitationBlock,
        types.ThinkingBlock,
        types.ToolCallBlock,
    )
}
"""The classes that stored data may name."""

_PLAIN: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    dict: dict,
    list: list,
    tuple: tuple,
}


def encode(value: Any) -> Any:
    """The value as JSON values.

    Of an object with fields (pydantic's) the fields are kept, as LlamaIndex's own stores do; a
    file that is open is read.

    Raises:
        InvalidInputError: If it holds an object that could not be given back.
    """
    kind = type(value)
    if value is None or kind in (str, int, float, bool):
        return value
    if kind is list:
        return [encode(item) for item in value]
    if kind is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: encode(item) for key, item in value.items()}
        return {"$dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if kind is tuple:
        return {"$tuple": [encode(item) for item in value]}
    if kind is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    return _encode_object(value)


def _encode_object(value: Any) -> Any:
    kind = type(value)
    if isinstance(value, AnyUrl):
        return {"$url": str(value)}
    if isinstance(value, PurePath):
        return {"$path": str(value)}
    if isinstance(value, IOBase):
        return encode(read(value))
    if BLOCKS.get(kind.__name__) is kind:
        return {"$block": [kind.__name__, encode(dict(value.__dict__))]}
    if isinstance(value, BaseModel):
        return encode(value.model_dump())
    for base, plain in _PLAIN.items():
        if isinstance(value, base) and plain(value) == value:
            return encode(plain(value))
    raise InvalidInputError(
        f"a {kind.__module__}.{kind.__qualname__} in a message cannot be stored; give the message "
        "JSON values (numbers, text, lists, dicts), tuples, bytes or pydantic objects"
    )


def decode(value: Any) -> Any:
    """The value that `encode` was given."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, inner),) = value.items()
        if key == "$dict":
            return {decode(name): decode(item) for name, item in inner}
        if key == "$block":
            # Not validated: a picture's file may be gone, and the message is still readable.
            return BLOCKS[inner[0]].model_construct(**decode(inner[1]))
        if key in _MADE:
            return _MADE[key](decode(inner))
    return {key: decode(item) for key, item in value.items()}


def read(file: Any) -> bytes:
    """What is in an open file, in base64, as LlamaIndex keeps data given by value."""
    place = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(place)
    return base64.b64encode(data.encode() if isinstance(data, str) else data)


_MADE: dict[str, Callable[[Any], Any]] = {
    "$tuple": tuple,
    "$bytes": base64.b64decode,
    "$url": AnyUrl,
    "$path": Path,
}
