"""Who speaks when: user and assistant in turn, where a provider must have it so."""

from __future__ import annotations

from collections.abc import Iterable

from langswarm_session.blocks import ReasoningBlock
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.sendable.repairs import RepairKind, Report
from langswarm_session.sendable.target import Target

OPENING = "(The beginning of the conversation is left out.)"
"""The user's message where a conversation must begin with one and does not."""

CONTINUE = "Continue."
"""The user's message where a conversation must end with one and does not."""

_ASSISTANT, _SYSTEM, _USER = MessageRole.ASSISTANT, MessageRole.SYSTEM, MessageRole.USER


def with_users(
    messages: Iterable[SessionMessage], target: Target, report: Report, *, goes_on: bool
) -> list[SessionMessage]:
    """Messages with a user's where the provider must have one.

    Args:
        messages: What is sent, oldest first.
        target: What the provider accepts.
        report: Told of what is added, or will be joined.
        goes_on: Whether they go on from what the provider holds already.
    """
    sent: list[SessionMessage] = []
    last: SessionMessage | None = None
    for message in messages:
        if message.role is not _SYSTEM:
            if target.alternates:
                sent += _between(last, message, report, goes_on)
            last = message
        sent.append(message)
    must_end = target.alternates or target.needs_user
    if last is None or (must_end and last.role is _ASSISTANT):
        sent.append(_user(CONTINUE, "at the end", report))
    return sent


def _between(
    last: SessionMessage | None, message: SessionMessage, report: Report, goes_on: bool
) -> list[SessionMessage]:
    """What is put between two messages whose speakers must alternate."""
    if message.role is _ASSISTANT:
        if last is None:
            return [_user(CONTINUE if goes_on else OPENING, "at the beginning", report)]
        if last.role is _ASSISTANT:
            if isinstance(message.blocks[0], ReasoningBlock):
                return [_user(CONTINUE, "before the assistant reasons again", report)]
            report.add(RepairKind.MERGED, message, "to the assistant's before it")
    elif last is not None and last.role is message.role is _USER:
        report.add(RepairKind.MERGED, message, "to the user's before it")
    return []


def _user(text: str, where: str, report: Report) -> SessionMessage:
    report.add(RepairKind.USER_ADDED, None, where)
    return SessionMessage(role=_USER, content=text)
