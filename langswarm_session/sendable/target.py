"""What a provider and its model accept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from langswarm_session.blocks import Block


def takes_everything(block: Block, in_result: bool) -> bool:  # noqa: ARG001
    """What a provider takes that has no say in it."""
    return True


def has_fields(value: Mapping[str, Any], fields: Mapping[str, type]) -> bool:
    """Return whether a block of a provider's own format has the fields, with these types."""
    return all(isinstance(value.get(name), kind) for name, kind in fields.items())


@dataclass(frozen=True, slots=True)
class Target:
    """What a provider and model accept.

    Attributes:
        provider: The provider's name.
        model: The model's name.
        strict: Whether anything is refused at all beyond unpaired calls and results.
        takes: Whether a block can be sent: of a user's or an assistant's message, or, with True
            as its second argument, inside of a tool's result.
        user_blocks: The types of blocks of the provider's own format that a user may send, each
            with the fields that it must have and their types.
        alternates: Whether user and assistant must take turns, the user first and last, and what
            the assistant says must come in order: its reasoning, the rest, its calls.
        needs_user: Whether the last message must not be the assistant's.
        call_id_length: How long a call's id may be.
        any_call_id: Whether it may have other characters than letters, digits, ``_`` and ``-``.
    """

    provider: str = ""
    model: str = ""
    strict: bool = False
    takes: Callable[[Block, bool], bool] = takes_everything
    user_blocks: Mapping[str, Mapping[str, type]] = field(default_factory=dict)
    alternates: bool = False
    needs_user: bool = False
    call_id_length: int = 40
    any_call_id: bool = False
