"""What turns stand on: a session's storage, record, window, middleware and place in the queue.

`SessionManager` holds a `ManagerCore` and `BaseSession` a `SessionCore`. Everything below them
takes a core, so that nothing below them knows a session or a manager.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from langswarm_session.errors import InvalidInputError, ManagerClosedError, SessionError, in_session
from langswarm_session.models import SessionContext, SessionMessage
from langswarm_session.requests.kept_window import KeptWindow
from langswarm_session.turns.circuit_breaker import CircuitBreaker
from langswarm_session.turns.locks import TurnLocks
from langswarm_session.turns.pipeline import Pipeline

if TYPE_CHECKING:
    from langswarm_session.interfaces import IProviderSession, ISession, ISessionStorage
    from langswarm_session.providers.registry import Providers
    from langswarm_session.records import SessionChanges, SessionRecord


class ManagerCore:
    """What all sessions of a manager share.

    Attributes:
        storage: Where the sessions live.
        providers: Who answers, by name.
        locks: How turns get a session to themselves.
        pipeline: The middleware and hooks of sessions opened from now on.
        breaker: Which providers are left alone for a while.
    """

    def __init__(self, storage: ISessionStorage, providers: Providers, locks: TurnLocks) -> None:
        self.storage = storage
        self.providers = providers
        self.locks = locks
        self.pipeline = Pipeline()
        self.breaker = CircuitBreaker()

    def check_open(self) -> None:
        """Raise if the manager was closed.

        Raises:
            ManagerClosedError: If it was.
        """
        if self.locks.is_closed:
            raise ManagerClosedError("the manager was closed; make a new one")


class SessionCore:
    """One session, for everything that reads or writes it.

    Attributes:
        shared: What all sessions of the manager share.
        storage: Where the session lives.
        locks: How its turns get it to themselves.
        pipeline: Its middleware and hooks.
        ref: Its id, owner and creation.
        record: Its record, as of the last call.
        window: What its next turn sends before its own messages.
    """

    def __init__(self, shared: ManagerCore, record: SessionRecord) -> None:
        self.shared = shared
        self.storage = shared.storage
        self.locks = shared.locks
        self.pipeline = Pipeline(shared.pipeline.middleware, shared.pipeline.hooks)
        self.ref = record.ref
        self.record = record
        self.window = KeptWindow(shared.storage, record.ref)
        self._context: tuple[SessionRecord, SessionContext] | None = None
        self._session: weakref.ref[ISession] | None = None
        self._reopen: Callable[[SessionCore], ISession] | None = None

    def show_as(self, session: ISession, reopen: Callable[[SessionCore], ISession]) -> None:
        """Set what middleware and hooks are shown.

        Args:
            session: The public session; only weakly kept, so that the two form no cycle.
            reopen: Makes it again where a turn outlives it.
        """
        self._session, self._reopen = weakref.ref(session), reopen

    @property
    def session(self) -> ISession:
        """The public session."""
        session = None if self._session is None else self._session()
        if session is None:
            assert self._reopen is not None, "a session shows itself when it is made"
            session = self._reopen(self)
        return session

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self.ref.session_id

    @property
    def context(self) -> SessionContext:
        """The context, as of the last call."""
        if self._context is None or not _same_context(self._context[0], self.record):
            self._context = (self.record, self.record.to_context())
        return self._context[1]

    def check_open(self) -> None:
        """Raise `ManagerClosedError` if the manager was closed."""
        self.shared.check_open()

    def moved(self, record: SessionRecord) -> None:
        """Take over the record that a call returned."""
        self.record = record

    async def refresh(self) -> None:
        """Read the record.

        Raises:
            SessionNotFoundError: If the session was deleted.
        """
        self.check_open()
        self.record = await self.storage.get_session(self.ref)

    async def update(
        self, changes: SessionChanges, *, expected_revision: int | None = None
    ) -> SessionRecord:
        """Store changes of the record.

        Returns:
            The record after them.

        Raises:
            RevisionConflictError: If the session is at another revision.
            InvalidInputError: If a value cannot be stored.
        """
        try:
            self.record = await self.storage.update_session(
                self.ref, changes, expected_revision=expected_revision
            )
        except InvalidInputError as error:
            raise in_session(error, self.session_id) from error.__cause__
        return self.record

    def provider(self, name: str | None = None) -> IProviderSession:
        """Return a provider, made if it was not before.

        Args:
            name: Its name; the session's own when None.

        Raises:
            UnknownProviderError: If there is none.
            ProviderSessionError: If it cannot be made.
        """
        name = self.context.provider if name is None else name
        return self.shared.providers.of(name, self.session_id)

    async def process(self, messages: Sequence[SessionMessage]) -> list[SessionMessage]:
        """Pass messages through the middleware.

        Raises:
            MessageRefusedError: If a middleware refuses one.
            MiddlewareError: If a middleware fails.
        """
        return await self.pipeline.process(self.session, messages)

    async def process_first(self, messages: Sequence[SessionMessage]) -> list[SessionMessage]:
        """Pass messages through the middleware before there is a turn that could fail by it."""
        try:
            return await self.process(messages)
        except SessionError as error:
            await self.pipeline.failed(self.session, error)
            raise

    async def stored(self, messages: Sequence[SessionMessage]) -> None:
        """Tell the hooks of messages that were stored."""
        await self.pipeline.stored(self.session, messages)


def _same_context(one: SessionRecord, other: SessionRecord) -> bool:
    """Return whether two records have one context."""
    return (
        one.context == other.context
        and one.provider_state == other.provider_state
        and one.model == other.model
        and one.provider == other.provider
        and one.backend == other.backend
    )
