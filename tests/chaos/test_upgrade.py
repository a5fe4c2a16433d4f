"""Several processes that make or upgrade one database at once, and some that die of it."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chaos.audit import audit
from chaos.matrix import Notes
from chaos.places import Place
from chaos.probe import refused
from chaos.processes import Writer, all_said
from chaos.scale import FULL, scaled
from langswarm_session import StorageVersionError
from langswarm_session.storage.sqlite import schema as sqlite_schema

pytestmark = pytest.mark.timeout(300)

SLOW = {
    "sqlite": "CREATE TABLE slow AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
    "WHERE i < 2000000) SELECT sum(i) AS total FROM n",
    "postgres": "SELECT pg_sleep(0.5)",
}
"""Takes half a second or so."""
TABLE = {"sqlite": "sessions", "postgres": "{sessions}"}


def migrations(backend: str) -> list[str]:
    """A further version of the schema: whoever is upgraded twice is seen to be."""
    table = TABLE[backend]
    return [
        f"ALTER TABLE {table} ADD COLUMN upgrades bigint NOT NULL DEFAULT 0",
        SLOW[backend],
        f"UPDATE {table} SET upgrades = upgrades + 1",
    ]


def schemas() -> list[Any]:
    """The modules that have the migrations."""
    try:
        from langswarm_session.storage.postgres import schema as postgres_schema
    except ImportError:
        return [sqlite_schema]
    return [sqlite_schema, postgres_schema]


@pytest.fixture
def newer(backend: str) -> Iterator[Callable[[], None]]:
    """Makes this process know of the further version, until the end of the test."""
    added: list[Any] = []

    def upgrade() -> None:
        for module in schemas():
            module.MIGRATIONS.append(migrations(backend))
            added.append(module.MIGRATIONS)

    yield upgrade
    for known in added:
        known.pop()


async def upgrades(place: Place, sessions: list[str]) -> set[int]:
    """How often the rows that were there before were upgraded."""
    if place.backend == "sqlite":
        import sqlite3

        connection = sqlite3.connect(place.config["db_path"])
        rows = connection.execute("SELECT session_id, upgrades FROM sessions").fetchall()
        connection.close()
    else:
        import asyncpg

        connection = await asyncpg.connect(place.config["dsn"])
        table = f"{place.config['schema']}.langswarm_sessions"
        rows = await connection.fetch(f"SELECT session_id, upgrades FROM {table}")
        await connection.close()
    return {count for session, count in rows if session in sessions}


@pytest.mark.parametrize("processes", [2, 10] if FULL else [2])
async def test_processes_that_upgrade_at_once(
    place: Place,
    start: Callable[..., Writer],
    note: Notes,
    newer: Callable[[], None],
    processes: int,
) -> None:
    """It is done once; what was there is there; an older process is told."""
    before = start(place, "before", turns=5)
    before.end()
    told = {"migrations": migrations(place.backend), "gate": True, "turns": 3}
    writers = [
        start(place, f"w{number}", ["append", "send"], **told) for number in range(processes)
    ]
    for writer in writers:
        writer.wait_for("ready")
    for writer in writers:
        writer.go()
    for writer in writers:
        writer.end()
    ledger = all_said([before, *writers])
    assert not ledger.errors
    errors = await refused(place, StorageVersionError, "upgrade the package")
    newer()
    found = await audit(place, ledger)
    assert await upgrades(place, before.ledger.sessions) == {1}
    note(f"{processes} processes upgrade at once", place.backend, 1, found, errors)


async def test_processes_that_make_a_database_at_once(
    place: Place, start: Callable[..., Writer], note: Notes
) -> None:
    processes = scaled(4, 10)
    writers = [
        start(place, f"w{number}", ["append"], gate=True, turns=3) for number in range(processes)
    ]
    for writer in writers:
        writer.wait_for("ready")
    for writer in writers:
        writer.go()
    for writer in writers:
        writer.end()
    ledger = all_said(writers)
    assert not ledger.errors
    found = await audit(place, ledger)
    note(f"{processes} processes begin at once", place.backend, 1, found, Counter())


async def test_processes_that_are_killed_while_they_upgrade(
    place: Place, start: Callable[..., Writer], note: Notes, newer: Callable[[], None]
) -> None:
    """The next one does it as if nobody had tried."""
    before = start(place, "before", turns=5)
    before.end()
    told = {"migrations": migrations(place.backend), "gate": True}
    kills = scaled(3, 30)
    victims = [start(place, f"victim{number}", ["append"], **told) for number in range(kills)]
    for victim in victims:
        victim.wait_for("ready")
        victim.go()
        time.sleep(random.uniform(0, 0.3))  # noqa: ASYNC251
        victim.kill()
    last = start(place, "last", ["append"], turns=3, **told)
    last.go()
    last.end()
    newer()
    found = await audit(place, all_said([before, *victims, last]))
    assert await upgrades(place, before.ledger.sessions) == {1}
    note("kill -9 while upgrading", place.backend, kills, found, Counter())
