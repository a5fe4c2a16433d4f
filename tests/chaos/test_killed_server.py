"""PostgreSQL itself, killed and stopped in the middle of commits."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from chaos.audit import Audit, audit
from chaos.matrix import Notes
from chaos.places import Place
from chaos.probe import check_errors, refused
from chaos.processes import Writer, all_said, any_moment
from chaos.scale import scaled
from chaos.server import Server, kill_process
from langswarm_session import StorageUnavailableError

pytestmark = pytest.mark.timeout(1200)

WRITERS = 2
ALLOWED = {
    # Where nobody can know what became of a commit, the error says so.
    "StorageUnavailableError": "reached|connection broke|may be stored|shutting down",
    "StorageBusyError": "try again",
}


@pytest.fixture
def running(server: Server) -> Iterator[Server]:
    """The server, which is up again afterwards."""
    yield server
    if not server.is_running:
        server.start()


async def disturb(
    place: Place,
    start: Callable[..., Writer],
    kills: int,
    at_once: int,
    disturb: Callable[[], None],
) -> tuple[Audit, Counter[str]]:
    """Do something to the server while it is written to, again and again.

    Args:
        kills: How often.
        at_once: How often until all is looked at, and other writers go on.
        disturb: What to do; the server is up again afterwards.
    """
    total, errors = Audit(), Counter[str]()
    for first in range(0, kills, at_once):
        writers = [start(place, f"w{first}.{number}") for number in range(WRITERS)]
        for _ in range(min(at_once, kills - first)):
            for writer in writers:
                writer.wait_for_more(random.randrange(1, 40))
            any_moment()
            disturb()
        for writer in writers:
            writer.wait_for_more(1)  # they go on by themselves
            writer.kill()
        ledger = all_said(writers)
        total += await audit(place, ledger)
        errors += check_errors(ledger.errors, ledger.messages, ALLOWED)
    return total, errors


async def test_a_server_that_is_killed(
    postgres_place: Place, start: Callable[..., Writer], note: Notes, running: Server
) -> None:
    def kill() -> None:
        running.kill()
        running.start()

    kills = scaled(2, 100)
    found, errors = await disturb(postgres_place, start, kills, scaled(2, 10), kill)
    note("kill -9 of the server", "postgres", kills, found, errors)


async def test_one_of_the_servers_processes_that_is_killed(
    postgres_place: Place, start: Callable[..., Writer], note: Notes, running: Server
) -> None:
    """The server then ends all the others, recovers, and goes on by itself."""

    def kill() -> None:
        serving = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
        pids = [pid for (pid,) in running.query(f"{serving} AND pid <> pg_backend_pid()")]
        kill_process(random.choice(pids))
        running.wait()

    kills = scaled(2, 30)
    found, errors = await disturb(postgres_place, start, kills, scaled(2, 10), kill)
    note("kill -9 of a server process", "postgres", kills, found, errors)


async def test_a_server_that_is_stopped_at_once(
    postgres_place: Place, start: Callable[..., Writer], note: Notes, running: Server
) -> None:
    def restart() -> None:
        running.stop("immediate")
        running.start()

    stops = scaled(1, 20)
    found, errors = await disturb(postgres_place, start, stops, scaled(1, 10), restart)
    note("stop -m immediate", "postgres", stops, found, errors)


async def test_a_server_that_stays_away_is_told_of(
    postgres_place: Place, start: Callable[..., Writer], note: Notes, running: Server
) -> None:
    """Calls fail in time and say why; when it is back, the same storages go on."""
    impatient = postgres_place.with_options(connect_timeout=0.3, timeout=1.0)
    found, errors, outages = Audit(), Counter[str](), scaled(1, 5)
    for number in range(outages):
        writer = start(impatient, f"w{number}")
        writer.wait_for(kept=5)
        running.kill()
        writer.wait_for_more(kept=0, errors=10)
        errors += await refused(impatient, StorageUnavailableError, "cannot be reached|refused")
        running.start()
        writer.wait_for_more(kept=20)
        writer.kill()
        errors += check_errors(writer.ledger.errors, writer.ledger.messages, ALLOWED)
        assert writer.ledger.errors["StorageUnavailableError"] >= 1
        found += await audit(postgres_place, writer.ledger)
    note("server away", "postgres", outages, found, errors)
