"""Halves of characters in what servers send.

JSON may name one half of a surrogate pair, and streams cut pairs in two. Neither can
be stored, nor sent: "no low surrogate in string"
(https://github.com/anthropics/claude-code/issues/60394).
"""

from __future__ import annotations

from typing import Any

from pydantic_core import PydanticSerializationError, to_json


def well_formed(text: str) -> str:
    """Return the text with its pairs joined, and U+FFFD for halves that are alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def well_formed_data(value: Any) -> Any:
    """Return plain data with all its texts well-formed: the same object if they are."""
    try:
        to_json(value)
    except PydanticSerializationError:
        return _mended(value)
    return value


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, list):
        return [_mended(each) for each in value]
    if isinstance(value, dict):
        return {_mended(name): _mended(each) for name, each in value.items()}
    return value


class TextPieces:
    """Pieces of a text, passed on without cutting a character in two."""

    def __init__(self) -> None:
        self._held = ""

    def passed(self, piece: str) -> str:
        """Return what can be shown with this piece; a first half waits for the second."""
        text, self._held = self._held + piece, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        return well_formed(text)
