"""The Lua that runs in the server: what reads or writes more than one key at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files

from langswarm_session.records import SessionRecord
from langswarm_session.storage import rules
from langswarm_session.storage.rows import ASSISTANT, SYSTEM

FIELDS = (*SessionRecord._fields[:-1], "number")
"""A session's fields, in the order in which scripts return them: its creation is its number."""

NONCE = 8
"""How many characters tell one write from the others that its session had lately."""

_CONSTANTS = {
    "FIELDS": ", ".join(f"'{name}'" for name in FIELDS),
    "STATUS": str(FIELDS.index("status") + 1),
    "WRITABLE": "({" + ", ".join(f"['{status}'] = true" for status in rules.WRITABLE) + "})",
    "SYSTEM": f"'{SYSTEM}'",
    "ASSISTANT": f"'{ASSISTANT}'",
    "RECENT": str(16 * NONCE),
    "CAP": "1000",
}


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the name that the server knows it by once it was loaded."""

    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """The script of a file in ``lua/``."""
    text = files("langswarm_redis").joinpath("lua", f"{name}.lua").read_text("utf-8")
    names = "|".join(_CONSTANTS)
    text = re.sub(rf"\b({names})\b", lambda match: _CONSTANTS[match[1]], text)
    # Not for security: it is how Redis names scripts.
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


NAMES = ("guarded", "write", "messages", "measure", "turns", "sessions", "renew", "cancel", "fork")
"""All of them."""
