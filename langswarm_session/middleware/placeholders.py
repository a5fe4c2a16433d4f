"""What stands in place of redacted values, and the way back."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import MutableMapping

from langswarm_session.errors import InvalidInputError

_LENGTH = 32
"""How many letters of a placeholder are chosen by the value: 4 bits each, 128 in all."""

_LETTERS = str.maketrans("0123456789", "ghijklmnop")
"""A placeholder has no digits, which the next detector could take for a number."""

_PLACEHOLDER = re.compile(rf"\[[\w-]{{1,64}}:[a-p]{{{_LENGTH}}}\]")


class Vault:
    """Originals by user and placeholder.

    A placeholder is made with a secret key from the user, the kind and the value: nobody can guess
    one, and a user who copies another's placeholder has no original under it.

    Args:
        originals: Where they are kept. Nothing in it is ever overwritten.
        key: The secret; a random one when None.

    Raises:
        InvalidInputError: If the key is empty or no bytes.
    """

    def __init__(self, originals: MutableMapping[str, str], key: bytes | None = None) -> None:
        if key is not None and not (isinstance(key, bytes) and key):
            raise InvalidInputError("key must be bytes, and not empty")
        self._originals = originals
        self._key = secrets.token_bytes(32) if key is None else key

    def placeholder(self, name: str, value: str, user_id: str | None) -> str:
        """Return the placeholder of a user's value, under which the value is kept from now on."""
        attempt = 0
        while True:
            made = f"[{name}:{self._letters(name, value, user_id, attempt)}]"
            if self._originals.setdefault(_place(made, user_id), value) == value:
                return made
            attempt += 1  # another value is kept there, which only a foreign mapping brings about

    def revealed(self, text: str, user_id: str | None) -> str:
        """Return a text with the user's originals in place of their placeholders."""
        return _PLACEHOLDER.sub(
            lambda match: self._originals.get(_place(match[0], user_id), match[0]), text
        )

    def _letters(self, name: str, value: str, user_id: str | None, attempt: int) -> str:
        message = json.dumps([user_id, name, value, attempt]).encode()
        return (
            hmac.new(self._key, message, hashlib.sha256).hexdigest()[:_LENGTH].translate(_LETTERS)
        )


def _place(placeholder: str, user_id: str | None) -> str:
    return placeholder if user_id is None else f"{user_id} {placeholder}"
