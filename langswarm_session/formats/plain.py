"""Python values as JSON values, and back, exactly: what a message's free-form fields may hold.

JSON has no tuples, bytes, or keys that are not strings; those, and objects of the classes that a
format names, are written as an object with one key that begins with ``$``. Stored text chooses
among those classes only.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from langswarm_session.errors import InvalidInputError
from langswarm_session.formats.native import MALFORMED

# Of a subclass (such as the text that a framework's `message.text` gives) the plain value is kept:
# an equal one.
_PLAIN: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    dict: dict,
    list: list,
    tuple: tuple,
}


class Kind(NamedTuple):
    """Objects that come back as what they were.

    Attributes:
        key: What marks them: ``$`` and a name.
        owns: Whether a value is such an object.
        parts: What to keep of one; may itself hold whatever can be kept.
        whole: The object that has these parts.
    """

    key: str
    owns: Callable[[Any], bool]
    parts: Callable[[Any], Any]
    whole: Callable[[Any], Any]


class PlainValues:
    """A format's values as JSON values, and back.

    Args:
        kinds: The objects that come back as what they were.
        data_of: What to keep of any other object, which comes back as that; `NotImplemented` of
            what has nothing to be kept.
        takes: What can be kept, in words, beside JSON values.
    """

    def __init__(self, kinds: Sequence[Kind], data_of: Callable[[Any], Any], *, takes: str) -> None:
        self._kinds = tuple(kinds)
        self._data_of = data_of
        self._takes = takes
        self._whole = {kind.key: kind.whole for kind in kinds}

    def encode(self, value: Any) -> Any:
        """Return the value as JSON values.

        Raises:
            InvalidInputError: If it holds an object that could not be given back.
        """
        kind = type(value)
        if value is None or kind in (str, int, float, bool):
            return value
        encode = self.encode
        if kind is list:
            return [encode(item) for item in value]
        if kind is dict:
            if all(type(key) is str and not key.startswith("$") for key in value):
                return {key: encode(item) for key, item in value.items()}
            return {"$dict": [[self._encode_key(key), encode(it)] for key, it in value.items()]}
        if kind is tuple:
            return {"$tuple": [encode(item) for item in value]}
        if kind is bytes:
            return {"$bytes": base64.b64encode(value).decode()}
        return self._encode_object(value)

    def decode(self, value: Any) -> Any:
        """Return the value that `encode` was given; what it never made comes back as it is."""
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((key, inner),) = value.items()
            if key.startswith("$"):
                try:
                    return self._decode_marked(key, inner)
                except MALFORMED:
                    return {key: self.decode(inner)}
        return {key: self.decode(item) for key, item in value.items()}

    def _encode_key(self, key: Any) -> Any:
        encoded = self.encode(key)
        try:
            hash(self.decode(encoded))
        except TypeError as error:  # an object can be a key, and its data cannot
            raise self._refusal(key) from error
        return encoded

    def _encode_object(self, value: Any) -> Any:
        for kind in self._kinds:
            if kind.owns(value):
                return {kind.key: self.encode(kind.parts(value))}
        data = self._data_of(value)
        if data is not NotImplemented:
            return self.encode(data)
        for base, plain in _PLAIN.items():
            if isinstance(value, base) and plain(value) == value:
                return self.encode(plain(value))
        raise self._refusal(value)

    def _refusal(self, value: Any) -> InvalidInputError:
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        return InvalidInputError(
            f"a {name} in a message cannot be stored; give the message JSON values (numbers, text, "
            f"lists, dicts), {self._takes}"
        )

    def _decode_marked(self, key: str, inner: Any) -> Any:
        if key == "$dict":
            return {self.decode(name): self.decode(item) for name, item in inner}
        if key == "$tuple":
            return tuple(self.decode(item) for item in inner)
        if key == "$bytes":
            return base64.b64decode(inner)
        whole = self._whole.get(key)
        return {key: self.decode(inner)} if whole is None else whole(self.decode(inner))
