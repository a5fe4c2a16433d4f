"""How much of a log there is, without reading what its messages say."""

from __future__ import annotations

from collections.abc import Iterable

from langswarm_session.blocks import ToolResultBlock
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import SessionMessage
from langswarm_session.records import LogMeasure, SessionRef

_PAGE = 500


def has_several_results(message: SessionMessage) -> bool:
    """Return whether a message has the results of several tools."""
    if isinstance(message.content, str):
        return False
    return sum(isinstance(block, ToolResultBlock) for block in message.content) > 1


def measure(numbers: Iterable[int], several: list[int], skip: int | None) -> LogMeasure:
    """Return the measure of messages with these numbers, in order."""
    count, at = 0, None
    for number in numbers:
        at = number if count == skip else at
        count += 1
    return LogMeasure(count, at, several)


def measure_span(
    first: int | None, last: int | None, total: int, after: int, skip: int | None
) -> tuple[int, int | None] | None:
    """Return the count and place of a `LogMeasure` where no number is missing in between.

    Args:
        first: The log's first number; None for an empty log, as for the next.
        last: Its last number.
        total: How many messages it has.
        after: Only messages with a larger number count.
        skip: How many of these precede the one that is asked for.

    Returns:
        None if numbers are missing: then they have to be counted.
    """
    if first is None or last is None:
        return 0, None
    if last - first + 1 != total:
        return None
    begin = max(first, after + 1)
    count = max(0, last - begin + 1)
    return count, begin + skip if skip is not None and skip < count else None


async def measure_by_reading(
    storage: ISessionStorage, ref: SessionRef, *, after: int, skip: int | None
) -> LogMeasure:
    """Return what `ISessionStorage.measure_log` does, by the methods of every storage."""
    numbers: list[int] = []
    several: list[int] = []
    while True:
        page = await storage.get_messages(ref, after=after, limit=_PAGE)
        numbers += [message.seq or 0 for message in page]
        several += [message.seq or 0 for message in page if has_several_results(message)]
        if len(page) < _PAGE:
            return measure(numbers, several, skip)
        after = numbers[-1]
