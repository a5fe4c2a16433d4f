"""Several that answer one message: whose an answer is, and the keys that tell their turns apart.

An answer that somebody with a name gave says so in its metadata. A turn that answers a message of
another turn has a key of its own, made of the message, or of the caller's key, and the name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from langswarm_session.given import digest_of
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.records import IdempotencyKey

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
    """Who is asked, and the key of a turn in which this one answers what another turn has.

    Attributes:
        answerer: Who answers.
        key: The key.
    """

    answerer: str
    key: IdempotencyKey

    @classmethod
    def of(
        cls, answerer: str | None, key: IdempotencyKey | None, messages: Sequence[SessionMessage]
    ) -> Asked | None:
        """Return who is asked some messages; None where nobody else may be.

        Args:
            answerer: Who answers.
            key: The caller's key, which the other turn may have as well.
            messages: What is asked.
        """
        if answerer is None or not messages:
            return None
        asked = ["key", key.key] if key is not None else ["id", *(each.id for each in messages)]
        name = _digest(*asked, answerer)
        return cls(answerer, IdempotencyKey(name, digest_of(messages), only=True))

    def is_another(self, turn: Iterable[SessionMessage], key: IdempotencyKey | None) -> bool:
        """Return whether a turn that was complete already has somebody else's answer.

        Args:
            turn: Its messages.
            key: The caller's key that led to it: then an answer of nobody with a name is meant.
        """
        name = answered_by(turn)
        return name != self.answerer and (bool(name) or key is None)
