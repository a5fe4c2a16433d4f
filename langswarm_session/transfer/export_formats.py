"""Sessions as text in the formats that are asked for, written as they are read.

Only ``jsonl`` and ``json`` bring back all that a record holds. ``openai`` is the chat format, a
conversation a line; ``markdown`` and ``html`` are for reading.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable
from enum import StrEnum
from html import escape
from typing import Any

from langswarm_session._display import message_html, session_facts, to_seconds
from langswarm_session.blocks import (
    Block,
    FileBlock,
    OtherBlock,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    text_of,
)
from langswarm_session.formats.openai_transcripts import to_transcript
from langswarm_session.models import SessionMessage
from langswarm_session.requests.normalize.words import in_words
from langswarm_session.session import BaseSession
from langswarm_session.transfer.exporting import FORMAT, VERSION, export_session, messages_of

Dump = Callable[[Any], str]
"""Plain data as JSON text in one line."""


class ExportFormat(StrEnum):
    """How sessions are written."""

    JSONL = "jsonl"
    JSON = "json"
    MARKDOWN = "markdown"
    OPENAI = "openai"
    HTML = "html"


_PAGE_HEAD = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><title>Sessions</title>'
    "<style>:root{color-scheme:light dark}body{font:14px/1.45 system-ui,sans-serif;"
    "max-width:52em;margin:2em auto;padding:0 1em}</style></head><body>\n"
)
_PAGE_END = "</body></html>\n"


class Exporter:
    """Writes sessions in one format.

    Args:
        form: The format.
        dump: What makes JSON text.

    Attributes:
        sessions: How many were written.
        messages: How many messages they had.
        lost: What the format has no place for, and how often it was left out or put into words.
    """

    def __init__(self, form: ExportFormat, dump: Dump | None = None) -> None:
        self._form = form
        self._dump = dump or (lambda value: json.dumps(value, ensure_ascii=False))
        self.sessions = 0
        self.messages = 0
        self.lost: Counter[str] = Counter()

    async def write(self, sessions: AsyncIterable[BaseSession]) -> AsyncIterator[str]:
        """The sessions as pieces of text.

        Raises:
            SessionError: If one cannot be read.
        """
        if self._form is ExportFormat.JSON:
            yield f'{{"format": {self._dump(FORMAT)}, "version": {VERSION}, "sessions": ['
        elif self._form is ExportFormat.HTML:
            yield _PAGE_HEAD
        async for session in sessions:
            async for piece in self._session(session):
                yield piece
            self.sessions += 1
        if self._form is ExportFormat.JSON:
            yield "\n]}\n"
        elif self._form is ExportFormat.HTML:
            yield _PAGE_END

    def _session(self, session: BaseSession) -> AsyncIterator[str]:
        return {
            ExportFormat.JSONL: self._jsonl,
            ExportFormat.JSON: self._json,
            ExportFormat.MARKDOWN: self._markdown,
            ExportFormat.OPENAI: self._openai,
            ExportFormat.HTML: self._html,
        }[self._form](session)

    async def _jsonl(self, session: BaseSession) -> AsyncIterator[str]:
        async for line in export_session(session):
            self.messages += line["type"] == "message"
            yield f"{self._dump(line)}\n"

    async def _json(self, session: BaseSession) -> AsyncIterator[str]:
        first = True
        yield ",\n" if self.sessions else "\n"
        async for line in export_session(session):
            if line["type"] == "session":
                yield f'{{"session": {self._dump(line["session"])}, "log": ['
            elif line["type"] == "end":
                yield f'], "messages": {line["messages"]}}}'
                self.messages += line["messages"]
            else:
                yield f"{'' if first else ','}\n{self._dump(line)}"
                first = False

    async def _openai(self, session: BaseSession) -> AsyncIterator[str]:
        first = True
        yield f'{{"id": {self._dump(session.session_id)}, "messages": ['
        async for message in self._messages(session):
            made, lost = to_transcript(message)
            self.lost.update(lost)
            for each in made:
                yield f"{'' if first else ', '}{self._dump(each)}"
                first = False
        yield "]}\n"

    async def _html(self, session: BaseSession) -> AsyncIterator[str]:
        facts = " · ".join(session_facts(session.core.record))
        yield f"<h2>{escape(session.session_id)}</h2>\n<p>{escape(facts)}</p>\n"
        async for message in self._messages(session):
            yield f"{message_html(message, longest=None)}\n"

    async def _markdown(self, session: BaseSession) -> AsyncIterator[str]:
        facts = " · ".join(session_facts(session.core.record))
        yield f"# {_inline(session.session_id)}\n\n{_inline(facts)}\n"
        async for message in self._messages(session):
            yield _markdown_of(message)
        yield "\n"

    async def _messages(self, session: BaseSession) -> AsyncIterator[SessionMessage]:
        record = await session.core.storage.get_session(session.ref)
        async for message in messages_of(session.core.storage, record):
            self.messages += 1
            yield message


def _markdown_of(message: SessionMessage) -> str:
    """Return a message under a heading.

    What it says is quoted, so that it cannot look like a heading, and each block by itself: a code
    block that one of them leaves open ends with its quotation.
    """
    name = f" {_inline(message.name)}" if message.name else ""
    time = to_seconds(message.timestamp)
    heading = f"{message.role.value}{name} · #{message.seq} · {time} UTC"
    parts = "\n\n".join(_quoted(_block_markdown(block)) for block in message.blocks)
    return f"\n## {heading}\n\n{parts or '> (empty)'}\n"


def _block_markdown(block: Block) -> str:
    if isinstance(block, TextBlock):
        return _inert(block.text)
    if isinstance(block, RefusalBlock):
        return f"*refused:*\n\n{_inert(block.refusal)}"
    if isinstance(block, ReasoningBlock):
        return f"*reasoning:*\n\n{_inert(block.reasoning or '(not shown by the provider)')}"
    if isinstance(block, ToolCallBlock):
        arguments = json.dumps(block.args, ensure_ascii=False, indent=2)
        return f"*calls* {_code(block.name)}\n\n{_fenced(arguments, 'json')}"
    if isinstance(block, ToolResultBlock):
        what = "*failed:*" if block.is_error else "*result:*"
        return f"{what}\n\n{_fenced(text_of(block.content))}"
    if isinstance(block, FileBlock) and block.text:
        return f"*file* {_code(block.filename or 'without a name')}\n\n{_fenced(block.text)}"
    if isinstance(block, OtherBlock):
        return _fenced(json.dumps(block.value, ensure_ascii=False, indent=2), "json")
    return _inert(in_words(block))


# Raw HTML begins with "<" and a letter, "/", "!" or "?", an autolink with "<" and a letter, and a
# picture with "![" (https://spec.commonmark.org/0.31.2/#raw-html, #autolinks, #images); nothing of
# that can be written with entities (#entity-and-numeric-character-references). Links lead to pages.
# A link reference definition (#link-reference-definition) may stand in a list or a quotation, and
# its label may span lines, so "]:" counts wherever it stands.
_LIVE = re.compile(r"<[A-Za-z/!?]|!\[|\][(:]\s*(?!\s|https?://)", re.IGNORECASE)


def _inert(text: str) -> str:
    """Return Markdown that shows a text and neither runs nor fetches anything.

    A text with HTML, pictures or unusual links is shown as it was written, as a code block.
    """
    return _fenced(text) if _LIVE.search(text) else text


def _fenced(text: str, language: str = "") -> str:
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _code(text: str) -> str:
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {_one_line(text)} {fence}" if longest else f"`{_one_line(text)}`"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines()) or "> "


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _inline(text: str) -> str:
    """Return a text in one line, of which nothing is Markdown."""
    return re.sub(r"([\\`*_\[\]<>&!~|$])", r"\\\1", _one_line(text))
