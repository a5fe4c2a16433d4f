"""What the calls of a storage do to a session, where it takes more than the one quick script.

Nothing here is Redis': the decisions are those of `langswarm_session.storage.rules`, and a session
is read and changed by the methods of `langswarm_redis.session.Session`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langswarm_redis.session import Session
from langswarm_session.models import MessageRole, SessionMessage, TurnStatus
from langswarm_session.records import (
    Appended,
    IdempotencyKey,
    Lease,
    SessionChanges,
    SessionRecord,
    TurnEnd,
    TurnStart,
)
from langswarm_session.storage import rules
from langswarm_session.storage.edits import check_edit
from langswarm_session.storage.rows import dump_json, placed

_NO_LEASE: dict[str, Any] = {"turn_token": None, "turn_owner": None, "turn_expires": None}

Messages = Sequence[SessionMessage]


async def append(
    session: Session,
    messages: Messages,
    token: str | None,
    expected_revision: int | None,
    key: IdempotencyKey | None,
) -> Appended:
    """See `ISessionStorage.append`."""
    record = session.record
    stored = await session.stored(messages)
    if session.was_made:
        return Appended(record, _in_order(messages, stored), len(messages))
    fresh = rules.new_messages(record.session_id, messages, stored)
    if token is None and messages:
        known = await session.known_turn(key)
        if known is not None and rules.check_known(known, key, record) == "replay":
            return Appended(record, await session.turn(known.turn))
    if not fresh:
        if messages:
            rules.check_append(record, token, expected_revision, session.now)
        return Appended(record, _in_order(messages, stored))
    if token is not None:
        turn = _held(session, token)
        rules.check_revision(record, expected_revision)
        session.count(len(fresh), fresh)
    else:
        await _make_free(session, expected_revision)
        turn = await _begin(session, fresh, TurnStatus.COMPLETE, key)
    return await _stored(session, messages, stored, fresh, turn)


async def begin_turn(
    session: Session,
    messages: Messages,
    lease: Lease,
    key: IdempotencyKey | None,
    expected_revision: int | None,
) -> TurnStart:
    """See `ISessionStorage.begin_turn`."""
    record = session.record
    stored = await session.stored(messages)
    if session.was_made:
        begun = _in_order(messages, stored)
        own = [message for message in begun if message.turn_id == record.turn_id]
        return TurnStart(record, begun, added=len(own))
    fresh = rules.new_messages(record.session_id, messages, stored)
    leads = not fresh and rules.leads_to_turn(key)
    known = await session.known_turn(key, stored[messages[-1].id] if leads else None)
    outcome, asked = None, 0
    if known is not None:
        begun = await session.turn(known.turn)
        asked = rules.last_begun(len(messages), stored.values(), known.turn)
        outcome = rules.check_begun(known, key, record, begun, asked)
        if outcome == "replay":
            return TurnStart(record, begun, replayed=True)
    await _make_free(session, expected_revision)
    held: dict[str, Any] = {
        "turn_token": lease.token,
        "turn_owner": lease.owner,
        "turn_expires": session.now + int(lease.seconds * 1_000_000),
    }
    if known is not None and outcome == "resume":
        start = await _resume(session, known.turn, asked, held)
        begun = rules.begun_with(key, _in_order(messages, stored), start.messages)
        return TurnStart(start.record, begun)
    turn = session.record.last_seq + 1
    await _begin(session, fresh, TurnStatus.OPEN, key, turn_id=turn, **held)
    appended = await _stored(session, messages, stored, fresh, turn)
    return TurnStart(appended.record, appended.messages, added=len(fresh))


async def _resume(session: Session, turn: int, asked: int, held: dict[str, Any]) -> TurnStart:
    """Open again a turn that has no whole reply, with what it began with."""
    after = max(turn, asked + 1)
    rest = [each for each in await session.turn(turn) if (each.seq or 0) >= after]
    while rest and rest[0].role is not MessageRole.ASSISTANT:
        del rest[0]
    session.drop(rest)
    session.count(0, turn_id=turn, **held)
    await session.note(turn, TurnStatus.OPEN)
    kept = await session.turn(turn)
    return TurnStart(await session.commit(), kept)


async def end_turn(
    session: Session, end: TurnEnd, messages: Messages, state: str | None
) -> Appended:
    """See `ISessionStorage.end_turn`."""
    stored = await session.stored(messages)
    if session.was_made:
        return Appended(session.record, _in_order(messages, stored), len(messages))
    turn = _held(session, end.token)
    fresh = rules.new_messages(session.record.session_id, messages, stored)
    rules.check_ends(session.record.session_id, stored.values(), turn)
    changes = dict(_NO_LEASE) if state is None else {**_NO_LEASE, "provider_state": state}
    failed = int(end.status is TurnStatus.FAILED)
    session.count(len(fresh), fresh, errors=session.record.errors + failed, **changes)
    session.put(_numbered(session, fresh, turn))
    if end.status is not TurnStatus.COMPLETE or await session.note_of(turn) is not None:
        await session.note(turn, end.status, end.error)
    return await _stored(session, messages, stored, fresh, turn)


async def update(
    session: Session, changes: SessionChanges, expected_revision: int | None
) -> SessionRecord:
    """See `ISessionStorage.update_session`."""
    if session.was_made:
        return session.record
    rules.check_revision(session.record, expected_revision)
    state, context = changes.provider_state, changes.context
    if context is not None:
        context = {**session.record.context_values(), **context}
    fields = {
        "status": None if changes.status is None else changes.status.value,
        "provider": changes.provider,
        "model": changes.model,
        "backend": None if changes.backend is None else changes.backend.value,
        "provider_state": None if state is None else dump_json(dict(state)),
        "context": None if context is None else dump_json(context),
    }
    session.change(**{name: value for name, value in fields.items() if value is not None})
    return await session.commit()


async def clear(session: Session, expected_revision: int | None) -> SessionRecord:
    """See `ISessionStorage.clear_messages`."""
    if session.was_made:
        return session.record
    await _make_free(session, expected_revision)
    session.clear()
    return await session.commit()


async def edit(
    session: Session, expected_revision: int, remove: Sequence[int], change: Messages, add: Messages
) -> Appended:
    """See `ISessionStorage.edit_messages`."""
    stored = await session.stored(add)
    if session.was_made:
        return Appended(session.record, _in_order(add, stored), len(add))
    rules.check_append(session.record, None, expected_revision, session.now)
    found = await session.places({*remove, *(each.seq or 0 for each in change)})
    known = {seq: message.id for seq, message in found.items()}
    new = check_edit(session.record, remove, change, add, known=known, taken=stored)
    if not (remove or change or add):
        return Appended(session.record, [])
    await _make_free(session, expected_revision)
    gone = [found[seq] for seq in {*remove}]
    session.drop(gone)
    session.put([placed(each, each.seq or 0, found[each.seq or 0].turn_id or 0) for each in change])
    session.count(len(add), new, turn_count=session.record.turn_count + min(len(add), 1))
    last = session.record.last_seq
    session.put(_numbered(session, add, last - len(add) + 1))
    for turn in {message.turn_id or 0 for message in gone}:
        await _settle(session, turn)
    added = _numbered(session, add, last - len(add) + 1)
    return Appended(await session.commit(), added, len(add))


async def _settle(session: Session, turn: int) -> None:
    """Bring what is noted of a turn in line with the messages that it still has."""
    note = await session.note_of(turn)
    if note is None:
        return
    status, key = note
    session.give_up_key(turn, key)
    if await session.turn(turn):
        await session.settle(turn, status)
    else:
        session.forget(turn)


async def _make_free(session: Session, expected_revision: int | None) -> None:
    """Raise if the session cannot be written to; end a turn whose lease ran out."""
    record = session.record
    rules.check_writable(record)
    rules.check_revision(record, expected_revision)
    if rules.check_free(record, session.now):
        assert record.turn_id is not None, "a session with a lease has a turn"
        await session.note(record.turn_id, TurnStatus.FAILED, rules.LOST_OWNER)
        session.change(errors=record.errors + 1, **_NO_LEASE)


async def _begin(
    session: Session,
    fresh: Messages,
    status: TurnStatus,
    key: IdempotencyKey | None,
    **fields: Any,
) -> int:
    """Count a new turn and note its key; returns the turn."""
    turn = session.record.last_seq + 1
    session.count(len(fresh), fresh, turn_count=session.record.turn_count + 1, **fields)
    if not fresh:  # no other turn may have its number
        session.record = session.record._replace(last_seq=turn)
    if key is not None:
        former = await session.turn_of(key.key)
        if former is not None:
            session.give_up_key(former, None)
        session.save_key(turn, status, key)
    return turn


async def _stored(
    session: Session,
    messages: Messages,
    stored: dict[str, SessionMessage],
    fresh: Messages,
    turn: int,
) -> Appended:
    """Store what is new and was counted, and commit."""
    numbered = _numbered(session, fresh, turn)
    session.put(numbered)
    known = stored | {message.id: message for message in numbered}
    return Appended(await session.commit(), _in_order(messages, known), len(fresh))


def _held(session: Session, token: str) -> int:
    if session.record.turn_token != token or session.record.turn_id is None:
        raise rules.lost(session.record.session_id)
    return session.record.turn_id


def _numbered(session: Session, messages: Messages, turn: int) -> list[SessionMessage]:
    first = session.record.last_seq - len(messages) + 1
    return [placed(message, seq, turn) for seq, message in enumerate(messages, first)]


def _in_order(messages: Messages, known: dict[str, SessionMessage]) -> list[SessionMessage]:
    return [known[each] for each in dict.fromkeys(m.id for m in messages) if each in known]
