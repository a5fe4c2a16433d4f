"""Ends turns on request: one that is running somewhere, or all of a manager's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from langswarm_session import blocking
from langswarm_session.endings import Stop
from langswarm_session.errors import SessionBusyError
from langswarm_session.turn_watch import CANCELLED

if TYPE_CHECKING:
    from langswarm_session.runtime import Runtime
    from langswarm_session.session import BaseSession
    from langswarm_session.turns import OpenTurn

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
    turn = runtime.keeper.turn_of(ref)
    if turn is not None:
        await turn.stop(CANCELLED)
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
    await asyncio.gather(*(turn.stop(CLOSED) for turn in runtime.keeper.turns()))


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


def stop_at_exit(turns: Mapping[str, OpenTurn]) -> None:
    """End turns that are open as the interpreter exits, while the storages are not closed yet.

    Args:
        turns: A manager's open turns, by token.
    """
    left = [turn for turn in list(turns.values()) if turn.is_ours]
    if left:

        async def stop() -> None:
            async with asyncio.timeout(_EXIT_SECONDS):
                await asyncio.gather(*(turn.stop(EXIT) for turn in left))

        blocking.run(stop())
