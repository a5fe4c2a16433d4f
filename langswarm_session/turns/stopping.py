"""Ends turns on request: one that is running somewhere, or all of a manager's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from langswarm_session._sync import bridge
from langswarm_session.errors import SessionBusyError
from langswarm_session.turns.endings import Stop
from langswarm_session.turns.watch import CANCELLED

if TYPE_CHECKING:
    from langswarm_session.session import BaseSession
    from langswarm_session.turns.leases import LeaseKeeper
    from langswarm_session.turns.locks import Runtime
    from langswarm_session.turns.turn import OpenTurn

logger = logging.getLogger(__name__)

CLOSED = Stop("its manager was closed")
EXIT = Stop("the program ended")

_PAUSE = 0.05
"""How long to wait between two looks whether another process has ended its turn, in seconds."""

_ANSWER_SECONDS = 30.0
"""How long to wait for a process that renews the lease of a turn that it was asked to end."""

_BEGIN_PAUSE = 0.005
_BEGIN_SECONDS = 5.0
"""How long a manager that is closed waits for turns that are just beginning."""

_EXIT_SECONDS = 10.0
"""How long turns that are open at the interpreter's exit may take to end."""


async def cancel(session: BaseSession) -> bool:
    """End the turn of a session, wherever it runs; see `BaseSession.cancel`."""
    runtime, ref = session._runtime, session.ref
    turns = runtime.keeper.turns_of(ref)
    if turns:
        await _stop(turns, CANCELLED)
        return True
    record = await runtime.storage.get_session(ref)
    token = record.turn_token
    if token is None:
        return False
    deadline = time.monotonic() + _ANSWER_SECONDS
    is_asked = False
    while record.turn_token == token:
        if await runtime.end_left_behind(record):
            break
        if not is_asked:
            is_asked = True
            await runtime.storage.request_cancel({token: ref})
        if time.monotonic() > deadline:
            raise SessionBusyError(
                f"the process that runs the turn has not ended it within {_ANSWER_SECONDS:g} s of "
                "being asked to; it will when it can",
                session_id=ref.session_id,
            )
        await asyncio.sleep(_PAUSE)
        record = await runtime.storage.get_session(ref)
    return True


async def stop_all(runtime: Runtime) -> None:
    """End the turns of a manager that is closed; new ones begin no more."""
    deadline = time.monotonic() + _BEGIN_SECONDS
    while runtime.beginning and time.monotonic() < deadline:  # noqa: ASYNC110 - of any thread
        await asyncio.sleep(_BEGIN_PAUSE)
    await _stop(runtime.keeper.turns(), CLOSED)


async def finish_all(runtime: Runtime, seconds: float) -> None:
    """Wait until the turns of a manager have ended.

    Args:
        runtime: The manager's.
        seconds: How long to wait at most.
    """
    deadline = time.monotonic() + seconds
    while (turns := runtime.keeper.turns()) or runtime.beginning:
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
                    await _stop(left, EXIT)

        bridge.run(stop())


async def _stop(turns: Iterable[OpenTurn], stop: Stop) -> None:
    """End turns; one that cannot be ended keeps none of the others open."""
    outcomes = await asyncio.gather(*(turn.stop(stop) for turn in turns), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            logger.warning("a turn could not be ended", exc_info=outcome)
