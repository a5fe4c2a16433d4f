"""The decisions that every storage takes alike. Pure: no I/O, no clock."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from langswarm_session.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    MessageConflictError,
    RevisionConflictError,
    SessionBusyError,
    SessionExistsError,
    SessionInactiveError,
    SessionNotFoundError,
    TurnLostError,
)
from langswarm_session.models import MessageRole, SessionMessage, SessionStatus, TurnStatus
from langswarm_session.records import IdempotencyKey, NewSession, SessionRecord, SessionRef

WRITABLE = (SessionStatus.ACTIVE.value, SessionStatus.ERROR.value)
"""The statuses in which a session takes new turns."""

MINUTE = 60_000_000
"""Microseconds. Indexes hold the minute of a session's activity, so that most writes move none."""

CANCEL_MARK = "cancel!"
"""What stands before a lease's owner once the turn is to be ended (`request_cancel`)."""

LOST_OWNER = "the process that ran the turn ended before the turn did"
"""The error of a turn that was taken over."""


@dataclass(frozen=True, slots=True)
class KnownTurn:
    """A turn that an idempotency key or a message id led to."""

    turn: int
    is_last: bool
    status: TurnStatus
    digest: str | None


def new_record(session: NewSession, context: str, now: int) -> SessionRecord:
    """A session that was just created.

    Args:
        session: What to create.
        context: Its context as JSON.
        now: The time, in microseconds since 1970.
    """
    return SessionRecord(
        session_id=session.session_id,
        user_id=session.user_id,
        provider=session.provider,
        model=session.model,
        backend=session.backend.value,
        status=SessionStatus.ACTIVE.value,
        context=context,
        provider_state=None,
        created_at=now,
        last_activity=now,
        revision=0,
        last_seq=0,
        message_count=0,
        turn_count=0,
        input_tokens=0,
        output_tokens=0,
        cached_tokens=0,
        reasoning_tokens=0,
        errors=0,
    )


def not_found(session_id: str) -> SessionNotFoundError:
    """There is no such session, or it is another user's: the error does not tell which."""
    return SessionNotFoundError(
        "there is no such session, or it is another user's; create it with create_session(), "
        "under another id if this one is taken",
        session_id=session_id,
    )


def check_ref(record: SessionRecord, ref: SessionRef) -> None:
    """Raise SessionNotFoundError unless the session is the one that the reference is to."""
    if record.user_id != ref.user_id or ref.creation not in (None, record.creation):
        raise not_found(ref.session_id)


def exists(session_id: str) -> SessionExistsError:
    """The id is taken."""
    return SessionExistsError(
        "the id is taken; get the session with get_session(), or leave the id to be made up",
        session_id=session_id,
    )


def lost(session_id: str) -> TurnLostError:
    """The turn's lease is not held any more."""
    return TurnLostError(
        "the turn was taken over or its session changed hands, so nothing more was stored of it; "
        "read the session again",
        session_id=session_id,
    )


def is_cancel_requested(owner: str | None) -> bool:
    """Whether the process that holds a lease was asked to end its turn.

    Args:
        owner: The lease's owner, as it is stored.
    """
    return owner is not None and owner.startswith(CANCEL_MARK)


def check_revision(record: SessionRecord, expected: int | None) -> None:
    """Raises RevisionConflictError unless the revision is the expected one, if one is."""
    if expected is not None and record.revision != expected:
        raise RevisionConflictError(
            f"expected revision {expected}, but it is at {record.revision}; "
            "read it again and retry",
            session_id=record.session_id,
        )


def check_writable(record: SessionRecord) -> None:
    """Raises SessionInactiveError unless the session takes new turns."""
    if record.status not in WRITABLE:
        raise SessionInactiveError(
            f"it is {record.status} and takes no new turn; make it active with "
            "set_status(), or fork it",
            session_id=record.session_id,
        )


def check_free(record: SessionRecord, now: int) -> bool:
    """Whether an open turn must be ended first, as its lease has run out.

    Raises:
        SessionBusyError: If a turn is open and its lease holds.
    """
    if record.turn_token is None:
        return False
    if record.turn_expires is None or record.turn_expires <= now:
        return True
    raise SessionBusyError(
        "another turn is running; wait for it, or raise the time to wait (turn_wait)",
        session_id=record.session_id,
        holder=record.turn_token,
        owner=record.turn_owner,
    )


def check_append(
    record: SessionRecord, token: str | None, expected_revision: int | None, now: int
) -> None:
    """Raises what an append would, for one that turns out to have nothing to add."""
    check_revision(record, expected_revision)
    if token is None:
        check_writable(record)
        check_free(record, now)
    elif record.turn_token != token:
        raise lost(record.session_id)


def check_digest(known: KnownTurn, key: IdempotencyKey | None, record: SessionRecord) -> None:
    """Raises IdempotencyConflictError if the key was used for another message."""
    if key is not None and known.digest is not None and known.digest != key.digest:
        raise IdempotencyConflictError(
            f"the idempotency key {key.key!r} was used for another message; use a new key",
            session_id=record.session_id,
        )


def check_known(
    known: KnownTurn, key: IdempotencyKey | None, record: SessionRecord
) -> Literal["replay", "resume", "anew"]:
    """What to do about a turn that was begun before.

    Returns:
        ``replay`` if it is complete, ``resume`` if it ended early and nothing followed it, else
        ``anew``.

    Raises:
        IdempotencyConflictError: If the key was used for another message.
        MessageConflictError: If only the message's id led to the turn, and others followed it.
    """
    check_digest(known, key, record)
    if known.status is TurnStatus.COMPLETE:
        return "replay"
    return _again(known, key, record)


def check_begun(
    known: KnownTurn,
    key: IdempotencyKey | None,
    record: SessionRecord,
    turn: Sequence[SessionMessage],
    asked: int,
) -> Literal["replay", "resume", "anew"]:
    """What to do about a turn that was begun before, when it is begun again to be answered.

    Args:
        turn: Its messages.
        asked: The number of the last one that it is known to have begun with; see `last_begun`.

    Returns:
        As `check_known`, but a complete turn without a reply, as one that was only recorded, is
        none to be replayed.

    Raises:
        IdempotencyConflictError, MessageConflictError: As `check_known` does.
    """
    outcome = check_known(known, key, record)
    if outcome == "replay" and not _has_reply(turn, asked):
        return _again(known, key, record)
    return outcome


def _has_reply(turn: Sequence[SessionMessage], asked: int) -> bool:
    """Whether a turn has an assistant's message at its end, or behind what it began with."""
    return any(
        message.role is MessageRole.ASSISTANT
        and ((message.seq or 0) > asked or message is turn[-1])
        for message in turn
    )


def _again(
    known: KnownTurn, key: IdempotencyKey | None, record: SessionRecord
) -> Literal["resume", "anew"]:
    """How a turn that nothing can be replayed of begins again.

    Raises:
        MessageConflictError: If only the message's id led to the turn, and others followed it.
    """
    if known.is_last:
        return "resume"
    if key is None or known.digest is None:
        raise MessageConflictError(
            f"the message is stored already, in turn {known.turn}, and others followed; "
            "send it under a new id",
            session_id=record.session_id,
        )
    return "anew"


def last_begun(given: int, stored: Collection[SessionMessage], turn: int) -> int:
    """The number of the last message that a turn is known to have begun with.

    Args:
        given: How many messages are sent again. With a key they may have new ids; they are as
            many as the turn began with, but for those of other turns.
        stored: Those of them whose ids are stored.
        turn: The turn.
    """
    ours = [message.seq or 0 for message in stored if message.turn_id == turn]
    elsewhere = len(stored) - len(ours)
    return max([turn + given - elsewhere - 1, *ours])


def leads_to_turn(key: IdempotencyKey | None) -> bool:
    """Return whether messages that are stored lead to the turn that they are in."""
    return key is None or not key.only


def begun_with(
    key: IdempotencyKey | None, asked: Iterable[SessionMessage], turn: Sequence[SessionMessage]
) -> list[SessionMessage]:
    """Return the messages of a turn that is open again.

    Args:
        key: The turn's key.
        asked: What it begins with, as stored.
        turn: The turn's own messages.
    """
    if leads_to_turn(key):
        return list(turn)
    own = {message.id for message in turn}
    return [*(message for message in asked if message.id not in own), *turn]


def new_messages(
    session_id: str,
    messages: Sequence[SessionMessage],
    stored: Mapping[str, SessionMessage],
) -> list[SessionMessage]:
    """Those of the messages that are not stored yet, each id once.

    Raises:
        MessageConflictError: If an id comes with another role or content than before.
    """
    seen = dict(stored)
    fresh: list[SessionMessage] = []
    for message in messages:
        known = seen.get(message.id)
        if known is None:
            seen[message.id] = message
            fresh.append(message)
        elif (known.role, known.content) != (message.role, message.content):
            raise MessageConflictError(
                f"the message id {message.id!r} is stored already, with other content; "
                "give a changed message a new id",
                session_id=session_id,
                message_id=message.id,
            )
    return fresh


def check_ends(session_id: str, stored: Iterable[SessionMessage], turn: int) -> None:
    """Raises MessageConflictError if of what a turn ends with something is another turn's.

    A turn that left it out would end without its reply.

    Args:
        stored: Those of the messages whose ids are stored.
        turn: The turn.
    """
    for message in stored:
        if message.turn_id != turn:
            raise MessageConflictError(
                f"the message id {message.id!r} is stored already, in turn {message.turn_id}; "
                "give the reply a new id",
                session_id=session_id,
                message_id=message.id,
            )


def check_begins(session_id: str, messages: Sequence[SessionMessage]) -> None:
    """Raises InvalidInputError unless there is a message for a turn to begin with."""
    if not messages:
        raise InvalidInputError("a turn begins with a message", session_id=session_id)


def answered(status: TurnStatus, roles: Iterable[MessageRole]) -> bool:
    """Whether a turn belongs in the window: one that ended early does if it has a reply.

    Args:
        status: How it stands.
        roles: Those of its messages.
    """
    return status in (TurnStatus.OPEN, TurnStatus.COMPLETE) or MessageRole.ASSISTANT in roles


def usage_sums(messages: Iterable[SessionMessage]) -> tuple[int, int, int, int]:
    """Input, output, cached and reasoning tokens of the messages."""
    sums = [0, 0, 0, 0]
    for message in messages:
        usage = message.usage
        if usage is not None:
            sums[0] += usage.input_tokens
            sums[1] += usage.output_tokens
            sums[2] += usage.cached_tokens
            sums[3] += usage.reasoning_tokens
    return (sums[0], sums[1], sums[2], sums[3])


def make_cursor(last: SessionRecord) -> str:
    """Make the cursor of a listing's page, of nothing but what the page showed.

    Args:
        last: The last session on the page.
    """
    return f"{last.last_activity}:{last.session_id}"


def parse_cursor(cursor: str) -> tuple[int, str]:
    """Return the last activity and the session id that a listing's cursor holds.

    Raises:
        InvalidInputError: If it is not a cursor.
    """
    # The time is a whole number of at most 64 bits.
    match = re.fullmatch(r"(-?[0-9]{1,18}):(.+)", cursor, re.DOTALL) if _is_text(cursor) else None
    if match is None:
        raise InvalidInputError(
            f"{cursor!r} is not a cursor; pass the next_cursor of the page before"
        )
    return int(match[1]), match[2]


def _is_text(value: object) -> bool:
    """Whether a value is a string that a database can hold."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)
