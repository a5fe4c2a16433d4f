"""A clock that jumps by an hour, backwards and forwards, several times a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from chaos.audit import audit
from chaos.matrix import Notes
from chaos.places import Place
from chaos.probe import check_errors
from chaos.processes import Writer, all_said
from chaos.scale import scaled
from chaos.server import Server
from langswarm_session import SessionStatus
from langswarm_session.records import SessionRecord
from langswarm_session.testing.making import ref

pytestmark = pytest.mark.timeout(300)

HOUR = 3600.0
TURNS = scaled(40, 1000)


async def test_a_clock_that_jumps(place: Place, start: Callable[..., Writer], note: Notes) -> None:
    """Logs stay in order, ids stay unique, leases end, and each session is listed once."""
    own = [start(place, f"w{number}", turns=TURNS, clock=HOUR) for number in range(2)]
    shared = [
        start(
            place, f"s{number}", ["send", "stream"], turns=TURNS // 4, shared="shared", clock=HOUR
        )
        for number in range(2)
    ]
    for writer in own:
        writer.end()
        # Whoever has a session to itself never hears of it.
        assert not writer.ledger.errors
    for writer in shared:
        writer.end()
    ledger = all_said([*own, *shared])
    # A lease that an early clock has ended may be taken over from a living process.
    lost = {"TurnLostError": "taken over|changed hands", "SessionBusyError": "wait"}
    errors = check_errors(ledger.errors, ledger.messages, lost)
    found = await audit(place, ledger)
    assert await jumped(place, ledger.sessions)
    listed = await pages(place)
    assert sorted(record.session_id for record in listed) == ledger.sessions
    assert all(one.last_activity >= other.last_activity for one, other in pairwise(listed))
    assert all(record.last_activity >= record.created_at for record in listed)
    note("clock jumps by an hour", place.backend, 4, found, errors)


FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


@pytest.fixture
def clock(server: Server) -> Iterator[Path]:
    """A file of seconds that the server's clock is off by; the server runs by it for a while."""
    if not FAKETIME:
        pytest.skip("the server's clock cannot be moved: install libfaketime (Debian's package)")
    file = server.folder / "clock"
    file.write_text("+0")
    file.chmod(0o644)
    server.stop("fast")
    server.start(
        LD_PRELOAD=str(FAKETIME[0]),
        FAKETIME_TIMESTAMP_FILE=str(file),
        FAKETIME_NO_CACHE="1",
        DONT_FAKE_MONOTONIC="1",
    )
    yield file
    server.stop("fast")
    server.start()


async def test_a_servers_clock_that_jumps(
    clock: Path, server: Server, postgres_place: Place, start: Callable[..., Writer], note: Notes
) -> None:
    """Leases end by the clock of the server alone, which all machines share."""
    jumps = scaled(6, 300)
    own = [start(postgres_place, f"w{number}") for number in range(2)]
    shared = [
        start(postgres_place, f"s{number}", ["send", "stream"], shared="shared")
        for number in range(2)
    ]
    seen = set()
    for number in range(jumps):
        for writer in (*own, *shared):
            writer.wait_for_more(1)
        clock.write_text(("-3600", "+0", "+3600")[number % 3])
        [(now,)] = server.query("SELECT round(extract(epoch FROM clock_timestamp()) / 3600)")
        seen.add(int(now))
    assert len(seen) >= 3
    clock.write_text("+0")
    for writer in (*own, *shared):
        writer.wait_for_more(1)
        writer.kill()
    ledger = all_said([*own, *shared])
    assert not any(writer.ledger.errors for writer in own)
    lost = {"TurnLostError": "taken over|changed hands"}
    errors = check_errors(ledger.errors, ledger.messages, lost)
    found = await audit(postgres_place, ledger)
    note("the server's clock jumps by an hour", "postgres", jumps, found, errors)


async def pages(place: Place) -> list[SessionRecord]:
    """All sessions, from pages of two."""
    storage = place.open()
    page = await storage.list_sessions(status=SessionStatus.ACTIVE, limit=2)
    records = page.records
    while page.next_cursor is not None:
        page = await storage.list_sessions(
            status=SessionStatus.ACTIVE, limit=2, cursor=page.next_cursor
        )
        records = [*records, *page.records]
    await storage.close()
    return records


async def jumped(place: Place, sessions: list[str]) -> bool:
    """Whether the clock did jump: ids begin with the time."""
    storage = place.open()
    logs = [[each.id for each in await storage.get_messages(ref(name))] for name in sessions]
    await storage.close()
    every = [each for ids in logs for each in ids]
    assert len(set(every)) == len(every)
    return any(ids != sorted(ids) for ids in logs)
