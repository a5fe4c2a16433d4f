"""The arguments of a tool call, as text or as an object that can be sent as JSON."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json, to_json, to_jsonable_python

from langswarm_session.blocks import ToolCallBlock
from langswarm_session.formats.nesting import nests_too_deeply

RAW = "arguments"
"""The key of a call's extras under which text is kept that is not a JSON object."""


def parsed(text: str | None) -> dict[str, Any] | None:
    """Return the arguments, or None for anything but a JSON object that can be stored."""
    try:
        value = from_json(text, allow_inf_nan=False) if text else {}
        too_deep = text is not None and nests_too_deeply(text.encode())
    except ValueError:
        return None
    return value if isinstance(value, dict) and not too_deep else None


def call_of(call_id: str | None, name: str, text: str | None, **extras: Any) -> ToolCallBlock:
    """Return a call with its arguments, or with the text that is none."""
    arguments = parsed(text)
    if arguments is None:
        arguments, extras[RAW] = {}, text or ""
    return ToolCallBlock(id=call_id, name=name, args=arguments, extras=extras or None)


def text_of_arguments(call: ToolCallBlock) -> str:
    """Return the arguments as the text of a JSON object: servers refuse anything else."""
    raw = (call.extras or {}).get(RAW)
    arguments = call.args if raw is None else parsed(str(raw)) or {RAW: raw}
    return to_json(arguments, inf_nan_mode="null").decode()


def object_of_arguments(call: ToolCallBlock) -> dict[str, Any]:
    """Return the arguments as an object that is JSON: a number that is none in JSON is null there.

    Raises:
        ValueError: If a value has no form in JSON.
    """
    arguments: dict[str, Any] = to_jsonable_python(call.args, inf_nan_mode="null")
    return arguments
