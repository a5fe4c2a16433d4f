"""One turn at a time within a process: a queue per session, over threads and event loops."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from threading import Lock

from langswarm_session.errors import SessionBusyError

_queues: weakref.WeakSet[TurnQueue] = weakref.WeakSet()


class TurnQueue:
    """Lets one at a time have a session, first come first served, over threads and event loops."""

    def __init__(self) -> None:
        self._forget()
        _queues.add(self)

    def _forget(self) -> None:
        self._lock = Lock()
        self._waiting: dict[str, deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]] = {}

    async def acquire(self, session_id: str, seconds: float | None) -> None:
        """Wait for the session.

        Args:
            session_id: The session.
            seconds: How long to wait; None for as long as it takes.

        Raises:
            SessionBusyError: If the time is over.
        """
        with self._lock:
            queue = self._waiting.get(session_id)
            if queue is None:
                self._waiting[session_id] = deque()
                return
            loop = asyncio.get_running_loop()
            place = loop.create_future()
            entry = (loop, place)
            queue.append(entry)
        try:
            await asyncio.wait_for(asyncio.shield(place), seconds)
        except BaseException as error:
            with self._lock:
                granted = entry not in queue
                if not granted:
                    queue.remove(entry)
            if granted:
                self.release(session_id)
            if isinstance(error, TimeoutError):
                raise SessionBusyError(
                    f"another turn is still running after {seconds:g} s; wait longer (turn_wait) "
                    "or try again",
                    session_id=session_id,
                ) from None
            raise

    def release(self, session_id: str) -> None:
        """Let the next one have the session. From any thread."""
        with self._lock:
            queue = self._waiting[session_id]
            while queue:
                loop, place = queue.popleft()
                try:
                    loop.call_soon_threadsafe(_grant, place)
                except RuntimeError:  # its loop was closed, so nobody waits there any more
                    continue
                return
            del self._waiting[session_id]


def _grant(place: asyncio.Future[None]) -> None:
    if not place.done():
        place.set_result(None)


def _forget_all() -> None:
    """In a forked child nobody would ever release what the parent holds; the leases tell."""
    for queue in list(_queues):
        queue._forget()


os.register_at_fork(after_in_child=_forget_all)
