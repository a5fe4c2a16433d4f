"""Texts and messages as PostgreSQL can hold them, and back.

PostgreSQL's ``text`` holds every character but NUL. In a name, NUL is written as U+0001 and a zero,
and U+0001 itself twice. In a message, content with a NUL goes into the JSON of ``extra``, where it
is escaped; so does an id that is not of our own making, with a digest of it in the ``id`` column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from langswarm_session.errors import InvalidInputError
from langswarm_session.models import SessionMessage
from langswarm_session.records import SessionRecord
from langswarm_session.storage import rules
from langswarm_session.storage.rows import (
    check_text,
    decode_messages,
    dump_json,
    encode_id,
    encode_message,
)
from langswarm_session.storage.session_rows import NoteRow, decode_note, decode_record

MAX_SIZE = 200_000_000
"""How many characters one write may have: of four bytes each, they are what a statement may be."""

MessageRow = tuple[int, str | None, int, bytes, str | None]
"""What of a row the message itself decides: role, content, timestamp, id, extra."""

_ESCAPED = re.compile("\x01([\x010])")


def to_text(text: str) -> str:
    """A name as a column holds it.

    Raises:
        InvalidInputError: If there is half of a character in it.
    """
    if text.isprintable():
        return text
    check_text(text)
    return text.replace("\x01", "\x01\x01").replace("\0", "\x010")


def from_text(text: str) -> str:
    """The name that a column holds."""
    if "\x01" not in text:
        return text
    return _ESCAPED.sub(lambda match: "\0" if match[1] == "0" else "\x01", text)


def maybe_text(text: str | None) -> str | None:
    """A name as a column holds it, if there is one."""
    return None if text is None else to_text(text)


def to_id(message_id: str) -> bytes:
    """A message id as it is stored: 16 bytes for our own, the 32 of a digest for any other."""
    packed = encode_id(message_id)
    return packed if isinstance(packed, bytes) else sha256(packed.encode()).digest()


def encode(message: SessionMessage) -> MessageRow:
    """The columns of a message.

    Raises:
        InvalidInputError: If it holds what cannot be stored.
    """
    role, content, timestamp, message_id, extra = encode_message(message)
    odd: dict[str, str] = {}
    if isinstance(message_id, str):
        odd["id"], message_id = message_id, sha256(message_id.encode()).digest()
    if content is not None and "\0" in content:
        odd["content"], content = content, None
    if odd:
        head = dump_json(odd)
        extra = head if extra is None else f"{head[:-1]},{extra[1:]}"
    return role, content, timestamp, message_id, extra


def to_row(record: SessionRecord) -> tuple[object, ...]:
    """A session's fields as the columns hold them."""
    return record._replace(
        session_id=to_text(record.session_id),
        user_id=to_text(record.user_id),
        provider=to_text(record.provider),
        model=to_text(record.model),
        turn_token=maybe_text(record.turn_token),
        turn_owner=maybe_text(record.turn_owner),
    )


def to_record(row: Sequence[object]) -> SessionRecord:
    """The session of a row of its fields."""
    record = decode_record(row)
    if "\x01" not in "".join(filter(None, (*record[:4], record.turn_token, record.turn_owner))):
        return record
    return record._replace(
        session_id=from_text(record.session_id),
        user_id=from_text(record.user_id),
        provider=from_text(record.provider),
        model=from_text(record.model),
        turn_token=maybe_from_text(record.turn_token),
        turn_owner=maybe_from_text(record.turn_owner),
    )


def to_note(row: Sequence[object]) -> NoteRow:
    """Return the note of a row with the `NOTE_COLUMNS`."""
    note = decode_note(row)
    return note._replace(
        key=maybe_from_text(note.key),
        digest=maybe_from_text(note.digest),
        error=maybe_from_text(note.error),
    )


def maybe_from_text(text: str | None) -> str | None:
    """The name that a column holds, if there is one."""
    return None if text is None else from_text(text)


def decode_long(rows: list[Any]) -> list[SessionMessage]:
    """The messages of very many rows, which are let go of on the way. For a thread of its own."""
    return decode_messages(_let_go(rows))


def _let_go(rows: list[Any]) -> Iterator[Any]:
    rows.reverse()
    while rows:
        yield rows.pop()


@dataclass(slots=True)
class EncodedMessages:
    """Messages to store, with their rows made beforehand, in the caller's thread.

    Attributes:
        messages: The messages.
        rows: Their rows.
        sums: Their input, output, cached and reasoning tokens.
        size: How many characters are to be stored.

    Raises:
        InvalidInputError: If they are too many for one write.
    """

    messages: Sequence[SessionMessage]
    rows: list[MessageRow] = field(init=False)
    sums: tuple[int, int, int, int] = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.rows = [encode(message) for message in self.messages]
        self.sums = rules.usage_sums(self.messages)
        self.size = sum(len(row[1] or "") + len(row[4] or "") for row in self.rows)
        if self.size > MAX_SIZE:
            raise InvalidInputError(
                f"{self.size} characters are too many for one write to PostgreSQL, which takes "
                f"{MAX_SIZE}; store what is so large elsewhere, and its address in the message"
            )
