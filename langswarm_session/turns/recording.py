"""Storing messages that were made elsewhere, as one complete turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langswarm_session.models import SessionMessage
from langswarm_session.records import Appended
from langswarm_session.turns.current import open_turn
from langswarm_session.turns.inputs import key_of

if TYPE_CHECKING:
    from langswarm_session.turns.core import SessionCore


async def record(
    core: SessionCore,
    messages: list[SessionMessage],
    *,
    idempotency_key: str | None = None,
    expected_revision: int | None = None,
    wait: float | None,
) -> list[SessionMessage]:
    """Store messages; see `BaseSession.record`."""
    core.check_open()
    if not messages:
        return []
    turn = open_turn(core.ref, core.storage)
    if turn is not None and idempotency_key is None and expected_revision is None:
        return await turn.add(messages)
    key = key_of(idempotency_key, messages)
    processed = await core.process_first(messages)

    async def append() -> Appended:
        appended = await core.storage.append(
            core.ref, processed, expected_revision=expected_revision, key=key
        )
        core.moved(appended.record)
        return appended

    appended = await core.locks.alone(core.ref, append, wait)
    await core.stored(appended.new_messages)
    return appended.messages
