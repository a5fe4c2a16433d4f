"""How the Agents SDK's compaction replaces items: as one append, and only what was read.

The SDK's `OpenAIResponsesCompactionSession` asks its store for a snapshot of the newest items, has
them compacted, and then replaces what it read (``agents/memory/sqlite_session.py``,
``_get_compaction_snapshot``); where it is told to compact everything, it replaces all items
(``agents/extensions/memory/redis_session.py``, ``_atomic_replace_items``). Here what is replaced
stays in the record, and OpenAI alone reads what stands for it: see
`langswarm_session.storage.replacements`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from agents.items import TResponseInputItem

from langswarm_session.blocks import OtherBlock
from langswarm_session.doors import COMPACTION, KeyedSessions, Span, readable_by, replacing
from langswarm_session.formats.openai_responses import NAME
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.session import BaseSession
from openai_agents_langswarm.items import from_openai_agents, items_of
from openai_agents_langswarm.tail import Tail

if TYPE_CHECKING:
    from agents.memory.session import _CompactionSnapshot

IsExpired = Callable[[Any], bool]


class SeenItems:
    """What of a session a caller has read or written: what it may replace.

    The SDK reads a history, has it compacted and replaces "all" of it. What others wrote meanwhile
    is not part of what was compacted.
    """

    def __init__(self) -> None:
        self._up_to: int | None = None
        self._own: list[Span] = []

    def read(self, messages: Sequence[SessionMessage]) -> None:
        """Note that the newest messages were read."""
        self._up_to = (messages[-1].seq or 0) if messages else 0
        self._own = []

    def wrote(self, messages: Sequence[SessionMessage]) -> None:
        """Note that messages were added."""
        if not messages or self._up_to is None:
            return
        first, last = messages[0].seq or 0, messages[-1].seq or 0
        end = self._own[-1][1] if self._own else self._up_to
        if first > end + 1:
            self._own.append((first, last))
        elif self._own:
            self._own[-1] = (self._own[-1][0], max(end, last))
        else:
            self._up_to = max(end, last)

    def includes(self, message: SessionMessage) -> bool:
        """Return whether a message was read or written; any, where nothing was noted."""
        seq = message.seq or 0
        if self._up_to is None or seq <= self._up_to:
            return True
        return any(first <= seq <= last for first, last in self._own)


async def snapshot(
    sessions: KeyedSessions, session_id: str, limit: int, prune_prefix: IsExpired | None
) -> _CompactionSnapshot:
    """Return the newest items, and a way to replace the last of them if nobody wrote meanwhile.

    Args:
        sessions: Where the session lives.
        session_id: The session.
        limit: How many items at most.
        prune_prefix: Whether an item from before those that are replaced has expired; the oldest
            of these are removed for good, as the SDK's own stores remove them.
    """
    from agents.memory.session import _CompactionSnapshot

    tail = await Tail.read(partial(sessions.messages, session_id, current=True), limit + 1)
    starts = tail.starts(limit)

    async def replace_suffix(start: int, output: list[TResponseInputItem]) -> bool:
        place = starts.get(start)
        if place is None:
            return False
        expected = tail.messages[place:]
        replace = partial(_replace_suffix, expected, replacement(output), prune_prefix)
        return bool(await sessions.edit(session_id, replace))

    items: list[Any] = tail.newest(limit)
    return _CompactionSnapshot(items, len(tail.items) <= limit, replace_suffix)


def replacement(output: Iterable[TResponseInputItem]) -> list[SessionMessage]:
    """Return the messages that stand for what was compacted; an empty one, if that was nothing."""
    messages = from_openai_agents(output)
    if any(map(_has_compaction, messages)):
        return readable_by(NAME, messages)
    return messages or [SessionMessage(role=MessageRole.ASSISTANT, content=[])]


def _has_compaction(message: SessionMessage) -> bool:
    return any(
        isinstance(block, OtherBlock) and block.kind == COMPACTION for block in message.blocks
    )


async def replace_seen(
    messages: list[SessionMessage], seen: SeenItems, session: BaseSession
) -> bool:
    """Replace all current messages that the caller has seen, in one write.

    Where none of them is left nothing is written: what was cleared meanwhile does not come back as
    its compaction (https://github.com/openai/openai-agents-python/issues/4679).
    """
    current = await session.get_current_messages()
    replaced = [message for message in current if seen.includes(message)]
    if not replaced:
        return True
    kept = [message for message in current if not seen.includes(message)]
    await session.edit_messages(
        expected_revision=session.revision, add=replacing(messages, replaced, kept)
    )
    return True


async def _replace_suffix(
    expected: Sequence[SessionMessage],
    messages: list[SessionMessage],
    prune_prefix: IsExpired | None,
    session: BaseSession,
) -> bool:
    """Replace the newest messages, in one write, if they are still those that were read."""
    if await session.get_current_messages(len(expected)) != expected:
        return False
    expired: list[int] = []
    if prune_prefix is not None:
        expired = await _expired(session, expected[0].seq or 0, prune_prefix)
    await session.edit_messages(
        expected_revision=session.revision, remove=expired, add=replacing(messages, expected)
    )
    return True


async def _expired(session: BaseSession, before: int, is_expired: IsExpired) -> list[int]:
    """Return the numbers of the oldest messages, as far as all their items have expired."""
    expired: list[int] = []
    async for message in session.iter_messages():
        seq, items = message.seq or 0, items_of(message)
        if seq >= before or not items or not all(map(is_expired, items)):
            break
        expired.append(seq)
    return expired
