"""Calls from any thread and event loop to the one thread that does the work, and back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, TypeVar

from langswarm_session._sync.threads import start_thread
from langswarm_session.errors import SessionStorageError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Call:
    """Something asked for, and the future on its caller's loop that waits for the outcome.

    Must be made on the caller's event loop. Whoever does the work claims it with `claim` first, and
    whoever waits may take it back with `withdraw` until then: exactly one of the two succeeds.

    Attributes:
        loop: The caller's event loop.
        future: What the caller waits for.
        result: What came of it, set by whoever does the work.
        error: Why it failed, set likewise.
        is_claimed: Whether whoever does the work has claimed it.
    """

    __slots__ = (
        "_is_settled",
        "_is_withdrawn",
        "_outcome",
        "_ticket",
        "error",
        "future",
        "is_claimed",
        "loop",
        "result",
    )

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_claimed = False
        # To pop a list is atomic, on any thread, and cheaper than a lock
        # (https://docs.python.org/3/faq/library.html#what-kinds-of-global-value-mutation-are-thread-safe).
        self._ticket = [None]
        self._is_withdrawn = self._is_settled = False
        self._outcome: BaseException | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether it has not been withdrawn."""
        return not self._is_withdrawn

    def claim(self) -> bool:
        """Claim the work; False if it was withdrawn. For one thread at a time."""
        if not self.is_claimed:
            self.is_claimed = self._take_ticket()
        return self.is_claimed

    def withdraw(self) -> bool:
        """Take it back; False if the work has begun. On the caller's loop."""
        if not self._is_withdrawn:
            self._is_withdrawn = self._take_ticket()
        return self._is_withdrawn

    def resolve(self) -> None:
        """Give the outcome to whoever waits for it. On the caller's loop."""
        self.settle(self.error)

    def settle(self, error: BaseException | None) -> None:
        """Let nobody wait any longer: for the result, or for this error. On the caller's loop."""
        if self._is_settled:
            return
        self._is_settled, self._outcome = True, error
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(self.result)

    def interrupt(self) -> None:
        """Let the caller hear of no outcome: its thread was interrupted. On the caller's loop."""
        self._is_settled = True
        self.future.cancel()

    async def outcome(self, give_up: Callable[[], None] | None = None) -> Any:
        """Wait for what comes of a write, and return it.

        A caller that is cancelled hears of it when nothing can be stored any more: immediately if
        the work has not begun, else when it is done, however often the caller is cancelled
        meanwhile, as an anyio scope does at every turn of the loop
        (https://anyio.readthedocs.io/en/stable/cancellation.html). What it did is lost on the
        caller then; the record has all of it, or nothing.

        Args:
            give_up: Tells whoever does the work that the caller wants it no more.

        Raises:
            SessionStorageError: If its outcome is unknown (`may_be_stored`) when the storage's time
                to wait is over, also where the caller was cancelled.
            BaseException: Why it failed.
        """
        try:
            return await self.future
        except GeneratorExit:
            self.withdraw()  # the caller's loop was closed under it
            raise
        except asyncio.CancelledError:
            is_withdrawn = self.withdraw()
            if give_up is not None:
                give_up()
            if not is_withdrawn:
                await self._settled()
            error = self._outcome
            if isinstance(error, SessionStorageError) and error.may_be_stored:
                raise error from None
            raise

    async def answer(self) -> Any:
        """Wait for what comes of a read, and return it; a caller that is cancelled waits no more.

        Raises:
            BaseException: Why it failed.
        """
        try:
            return await self.future
        except BaseException:
            self.withdraw()
            raise

    async def _settled(self) -> None:
        while not self._is_settled:
            self.future = self.loop.create_future()
            # It only wakes: an exception in it that nobody asks for would be complained of.
            with suppress(asyncio.CancelledError):
                await asyncio.wait([self.future])
        if not self.future.cancelled():
            self.future.exception()

    def _take_ticket(self) -> bool:
        try:
            self._ticket.pop()
        except IndexError:
            return False
        return True


def deliver(calls: Iterable[Call]) -> None:
    """Give each call its outcome, from any thread; each loop is woken once for all of its own."""
    # With the errors as they are now, whatever is done to the calls before their loops go on.
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Call, BaseException | None]]] = {}
    for call in calls:
        by_loop.setdefault(call.loop, []).append((call, call.error))
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
    start_thread(run, name)
    return await asyncio.wrap_future(outcome)


async def uninterrupted(
    work: Coroutine[Any, Any, T], on_cancel: Callable[[], object] = lambda: None
) -> T:
    """Run a coroutine to its end, however often its caller is cancelled, and return its result.

    Args:
        work: The coroutine; it runs in a task of its own.
        on_cancel: Called whenever the caller is cancelled.

    Raises:
        asyncio.CancelledError: If the caller was cancelled, once the coroutine has ended.
        BaseException: What the coroutine raises otherwise.
    """
    task = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancellation = error
            on_cancel()
    if cancellation is None:
        return task.result()
    if not task.cancelled():
        task.exception()
    raise cancellation


def _resolve(outcomes: list[tuple[Call, BaseException | None]]) -> None:
    for call, error in outcomes:
        call.settle(error)
