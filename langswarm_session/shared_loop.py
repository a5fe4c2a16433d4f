"""An event loop that other threads may step into while it sleeps.

To wake another thread takes longer than a short piece of work. So whoever has one for the loop's
thread does it itself, if the loop sleeps: it holds what the loop needs to go on. All that runs on
the loop thus still runs one after the other, and never beside anything else.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVarTuple

from langswarm_session.giving_way import Turns

Ts = TypeVarTuple("Ts")

_TURN = 0.0005
"""Seconds after which a loop that has always something to do gives way to other threads."""


class _Selector(selectors.DefaultSelector):  # type: ignore[valid-type,misc,unused-ignore]
    """Lets go of the loop while it waits for something, and of the interpreter if it never does.

    Attributes:
        is_due: Whether something has happened, so that the loop is about to go on.
    """

    def __init__(self, lock: threading.Lock) -> None:
        super().__init__()
        self._lock = lock
        self._turns = Turns()
        self.is_due = False

    def select(self, timeout: float | None = None) -> Any:
        self._lock.release()
        try:
            self._turns.give_way(_TURN)
            moment = time.perf_counter()
            happened = super().select(timeout)
            self._turns.waited_since(moment)
            return happened
        finally:
            self.is_due = True
            self._lock.acquire()
            self.is_due = False


class SharedLoop(asyncio.SelectorEventLoop):
    """The loop. What is scheduled by another thread inside it wakes it up."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._owner: int | None = None
        self._guest: int | None = None
        self._ready_here: deque[asyncio.Handle] = deque()
        self._hooks: Any = None
        self._wakes = _Selector(self._turn)
        super().__init__(self._wakes)

    def run_forever(self) -> None:
        """Run until it is stopped; from now on it is this thread's."""
        with self._turn:
            self._owner = threading.get_ident()
            self.call_soon(self._note_hooks)
            super().run_forever()

    def enter(self) -> bool:
        """Step in, if the loop sleeps; `leave` soon, and let nothing block meanwhile.

        Returns:
            Whether the caller is inside.
        """
        # In debug mode asyncio lets nobody but its own thread schedule anything. Where the loop is
        # about to go on, whoever steps in again and again would keep it from that.
        if self._wakes.is_due or self.get_debug():
            return False
        return self._turn.acquire(blocking=False)

    def leave(self) -> None:
        """Step out."""
        self._turn.release()

    @property
    def is_visited(self) -> bool:
        """Whether this thread is inside, by `visit`."""
        return self._guest == threading.get_ident()

    def visit(self, begin: Callable[[], object], is_done: Callable[[], bool]) -> bool:
        """Do something on the loop in this thread, and what follows from it, if the loop sleeps.

        It is as if the loop's thread did it. What has to wait, or goes on when that thread is
        needed for anything else, is left to it.

        Args:
            begin: What to do. This thread must have no running loop of its own.
            is_done: Whether nothing more needs to be done here.

        Returns:
            Whether it was done; False if the loop does not sleep.
        """
        if self._hooks is None or not self.enter():
            return False
        hooks = sys.get_asyncgen_hooks()
        self._guest = threading.get_ident()
        try:
            asyncio._set_running_loop(self)
            sys.set_asyncgen_hooks(*self._hooks)
            begin()
            while self._ready_here and not (is_done() or self._wakes.is_due):
                _run(self._ready_here.popleft())
        finally:
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)
            self._guest = None
            while self._ready_here:
                self.call_soon_threadsafe(_run, self._ready_here.popleft())
            self.leave()
        return True

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """See `asyncio.loop.call_soon`."""
        thread = threading.get_ident()
        if thread == self._owner:
            return super().call_soon(callback, *args, context=context)
        if thread == self._guest:
            handle = asyncio.Handle(callback, args, self, context)
            self._ready_here.append(handle)
            return handle
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

    def _note_hooks(self) -> None:
        """Note what sees to async generators that nobody reads to their end."""
        self._hooks = sys.get_asyncgen_hooks()


def _run(handle: asyncio.Handle) -> None:
    if not handle.cancelled():
        handle._run()
