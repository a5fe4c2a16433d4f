"""What of the record is sent: the newest messages, whole tool exchanges, every system message.

A summary stands for the messages it covers, and a compaction for those it replaced; the log keeps
them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from langswarm_session.blocks import ToolCallBlock, ToolResultBlock
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import RESULT_ROLES, MessageRole, SessionMessage, Summary
from langswarm_session.records import SessionRef
from langswarm_session.replaced import CurrentLog

_SYSTEM, _USER = MessageRole.SYSTEM, MessageRole.USER

_FURTHER = 100
"""How many more messages to look at for the calls that a turn's results answer, or for the
question that the oldest messages answer."""

STEADY_FROM = 32
"""How many messages make a window large: it is better to send some fewer of them than to have
another beginning in each turn."""

SUMMARY = "What was said before, in short: "
"""What a summary begins with where it is sent."""


async def load(
    storage: ISessionStorage,
    ref: SessionRef,
    *,
    before: int,
    max_messages: int,
    needed: Collection[str] = (),
    summary: Summary | None = None,
) -> list[SessionMessage]:
    """The window as it stood before a turn; reads no more than it holds.

    Args:
        ref: The session.
        before: The first sequence number of the turn.
        max_messages: How many messages to take, system messages aside.
        needed: The ids of calls that must be in it: the turn has their results.
        summary: What stands for the beginning of the log.

    Raises:
        SessionNotFoundError: If there is no such session.
        SessionStorageError: If the storage fails.
    """

    async def read(limit: int, before: int | None) -> list[SessionMessage]:
        return await storage.get_messages(ref, limit=limit, before=before, answered_only=True)

    log = CurrentLog(read)
    limit = max_messages + (_FURTHER if needed else 0)
    while True:
        newest = await log.newest(limit, before)
        if len(newest) < limit:
            return _summarised(newest, summary, max_messages, needed)
        others = sum(message.role is not _SYSTEM for message in newest)
        if others >= max_messages:
            break
        limit += max_messages - others  # system messages take no room
    system = await storage.get_messages(
        ref,
        before=newest[0].seq if newest else before,
        answered_only=True,
        system_only=True,
    )
    current = [message for message in system if not log.is_replaced(message)]
    question = await _question(storage, ref, newest)
    older = [] if question is None or log.is_replaced(question) else [question]
    messages = [*current, *older, *newest]
    return _summarised(messages, summary, max_messages, needed, is_whole=False)


async def _question(
    storage: ISessionStorage,
    ref: SessionRef,
    newest: Sequence[SessionMessage],
) -> SessionMessage | None:
    """Return the user's message that came before the newest messages, if none is among them."""
    if not newest or any(message.role is _USER for message in newest):
        return None
    older = await storage.get_messages(
        ref, limit=_FURTHER, before=newest[0].seq, answered_only=True
    )
    return next((message for message in reversed(older) if message.role is _USER), None)


def _summarised(
    messages: Sequence[SessionMessage],
    summary: Summary | None,
    max_messages: int,
    needed: Collection[str],
    *,
    is_whole: bool = True,
) -> list[SessionMessage]:
    if summary is None:
        return cut(messages, max_messages, needed, is_whole=is_whole)
    covered = summary.last_seq
    first = SessionMessage(id=f"summary-{covered}", role=_SYSTEM, content=SUMMARY + summary.text)
    kept_from = place_of(messages, needed) if needed else len(messages)
    left = [
        message
        for place, message in enumerate(messages)
        if message.role is _SYSTEM or place >= kept_from or (message.seq or 0) > covered
    ]
    return [first, *cut(left, max_messages, needed)]


def cut(
    messages: Sequence[SessionMessage],
    max_messages: int,
    needed: Collection[str] = (),
    *,
    is_whole: bool = True,
) -> list[SessionMessage]:
    """Return the newest messages, and all system messages.

    What is left of a log that was cut begins with a user's message, as several providers must have
    it: the first there is, or else the question of the turn that was cut. A large window that is
    full begins at a `steady` place.

    Args:
        messages: Oldest first.
        max_messages: How many to keep, system messages aside.
        needed: The ids of calls that are kept however many messages that takes.
        is_whole: Whether the messages begin where a window may begin.
    """
    # Most windows have room left, as a full one begins at a steady place for some turns.
    start = 0 if len(messages) < max_messages else len(messages)
    room = max_messages
    while start and (room or messages[start - 1].role is _SYSTEM):
        start -= 1
        room -= messages[start].role is not _SYSTEM
    if not room and max_messages >= STEADY_FROM:
        start = steady(messages, start, max_messages)
    latest = place_of(messages, needed) if needed else len(messages)
    if latest < len(messages):
        start = min(start, latest)
    if start == 0 and is_whole:
        return beginning_at(messages, 0)
    return _beginning_with_user(messages, start, latest, max_messages)


def _beginning_with_user(
    messages: Sequence[SessionMessage], start: int, latest: int, max_messages: int
) -> list[SessionMessage]:
    """Return all system messages, and others that begin with a user's.

    Args:
        messages: Oldest first.
        start: Where the others begin at the earliest.
        latest: Where they begin at the latest.
        max_messages: How many of them there may be.
    """
    first = first_user(range(start, latest), messages)
    if first is not None:
        return beginning_at(messages, first)
    question = first_user(range(start - 1, -1, -1), messages)
    if latest == len(messages):
        if max_messages <= 1:  # a question without what follows it is noise
            return beginning_at(messages, latest)
        others = [place for place in range(start, latest) if messages[place].role is not _SYSTEM]
        if question is not None and len(others) >= max_messages:
            start = others[1]
    return beginning_at(messages, start, question)


def first_user(places: Iterable[int], messages: Sequence[SessionMessage]) -> int | None:
    """Return the first of some places that has a user's message."""
    return next((place for place in places if messages[place].role is _USER), None)


def steady(messages: Sequence[SessionMessage], start: int, size: int) -> int:
    """A place from which a window may begin for some turns, at most a quarter of it further on.

    Providers find in their cache what begins as an earlier request did; a window that moves with
    each turn has another beginning each time.

    Args:
        messages: Oldest first.
        start: Where the window may begin at the earliest.
        size: How many messages it may have.
    """
    step = 1 << max(0, (size // 4).bit_length() - 1)
    while start < len(messages) and (messages[start].seq or 0) % step:
        start += 1
    return start


def beginning_at(
    messages: Sequence[SessionMessage], start: int, question: int | None = None
) -> list[SessionMessage]:
    """Return all system messages, and the others from a place on, but no result without its call.

    Args:
        messages: Oldest first.
        start: The place; the results there, whose calls are before it, are left out.
        question: The place of a message before it that is kept as well.
    """
    while start < len(messages) and messages[start].role in (*RESULT_ROLES, _SYSTEM):
        start += 1
    older = [
        message
        for place, message in enumerate(messages[:start])
        if place == question or message.role is _SYSTEM
    ]
    return [*older, *messages[start:]]


def calls_needed(messages: Sequence[SessionMessage]) -> set[str]:
    """The ids of the calls that some messages have results of."""
    if all(isinstance(message.content, str) for message in messages):
        return set()
    return {
        block.tool_call_id
        for message in messages
        for block in message.blocks
        if isinstance(block, ToolResultBlock)
    }


def place_of(messages: Sequence[SessionMessage], needed: Collection[str]) -> int:
    """Where the newest messages that make these calls begin; behind all if none does."""
    missing = set(needed)
    found = len(messages)
    for place in range(len(messages) - 1, -1, -1):
        content = messages[place].content
        if isinstance(content, str) or messages[place].role is not MessageRole.ASSISTANT:
            continue
        made = {block.id for block in content if isinstance(block, ToolCallBlock)}
        if made & missing:
            missing -= made
            found = place
        if not missing:
            break
    return found
