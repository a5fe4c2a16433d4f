"""A message as a database row, and back.

A plain text message takes its columns and no JSON at all; whatever else a message carries goes into
one JSON object in ``extra``. Ids of our own making take 16 bytes in place of 32.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from langswarm_session._bulk import collector_paused
from langswarm_session._sync.yielding import Desk
from langswarm_session.blocks import blocks_adapter
from langswarm_session.errors import InvalidInputError, StorageCorruptError
from langswarm_session.formats.nesting import MAX_NESTING, nests_too_deeply
from langswarm_session.models import (
    BARE_MESSAGE,
    MessageRole,
    SessionMessage,
    TokenUsage,
    from_micros,
    to_micros,
)

MESSAGE_COLUMNS = "seq, role, content, timestamp, id, turn, extra"
"""The columns of a message, in the order of the rows here, after the session's key."""

ROLES = list(MessageRole)
"""A role is stored as its place in this list, which may only grow at its end."""

_ROLE_CODES = {role: code for code, role in enumerate(ROLES)}
_ROLES_BY_CODE = dict(enumerate(ROLES))
ASSISTANT = _ROLE_CODES[MessageRole.ASSISTANT]
SYSTEM = _ROLE_CODES[MessageRole.SYSTEM]

_SURELY_SHORT = 4300
"""With so few characters JSON has no number that is too long to be read."""

AT_ONCE, _PIECE = 500, 50
"""How many rows are decoded at once, wherever it is, and how many of a longer log at a time."""

_desk = Desk()

_EXTRA_TYPES: dict[str, type] = {
    **dict.fromkeys(
        ("id", "content", "name", "provider", "model", "provider_message_id", "finish_reason"), str
    ),
    **dict.fromkeys(("metadata", "native"), dict),
}
"""What a message may have beside its columns, its blocks and its usage."""

_OWN_ID, _LONGEST_ID = 16, 512
"""Bytes of an id that is stored as such, and characters of any other."""

MessageRow = tuple[int, str | None, int, bytes | str, str | None]
"""What of a row the message itself decides: role, content, timestamp, id, extra."""


def encode_id(message_id: str) -> bytes | str:
    """A message id as it is stored: 16 bytes for 32 lower-case hex digits, else the text."""
    if len(message_id) == 32:
        try:
            packed = bytes.fromhex(message_id)
        except ValueError:
            packed = b""
        if packed.hex() == message_id:
            return packed
    check_text(message_id)
    return message_id


def encode_message(message: SessionMessage) -> MessageRow:
    """The columns of a message.

    Raises:
        InvalidInputError: If it holds what cannot be stored as JSON.
    """
    extra: dict[str, Any] = {}
    content: str | None = None
    if isinstance(message.content, str):
        content = message.content
        check_text(content)
    else:
        extra["blocks"] = blocks_adapter.dump_python(message.content, exclude_none=True)
    if message.name is not None:
        extra["name"] = message.name
    if message.metadata:
        extra["metadata"] = message.metadata
    if message.provider is not None:
        extra["provider"] = message.provider
    if message.model is not None:
        extra["model"] = message.model
    if message.provider_message_id is not None:
        extra["provider_message_id"] = message.provider_message_id
    if message.usage is not None:
        extra["usage"] = message.usage.model_dump(exclude_defaults=True)
    if message.finish_reason is not None:
        extra["finish_reason"] = message.finish_reason
    if message.native is not None:
        extra["native"] = message.native
    return (
        _ROLE_CODES[message.role],
        content,
        to_micros(message.timestamp),
        encode_id(message.id),
        dump_json(extra) if extra else None,
    )


def placed(message: SessionMessage, seq: int, turn: int) -> SessionMessage:
    """A copy of the message with the place in the log that a storage gives it."""
    return message._placed(seq, turn)


def check_text(text: str) -> None:
    """Raises InvalidInputError if there is half of a character (a lone surrogate) in the text."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"the text has half a character (a lone surrogate) at position {error.start}; "
            "join what was cut, or replace it"
        ) from None


def dump_json(value: object) -> str:
    """JSON text of plain data.

    Raises:
        InvalidInputError: If the value holds what JSON cannot, or what could not be read again.
    """
    try:
        text = to_json(value, inf_nan_mode="constants")
        if nests_too_deeply(text):
            raise InvalidInputError(
                f"this cannot be stored as JSON: it is nested more than {MAX_NESTING} levels deep"
            )
        if len(text) > _SURELY_SHORT:
            from_json(text)
        return text.decode()
    except (PydanticSerializationError, ValueError) as error:
        raise InvalidInputError(f"this cannot be stored as JSON: {error}") from None


def decode_message(
    row: tuple[int, int, str | None, int, bytes | str, int, str | None],
) -> SessionMessage:
    """Return the message of a row with the `MESSAGE_COLUMNS`.

    Raises:
        StorageCorruptError: If the row is no message; what it holds is not quoted.
    """
    seq, role, content, timestamp, message_id, turn, extra = row
    # This takes most of the time of reading a long log, so nothing is called that need not be.
    if not (
        type(seq) is type(role) is type(timestamp) is type(turn) is int
        and (content is None or type(content) is str)
        and (extra is None or type(extra) is str)
        and seq > 0
        and turn > 0
    ):
        raise _damaged(seq)
    is_own = type(message_id) is bytes and len(message_id) == _OWN_ID
    try:
        values: dict[str, Any] = {
            **BARE_MESSAGE,
            "id": message_id.hex() if is_own else _text_id(message_id),  # type: ignore[union-attr]
            "role": _ROLES_BY_CODE[role],
            "content": content,
            "timestamp": from_micros(timestamp),
            "metadata": {},
            "turn_id": turn,
            "seq": seq,
        }
        if extra is not None:
            _add_extra(values, extra)
    except (ValueError, LookupError, TypeError, RecursionError):
        raise _damaged(seq) from None
    if values["content"] is None or not values["id"]:
        raise _damaged(seq)
    return SessionMessage._trusted(values)


def decode_id(stored: object) -> str:
    """Return the message id that `encode_id` made this of.

    Raises:
        StorageCorruptError: If it is none.
    """
    if type(stored) is bytes and len(stored) == _OWN_ID:
        return stored.hex()
    message_id = _text_id(stored)
    if not message_id:
        raise _damaged(None)
    return message_id


def decode_roles(codes: Iterable[object]) -> list[MessageRole]:
    """Return the roles of messages; what is none is left out, as whether there is an answer has to
    be told of damaged messages as well.
    """
    return [_ROLES_BY_CODE[code] for code in codes if type(code) is int and code in _ROLES_BY_CODE]


def _damaged(seq: object) -> StorageCorruptError:
    which = f"message {seq}" if type(seq) is int else "a message"
    return StorageCorruptError(
        f"{which} of a session cannot be decoded: the database is damaged; restore a copy"
    )


def _text_id(stored: object) -> str | None:
    """Return an id that is stored as text; None for a digest of one, which is in ``extra``."""
    return stored if type(stored) is str and len(stored) <= _LONGEST_ID else None


def _add_extra(values: dict[str, Any], extra: str) -> None:
    """Add what a message has beside its columns.

    Raises:
        ValueError, LookupError, TypeError, RecursionError: If it is not what was stored.
    """
    fields = from_json(extra)
    if type(fields) is not dict:
        raise TypeError("not a JSON object")
    blocks = fields.pop("blocks", None)
    if blocks is not None:
        values["content"] = blocks_adapter.validate_python(blocks)
    usage = fields.pop("usage", None)
    if usage is not None:
        values["usage"] = TokenUsage.model_validate(usage)
    for name, value in fields.items():
        if type(value) is not _EXTRA_TYPES[name]:
            raise TypeError(name)
    values.update(fields)


def decode_messages(rows: Iterable[Any]) -> list[SessionMessage]:
    """The messages of many rows. Where they are very many, other threads run in between."""
    source = iter(rows)
    with collector_paused():
        messages = [decode_message(row) for row in islice(source, AT_ONCE)]
        while piece := list(islice(source, _PIECE)):
            with _desk.piece():
                messages += [decode_message(row) for row in piece]
    return messages
