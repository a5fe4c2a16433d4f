"""An event loop that other threads may step into while it sleeps.

To wake another thread takes longer than a short piece of work. So whoever has one for the loop's
thread does it itself, if the loop sleeps: it holds what the loop needs to go on. All that runs on
the loop thus still runs one after the other, and never beside anything else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import selectors
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, TypeVarTuple

from langswarm_session._sync.yielding import Turns

logger = logging.getLogger(__name__)

Ts = TypeVarTuple("Ts")

_TURN = 0.0005
"""Seconds after which a loop that has always something to do gives way to other threads."""


_HAS_EPOLL = hasattr(select, "epoll")


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
        # The same epoll under a number of its own, since the selector does not give it out.
        self._epoll = select.epoll.fromfd(os.dup(self.fileno())) if _HAS_EPOLL else None

    def close(self) -> None:
        if self._epoll is not None:
            self._epoll.close()
        super().close()

    @contextmanager
    def deaf(self, fd: int) -> Iterator[bool]:
        """Let a file wake nobody who waits here; whether that can be done."""
        if self._epoll is None or fd not in self.get_map():
            yield False
            return
        self._epoll.modify(fd, 0)
        try:
            yield True
        finally:
            key = self.get_map().get(fd)
            if key is not None:  # it may have been closed
                read, write = key.events & selectors.EVENT_READ, key.events & selectors.EVENT_WRITE
                self._epoll.modify(
                    fd, (select.EPOLLIN if read else 0) | (select.EPOLLOUT if write else 0)
                )

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
            # As `with` does, and not by `acquire`: that raises on a thread with an event loop where
            # blocking calls are refused (https://github.com/cbornet/blockbuster,
            # ``_get_lock_wrapped_functions``), and a visitor stays for a moment only.
            self._lock.__enter__()
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
        """Run until it is stopped; from now on it is this thread's.

        What would end the thread ends neither: a callback's `SystemExit` or `KeyboardInterrupt` is
        nobody's here who could act on it.
        """
        with self._turn:
            self._owner = threading.get_ident()
            self.call_soon(self._note_hooks)
            while True:
                try:
                    super().run_forever()
                except (SystemExit, KeyboardInterrupt):
                    logger.exception("something on the background event loop tried to end it")
                else:
                    return

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
        try:
            with self._guesthood():
                begin()
                while self._ready_here and not (is_done() or self._wakes.is_due):
                    _run(self._ready_here.popleft())
        finally:
            self.leave()
        return True

    def attend(self, fd: int, is_done: Callable[[], bool], seconds: float) -> None:
        """Wait in this thread, which is inside, for what comes through a file, and see to it.

        The loop's thread sleeps on meanwhile. Where it could not be kept asleep, nothing is done.

        Args:
            fd: The descriptor of a file that the loop reads.
            is_done: Whether what was waited for has come.
            seconds: How long to wait at most.
        """
        deadline = time.perf_counter() + seconds
        with self._wakes.deaf(fd) as is_deaf, self._guesthood():
            if not is_deaf:
                return
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            while not is_done():
                left = deadline - time.perf_counter()
                if left <= 0 or not poll.poll(left * 1000):
                    return
                reader, _ = self._wakes.get_key(fd).data
                _run(reader)
                while self._ready_here and not is_done():
                    _run(self._ready_here.popleft())

    @contextmanager
    def _guesthood(self) -> Iterator[None]:
        """Let this thread, which is inside, be as good as the loop's own."""
        hooks, running = sys.get_asyncgen_hooks(), asyncio._get_running_loop()
        self._guest = threading.get_ident()
        try:
            asyncio._set_running_loop(self)
            sys.set_asyncgen_hooks(*self._hooks)
            yield
        finally:
            asyncio._set_running_loop(running)
            sys.set_asyncgen_hooks(*hooks)
            self._guest = None
            while self._ready_here:
                self.call_soon_threadsafe(_run, self._ready_here.popleft())

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


def wind_up(
    loop: asyncio.AbstractEventLoop, finish: Callable[[], Coroutine[Any, Any, None]] | None = None
) -> None:
    """Cancel what an event loop had left to do when it ended, and close it. On its own thread.

    Args:
        loop: The loop.
        finish: What to do at the end, when nothing else is left.
    """

    async def cancel_all() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if finish is not None:
            await finish()

    try:
        loop.run_until_complete(cancel_all())
    finally:
        loop.close()


def _run(handle: asyncio.Handle) -> None:
    if not handle.cancelled():
        handle._run()
