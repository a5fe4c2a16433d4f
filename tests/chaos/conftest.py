"""What the modules here share; and the matrix at the end of a run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos.matrix import Notes, table
from chaos.places import Place
from chaos.processes import Writer
from chaos.scale import FULL
from chaos.server import Server

_schemas = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server of our own."""
    made = Server()
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sqlite_place(tmp_path: Path) -> Place:
    return Place("sqlite", {"db_path": str(tmp_path / "sessions.db"), "busy_timeout": 20.0})


@pytest.fixture
def postgres_place(server: Server) -> Iterator[Place]:
    schema = f"chaos_{next(_schemas)}"
    yield Place("postgres", {"dsn": server.dsn, "schema": schema})
    # Whoever is cut off may hold locks for ever.
    server.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    server.query(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


@pytest.fixture
def place(backend: str, request: pytest.FixtureRequest) -> Place:
    """Where nothing is yet."""
    found = request.getfixturevalue(f"{backend}_place")
    assert isinstance(found, Place)
    return found


@pytest.fixture
def start() -> Iterator[Callable[..., Writer]]:
    """Starts writers, which are gone afterwards."""
    writers: list[Writer] = []

    def start(*arguments: Any, **options: Any) -> Writer:
        writers.append(Writer(*arguments, **options))
        return writers[-1]

    yield start
    for writer in writers:
        writer.clean_up()


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Notes:
    """Notes what a test found, for the matrix, and fails if anything is wrong."""
    return Notes(record_property)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [
        each
        for outcome in ("passed", "failed", "xfailed")
        for each in terminalreporter.getreports(outcome)
    ]
    lines = table(pair for report in reports for pair in report.user_properties)
    if lines:
        form = "the long form" if FULL else "the short form; LANGSWARM_CHAOS=full for the long one"
        terminalreporter.section(f"faults on purpose ({form})")
        for line in lines:
            terminalreporter.write_line(line)
