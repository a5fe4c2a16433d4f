"""What of the record is sent: the messages from where requests begin, and every system message.

Requests are append-only: the window grows with each turn, and when it would grow beyond its limit
it begins again with about half of it, at a user's message. A summary stands for the messages it
covers, and a compaction for those it replaced; the log keeps them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from langswarm_session.blocks import ToolCallBlock, ToolResultBlock
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import RESULT_ROLES, MessageRole, SessionMessage, Summary
from langswarm_session.records import SessionRef
from langswarm_session.replaced import CurrentLog

_SYSTEM, _USER = MessageRole.SYSTEM, MessageRole.USER

_FURTHER = 100
"""How many more messages to read for the calls that a turn's results answer, or for the question
that the oldest messages answer."""

SUMMARY = "What was said before, in short: "
"""What a summary begins with where it is sent."""

_SUMMARY_ID = "langswarm-summary-"


class Window(NamedTuple):
    """Messages to send, and where they begin.

    Attributes:
        messages: Oldest first.
        start: The sequence number of the first one that is neither a system message nor the
            question of an exchange that was cut; None where nothing was left out.
    """

    messages: list[SessionMessage]
    start: int | None


async def load(
    storage: ISessionStorage,
    ref: SessionRef,
    *,
    before: int,
    max_messages: int,
    start: int = 0,
    needed: Collection[str] = (),
) -> list[SessionMessage]:
    """Return what may be sent before a turn; reads no more than that.

    Where there is more of it than ``max_messages`` it is cut short at one message more: then
    `cut` decides where requests begin from now on.

    Args:
        ref: The session.
        before: The first sequence number of the turn.
        max_messages: How many messages may be sent, system messages aside.
        start: Where requests begin.
        needed: The ids of calls that must be in it: the turn has their results.

    Raises:
        SessionNotFoundError: If there is no such session.
        SessionStorageError: If the storage fails.
    """

    async def read(limit: int, before: int | None) -> list[SessionMessage]:
        return await storage.get_messages(ref, limit=limit, before=before, answered_only=True)

    log = CurrentLog(read)
    limit = max_messages + 1 + (_FURTHER if needed else 0)
    while True:
        newest = await log.newest(limit, before)
        if len(newest) < limit or (newest[0].seq or 0) <= start:
            break
        others = sum(message.role is not _SYSTEM for message in newest)
        if others > max_messages:
            break
        limit += max_messages + 1 - others  # system messages take no room
    sent = [message for message in newest if (message.seq or 0) >= start]
    if len(newest) < limit:
        first = next((m for m in sent if m.role is not _SYSTEM), None)
        older = newest[: len(newest) - len(sent)]
        question = None if not start or first is None else _question_in(older, first)
        system = [message for message in older if message.role is _SYSTEM]
    else:
        first_seq = sent[0].seq if sent else before
        everything = await storage.get_messages(
            ref, before=first_seq, answered_only=True, system_only=True
        )
        system = [message for message in everything if not log.is_replaced(message)]
        question = await _question(storage, ref, sent, log)
    return [*system, *([] if question is None else [question]), *sent]


async def _question(
    storage: ISessionStorage, ref: SessionRef, sent: Sequence[SessionMessage], log: CurrentLog
) -> SessionMessage | None:
    """Return the question that the first messages answer, if it is not among them."""
    first = next((message for message in sent if message.role is not _SYSTEM), None)
    if first is None or is_question(first):
        return None
    older = await storage.get_messages(ref, limit=_FURTHER, before=first.seq, answered_only=True)
    question = _question_in(older, first)
    return None if question is None or log.is_replaced(question) else question


def _question_in(older: Sequence[SessionMessage], first: SessionMessage) -> SessionMessage | None:
    """Return the newest question among older messages, unless the first message is one."""
    if is_question(first):
        return None
    return next((message for message in reversed(older) if is_question(message)), None)


def with_summary(
    messages: Sequence[SessionMessage], summary: Summary | None
) -> list[SessionMessage]:
    """Return what is sent with a summary in front, behind the system messages there.

    It is a user's message: in the system text it would change that with each summary.

    Args:
        messages: The messages behind those that the summary covers, oldest first.
        summary: What stands for the older messages, if anything.
    """
    if summary is None:
        return list(messages)
    place = next(
        (place for place, message in enumerate(messages) if message.role is not _SYSTEM),
        len(messages),
    )
    text = SUMMARY + summary.text
    first = SessionMessage(id=f"{_SUMMARY_ID}{summary.last_seq}", role=_USER, content=text)
    return [*messages[:place], first, *messages[place:]]


def cut(
    messages: Sequence[SessionMessage],
    max_messages: int,
    new_count: int = 0,
    needed: Collection[str] = (),
) -> Window:
    """Return what is sent before a turn: all messages, or a new beginning where they are too many.

    A new beginning has about half as many messages as there may be, so that the next one is far
    off, and begins with a user's message, as several providers must have it: the first there is, or
    else the question of the turn that was cut. System messages are all kept.

    Args:
        messages: What may be sent, oldest first.
        max_messages: How many may be sent, with the new ones, system messages aside.
        new_count: How many new ones the turn has.
        needed: The ids of calls that are kept however many messages that takes.
    """
    places = [place for place, message in enumerate(messages) if message.role is not _SYSTEM]
    if len(places) + new_count <= max_messages:
        return Window(_without_lost_results(messages), None)
    room = half(max_messages, new_count)
    return begin(messages, places[len(places) - room] if room else len(messages), needed)


def half(max_messages: int, new_count: int) -> int:
    """Return how many messages a new beginning takes over: half of a window, or one exchange."""
    return max(max_messages // 2, min(max_messages, new_count + 2)) - new_count


def begin(messages: Sequence[SessionMessage], start: int, needed: Collection[str] = ()) -> Window:
    """Return all system messages, and the others from a place on or from the next question.

    Args:
        messages: Oldest first.
        start: The place where the others begin at the earliest.
        needed: The ids of calls that are kept wherever they are.
    """
    latest = place_of(messages, needed) if needed else len(messages)
    first = first_user(range(start, latest), messages)
    if first is not None:
        return _beginning_at(messages, first)
    if latest < start:
        start = latest
    question = first_user(range(start - 1, -1, -1), messages)
    others = [p for p in range(start, latest) if messages[p].role is not _SYSTEM]
    if latest == len(messages) and question is not None:
        # The question takes the place of one of them; without what follows it, it is noise.
        if len(others) <= 1:
            return _beginning_at(messages, latest)
        start = others[1]
    return _beginning_at(messages, start, question)


def _beginning_at(
    messages: Sequence[SessionMessage], start: int, question: int | None = None
) -> Window:
    """Return all system messages, and the others from a place on, but no result without its call.

    Args:
        messages: Oldest first.
        start: The place; the results there, whose calls are before it, are left out.
        question: The place of a message before it that is kept as well.
    """
    while start < len(messages) and (is_lasting(messages[start]) or is_result(messages[start])):
        start += 1
    older = [
        message
        for place, message in enumerate(messages[:start])
        if place == question or is_lasting(message)
    ]
    kept = messages[start:]
    seq = next((message.seq for message in kept if message.seq), None)
    behind = next((message.seq for message in reversed(messages) if message.seq), 0) + 1
    return Window([*older, *kept], seq or behind)


def _without_lost_results(messages: Sequence[SessionMessage]) -> list[SessionMessage]:
    """Return messages without the results at their beginning, whose calls are not there."""
    start = 0
    while start < len(messages) and (messages[start].role is _SYSTEM or is_result(messages[start])):
        start += 1
    return [m for m in messages[:start] if m.role is _SYSTEM] + list(messages[start:])


def is_result(message: SessionMessage) -> bool:
    """Return whether a message gives what a call asked for, so that it belongs behind the call."""
    return message.role in RESULT_ROLES


def is_lasting(message: SessionMessage) -> bool:
    """Return whether a message is sent wherever requests begin: a system message or a summary."""
    return message.role is _SYSTEM or message.id.startswith(_SUMMARY_ID)


def is_question(message: SessionMessage) -> bool:
    """Return whether a request may begin with a message."""
    return message.role is _USER and not is_result(message) and not is_lasting(message)


def first_user(places: Iterable[int], messages: Sequence[SessionMessage]) -> int | None:
    """Return the first of some places that has a message with which a request may begin."""
    return next((place for place in places if is_question(messages[place])), None)


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
