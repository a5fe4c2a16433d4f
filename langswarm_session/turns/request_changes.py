"""What a turn changes of where requests begin, and of what they carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langswarm_session.requests.provider_state import with_request_state
from langswarm_session.requests.state import RequestState

if TYPE_CHECKING:
    from langswarm_session.models import SessionContext
    from langswarm_session.records import PrefixChangeReason
    from langswarm_session.turns.core import SessionCore


class RequestChanges:
    """The state of a session's requests, as a turn leaves it.

    Args:
        core: The session.

    Attributes:
        prefix_change: Why the turn's requests do not begin with the whole of the one before, where
            the turn itself makes it so.
        window_tokens: How many tokens the window has that begins elsewhere, by estimate.
        tells_change: Whether the turn's end tells the hooks of it; False where a provider's reply
            does.
    """

    def __init__(self, core: SessionCore) -> None:
        self._core = core
        self._request_state: RequestState | None = None
        self.prefix_change: PrefixChangeReason | None = None
        self.window_tokens = 0
        self.tells_change = True

    def request_state(self, context: SessionContext) -> RequestState:
        """Return where requests of this turn begin.

        Args:
            context: The session's context, for what the turn has not changed.
        """
        return self._request_state or RequestState.of(context)

    def keep_request_state(self, state: RequestState) -> None:
        """Have a state of the session's requests stored when the turn completes."""
        self._request_state = state

    def begin_requests_at(self, seq: int, reason: PrefixChangeReason) -> None:
        """Have requests begin at another message from this turn on.

        Args:
            seq: The message's sequence number; stored when the turn completes.
            reason: Why.
        """
        context = self._core.context
        self._request_state = self.request_state(context).started_at(seq, context)
        self.prefix_change = reason

    def forget_beginning(self) -> None:
        """Have requests begin where they did before the turn, as leaving out more did not help."""
        self._request_state = None
        self.prefix_change = None

    def changed_prefix(self) -> PrefixChangeReason | None:
        """Return why requests begin elsewhere, in this turn or since one without a reply."""
        return self.prefix_change or self.request_state(self._core.context).untold

    def provider_state(
        self, new: Mapping[str, Any] | None, *, early: bool = False
    ) -> Mapping[str, Any] | None:
        """Return the providers' state with that of the requests, if the turn changed that.

        Args:
            new: The providers' new state, if that changed.
            early: Whether the turn has no whole reply: then what a provider noted with it is not
                kept, and what is left out of requests is, as it has been left out.
        """
        context = self._core.context
        stored = RequestState.of(context)
        state = self._state_at_end(stored, early=early)
        if state == stored:
            return new
        if new is None:
            return with_request_state(context, state)
        return {**new, "request_state": state.to_context()}

    def _state_at_end(self, stored: RequestState, *, early: bool) -> RequestState:
        state = self._request_state or stored
        if not early:
            return state.told() if self.tells_change else state
        refused = state.compactions_refused
        compactions = {name: at for name, at in stored.compactions.items() if at > refused}
        untold = self.changed_prefix()  # the next reply tells it
        return replace(state, notes=stored.notes, compactions=compactions, untold=untold)
