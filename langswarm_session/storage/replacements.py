"""Messages that a compaction replaced: they stay in the record, and out of every window.

The first message of the replacement names them in its metadata, so that replacing them is one
append, whatever their number, and readers of a log come to it before they come to them. Removing
that message brings back what it replaced.

A vendor's compaction is opaque to everyone else. Each message of such a replacement names who reads
it; for others the messages that it replaced are still there, and the replacement is not.
"""

from __future__ import annotations

from bisect import bisect, bisect_left
from collections.abc import Awaitable, Callable, Iterable, Sequence

from langswarm_session.models import SessionMessage

REPLACES = "langswarm_replaces"
"""The key of a message's metadata with the numbers of the messages that it replaces: a list of
pairs, each the first and the last of a row."""

READER = "langswarm_replacement_for"
"""The key of a message's metadata with the vendor that alone can read the replacement it is in."""

_PAGE = 2000
"""How many messages are read first where all are asked for."""

Span = tuple[int, int]
"""The first and the last number of messages in a row."""

Reads = Callable[[SessionMessage], bool]
"""Tells whether a message exists for the reader of a log."""

Read = Callable[[int, int | None], Awaitable[list[SessionMessage]]]
"""Returns as many of the newest messages, oldest first, of those before a number."""


def replacing(
    messages: Sequence[SessionMessage],
    replaced: Iterable[SessionMessage],
    kept: Iterable[SessionMessage] = (),
) -> list[SessionMessage]:
    """Return messages that, once appended, replace others, and what those had replaced.

    Args:
        messages: The replacement; at least one.
        replaced: What it replaces, of a log without what was replaced before.
        kept: What else there is of that log.
    """
    spans: list[Span] = []
    for message in replaced:
        seq = message.seq or 0
        spans += [(seq, seq), *replaced_by(message)]
    merged = [list(span) for span in _merged(spans, sorted(each.seq or 0 for each in kept))]
    first, *others = messages
    return [first.replaced(metadata={**first.metadata, REPLACES: merged}), *others]


def readable_by(vendor: str, messages: Iterable[SessionMessage]) -> list[SessionMessage]:
    """Return the messages of a replacement that only one vendor's API can read."""
    return [each.replaced(metadata={**each.metadata, READER: vendor}) for each in messages]


def is_read_by(vendor: str | None, message: SessionMessage) -> bool:
    """Return whether a message is for everyone, or for this vendor's API.

    Args:
        vendor: Whose compactions are read; None for nobody's.
        message: The message.
    """
    named = message.metadata.get(READER) if message.metadata else None
    return named is None or named == vendor


def _everything(message: SessionMessage) -> bool:  # noqa: ARG001
    return True


def _merged(spans: Iterable[Span], kept: list[int]) -> list[Span]:
    """Join spans between which there is nothing that is kept; numbers may be missing there."""
    merged: list[Span] = []
    for first, last in sorted(spans):
        if merged and bisect(kept, merged[-1][1]) == bisect(kept, first):
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def replaced_by(message: SessionMessage) -> list[Span]:
    """Return the numbers of what a message replaces: older messages, by valid metadata only."""
    given = message.metadata.get(REPLACES)
    spans = given if isinstance(given, list) else []
    return [(span[0], span[1]) for span in spans if _is_span(span, message.seq or 0)]


def renumbered(message: SessionMessage, numbers: Sequence[int]) -> SessionMessage:
    """Return a message of a log that is written once more without the numbers that are missing.

    Args:
        message: The message, with the number that it had.
        numbers: The numbers of the log, in order, of which the first becomes 1.
    """
    if REPLACES not in message.metadata:
        return message
    spans = [(bisect_left(numbers, a) + 1, bisect(numbers, z)) for a, z in replaced_by(message)]
    left = [[first, last] for first, last in spans if first <= last]
    return message.replaced(metadata={**message.metadata, REPLACES: left})


def _is_span(value: object, behind: int) -> bool:
    if not (isinstance(value, list) and len(value) == 2):
        return False
    first, last = value
    return type(first) is int and type(last) is int and 0 < first <= last < behind


class CurrentLog:
    """A log without the messages that later ones replaced, read from its end.

    Args:
        read: Reads from the whole log.
        reads: Which messages exist for the reader; those that do not exist replace nothing.
    """

    def __init__(self, read: Read, reads: Reads = _everything) -> None:
        self._read = read
        self._reads = reads
        self._spans: list[Span] = []

    async def newest(
        self, limit: int | None = None, before: int | None = None
    ) -> list[SessionMessage]:
        """Return the newest messages, or all, oldest first.

        What was replaced is skipped, and not read but for the rest of a page.

        Args:
            limit: How many at most.
            before: Only messages with a smaller number.
        """
        self._spans = []
        size = _PAGE if limit is None else limit
        pages: list[list[SessionMessage]] = []
        found = 0
        while True:
            page = await self._read(size, before)
            kept = self._without_replaced(page)
            pages.append(kept)
            found += len(kept)
            if len(page) < size or (limit is not None and found >= limit):
                break
            before = self._continue_before(page[0].seq or 0)
            size = size * 2 if limit is None else size
        if len(pages) == 1:
            return pages[0]
        messages = [message for page in reversed(pages) for message in page]
        return messages if limit is None else messages[max(0, len(messages) - limit) :]

    def has(self, message: SessionMessage) -> bool:
        """Return whether a message exists, and none of those read last replaces it."""
        seq = message.seq or 0
        return self._reads(message) and not any(first <= seq <= last for first, last in self._spans)

    def _without_replaced(self, page: list[SessionMessage]) -> list[SessionMessage]:
        if not self._spans and not any(map(_is_special, page)):
            return page
        kept = []
        for message in reversed(page):
            if self.has(message):
                kept.append(message)
                self._spans += replaced_by(message)
        kept.reverse()
        return kept

    def _continue_before(self, seq: int) -> int:
        """Return the number before which to read on, having read down to a message."""
        while True:
            skip = [first for first, last in self._spans if first < seq <= last + 1]
            if not skip:
                return seq
            seq = min(skip)


def _is_special(message: SessionMessage) -> bool:
    metadata = message.metadata
    return bool(metadata) and (REPLACES in metadata or READER in metadata)
