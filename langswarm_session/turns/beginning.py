"""How a turn begins: when the session is free, or beside one that has the same messages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from langswarm_session.errors import SessionBusyError
from langswarm_session.models import SessionMessage, new_id
from langswarm_session.records import IdempotencyKey
from langswarm_session.requests import window
from langswarm_session.turns import regenerate
from langswarm_session.turns.answerers import Asked, again_key
from langswarm_session.turns.attempts import attempt
from langswarm_session.turns.inputs import key_of, renamed
from langswarm_session.turns.locks import deadline_of
from langswarm_session.turns.parallel import TurnBeside
from langswarm_session.turns.turn import OpenTurn

if TYPE_CHECKING:
    from langswarm_session.turns.core import SessionCore


async def begin(
    core: SessionCore,
    messages: list[SessionMessage],
    idempotency_key: str | None,
    wait: float | None,
    answerer: str | None = None,
) -> OpenTurn:
    """Begin a turn; see `BaseSession.begin_turn`.

    Args:
        core: The session.
        messages: What it begins with, before the middleware.
        idempotency_key: The caller's key.
        wait: How long to wait for the session, in seconds; None for as long as it takes.
        answerer: Who answers, where several are asked the same.
    """
    core.check_open()
    key = key_of(idempotency_key, messages)
    processed = await core.process_first(messages)
    asked = None if answerer is None or not messages else Asked(answerer, messages, key)
    turn = await _begin(core, processed, key, wait, asked)
    if turn.is_open:
        try:
            if turn.added:
                await core.stored([m for m in turn.messages if m.turn_id == turn.id])
            await _leave_out_known(turn)
            _leave_out_old(turn, len(processed), core.context.max_messages)
        except BaseException as error:  # cancelled meanwhile
            await turn.abandon(error)
            raise
    return turn


async def begin_again(
    core: SessionCore,
    asked: SessionMessage | str | None,
    idempotency_key: str | None,
    wait: float | None,
    answerer: str | None = None,
) -> OpenTurn:
    """Begin a turn about a message that is answered already; see `BaseSession.regenerate`.

    Args:
        core: The session.
        asked: The message or its id; the newest of the user when None.
        idempotency_key: The caller's key.
        wait: How long to wait for the session, in seconds; None for as long as it takes.
        answerer: Who answers, where several are asked the same.
    """
    core.check_open()
    question, _ = await regenerate.question_of(core, asked)
    name = new_id() if idempotency_key is None else idempotency_key
    known = key_of(name, [question])
    assert known is not None, "there is a name"
    turn = await _begin(core, [question], again_key(known, answerer), wait, None)
    turn.rename = renamed
    turn.answerer = answerer
    if turn.is_open:
        try:
            await regenerate.prepare(core, turn, question)
        except BaseException as error:
            await turn.abandon(error)
            raise
    return turn


async def _begin(
    core: SessionCore,
    messages: Sequence[SessionMessage],
    key: IdempotencyKey | None,
    wait: float | None,
    asked: Asked | None,
) -> OpenTurn:
    """Begin a turn, when the session is free, or beside one that has the same messages.

    Raises:
        NestedTurnError: If the caller runs in a turn of this session.
        SessionBusyError: If it is not free in time.
        SessionError: Whatever else `ISessionStorage.begin_turn` raises.
    """
    deadline = deadline_of(wait)
    if asked is None:
        return await _begin_alone(core, messages, key, deadline, None)
    # Others who are asked the same wait only until the first one's turn has begun.
    queue = core.locks.message_queue
    place = core.ref._replace(user_id=f"{core.ref.user_id}\0{messages[-1].id}")
    await queue.acquire(place, wait)
    try:
        lead = _lead(core, messages, asked)
        if lead is not None:
            return await _begin_beside(core, lead, messages, key, asked)
        return await _begin_alone(core, messages, key, deadline, asked)
    finally:
        queue.release(place)


async def _begin_alone(
    core: SessionCore,
    messages: Sequence[SessionMessage],
    key: IdempotencyKey | None,
    deadline: float | None,
    asked: Asked | None,
) -> OpenTurn:
    """Begin a turn when the session is free."""
    answerer = None if asked is None else asked.answerer
    turn = OpenTurn(core, new_id(), key is not None, answerer)
    await core.locks.reserve(core.ref, deadline)
    try:
        begin = partial(attempt, core, turn, messages, key, asked)
        await core.locks.when_free(core.ref, begin, deadline)
    finally:
        if not turn.is_open:
            core.locks.queue.release(core.ref)
    return turn


def _lead(core: SessionCore, messages: Sequence[SessionMessage], asked: Asked) -> OpenTurn | None:
    """Return the open turn of this process in which another one is asked the same."""
    lead = core.locks.leads.get(core.ref)
    if not isinstance(lead, OpenTurn) or not lead.is_ours or lead.answerer == asked.answerer:
        return None
    known = {message.id for message in lead.messages}
    return lead if known.issuperset(message.id for message in messages) else None


async def _begin_beside(
    core: SessionCore,
    lead: OpenTurn,
    messages: Sequence[SessionMessage],
    key: IdempotencyKey | None,
    asked: Asked,
) -> OpenTurn:
    """Begin a turn beside another one, unless its answer is stored."""
    turn = OpenTurn(core, new_id(), key is not None, asked.answerer)
    turn.holds_queue = False
    try:
        await attempt(core, turn, messages, key, asked)
    except SessionBusyError:
        return TurnBeside(core, lead, messages, asked)
    return turn


async def _leave_out_known(turn: OpenTurn) -> None:
    """Leave those messages that were stored before where they are in the window.

    The others (of a turn that failed, or cut from the window) are sent with the new ones.
    """
    if turn.asked_seq is None and any(message.turn_id != turn.id for message in turn.messages):
        known = {message.id for message in await turn.history()}
        turn.messages = [message for message in turn.messages if message.id not in known]


def _leave_out_old(turn: OpenTurn, count: int, size: int) -> None:
    """Send the newest messages of a turn that has more than a window holds.

    Args:
        turn: The turn.
        count: How many messages it began with now; these are sent in any case.
        size: How many messages a window holds.
    """
    if len(turn.messages) > max(count, size):
        needed = window.calls_needed(turn.messages[-count:])
        turn.messages = window.begin(turn.messages, len(turn.messages) - size, needed).messages
