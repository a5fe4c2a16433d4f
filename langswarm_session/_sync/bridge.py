"""The one bridge for callers that cannot await.

One background thread runs one event loop for the whole process; a sync caller hands it a coroutine
and waits. It works from any thread, inside a running event loop as well (which then waits like the
rest of its thread), and never nests loops.

Two thread switches take longer than to store a message. So a caller without a running loop steps
into the background loop while that sleeps, and runs the coroutine there until it has to wait.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from langswarm_session._sync.shared_loop import SharedLoop, wind_up
from langswarm_session._sync.threads import start_thread
from langswarm_session.errors import BackgroundLoopError, ManagerClosedError

logger = logging.getLogger(__name__)

T = TypeVar("T")


_loop_waits: contextvars.ContextVar[bool] = contextvars.ContextVar("_loop_waits", default=False)
"""Whether the background loop is waiting for whatever runs in this context."""


class _Background:
    """A daemon thread with a running event loop, started when first needed, and again if it ended.

    Nothing should end it. If something does all the same, such as an exception that a debugger or a
    watchdog raises in every thread, those that wait are told, and the next call gets another one.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin without a thread, as a forked child does."""
        # Reentrant, as the garbage collector may start something while it is held.
        self._lock = threading.RLock()
        self._loop: SharedLoop | None = None
        self._waiting: set[_Running[Any]] = set()
        self.thread: threading.Thread | None = None

    @property
    def is_here(self) -> bool:
        """Whether this thread runs the loop, or does the loop's work as its visitor."""
        visited = self._loop is not None and self._loop.is_visited
        return visited or threading.current_thread() is self.thread

    @property
    def current(self) -> SharedLoop | None:
        """The running loop, if it was started."""
        return self._loop

    def loop(self) -> SharedLoop:
        """The running loop."""
        with self._lock:
            if self._loop is None:
                loop = self._loop = SharedLoop()
                self.thread = start_thread(partial(self._run, loop), "langswarm-blocking")
            return self._loop

    def submit(self, running: _Running[Any]) -> None:
        """Let the loop's thread do something for a call, which is told if the thread ends first.

        Raises:
            BackgroundLoopError: If it has ended already.
        """
        with self._lock:
            if running.loop is not self._loop:
                raise _ended()
            self._waiting.add(running)
            running.loop.call_soon_threadsafe(running.go_on)

    def leave(self, running: _Running[Any]) -> None:
        """Note that a call has its outcome."""
        with self._lock:
            self._waiting.discard(running)

    def _run(self, loop: SharedLoop) -> None:
        try:
            loop.run_forever()
        finally:
            with self._lock:
                waiting, self._waiting = self._waiting, set()
                if self._loop is loop:
                    self._loop = self.thread = None
            logger.error(
                "the background event loop of sync calls has ended: %d waited", len(waiting)
            )
            for running in waiting:
                running.fail(_ended())
            wind_up(loop)


def _ended() -> BackgroundLoopError:
    return BackgroundLoopError(
        "the event loop that sync calls share ended before this call did, and what it wrote may be "
        "stored; read the session again, or repeat the call with the same message ids"
    )


_background = _Background()
os.register_at_fork(after_in_child=_background.forget)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end and return what it returns, from sync code.

    It runs on the background loop, in the caller's thread or in the loop's own. Context variables
    are those of the caller, and what the coroutine sets is set for the caller afterwards, as if it
    had been awaited. Interrupting the wait cancels the coroutine.

    Args:
        coroutine: What to run.

    Raises:
        ManagerClosedError: If the interpreter is ending.
        BaseException: Whatever the coroutine raises.
    """
    _refuse_at_the_end(coroutine)
    if _background.is_here or _loop_waits.get():
        # Sync code that a middleware or hook calls on the background loop: that loop is waiting
        # for it and cannot run anything, so this once another does.
        return _run_elsewhere(coroutine)
    context = contextvars.copy_context()
    running = _Running(coroutine, context)
    try:
        running.visit()
        return running.result()
    except BaseException:
        # Only an interrupt (KeyboardInterrupt, SystemExit) leaves it running.
        running.cancel()
        raise
    finally:
        _take_over(context)


def start(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine on the background loop without waiting for it, in the caller's context.

    Args:
        coroutine: What to run.

    Returns:
        A future of its outcome; cancelling that cancels the coroutine.

    Raises:
        ManagerClosedError: If the interpreter is ending.
    """
    _refuse_at_the_end(coroutine)
    return _Running(coroutine, contextvars.copy_context()).follow()


def callers_loop() -> asyncio.AbstractEventLoop | None:
    """The running event loop, if async code runs on it; None where sync code waits for this.

    That code's loop is the bridge's, and says nothing about whoever waits.
    """
    loop = asyncio.get_running_loop()
    return None if loop is _background.current or _loop_waits.get() else loop


def _refuse_at_the_end(coroutine: Coroutine[Any, Any, Any]) -> None:
    # The background thread does not run any more then, nor can another be started; and the storages
    # were closed when the functions of atexit ran.
    if sys.is_finalizing():
        coroutine.close()
        raise ManagerClosedError(
            "the interpreter is ending, and nothing can be done any more; do it before the end of "
            "the program, or in a function of atexit, not in a __del__ that runs so late"
        )


class _Running(Generic[T]):
    """A coroutine on the background loop.

    Args:
        coroutine: What to run.
        context: The context to run it in.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], context: contextvars.Context) -> None:
        self._coroutine = coroutine
        self._context = context
        self.loop = _background.loop()
        self._task: asyncio.Task[T] | None = None
        self._outcome: Future[T] | None = None
        self._interrupted = False

    def visit(self) -> None:
        """Run it in this thread until it has to wait, if that can be now.

        Raises:
            KeyboardInterrupt: If that came meanwhile.
        """
        if asyncio._get_running_loop() is not None:
            return
        if not (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            self.loop.visit(self._begin, self._is_done)
            return
        # An interrupt in the middle of it would leave undone what the loop's thread, where none
        # arrives, always does.
        signal.signal(signal.SIGINT, self._interrupt)
        try:
            self.loop.visit(self._begin, self._is_done)
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._interrupted:
            raise KeyboardInterrupt

    def result(self) -> T:
        """What comes of it; waits for that."""
        if self._task is None or not self._task.done():
            return self.follow().result()
        if self._task.cancelled():
            raise CancelledError  # a thread's, as where it is waited for
        error = self._task.exception()
        if error is not None:
            raise _brought(error)
        return self._task.result()

    def follow(self) -> Future[T]:
        """Let the loop's thread run it, or go on with it.

        Returns:
            A future of its outcome; cancelling that cancels the coroutine.
        """
        outcome = self._outcome = Future()
        outcome.add_done_callback(self._cancelled)
        try:
            _background.submit(self)
        except BackgroundLoopError as error:
            self.fail(error)
        return outcome

    def fail(self, error: BackgroundLoopError) -> None:
        """Tell whoever waits that the loop has ended."""
        assert self._outcome is not None
        with suppress(InvalidStateError):  # it came to its end, or was cancelled, just before
            self._outcome.set_exception(error)
        if self._task is None:
            self._coroutine.close()

    def cancel(self) -> None:
        """Let it be cancelled, if it still runs."""
        if self._outcome is not None:
            self._outcome.cancel()
        elif self._task is None:
            self._coroutine.close()
        elif not self._task.done():
            self.loop.call_soon_threadsafe(self._task.cancel)
        elif not self._task.cancelled():
            self._task.exception()  # it was not asked for if an interrupt came first

    def _interrupt(self, *_: object) -> None:
        if self._interrupted:  # whoever asks again does not want to wait for it
            raise KeyboardInterrupt
        self._interrupted = True

    def _is_done(self) -> bool:
        return self._task is not None and self._task.done()

    def _begin(self) -> asyncio.Task[T]:
        task = self._task = self.loop.create_task(_carried(self._coroutine), context=self._context)
        return task

    def go_on(self) -> None:
        """Run it on the loop's thread, or let that go on with it."""
        assert self._outcome is not None
        if (
            self._task is None and self._outcome.done()
        ):  # cancelled, or told that the loop has ended
            self._coroutine.close()
            _background.leave(self)
            return
        task = self._begin() if self._task is None else self._task
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[T]) -> None:
        assert self._outcome is not None
        _background.leave(self)
        self._coroutine.close()  # if it was cancelled before it began
        if self._outcome.done():
            return
        if task.cancelled():
            self._outcome.cancel()
        elif (error := task.exception()) is not None:
            self._outcome.set_exception(_brought(error))
        else:
            self._outcome.set_result(task.result())

    def _cancelled(self, outcome: Future[T]) -> None:
        if outcome.cancelled() and self._task is not None:
            with suppress(RuntimeError):  # the loop was closed, after all that ran on it had ended
                self.loop.call_soon_threadsafe(self._task.cancel)


class _Carried(Exception):  # noqa: N818 - never seen outside
    """Brings out of the loop what would end it."""

    def __init__(self, carried: BaseException) -> None:
        super().__init__()
        self.carried = carried


def _brought(error: BaseException) -> BaseException:
    return error.carried if isinstance(error, _Carried) else error


async def _carried(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        return await coroutine
    except (SystemExit, KeyboardInterrupt) as error:
        raise _Carried(error) from None


def _run_elsewhere(coroutine: Coroutine[Any, Any, T]) -> T:
    outcome: Future[T] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            context.run(_loop_waits.set, True)  # noqa: FBT003
            with asyncio.Runner() as runner:
                outcome.set_result(runner.run(_carried(coroutine), context=context))
        except _Carried as error:
            outcome.set_exception(error.carried)
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            outcome.set_exception(error)

    start_thread(work, "langswarm-blocking-nested")
    try:
        return outcome.result()
    finally:
        _take_over(context)


def _take_over(context: contextvars.Context) -> None:
    """Set for the caller what was set in the context."""
    for variable, value in context.items():
        if variable is _loop_waits:
            continue
        try:
            if variable.get() is value:
                continue
        except LookupError:
            pass
        variable.set(value)
