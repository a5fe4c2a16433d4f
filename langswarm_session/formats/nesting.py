"""How deeply JSON may be nested."""

from __future__ import annotations

from pydantic_core import from_json

MAX_NESTING = 150
"""How many levels JSON may have that is stored. pydantic's parser reads 201
(``RecursionLimitExceeded`` in https://github.com/pydantic/jiter), and an export puts its own
levels around."""

_ROOM = 201 - MAX_NESTING
"""How many levels are put around a text for the parser to refuse one too many."""


def nests_too_deeply(text: bytes) -> bool:
    """Return whether JSON text has more levels than may be stored.

    Raises:
        ValueError: If it has enough brackets to be parsed, and is not JSON.
    """
    if text.count(b"[") + text.count(b"{") <= MAX_NESTING:
        return False
    try:
        from_json(b"[" * _ROOM + text + b"]" * _ROOM)
    except ValueError:
        from_json(text)
        return True
    return False
