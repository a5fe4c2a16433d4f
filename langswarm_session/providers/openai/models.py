"""What OpenAI's models take, by their names. A name that is not known is taken for a newer one."""

from __future__ import annotations

import re

_NUMBERED = re.compile(r"gpt-(\d+)(?:\.(\d+))?(?![\d.])")

_WITHOUT_REASONING = re.compile(
    r"(?:ft:)?(?:gpt-[34](?!\d)|chatgpt-|gpt-5(?:\.\d)?-chat|davinci|babbage)"
)
"""Models that do not reason, and refuse to be asked for what they thought."""


def version(model: str) -> tuple[int, int] | None:
    """Return a GPT model's version; None for models of other names.

    Args:
        model: The name, also with a router's ``openai/`` before it.
    """
    found = _NUMBERED.match(model.rpartition("/")[2])
    return None if found is None else (int(found[1]), int(found[2] or 0))


def reasons(model: str) -> bool:
    """Return whether a model may have reasoning that is worth asking for."""
    return _WITHOUT_REASONING.match(model.rpartition("/")[2]) is None


def binds_reasoning(model: str) -> bool:
    """Return whether a model's reasoning is dropped behind a changed beginning.

    So it is from GPT-6.2 on: https://developers.openai.com/api/docs/guides/latest-model/gpt-6.2-astra.md
    """
    return _is_from(model, (6, 2))


def has_instructions_of_turns(model: str) -> bool:
    """Return whether ``instructions`` are for one turn: they go behind the input, never cached.

    So it is from GPT-6.2 on, where what lasts belongs in a first developer message:
    https://developers.openai.com/api/docs/guides/keep-prefix-unchanged
    """
    return _is_from(model, (6, 2))


def takes_updates(model: str) -> bool:
    """Return whether settings may change by items of the input, without a new beginning.

    ``configuration_update`` came with GPT-6, and "pro" models refuse it:
    https://openrouter.ai/docs/cookbook/evaluate-and-optimize/model-migrations/gpt-6-astra
    """
    return _is_from(model, (6, 0)) and not model.endswith("-pro")


def _is_from(model: str, first: tuple[int, int]) -> bool:
    known = version(model)
    return known is not None and known >= first
