"""kill -9 of processes that write, several at once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from chaos.audit import audit
from chaos.matrix import Notes
from chaos.places import Place
from chaos.processes import Writer, all_said
from chaos.scale import scaled

KILLS = scaled(4, 100)
AT_ONCE = 3


@pytest.mark.timeout(900)
async def test_what_killed_writers_were_told_is_there(
    place: Place, start: Callable[..., Writer], note: Notes
) -> None:
    alive = [start(place, f"w{number}") for number in range(AT_ONCE)]
    for victim in alive:
        victim.wait_for(kept=1)
    dead: list[Writer] = []
    leases = 0
    for number in range(KILLS):
        victim = alive.pop(random.randrange(AT_ONCE))
        victim.wait_for_more(random.randrange(30))
        victim.kill()
        dead.append(victim)
        alive.append(start(place, f"w{AT_ONCE + number}"))
        # Its sessions are free at once, while others write.
        found = await audit(place, victim.ledger)
        assert found.findings == []
        leases += found.leases
    for writer in alive:
        writer.wait_for(kept=1)
        writer.kill()
    ledger = all_said([*dead, *alive])
    found = await audit(place, ledger)
    found.leases += leases
    note("kill -9 of writers", place.backend, KILLS + AT_ONCE, found, Counter())
