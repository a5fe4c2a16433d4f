"""Counts of tokens, as servers give them."""

from __future__ import annotations

_MOST_TOKENS = 2**40
"""The most that can be stored."""


def token_count(value: object) -> int:
    """Return a count of tokens; 0 for what is none: a reply is not lost over its bill."""
    if not isinstance(value, int | float) or value != value:
        return 0
    return int(min(max(0, value), _MOST_TOKENS))
