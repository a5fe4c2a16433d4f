"""A turn that is open until it is closed once, and those who wait for that."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from threading import Lock


class ClosableTurn:
    """Whether a turn is open, for every thread and event loop."""

    def __init__(self) -> None:
        self._open = False
        self._is_ending = False
        self._pid = os.getpid()
        self._lock = Lock()
        self._waiters: list[Callable[[], None]] = []

    @property
    def is_open(self) -> bool:
        """Whether the turn has not ended."""
        return self._open

    @property
    def is_ours(self) -> bool:
        """Whether it is for this process to end it: a forked child leaves it to its parent."""
        return self._open and self._pid == os.getpid()

    async def closed(self, seconds: float | None = None) -> bool:
        """Wait until the turn has ended, on any event loop.

        Args:
            seconds: How long to wait at most; None for as long as it takes.

        Returns:
            Whether it has.
        """
        loop = asyncio.get_running_loop()
        closed: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # nobody waits on a loop that was closed
                loop.call_soon_threadsafe(_settle, closed)

        with self._lock:
            if not self._open:
                return True
            self._waiters.append(tell)
        try:
            await asyncio.wait([closed], timeout=seconds)
        finally:
            with self._lock:
                if tell in self._waiters:
                    self._waiters.remove(tell)
        return not self._open

    def _claim(self) -> bool:
        """Take it on to end the turn; return False if another caller has."""
        with self._lock:
            is_first, self._is_ending = not self._is_ending, True
        return is_first

    def _mark_closed(self) -> bool:
        """Close the turn; return False if it was closed."""
        with self._lock:
            was_open, self._open = self._open, False
        return was_open

    def _tell_closed(self) -> None:
        """Wake those who wait for the end, once all that depends on it has been done."""
        with self._lock:
            waiters, self._waiters = self._waiters, []
        for tell in waiters:
            tell()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
