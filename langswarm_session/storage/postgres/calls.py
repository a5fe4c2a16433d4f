"""What callers ask of the PostgreSQL engine, and how long they wait for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from langswarm_session.errors import (
    SessionError,
    StorageBusyError,
    StorageUnavailableError,
)
from langswarm_session.storage.calls import Call
from langswarm_session.storage.postgres.errors import typed_error

if TYPE_CHECKING:
    from langswarm_session.storage.postgres.pool import Connection


class TimedCall(Call):
    """A call that must have an outcome by a certain time.

    Attributes:
        size: How many characters it stores.
        deadline: When it must have one, by the monotonic clock.
        work: What is being done for it and can be cancelled, if anything.
        late: Whether it has taken too long.
        over: Whether it has one, or its caller wants none any more.
        unclear: Whether it was sent and no answer came, so that it may be stored. Until one comes
            it is not cancelled with its caller, who waits for it.
        connection: What it was sent on, if alone: there the server can be asked to stop it.
        is_given_up: Whether its caller was cancelled, so that it is not tried again.
        is_attended: Whether its caller waits for it on the spot, and takes its outcome then.
    """

    __slots__ = (
        "connection",
        "deadline",
        "is_attended",
        "is_given_up",
        "late",
        "over",
        "size",
        "unclear",
        "work",
    )

    def __init__(self, size: int = 0) -> None:
        super().__init__()
        self.size = size
        self.deadline = 0.0
        self.work: asyncio.Task[Any] | Flight | None = None
        self.connection: Connection | None = None
        self.late = self.over = self.unclear = self.is_attended = self.is_given_up = False


class JobCall(TimedCall):
    """A call that is a coroutine of the engine's own loop.

    Args:
        begin: Makes the coroutine, given what runs jobs and this call.
    """

    __slots__ = ("begin",)

    def __init__(self, begin: Callable[[Any, TimedCall], Coroutine[Any, Any, Any]]) -> None:
        super().__init__()
        self.begin = begin


class Live:
    """The calls that have no outcome yet, oldest first: the order of their deadlines.

    Args:
        loop: The event loop that it belongs to.
        seconds: How long each may take.
        expire: Told of each that has taken longer.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        expire: Callable[[TimedCall], None],
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._expire = expire
        self._calls: dict[TimedCall, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None

    @property
    def calls(self) -> list[TimedCall]:
        """The calls."""
        return list(self._calls)

    def add(self, calls: Iterable[TimedCall]) -> None:
        """Watch over calls from now on."""
        self._calls.update(dict.fromkeys(calls))
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._look)

    def remove(self, call: TimedCall) -> None:
        """It has an outcome."""
        self._calls.pop(call, None)
        if self._emptied is not None and not self._calls:
            self._emptied.set_result(None)
            self._emptied = None

    async def empty(self) -> None:
        """Wait until each call has an outcome. For one waiter."""
        if self._calls:
            self._emptied = self._loop.create_future()
            await self._emptied

    def _look(self) -> None:
        # One timer for all: most calls are long done when it comes, so it is set once for many.
        self._timer = None
        now = time.monotonic()
        for call in [each for each in self._calls if each.deadline <= now and not each.late]:
            call.late = True
            self._expire(call)
        waiting = [each.deadline - now for each in self._calls if each.deadline > now]
        if waiting:
            self._timer = self._loop.call_later(min(waiting), self._look)

    def close(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()


class Flight:
    """A coroutine that is begun at once, where a task would begin in the loop's next round.

    It must not ask which task it runs in, as `asyncio.timeout` does.

    Args:
        work: The coroutine.
        land: Told its result, or what it raised.
    """

    __slots__ = ("_land", "_work", "waits_for")

    def __init__(
        self,
        work: Coroutine[Any, Any, Any],
        land: Callable[[Any, BaseException | None], None],
    ) -> None:
        self._work = work
        self._land = land
        self.waits_for: asyncio.Future[Any] | None = None
        self._step()

    def cancel(self) -> None:
        """Let what it waits for be cancelled."""
        if self.waits_for is not None:
            self.waits_for.cancel()

    def _step(self, _: object = None) -> None:
        try:
            # What it waited for is done: the coroutine takes its outcome from there.
            future = self._work.send(None)
        except StopIteration as stop:
            self._land(stop.value, None)
        except BaseException as error:
            self._land(None, error)
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise  # it was meant for the thread that sends
        else:
            self.waits_for = future
            future._asyncio_future_blocking = False  # as a task does, which then waits as well
            future.add_done_callback(self._step)


def typed(call: TimedCall, error: BaseException, name: str) -> SessionError:
    """The error for a call's caller, which says so if the call may have been done all the same."""
    found = typed_error(error, name)
    if call.unclear and isinstance(found, (StorageBusyError, StorageUnavailableError)):
        found = type(found)(
            f"{found}; it was sent, and no answer came: it may be stored, and with the same "
            "message ids it is stored once however often it is sent",
            may_be_stored=True,
        )
    if found is not error:
        found.__cause__ = error
    return found


def too_late(call: TimedCall, seconds: float, name: str) -> SessionError:
    """The error for a call that has taken too long."""
    error = StorageBusyError(
        f"{name}: no answer in {seconds:g} seconds: the server is overloaded or cut off, or "
        "another process keeps the session locked"
    )
    return typed(call, error, name)
