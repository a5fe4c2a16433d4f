"""Blocks that end when somebody ends the turn they work for."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langswarm_session.turns.turn import OpenTurn


class Interruptible:
    """A block of a coroutine in which a turn's answer is made.

    When the turn is ended from outside, the task that runs the block is cancelled, and the block
    raises the turn's error in place of that cancellation: as with `asyncio.timeout`, a task that
    nobody else cancelled does not see a CancelledError.

    Args:
        turn: The turn.
    """

    __slots__ = ("_before", "_is_hit", "_loop", "_task", "_turn")

    def __init__(self, turn: OpenTurn) -> None:
        self._turn = turn
        self._task: asyncio.Task[object] | None = None
        self._is_hit = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "it runs in a coroutine"
        self._task, self._loop, self._before = task, task.get_loop(), task.cancelling()
        self._turn._blocks.append(self)
        if self._turn.is_stopped:
            self._turn._blocks.remove(self)
            self._turn.check()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        self._turn._blocks.remove(self)
        if (
            self._is_hit
            and task is not None
            and task.uncancel() <= self._before
            and isinstance(error, asyncio.CancelledError)
        ):
            raise self._turn.stopped_error() from error

    def interrupt(self) -> bool:
        """Cancel the block, from any thread; whether its event loop runs."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._cancel)
            return self._loop.is_running()
        return False

    def _cancel(self) -> None:
        if self._task is not None and not self._is_hit:
            self._is_hit = True
            self._task.cancel()
