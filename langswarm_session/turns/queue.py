"""One turn at a time within a process: a queue per session, over threads and event loops."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

from langswarm_session.errors import SessionBusyError
from langswarm_session.records import SessionRef

_queues: weakref.WeakSet[TurnQueue] = weakref.WeakSet()


@dataclass(slots=True, eq=False)
class _Place:
    """Where somebody waits.

    Attributes:
        loop: Whose event loop it is.
        granted: Done when the session is theirs.
        is_called: Whether the loop, when it runs again, will look whether the session is free.
    """

    loop: asyncio.AbstractEventLoop
    granted: asyncio.Future[None]
    is_called: bool = False

    def call(self, what: Callable[..., None], *args: object) -> bool:
        """Let the loop do something; whether it still can."""
        try:
            self.loop.call_soon_threadsafe(what, *args)
        except RuntimeError:  # it was closed
            return False
        return True


@dataclass(slots=True)
class _Line:
    """Who has a session, and who waits for it."""

    is_taken: bool = True
    places: list[_Place] = field(default_factory=list)

    def grant_next(self) -> bool:
        """Give the session to the first whose loop runs; whether there is one."""
        for place in self.places:
            if place.loop.is_running() and place.call(_grant, place.granted):
                self.places.remove(place)
                return True
        return False

    def call_others(self, look: Callable[[_Place], None]) -> None:
        """Let those whose loops do not run look for themselves when they do."""
        # Where a loop was closed nobody waits any more.
        self.places = [place for place in self.places if not place.loop.is_closed()]
        for place in self.places:
            place.is_called = place.is_called or place.call(look, place)


class TurnQueue:
    """Lets one at a time have a session, first come first served, over threads and event loops.

    A loop that does not run holds up nobody: those who wait there are passed over until it does.
    """

    def __init__(self) -> None:
        self._forget()
        _queues.add(self)

    def _forget(self) -> None:
        self._lock = Lock()
        self._lines: dict[SessionRef, _Line] = {}

    async def acquire(
        self, ref: SessionRef, seconds: float | None, *, is_next: bool = False
    ) -> None:
        """Wait for the session.

        Args:
            ref: The session.
            seconds: How long to wait; None for as long as it takes.
            is_next: Whether to have it before those who wait already.

        Raises:
            SessionBusyError: If the time is over.
        """
        with self._lock:
            line = self._lines.get(ref)
            if line is None or not line.is_taken:
                self._lines.setdefault(ref, _Line()).is_taken = True
                return
            loop = asyncio.get_running_loop()
            place = _Place(loop, loop.create_future())
            line.places.insert(0 if is_next else len(line.places), place)
        try:
            await asyncio.wait_for(asyncio.shield(place.granted), seconds)
        except BaseException as error:
            with self._lock:
                granted = place not in line.places
                if not granted:
                    line.places.remove(place)
            if granted:
                self.release(ref)
            if isinstance(error, TimeoutError):
                raise SessionBusyError(
                    f"another turn is still running after {seconds:g} s; wait longer (turn_wait) "
                    "or try again",
                    session_id=ref.session_id,
                ) from None
            raise

    def release(self, ref: SessionRef) -> None:
        """Let the next one have the session. From any thread."""
        with self._lock:
            line = self._lines.get(ref)
            if line is not None:  # it is the parent's, in a forked child that leaves its turn
                self._pass_on(ref, line)

    def _pass_on(self, ref: SessionRef, line: _Line) -> None:
        line.is_taken = line.grant_next()
        if line.is_taken:
            return
        line.call_others(partial(self._look, ref))
        if not line.places:
            del self._lines[ref]

    def _look(self, ref: SessionRef, place: _Place) -> None:
        """Pass a free session on: a loop runs again."""
        with self._lock:
            place.is_called = False
            line = self._lines.get(ref)
            if line is not None and place in line.places and not line.is_taken:
                self._pass_on(ref, line)


def _grant(place: asyncio.Future[None]) -> None:
    if not place.done():
        place.set_result(None)


def _forget_all() -> None:
    """In a forked child nobody would ever release what the parent holds; the leases tell."""
    for queue in list(_queues):
        queue._forget()


os.register_at_fork(after_in_child=_forget_all)
