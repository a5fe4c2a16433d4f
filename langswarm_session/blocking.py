"""The one bridge for callers that cannot await.

One background thread runs one event loop for the whole process; a sync caller hands it a coroutine
and waits. It works from any thread, inside a running event loop as well (which then waits like the
rest of its thread), and never nests loops.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


_loop_waits: contextvars.ContextVar[bool] = contextvars.ContextVar("_loop_waits", default=False)
"""Whether the background loop is waiting for whatever runs in this context."""


class _Background:
    """A daemon thread with a running event loop, started when first needed."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin without a thread, as a forked child does."""
        # Reentrant, as the garbage collector may start something while it is held.
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.thread: threading.Thread | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self.thread = threading.Thread(
                    target=self._loop.run_forever, name="langswarm-blocking", daemon=True
                )
                self.thread.start()
            return self._loop


_background = _Background()
os.register_at_fork(after_in_child=_background.forget)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end and return what it returns, from sync code.

    Context variables are those of the caller, and what the coroutine sets is set for the caller
    afterwards, as if it had been awaited. Interrupting the wait cancels the coroutine.

    Args:
        coroutine: What to run.

    Raises:
        BaseException: Whatever the coroutine raises.
    """
    if threading.current_thread() is _background.thread or _loop_waits.get():
        # Sync code that a middleware or hook calls on the background loop: that loop is waiting
        # for it and cannot run anything, so this once another does.
        return _run_elsewhere(coroutine)
    context = contextvars.copy_context()
    task = start(coroutine, context)
    try:
        return task.result()
    except BaseException:
        # Only an interrupt (KeyboardInterrupt, SystemExit) leaves it running.
        task.cancel()
        raise
    finally:
        _take_over(context)


def start(
    coroutine: Coroutine[Any, Any, T], context: contextvars.Context | None = None
) -> Future[T]:
    """Start a coroutine on the background loop without waiting for it.

    Args:
        coroutine: What to run.
        context: The context to run it in; a copy of the caller's when None.

    Returns:
        A future of its outcome; cancelling that cancels the coroutine.
    """
    loop = _background.loop()
    outcome: Future[T] = Future()
    context = contextvars.copy_context() if context is None else context
    tasks: list[asyncio.Task[T]] = []

    def begin() -> None:
        if outcome.cancelled():
            coroutine.close()
            return
        task = loop.create_task(_carried(coroutine), context=context)
        tasks.append(task)
        task.add_done_callback(finish)

    def finish(task: asyncio.Task[T]) -> None:
        coroutine.close()  # if it was cancelled before it began
        if outcome.cancelled():
            return
        if task.cancelled():
            outcome.cancel()
        elif (error := task.exception()) is not None:
            outcome.set_exception(error.carried if isinstance(error, _Carried) else error)
        else:
            outcome.set_result(task.result())

    def cancel(done: Future[T]) -> None:
        if done.cancelled() and tasks:
            loop.call_soon_threadsafe(tasks[0].cancel)

    outcome.add_done_callback(cancel)
    loop.call_soon_threadsafe(begin)
    return outcome


class _Carried(Exception):  # noqa: N818 - never seen outside
    """Brings out of the loop what would end it."""

    def __init__(self, carried: BaseException) -> None:
        super().__init__()
        self.carried = carried


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

    thread = threading.Thread(target=work, name="langswarm-blocking-nested", daemon=True)
    thread.start()
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
