"""What makes any part of a record a request that a provider accepts, and says what it changed.

A log may hold calls that were never answered, answers whose call was cut off, the reasoning of
another model, or pictures for a model that takes text. None of that is wrong in a record; every
provider refuses some of it. Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence

from langswarm_session.blocks import TextBlock
from langswarm_session.models import RESULT_ROLES, MessageRole, SessionMessage
from langswarm_session.requests.normalize.repairs import Repair, RepairKind, describe_repairs
from langswarm_session.requests.normalize.request import request_of
from langswarm_session.requests.normalize.target import SystemPlacement, Target

__all__ = [
    "Repair",
    "RepairKind",
    "SystemPlacement",
    "Target",
    "describe_repairs",
    "normalize",
]


def normalize(
    messages: Sequence[SessionMessage],
    target: Target,
    *,
    open_calls: Sequence[str] | None = None,
) -> tuple[list[SessionMessage], list[Repair]]:
    """Return messages that a provider accepts, and what was changed for that.

    Args:
        messages: Oldest first; those of a record, cut anywhere.
        target: What the provider accepts.
        open_calls: With a list, the messages go on from what the provider holds already, and these
            are the ids of the calls there that have no result yet.

    Returns:
        The messages to send, each tool's result behind its call, and what was changed. What a
        reply was made to stays as it was for that reply, whatever the log goes on with.
    """
    if _is_plain(messages, target, open_calls):
        return list(messages), []
    return request_of(messages, target, open_calls)


def _is_plain(
    messages: Sequence[SessionMessage], target: Target, open_calls: Sequence[str] | None
) -> bool:
    """Return whether the messages are texts that need no repair, as most windows are."""
    if open_calls:
        return False
    strict, alternates = target.strict, target.alternates
    last: MessageRole | None = MessageRole.ASSISTANT if alternates else None
    system, (tool, function) = MessageRole.SYSTEM, RESULT_ROLES
    moves_system = target.system is not SystemPlacement.ANYWHERE
    for place, message in enumerate(messages):
        role, content = message.role, message.content
        if type(content) is list and len(content) == 1 and type(content[0]) is TextBlock:
            content = content[0].text
        if type(content) is not str or role is tool or role is function:
            return False
        if strict and (not content or content.isspace()):
            return False
        if role is not system:
            if alternates and role is last:
                return False
            last = role
        elif moves_system and (place or open_calls is not None):
            return False
    return (
        not strict
        or last is MessageRole.USER
        or (last is not None and not alternates and not target.needs_user)
    )
