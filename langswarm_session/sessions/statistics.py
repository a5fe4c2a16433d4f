"""Figures over many sessions, added up from their rows: no message is read for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable
from dataclasses import dataclass, field

from langswarm_session.models import SessionStatus
from langswarm_session.records import SessionRecord
from langswarm_session.sessions.listing import ListedSession


@dataclass(slots=True)
class Sums:
    """What some sessions took.

    Attributes:
        sessions: How many sessions.
        messages: How many messages they have.
        turns: How many turns were ever begun in them.
        errors: How many of those failed.
        input_tokens: Tokens sent.
        cached_tokens: Those of them that were read from a cache.
        output_tokens: Tokens generated.
        reasoning_tokens: Those of them that were reasoning.
    """

    sessions: int = 0
    messages: int = 0
    turns: int = 0
    errors: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    def add(self, record: SessionRecord) -> None:
        """Add a session."""
        metrics = record.to_metrics()
        self.sessions += 1
        self.messages += metrics.message_count
        self.turns += metrics.turn_count
        self.errors += metrics.errors
        self.input_tokens += metrics.input_tokens
        self.cached_tokens += metrics.cached_tokens
        self.output_tokens += metrics.output_tokens
        self.reasoning_tokens += metrics.reasoning_tokens


@dataclass(slots=True)
class Statistics:
    """Figures over sessions.

    Attributes:
        total: Of all of them.
        by_status: How many sessions have which status.
        by_model: By the provider and model that the session has now; a session that was switched
            counts whole for the one that it has.
        by_user: By whose they are.
    """

    total: Sums = field(default_factory=Sums)
    by_status: Counter[str] = field(default_factory=Counter)
    by_model: dict[tuple[str, str], Sums] = field(default_factory=dict)
    by_user: dict[str, Sums] = field(default_factory=dict)


async def add_up(sessions: AsyncIterable[ListedSession]) -> Statistics:
    """Return the figures of sessions, read as they come."""
    statistics = Statistics()
    async for session in sessions:
        record = session.core.record
        statistics.total.add(record)
        statistics.by_status[SessionStatus(record.status).value] += 1
        statistics.by_model.setdefault((record.provider, record.model), Sums()).add(record)
        statistics.by_user.setdefault(record.user_id, Sums()).add(record)
    return statistics
