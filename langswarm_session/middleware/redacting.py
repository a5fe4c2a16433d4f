"""Keeping personal data and secrets out of the log, and away from the provider."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from langswarm_session.blocks import blocks_adapter
from langswarm_session.errors import InvalidInputError
from langswarm_session.interfaces import ISession, ISessionMiddleware
from langswarm_session.models import SessionMessage

_KEPT = frozenset(
    (
        "type",
        "id",
        "tool_call_id",
        "item_id",
        "file_id",
        "base64",
        "mime_type",
        "signature",
        "encrypted",
    )
)
"""The keys of blocks whose values are names and payloads rather than words."""

_PROOFS = ("signature", "encrypted")
"""What proves a text's origin, and does so no more when the text is another."""


def passes_luhn(digits: str) -> bool:
    """Whether the digits end with the check digit of payment cards (ISO/IEC 7812-1, annex B)."""
    numbers = [int(char) for char in digits if char.isdigit()]
    doubled = (sum(divmod(number * 2, 10)) for number in numbers[-2::-2])
    return sum(numbers[-1::-2], sum(doubled)) % 10 == 0


@dataclass(frozen=True, slots=True)
class Detector:
    """Finds one kind of data in a text.

    Attributes:
        name: What stands in place of what was found: ``[email]``.
        pattern: A regular expression.
        check: What else must hold of a match.
    """

    name: str
    pattern: re.Pattern[str]
    check: Callable[[str], bool] | None = None


EMAIL = Detector("email", re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b"))
CARD = Detector("card", re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,18}(?![\w])"), passes_luhn)
API_KEY = Detector(
    "api_key",
    re.compile(
        r"\b(?:(?:sk|pk|rk)[-_][\w-]{16,}|gh[pousr]_\w{30,}|xox[abprs]-[\w-]{10,}"
        r"|AKIA[0-9A-Z]{16}|AIza[\w-]{30,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,})"
    ),
)
PHONE = Detector(
    "phone",
    re.compile(r"(?<![\w.])(?:\+\d{1,3}[ .-]?|\(?0)\d?(?:[ ().-]{0,2}\d){6,12}(?![\w])"),
)

DETECTORS = (EMAIL, API_KEY, CARD, PHONE)
"""What is looked for unless something else is named, in this order."""


class RedactingMiddleware(ISessionMiddleware):
    """Replaces personal data and secrets before a message is stored or sent.

    It acts on texts, tool arguments and results, metadata and what frameworks keep of a message of
    their own, whichever door the message comes through. What is streamed to the reader is shown as
    it comes; what is stored of it is replaced.

    By itself this cannot be undone: ``[email]`` stands in place of the address. With a ``vault``
    the same value is always the same placeholder (``[email:bhdakfce]``), a model can tell two
    addresses apart, and `reveal` puts the originals back for the user; the log and the provider
    have the placeholders only.

    Args:
        detectors: What to look for, in order.
        vault: Where the originals are kept by placeholder: a dict, or any mutable mapping. It is
            never stored with the session; keep it where personal data may be, and as long.
        key: Makes placeholders: with the same key they are the same in each process. A vault of one
            process needs none.
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
        self._vault = vault
        self._key = secrets.token_bytes(32) if key is None else key

    async def process_outgoing_message(
        self, session: ISession, message: SessionMessage
    ) -> SessionMessage:
        """Replace what a user, a tool or the system says."""
        return self.redacted(message)

    async def process_incoming_message(
        self, session: ISession, message: SessionMessage
    ) -> SessionMessage:
        """Replace what a model says."""
        return self.redacted(message)

    def redacted(self, message: SessionMessage) -> SessionMessage:
        """The message without what the detectors find; the same one if they find nothing."""
        changes: dict[str, Any] = {}
        if isinstance(message.content, str):
            changes["content"] = self.redacted_text(message.content)
        else:
            blocks = blocks_adapter.dump_python(message.content, exclude_none=True)
            changes["content"] = self._walked(blocks)
        for name in ("metadata", "native", "name"):
            value = getattr(message, name)
            if value:
                changes[name] = self._walked(value)
        same = isinstance(message.content, str) and changes["content"] == message.content
        same = same or (not isinstance(message.content, str) and changes["content"] == blocks)
        if same and all(getattr(message, n) == v for n, v in changes.items() if n != "content"):
            return message
        return message.replaced(**changes)

    def redacted_text(self, text: str) -> str:
        """The text without what the detectors find."""
        for detector in self._detectors:
            text = detector.pattern.sub(partial(self._for, detector), text)
        return text

    def reveal(self, text: str) -> str:
        """A text with the originals in place of the placeholders, as far as the vault has them.

        Raises:
            InvalidInputError: If there is no vault.
        """
        if self._vault is None:
            raise InvalidInputError("what was replaced without a vault cannot be put back")
        vault = self._vault
        return _PLACEHOLDER.sub(lambda match: vault.get(match[0], match[0]), text)

    def _for(self, detector: Detector, match: re.Match[str]) -> str:
        value = match[0]
        if detector.check is not None and not detector.check(value):
            return value
        if self._vault is None:
            return f"[{detector.name}]"
        digest = hmac.new(self._key, value.encode(), hashlib.sha256).hexdigest()[:8]
        placeholder = f"[{detector.name}:{digest.translate(_LETTERS)}]"
        self._vault[placeholder] = value
        return placeholder

    def _walked(self, value: Any) -> Any:
        """JSON data with its texts replaced."""
        if isinstance(value, str):
            return self.redacted_text(value)
        if isinstance(value, list):
            return [self._walked(each) for each in value]
        if isinstance(value, dict):
            walked = {
                name: each if name in _KEPT else self._walked(each) for name, each in value.items()
            }
            if walked != value and any(name in walked for name in _PROOFS):
                walked = {name: each for name, each in walked.items() if name not in _PROOFS}
            return walked
        return value


_LETTERS = str.maketrans("0123456789", "ghijklmnop")
"""A placeholder has no digits, which the next detector could take for a number."""

_PLACEHOLDER = re.compile(r"\[[\w-]+:[a-p]{8}\]")
