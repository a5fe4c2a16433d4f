"""How much is done: the long form (``LANGSWARM_CHAOS=full``, as ``make chaos`` sets) or the short."""

from __future__ import annotations

import os

FULL = os.environ.get("LANGSWARM_CHAOS") == "full"
"""Whether this is the long form."""


def scaled(short: int, full: int) -> int:
    """The first in the short form, the second in the long one."""
    return full if FULL else short
