"""Messages and sessions as Redis keeps them, and back.

A message is one text: ``seq turn role timestamp id-size content-size `` and then the id, the
content and what else it has, as bytes. Scripts read the head of it, and only this module the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langswarm_session._bulk import collector_paused
from langswarm_session.errors import InvalidInputError
from langswarm_session.models import SessionMessage
from langswarm_session.records import SessionRecord
from langswarm_session.storage.rows import check_text, decode_message, encode_id, encode_message
from langswarm_session.storage.session_rows import damaged, decode_record

_NUMBERS = {name for name, kind in SessionRecord.__annotations__.items() if "int" in str(kind)}
_MOST = 2**53 - 1
"""Numbers above this are not exact in Lua."""


def to_bytes(text: str) -> bytes:
    """A name as it is stored.

    Raises:
        InvalidInputError: If there is half of a character in it.
    """
    check_text(text)
    return text.encode()


def id_field(message_id: str) -> bytes:
    """What a message id is looked up by: its kind (16 bytes, or text) and the id."""
    packed = encode_id(message_id)
    return b"b" + packed if isinstance(packed, bytes) else b"t" + packed.encode()


def encode(message: SessionMessage) -> tuple[bytes, bytes]:
    """What a message id is looked up by, and the message without its seq and turn.

    Raises:
        InvalidInputError: If it holds what cannot be stored.
    """
    role, content, timestamp, _, extra = encode_message(message)
    field = id_field(message.id)
    text = None if content is None else content.encode()
    size = -1 if text is None else len(text)
    head = f"{role} {timestamp} {field[:1].decode()}{len(field) - 1} {size} ".encode()
    return field, b"".join((head, field[1:], text or b"", (extra or "").encode()))


def with_place(row: bytes, seq: int, turn: int) -> bytes:
    """The whole row of a message."""
    return b"%d %d %b" % (seq, turn, row)


def decode(row: bytes) -> SessionMessage:
    """Return the message of a whole row.

    Raises:
        StorageCorruptError: If the row is no message.
    """
    try:
        columns = _columns(row)
    except (ValueError, IndexError):
        raise damaged("a message of a session") from None
    return decode_message(columns)


def _columns(row: bytes) -> tuple[int, int, str | None, int, bytes | str, int, str | None]:
    seq, turn, role, timestamp, id_size, content_size, rest = row.split(b" ", 6)
    id_end = int(id_size[1:])
    size = int(content_size)
    end = id_end + max(size, 0)
    message_id = rest[:id_end]
    return (
        int(seq),
        int(role),
        None if size < 0 else rest[id_end:end].decode(),
        int(timestamp),
        message_id if id_size[:1] == b"b" else message_id.decode(),
        int(turn),
        rest[end:].decode() or None,
    )


def decode_all(rows: Iterable[bytes]) -> list[SessionMessage]:
    """The messages of many rows."""
    with collector_paused():
        return [decode(row) for row in rows]


def to_record(values: Sequence[bytes | None]) -> SessionRecord:
    """Return the session of its fields, in the record's order.

    Raises:
        StorageCorruptError: If a field holds what no storage puts there.
    """
    pairs = zip(SessionRecord._fields, values, strict=True)
    try:
        fields = [_value(name, value) for name, value in pairs]
    except ValueError:
        raise damaged("the fields of a session") from None
    return decode_record(fields)


def to_number(value: bytes | None) -> int:
    """Return a whole number.

    Raises:
        StorageCorruptError: If it is none.
    """
    try:
        return int(value or b"")
    except ValueError:
        raise damaged("a number of a session") from None


def to_name(value: bytes) -> str:
    """Return a text.

    Raises:
        StorageCorruptError: If it is none.
    """
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise damaged("a text of a session") from None


def own_fields(record: SessionRecord) -> dict[str, Any]:
    """Return a record's fields as its hash has them; the number is kept apart."""
    fields = record._asdict()
    del fields["creation"]
    return fields


def to_fields(values: Mapping[str, Any]) -> list[bytes | str | int]:
    """Names and values of a session's fields, to be set; those that are None are left out."""
    fields: list[bytes | str | int] = []
    for name, value in values.items():
        if value is not None:
            fields += [name, to_bytes(value) if isinstance(value, str) else value]
    return fields


def check_sums(sums: Sequence[int]) -> None:
    """Raises InvalidInputError if there are more tokens than can be counted."""
    if max(sums) > _MOST:
        raise InvalidInputError(f"more than {_MOST} tokens cannot be counted")


def _value(name: str, value: bytes | None) -> Any:
    if value is None:
        return None
    return int(value) if name in _NUMBERS else value.decode()
