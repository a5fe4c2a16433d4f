"""Beginning a turn in the storage, once this process has the session."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from langswarm_session.models import SessionMessage, TurnStatus
from langswarm_session.records import IdempotencyKey, Lease, TurnEnd, TurnStart
from langswarm_session.storage import owner
from langswarm_session.storage.rules import begun_with
from langswarm_session.turns.answerers import Asked
from langswarm_session.turns.endings import settled
from langswarm_session.turns.locks import deadline_of

if TYPE_CHECKING:
    from langswarm_session.turns.core import SessionCore
    from langswarm_session.turns.turn import OpenTurn


async def attempt(
    core: SessionCore,
    turn: OpenTurn,
    messages: Sequence[SessionMessage],
    key: IdempotencyKey | None,
    asked: Asked | None,
) -> None:
    """Begin a turn in the storage, if the session is free there.

    Args:
        core: The session.
        turn: The turn.
        messages: What it begins with.
        key: Its key.
        asked: Who is asked, where several may be.

    Raises:
        SessionBusyError: If another process has the session.
        ManagerClosedError: If the manager was closed.
    """
    core.locks.check_open(core.ref)
    await _attempt(core, turn, messages, key, asked)


async def begin_late(
    core: SessionCore,
    turn: OpenTurn,
    messages: Sequence[SessionMessage],
    key: IdempotencyKey,
    *,
    has_queue: bool,
) -> bool:
    """Begin a turn whose answer is there, before those that wait for the session.

    A closed manager stores it too.

    Args:
        core: The session.
        turn: The turn.
        messages: What it answers.
        key: Its key.
        has_queue: Whether the session is kept for it until it has ended.

    Returns:
        Whether it has begun; False if its answer is stored already.
    """
    locks = core.locks
    if not has_queue:
        await locks.queue.acquire(core.ref, locks.turn_wait, is_next=True)
        turn.holds_queue = True
    try:
        begin = partial(_attempt, core, turn, messages, key, None)
        await locks.when_free(core.ref, begin, deadline_of(locks.turn_wait))
    finally:
        if turn.holds_queue and (turn.replayed or turn.id == 0):
            locks.queue.release(core.ref)
            turn.holds_queue = False
    return not turn.replayed


async def _attempt(
    core: SessionCore,
    turn: OpenTurn,
    messages: Sequence[SessionMessage],
    key: IdempotencyKey | None,
    asked: Asked | None,
) -> None:
    """Begin a turn; a turn that is complete is replayed if the same answerer completed it."""
    core.locks.beginning.add(turn.token)
    try:
        start = await _begin_in_storage(core, turn, messages, key)
        if start.replayed and asked is not None and asked.is_another(start.messages):
            key = asked.key
            start = await _begin_in_storage(core, turn, messages, key)
        core.moved(start.record)
        if start.replayed:
            turn.messages, turn.replayed = begun_with(key, messages, start.messages), True
        else:
            turn.begin(start.record, start.messages, start.added, len(messages))
            core.locks.leads[core.ref] = turn
    except asyncio.CancelledError:
        # It may or may not have happened.
        end = TurnEnd(turn.token, TurnStatus.CANCELLED, error="cancelled as it began")
        await settled(asyncio.ensure_future(core.locks.late_ends.store(core.ref, end)))
        raise
    finally:
        core.locks.beginning.discard(turn.token)


async def _begin_in_storage(
    core: SessionCore,
    turn: OpenTurn,
    messages: Sequence[SessionMessage],
    key: IdempotencyKey | None,
) -> TurnStart:
    lease = Lease(turn.token, await owner.current(), core.locks.keeper.seconds)
    return await core.storage.begin_turn(core.ref, messages, lease, key=key)
