"""How sessions, messages and turns show themselves: as HTML in a notebook, as text in a terminal.

Everything that a message says is escaped; nothing of it is ever markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any, Protocol

from pydantic_core import to_json

from langswarm_session._media import inline, is_base64
from langswarm_session._sanitize import one_line, printable
from langswarm_session.blocks import (
    Block,
    FileBlock,
    ImageBlock,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    text_of,
)

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text


class UsageLike(Protocol):
    """The token counts of a reply that are shown."""

    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...


class MessageLike(Protocol):
    """The parts of a message that are shown."""

    @property
    def role(self) -> str: ...
    @property
    def seq(self) -> int | None: ...
    @property
    def blocks(self) -> list[Block]: ...
    @property
    def name(self) -> str | None: ...
    @property
    def timestamp(self) -> datetime: ...
    @property
    def model(self) -> str | None: ...
    @property
    def usage(self) -> UsageLike | None: ...
    @property
    def finish_reason(self) -> str | None: ...


class TurnLike(Protocol):
    """The parts of a turn that are shown."""

    @property
    def id(self) -> int: ...
    @property
    def status(self) -> str: ...
    @property
    def first_seq(self) -> int: ...
    @property
    def last_seq(self) -> int: ...
    @property
    def started_at(self) -> datetime: ...
    @property
    def finished_at(self) -> datetime | None: ...
    @property
    def error(self) -> str | None: ...


class MetricsLike(Protocol):
    """The figures of a session that are shown."""

    @property
    def total_tokens(self) -> int: ...
    @property
    def last_activity(self) -> datetime: ...


class RecordLike(Protocol):
    """The parts of a session's record that are shown."""

    @property
    def session_id(self) -> str: ...
    @property
    def user_id(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def message_count(self) -> int: ...
    @property
    def turn_count(self) -> int: ...
    @property
    def errors(self) -> int: ...
    def to_metrics(self) -> MetricsLike: ...


SHOWN = 50
"""How many of a session's newest messages are shown."""

SESSIONS_SHOWN = 20
"""How many of a manager's sessions, those used last, are shown."""

_LONGEST = 20_000
"""How many characters of one text are shown."""

_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_LARGEST_PICTURE = 2_000_000

_COLOURS = {
    "user": "#3b82f6",
    "assistant": "#0d9488",
    "system": "#858b96",
    "tool": "#d07a10",
    "function": "#d07a10",
}

# Only what stands on light and dark grounds alike.
_BOX = "font:14px/1.45 system-ui,sans-serif;max-width:52em"
_MUTED = "opacity:.65;font-size:12px"
_TEXT = "white-space:pre-wrap;overflow-wrap:anywhere;margin:.15em 0 .35em"
_CELL = "text-align:left;padding:.15em .8em .15em 0"


def message_html(message: MessageLike, *, longest: int | None = _LONGEST) -> str:
    """A message as HTML.

    Args:
        message: The message.
        longest: How many characters of one text are shown; None for all.
    """
    colour = _COLOURS[message.role]
    facts = [to_seconds(message.timestamp)]
    if message.seq is not None:
        facts.insert(0, f"#{message.seq}")
    if message.model:
        facts.append(message.model)
    if message.usage is not None:
        facts.append(f"{message.usage.input_tokens} + {message.usage.output_tokens} tokens")
    if message.finish_reason and message.finish_reason != "stop":
        facts.append(message.finish_reason)
    name = f" {one_line(message.name)}" if message.name else ""
    blocks = "".join(_block_html(block, longest) for block in message.blocks)
    return (
        f'<div style="border-left:3px solid {colour};padding:.1em .8em;margin:.5em 0">'
        f'<b style="color:{colour}">{escape(str(message.role) + name)}</b> '
        f'<span style="{_MUTED}">{escape(one_line(" · ".join(facts)))}</span>{blocks}</div>'
    )


def messages_html(messages: Sequence[MessageLike]) -> str:
    """Messages as a transcript."""
    shown = messages[-SHOWN:]
    left_out = len(messages) - len(shown)
    note = f'<div style="{_MUTED}">… {left_out} messages before</div>' if left_out else ""
    body = "".join(map(message_html, shown)) or f'<div style="{_MUTED}">no messages</div>'
    return f'<div style="{_BOX}">{note}{body}</div>'


def session_html(record: RecordLike, messages: Sequence[MessageLike]) -> str:
    """A session: what it is, and its newest messages as a transcript."""
    facts = " · ".join(session_facts(record))
    head = f'<b>{escape(record.session_id)}</b> <span style="{_MUTED}">{escape(facts)}</span>'
    left_out = record.message_count - len(messages)
    note = f'<div style="{_MUTED}">… {left_out} messages before</div>' if left_out > 0 else ""
    return f'<div style="{_BOX}">{head}{note}</div>{messages_html(messages)}'


def turn_html(turn: TurnLike) -> str:
    """A turn as one line."""
    return f'<div style="{_BOX}">{escape(_turn_line(turn))}</div>'


def table_html(columns: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> str:
    """A plain table."""
    head = "".join(f'<th style="{_CELL}">{escape(name)}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escape(str(cell))}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return (
        f'<div style="{_BOX}">{escape(note)}'
        f'<table style="border-collapse:collapse;font:inherit"><tr>{head}</tr>{body}</table></div>'
    )


SESSION_COLUMNS = ("session", "user", "status", "messages", "tokens", "model", "last activity")


def session_row(record: RecordLike) -> tuple[object, ...]:
    """A session as a row with the `SESSION_COLUMNS`."""
    metrics = record.to_metrics()
    return (
        record.session_id,
        record.user_id,
        record.status,
        record.message_count,
        metrics.total_tokens,
        f"{record.provider}/{record.model}",
        to_seconds(metrics.last_activity),
    )


def rich_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table for a terminal that ``rich`` writes to."""
    from rich.table import Table

    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*(_rich_text(str(cell)) for cell in row))
    return table


def _rich_text(text: str) -> Text:
    """Return text that is neither markup nor a control sequence."""
    from rich.text import Text

    return Text(printable(text))


def rich_messages(messages: Sequence[MessageLike]) -> Table:
    """Messages as a transcript for a terminal."""
    rows = [
        (message.seq or "", str(message.role), "\n".join(map(_words, message.blocks)))
        for message in messages[-SHOWN:]
    ]
    return rich_table(("#", "role", "content"), rows)


def rich_turn(turn: TurnLike) -> Text:
    """A turn as one line for a terminal."""
    return _rich_text(_turn_line(turn))


def rich_note(note: str, table: Table | None = None) -> Group | Text:
    """A line for a terminal, and a table below it."""
    from rich.console import Group

    return _rich_text(note) if table is None else Group(_rich_text(note), table)


def to_seconds(moment: datetime) -> str:
    """Return a time in UTC to the second; ``strftime`` cuts the zeros of years before 1000."""
    return moment.replace(tzinfo=None).isoformat(" ", "seconds")


def session_facts(record: RecordLike) -> list[str]:
    """What a session is, in a few words each."""
    metrics = record.to_metrics()
    return [
        f"of {record.user_id}",
        record.status,
        f"{record.provider}/{record.model}",
        f"{record.message_count} messages",
        f"{record.turn_count} turns",
        f"{metrics.total_tokens} tokens",
        *([f"{record.errors} errors"] if record.errors else []),
    ]


def _turn_line(turn: TurnLike) -> str:
    parts = [f"turn {turn.id}", str(turn.status), f"messages {turn.first_seq} to {turn.last_seq}"]
    if turn.finished_at is not None:
        # The one is the server's clock, the other may be the caller's.
        seconds = max(0.0, (turn.finished_at - turn.started_at).total_seconds())
        parts.append(f"{seconds:.1f} s")
    if turn.error:
        parts.append(turn.error)
    return one_line(" · ".join(parts))


def _block_html(block: Block, longest: int | None) -> str:
    if isinstance(block, TextBlock):
        return _text_html(block.text, longest)
    if isinstance(block, RefusalBlock):
        return f'<div style="{_MUTED}">refused</div>{_text_html(block.refusal, longest)}'
    if isinstance(block, ReasoningBlock):
        return _folded("reasoning", block.reasoning or "(not shown by the provider)", longest)
    if isinstance(block, ToolCallBlock):
        return _folded(f"calls {block.name}", _json(block.args), longest)
    if isinstance(block, ToolResultBlock):
        what = "error" if block.is_error else "result"
        of = f" of {block.name}" if block.name else ""
        return _folded(f"{what}{of}", text_of(block.content) or _json(block.content), longest)
    if isinstance(block, ImageBlock):
        return _picture_html(block, longest)
    return _folded(*_other(block), longest)


def _text_html(text: str, longest: int | None) -> str:
    return f'<div style="{_TEXT}">{escape(_short(text, longest))}</div>'


def _folded(title: str, text: str, longest: int | None) -> str:
    return (
        f'<details><summary style="cursor:pointer">{escape(title)}</summary>'
        f'<div style="{_TEXT};font-family:ui-monospace,monospace;font-size:12px">'
        f"{escape(_short(text, longest))}</div></details>"
    )


def _picture_html(block: ImageBlock, longest: int | None) -> str:
    """A picture that is in the message; one on the web is named, and not fetched."""
    given = inline(block)
    small = given is not None and len(given[1]) <= _LARGEST_PICTURE
    if given is not None and small and given[0] in _PICTURES and is_base64(given[1]):
        source = f"data:{given[0]};base64,{given[1]}"
        return f'<img src="{escape(source)}" style="max-width:20em;max-height:15em">'
    return _folded(*_other(block), longest)


def _other(block: Block) -> tuple[str, str]:
    name = block.filename if isinstance(block, FileBlock) and block.filename else ""
    values = block.model_dump(exclude_none=True, exclude={"base64"})
    return f"{block.type} {name}".strip(), _json(values)


def _words(block: Block) -> str:
    if isinstance(block, ToolCallBlock):
        return f"calls {block.name} {_json(block.args)}"
    if isinstance(block, ReasoningBlock):
        return f"(reasoning) {_short(block.reasoning)}"
    return _short(text_of([block])) or f"({block.type})"


def _json(value: Any) -> str:
    return to_json(value, indent=2, inf_nan_mode="constants", fallback=str).decode()


def _short(text: str, longest: int | None = _LONGEST) -> str:
    if longest is None or len(text) <= longest:
        return text
    return f"{text[:longest]}… ({len(text) - longest} characters more)"
