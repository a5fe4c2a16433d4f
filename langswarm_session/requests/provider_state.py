"""What a session remembers of each provider that answered in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from langswarm_session.models import SessionContext
from langswarm_session.requests.state import RequestState

KEYS = ("provider_session_id", "provider_context", "provider_seq", "provider_calls")
"""The keys of the context that are one provider's; with `provider_states` they are stored apart."""

STATE_KEYS = (*KEYS, "provider_states", "request_state")
"""All of the context that says what providers keep of a conversation, and what they are sent."""


LEFT_BEHIND = "left_behind"
"""The key of a provider's context that lists its earlier copies that could not be removed yet."""


@dataclass(frozen=True, slots=True)
class ProviderState:
    """How far a provider's own copy of a conversation goes.

    Attributes:
        session_id: The provider's id of the conversation; None where it keeps none.
        context: What else it needs to go on with it.
        seq: The newest message of the log that is in the copy.
        calls: The ids of the calls in it that have no result yet.
    """

    session_id: str | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    seq: int = 0
    calls: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether the provider has nothing of the conversation."""
        return self.session_id is None and not self.context

    @property
    def copies(self) -> list[str]:
        """The ids of everything that the provider keeps of the conversation, the copy last."""
        left = [*self.context.get(LEFT_BEHIND, ())]
        return left if self.session_id is None else [*left, self.session_id]

    def to_context(self) -> dict[str, Any]:
        """Return the keys of a context."""
        values = (self.session_id, dict(self.context), self.seq, self.calls)
        return dict(zip(KEYS, values, strict=True))


def state_of(context: SessionContext, provider: str) -> ProviderState:
    """Return a provider's state in a session."""
    if provider == context.provider:
        return ProviderState(*(getattr(context, key) for key in KEYS))
    stored = context.provider_states.get(provider)
    return ProviderState(*(stored[key] for key in KEYS)) if stored else ProviderState()


def states_of(context: SessionContext) -> dict[str, ProviderState]:
    """Return the states of all providers that have something of the session."""
    names = (context.provider, *context.provider_states)
    states = {name: state_of(context, name) for name in names}
    return {name: state for name, state in states.items() if not state.is_empty}


def with_state(context: SessionContext, provider: str, state: ProviderState) -> dict[str, Any]:
    """Return what to store when a provider's state has changed."""
    states = {**states_of(context), provider: state}
    return stored(states, context.provider, context.request_state)


def with_request_state(context: SessionContext, request_state: RequestState) -> dict[str, Any]:
    """Return what to store when requests begin elsewhere, or a provider noted something."""
    return stored(states_of(context), context.provider, request_state.to_context())


def without_copies(context: SessionContext) -> dict[str, Any]:
    """Return what to store when the providers' copies are gone; requests begin where they did."""
    state = RequestState.of(context).without_stand_ins()
    return stored({}, context.provider, state.to_context())


def stored(
    states: Mapping[str, ProviderState], current: str, request_state: Mapping[str, Any]
) -> dict[str, Any]:
    """All states, as they are stored where this provider is the session's own."""
    kept = {name: state.to_context() for name, state in states.items() if not state.is_empty}
    values = kept.pop(current, {})
    if kept:
        values["provider_states"] = kept
    if request_state:
        values["request_state"] = dict(request_state)
    return values
