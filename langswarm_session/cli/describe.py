"""Messages as a person reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from rich.text import Text

from langswarm_session._sanitize import one_line
from langswarm_session.blocks import (
    Block,
    OtherBlock,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    text_of,
)
from langswarm_session.cli.output import printable
from langswarm_session.models import MessageRole, SessionMessage, Turn, TurnStatus

STYLES = {
    MessageRole.USER: "bold cyan",
    MessageRole.ASSISTANT: "bold green",
    MessageRole.SYSTEM: "bold magenta",
    MessageRole.TOOL: "bold yellow",
    MessageRole.FUNCTION: "bold yellow",
}


def local_time(moment: datetime) -> str:
    """Return a time as the clock here shows it, to the second.

    At the ends of the calendar, where the time here has no year, it is the time in UTC.
    """
    try:
        shown, zone = moment.astimezone(), ""
    except (OverflowError, ValueError):
        shown, zone = moment.astimezone(UTC), " UTC"
    return shown.replace(tzinfo=None).isoformat(" ", "seconds") + zone


def block_text(block: Block) -> str:
    """A block in words; what cannot be read as text is named in brackets."""
    if isinstance(block, TextBlock):
        return block.text
    if isinstance(block, RefusalBlock):
        return f"[refused] {block.refusal}"
    if isinstance(block, ReasoningBlock):
        return f"[reasoning] {block.reasoning or '(not shown by the provider)'}"
    if isinstance(block, ToolCallBlock):
        return f"-> {block.name}({json.dumps(block.args, ensure_ascii=False)})"
    if isinstance(block, ToolResultBlock):
        return f"<- {'failed: ' if block.is_error else ''}{text_of(block.content)}"
    if isinstance(block, OtherBlock):
        return f"[{block.kind or 'other'}]"
    source = block.url or block.file_id or ("given by value" if block.base64 else None)
    return f"[{' '.join(filter(None, (block.type, block.mime_type, source)))}]"


def message_text(message: SessionMessage) -> str:
    """A message's content in words, each block on lines of its own, safe to print."""
    return printable("\n".join(map(block_text, message.blocks)))


def transcript(messages: list[SessionMessage], turns: list[Turn]) -> Iterator[Text]:
    """The messages, each under a line that says who and when, with what became of their turns.

    Args:
        messages: Oldest first.
        turns: Those the messages belong to.
    """
    endings = {turn.last_seq: turn for turn in turns if turn.status is not TurnStatus.COMPLETE}
    for message in messages:
        speaker = message.role.value + (f" {message.name}" if message.name else "")
        yield Text.assemble(
            (one_line(speaker), STYLES[message.role]),
            (f"  #{message.seq}  {local_time(message.timestamp)}", "dim"),
        )
        yield Text(f"{_indented(message_text(message)) or '  (empty)'}\n")
        turn = endings.get(message.seq or 0)
        if turn is not None:
            yield Text(f"  {_ending(turn)}\n", "red")


def _ending(turn: Turn) -> str:
    if turn.status is TurnStatus.OPEN:
        return "(this turn is still open)"
    reason = f": {turn.error}" if turn.status is TurnStatus.FAILED and turn.error else ""
    return one_line(f"(this turn was {turn.status.value}{reason})")


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n")) if text else ""
