"""The newest items of a session, with the messages that they are in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from langswarm_session.doors import collector_paused
from langswarm_session.formats.openai_items import Item
from langswarm_session.models import SessionMessage
from openai_agents_langswarm.items import is_result, items_of

GetMessages = Callable[[int | None], Awaitable[list[SessionMessage]]]


@dataclass(slots=True)
class Tail:
    """The newest messages of a session, oldest first.

    Attributes:
        messages: The messages.
        parts: The items of each.
        items: All items.
    """

    messages: list[SessionMessage]
    parts: list[list[Item]] = field(init=False)
    items: list[Item] = field(init=False)

    def __post_init__(self) -> None:
        with collector_paused():
            self.parts = [items_of(message) for message in self.messages]
            self.items = [item for part in self.parts for item in part]

    @classmethod
    async def read(cls, get_messages: GetMessages, limit: int | None) -> Tail:
        """Read at least ``limit`` of the newest items, or all.

        Args:
            get_messages: Returns as many of the newest messages, or all.
            limit: How many items to read; fewer are read only where there are no more.
        """
        count = limit
        while True:
            tail = cls(await get_messages(count))
            # A message may have nothing that an item can carry, and then one more is needed.
            if limit is None or count is None or len(tail.items) >= limit:
                return tail
            if len(tail.messages) < count:
                return tail
            count *= 2

    def newest(self, limit: int | None) -> list[Item]:
        """Return the newest items, or all."""
        return self.items if limit is None else self.items[max(0, len(self.items) - limit) :]

    def starts(self, limit: int) -> dict[int, int]:
        """Return which of the messages begin at which of the newest items."""
        at = min(limit, len(self.items)) - len(self.items)
        starts = {}
        for place, part in enumerate(self.parts):
            if part and at >= 0:
                starts[at] = place
            at += len(part)
        return starts

    def window(self, limit: int) -> list[Item]:
        """Return the newest items that a model can be sent on their own.

        What a model gave in a row is one message (its reasoning, and the calls that depend on it),
        so the window begins with a whole one: a user's, or a compaction, if there is one. It has no
        result without its call, which OpenAI refuses
        (https://github.com/openai/openai-agents-python/issues/4322).

        It begins where it did for many turns, as the vendors' caches find what begins as an earlier
        request did, and newer models keep only the reasoning behind an unchanged beginning
        (https://developers.openai.com/api/docs/guides/prompt-caching).

        Args:
            limit: How many items at most. If that is all there is, they are returned as they are.
        """
        if len(self.items) <= limit:
            return self.items
        starts = self.starts(limit)
        first = self._steady(starts, limit)
        items = self.items[len(self.items) - limit + first :]
        called = {item.get("call_id") for item in items if not is_result(item)}
        return [item for item in items if not is_result(item) or item.get("call_id") in called]

    def _steady(self, starts: dict[int, int], limit: int) -> int:
        """Return at which of the newest items a window begins that is to begin there for long.

        That is the newest compaction; else, of the exchanges that begin in the older half, the one
        in which the numbers of the log are roundest, which is the same for every reader.
        """
        begins = [at for at, place in starts.items() if _begins(self.parts[place][0])]
        compactions = [at for at in begins if _is_compaction(self.parts[starts[at]][0])]
        if compactions:
            return compactions[-1]
        numbers = [(self.messages[starts[at]].seq or 0) - 1 for at in begins]
        older = [
            ((number ^ following).bit_length(), -at)
            for at, number, following in zip(begins, numbers, numbers[1:], strict=False)
            if at <= limit // 2
        ]
        if older:
            return -max(older)[1]
        return min(begins or starts, default=limit)


def _begins(item: Item) -> bool:
    return item.get("role") == "user" or _is_compaction(item)


def _is_compaction(item: Item) -> bool:
    return item.get("type") == "compaction"
