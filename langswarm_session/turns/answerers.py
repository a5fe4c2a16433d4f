"""Several that answer one message: whose an answer is, and the keys that tell their turns apart.

An answer that somebody with a name gave says so in its metadata. A turn that answers a message of
another turn has a key of its own, made of the message, or of the caller's key, and the name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.records import IdempotencyKey
from langswarm_session.turns.inputs import digest_of

ANSWERER = "langswarm_answerer"
"""The key of a message's metadata that names who answered; without it, it was whoever has none."""


def marked(messages: Iterable[SessionMessage], answerer: str | None) -> list[SessionMessage]:
    """Return messages of which the assistant's say who answered."""
    if not answerer:
        return list(messages)
    return [
        message.replaced(metadata={**message.metadata, ANSWERER: answerer})
        if message.role is MessageRole.ASSISTANT
        else message
        for message in messages
    ]


def answered_by(turn: Iterable[SessionMessage]) -> str:
    """Return who answered a turn; empty for whoever has no name."""
    answers = (message for message in turn if message.role is MessageRole.ASSISTANT)
    return next((str(message.metadata.get(ANSWERER, "")) for message in answers), "")


def again_key(key: IdempotencyKey, answerer: str | None) -> IdempotencyKey:
    """Return the key of a turn in which an answerer answers a message again."""
    return IdempotencyKey(_digest("again", key.key, answerer or ""), key.digest, only=True)


def _digest(*parts: str) -> str:
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"answer-{digest[:32]}"


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked some messages.

    Attributes:
        answerer: Who answers.
        messages: What is asked.
        caller_key: The caller's key, which another one's turn may have as well.
    """

    answerer: str
    messages: Sequence[SessionMessage]
    caller_key: IdempotencyKey | None = None

    @property
    def key(self) -> IdempotencyKey:
        """The key of a turn in which this one answers what another turn has."""
        known = self.caller_key
        asked = (
            ["id", *(each.id for each in self.messages)] if known is None else ["key", known.key]
        )
        digest = digest_of(self.messages) if known is None else known.digest
        return IdempotencyKey(_digest(*asked, self.answerer), digest, only=True)

    def is_another(self, turn: Iterable[SessionMessage]) -> bool:
        """Return whether a turn that was complete already has somebody else's answer.

        A caller's key also means an answer of nobody with a name.

        Args:
            turn: Its messages.
        """
        name = answered_by(turn)
        return name != self.answerer and (bool(name) or self.caller_key is None)
