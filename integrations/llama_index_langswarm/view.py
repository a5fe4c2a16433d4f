"""What LlamaIndex sees of a session's log, read no further than is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from llama_index.core.base.llms.types import ChatMessage

from langswarm_session.doors import collector_paused
from langswarm_session.models import RESULT_ROLES, SessionMessage
from langswarm_session.records import LogMeasure
from langswarm_session.session import BaseSession
from llama_index_langswarm.edits import STATUS, Edit, Entry
from llama_index_langswarm.messages import size_of, to_llama_index_messages

ARCHIVED_UP_TO = "llama_index_archived"
"""The key of a session's context with the number of the newest message archived in a row."""

HAS_ARCHIVED_ALONE = "llama_index_archived_alone"
"""The key of a session's context that says that messages may have been archived one by one."""


_PAGE = 20
"""How many messages are read per step to find the results that belong to what is before them."""


class View:
    """The messages of a session with a status, as it was when it was last read.

    Positions are counted without reading what is before them, as nearly all messages of a log are
    one message for LlamaIndex too. Where some are several (the results of several tools), or were
    archived one by one, the log is read.

    Args:
        session: The session.
        archived: Only the archived messages, only the others; None for all.
    """

    def __init__(self, session: BaseSession, archived: bool | None) -> None:
        context = session.context.model_extra or {}
        self._session = session
        self._archived = archived
        self._up_to: int = context.get(ARCHIVED_UP_TO) or 0
        self._is_mixed = archived is not None and bool(context.get(HAS_ARCHIVED_ALONE))
        self._after = self._up_to if archived is False and not self._is_mixed else 0
        self._before = self._up_to + 1 if archived and not self._is_mixed else None

    async def count(self) -> int:
        """Return how many messages there are."""
        measure = None if self._is_mixed else await self._measure(None)
        if measure is None:
            return sum(map(size_of, await self._read(self._after, None)))
        return measure.count

    async def chats(self, offset: int = 0, limit: int | None = None) -> list[ChatMessage]:
        """Return messages, oldest first.

        Args:
            offset: How many of the oldest to leave out.
            limit: How many at most.
        """
        if limit == 0:
            return []
        skipped, messages = await self._from(offset, limit)
        with collector_paused():
            chats = to_llama_index_messages(messages)
        first = offset - skipped
        return chats[first : None if limit is None else first + limit]

    async def oldest(self, count: int) -> list[Entry]:
        """Return the entries of the oldest messages.

        Args:
            count: How many messages.
        """
        return self._entries((await self._from(0, count))[1]) if count > 0 else []

    async def results_behind(self, seq: int) -> list[Entry]:
        """Return the entries of the results of tools that follow a message immediately."""
        found: list[SessionMessage] = []
        while True:
            page = await self._read(seq, _PAGE)
            results = list(takewhile(lambda message: message.role in RESULT_ROLES, page))
            found += results
            if len(results) < _PAGE:
                return self._entries(found)
            seq = found[-1].seq or 0

    async def at(self, idx: int) -> tuple[list[Entry], int]:
        """Return the entry at a position, counted as a list's, maybe with others.

        Returns:
            The entries, and the position among these.
        """
        if idx < 0 and not self._is_mixed:
            newest = await self._session.get_messages(-idx)
            return self._entries(each for each in newest if self._has(each)), idx
        skipped, messages = await self._from(max(0, idx), 1 if idx >= 0 else None)
        return self._entries(messages), idx - skipped if idx >= 0 else idx

    async def entries(self) -> list[Entry]:
        """Return the entries of all messages."""
        return self._entries(await self._read(self._after, None))

    async def _from(self, offset: int, limit: int | None) -> tuple[int, list[SessionMessage]]:
        """Return the messages from a position on, and how many LlamaIndex sees before these."""
        if offset == 0 and not self._is_mixed:
            return 0, await self._read(self._after, limit)
        measure = None if self._is_mixed else await self._measure(offset)
        if measure is None:
            return _from_position(await self._read(self._after, None), offset, limit)
        if measure.at is None:
            return offset, []
        return offset, await self._read(measure.at - 1, limit)

    async def _measure(self, skip: int | None) -> LogMeasure | None:
        """Return how many messages there are, and where one is; None if they have to be read."""
        measure = await self._session.measure(after=self._after, skip=skip)
        if any(self._before is None or seq < self._before for seq in measure.several):
            return None
        if self._before is None:
            return measure
        behind = await self._session.measure(after=self._up_to)
        return LogMeasure(measure.count - behind.count, measure.at, [])

    async def _read(self, after: int, limit: int | None) -> list[SessionMessage]:
        messages = await self._session.read_messages(after=after, before=self._before, limit=limit)
        return [message for message in messages if self._has(message)]

    def _has(self, message: SessionMessage) -> bool:
        return self._archived is None or self._is_archived(message) is self._archived

    def _is_archived(self, message: SessionMessage) -> bool:
        return (message.seq or 0) <= self._up_to or STATUS in message.metadata

    def _entries(self, messages: Any) -> list[Entry]:
        with collector_paused():
            return [
                Entry(message, to_llama_index_messages([message]), self._is_archived(message))
                for message in messages
            ]


def _from_position(
    messages: list[SessionMessage], offset: int, limit: int | None
) -> tuple[int, list[SessionMessage]]:
    """Return the messages that LlamaIndex sees from a position on, and how many are before these.

    Args:
        messages: All messages.
        offset: The position.
        limit: How many messages LlamaIndex is to see of them, at least.
    """
    skipped = first = 0
    while first < len(messages) and skipped + size_of(messages[first]) <= offset:
        skipped += size_of(messages[first])
        first += 1
    last = None if limit is None else first + limit + 1
    return skipped, messages[first:last]


async def carry_out(session: BaseSession, edit: Edit) -> Any:
    """Edit a log as it was when the session was read, and return what the caller is to be told."""
    if edit.archive is not None:
        changes = {ARCHIVED_UP_TO: edit.archive}
        await session.update_context(expected_revision=session.revision, **changes)
    elif edit.remove or edit.change or edit.add:
        await note_archived_alone(session, edit.add)
        await session.edit_messages(
            expected_revision=session.revision,
            remove=edit.remove,
            change=edit.change,
            add=edit.add,
        )
    return edit.told


async def note_archived_alone(session: BaseSession, messages: Sequence[SessionMessage]) -> None:
    """Note in the session, if need be, that messages may be archived one by one."""
    noted = (session.context.model_extra or {}).get(HAS_ARCHIVED_ALONE)
    if not noted and any(STATUS in message.metadata for message in messages):
        changes = {HAS_ARCHIVED_ALONE: True}
        await session.update_context(expected_revision=session.revision, **changes)
