"""How turns get a session to themselves, within a process and among several."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from langswarm_session.errors import (
    InvalidInputError,
    ManagerClosedError,
    NestedTurnError,
    SessionBusyError,
    SessionError,
    SessionNotFoundError,
    TurnLostError,
    in_session,
)
from langswarm_session.models import SessionMessage, TurnStatus, new_id
from langswarm_session.records import (
    IdempotencyKey,
    Lease,
    SessionRecord,
    SessionRef,
    TurnEnd,
)
from langswarm_session.storage import owner
from langswarm_session.storage.rules import LOST_OWNER, begun_with
from langswarm_session.turns.answerers import Asked
from langswarm_session.turns.endings import passed, settled
from langswarm_session.turns.leases import LeaseKeeper
from langswarm_session.turns.parallel import TurnBeside
from langswarm_session.turns.queue import TurnQueue
from langswarm_session.turns.stopping import finish_all, stop_all, stop_at_exit
from langswarm_session.turns.turn import OpenTurn, open_turns
from langswarm_session.turns.watch import TurnWatch

if TYPE_CHECKING:
    from langswarm_session.interfaces import ISessionStorage
    from langswarm_session.session import BaseSession

logger = logging.getLogger(__name__)

T = TypeVar("T")

_spread = random.SystemRandom().uniform  # takes no numbers from the program's own `random`
_LOOKS = 50
FIRST_DELAY, LAST_DELAY = 0.002, 0.1
"""How long to wait between two looks at another process's lease, in seconds."""


class Runtime:
    """What all sessions of a manager share.

    Args:
        storage: Where the sessions live.
        lease_seconds: How long a turn's lease holds without being renewed.
        turn_wait: How long a turn waits for the one before it, in seconds; None: for ever.
        stall_seconds: How long the event loop of an open turn may stand still; None: for ever.

    Attributes:
        beginning: The tokens of turns that are about to begin.
    """

    def __init__(
        self,
        storage: ISessionStorage,
        *,
        lease_seconds: float,
        turn_wait: float | None,
        stall_seconds: float | None,
    ) -> None:
        self.storage = storage
        self.queue = TurnQueue()
        self._gates = TurnQueue()
        self._leads: weakref.WeakValueDictionary[SessionRef, OpenTurn]
        self._leads = weakref.WeakValueDictionary()
        self.keeper = LeaseKeeper(storage, lease_seconds, TurnWatch(storage, stall_seconds))
        self.turn_wait = turn_wait
        self.beginning: set[str] = set()
        self._overdue: dict[SessionRef, TurnEnd] = {}
        self._is_closed = False
        # Finalizers run in the reverse order at the interpreter's exit: this one before that of the
        # storage, which closes it.
        weakref.finalize(self, stop_at_exit, self.keeper)

    def open_turn(self, ref: SessionRef) -> OpenTurn | None:
        """The turn of this session in which the caller runs, if it does."""
        for turn in open_turns():
            if (
                turn.is_open
                and not (turn.reader is not None and turn.reader.is_gone)
                and turn.ref == ref
                and turn._session._runtime.storage is self.storage
            ):
                return turn
        return None

    async def begin(
        self,
        session: BaseSession,
        messages: Sequence[SessionMessage],
        key: IdempotencyKey | None,
        wait: float | None,
        asked: Asked | None = None,
    ) -> OpenTurn:
        """Begin a turn, when the session is free, or beside one that has the same messages.

        Args:
            session: The session.
            messages: What the turn begins with.
            key: The caller's idempotency key.
            wait: How long to wait for the session, in seconds; None for as long as it takes.
            asked: Who is asked, where several may be.

        Raises:
            NestedTurnError: If the caller runs in a turn of this session.
            SessionBusyError: If it is not free in time.
            SessionError: Whatever else `ISessionStorage.begin_turn` raises.
        """
        deadline = _deadline(wait)
        if asked is None:
            return await self._begin_alone(session, messages, key, deadline, None)
        # Who is asked the same waits only until the other one's turn has begun.
        gate = session.ref._replace(user_id=f"{session.user_id}\0{messages[-1].id}")
        await self._gates.acquire(gate, wait)
        try:
            lead = self._lead(session.ref, messages, asked)
            if lead is not None:
                return await self._begin_beside(lead, session, messages, key, asked)
            return await self._begin_alone(session, messages, key, deadline, asked)
        finally:
            self._gates.release(gate)

    async def _begin_alone(
        self,
        session: BaseSession,
        messages: Sequence[SessionMessage],
        key: IdempotencyKey | None,
        deadline: float | None,
        asked: Asked | None,
    ) -> OpenTurn:
        """Begin a turn when the session is free."""
        ref = session.ref
        answerer = None if asked is None else asked.answerer
        turn = OpenTurn(session, new_id(), key is not None, answerer)
        await self._reserve(ref, deadline)
        try:
            attempt = partial(self._attempt, turn, messages, key, asked)
            await self._when_free(ref, attempt, deadline)
        finally:
            if not turn.is_open:
                self.queue.release(ref)
        return turn

    async def _attempt(
        self,
        turn: OpenTurn,
        messages: Sequence[SessionMessage],
        key: IdempotencyKey | None,
        asked: Asked | None,
        *,
        is_late: bool = False,
    ) -> None:
        """Begin a turn in the storage, if the session is free there.

        A turn that is complete is replayed if the same one answered; another one is then begun.
        One whose answer is there already (``is_late``) is stored by a closed manager too.
        """
        ref, session = turn.ref, turn._session
        lease = Lease(turn.token, await owner.current(), self.keeper.seconds)
        if not is_late:
            self._check_open(ref)
        self.beginning.add(turn.token)
        try:
            start = await self.storage.begin_turn(ref, messages, lease, key=key)
            if start.replayed and asked is not None and asked.is_another(start.messages):
                key = asked.key
                start = await self.storage.begin_turn(ref, messages, lease, key=key)
            session._moved(start.record)
            if start.replayed:
                turn.messages, turn.replayed = begun_with(key, messages, start.messages), True
            else:
                turn._begun(start.record, start.messages)
                turn._added, turn._given = start.added, len(messages)
                self._leads[ref] = turn
        except asyncio.CancelledError:
            # It may or may not have happened.
            end = TurnEnd(turn.token, TurnStatus.CANCELLED, error="cancelled as it began")
            await settled(asyncio.ensure_future(self._end_by_token(ref, end)))
            raise
        finally:
            self.beginning.discard(turn.token)

    def _lead(
        self, ref: SessionRef, messages: Sequence[SessionMessage], asked: Asked
    ) -> OpenTurn | None:
        """Return the open turn of this process in which another one is asked the same."""
        lead = self._leads.get(ref)
        if lead is None or not lead.is_ours or lead.answerer == asked.answerer:
            return None
        known = {message.id for message in lead.messages}
        return lead if known.issuperset(message.id for message in messages) else None

    async def _begin_beside(
        self,
        lead: OpenTurn,
        session: BaseSession,
        messages: Sequence[SessionMessage],
        key: IdempotencyKey | None,
        asked: Asked,
    ) -> OpenTurn:
        """Begin a turn beside another one, unless its answer is stored."""
        turn = OpenTurn(session, new_id(), key is not None, asked.answerer)
        turn.holds_queue = False
        try:
            await self._attempt(turn, messages, key, asked)
        except SessionBusyError:
            return TurnBeside(session, lead, messages, asked)
        return turn

    async def begin_late(
        self,
        turn: OpenTurn,
        messages: Sequence[SessionMessage],
        key: IdempotencyKey,
        *,
        has_queue: bool,
    ) -> bool:
        """Begin a turn whose answer is there, before whoever waits for the session.

        Args:
            turn: The turn.
            messages: What it answers.
            key: Its key.
            has_queue: Whether the session is kept for it until it has ended.

        Returns:
            Whether it has begun; False if its answer is stored already.
        """
        if not has_queue:
            await self.queue.acquire(turn.ref, self.turn_wait, is_next=True)
            turn.holds_queue = True
        try:
            attempt = partial(self._attempt, turn, messages, key, None, is_late=True)
            await self._when_free(turn.ref, attempt, _deadline(self.turn_wait))
        finally:
            if turn.holds_queue and (turn.replayed or turn.id == 0):
                self.queue.release(turn.ref)
                turn.holds_queue = False
        return not turn.replayed

    async def alone(
        self, ref: SessionRef, operation: Callable[[], Awaitable[T]], wait: float | None
    ) -> T:
        """Do something that needs the session to be free, when it is.

        Raises:
            NestedTurnError: If the caller runs in a turn of this session.
            SessionBusyError: If it is not free in time.
        """

        async def attempt() -> T:
            self._check_open(ref)
            return await operation()

        deadline = _deadline(wait)
        await self._reserve(ref, deadline)
        try:
            return await self._when_free(ref, attempt, deadline)
        finally:
            self.queue.release(ref)

    async def _reserve(self, ref: SessionRef, deadline: float | None) -> None:
        """Wait for the session within this process."""
        if await self._is_inside(ref):
            raise NestedTurnError(
                "this runs inside a turn of the same session, which would wait for itself; "
                "use another session for the inner one, or add to the turn that is open",
                session_id=ref.session_id,
            )
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        await self.queue.acquire(ref, wait)

    async def _is_inside(self, ref: SessionRef) -> bool:
        """Whether the caller runs in a turn of this session that will not end by itself."""
        turn = self.open_turn(ref)
        if turn is not None and turn.reader is not None:
            # Its reader may have just stopped, through a generator in between: the event loop is
            # about to cancel it then.
            for _ in range(_LOOKS):
                await asyncio.sleep(FIRST_DELAY)
                if not turn.is_open or turn.reader.is_gone:
                    return False
        return turn is not None

    async def _when_free(
        self, ref: SessionRef, attempt: Callable[[], Awaitable[T]], deadline: float | None
    ) -> T:
        """Try until no other process has the session; take it from one that is dead."""
        delay = FIRST_DELAY
        while True:
            try:
                return await attempt()
            except SessionBusyError as busy:
                end = await self._overdue_end(ref, busy)
                if end is not None:
                    await self._end_by_token(ref, end)
                    continue
                if deadline is not None and time.monotonic() + delay > deadline:
                    raise
            except InvalidInputError as error:
                raise in_session(error, ref.session_id) from error.__cause__
            await asyncio.sleep(delay * _spread(0.5, 1.0))
            delay = min(delay * 2, LAST_DELAY)

    def end_later(self, ref: SessionRef, end: TurnEnd) -> None:
        """The end of a turn of ours could not be stored: whoever comes next does it.

        Until then its lease holds, and other processes wait until that has run out.
        """
        self._overdue[ref] = end

    async def _overdue_end(self, ref: SessionRef, busy: SessionBusyError) -> TurnEnd | None:
        """How to end the turn that holds a session, if it does not go on any more."""
        ours = self._overdue.pop(ref, None)
        if ours is not None and ours.token == busy.holder:
            return ours
        if busy.holder is not None and await owner.has_ended(busy.owner):
            return TurnEnd(busy.holder, TurnStatus.FAILED, error=LOST_OWNER)
        return None

    async def end_left_behind(self, record: SessionRecord) -> bool:
        """End the turn of a session if whoever had it does not go on with it.

        Args:
            record: The session as it is now, with a lease.

        Returns:
            Whether it was so.
        """
        token, expires = record.turn_token, record.turn_expires
        busy = SessionBusyError("", holder=token, owner=record.turn_owner)
        end = await self._overdue_end(record.ref, busy)
        if end is None and token is not None and (expires or 0) <= time.time_ns() // 1000:
            end = TurnEnd(token, TurnStatus.FAILED, error=LOST_OWNER)
        if end is not None:
            await self._end_by_token(record.ref, end)
        return end is not None

    async def end_dropped(
        self, session: BaseSession, token: str, partial: Sequence[SessionMessage]
    ) -> None:
        """End a turn that nobody holds any more, and let the next one in.

        Args:
            session: The turn's session.
            token: Its lease's token.
            partial: What has been shown of the reply.
        """
        ref = session.ref
        try:
            messages = await passed(session, partial)
            end = TurnEnd(token, TurnStatus.CANCELLED, error="dropped before its end")
            await self._end_by_token(ref, end, messages)
        finally:
            self.queue.release(ref)

    async def finish(self, seconds: float) -> None:
        """Wait until the open turns have ended; those that wait to begin do so no more.

        Args:
            seconds: How long to wait at most.
        """
        self._is_closed = True
        await finish_all(self, seconds)

    async def close(self) -> None:
        """End the open turns with what there is of their replies; no further one begins."""
        self._is_closed = True
        try:
            await stop_all(self)
        finally:
            self.keeper.close()

    def _check_open(self, ref: SessionRef) -> None:
        if self._is_closed:
            raise ManagerClosedError(
                "the manager was closed; make a new one", session_id=ref.session_id
            )

    async def _end_by_token(
        self, ref: SessionRef, end: TurnEnd, messages: Sequence[SessionMessage] = ()
    ) -> None:
        """End a turn that may have been ended, or may never have begun."""
        try:
            await self.storage.end_turn(ref, end, messages)
        except (TurnLostError, SessionNotFoundError):
            logger.debug("session %r: there was no such turn to end", ref.session_id)
        except SessionError:
            if not messages:
                self.end_later(ref, end)
                raise
            logger.warning("session %r: what there was of a reply was lost", ref.session_id,
                           exc_info=True)  # fmt: skip
            await self._end_by_token(ref, end)
        except BaseException:
            self.end_later(ref, end)
            raise


def _deadline(wait: float | None) -> float | None:
    return None if wait is None else time.monotonic() + wait
