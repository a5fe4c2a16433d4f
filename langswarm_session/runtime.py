"""How turns get a session to themselves, within a process and among several."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from langswarm_session import owner
from langswarm_session.errors import (
    InvalidInputError,
    NestedTurnError,
    SessionBusyError,
    SessionNotFoundError,
    TurnLostError,
    in_session,
)
from langswarm_session.leases import LeaseKeeper
from langswarm_session.models import SessionMessage, TurnStatus, new_id
from langswarm_session.records import IdempotencyKey, Lease, SessionRef, TurnEnd
from langswarm_session.storage.rules import LOST_OWNER
from langswarm_session.turn_queue import TurnQueue
from langswarm_session.turns import OpenTurn, open_turns

if TYPE_CHECKING:
    from langswarm_session.interfaces import ISessionStorage
    from langswarm_session.session import BaseSession

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LOOKS = 50
FIRST_DELAY, LAST_DELAY = 0.002, 0.1
"""How long to wait between two looks at another process's lease, in seconds."""


class Runtime:
    """What all sessions of a manager share.

    Args:
        storage: Where the sessions live.
        lease_seconds: How long a turn's lease holds without being renewed.
        turn_wait: How long a turn waits for the one before it, in seconds; None: for ever.
    """

    def __init__(
        self, storage: ISessionStorage, *, lease_seconds: float, turn_wait: float | None
    ) -> None:
        self.storage = storage
        self.queue = TurnQueue()
        self.keeper = LeaseKeeper(storage, lease_seconds)
        self.turn_wait = turn_wait
        self._overdue: dict[SessionRef, TurnEnd] = {}

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
    ) -> OpenTurn:
        """Begin a turn, when the session is free.

        Args:
            session: The session.
            messages: What the turn begins with.
            key: The caller's idempotency key.
            wait: How long to wait for the session, in seconds; None for as long as it takes.

        Raises:
            NestedTurnError: If the caller runs in a turn of this session.
            SessionBusyError: If it is not free in time.
            SessionError: Whatever else `ISessionStorage.begin_turn` raises.
        """
        ref = session.ref
        turn = OpenTurn(session, new_id(), key is not None)

        async def attempt() -> None:
            lease = Lease(turn.token, owner.this_process(), self.keeper.seconds)
            try:
                start = await self.storage.begin_turn(ref, messages, lease, key=key)
            except asyncio.CancelledError:
                # It may or may not have happened.
                end = TurnEnd(turn.token, TurnStatus.CANCELLED, error="cancelled as it began")
                await asyncio.shield(self._end_by_token(ref, end))
                raise
            session._moved(start.record)
            if start.replayed:
                turn.messages, turn.replayed = start.messages, True
            else:
                turn._begun(start.record, start.messages)
                turn._added, turn._given = start.added, len(messages)

        deadline = _deadline(wait)
        await self._reserve(ref, deadline)
        try:
            await self._when_free(ref, attempt, deadline)
        finally:
            if not turn.is_open:
                self.queue.release(ref)
        return turn

    async def alone(
        self, ref: SessionRef, operation: Callable[[], Awaitable[T]], wait: float | None
    ) -> T:
        """Do something that needs the session to be free, when it is.

        Raises:
            NestedTurnError: If the caller runs in a turn of this session.
            SessionBusyError: If it is not free in time.
        """
        deadline = _deadline(wait)
        await self._reserve(ref, deadline)
        try:
            return await self._when_free(ref, operation, deadline)
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
                end = self._overdue_end(ref, busy)
                if end is not None:
                    await self._end_by_token(ref, end)
                    continue
                if deadline is not None and time.monotonic() + delay > deadline:
                    raise
            except InvalidInputError as error:
                raise in_session(error, ref.session_id) from error.__cause__
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311
            delay = min(delay * 2, LAST_DELAY)

    def end_later(self, ref: SessionRef, end: TurnEnd) -> None:
        """The end of a turn of ours could not be stored: whoever comes next does it.

        Until then its lease holds, and other processes wait until that has run out.
        """
        self._overdue[ref] = end

    def _overdue_end(self, ref: SessionRef, busy: SessionBusyError) -> TurnEnd | None:
        """How to end the turn that holds a session, if it does not go on any more."""
        ours = self._overdue.pop(ref, None)
        if ours is not None and ours.token == busy.holder:
            return ours
        if busy.holder is not None and owner.is_dead(busy.owner):
            return TurnEnd(busy.holder, TurnStatus.FAILED, error=LOST_OWNER)
        return None

    async def end_dropped(self, ref: SessionRef, token: str) -> None:
        """End a turn that nobody holds any more, and let the next one in."""
        try:
            end = TurnEnd(token, TurnStatus.CANCELLED, error="dropped before its end")
            await self._end_by_token(ref, end)
        finally:
            self.queue.release(ref)

    async def _end_by_token(self, ref: SessionRef, end: TurnEnd) -> None:
        """End a turn that may have been ended, or may never have begun."""
        try:
            await self.storage.end_turn(ref, end, ())
        except (TurnLostError, SessionNotFoundError):
            logger.debug("session %r: there was no such turn to end", ref.session_id)
        except BaseException:
            self.end_later(ref, end)
            raise


def _deadline(wait: float | None) -> float | None:
    return None if wait is None else time.monotonic() + wait
