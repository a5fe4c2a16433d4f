"""Whether a short piece of work runs on its caller's own thread.

To hand it to another thread costs as much as the work, twice: the thread has to be woken, and then
the caller. But while a thread works, or waits for a disk or a server, its event loop stands still;
so that is for work that is quick, and for callers that come one at a time.

How much longer a whole call through a door takes without it (2026-11-30, two cores, medians):
SQLite, async callers: an append through `AgentSession` 18%, the newest 20 there 19-41%, an append
through `AsyncSessionChatStore` 50-59%, `send_message` 40-44%; sync callers: an append through
`SessionChatMessageHistory` 62-81%. PostgreSQL: sync callers 20-23%, async ones 2-13%, whose event
loop is therefore never kept waiting for the server.
"""

from __future__ import annotations

import asyncio
import sqlite3
from types import MethodDescriptorType

from langswarm_session._sync.shared_loop import SharedLoop


def blocks_nobody(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this thread runs no event loop but is a sync caller's, inside the background loop."""
    return isinstance(loop, SharedLoop) and loop.is_visited


def is_watched() -> bool:
    """Whether somebody watches for calls that block an event loop, and refuses them.

    BlockBuster does, which ``langgraph dev`` and LangChain's own tests switch on: it replaces
    methods, those of `sqlite3.Connection` among them, with functions that raise where an event loop
    runs (https://github.com/cbornet/blockbuster; ``langgraph_runtime_inmem/queue.py``).
    """
    return type(sqlite3.Connection.execute) is not MethodDescriptorType


class LatencyGate:
    """Open while a kind of work has lately been quicker than a thread switch is worth.

    Args:
        limit: What counts as quick, in seconds.
    """

    _PROBATION = 8
    """How many in a row must be quick."""

    def __init__(self, limit: float = 0.002) -> None:
        self.limit = limit
        self._streak = 0

    @property
    def is_open(self) -> bool:
        """Whether the next one may be expected to be quick."""
        return self._streak >= self._PROBATION

    def record(self, seconds: float) -> None:
        """Take account of one."""
        self._streak = self._streak + 1 if seconds < self.limit else 0


class Contention:
    """Whether several callers want something concurrently, so that they are better gathered.

    As long as nobody else has turned up for a while, only some of the calls wait for others, and
    let the loop do its other work.
    """

    _ALONE, _IN_A_ROW = 64, 7

    def __init__(self) -> None:
        self._streak = self._left = 0

    @property
    def is_likely(self) -> bool:
        """Whether to wait for others before the next call."""
        self._left -= 1
        return self._left < 0

    def record(self, size: int) -> None:
        """Take account of how many came together."""
        self._streak = self._streak + 1 if size == 1 else 0
        self._left = self._IN_A_ROW if self._streak >= self._ALONE else 0
