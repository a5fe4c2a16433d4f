"""Ends all turns of a manager: as it is closed, or as the program ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from langswarm_session._sync import bridge
from langswarm_session.turns.endings import Stop

if TYPE_CHECKING:
    from langswarm_session.turns.current import RunningTurn
    from langswarm_session.turns.leases import LeaseKeeper

logger = logging.getLogger(__name__)

CLOSED = Stop("its manager was closed")
EXIT = Stop("the program ended")

_BEGIN_PAUSE = 0.005
_BEGIN_SECONDS = 5.0
"""How long a manager that is closed waits for turns that are just beginning."""

_EXIT_SECONDS = 10.0
"""How long turns that are open at the interpreter's exit may take to end."""


async def stop_all(keeper: LeaseKeeper, beginning: Collection[str]) -> None:
    """End the turns of a manager that is closed.

    Args:
        keeper: Knows the open turns.
        beginning: The tokens of those that are about to begin.
    """
    deadline = time.monotonic() + _BEGIN_SECONDS
    while beginning and time.monotonic() < deadline:  # noqa: ASYNC110 - of any thread
        await asyncio.sleep(_BEGIN_PAUSE)
    await stop_turns(keeper.turns(), CLOSED)


async def finish_all(keeper: LeaseKeeper, beginning: Collection[str], seconds: float) -> None:
    """Wait until the turns of a manager have ended.

    Args:
        keeper: Knows the open turns.
        beginning: The tokens of those that are about to begin.
        seconds: How long to wait at most.
    """
    deadline = time.monotonic() + seconds
    while (turns := keeper.turns()) or beginning:
        left = deadline - time.monotonic()
        if left <= 0:
            return
        if turns:
            await asyncio.gather(*(turn.closed(left) for turn in turns))
        else:
            await asyncio.sleep(_BEGIN_PAUSE)


def stop_at_exit(keeper: LeaseKeeper) -> None:
    """End turns that are open as the interpreter exits, while the storages are not closed yet.

    Args:
        keeper: Knows the open turns of a manager.
    """
    left = keeper.turns()
    if left:

        async def stop() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EXIT_SECONDS):
                    await stop_turns(left, EXIT)

        bridge.run(stop())


async def stop_turns(turns: Iterable[RunningTurn], stop: Stop) -> None:
    """End turns; one that cannot be ended keeps none of the others open."""
    outcomes = await asyncio.gather(*(turn.stop(stop) for turn in turns), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            logger.warning("a turn could not be ended", exc_info=outcome)
