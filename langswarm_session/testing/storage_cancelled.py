"""Conformance of a storage: a cancelled write is settled when its caller hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from langswarm_session.errors import SessionNotFoundError
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.records import Lease, SessionChanges, SessionRef
from langswarm_session.testing.making import (
    completed,
    everything,
    lease,
    new_session,
    ref,
    reply,
    user,
)
from langswarm_session.testing.storage_base import StorageTests
from langswarm_session.testing.storage_restore import archived, numbered
from langswarm_session.transfer.archive_writer import ArchiveWriter

_STEPS = range(12)
"""After how many turns of the event loop a write is cancelled."""

Write = Callable[[ISessionStorage, SessionRef, Lease], Coroutine[Any, Any, object]]


def _made(session: SessionRef) -> str:
    return f"{session.session_id}-new"


async def _edit(storage: ISessionStorage, session: SessionRef, _: Lease) -> None:
    record = await storage.get_session(session)
    await storage.edit_messages(
        session, expected_revision=record.revision, remove=[1], add=[user("more")]
    )


async def _restore(storage: ISessionStorage, session: SessionRef, _: Lease) -> None:
    log = numbered([user("a"), reply("b"), user("c"), reply("d")])
    with ArchiveWriter() as writer:
        await storage.restore_session(archived(writer, log, session_id=_made(session)))


_WRITES: dict[str, Write] = {
    "create_session": lambda storage, session, _: storage.create_session(
        new_session(_made(session))
    ),
    "update_session": lambda storage, session, _: storage.update_session(
        session, SessionChanges(model="another")
    ),
    "delete_session": lambda storage, session, _: storage.delete_session(session),
    "append": lambda storage, session, _: storage.append(session, [user("a"), reply("b")]),
    "append to a turn": lambda storage, session, held: storage.append(
        session, [reply("step")], token=held.token
    ),
    "begin_turn": lambda storage, session, _: storage.begin_turn(session, [user("q")], lease()),
    "end_turn": lambda storage, session, held: storage.end_turn(
        session, completed(held), [reply("answer")]
    ),
    "clear_messages": lambda storage, session, _: storage.clear_messages(session),
    "edit_messages": _edit,
    "fork_session": lambda storage, session, _: storage.fork_session(
        session, new_session(_made(session))
    ),
    "restore_session": _restore,
}
"""Every write; one that makes a session gives it the id of the first with ``-new`` behind it."""

_IN_A_TURN = ("append to a turn", "end_turn")


class CancelledTests(StorageTests):
    """Writes whose callers are cancelled."""

    @pytest.mark.parametrize("again", [False, True], ids=["once", "again and again"])
    @pytest.mark.parametrize("name", _WRITES)
    async def test_a_cancelled_write_is_settled(
        self, storage: ISessionStorage, tmp_path: Path, name: str, again: bool
    ) -> None:
        """It is done or not done when CancelledError is raised, and nothing lands later."""
        seen = {}
        for steps in _STEPS:
            session_id, held = f"s{steps}", lease()
            session = await _prepare(storage, session_id, held if name in _IN_A_TURN else None)
            await storage.create_session(new_session(f"busy{steps}"))
            # Others write meanwhile, so that it has to wait in a queue in some of the cases.
            busy = [
                asyncio.ensure_future(storage.append(ref(f"busy{steps}"), [user("x" * 200)]))
                for _ in range(3)
            ]
            await _cancel_after(steps, _WRITES[name](storage, session, held), again=again)
            seen[session_id] = await _all_of(storage, session_id)
            await asyncio.gather(*busy)
        if not self.durable:
            assert {each: await _all_of(storage, each) for each in seen} == seen
            return
        await storage.close()  # which finishes whatever was accepted
        later = self.reopen(tmp_path)
        try:
            assert {each: await _all_of(later, each) for each in seen} == seen
        finally:
            await later.close()


async def _prepare(storage: ISessionStorage, session_id: str, held: Lease | None) -> SessionRef:
    session = (await storage.create_session(new_session(session_id))).ref
    await storage.append(session, [user("first"), reply("second")])
    if held is not None:
        await storage.begin_turn(session, [user("asked")], held)
    return session


async def _all_of(storage: ISessionStorage, session_id: str) -> list[object]:
    """All that there is of a session and of the one that a write makes from it."""
    found: list[object] = []
    for each in (session_id, f"{session_id}-new"):
        try:
            found.append(await everything(storage, each))
        except SessionNotFoundError:
            found.append(None)
    return found


async def _cancel_after(steps: int, call: Coroutine[Any, Any, object], *, again: bool) -> None:
    """Begin a call, cancel it after some turns of the event loop, and wait until it has ended.

    Args:
        steps: How many turns.
        call: The call.
        again: Whether it is cancelled again at each turn from then on, as by an anyio scope.
    """
    task = asyncio.ensure_future(call)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    while again and not task.done():
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
