"""What of the record is sent: the messages from where requests begin, and every system message.

Requests are append-only: the window grows with each turn, and when it would grow beyond its limit
it begins again with about half of it, at a user's message. A summary stands for the messages it
covers, and a compaction for those before it; the log keeps them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from langswarm_session.blocks import OtherBlock
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import (
    NOTES,
    RESULT_ROLES,
    MessageRole,
    SessionContext,
    SessionMessage,
)
from langswarm_session.records import PrefixChangeReason, SessionRef
from langswarm_session.requests.normalize.paired import Key, answer_key, answered_keys, call_key
from langswarm_session.requests.normalize.target import Target
from langswarm_session.requests.state import RequestState
from langswarm_session.storage.replacements import CurrentLog, is_read_by

_SYSTEM, _USER, _ASSISTANT = MessageRole.SYSTEM, MessageRole.USER, MessageRole.ASSISTANT

_FURTHER = 100
"""How much further back in the log the call is sought that a turn's results answer, or the question
that the oldest messages answer."""

SUMMARY = "What was said before, in short: "
"""What a summary begins with where it is sent."""

BYTES_PER_TOKEN = 4
"""Bytes of UTF-8 that one token stands for: a usual figure for English; other scripts take more
bytes a character and more tokens a character."""

COMPACTION = "compaction"
"""The type of the block that holds a provider's compaction, at OpenAI and at Anthropic; also the
key of a message's metadata (under `NOTES`) that says that the message is nothing else.

- https://developers.openai.com/api/docs/guides/compaction
- https://platform.claude.com/docs/en/build-with-claude/compaction
"""

_CUT = " [...]"
"""What a text that was cut ends with."""

_SUMMARY_ID = "langswarm-summary-"


class Window(NamedTuple):
    """Messages to send, and where they begin.

    Attributes:
        messages: Oldest first.
        start: The sequence number of the first one that is neither a system message nor the
            question of an exchange that was cut; None where requests begin where they did.
        reason: Why requests begin elsewhere, if they do.
    """

    messages: list[SessionMessage]
    start: int | None
    reason: PrefixChangeReason | None = None


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where the requests of a session to a provider begin.

    Attributes:
        start: The sequence number of the first message, system messages aside.
        compaction: That of the message with the provider's newest compaction of the log; 0 for
            none.
        covered: That of the last message that a summary covers; 0 for none.
        moved: Why that is elsewhere than it is stored, if it is.
        vendor: Whose compactions of parts of the log are read in place of what they stand for;
            None for nobody's.
    """

    start: int
    compaction: int
    covered: int
    moved: PrefixChangeReason | None
    vendor: str | None = None

    @classmethod
    def of(
        cls, state: RequestState, context: SessionContext, before: int, target: Target | None
    ) -> Beginning:
        """Return where requests begin under a context's limits.

        Args:
            state: The state of the session's requests.
            context: The context; its provider is the one that is asked.
            before: The sequence number that the window ends before.
            target: What the provider accepts; None for a framework, which reads no compactions.
        """
        now, reason = state.under(context)
        if target is None:
            return cls(now.start, 0, now.summary, reason)
        compaction = now.compactions.get(context.provider, 0)
        compaction = compaction if compaction < before else 0
        is_same = max(state.start, compaction) == max(now.start, compaction)
        if is_same and reason is PrefixChangeReason.LIMITS:
            reason = None  # the compaction stands for what may be sent again
        return cls(now.start, compaction, now.summary, reason, target.compactions)

    @property
    def first(self) -> int:
        """The sequence number of the first message that is read."""
        return max(self.start, self.compaction)


async def load(
    storage: ISessionStorage,
    ref: SessionRef,
    beginning: Beginning,
    *,
    before: int,
    max_messages: int,
    needed: Collection[Key] = (),
) -> Window:
    """Return what may be sent before a turn; reads no more than that.

    Where there is more of it than ``max_messages`` it is cut short at one message more: then `cut`
    decides where requests begin from now on.

    Args:
        ref: The session.
        beginning: Where requests begin.
        before: The first sequence number of the turn.
        max_messages: How many messages may be sent, system messages aside.
        needed: The keys of calls that must be in it: the turn has their results.

    Raises:
        SessionNotFoundError: If there is no such session.
        SessionStorageError: If the storage fails.
    """
    reader = _Reader(storage, ref, before, max_messages, beginning.vendor)
    return await reader.load(beginning, needed)


class _Reader:
    """Reads a window once."""

    def __init__(
        self,
        storage: ISessionStorage,
        ref: SessionRef,
        before: int,
        max_messages: int,
        vendor: str | None,
    ) -> None:
        self._storage = storage
        self._ref = ref
        self._before = before
        self._max_messages = max_messages
        self._log = CurrentLog(self._page, partial(is_read_by, vendor))

    async def load(self, beginning: Beginning, needed: Collection[Key]) -> Window:
        newest, is_all = await self._newest(beginning.first, _FURTHER if needed else 0)
        first, moved = beginning.first, None
        place = place_of(newest, needed) if needed else len(newest)
        if place < len(newest) and (newest[place].seq or 0) < first:
            first = moved = newest[place].seq or 0
        sent = [message for message in newest if (message.seq or 0) >= first]
        older = newest[: len(newest) - len(sent)] if is_all else await self._older(sent)
        begins_there = bool(sent) and sent[0].seq == beginning.compaction
        compaction = None if begins_there else await self._compaction(beginning.compaction)
        is_cut = (first > 0 or not is_all) and not begins_there
        question = _question_before(older, sent, beginning.covered) if is_cut else None
        sent = [message for message in sent if message.seq == first or not is_compaction(message)]
        front = [] if compaction is None else [compaction]
        if question is not None:
            front.append(question)
        system = [message for message in older if message.role is _SYSTEM]
        reason = None if moved is None else PrefixChangeReason.CALL
        return Window([*system, *front, *sent], moved, reason)

    async def _page(self, limit: int, before: int | None) -> list[SessionMessage]:
        return await self._storage.get_messages(
            self._ref, limit=limit, before=before, answered_only=True
        )

    async def _newest(self, first: int, further: int) -> tuple[list[SessionMessage], bool]:
        """Return the newest messages, down to the first or one more than fit, and whether all."""
        limit = self._max_messages + 1 + further
        while True:
            newest = await self._log.newest(limit, self._before)
            if len(newest) < limit:
                return newest, True
            others = sum(message.role is not _SYSTEM for message in newest)
            if others > self._max_messages or (newest[0].seq or 0) <= first:
                return newest, False
            limit += self._max_messages + 1 - others  # system messages take no room

    async def _older(self, sent: Sequence[SessionMessage]) -> list[SessionMessage]:
        """Return the system messages before some messages, and what may have their question."""
        older = await self._storage.get_messages(
            self._ref,
            before=sent[0].seq if sent else self._before,
            answered_only=True,
            system_only=True,
        )
        if not _begins_with_question(sent):
            near = await self._page(_FURTHER, _first_seq(sent))
            older += [message for message in near if message.role is not _SYSTEM]
        return [message for message in older if self._log.has(message)]

    async def _compaction(self, seq: int) -> SessionMessage | None:
        """Return a provider's compaction from before what is sent, if there is one."""
        if not seq:
            return None
        read = await self._page(1, seq + 1)
        return compaction_in(read[-1]) if read and read[-1].seq == seq else None


def _question_before(
    older: Sequence[SessionMessage], sent: Sequence[SessionMessage], covered: int
) -> SessionMessage | None:
    """Return the question that the first messages answer, unless they begin with one.

    One that a summary covers is not sent besides.
    """
    if _begins_with_question(sent):
        return None
    lowest = max(_first_seq(sent) - _FURTHER, covered + 1)
    near = (message for message in reversed(older) if (message.seq or 0) >= lowest)
    return next((message for message in near if is_question(message)), None)


def _begins_with_question(messages: Sequence[SessionMessage]) -> bool:
    first = next((message for message in messages if message.role is not _SYSTEM), None)
    return first is None or is_question(first)


def _first_seq(messages: Sequence[SessionMessage]) -> int:
    """Return the sequence number of the first message that is not a system message."""
    return next((m.seq or 0 for m in messages if m.role is not _SYSTEM), 0)


def with_summary(
    messages: Sequence[SessionMessage], context: SessionContext
) -> list[SessionMessage]:
    """Return what is sent with the summary in front, behind the system messages that it covers.

    It is a user's message: in the system text it would change that with each summary. Of a budget
    it gets a quarter at most.

    Args:
        messages: The messages behind those that the summary covers, oldest first.
        context: The context with the summary, if there is one.
    """
    summary, budget = context.summary, context.max_input_tokens
    if summary is None:
        return list(messages)
    covered = summary.last_seq
    behind = (
        place
        for place, message in enumerate(messages)
        if message.role is not _SYSTEM or (message.seq or 0) > covered
    )
    place = next(behind, len(messages))
    said = SUMMARY + summary.text
    text = said if budget is None else shortened(said, budget // 4)
    first = SessionMessage(id=f"{_SUMMARY_ID}{covered}", role=_USER, content=text)
    return [*messages[:place], first, *messages[place:]]


def shortened(text: str, tokens: int) -> str:
    """Return a text cut behind a word to about ``tokens`` tokens."""
    written = text.encode()
    size = max(1, tokens) * BYTES_PER_TOKEN
    if len(written) <= size:
        return text
    start = written[: max(1, size - len(_CUT))].decode(errors="ignore")
    whole, _, _ = start.rpartition(" ")
    return (whole or start) + _CUT


def cut(
    messages: Sequence[SessionMessage],
    max_messages: int,
    new_count: int = 0,
    needed: Collection[Key] = (),
) -> Window:
    """Return what is sent before a turn: all messages, or a new beginning where they are too many.

    A new beginning has about half as many messages as there may be, so that the next one is far
    off, and begins with a user's message, as several providers must have it. System messages are
    all kept.

    Args:
        messages: What may be sent, oldest first.
        max_messages: How many may be sent, with the new ones, system messages aside.
        new_count: How many new ones the turn has.
        needed: The keys of calls that are kept however many messages that takes.
    """
    places = [place for place, message in enumerate(messages) if not is_lasting(message)]
    if len(places) + new_count <= max_messages:
        return Window(_without_lost_results(messages), None)
    room, most = half(max_messages, new_count), max_messages * 3 // 4 - new_count
    places.append(len(messages))
    start = places[len(places) - 1 - max(0, room)]
    earliest = places[max(0, len(places) - 1 - max(0, room, most))]
    begun = begin(messages, start, needed, earliest)
    return begun._replace(reason=PrefixChangeReason.WINDOW)


def half(max_messages: int, new_count: int) -> int:
    """Return how many messages a new beginning takes over: half of a window, or one exchange."""
    return max(max_messages // 2, min(max_messages, new_count + 2)) - new_count


def begin(
    messages: Sequence[SessionMessage],
    start: int,
    needed: Collection[Key] = (),
    earliest: int | None = None,
) -> Window:
    """Return all system messages, and the others from about a place on.

    They begin with the question there or the next one; with the one before where that leaves little
    and there is room; or, within an exchange that is longer, with its question and its end.

    Args:
        messages: Oldest first.
        start: The place where the others begin.
        needed: The keys of calls that are kept wherever they are.
        earliest: Where they begin at the earliest, to keep an exchange whole; ``start`` when None.
    """
    latest = place_of(messages, needed) if needed else len(messages)
    following = first_user(range(start, latest), messages)
    start = min(start, latest)
    question = first_user(range(start - 1, -1, -1), messages)
    left = 0 if following is None else len(messages) - following
    may_be_longer = question is not None and earliest is not None and question >= earliest
    if may_be_longer and left * 2 < len(messages) - start:
        following = question
    if following is not None:
        return _beginning_at(messages, following)
    if question is not None and not _is_near(messages, question, start):
        question = None
    others = [p for p in range(start, latest) if not is_lasting(messages[p])]
    if latest == len(messages) and question is not None:
        # The question takes the place of one of them; without what follows it, it is noise.
        if len(others) <= 1:
            return _beginning_at(messages, latest)
        start = others[1]
    return _beginning_at(messages, start, question)


def _is_near(messages: Sequence[SessionMessage], question: int, start: int) -> bool:
    """Return whether a question would be found again by who reads the log from a place on."""
    seq = messages[start].seq if start < len(messages) else None
    return seq is None or (messages[question].seq or 0) >= seq - _FURTHER


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
    while start < len(messages) and (is_lasting(messages[start]) or is_result(messages[start])):
        start += 1
    return [m for m in messages[:start] if is_lasting(m)] + list(messages[start:])


def is_result(message: SessionMessage) -> bool:
    """Return whether a message gives only what calls asked for, so that it belongs behind them."""
    if message.role in RESULT_ROLES:
        return True
    content = message.content
    return (
        not isinstance(content, str)
        and bool(content)
        and all(answer_key(block) is not None for block in content)
    )


def is_compaction(message: SessionMessage) -> bool:
    """Return whether a message is a provider's compaction of the log and nothing else."""
    if message.role is not _ASSISTANT or isinstance(message.content, str):
        return False
    notes = message.metadata.get(NOTES)
    return isinstance(notes, dict) and notes.get(COMPACTION) is True


def compaction_in(message: SessionMessage) -> SessionMessage | None:
    """Return what of a message is a provider's compaction; None if nothing is."""
    if is_compaction(message):
        return message
    blocks = [
        block
        for block in message.blocks
        if isinstance(block, OtherBlock) and block.kind == COMPACTION
    ]
    if not blocks or message.role is not _ASSISTANT:
        return None
    return message.replaced(content=blocks, native=None)


def is_lasting(message: SessionMessage) -> bool:
    """Return whether a message is sent wherever requests begin: system, summary or compaction."""
    return message.role is _SYSTEM or message.id.startswith(_SUMMARY_ID) or is_compaction(message)


def is_question(message: SessionMessage) -> bool:
    """Return whether a request may begin with a message."""
    return message.role is _USER and not is_lasting(message) and not calls_needed([message])


def first_user(places: Iterable[int], messages: Sequence[SessionMessage]) -> int | None:
    """Return the first of some places that has a message with which a request may begin."""
    return next((place for place in places if is_question(messages[place])), None)


def calls_needed(messages: Sequence[SessionMessage]) -> set[Key]:
    """Return the keys of the calls that some messages answer."""
    if all(isinstance(message.content, str) for message in messages):
        return set()
    return answered_keys(block for message in messages for block in message.blocks)


def has_calls(messages: Sequence[SessionMessage], needed: Collection[Key]) -> bool:
    """Return whether some messages make all of these calls."""
    missing = set(needed)
    for message in reversed(messages):
        if not missing:
            break
        if not isinstance(message.content, str):
            missing -= set(map(call_key, message.content))
    return not missing


def place_of(messages: Sequence[SessionMessage], needed: Collection[Key]) -> int:
    """Where the newest messages that make these calls begin; behind all if none does."""
    missing = set(needed)
    found = len(messages)
    for place in range(len(messages) - 1, -1, -1):
        content = messages[place].content
        if isinstance(content, str) or messages[place].role is not MessageRole.ASSISTANT:
            continue
        made = set(map(call_key, content))
        if made & missing:
            missing -= made
            found = place
        if not missing:
            break
    return found
