"""Restoring a session in a storage that has no way of its own to do so: by writing it once more.

Ids, times, turns and keys of the messages are what they were. Their numbers are too, unless some
are missing in between; the session's own times and figures begin anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from langswarm_session._validation import MAX_LIMIT
from langswarm_session.archive import SessionArchive, TurnNote
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import (
    SessionBackend,
    SessionMessage,
    SessionStatus,
    Turn,
    TurnStatus,
    new_id,
    to_micros,
)
from langswarm_session.records import (
    IdempotencyKey,
    Lease,
    NewSession,
    SessionChanges,
    SessionRecord,
    SessionRef,
    TurnEnd,
)
from langswarm_session.storage import rules
from langswarm_session.storage.calls import uninterrupted
from langswarm_session.storage.replacements import renumbered

_LEASE_SECONDS = 60.0
_UNKNOWN = "unknown"
"""The digest of a key whose message is not known: a retry is told apart from it, and refused."""


async def turn_notes(
    storage: ISessionStorage, ref: SessionRef, *, after: int, limit: int
) -> list[TurnNote]:
    """What a storage's turns say beyond that they are complete."""
    turns = await storage.get_turns(ref, limit=MAX_LIMIT)
    wanted = [turn for turn in turns if turn.id > after and _says_more(turn)]
    return [await _note_of(storage, ref, turn) for turn in wanted[:limit]]


def _says_more(turn: Turn) -> bool:
    return turn.status is not TurnStatus.COMPLETE or turn.idempotency_key is not None


async def _note_of(storage: ISessionStorage, ref: SessionRef, turn: Turn) -> TurnNote:
    messages = await storage.get_messages(ref, after=turn.first_seq - 1, before=turn.last_seq + 1)
    ended = None if turn.finished_at is None else to_micros(turn.finished_at)
    return TurnNote(
        turn=turn.id,
        status=turn.status,
        answered=rules.answered(turn.status, [message.role for message in messages]),
        key=turn.idempotency_key,
        error=turn.error,
        finished_at=ended,
    )


async def replay(storage: ISessionStorage, archive: SessionArchive) -> SessionRecord:
    """Write a session once more; what is there of it is removed again if that fails.

    A caller that is cancelled waits for the step under way, and for the removal.

    Raises:
        SessionExistsError: If the id is taken.
    """
    is_cancelled = asyncio.Event()
    return await uninterrupted(_replay(storage, archive, is_cancelled), is_cancelled.set)


async def _replay(
    storage: ISessionStorage, archive: SessionArchive, is_cancelled: asyncio.Event
) -> SessionRecord:
    ref = (await storage.create_session(_new(archive))).ref
    try:
        for turn, messages in _turns(archive):
            if is_cancelled.is_set():
                raise asyncio.CancelledError
            await _write(storage, ref, turn, messages)
        return await storage.update_session(ref, _changes(archive))
    except BaseException:
        await storage.delete_session(ref)
        raise


def _new(archive: SessionArchive) -> NewSession:
    record = archive.record
    context = record.context_values()
    summary = context.get("summary")
    if summary is not None:
        covered = sum((each.seq or 0) <= summary["last_seq"] for each in archive.messages())
        context["summary"] = {**summary, "last_seq": covered} if covered else None
    return NewSession(
        session_id=record.session_id,
        user_id=record.user_id,
        provider=record.provider,
        model=record.model,
        backend=SessionBackend(record.backend),
        context=context,
    )


def _changes(archive: SessionArchive) -> SessionChanges:
    record = archive.record
    state: dict[str, Any] | None = None
    # A provider's state names messages by their numbers.
    if record.provider_state is not None and record.last_seq == record.message_count:
        state = record.provider_values()
    return SessionChanges(status=SessionStatus(record.status), provider_state=state)


def _turns(archive: SessionArchive) -> Iterator[tuple[TurnNote | None, list[SessionMessage]]]:
    """Each turn's messages, with the note on it."""
    notes = archive.notes()
    note = next(notes, None)
    numbers = [message.seq or 0 for message in archive.messages()]
    for turn, messages in groupby(archive.messages(), lambda message: message.turn_id or 0):
        while note is not None and note.turn < turn:
            note = next(notes, None)
        written = [renumbered(message, numbers) for message in messages]
        yield (note if note is not None and note.turn == turn else None), written


async def _write(
    storage: ISessionStorage,
    ref: SessionRef,
    note: TurnNote | None,
    messages: list[SessionMessage],
) -> None:
    if note is None:
        await storage.append(ref, messages)
        return
    key = None if note.key is None else IdempotencyKey(note.key, note.digest or _UNKNOWN)
    lease = Lease(new_id(), "", _LEASE_SECONDS)
    await storage.begin_turn(ref, messages[:1], lease, key=key)
    end = TurnEnd(lease.token, note.status, note.error)
    await storage.end_turn(ref, end, messages[1:])
