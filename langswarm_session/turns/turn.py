"""A turn from its first message to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from threading import Lock
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
from langswarm_session.records import (
    Appended,
    PrefixChange,
    PrefixChangeReason,
    SessionRecord,
    TurnEnd,
)
from langswarm_session.requests.provider_state import with_request_state
from langswarm_session.requests.state import RequestState
from langswarm_session.storage.replacements import replacing
from langswarm_session.turns import endings
from langswarm_session.turns.answerers import marked
from langswarm_session.turns.endings import Stop, passed, settled
from langswarm_session.turns.inputs import as_messages
from langswarm_session.turns.interrupts import Interruptible

if TYPE_CHECKING:
    from langswarm_session.models import SessionContext
    from langswarm_session.requests.normalize.target import Target
    from langswarm_session.session import BaseSession
    from langswarm_session.turns.streams import Reader

logger = logging.getLogger(__name__)

GRACE_SECONDS = 0.2
"""How long whoever works on a turn that is ended from outside has to end it himself."""

_open_turns: ContextVar[tuple[OpenTurn, ...]] = ContextVar("langswarm_open_turns", default=())


def open_turns() -> tuple[OpenTurn, ...]:
    """The turns in which the caller runs, the innermost last; some may have ended elsewhere."""
    return _open_turns.get()


class OpenTurn:
    """A turn that has begun: what it began with is stored, and the session is its own.

    Made by `BaseSession.begin_turn`. It ends by `complete`, `cancel` or `fail`, or as a context
    manager: by `cancel` when the block is cancelled and by `fail` when it raises. No cancellation
    of the task that ends it keeps it from ending with what there is of the reply.

    It may also be ended from outside: by `BaseSession.cancel`, by a manager that is closed, or when
    its event loop is closed or stands still. What is then done with it raises `TurnCancelledError`
    or `TurnLostError`; `answering` and `check` raise it early.

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
        shown: Gives what has been shown of the reply, to be kept if the turn ends early and nothing
            else is given then. Made up of `received` texts where it is None.
        answerer: Who answers, where several are asked the same; None where nobody else is.
        asked_seq: The number of the first message that it answers, if that is another turn's: then
            nothing behind it is sent.
        prefix_change: Why its requests do not begin with the whole of the one before, where the
            turn itself makes it so.
        window_tokens: How many tokens the window has that begins elsewhere, by estimate.
        tells_change: Whether the turn's end tells the hooks of it; False where a provider's reply
            does.
        replaced: The messages of the log that its answer stands for from then on.
        kept: What else of the log follows what it answers.
        after_end: What is called once the turn has ended.
        late: What ends the turns within it, once it has ended and before the session is free.
        holds_queue: Whether the next turn of this process waits for its end.
    """

    def __init__(
        self, session: BaseSession, token: str, keyed: bool, answerer: str | None = None
    ) -> None:
        self.ref = session.ref
        self.session_id = session.session_id
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
        self._session = session
        self._keyed = keyed
        self._open = False
        self._pid = os.getpid()
        self._loop = bridge.callers_loop()
        self._first_revision = 0
        self._partial: list[str] = []
        self._given_partial: Sequence[SessionMessage] = ()
        self._lock = Lock()
        self._is_ending = False
        self._stop: Stop | None = None
        self._blocks: list[Interruptible] = []
        self._when_closed: list[Callable[[], None]] = []
        self._last_task: asyncio.Task[None] | None = None
        self._added = 0
        self._given = 0
        self._request_state: RequestState | None = None
        self.prefix_change: PrefixChangeReason | None = None
        self.window_tokens = 0
        self.tells_change = True
        self.reader: Reader | None = None

    @property
    def is_open(self) -> bool:
        """Whether the turn goes on."""
        return self._open

    @property
    def is_ours(self) -> bool:
        """Whether it is for this process to end it: a forked child leaves it to its parent."""
        return self._open and self._pid == os.getpid()

    @property
    def is_stopped(self) -> bool:
        """Whether it was ended from outside, or is about to be."""
        return self._stop is not None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that it began on; None if sync code began it."""
        return self._loop

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
        return await self._session._window.before(self, context or self._session.context, target)

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
        context = self._session.context
        self._request_state = self.request_state(context).started_at(seq, context)
        self.prefix_change = reason

    def changed_prefix(self) -> PrefixChangeReason | None:
        """Return why requests begin elsewhere, in this turn or since one without a reply."""
        return self.prefix_change or self.request_state(self._session.context).untold

    def forget_beginning(self) -> None:
        """Have requests begin where they did before the turn, as leaving out more did not help."""
        self._request_state = None
        self.prefix_change = None

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
        session = self._session
        messages = as_messages(messages, self.session_id)
        messages = self._signed(await session._pipeline.process(session, messages))
        try:
            appended = await session._storage.append(self.ref, messages, token=self.token)
        except TurnLostError as error:
            self.check(error)
            raise
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
            TurnCancelledError: If the turn was cancelled from outside; nothing was stored.
            MessageRefusedError: If a middleware refuses one; the turn is still open then.
            MessageConflictError: If an id is stored with other content, or in another turn; the
                turn is still open then.
        """
        self.check()
        messages = as_messages(messages, self.session_id)
        end = TurnEnd(
            self.token, TurnStatus.COMPLETE, provider_state=self._with_requests(provider_state)
        )
        changed = self.changed_prefix() if self.tells_change else None
        self._is_ending = True  # whoever ends it from outside waits for this
        try:
            with self.answering():  # but for no middleware that takes as long as a provider
                messages = await self._session._pipeline.process(self._session, messages)
            appended = await self._end(end, messages)
        except (TurnLostError, StorageClosedError) as error:
            self.check(error)
            raise
        finally:
            self._is_ending = False
        await self._session._pipeline.stored(self._session, appended.new_messages)
        if changed is not None:
            change = PrefixChange(reason=changed, tokens=self.window_tokens)
            await self._session._pipeline.prefix_changed(self._session, change)
        return appended.messages

    def _with_requests(
        self, provider_state: Mapping[str, Any] | None, *, early: bool = False
    ) -> Mapping[str, Any] | None:
        """Return the providers' state with that of the requests, if the turn changed that.

        Args:
            provider_state: The providers' new state, if that changed.
            early: Whether the turn has no whole reply: then what a provider noted with it is not
                kept, and what is left out of requests is, as it has been left out.
        """
        context = self._session.context
        stored = RequestState.of(context)
        state = self._request_state or stored
        if early:
            untold = self.changed_prefix()  # the next reply tells it
            refused = state.compactions_refused
            compactions = {name: at for name, at in stored.compactions.items() if at > refused}
            notes = stored.notes
            state = replace(state, notes=notes, compactions=compactions, untold=untold)
        elif self.tells_change:
            state = state.told()
        if state == stored:
            return provider_state
        if provider_state is None:
            return with_request_state(context, state)
        return {**provider_state, "request_state": state.to_context()}

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
            reason = type(error).__name__ if self._stop is None else self._stop.reason
            await self.cancel(partial, reason)

    def answering(self) -> Interruptible:
        """A block of a coroutine in which the answer is made: ``with turn.answering(): await ...``

        If the turn is ended from outside the block is cancelled, and raises why.

        Raises:
            TurnCancelledError: If somebody cancelled the turn.
            TurnLostError: If it was ended as its event loop did not run any more.
        """
        return Interruptible(self)

    def check(self, cause: BaseException | None = None) -> None:
        """Raise if the turn was ended from outside: for code that cannot be interrupted.

        Args:
            cause: The error to name as the cause.

        Raises:
            TurnCancelledError, TurnLostError: As in `answering`.
        """
        if self._stop is not None:
            raise self._stop.error(self.session_id) from cause

    def stopped_error(self) -> SessionError:
        """The error of a turn that was ended from outside."""
        assert self._stop is not None, "it was ended from outside"
        return self._stop.error(self.session_id)

    async def stop(self, stop: Stop) -> None:
        """End the turn from outside: from any task, thread and event loop.

        Whoever works on it is interrupted and ends it; if nobody does, or does not in time, it is
        ended on its event loop, or else here. Returns when it has ended.

        Args:
            stop: Why.
        """
        if not self.is_ours:
            return
        self._stop = self._stop or stop
        if self._is_ending and await self.closed(GRACE_SECONDS):
            return
        interrupted = [block.interrupt() for block in list(self._blocks)]
        if any(interrupted) and await self.closed(GRACE_SECONDS):
            return
        if not self._is_ending and self._hand_to_loop():
            await self.closed(GRACE_SECONDS)
        if self._is_ending:
            await self.closed(endings.PARTIAL_SECONDS + GRACE_SECONDS)
        error = asyncio.CancelledError(self._stop.reason)
        await self._end_early(TurnStatus.CANCELLED, (), error, self._stop.reason, is_last=True)

    async def closed(self, seconds: float | None = None) -> bool:
        """Wait until the turn has ended, on any event loop.

        Args:
            seconds: How long to wait at most; None for as long as it takes.

        Returns:
            Whether it has.
        """
        loop = asyncio.get_running_loop()
        closed: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # nobody waits on a loop that was closed
                loop.call_soon_threadsafe(_settle, closed)

        with self._lock:
            if not self._open:
                return True
            self._when_closed.append(tell)
        try:
            await asyncio.wait([closed], timeout=seconds)
        finally:
            with self._lock:
                if tell in self._when_closed:
                    self._when_closed.remove(tell)
        return not self._open

    def received(self, text: str) -> None:
        """Text of a reply that has been shown already, to be kept if it goes no further."""
        self._partial.append(text)

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
        elif self.is_ours:
            try:
                await self.complete()
            except BaseException as failure:
                await self._abandon(failure)
                raise

    def __del__(self) -> None:
        if self.is_ours and not sys.is_finalizing():
            logger.warning("session %r: a turn was dropped before its end", self.session_id)
            runtime, partial = self._session._runtime, self._received(TurnStatus.CANCELLED)
            bridge.start(runtime.end_dropped(self._session, self.token, partial))

    async def _abandon(self, error: BaseException) -> None:
        if self._stop is not None:
            await self.cancel(reason=self._stop.reason)
        elif isinstance(error, Exception):
            await self.fail(error)
        else:  # CancelledError, GeneratorExit, KeyboardInterrupt
            await self.cancel()

    def _begun(self, record: SessionRecord, messages: list[SessionMessage]) -> None:
        self.id = record.turn_id or 0
        self.messages = messages
        self._first_revision = record.revision
        others = [each.seq or 0 for each in messages if each.turn_id != self.id]
        self.asked_seq = min(others) if others and len(others) == len(messages) else None
        self._open = True
        self._session._runtime.keeper.add(self)
        # Also drops those whose end another context saw.
        _open_turns.set((*(turn for turn in _open_turns.get() if turn.is_open), self))

    def _moved(self, record: SessionRecord, messages: list[SessionMessage]) -> None:
        self.messages = [*self.messages, *messages]
        self._session._moved(record)

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
        end = TurnEnd(
            self.token, status, error=reason, provider_state=self._with_requests(None, early=True)
        )
        step = self._last_step(end, self._received(status), error)
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
            await self._end_with(end, await passed(self._session, partial), error)
        except asyncio.CancelledError:
            if not self._open:  # a hook was
                raise
            rest = self._last_step(end, partial, error)
            await settled(asyncio.wrap_future(bridge.start(rest)))
            raise

    def _received(self, status: TurnStatus) -> list[SessionMessage]:
        """What there is of the reply: what was given when it was to end, or else was shown."""
        if self._given_partial:
            return [*self._given_partial]
        if self.shown is not None:
            return [each.replaced(finish_reason=status.value) for each in self.shown()]
        if not self._partial:
            return []
        text = "".join(self._partial)
        return [
            SessionMessage(role=MessageRole.ASSISTANT, content=text, finish_reason=status.value)
        ]

    def _claim(self) -> bool:
        """Take it on to end the turn; False if somebody else has."""
        with self._lock:
            is_first, self._is_ending = not self._is_ending, True
        return is_first

    def _hand_to_loop(self) -> bool:
        """Let the turn's event loop end it; False if that is this one, or does not run."""
        loop, stop = self._loop, self._stop
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
        except asyncio.CancelledError:
            raise  # the event loop is shut down, and the turn is still to be ended
        except BaseException:
            self._close()
            raise
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
        try:
            return await self._end_once(end, messages)
        finally:
            if not self._open:
                await self._call_waiting()

    def _signed(self, messages: Sequence[SessionMessage]) -> list[SessionMessage]:
        """Return messages that say who answered, and what the answer replaces."""
        signed = marked(messages, self.answerer)
        first = next((n for n, each in enumerate(signed) if each.role is MessageRole.ASSISTANT), -1)
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
                self._session._runtime.queue.release(self.ref)
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
        session = self._session
        try:
            appended = await self._stored_end(end, self._signed(messages))
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
        with self._lock:
            if not self._open:
                return
            self._open = False
        runtime = self._session._runtime
        runtime.keeper.remove(self.token)
        if self.holds_queue and not self.late:
            runtime.queue.release(self.ref)
        _open_turns.set(tuple(turn for turn in _open_turns.get() if turn is not self))
        if not (self.late or self.after_end):
            self._tell_closed()

    def _tell_closed(self) -> None:
        """Tell those who wait for the end, once all that waits for it has been done."""
        with self._lock:
            waiting, self._when_closed = self._when_closed, []
        for tell in waiting:
            tell()


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
