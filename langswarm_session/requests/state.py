"""What a session remembers of its requests, so that every process sends the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from langswarm_session.models import SessionContext


@dataclass(frozen=True, slots=True)
class RequestState:
    """Where the requests of a session begin, and what providers noted about them.

    Attributes:
        start: The sequence number of the first message that is sent, system messages aside; older
            ones stay left out until the limits are raised. 0 for the whole log.
        max_messages: The context's limit of messages for which that was decided.
        max_input_tokens: Its limit of tokens; None for none.
        summary: The sequence number of the last message that its summary covered; 0 for none.
        reasoning_after: The reasoning of replies up to this sequence number is left out, because a
            provider refused it or dropped it.
        notes: What each provider noted about its requests, by the provider's name.
    """

    start: int = 0
    max_messages: int = 0
    max_input_tokens: int | None = None
    summary: int = 0
    reasoning_after: int = 0
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, context: SessionContext) -> Self:
        """Return the state that a context holds."""
        stored = context.request_state
        if not stored:
            return cls()
        return cls(
            start=stored.get("start", 0),
            max_messages=stored.get("max_messages", 0),
            max_input_tokens=stored.get("max_input_tokens"),
            summary=stored.get("summary", 0),
            reasoning_after=stored.get("reasoning_after", 0),
            notes=stored.get("notes", {}),
        )

    def to_context(self) -> dict[str, Any]:
        """Return the value of `SessionContext.request_state`: only what is set."""
        values = {
            "start": self.start,
            "max_messages": self.max_messages,
            "max_input_tokens": self.max_input_tokens,
            "summary": self.summary,
            "reasoning_after": self.reasoning_after,
            "notes": {name: dict(notes) for name, notes in self.notes.items()},
        }
        return {name: value for name, value in values.items() if value}

    def start_for(self, context: SessionContext) -> int:
        """Return where requests begin under a context's limits.

        That is 0 again once a limit was raised, or a summary covers less than it did.
        """
        is_raised = _is_raised(
            (self.max_messages, context.max_messages),
            (self.max_input_tokens, context.max_input_tokens),
        )
        return 0 if self.start and (is_raised or _covered(context) < self.summary) else self.start

    def started_at(self, seq: int, context: SessionContext) -> Self:
        """Return the state with requests that begin at a message, under a context's limits."""
        return replace(
            self,
            start=seq,
            max_messages=context.max_messages,
            max_input_tokens=context.max_input_tokens,
            summary=_covered(context),
        )

    def without_reasoning(self, seq: int) -> Self:
        """Return the state in which the reasoning of replies up to a number is left out."""
        return replace(self, reasoning_after=max(seq, self.reasoning_after))

    def with_notes(self, provider: str, notes: Mapping[str, Any]) -> Self:
        """Return the state with other notes of a provider."""
        return replace(self, notes={**self.notes, provider: dict(notes)})


def _covered(context: SessionContext) -> int:
    """Return the last message that a context's summary covers; 0 for none."""
    return 0 if context.summary is None else context.summary.last_seq


def _is_raised(*limits: tuple[int | None, int | None]) -> bool:
    """Return whether one of the limits, each as it was and as it is, has been raised."""
    return any(before is not None and (after is None or after > before) for before, after in limits)
