"""What tells one chain from another, in any process: what it is made of."""

from __future__ import annotations

import hashlib
from typing import Any

from langchain_core.load import dumpd
from langchain_core.runnables import Runnable
from pydantic_core import to_json


def fingerprint(runnable: Runnable[Any, Any]) -> str:
    """Return a digest of what a chain is made of: its classes, its prompts, its models' options.

    Secrets and addresses in memory have no part in it.
    """
    made = _without_addresses(dumpd(runnable))
    return hashlib.sha256(to_json(made, fallback=lambda value: type(value).__name__)).hexdigest()[
        :16
    ]


def _without_addresses(value: Any) -> Any:
    if isinstance(value, dict):
        # The representation of what cannot be serialised may have its address.
        left_out = "repr" if value.get("type") == "not_implemented" else None
        return {name: _without_addresses(each) for name, each in value.items() if name != left_out}
    if isinstance(value, list | tuple):
        return [_without_addresses(each) for each in value]
    return value
