"""How a turn ends before its reply is complete, whatever happens to the task that ends it.

A cancelled task may be cancelled again at each of its awaits: a cancel scope of anyio does so until
the task has left it (https://anyio.readthedocs.io/en/stable/cancellation.html, "Differences between
asyncio and AnyIO cancellation semantics"), and with it every ``StreamingResponse`` of Starlette
whose client went away. So the last step of a turn is a task of its own.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TypeVar

from langswarm_session.errors import SessionError, TurnCancelledError

logger = logging.getLogger(__name__)

T = TypeVar("T")

PARTIAL_SECONDS = 3.0
"""How long the middleware may take over what there is of a reply when a turn ends early."""

SETTLE_SECONDS = 5.0
"""How long a task that is cancelled while it waits for a step goes on waiting."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a turn was ended by somebody other than its reader.

    Attributes:
        reason: The reason, as it is stored with the turn.
        kind: The error that the turn's reader gets.
    """

    reason: str
    kind: type[SessionError] = TurnCancelledError

    def error(self, session_id: str) -> SessionError:
        """The error for the reader."""
        return self.kind(
            f"the turn was ended: {self.reason}; what there was of the reply is kept",
            session_id=session_id,
        )


async def settled(step: asyncio.Future[T]) -> T:
    """Wait for a step that no cancellation of the caller reaches.

    A cancellation is raised once the step is done, or goes on without the caller after
    `SETTLE_SECONDS`.

    Args:
        step: A task or future that only this function waits for.

    Raises:
        asyncio.CancelledError: If the caller was cancelled meanwhile.
        BaseException: Whatever the step raises, if the caller was not.
    """
    loop = asyncio.get_running_loop()
    cancelled: asyncio.CancelledError | None = None
    deadline: float | None = None
    while not step.done():
        left = None if deadline is None else deadline - loop.time()
        if left is not None and left <= 0:
            step.add_done_callback(_note)
            break
        try:
            await asyncio.wait([step], timeout=left)
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
            deadline = deadline or loop.time() + SETTLE_SECONDS
    if cancelled is not None:
        if step.done():
            _note(step)
        raise cancelled
    return step.result()


def _note(step: asyncio.Future[T]) -> None:
    """Note what a step raised whose caller is not there to get it."""
    if not step.cancelled() and (error := step.exception()) is not None:
        logger.warning("the end of a turn failed", exc_info=error)
