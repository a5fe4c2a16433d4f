"""Blocks that end when somebody ends the turn they work for."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langswarm_session.errors import SessionError
    from langswarm_session.turns.endings import Stop


class StoppableTurn:
    """A turn that may be ended from outside, which interrupts the work on its answer.

    Args:
        session_id: The session's id.

    Attributes:
        session_id: The session's id.
        stopped_by: Why it was ended from outside, or is about to be; None if it was not.
        blocks: The blocks in which its answer is made.
    """

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.stopped_by: Stop | None = None
        self.blocks: list[Interruptible] = []

    @property
    def is_stopped(self) -> bool:
        """Whether it was ended from outside, or is about to be."""
        return self.stopped_by is not None

    def answering(self) -> Interruptible:
        """Return a block of a coroutine in which the answer is made.

        Use it as ``with turn.answering(): await ...``. If the turn is ended from outside the block
        is cancelled, and raises why.

        Raises:
            TurnCancelledError: If somebody cancelled the turn.
            TurnLostError: If it was ended as its event loop did not run any more.
        """
        return Interruptible(self)

    def check(self, cause: BaseException | None = None) -> None:
        """Raise if the turn was ended from outside: for code that cannot be interrupted.

        Args:
            cause: The error to name as the cause.

        Raises:
            TurnCancelledError, TurnLostError: As in `answering`.
        """
        if self.stopped_by is not None:
            raise self.stopped_error() from cause

    def stopped_error(self) -> SessionError:
        """Return the error of a turn that was ended from outside."""
        assert self.stopped_by is not None, "it was ended from outside"
        return self.stopped_by.error(self.session_id)

    def interrupt(self) -> bool:
        """Cancel the blocks in which the answer is made.

        Returns:
            Whether the event loop of any of them runs.
        """
        interrupted = [block.interrupt() for block in list(self.blocks)]
        return any(interrupted)


class Interruptible:
    """A block of a coroutine in which a turn's answer is made.

    When the turn is ended from outside, the task that runs the block is cancelled, and the block
    raises the turn's error in place of that cancellation: as with `asyncio.timeout`, a task that
    nobody else cancelled does not see a CancelledError.

    Args:
        turn: The turn.
    """

    __slots__ = ("_before", "_is_hit", "_loop", "_task", "_turn")

    def __init__(self, turn: StoppableTurn) -> None:
        self._turn = turn
        self._task: asyncio.Task[object] | None = None
        self._is_hit = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "it runs in a coroutine"
        self._task, self._loop, self._before = task, task.get_loop(), task.cancelling()
        self._turn.blocks.append(self)
        if self._turn.is_stopped:
            self._turn.blocks.remove(self)
            self._turn.check()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        self._turn.blocks.remove(self)
        if (
            self._is_hit
            and task is not None
            and task.uncancel() <= self._before
            and isinstance(error, asyncio.CancelledError)
        ):
            raise self._turn.stopped_error() from error

    def interrupt(self) -> bool:
        """Cancel the block, from any thread.

        Returns:
            Whether its event loop runs.
        """
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._cancel)
            return self._loop.is_running()
        return False

    def _cancel(self) -> None:
        if self._task is not None and not self._is_hit:
            self._is_hit = True
            self._task.cancel()
