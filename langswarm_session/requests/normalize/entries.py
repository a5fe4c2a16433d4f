"""A request in the making: its messages, what of each can be sent, and the calls in them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

from langswarm_session.blocks import Block, OtherBlock, TextBlock, ToolResultBlock
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.requests.normalize.paired import Key

Answer = ToolResultBlock | OtherBlock
"""What answers a call: a tool's result, or a block of a provider's own format."""


@dataclass(slots=True)
class Exchange:
    """The calls of one message, and their answers in the order in which they came."""

    calls: list[Call] = field(default_factory=list)
    answers: list[tuple[SessionMessage, Answer]] = field(default_factory=list)


@dataclass(slots=True)
class Call:
    """A call on its way to its answer.

    Attributes:
        key: What its answer names.
        id: The id that it is sent with.
        name: The tool's name that it is sent with.
        block: The call, where it is one of a provider's own format.
    """

    key: Key
    id: str
    name: str
    exchange: Exchange
    block: OtherBlock | None = None
    is_answered: bool = False


@dataclass(slots=True)
class Entry:
    """A message with what of it can be sent, its answers to calls apart.

    Attributes:
        answers: Each with whether it must be moved: something to be sent is before it, or it is in
            a message of the assistant.
    """

    message: SessionMessage
    role: MessageRole
    blocks: list[Block]
    answers: list[tuple[Answer, bool]] = field(default_factory=list)
    exchange: Exchange | None = None


def with_blocks(message: SessionMessage, role: MessageRole, blocks: list[Block]) -> SessionMessage:
    """Return the message, as it is if it has these blocks already."""
    if message.role is role and are_same(blocks, message.content):
        return message
    return message.model_copy(update={"role": role, "content": blocks})


def are_same(blocks: Sequence[Block], content: str | Sequence[Block]) -> bool:
    """Return whether blocks are a content as it came."""
    if isinstance(content, str):
        return len(blocks) == 1 and isinstance(blocks[0], TextBlock) and blocks[0].text == content
    return len(blocks) == len(content) and all(map(operator.is_, blocks, content))
