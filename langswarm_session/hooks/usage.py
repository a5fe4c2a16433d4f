"""What conversations cost: tokens and money by user and model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any

from langswarm_session.errors import InvalidInputError
from langswarm_session.interfaces import ISession, ISessionLifecycleHook
from langswarm_session.models import SessionMessage, TokenUsage

PER = 1_000_000
"""Prices are for so many tokens."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a model's tokens cost, in any one currency, for a million of them.

    Attributes:
        input: Tokens sent.
        output: Tokens generated, reasoning included.
        cached: Tokens sent that were read from the cache; as much as others when None.
    """

    input: float
    output: float
    cached: float | None = None

    def of(self, usage: TokenUsage) -> float:
        """The price of a reply."""
        cached = self.input if self.cached is None else self.cached
        fresh = usage.input_tokens - usage.cached_tokens
        paid = fresh * self.input + usage.cached_tokens * cached + usage.output_tokens * self.output
        return paid / PER


@dataclass(slots=True)
class UsageRow:
    """What one user's replies of one model took.

    Attributes:
        user_id: The user.
        provider: Who made the replies; empty where nobody says.
        model: With which model.
        replies: How many replies.
        input_tokens: Tokens sent.
        cached_tokens: Those of them that were read from the cache.
        output_tokens: Tokens generated.
        reasoning_tokens: Those of them that were reasoning.
        cost: Their price; None where the model has none.
    """

    user_id: str
    provider: str
    model: str
    replies: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float | None = None


class UsageHook(ISessionLifecycleHook):
    """Adds up tokens and cost of the replies that are stored while it is there.

    Args:
        prices: By model; a name that ends in ``*`` stands for all that begin so.

    Raises:
        InvalidInputError: If a price is none.
    """

    def __init__(self, prices: Mapping[str, Price] | None = None) -> None:
        for model, price in (prices or {}).items():
            if not isinstance(price, Price):
                raise InvalidInputError(f"the price of {model!r} is a Price")
        self._prices = dict(prices or {})
        self._rows: dict[tuple[str, str, str], UsageRow] = {}
        self._lock = Lock()

    async def on_message_received(self, session: ISession, message: SessionMessage) -> None:
        """Add a reply."""
        usage = message.usage
        if usage is None:
            return
        key = (session.user_id, message.provider or "", message.model or "")
        with self._lock:
            row = self._rows.setdefault(key, UsageRow(*key))
            row.replies += 1
            row.input_tokens += usage.input_tokens
            row.cached_tokens += usage.cached_tokens
            row.output_tokens += usage.output_tokens
            row.reasoning_tokens += usage.reasoning_tokens
            price = self.price_of(row.model)
            if price is not None:
                row.cost = (row.cost or 0.0) + price.of(usage)

    def price_of(self, model: str) -> Price | None:
        """A model's price: its own, or that of the longest beginning that fits."""
        if model in self._prices:
            return self._prices[model]
        fitting = [
            name for name in self._prices if name.endswith("*") and model.startswith(name[:-1])
        ]
        return self._prices[max(fitting, key=len)] if fitting else None

    def rows(self, user_id: str | None = None) -> list[dict[str, Any]]:
        """A row for each user and model, as dicts: what ``pandas.DataFrame`` takes.

        Args:
            user_id: Only this user's; None for all.
        """
        with self._lock:
            rows = [asdict(row) for row in self._rows.values()]
        return [row for row in rows if user_id in (None, row["user_id"])]

    def cost(self, user_id: str | None = None) -> float:
        """What all replies cost whose models have a price.

        Args:
            user_id: Only this user's; None for all.
        """
        return sum(row["cost"] or 0.0 for row in self.rows(user_id))
