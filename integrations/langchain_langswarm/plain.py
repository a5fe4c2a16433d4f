"""Python values as JSON values, and back, exactly: what a message's free-form fields may hold.

JSON has no tuples, bytes, or keys that are not strings; those, and LangChain's documents (which
retriever tools leave as artifacts), are written as an object with one key that begins with ``$``.
Of any other pydantic object (such as what structured output leaves in a message) the data is kept,
and comes back as plain data: stored text must never choose a class.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from langchain_core.documents import Document
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from langswarm_session.errors import InvalidInputError

# Of a subclass (such as the text that `message.text` gives) the plain value is kept: an equal one.
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

    Raises:
        InvalidInputError: If it holds an object that is neither data nor pydantic's.
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
    if isinstance(value, BaseModel):
        return {"$document": encode(dict(value))} if kind is Document else _data_of(value)
    for base, plain in _PLAIN.items():
        if isinstance(value, base) and plain(value) == value:
            return encode(plain(value))
    raise InvalidInputError(
        f"a {kind.__module__}.{kind.__qualname__} in a message cannot be stored; give the message "
        "JSON values (numbers, text, lists, dicts), tuples, bytes, LangChain documents or pydantic "
        "objects"
    )


def _data_of(value: BaseModel) -> Any:
    """What a pydantic object holds."""
    try:
        return encode(value.model_dump(mode="json"))
    except PydanticSerializationError as error:
        kind = type(value)
        raise InvalidInputError(
            f"the data of a {kind.__module__}.{kind.__qualname__} in a message is not JSON: {error}"
        ) from error


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
        if key == "$tuple":
            return tuple(decode(item) for item in inner)
        if key == "$bytes":
            return base64.b64decode(inner)
        if key == "$document":
            return Document(**decode(inner))
    return {key: decode(item) for key, item in value.items()}
