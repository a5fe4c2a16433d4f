"""What a provider and its model accept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from langswarm_session.blocks import Block
from langswarm_session.requests.normalize.paired import PAIRED, PairedKind


def takes_everything(block: Block, in_result: bool) -> bool:  # noqa: ARG001
    """Return the target of a provider that does not define one."""
    return True


def has_fields(value: Mapping[str, Any], fields: Mapping[str, type]) -> bool:
    """Return whether a block of a provider's own format has the fields, with these types."""
    return all(isinstance(value.get(name), kind) for name, kind in fields.items())


class SystemPlacement(StrEnum):
    """Where a request may have system messages."""

    ANYWHERE = "anywhere"
    """Where they were said."""
    AFTER_USER = "after_user"
    """At the start, or behind all that the user and the tools say, directly before the assistant
    speaks, as Anthropic's newest models take them
    (https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages)."""
    FIRST = "first"
    """Joined to one, at the start. A later one therefore changes how the request begins."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a provider and model accept.

    Attributes:
        provider: The provider's name.
        model: The model's name.
        strict: Whether anything is refused at all beyond unpaired calls and results.
        takes: Whether a block can be sent: of a user's or an assistant's message, or, with True
            as its second argument, inside of a tool's result.
        takes_back: Whether a block can be sent back in a reply that this provider and model gave;
            as `takes` says when None.
        reads: Whether the model reads the reasoning of another model of its provider.
        user_blocks: The types of blocks of the provider's own format that a user may send, each
            with the fields that it must have and their types.
        paired_kinds: The types of blocks of the provider's own format that are calls which a user
            answers, each with what answers it.
        compactions: Whose compactions it can read, as `langswarm_session.storage.replacements`
            names vendors; None for nobody's. It is sent what was compacted where it cannot.
        system: Where system messages may be.
        alternates: Whether user and assistant must take turns, the user first and last, and the
            calls in a message that another model gave must come last.
        answers_results: Whether the assistant must speak between a tool's results and the user.
        needs_user: Whether the last message must not be the assistant's.
        takes_calls: Whether calls of tools and their results can be sent; else they are put into
            words.
        call_id_length: How long a call's id may be.
        call_id_exact: How many letters and digits an id has, and nothing else; None where ids may
            differ in length.
        any_call_id: Whether it may have other characters than letters, digits, ``_`` and ``-``.
        keeps_call_ids: Whether it may have them in a reply of this provider and model.
    """

    provider: str = ""
    model: str = ""
    strict: bool = False
    takes: Callable[[Block, bool], bool] = takes_everything
    takes_back: Callable[[Block], bool] | None = None
    reads: Callable[[str], bool] | None = None
    user_blocks: Mapping[str, Mapping[str, type]] = field(default_factory=dict)
    paired_kinds: Mapping[str, PairedKind] = field(default_factory=lambda: PAIRED)
    compactions: str | None = None
    system: SystemPlacement = SystemPlacement.ANYWHERE
    alternates: bool = False
    answers_results: bool = False
    needs_user: bool = False
    takes_calls: bool = True
    call_id_length: int = 40
    call_id_exact: int | None = None
    any_call_id: bool = False
    keeps_call_ids: bool = False
