"""A conversation as plain text, for APIs that take no messages."""

from __future__ import annotations

from collections.abc import Iterable

from langswarm_session.blocks import (
    Block,
    ReasoningBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    text_of,
)
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.requests.normalize.words import in_words


def transcript(messages: Iterable[SessionMessage]) -> str:
    """Return the conversation as lines (``user: Hello``), without system messages."""
    lines = []
    for message in messages:
        words = " ".join(filter(None, map(_words, message.blocks)))
        if words.strip() and message.role is not MessageRole.SYSTEM:
            lines.append(f"{message.role.value}: {words}")
    return "\n".join(lines)


def _words(block: Block) -> str:
    if isinstance(block, TextBlock):
        return block.text
    if isinstance(block, ToolCallBlock):
        return f"[calls {block.name} with {block.args}]"
    if isinstance(block, ToolResultBlock):
        return f"[result: {text_of([block])}]"
    return "" if isinstance(block, ReasoningBlock) else in_words(block)
