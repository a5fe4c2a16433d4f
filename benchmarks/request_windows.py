"""What a window's limit costs: tokens with a prefix cache and without, and thinking kept.

    python -m benchmarks.request_windows [TURNS]

Runs whole sessions against the mock provider, and takes the requests that it was sent. A request's
longest beginning that an earlier request had is read from the cache, the rest is written to it.
Prices are of uncached input: reading 0.1, writing 1.25 (Anthropic, and OpenAI from gpt-5.6 on) or
1.0 (OpenAI before), no cache 1.0:

- https://platform.claude.com/docs/en/build-with-claude/prompt-caching
- https://developers.openai.com/api/docs/guides/prompt-caching

"Sliding" is the window of version 0.1: the newest messages, from a place that moves by about a
quarter of the window.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from langswarm_session import (
    BaseSession,
    MockProviderSession,
    SessionManager,
    SessionMessage,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.requests.budget import estimate

HEAD = 1500
"""Tokens of the system text and the tools, which every request begins with."""

LIMITS = (50, 100, 200, 400, 100_000)
STEPS = 4
"""Calls in a turn of the conversation with tools."""

Talk = Callable[[BaseSession, MockProviderSession, int], Awaitable[None]]


@dataclass
class Bill:
    """What the requests of one conversation come to, in tokens.

    Attributes:
        total: All that was sent.
        cached: What of it was found in the cache.
        beginnings: Requests that did not begin with the whole of the one before.
        replies: Earlier replies in the requests.
        valid: Those of them that were made under the same beginning: their thinking is valid.
    """

    total: int = 0
    cached: int = 0
    beginnings: int = 0
    replies: int = 0
    valid: int = 0
    _before: list[str] = field(default_factory=list)
    _starts: dict[str, str] = field(default_factory=dict)

    def add(self, window: Sequence[SessionMessage]) -> None:
        """Add a request."""
        ids = [message.id for message in window]
        same = next(
            (n for n, (a, b) in enumerate(zip(ids, self._before, strict=False)) if a != b),
            min(len(ids), len(self._before)),
        )
        self.beginnings += same < len(self._before)
        sizes = [estimate(message) for message in window]
        self.total += HEAD + sum(sizes)
        self.cached += (HEAD if self._before else 0) + sum(sizes[:same])
        for message in window:
            if message.role == "assistant":
                self.replies += 1
                self.valid += self._starts.setdefault(message.id, ids[0]) == ids[0]
        self._before = ids

    def price(self, write: float) -> float:
        """Return what it costs, in tokens of uncached input."""
        return self.cached * 0.1 + (self.total - self.cached) * write


async def chat(session: BaseSession, mock: MockProviderSession, _: int) -> None:
    """Take a turn of about 300 characters each way."""
    mock.script("answer " * 43)
    await session.send_message("question " * 33)


async def with_tools(session: BaseSession, mock: MockProviderSession, turn: int) -> None:
    """Take a turn in which a model calls tools that give 1,500 characters each."""
    names = [f"{turn}-{step}" for step in range(STEPS)]
    mock.script(*([ToolCallBlock(id=n, name="look", args={"at": n * 10})] for n in names))
    mock.script("answer " * 43)
    await session.send_message("question " * 33)
    for name in names:
        result = ToolResultBlock(tool_call_id=name, content="seen " * 300)
        await session.send_message(SessionMessage(role="tool", content=[result]))


def sliding(log: Sequence[SessionMessage], limit: int) -> list[SessionMessage]:
    """Return the window of version 0.1 for a log that ends with what is asked."""
    start = max(0, len(log) - limit)
    step = 1 << max(0, (limit // 4).bit_length() - 1)
    while start and start % step:
        start += 1
    while start < len(log) - 1 and start and log[start].role != "user":
        start += 1
    return list(log[start:])


async def run(talk: Talk, limit: int, turns: int) -> tuple[Bill, Bill, float]:
    """Return the bills of a conversation and of the same in sliding windows, and ms of a turn."""
    bill, old, took = Bill(), Bill(), []
    mock = MockProviderSession()
    async with SessionManager("memory", {"mock": mock}) as manager:
        session = await manager.create_session("ann", "mock", "m", max_messages=limit)
        seen = 0
        for turn in range(turns):
            began = time.perf_counter()
            await talk(session, mock, turn)
            took.append(time.perf_counter() - began)
            log = await session.get_messages()
            for request in list(mock.requests)[-(STEPS + 1) :]:
                last = request.window[-1].seq or 0
                if last > seen:
                    seen = last
                    bill.add(request.window)
                    old.add(sliding([m for m in log if (m.seq or 0) <= last], limit))
    return bill, old, median(took[-50:]) * 1000


def row(name: str, bill: Bill, took: str) -> str:
    """Return a line of the table."""
    share, valid = bill.cached / bill.total, bill.valid / max(1, bill.replies)
    prices = [bill.total, bill.price(1.25), bill.price(1.0)]
    shown = " | ".join(f"{price / 1000:,.0f}" for price in prices)
    return f"| {name} | {shown} | {share:.1%} | {valid:.0%} | {bill.beginnings} | {took} |"


async def main(turns: int) -> None:
    """Print a table for each conversation."""
    for name, talk in (("Chat", chat), (f"Agent, {STEPS} calls a turn", with_tools)):
        print(f"\n{name}, {turns} turns; thousands of tokens\n")
        print("| `max_messages` | no cache | writing 1.25 | writing 1.0 | found in the cache "
              "| thinking valid | new beginnings | ms a turn |")  # fmt: skip
        print("|---|---|---|---|---|---|---|---|")
        for limit in LIMITS:
            bill, old, took = await run(talk, limit, turns)
            shown = f"{limit:,}" if limit < 100_000 else "unlimited"
            print(row(shown, bill, f"{took:.2f}"))
            if limit <= 200:
                print(row(f"{shown}, sliding", old, ""))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
