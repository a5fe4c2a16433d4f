"""A turn from its first message to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from langswarm_session._sync import bridge
from langswarm_session._validation import said_by
from langswarm_session.errors import (
    InvalidInputError,
    MessageConflictError,
    SessionError,
    SessionNotFoundError,
    StorageClosedError,
    TurnLostError,
    in_session,
)
from langswarm_session.models import MessageRole, SessionMessage, TurnStatus
from langswarm_session.records import Appended, PrefixChange, SessionRecord, TurnEnd
from langswarm_session.storage.replacements import replacing
from langswarm_session.turns import current, endings
from langswarm_session.turns.answerers import marked
from langswarm_session.turns.closing import ClosableTurn
from langswarm_session.turns.endings import Stop, settled
from langswarm_session.turns.inputs import as_messages
from langswarm_session.turns.interrupts import StoppableTurn
from langswarm_session.turns.request_changes import RequestChanges

if TYPE_CHECKING:
    from langswarm_session.interfaces import ISessionStorage
    from langswarm_session.models import SessionContext
    from langswarm_session.requests.normalize.target import Target
    from langswarm_session.turns.core import SessionCore

logger = logging.getLogger(__name__)

GRACE_SECONDS = 0.2
"""How long whoever works on a turn that is ended from outside has to end it himself."""


class OpenTurn(RequestChanges, StoppableTurn, ClosableTurn):
    """A turn that has begun: what it began with is stored, and the session is its own.

    Made by `BaseSession.begin_turn`. It ends by `complete`, `cancel` or `fail`, or as a context
    manager: by `cancel` when the block is cancelled and by `fail` when it raises. No cancellation
    of the task that ends it keeps it from ending with what there is of the reply.

    It may also be ended from outside: by `BaseSession.cancel`, by a manager that is closed, or when
    its event loop is closed or stands still. What is then done with it raises `TurnCancelledError`
    or `TurnLostError`; `answering` and `check` raise it early.

    Attributes:
        ref: The session: its id, owner and creation.
        token: The lease's token.
        id: The turn's id: the sequence number of its first message.
        messages: The turn's messages as stored so far, after the middleware.
        replayed: Whether the same turn was answered already (a known idempotency key or message
            id): `messages` then is all of it, and there is nothing to do.
        rename: Gives a message another id: who sets it has a reply whose id is taken stored under
            another one, and not refused.
        shown: Gives what has been shown of the reply, to be kept if the turn ends early and nothing
            else is given then. Made up of `received` texts where it is None.
        answerer: Who answers, where several are asked the same; None where nobody else is.
        asked_seq: The number of the first message that it answers, if that is another turn's: then
            nothing behind it is sent.
        replaced: The messages of the log that its answer stands for from then on.
        kept: What else of the log follows what it answers.
        after_end: What is called once the turn has ended.
        late: What ends the turns within it, once it has ended and before the session is free.
        holds_queue: Whether the next turn of this process waits for its end.
        reader: The reader of its stream; None where the reply comes as a whole.
        added: How many of the messages that it began with were not stored before.
    """

    def __init__(
        self, core: SessionCore, token: str, keyed: bool, answerer: str | None = None
    ) -> None:
        RequestChanges.__init__(self, core)
        StoppableTurn.__init__(self, core.session_id)
        ClosableTurn.__init__(self)
        self.ref = core.ref
        self.token = token
        self.id = 0
        self.messages: list[SessionMessage] = []
        self.replayed = False
        self.rename: Callable[[SessionMessage], SessionMessage] | None = None
        self.shown: Callable[[], Sequence[SessionMessage]] | None = None
        self.answerer = answerer
        self.asked_seq: int | None = None
        self.replaced: list[SessionMessage] = []
        self.kept: list[SessionMessage] = []
        self.after_end: list[Callable[[], Awaitable[None]]] = []
        self.late: list[Callable[[], Awaitable[None]]] = []
        self.holds_queue = True
        self.reader: current.Reader | None = None
        self.added = 0
        self._keyed = keyed
        self._loop = bridge.callers_loop()
        self._first_revision = 0
        self._begun_with = 0
        self._received_texts: list[str] = []
        self._given_partial: Sequence[SessionMessage] = ()
        self._last_task: asyncio.Task[None] | None = None

    @property
    def storage(self) -> ISessionStorage:
        """Where the session lives."""
        return self._core.storage

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that it began on; None if sync code began it."""
        return self._loop

    @property
    def resumed(self) -> bool:
        """Whether some of what it began with was stored before: it may have been tried before."""
        return self.added < self._begun_with

    @property
    def keyed(self) -> bool:
        """Whether it was begun with an idempotency key."""
        return self._keyed

    @property
    def holds_stream(self) -> bool:
        """Whether a middleware must see the whole reply before the reader sees any of it."""
        return self._core.pipeline.holds_stream

    @property
    def reply(self) -> SessionMessage:
        """The stored answer: the last message that was not sent, or the last where all were."""
        sent = (MessageRole.USER, MessageRole.SYSTEM)
        answers = (each for each in reversed(self.messages) if each.role not in sent)
        return next(answers, self.messages[-1])

    @property
    def revision_before(self) -> int:
        """The session's revision before the turn."""
        return self._first_revision - 1

    async def history(
        self, context: SessionContext | None = None, target: Target | None = None
    ) -> list[SessionMessage]:
        """The window before this turn: what a provider or a chain is to know of it all.

        Args:
            context: The context as for the provider that is asked; the session's own when None.
            target: What that provider accepts; None for a framework, which is handed what a
                vendor's compactions stand for.

        Raises:
            SessionStorageError: If it cannot be read.
        """
        return await self._core.window.before(self, context or self._core.context, target)

    async def add(self, messages: Sequence[SessionMessage]) -> list[SessionMessage]:
        """Store more of the turn, after the middleware.

        Returns:
            The messages as stored.

        Raises:
            TurnLostError: If the lease was lost.
            TurnCancelledError: If the turn was cancelled from outside.
            MessageRefusedError: If a middleware refuses one.
        """
        self.check()
        messages = as_messages(messages, self.session_id)
        messages = self._signed(await self._core.process(messages))
        try:
            appended = await self._core.storage.append(self.ref, messages, token=self.token)
        except TurnLostError as error:
            self.check(error)
            raise
        except InvalidInputError as error:
            raise in_session(error, self.session_id) from error.__cause__
        self._advance(appended.record, appended.new_messages)
        await self._core.stored(appended.new_messages)
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
            TurnCancelledError: If the turn was cancelled from outside; nothing was stored.
            MessageRefusedError: If a middleware refuses one; the turn is still open then.
            MessageConflictError: If an id is stored with other content, or in another turn; the
                turn is still open then.
        """
        self.check()
        messages = as_messages(messages, self.session_id)
        state = self.provider_state(provider_state)
        end = TurnEnd(self.token, TurnStatus.COMPLETE, provider_state=state)
        changed = self.changed_prefix() if self.tells_change else None
        self._is_ending = True  # those who end it from outside wait for this
        try:
            with self.answering():  # a middleware may take as long as a provider
                messages = await self._core.process(messages)
            appended = await self._end(end, messages)
        except (TurnLostError, StorageClosedError) as error:
            self.check(error)
            raise
        finally:
            self._is_ending = False
        await self._core.stored(appended.new_messages)
        if changed is not None:
            change = PrefixChange(reason=changed, tokens=self.window_tokens)
            await self._core.pipeline.prefix_changed(self._core.session, change)
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
        failed = isinstance(error, Exception) and not self.is_stopped
        status = TurnStatus.FAILED if failed else TurnStatus.CANCELLED
        partial = [message.replaced(finish_reason=status.value) for message in messages]
        if failed:
            await self.fail(error, partial)
        else:  # CancelledError, GeneratorExit, KeyboardInterrupt
            stop = self.stopped_by
            reason = type(error).__name__ if stop is None else stop.reason
            await self.cancel(partial, reason)

    async def stop(self, stop: Stop) -> None:
        """End the turn from outside: from any task, thread and event loop.

        Whoever works on it is interrupted and ends it; if nobody does, or does not in time, it is
        ended on its event loop, or else here. Returns when it has ended.

        Args:
            stop: Why.
        """
        if not self.is_ours:
            return
        stop = self.stopped_by = self.stopped_by or stop
        if self._is_ending and await self.closed(GRACE_SECONDS):
            return
        if self.interrupt() and await self.closed(GRACE_SECONDS):
            return
        if not self._is_ending and self._hand_to_loop():
            await self.closed(GRACE_SECONDS)
        if self._is_ending:
            await self.closed(endings.PARTIAL_SECONDS + GRACE_SECONDS)
        error = asyncio.CancelledError(stop.reason)
        await self._end_early(TurnStatus.CANCELLED, (), error, stop.reason, is_last=True)

    def received(self, text: str) -> None:
        """Text of a reply that has been shown already, to be kept if it goes no further."""
        self._received_texts.append(text)

    def enter(self) -> None:
        """Be inside of the turn in this context too, as in the one where it began.

        For frameworks that run the steps of one turn in contexts of their own.
        """
        if self._open and self not in current.open_turns():
            current.enter(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            await self.abandon(error)
        elif self.is_ours:
            try:
                await self.complete()
            except BaseException as failure:
                await self.abandon(failure)
                raise

    def __del__(self) -> None:
        if self.is_ours and not sys.is_finalizing():
            logger.warning("session %r: a turn was dropped before its end", self.session_id)
            partial = self._partial_reply(TurnStatus.CANCELLED)
            bridge.start(_end_dropped(self._core, self.token, partial))

    async def abandon(self, error: BaseException) -> None:
        """End the turn by what broke off its beginning or its block.

        Args:
            error: What broke it off.
        """
        if self.stopped_by is not None:
            await self.cancel(reason=self.stopped_by.reason)
        elif isinstance(error, Exception):
            await self.fail(error)
        else:  # CancelledError, GeneratorExit, KeyboardInterrupt
            await self.cancel()

    def begin(
        self, record: SessionRecord, messages: list[SessionMessage], added: int, begun_with: int
    ) -> None:
        """Open the turn, which has begun in the storage.

        Args:
            record: The session after that.
            messages: The turn's messages as stored.
            added: How many of the messages that it began with were not stored before.
            begun_with: How many it began with.
        """
        self.id = record.turn_id or 0
        self.messages = messages
        self.added, self._begun_with = added, begun_with
        self._first_revision = record.revision
        others = [message.seq or 0 for message in messages if message.turn_id != self.id]
        self.asked_seq = min(others) if others and len(others) == len(messages) else None
        self._open = True
        self._core.locks.keeper.add(self)
        current.enter(self)

    def _advance(self, record: SessionRecord, messages: list[SessionMessage]) -> None:
        self.messages = [*self.messages, *messages]
        self._core.moved(record)

    async def _end_early(
        self,
        status: TurnStatus,
        messages: Sequence[SessionMessage],
        error: BaseException,
        reason: str,
        *,
        is_last: bool = False,
    ) -> None:
        """End the turn before its reply is complete.

        Args:
            status: How it ends.
            messages: What there is of the reply; what has been shown of it if empty.
            error: Why, for the hooks.
            reason: Why, to be stored.
            is_last: Whether to end it even if somebody else is about to: the storage lets one.
        """
        if not self.is_ours:
            return
        self._given_partial = as_messages(messages, self.session_id) or self._given_partial
        if not (self._claim() or is_last):
            seconds = endings.PARTIAL_SECONDS + GRACE_SECONDS
            if await self.closed(seconds):
                return
        state = self.provider_state(None, early=True)
        end = TurnEnd(self.token, status, error=reason, provider_state=state)
        step = self._last_step(end, self._partial_reply(status), error)
        if _is_in_loop():
            await settled(asyncio.ensure_future(step))
        else:
            # The garbage collector closes what was given up with its event loop: nothing here can
            # be awaited any more.
            bridge.start(step)

    async def _last_step(
        self, end: TurnEnd, partial: list[SessionMessage], error: BaseException
    ) -> None:
        """Pass what there is of the reply through the middleware and end the turn with it.

        It runs as a task of its own, which only an event loop that is shut down cancels
        (`asyncio.run` cancels every task that is left): then the background loop does the rest.
        """
        try:
            processed = await self._core.pipeline.process_partial(self._core.session, partial)
            await self._end_with(end, processed, error)
        except asyncio.CancelledError:
            if not self._open:  # a hook was
                raise
            rest = self._last_step(end, partial, error)
            await settled(asyncio.wrap_future(bridge.start(rest)))
            raise

    def _partial_reply(self, status: TurnStatus) -> list[SessionMessage]:
        """Return the partial reply: what was given when the turn was to end, or else was shown."""
        if self._given_partial:
            return [*self._given_partial]
        if self.shown is not None:
            return [message.replaced(finish_reason=status.value) for message in self.shown()]
        if not self._received_texts:
            return []
        text, role = "".join(self._received_texts), MessageRole.ASSISTANT
        return [SessionMessage(role=role, content=text, finish_reason=status.value)]

    def _hand_to_loop(self) -> bool:
        """Let the turn's event loop end it; False if that is this one, or does not run."""
        loop, stop = self._loop, self.stopped_by
        if loop is None or stop is None or not loop.is_running():
            return False
        if loop is asyncio.get_running_loop():
            return False
        with contextlib.suppress(RuntimeError):  # it was closed
            loop.call_soon_threadsafe(self._end_on_loop, stop)
            return True
        return False

    def _end_on_loop(self, stop: Stop) -> None:
        ending = self._end_early(
            TurnStatus.CANCELLED, (), asyncio.CancelledError(stop.reason), stop.reason
        )
        self._last_task = asyncio.ensure_future(ending)

    async def _end_with(
        self, end: TurnEnd, messages: list[SessionMessage], error: BaseException
    ) -> None:
        try:
            appended = await self._end_anyhow(end, messages)
            await self._core.stored(appended.new_messages)
        except (TurnLostError, SessionNotFoundError):
            logger.info("session %r: the turn had ended already", self.session_id)
        except SessionError:
            # The error that ended the turn is the one to be raised.
            self._core.locks.late_ends.postpone(self.ref, end)
            logger.warning(
                "session %r: the turn's end was not stored", self.session_id, exc_info=True
            )
        except asyncio.CancelledError:
            raise  # the event loop is shut down, and the turn is still to be ended
        except BaseException:
            self._close()
            raise
        self._close()
        await self._core.pipeline.failed(self._core.session, error)

    async def _end_anyhow(self, end: TurnEnd, messages: list[SessionMessage]) -> Appended:
        """End the turn, if need be without what there was of a reply."""
        try:
            return await self._end(end, messages)
        except (TurnLostError, SessionNotFoundError):
            raise
        except SessionError:
            if not messages:
                raise
            logger.warning("session %r: the partial reply was lost", self.session_id,
                           exc_info=True)  # fmt: skip
            return await self._end(end, [])

    async def _end(self, end: TurnEnd, messages: Sequence[SessionMessage]) -> Appended:
        try:
            return await self._end_once(end, messages)
        finally:
            if not self._open:
                await self._call_waiting()

    def _signed(self, messages: Sequence[SessionMessage]) -> list[SessionMessage]:
        """Return messages that say who answered, and what the answer replaces."""
        signed = marked(messages, self.answerer)
        roles = [message.role for message in signed]
        first = roles.index(MessageRole.ASSISTANT) if MessageRole.ASSISTANT in roles else -1
        if first >= 0 and self.replaced:
            signed[first:] = replacing(signed[first:], self.replaced, self.kept)
            self.replaced = []
        return signed

    async def _call_waiting(self) -> None:
        """Call what waited for the end."""
        late, self.late = self.late, []
        try:
            for call in late:
                await self._call(call)
        finally:
            if late:
                self._core.locks.queue.release(self.ref)
        waiting, self.after_end = self.after_end, []
        for call in waiting:
            await self._call(call)
        self._tell_closed()

    async def _call(self, call: Callable[[], Awaitable[None]]) -> None:
        try:
            await call()
        except SessionError:
            logger.warning(
                "session %r: what waited for the end of a turn was lost",
                self.session_id,
                exc_info=True,
            )

    async def _end_once(self, end: TurnEnd, messages: Sequence[SessionMessage]) -> Appended:
        try:
            appended = await self._stored_end(end, self._signed(messages))
        except (TurnLostError, SessionNotFoundError):
            self._close()
            raise
        except InvalidInputError as error:
            raise in_session(error, self.session_id) from error.__cause__
        self._advance(appended.record, appended.new_messages)
        self._core.window.ended(self, end.status, appended.record.revision)
        self._close()
        return appended

    async def _stored_end(self, end: TurnEnd, messages: Sequence[SessionMessage]) -> Appended:
        """End the turn in the storage, replies whose ids are taken under others."""
        while True:
            try:
                return await self._core.storage.end_turn(self.ref, end, messages)
            except MessageConflictError as conflict:
                taken = conflict.message_id
                if self.rename is None or all(message.id != taken for message in messages):
                    raise
                messages = [
                    self.rename(message) if message.id == taken else message for message in messages
                ]

    def _close(self) -> None:
        if not self._mark_closed():
            return
        locks = self._core.locks
        locks.keeper.remove(self.token)
        if self.holds_queue and not self.late:
            locks.queue.release(self.ref)
        current.leave(self)
        if not (self.late or self.after_end):
            self._tell_closed()


async def _end_dropped(core: SessionCore, token: str, partial: Sequence[SessionMessage]) -> None:
    """End a turn that nobody holds any more, and let the next one in.

    Args:
        core: The turn's session.
        token: Its lease's token.
        partial: The part of the reply that was shown.
    """
    try:
        messages = await core.pipeline.process_partial(core.session, partial)
        end = TurnEnd(token, TurnStatus.CANCELLED, error="dropped before its end")
        await core.locks.late_ends.store(core.ref, end, messages)
    finally:
        core.locks.queue.release(core.ref)


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
