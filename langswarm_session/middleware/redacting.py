"""Keeping personal data and secrets out of the log, and away from the provider."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from functools import partial
from typing import Any

from langswarm_session.blocks import Block, ReasoningBlock, ToolResultBlock, blocks_adapter
from langswarm_session.errors import InvalidInputError
from langswarm_session.interfaces import ISession, ISessionMiddleware
from langswarm_session.middleware.detectors import DETECTORS, Detector
from langswarm_session.middleware.placeholders import Vault
from langswarm_session.models import SessionMessage

_LONG = 16_384
"""From how many characters on a message is searched in another thread."""

_KEPT = frozenset(
    ("type", "id", "tool_call_id", "file_id", "base64", "mime_type", "signature", "encrypted")
)
"""The fields of a block that hold names and payloads rather than words."""

_IDENTITIES = ("id", "tool_call_id", "file_id", "base64")
_PROOFS = ("signature", "encrypted")
"""What proves a text's origin, and no longer does when the text has changed."""

_SMALLEST_NUMBER = 10**12
"""A smaller whole number is neither a card's nor a telephone's."""


class RedactingMiddleware(ISessionMiddleware):
    """Replaces personal data and secrets before a message is stored or sent.

    It acts on texts, tool arguments and results, metadata and what frameworks keep of a message of
    their own, on keys as on values, whichever door the message comes through. Of a message's own
    blocks it leaves ids, proofs of reasoning and data in base64 as they are. What is streamed to
    the reader is shown as it comes; what is stored of it is replaced. A long message is searched
    in another thread.

    By default this cannot be undone: ``[email]`` stands in place of the address. With a ``vault``
    the same value of the same user always has the same placeholder (``[email:bhdakfce...]``), a
    model can tell two addresses apart, and `reveal` puts the originals back for that user; the log
    and the provider have the placeholders only.

    Args:
        detectors: What to look for, in order.
        vault: Where the originals are kept: a dict, or any mutable mapping that may be used from
            several threads. It is never stored with the session; keep it where personal data may
            be, and as long. Its keys begin with the user's id.
        key: The secret that placeholders are made with: with the same key they are the same in
            each process. A vault of one process needs none.

    Raises:
        InvalidInputError: If an argument cannot be used.
    """

    def __init__(
        self,
        detectors: Sequence[Detector] = DETECTORS,
        *,
        vault: MutableMapping[str, str] | None = None,
        key: bytes | None = None,
    ) -> None:
        for detector in detectors:
            if not isinstance(detector, Detector):
                raise InvalidInputError(f"expected a Detector, not {type(detector).__name__}")
        self._detectors = tuple(detectors)
        self._vault = None if vault is None else Vault(vault, key)

    async def process_outgoing_message(
        self, session: ISession, message: SessionMessage
    ) -> SessionMessage:
        """Replace what a user, a tool or the system says."""
        return await self._processed(session, message)

    async def process_incoming_message(
        self, session: ISession, message: SessionMessage
    ) -> SessionMessage:
        """Replace what a model says."""
        return await self._processed(session, message)

    async def _processed(self, session: ISession, message: SessionMessage) -> SessionMessage:
        redact = partial(self.redacted, message, user_id=session.user_id)
        return await asyncio.to_thread(redact) if _is_long(message) else redact()

    def redacted(self, message: SessionMessage, *, user_id: str | None = None) -> SessionMessage:
        """Return the message without what the detectors find; the same one if they find nothing.

        Args:
            message: The message.
            user_id: Whose it is: only for that user `reveal` puts the originals back.
        """
        redaction = _Redaction(partial(self.redacted_text, user_id=user_id))
        changes = redaction.changes(message)
        return message.replaced(**changes) if changes else message

    def redacted_text(self, text: str, *, user_id: str | None = None) -> str:
        """Return the text without what the detectors find.

        Args:
            text: The text.
            user_id: Whose it is.
        """
        for detector in self._detectors:
            text = self._without(detector, text, user_id)
        return text

    def reveal(self, text: str, *, user_id: str | None = None) -> str:
        """Return a text with the originals in place of the placeholders.

        Args:
            text: The text.
            user_id: Whose originals: another user's placeholders stay as they are. None: those
                that were made without a user.

        Raises:
            InvalidInputError: If there is no vault.
        """
        if self._vault is None:
            raise InvalidInputError("what was replaced without a vault cannot be put back")
        return self._vault.revealed(text, user_id)

    def _without(self, detector: Detector, text: str, user_id: str | None) -> str:
        parts: list[str] = []
        end = 0
        for start, stop in detector.spans(text):
            parts += [text[end:start], self._replacement(detector.name, text[start:stop], user_id)]
            end = stop
        return "".join([*parts, text[end:]]) if parts else text

    def _replacement(self, name: str, value: str, user_id: str | None) -> str:
        if self._vault is None:
            return f"[{name}]"
        return self._vault.placeholder(name, value, user_id)


class _Redaction:
    """Redacts one message.

    Args:
        replaced: Returns a text without what is to be replaced.
    """

    def __init__(self, replaced: Callable[[str], str]) -> None:
        self._replaced = replaced
        self._same: set[str] = set()
        self._revoked: set[str] = set()

    def changes(self, message: SessionMessage) -> dict[str, Any]:
        """Return the message's fields that change, with their new values."""
        changes: dict[str, Any] = {"content": self._content(message.content)}
        changes["name"] = message.name and self._replaced(message.name)
        changes["metadata"] = self._walked(message.metadata)
        # A framework's copy of an id or a payload stays what it is in the message itself.
        self._same.update(_identities(message))
        changes["native"] = self._walked(message.native)
        return {name: new for name, new in changes.items() if new != getattr(message, name)}

    def _content(self, content: str | list[Block]) -> str | list[Block]:
        if isinstance(content, str):
            return self._replaced(content)
        return [self._block(block) for block in content]

    def _block(self, block: Block) -> Block:
        changed: dict[str, Any] = {}
        for name in type(block).model_fields:
            value = getattr(block, name)
            if name not in _KEPT and value is not None:
                is_content = name == "content"
                new = self._content(value) if is_content else self._walked(value)
                if new != value:
                    changed[name] = new
        if not changed:
            return block
        if isinstance(block, ReasoningBlock):
            self._revoked.update(filter(None, (block.signature, block.encrypted)))
            changed |= dict.fromkeys(_PROOFS)
        return block.model_copy(update=changed)

    def _walked(self, value: Any) -> Any:
        """Return JSON data with its texts replaced, keys too."""
        if isinstance(value, str):
            return value if value in self._same else self._replaced(value)
        if isinstance(value, list):
            return [self._walked(item) for item in value]
        if isinstance(value, dict):
            return self._walked_object(value)
        return self._number(value) if isinstance(value, int | float) else value

    def _number(self, value: float) -> Any:
        """Return a number, or the text in its place: JavaScript's numbers are all floats."""
        if abs(value) < _SMALLEST_NUMBER or (isinstance(value, float) and not value.is_integer()):
            return value
        digits = str(int(value))
        text = self._replaced(digits)
        return value if text == digits else text

    def _walked_object(self, value: dict[str, Any]) -> dict[str, Any]:
        walked: dict[str, Any] = {}
        numbers: dict[str, int] = {}
        for key, item in value.items():
            if isinstance(item, str) and item in self._revoked:
                continue
            name = _unused(self._replaced(key), walked, value, numbers)
            walked[name] = self._walked(item)
        return walked


def _unused(
    key: str, taken: dict[str, Any], original: dict[str, Any], numbers: dict[str, int]
) -> str:
    """Return a key under which nothing stands: two addresses both become ``[email]``.

    Args:
        key: The key.
        taken: What stands already.
        original: The object as it was.
        numbers: The last number that each key was given; those before it are not tried again.
    """
    name = key
    while name in taken or (name != key and name in original):
        numbers[key] = numbers.get(key, 1) + 1
        name = f"{key} {numbers[key]}"
    return name


def _identities(message: SessionMessage) -> Iterator[str]:
    yield message.id
    if message.provider_message_id:
        yield message.provider_message_id
    for block in _all_blocks(message.blocks):
        for name in _IDENTITIES:
            value = getattr(block, name, None)
            if value:
                yield value


def _all_blocks(blocks: Iterable[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, ToolResultBlock) and not isinstance(block.content, str):
            yield from _all_blocks(block.content)


def _is_long(message: SessionMessage) -> bool:
    content = message.content
    if isinstance(content, str) and not (message.metadata or message.native):
        return len(content) >= _LONG
    blocks = content if isinstance(content, str) else blocks_adapter.dump_python(content)
    size = 0
    for text in _texts([blocks, message.metadata, message.native]):
        size += len(text)
        if size >= _LONG:
            return True
    return False


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
