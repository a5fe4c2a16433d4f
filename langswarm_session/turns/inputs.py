"""Messages and an idempotency key of what a caller gives."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from langswarm_session._validation import check_id, describe
from langswarm_session.blocks import (
    Block,
    TextBlock,
    blocks_adapter,
    is_turn_context,
    text_of,
    turn_context_block,
)
from langswarm_session.errors import InvalidInputError
from langswarm_session.models import BARE_MESSAGE, MessageRole, SessionMessage, new_id, utc_now
from langswarm_session.records import IdempotencyKey
from langswarm_session.storage.rows import check_text


def make_message(
    content: str | list[Block] | SessionMessage,
    role: MessageRole | str,
    *,
    session_id: str,
    metadata: dict[str, Any] | None = None,
) -> SessionMessage:
    """A message from what a caller sends.

    Raises:
        InvalidInputError: If it is no message, or holds what cannot be stored as JSON.
    """
    if isinstance(content, SessionMessage):
        return content if metadata is None else _with_metadata(content, metadata, session_id)
    try:
        return SessionMessage(role=role, content=content, metadata=metadata or {})
    except ValidationError as error:
        raise InvalidInputError(describe(error), session_id=session_id) from None


def text_message(
    role: MessageRole, text: str, native: dict[str, Any] | None = None
) -> SessionMessage:
    """A new message of nothing but a text, in a third of the time that it takes to validate one.

    Args:
        role: Who speaks.
        text: What is said; a `str` itself, of no subclass.
        native: What a format adds to it, as JSON values; the message's own from now on.

    Raises:
        InvalidInputError: If there is half of a character in the text.
    """
    check_text(text)
    return SessionMessage._trusted(
        {
            **BARE_MESSAGE,
            "id": new_id(),
            "role": role,
            "content": text,
            "timestamp": utc_now(),
            "metadata": {},
            "native": native,
        }
    )


def with_turn_context(message: SessionMessage, text: str) -> SessionMessage:
    """Return a user's message with context for its turn behind its own content.

    Raises:
        InvalidInputError: If it is not a user's message, or the context is not a text.
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"turn_context must be a text, got {type(text).__name__}")
    if not text.strip():
        raise InvalidInputError("turn_context must not be empty; leave it out if there is none")
    if message.role is not MessageRole.USER:
        raise InvalidInputError(
            f"turn_context goes with a user's message, not with one of {message.role.value}"
        )
    check_text(text)
    return message.replaced(content=[*message.blocks, turn_context_block(text)])


def renamed(message: SessionMessage) -> SessionMessage:
    """The message under a new id."""
    return message.model_copy(update={"id": new_id()})


def check_sent(message: SessionMessage, session_id: str) -> SessionMessage:
    """A message to be answered, as it is.

    Raises:
        InvalidInputError: If it is the assistant's, or empty.
    """
    if message.role is MessageRole.ASSISTANT:
        raise InvalidInputError(
            "an assistant's message is not sent; store it with record()", session_id=session_id
        )
    if not message.content:
        raise InvalidInputError("the message is empty", session_id=session_id)
    return message


def as_messages(messages: object, session_id: str) -> list[SessionMessage]:
    """One message or several, as a list.

    Raises:
        InvalidInputError: If there is anything else among them.
    """
    given = [messages] if isinstance(messages, SessionMessage) else messages
    if not isinstance(given, list | tuple):
        given = [given]
    for message in given:
        if not isinstance(message, SessionMessage):
            raise InvalidInputError(
                f"expected a SessionMessage, not {type(message).__name__}", session_id=session_id
            )
    return list(given)


def texts_or_messages(
    messages: str | SessionMessage | Sequence[SessionMessage], session_id: str
) -> list[SessionMessage]:
    """A user's text, one message or several, as a list.

    Raises:
        InvalidInputError: If there is anything else among them.
    """
    if isinstance(messages, str):
        messages = make_message(messages, MessageRole.USER, session_id=session_id)
    return as_messages(messages, session_id)


def key_of(given: str | None, messages: Sequence[SessionMessage]) -> IdempotencyKey | None:
    """A caller's key, with what tells whether it comes with the same messages again.

    Raises:
        InvalidInputError: If it cannot be a key.
    """
    if given is None:
        return None
    return IdempotencyKey(check_id(given, "idempotency_key"), digest_of(messages))


def digest_of(messages: Sequence[SessionMessage]) -> str:
    """Return what tells whether messages are the same again."""
    digest = hashlib.sha256()
    for message in messages:
        content = _said(message)
        body = content.encode() if isinstance(content, str) else blocks_adapter.dump_json(content)
        # The length tells where the next message begins.
        digest.update(f"{message.role.value}:{len(body)}:".encode())
        digest.update(body)
    return digest.hexdigest()


def _said(message: SessionMessage) -> str | list[Block]:
    """Return a message's content without turn context, which a retry may give another way."""
    content = message.content
    if isinstance(content, str) or not any(map(is_turn_context, content)):
        return content
    said = [block for block in content if not is_turn_context(block)]
    return text_of(said) if all(isinstance(block, TextBlock) for block in said) else said


def _with_metadata(
    message: SessionMessage, metadata: dict[str, Any], session_id: str
) -> SessionMessage:
    if not isinstance(metadata, dict):
        raise InvalidInputError("metadata: must be a dict of JSON values", session_id=session_id)
    try:
        return message.replaced(metadata={**message.metadata, **metadata})
    except ValidationError as error:
        raise InvalidInputError(describe(error), session_id=session_id) from None
