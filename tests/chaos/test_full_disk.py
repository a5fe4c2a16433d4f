"""A disk that is full, and then is not any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos.audit import Audit, audit
from chaos.disks import fill, small_disk
from chaos.matrix import Notes
from chaos.places import Place
from chaos.probe import check_errors
from chaos.processes import Writer
from chaos.scale import scaled
from chaos.server import Server
from langswarm_session import StorageFullError
from langswarm_session.testing.making import new_session, ref, user

pytestmark = pytest.mark.timeout(300)

TIMES = scaled(1, 10)
ALLOWED = {"StorageFullError": "full; free some space and try again"}


@pytest.fixture
def sqlite_disk() -> Iterator[tuple[Path, Place]]:
    """A small disk and a SQLite file on it."""
    with small_disk(8) as folder:
        yield folder, Place("sqlite", {"db_path": str(folder / "sessions.db")})


@pytest.fixture
def postgres_disk(server: Server) -> Iterator[tuple[Path, Place]]:
    """A small disk and a database of the server on it."""
    with small_disk(32) as folder:
        space = folder / "space"
        space.mkdir()
        server.lend(space)
        server.query(f"CREATE TABLESPACE small LOCATION '{space}'")
        server.query("CREATE DATABASE small TABLESPACE small")
        yield folder, Place("postgres", {"dsn": server.through(server.port, "small")})
        server.query("DROP DATABASE small WITH (FORCE)")
        server.query("DROP TABLESPACE small")


@pytest.fixture
def disk(backend: str, request: pytest.FixtureRequest) -> tuple[Path, Place]:
    """A small disk and a place on it."""
    found: tuple[Path, Place] = request.getfixturevalue(f"{backend}_disk")
    return found


async def test_a_full_disk(
    disk: tuple[Path, Place], start: Callable[..., Writer], note: Notes
) -> None:
    """What was acknowledged stays and can be read; there is space again, and all goes on."""
    folder, place = disk
    found, errors = Audit(), Counter[str]()
    for number in range(TIMES):
        writer = start(place, f"w{number}")
        writer.wait_for(kept=10)
        reader = place.open()
        session = next(each for each, turns in writer.ledger.kept.items() if turns)
        assert await reader.get_messages(ref(session))
        ballast = fill(folder)
        writer.wait_for_more(kept=0, errors=20)
        assert await reader.get_messages(ref(session))
        await reader.close()
        ballast.unlink()
        writer.wait_for_more(kept=20)
        writer.kill()
        errors += check_errors(writer.ledger.errors, writer.ledger.messages, ALLOWED)
        assert writer.ledger.errors["StorageFullError"] >= 5
        found += await audit(place, writer.ledger)
        storage = place.open()
        for name in writer.ledger.sessions:
            await storage.delete_session(ref(name))
        await storage.close()
    note("disk full", place.backend, TIMES, found, errors)


async def test_health_tells_of_a_full_disk(sqlite_disk: tuple[Path, Place]) -> None:
    """Once a write has met it, until there is space again."""
    folder, place = sqlite_disk
    storage = place.open()
    await storage.create_session(new_session("s"))
    assert (await storage.health()).ok
    ballast = fill(folder)
    with pytest.raises(StorageFullError):
        for _ in range(1_000):
            await storage.append(ref("s"), [user("x" * 1000)])
    for _ in range(2):
        health = await storage.health()
        assert (health.ok, "full" in (health.detail or "")) == (False, True)
    ballast.unlink()
    assert (await storage.health()).ok
    await storage.append(ref("s"), [user("after")])
    await storage.close()
