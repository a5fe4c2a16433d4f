"""A turn from its first message to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from langswarm_session import blocking
from langswarm_session.checks import said_by
from langswarm_session.errors import (
    InvalidInputError,
    MessageConflictError,
    SessionError,
    SessionNotFoundError,
    TurnLostError,
    in_session,
)
from langswarm_session.given import as_messages
from langswarm_session.models import MessageRole, SessionMessage, TurnStatus
from langswarm_session.records import (
    Appended,
    SessionRecord,
    TurnEnd,
)

if TYPE_CHECKING:
    from langswarm_session.session import BaseSession
    from langswarm_session.streaming import Reader

logger = logging.getLogger(__name__)

PARTIAL_SECONDS = 3.0
"""How long the middleware may take over what there is of a reply when a turn ends early."""

_open_turns: ContextVar[tuple[OpenTurn, ...]] = ContextVar("langswarm_open_turns", default=())


def open_turns() -> tuple[OpenTurn, ...]:
    """The turns in which the caller runs, the innermost last; some may have ended elsewhere."""
    return _open_turns.get()


class OpenTurn:
    """A turn that has begun: what it began with is stored, and the session is its own.

    Made by `BaseSession.begin_turn`. It ends by `complete`, `cancel` or `fail`, or as a context
    manager: by `cancel` when the block is cancelled and by `fail` when it raises.

    Attributes:
        session_id: The session's id.
        ref: The session: its id, owner and creation.
        token: The lease's token.
        id: The turn's id: the sequence number of its first message.
        messages: The turn's messages as stored so far, after the middleware.
        replayed: Whether the same turn was answered already (a known idempotency key or message
            id): `messages` then is all of it, and there is nothing to do.
        rename: Gives a message another id: who sets it has a reply whose id is taken stored under
            another one, and not refused.
    """

    def __init__(self, session: BaseSession, token: str, keyed: bool) -> None:
        self.ref = session.ref
        self.session_id = session.session_id
        self.token = token
        self.id = 0
        self.messages: list[SessionMessage] = []
        self.replayed = False
        self.rename: Callable[[SessionMessage], SessionMessage] | None = None
        self._session = session
        self._keyed = keyed
        self._open = False
        self._pid = os.getpid()
        self._first_revision = 0
        self._partial: list[str] = []
        self._added = 0
        self._given = 0
        self.reader: Reader | None = None

    @property
    def is_open(self) -> bool:
        """Whether the turn goes on."""
        return self._open

    @property
    def resumed(self) -> bool:
        """Whether some of what it began with was stored before: it may have been tried before."""
        return self._added < self._given

    @property
    def keyed(self) -> bool:
        """Whether it was begun with an idempotency key."""
        return self._keyed

    @property
    def holds_stream(self) -> bool:
        """Whether a middleware must see the whole reply before the reader sees any of it."""
        return self._session._pipeline.holds_stream

    @property
    def reply(self) -> SessionMessage:
        """The stored answer: the last message that was not sent, or the last where all were."""
        sent = (MessageRole.USER, MessageRole.SYSTEM)
        answers = (each for each in reversed(self.messages) if each.role not in sent)
        return next(answers, self.messages[-1])

    async def history(self) -> list[SessionMessage]:
        """The window before this turn: what a provider or a chain is to know of it all.

        Raises:
            SessionStorageError: If it cannot be read.
        """
        return await self._session._window.before(self, self._session.context)

    async def add(self, messages: Sequence[SessionMessage]) -> list[SessionMessage]:
        """Store more of the turn, after the middleware.

        Returns:
            The messages as stored.

        Raises:
            TurnLostError: If the lease was lost.
            MessageRefusedError: If a middleware refuses one.
        """
        session = self._session
        messages = as_messages(messages, self.session_id)
        messages = await session._pipeline.process(session, messages)
        try:
            appended = await session._storage.append(self.ref, messages, token=self.token)
        except InvalidInputError as error:
            raise in_session(error, self.session_id) from error.__cause__
        self._moved(appended.record, appended.new_messages)
        await session._pipeline.stored(session, appended.new_messages)
        return appended.messages

    async def complete(
        self,
        messages: Sequence[SessionMessage] = (),
        *,
        provider_state: Mapping[str, Any] | None = None,
    ) -> list[SessionMessage]:
        """Store the rest of the turn, after the middleware, and end it.

        Args:
            messages: The reply.
            provider_state: The providers' new state, to be stored with it.

        Returns:
            The messages as stored.

        Raises:
            TurnLostError: If the lease was lost; nothing was stored.
            MessageRefusedError: If a middleware refuses one; the turn is still open then.
            MessageConflictError: If an id is stored with other content, or in another turn; the
                turn is still open then.
        """
        messages = as_messages(messages, self.session_id)
        messages = await self._session._pipeline.process(self._session, messages)
        end = TurnEnd(self.token, TurnStatus.COMPLETE, provider_state=provider_state)
        appended = await self._end(end, messages)
        await self._session._pipeline.stored(self._session, appended.new_messages)
        return appended.messages

    async def cancel(self, messages: Sequence[SessionMessage] = (), reason: str = "") -> None:
        """End the turn as cancelled, keeping what there is of the reply.

        Args:
            messages: What there is of the reply.
            reason: Why.
        """
        await self._end_early(
            TurnStatus.CANCELLED, messages, asyncio.CancelledError(reason), reason or "cancelled"
        )

    async def fail(self, error: BaseException, messages: Sequence[SessionMessage] = ()) -> None:
        """End the turn as failed, keeping what there is of the reply.

        Args:
            error: Why.
            messages: What there is of the reply.
        """
        await self._end_early(TurnStatus.FAILED, messages, error, said_by(error)[:500])

    async def end_by(self, error: BaseException, messages: Sequence[SessionMessage] = ()) -> None:
        """End the turn by what broke it off: as failed, or as cancelled by what is no `Exception`.

        Args:
            error: What broke it off.
            messages: What there is of the reply; they are marked as being no more than that.
        """
        failed = isinstance(error, Exception)
        status = TurnStatus.FAILED if failed else TurnStatus.CANCELLED
        partial = [message.replaced(finish_reason=status.value) for message in messages]
        if failed:
            await self.fail(error, partial)
        else:  # CancelledError, GeneratorExit, KeyboardInterrupt
            await self.cancel(partial, type(error).__name__)

    def enter(self) -> None:
        """Be inside of the turn in this context too, as in the one where it began.

        For frameworks that run the steps of one turn in contexts of their own.
        """
        if self._open and self not in _open_turns.get():
            _open_turns.set((*_open_turns.get(), self))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            await self._abandon(error)
        elif self._is_ours:
            try:
                await self.complete()
            except BaseException as failure:
                await self._abandon(failure)
                raise

    def __del__(self) -> None:
        if self._is_ours and not sys.is_finalizing():
            logger.warning("session %r: a turn was dropped before its end", self.session_id)
            runtime = self._session._runtime
            blocking.start(runtime.end_dropped(self.ref, self.token))

    @property
    def _is_ours(self) -> bool:
        """Whether it is for this process to end it: a forked child leaves it to its parent."""
        return self._open and self._pid == os.getpid()

    async def _abandon(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            await self.fail(error)
        else:  # CancelledError, GeneratorExit, KeyboardInterrupt
            await self.cancel()

    def _begun(self, record: SessionRecord, messages: list[SessionMessage]) -> None:
        self.id = record.turn_id or 0
        self.messages = messages
        self._first_revision = record.revision
        self._open = True
        self._session._runtime.keeper.add(self)
        # Also drops those whose end another context saw.
        _open_turns.set((*(turn for turn in _open_turns.get() if turn.is_open), self))

    def _moved(self, record: SessionRecord, messages: list[SessionMessage]) -> None:
        self.messages = [*self.messages, *messages]
        self._session._moved(record)

    def received(self, text: str) -> None:
        """Text of a reply that has been shown already, to be kept if it goes no further."""
        self._partial.append(text)

    async def _end_early(
        self,
        status: TurnStatus,
        messages: Sequence[SessionMessage],
        error: BaseException,
        reason: str,
    ) -> None:
        if not self._is_ours:
            return
        given = as_messages(messages, self.session_id)
        partial: list[SessionMessage] = []
        try:
            partial = await self._passed(given or self._received(status))
        finally:
            # Nothing may keep the lease from being given back, least of all another cancellation.
            end = TurnEnd(self.token, status, error=reason)
            await asyncio.shield(self._end_with(end, partial, error))

    def _received(self, status: TurnStatus) -> list[SessionMessage]:
        """What has been shown of a reply, as a message."""
        if not self._partial:
            return []
        text = "".join(self._partial)
        return [
            SessionMessage(role=MessageRole.ASSISTANT, content=text, finish_reason=status.value)
        ]

    async def _passed(self, messages: list[SessionMessage]) -> list[SessionMessage]:
        """What there is of a reply, after the middleware: nothing where that does not come through.

        The middleware may be what broke the turn off, and may do the same again.
        """
        # In a task of its own, whose cancellation by a middleware is told from the caller's.
        passing = asyncio.ensure_future(self._session._pipeline.process(self._session, messages))
        try:
            done, _ = await asyncio.wait([passing], timeout=PARTIAL_SECONDS)
        finally:
            passing.cancel()
        try:
            if done:
                return passing.result()
            why = f"the middleware took longer than {PARTIAL_SECONDS:g} s over it"
        except SessionError:
            why = "it was refused"
        except asyncio.CancelledError:
            why = "the middleware was cancelled"
        logger.warning("session %r: what there was of a reply was lost: %s", self.session_id, why)
        return []

    async def _end_with(
        self, end: TurnEnd, messages: list[SessionMessage], error: BaseException
    ) -> None:
        session = self._session
        try:
            appended = await self._end_anyhow(end, messages)
            await session._pipeline.stored(session, appended.new_messages)
        except (TurnLostError, SessionNotFoundError):
            logger.info("session %r: the turn had ended already", self.session_id)
        except SessionError:
            # The error that ended the turn is the one to be raised.
            session._runtime.end_later(self.ref, end)
            logger.warning(
                "session %r: the turn's end was not stored", self.session_id, exc_info=True
            )
        finally:
            self._close()
        await session._pipeline.failed(session, error)

    async def _end_anyhow(self, end: TurnEnd, messages: list[SessionMessage]) -> Appended:
        """End the turn, if need be without what there was of a reply."""
        try:
            return await self._end(end, messages)
        except (TurnLostError, SessionNotFoundError):
            raise
        except SessionError:
            if not messages:
                raise
            logger.warning("session %r: what there was of a reply was lost", self.session_id,
                           exc_info=True)  # fmt: skip
            return await self._end(end, [])

    async def _end(self, end: TurnEnd, messages: Sequence[SessionMessage]) -> Appended:
        session = self._session
        try:
            appended = await self._stored_end(end, messages)
        except (TurnLostError, SessionNotFoundError):
            self._close()
            raise
        except InvalidInputError as error:
            raise in_session(error, self.session_id) from error.__cause__
        self._moved(appended.record, appended.new_messages)
        session._window.ended(self, end.status, appended.record.revision)
        self._close()
        return appended

    async def _stored_end(self, end: TurnEnd, messages: Sequence[SessionMessage]) -> Appended:
        """End the turn in the storage, replies whose ids are taken under others."""
        while True:
            try:
                return await self._session._storage.end_turn(self.ref, end, messages)
            except MessageConflictError as conflict:
                taken = conflict.message_id
                if self.rename is None or all(message.id != taken for message in messages):
                    raise
                messages = [
                    self.rename(message) if message.id == taken else message for message in messages
                ]

    def _close(self) -> None:
        if self._open:
            self._open = False
            runtime = self._session._runtime
            runtime.keeper.remove(self.token)
            runtime.queue.release(self.ref)
            _open_turns.set(tuple(turn for turn in _open_turns.get() if turn is not self))
