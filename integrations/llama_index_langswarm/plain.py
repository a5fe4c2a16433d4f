"""What LlamaIndex's messages may hold, as JSON values, and back.

Addresses, paths and LlamaIndex's own blocks come back as such. Of any other object with fields
(pydantic's) the fields are kept, as LlamaIndex's own stores do; a file that is open is read.
"""

from __future__ import annotations

import base64
from io import IOBase
from pathlib import Path, PurePath
from typing import Any

from llama_index.core.base.llms import types
from pydantic import AnyUrl, BaseModel

from langswarm_session.formats.plain import Kind, PlainValues

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


def read(file: Any) -> bytes:
    """Return what is in an open file, in base64, as LlamaIndex keeps data given by value."""
    place = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(place)
    return base64.b64encode(data.encode() if isinstance(data, str) else data)


def _data_of(value: Any) -> Any:
    if isinstance(value, IOBase):
        return read(value)
    return value.model_dump() if isinstance(value, BaseModel) else NotImplemented


def _is_block(value: Any) -> bool:
    return BLOCKS.get(type(value).__name__) is type(value)


def _block(parts: Any) -> BaseModel:
    name, fields = parts
    # Not validated: a picture's file may be gone, and the message is still readable.
    return BLOCKS[name].model_construct(**fields)


_KINDS = (
    Kind("$url", lambda value: isinstance(value, AnyUrl), str, AnyUrl),
    Kind("$path", lambda value: isinstance(value, PurePath), str, Path),
    Kind("$block", _is_block, lambda it: [type(it).__name__, dict(it.__dict__)], _block),
)
_values = PlainValues(_KINDS, _data_of, takes="tuples, bytes or pydantic objects")
encode = _values.encode
decode = _values.decode
