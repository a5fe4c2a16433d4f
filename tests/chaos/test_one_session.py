"""Sixteen processes on one session, some of which are killed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from chaos.audit import audit
from chaos.matrix import Notes
from chaos.places import Place
from chaos.processes import Writer, all_said
from chaos.scale import scaled
from langswarm_session import TurnStatus
from langswarm_session.storage.rules import LOST_OWNER
from langswarm_session.testing.making import ref

PROCESSES, VICTIMS, APPENDING = 16, 4, 4
TURNS = scaled(3, 40)


@pytest.mark.timeout(600)
async def test_sixteen_processes_take_turns_in_one_session(
    place: Place, start: Callable[..., Writer], note: Notes
) -> None:
    """Each waits for its turn; the turns of those that die are taken over at once."""
    # Their leases hold for an hour: nobody waits for the end of one.
    writers = [
        start(
            place,
            f"w{number}",
            ["send" if number % 2 else "stream"],
            shared="shared",
            turns=None if number < VICTIMS else TURNS,
            lease_seconds=3600.0,
            turn_wait=120.0,
            delay=0.05 if number < VICTIMS else 0.0,
            gate=True,
        )
        for number in range(PROCESSES)
    ]
    for writer in writers:
        writer.wait_for("ready")
    for writer in writers:
        writer.go()
    victims, others = writers[:VICTIMS], writers[VICTIMS:]
    for victim in victims:
        victim.wait_for_more(random.randrange(1, 3))
        victim.wait_until_inside()
        victim.kill(at_once=True)
    for writer in others:
        writer.end()
        assert writer.ledger.acknowledged == TURNS
    ledger = all_said(writers)
    assert not ledger.errors
    found = await audit(place, ledger)
    found.leases += await taken_over(place)
    assert found.leases > 0
    note(f"{PROCESSES} processes on one session", place.backend, 1, found, ledger.errors)


async def test_processes_append_to_one_session_at_once(
    place: Place, start: Callable[..., Writer], note: Notes
) -> None:
    """Nobody waits for anybody, as each append is a turn of its own."""
    writers = [
        start(place, f"w{number}", ["append"], shared="shared", turns=10 * TURNS, gate=True)
        for number in range(APPENDING)
    ]
    for writer in writers:
        writer.wait_for("ready")
    for writer in writers:
        writer.go()
    for writer in writers:
        writer.end()
    ledger = all_said(writers)
    assert not ledger.errors
    assert ledger.acknowledged == 10 * TURNS * APPENDING
    found = await audit(place, ledger)
    note(f"{APPENDING} processes append to one session", place.backend, 1, found, ledger.errors)


async def taken_over(place: Place) -> int:
    """How many turns were ended for a process that had died."""
    storage = place.open()
    turns = await storage.get_turns(ref("shared"), limit=1_000_000)
    await storage.close()
    ended = [turn for turn in turns if turn.status is not TurnStatus.COMPLETE]
    assert all(turn.error == LOST_OWNER for turn in ended)
    return len(ended)
