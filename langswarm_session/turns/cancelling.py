"""Ends the turn of a session on request, wherever it runs."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from langswarm_session.errors import SessionBusyError
from langswarm_session.turns.stopping import stop_turns
from langswarm_session.turns.watch import CANCELLED

if TYPE_CHECKING:
    from langswarm_session.records import SessionRecord
    from langswarm_session.turns.core import SessionCore

_PAUSE = 0.05
"""How long to wait between two looks whether another process has ended its turn, in seconds."""

_ANSWER_SECONDS = 30.0
"""How long to wait for a process that renews the lease of a turn that it was asked to end."""


async def cancel(core: SessionCore) -> bool:
    """End the turn of a session; see `BaseSession.cancel`."""
    core.check_open()
    turns = core.locks.keeper.turns_of(core.ref)
    if turns:
        await stop_turns(turns, CANCELLED)
        return True
    record = await core.storage.get_session(core.ref)
    if record.turn_token is None:
        return False
    await _cancel_elsewhere(core, record, record.turn_token)
    return True


async def _cancel_elsewhere(core: SessionCore, record: SessionRecord, token: str) -> None:
    """Ask the process that runs a turn to end it, and wait until it has."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    is_requested = False
    while record.turn_token == token:
        if await core.locks.late_ends.end_expired(record):
            return
        if not is_requested:
            is_requested = True
            await core.storage.request_cancel({token: core.ref})
        if time.monotonic() > deadline:
            raise SessionBusyError(
                f"the process that runs the turn has not ended it within {_ANSWER_SECONDS:g} s of "
                "being asked to; it will when it can",
                session_id=core.session_id,
            )
        await asyncio.sleep(_PAUSE)
        record = await core.storage.get_session(core.ref)
