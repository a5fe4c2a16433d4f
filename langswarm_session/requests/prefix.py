"""What a reply was made under: fingerprints that tell whether a request begins as an earlier one.

Providers bind a model's reasoning to everything that was sent before it, and bill what begins as an
earlier request did at a fraction. Each reply is stored with a fingerprint of the request that it
answers. While a later request is built, its own fingerprint up to that reply is compared with it.

- https://platform.claude.com/docs/en/build-with-claude/preserved-thinking/prefix-checks
- https://platform.claude.com/docs/en/build-with-claude/prompt-caching
"""

from __future__ import annotations

from hashlib import blake2b

from pydantic_core import to_json

from langswarm_session.models import SessionMessage
from langswarm_session.records import MadeUnder, PrefixChangeReason, ProviderRequest

_SIZE = 8
"""Bytes of a fingerprint: it tells changes apart, and guards nothing."""


class Prefix:
    """The fingerprint of a request while it is built, and whether it begins as the one before.

    A provider makes one for each request, asks `allows` of every reply in it before it adds that
    reply's parts, adds every part in the order in which it is sent, and calls `end`.

    Args:
        request: The request.
        system: Its system text as it is sent; anything that can be written as JSON.
        tools: Its tools, likewise.
        binds: Whether the model's reasoning is valid only behind the prefix it was made under.
    """

    def __init__(
        self, request: ProviderRequest, *, system: object, tools: object, binds: bool
    ) -> None:
        self._request = request
        self._binds = binds
        self._system, self._tools = _digest(system), _digest(tools)
        self._hash = blake2b(f"{self._system}{self._tools}".encode(), digest_size=_SIZE)
        self._changed: PrefixChangeReason | None = None

    def allows(self, message: SessionMessage) -> bool:
        """Return whether the reasoning of a reply is valid behind what was added so far.

        Args:
            message: The reply as it is stored.
        """
        made = MadeUnder.of(message)
        holds = made is not None and made.prefix == self._hash.hexdigest()
        context = self._request.context
        is_other = message.provider not in (None, context.provider)
        if is_other or message.model not in (None, context.model):
            self._changed = PrefixChangeReason.MODEL
        elif holds:
            self._changed = None
        elif made is None:
            pass  # it broke off, or was made by another door: the reply before it tells
        elif made.system != self._system:
            self._changed = PrefixChangeReason.SYSTEM
        elif made.tools != self._tools:
            self._changed = PrefixChangeReason.TOOLS
        else:
            self._changed = PrefixChangeReason.EDITED
        if message.seq is not None and message.seq <= self._request.reasoning_after:
            return False
        return holds or not self._binds

    def add(self, part: object) -> None:
        """Take in a part of the request: a content block, an item or a message."""
        self._hash.update(to_json(part, inf_nan_mode="constants", fallback=str))

    def end(self) -> None:
        """Note on the request what its reply will be made under, and what changed before it."""
        made = MadeUnder(self._hash.hexdigest(), self._system, self._tools)
        self._request.note_prefix(made, self._changed)


def _digest(value: object) -> str:
    written = to_json(value, inf_nan_mode="constants", fallback=str)
    return blake2b(written, digest_size=_SIZE).hexdigest()
