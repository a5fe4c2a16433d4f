"""The window of a session as its last turn left it, so that the next need not read it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from langswarm_session.models import SessionMessage, TurnStatus
from langswarm_session.requests import window
from langswarm_session.requests.budget import estimate
from langswarm_session.requests.window import Beginning, Window
from langswarm_session.storage.replacements import REPLACES

if TYPE_CHECKING:
    from langswarm_session.interfaces import ISessionStorage
    from langswarm_session.models import SessionContext
    from langswarm_session.records import PrefixChangeReason, SessionRef
    from langswarm_session.requests.normalize.target import Target
    from langswarm_session.requests.state import RequestState


class WindowedTurn(Protocol):
    """A turn, as far as its window depends on it.

    Attributes:
        window_tokens: How many tokens the window has where it begins elsewhere, by estimate.
    """

    window_tokens: int

    @property
    def id(self) -> int:
        """The sequence number of the turn's first message."""

    @property
    def messages(self) -> Sequence[SessionMessage]:
        """The turn's messages so far."""

    @property
    def asked_seq(self) -> int | None:
        """The first message that the turn answers, where that is another turn's."""

    @property
    def resumed(self) -> bool:
        """Whether the turn began in an earlier attempt."""

    @property
    def revision_before(self) -> int:
        """The session's revision before the turn."""

    @property
    def prefix_change(self) -> PrefixChangeReason | None:
        """Why requests begin elsewhere than before, if they do."""

    def request_state(self, context: SessionContext) -> RequestState:
        """Return what the session remembers of its requests."""

    def begin_requests_at(self, seq: int, reason: PrefixChangeReason) -> None:
        """Have requests begin at a message from now on."""


class _Key(NamedTuple):
    """What tells whether messages that were kept are the window still."""

    revision: int
    start: int
    compaction: int
    vendor: str | None


_NONE = _Key(-1, 0, 0, None)


class KeptWindow:
    """What was sent before a turn, and what that turn added.

    While a turn holds the lease nobody else changes the log, so the revision it began at tells
    whether the window is the one kept from the turn before.

    Args:
        storage: Where the session lives.
        ref: The session.
    """

    def __init__(self, storage: ISessionStorage, ref: SessionRef) -> None:
        self._messages: list[SessionMessage] = []
        self._storage = storage
        self._ref = ref
        self._key = _NONE

    async def before(
        self, turn: WindowedTurn, context: SessionContext, target: Target | None
    ) -> list[SessionMessage]:
        """Return the window before a turn; it is read if what was kept is not it.

        Where requests have to begin elsewhere, the turn is told.

        Args:
            turn: The turn.
            context: The session's context, as for the provider that is asked.
            target: What that provider accepts; None for a framework.

        Raises:
            SessionStorageError: If it cannot be read.
        """
        before = turn.id if turn.asked_seq is None else turn.asked_seq
        beginning = Beginning.of(turn.request_state(context), context, before, target)
        if beginning.moved is not None:
            turn.begin_requests_at(beginning.start, beginning.moved)
        found = await self._uncut(turn, context, beginning, before)
        start = beginning.start if found.start is None else found.start
        needed = window.calls_needed(turn.messages)
        cut = window.cut(found.messages, context.max_messages, len(turn.messages), needed)
        messages = cut.messages
        if cut.start is not None:
            found, start = cut, cut.start
            if beginning.compaction:
                moved = replace(beginning, start=start)
                messages = (await self._load(turn, context, moved, before)).messages
        if found.start is not None and found.reason is not None:
            turn.begin_requests_at(found.start, found.reason)
        if turn.asked_seq is None:
            self._messages = messages
            self._key = _key(turn, replace(beginning, start=start))
        sent = window.with_summary(messages, context)
        if turn.prefix_change is not None:
            turn.window_tokens = sum(map(estimate, sent))
        return sent

    async def _uncut(
        self, turn: WindowedTurn, context: SessionContext, beginning: Beginning, before: int
    ) -> Window:
        """Return what may be sent before a turn, however many messages that is."""
        is_kept = turn.asked_seq is None and _key(turn, beginning) == self._key
        if is_kept and window.has_calls(self._messages, window.calls_needed(turn.messages)):
            return Window(self._messages, None)
        return await self._load(turn, context, beginning, before)

    async def _load(
        self, turn: WindowedTurn, context: SessionContext, beginning: Beginning, before: int
    ) -> Window:
        return await window.load(
            self._storage,
            self._ref,
            beginning,
            before=before,
            max_messages=max(0, context.max_messages - len(turn.messages)),
            needed=window.calls_needed(turn.messages),
        )

    def ended(self, turn: WindowedTurn, status: TurnStatus, revision: int) -> None:
        """Keep the window with what a turn added, for the next one.

        Args:
            turn: The turn.
            status: How it ended.
            revision: The session's, after it.
        """
        is_known = (
            self._key.revision == turn.revision_before
            and status is TurnStatus.COMPLETE
            and turn.asked_seq is None
            and not turn.resumed
            and not any(REPLACES in message.metadata for message in turn.messages)
        )
        if is_known:
            self._messages = [*self._messages, *turn.messages]
            self._key = self._key._replace(revision=revision)
        else:
            self._key = _NONE


def _key(turn: WindowedTurn, beginning: Beginning) -> _Key:
    return _Key(turn.revision_before, beginning.start, beginning.compaction, beginning.vendor)
