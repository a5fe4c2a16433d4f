"""Which providers are left alone for a while, because they failed and others can answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeGuard

from langswarm_session.errors import ProviderQuotaError, ProviderSessionError
from langswarm_session.models import Fallback

REST_SECONDS = 30.0
"""How long a provider that failed is left alone where others can answer and it named no time."""

LONGEST_REST = 3600.0
"""The longest that it is left alone for, in seconds, whatever time it named."""


class CircuitBreaker:
    """Remembers which models failed, and until when they are not asked.

    Attributes:
        clock: What tells the time, in seconds from any point.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._open_until: dict[tuple[str, str | None], tuple[float, str]] = {}

    def record_failure(self, model: Fallback, error: ProviderSessionError) -> None:
        """Leave a model alone for as long as its error says, or for `REST_SECONDS`."""
        seconds = REST_SECONDS if error.retry_after is None else error.retry_after
        until = self.clock() + min(seconds, LONGEST_REST)
        self._open_until[_key(model)] = (until, failure_reason(error))

    def record_success(self, model: Fallback) -> None:
        """Ask a model again, as it answered."""
        self._open_until.pop(_key(model), None)

    def open_reason(self, model: Fallback) -> str | None:
        """Return why a model is left alone; None if it is not."""
        entry = self._open_until.get(_key(model))
        return entry[1] if entry is not None and self.clock() < entry[0] else None


def _key(model: Fallback) -> tuple[str, str | None]:
    return model.provider, model.model


def is_outage(error: Exception) -> TypeGuard[ProviderSessionError]:
    """Return whether a provider is down or not paid for, so that another one may answer."""
    return isinstance(error, ProviderSessionError) and (
        error.retriable or isinstance(error, ProviderQuotaError)
    )


def failure_reason(error: Exception) -> str:
    """Return an error in one line, without the session's name."""
    text = str(error).removeprefix(f"session {getattr(error, 'session_id', None)!r}: ")
    return f"{type(error).__name__}: {text}"[:500]
