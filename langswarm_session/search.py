"""Finding messages by what can be read in them.

What is searched of a message is its text, what its tool calls say (names and values, not the keys)
and what their results were, reasoning that may be read, and names and texts of files. Letters match
whatever their case. A database narrows the messages down with a pattern; which of those match is
decided here, so that every storage finds the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import to_json

from langswarm_session.blocks import (
    Block,
    FileBlock,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.errors import InvalidInputError
from langswarm_session.models import MessageRole, SessionMessage, to_micros

if TYPE_CHECKING:
    from langswarm_session.records import SessionRef

MAX_TEXT = 1000
"""How many characters may be searched for."""

ESCAPE = "!"
"""What takes the meaning of a wildcard from the character behind it in a pattern."""

_PAGE = 500
"""How many sessions or messages are read at a time."""

# The two characters whose small letter is, or holds, one of ASCII stay as they are: a database that
# compares the letters of ASCII only would not find them either.
_APART = {0x130: "\ue130", 0x212A: "\ue131"}


def folded(text: str) -> str:
    """The text with the case of its letters taken away; as long as it was."""
    if text.isascii():
        return text.lower()
    return text.translate(_APART).lower().replace("\u03c2", "\u03c3")


def pieces(message: SessionMessage) -> Iterator[str]:
    """What can be read in a message, piece by piece."""
    if isinstance(message.content, str):
        yield message.content
    else:
        yield from _in_blocks(message.content)


def _in_blocks(blocks: Sequence[Block]) -> Iterator[str]:
    for block in blocks:
        if isinstance(block, TextBlock):
            yield block.text
        elif isinstance(block, RefusalBlock):
            yield block.refusal
        elif isinstance(block, ReasoningBlock):
            yield block.reasoning
        elif isinstance(block, ToolCallBlock):
            yield block.name
            yield from _values(block.args)
        elif isinstance(block, ToolResultBlock):
            yield from (
                [block.content] if isinstance(block.content, str) else _in_blocks(block.content)
            )
        elif isinstance(block, FileBlock):
            yield from filter(None, (block.filename, block.text))


def _values(value: Any) -> Iterator[str]:
    """The texts and whole numbers in JSON data, without its keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _values(each)
    elif isinstance(value, list):
        for each in value:
            yield from _values(each)


class Snippet(NamedTuple):
    """The place of a match, in one line: what is before it, the match itself, and what follows."""

    before: str
    match: str
    after: str

    def __str__(self) -> str:
        return f"{self.before}{self.match}{self.after}"


@dataclass(frozen=True, slots=True)
class MessageHit:
    """A message that was found.

    Attributes:
        session_id: The session it is in.
        user_id: Whose session that is.
        message: The message.
        text: What was looked for.
    """

    session_id: str
    user_id: str
    message: SessionMessage
    text: str

    def snippet(self, width: int = 80) -> Snippet:
        """The first match with what stands around it.

        Args:
            width: How many characters of the message are shown, at about.
        """
        wanted = folded(self.text)
        for piece in pieces(self.message):
            start = folded(piece).find(wanted)
            if start >= 0:
                return _snippet(piece, start, start + len(wanted), width)
        return Snippet("", "", "")

    @property
    def place(self) -> Place:
        """Where it stands among all messages."""
        return Place(to_micros(self.message.timestamp), self.session_id, self.message.seq or 0)


def _snippet(text: str, start: int, end: int, width: int) -> Snippet:
    room = max(0, width - (end - start))
    first = max(0, start - room // 2)
    last = min(len(text), end + room - (start - first))
    before, after = text[first:start], text[end:last]
    return Snippet(
        ("..." if first else "") + _line(before),
        _line(text[start:end]),
        _line(after) + ("..." if last < len(text) else ""),
    )


def _line(text: str) -> str:
    return "".join(" " if char in "\r\n\t\v\f\x85\u2028\u2029" else char for char in text)


class Place(NamedTuple):
    """Where a message stands among all: the newest is the greatest."""

    timestamp: int
    session_id: str
    seq: int

    def to_cursor(self) -> str:
        """The place as what a caller passes to go on behind it."""
        return f"{self.timestamp}.{self.seq}.{self.session_id}"

    @classmethod
    def of_cursor(cls, cursor: str) -> Place:
        """The place of a cursor.

        Raises:
            InvalidInputError: If it is none.
        """
        parts = cursor.split(".", 2) if isinstance(cursor, str) else []
        try:
            timestamp, seq = int(parts[0]), int(parts[1])
            if len(parts) == 3 and max(abs(timestamp), abs(seq)) < 2**63:
                return cls(timestamp, parts[2], seq)
        except (ValueError, IndexError):
            pass
        raise InvalidInputError(
            f"{cursor!r} is not a cursor; pass the next_cursor of the page before"
        )


class Search:
    """What is looked for.

    Args:
        text: Any part of a message, as it is: there are no wildcards in it.
        user_id: Only in this user's sessions; None for all users.
        session: Only in this session, whose user the search is limited to as well.
        role: Only what this role said.
        limit: How many messages at most.
        cursor: Where the page before ended.

    Attributes:
        before: Only messages that stand before this place.

    Raises:
        InvalidInputError: If an argument cannot be used.
    """

    def __init__(
        self,
        text: str,
        *,
        user_id: str | None = None,
        session: SessionRef | None = None,
        role: MessageRole | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> None:
        if not isinstance(text, str) or not text.strip():
            raise InvalidInputError("there is nothing to search for; give a part of a message")
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise InvalidInputError("the text has half a character in it; search for whole ones")
        if len(text) > MAX_TEXT:
            raise InvalidInputError(
                f"{len(text)} characters are too many to search for; {MAX_TEXT} are allowed"
            )
        self.text = text
        self.user_id = user_id
        self.session = session
        self.role = role
        self.limit = limit
        self.before = None if cursor is None else Place.of_cursor(cursor)
        self._folded = folded(text)

    @property
    def content_pattern(self) -> str:
        """For ``LIKE ... ESCAPE '!'``: fits each plain text that matches, and few others."""
        return _pattern(self.text)

    @property
    def json_pattern(self) -> str:
        """The same for a message's blocks as JSON, as `storage.rows` writes them."""
        return _pattern(to_json(self.text).decode()[1:-1])

    def matches(self, message: SessionMessage) -> bool:
        """Whether the text is in a message."""
        if self.role is not None and message.role is not self.role:
            return False
        return any(self._folded in folded(piece) for piece in pieces(message))

    def hit(self, session_id: str, user_id: str, message: SessionMessage) -> MessageHit:
        """A message that matches."""
        return MessageHit(session_id, user_id, message, self.text)

    def page(self, hits: Sequence[MessageHit]) -> SearchPage:
        """The page of hits, newest first, of which there is one more than wanted if any follow."""
        found = list(hits[: self.limit])
        more = len(hits) > self.limit
        return SearchPage(found, found[-1].place.to_cursor() if more else None)


def _pattern(text: str) -> str:
    """Return a pattern for the longest piece of a text in ASCII: letters beyond it may be anything.

    It is short and has no wildcard inside, as a database's LIKE takes the product of both lengths
    (https://www.sqlite.org/limits.html#max_like_pattern_length).
    """
    piece = max(_ASCII.findall(text), key=len, default="")[:_LONGEST_PIECE]
    escaped = _WILDCARDS.sub(lambda match: f"{ESCAPE}{match[0]}", piece)
    return f"%{escaped}%"


_ASCII = re.compile("[\x01-\x7f]+")
_WILDCARDS = re.compile(f"[%_{ESCAPE}]")
_LONGEST_PIECE = 32


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Some of the messages that were found.

    Attributes:
        hits: The messages, newest first.
        next_cursor: What to pass to get those that follow; None if none do.
    """

    hits: list[MessageHit]
    next_cursor: str | None
