"""An event loop that other threads may step into while it sleeps.

To wake another thread takes longer than a short piece of work. So whoever has one for the loop's
thread does it itself, if the loop sleeps: it holds what the loop needs to go on. All that runs on
the loop thus still runs one after the other, and never beside anything else.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVarTuple

Ts = TypeVarTuple("Ts")


class _Selector(selectors.DefaultSelector):  # type: ignore[valid-type,misc,unused-ignore]
    """Lets go of the loop while it waits for something to happen."""

    def __init__(self, lock: threading.Lock) -> None:
        super().__init__()
        self._lock = lock

    def select(self, timeout: float | None = None) -> Any:
        self._lock.release()
        try:
            return super().select(timeout)
        finally:
            self._lock.acquire()


class SharedLoop(asyncio.SelectorEventLoop):
    """The loop. What is scheduled by another thread inside it wakes it up."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._owner: int | None = None
        super().__init__(_Selector(self._turn))

    def run_forever(self) -> None:
        """Run until it is stopped; from now on it is this thread's."""
        with self._turn:
            self._owner = threading.get_ident()
            super().run_forever()

    def enter(self) -> bool:
        """Step in, if the loop sleeps; `leave` soon, and let nothing block meanwhile.

        Returns:
            Whether the caller is inside.
        """
        # In debug mode asyncio lets nobody but its own thread schedule anything.
        return not self.get_debug() and self._turn.acquire(blocking=False)

    def leave(self) -> None:
        """Step out."""
        self._turn.release()

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """See `asyncio.loop.call_soon`."""
        if threading.get_ident() == self._owner:
            return super().call_soon(callback, *args, context=context)
        return self.call_soon_threadsafe(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See `asyncio.loop.call_at`."""
        timer = super().call_at(when, callback, *args, context=context)
        if threading.get_ident() != self._owner:
            self.call_soon_threadsafe(lambda: None)  # it may have meant to sleep for longer
        return timer
