"""What was changed of a request so that a provider accepts it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from langswarm_session.blocks import Model
from langswarm_session.models import SessionMessage


class RepairKind(StrEnum):
    """What was changed of a request."""

    CALL_ANSWERED = "call_answered"
    """A call without a result was given one that says so."""
    RESULT_DROPPED = "result_dropped"
    """A result without its call, or a second one, was left out."""
    RESULT_MOVED = "result_moved"
    """A result that stood elsewhere was put behind its call."""
    ID_CHANGED = "id_changed"
    """A call had no id that can be sent, or that of another; or a result named no call."""
    NAME_CHANGED = "name_changed"
    """The name of a tool could not be sent."""
    REASONING_DROPPED = "reasoning_dropped"
    """Reasoning of another model, or without proof of its origin, was left out."""
    BLOCK_CONVERTED = "block_converted"
    """A block that the provider does not take was put into words."""
    BLOCK_DROPPED = "block_dropped"
    """A block that means nothing to the provider was left out."""
    MESSAGE_DROPPED = "message_dropped"
    """A message with nothing to be sent was left out."""
    REORDERED = "reordered"
    """The calls of a message were put behind the rest of it."""
    MERGED = "merged"
    """A message was joined to the one before it, of the same speaker."""
    USER_ADDED = "user_added"
    """A user's message was added where the provider must have one."""
    ASSISTANT_ADDED = "assistant_added"
    """An assistant's message was added where the provider must have one."""
    SYSTEM_MOVED = "system_moved"
    """A system message was put where the provider takes one, or joined to the first."""
    TOOLS_DECLARED = "tools_declared"
    """Tools of past calls were declared, not to be called: the provider must know of them."""
    HISTORY_AS_TEXT = "history_as_text"
    """What came before was sent as a transcript: the provider takes only what users say."""


class Repair(Model):
    """One change that made a request one that the provider accepts. The record is as it was.

    Attributes:
        kind: What was changed.
        message_id: The message; None where it was not one.
        detail: What exactly.
    """

    kind: RepairKind
    message_id: str | None = None
    detail: str = ""


class Report:
    """The changes of one request, in the order in which they were made."""

    def __init__(self) -> None:
        self.repairs: list[Repair] = []

    def add(self, kind: RepairKind, message: SessionMessage | None, detail: str) -> None:
        """Something was changed, of a message or beside all of them."""
        message_id = None if message is None else message.id
        self.repairs.append(Repair(kind=kind, message_id=message_id, detail=detail))


def describe_repairs(repairs: Iterable[Repair]) -> list[dict[str, str]]:
    """Repairs as JSON, for a message's metadata."""
    return [repair.model_dump(mode="json", exclude_none=True) for repair in repairs]
