"""Calls from any thread and event loop to the one thread that does the work, and back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Call:
    """Something asked for, and the future on its caller's loop that waits for the outcome.

    Must be made on the caller's event loop.
    """

    __slots__ = ("error", "future", "loop", "result")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None

    def resolve(self) -> None:
        """Give the outcome to whoever waits for it. On the caller's loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


def deliver(calls: Iterable[Call]) -> None:
    """Give each call its outcome, from any thread; each loop is woken once for all of its own."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Call]] = {}
    for call in calls:
        by_loop.setdefault(call.loop, []).append(call)
    for loop, outcomes in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, outcomes)
        except RuntimeError:
            # The loop was closed meanwhile: nobody waits for the outcome any more.
            logger.debug("a caller's event loop was closed before its outcome was there")


async def in_thread(function: Callable[..., T], *args: Any, **options: Any) -> T:
    """What a function returns that may block, on a thread of its own.

    As `asyncio.to_thread`, but also while the interpreter ends, as in a function of ``atexit``,
    when the threads of that are gone; and this one keeps no interpreter from its exit.
    """
    outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(function(*args, **options))
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            outcome.set_exception(error)

    name = f"langswarm-{getattr(function, '__name__', 'work')}"
    threading.Thread(target=run, name=name, daemon=True).start()
    return await asyncio.wrap_future(outcome)


def _resolve(calls: list[Call]) -> None:
    for call in calls:
        call.resolve()
