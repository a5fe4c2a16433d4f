"""The backends: how one is opened, what it weighs, and how its traces are removed."""

# ruff: noqa: D102 (the base class describes the methods)

from __future__ import annotations

import getpass
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.load import answer_to
from benchmarks.report import Cell
from langswarm_session import (
    MockProviderSession,
    ProviderRequest,
    SessionManager,
    create_session_manager,
)

BACKENDS = ("memory", "sqlite", "postgres")


class Backend:
    """A storage with its own defaults: here the one in memory, which leaves nothing behind.

    Args:
        delay: Seconds that the mock provider takes for a reply.
    """

    name = "memory"
    _storage: Mapping[str, Any] = {}

    def __init__(self, delay: float) -> None:
        self._delay = delay

    def open(self) -> SessionManager:
        """A manager on it, as users make one, with a provider that answers as the audit expects."""
        return create_session_manager(
            storage=self.name,
            storage_config=self._storage,
            providers={"mock": MockProviderSession(_answer, delay=self._delay)},
        )

    async def start(self) -> None:
        """Make ready what is needed besides the manager."""

    def log_bytes(self) -> int | None:
        """Bytes of the write-ahead log at this moment, where it is a file of this backend's."""
        return None

    def server_seconds(self) -> float | None:
        """Processor time that the database's server has taken, where it is on this machine."""
        return None

    async def weigh(self) -> dict[str, Cell]:
        """What is kept, by the name of a table or file: bytes, and counts that tell how it is."""
        return {}

    async def remove(self) -> None:
        """Remove all of it."""


def _answer(request: ProviderRequest) -> str:
    return answer_to(request.messages[-1].text)


class SQLite(Backend):
    """One file in the run's folder."""

    name = "sqlite"

    def __init__(self, delay: float, folder: Path) -> None:
        super().__init__(delay)
        self._path = folder / "load.db"
        self._storage = {"db_path": self._path}

    def log_bytes(self) -> int:
        return _size(self._path.with_name(self._path.name + "-wal"))

    async def weigh(self) -> dict[str, Cell]:
        # Its pages, and not its size: some of them may be in the log alone.
        with closing(sqlite3.connect(self._path)) as connection:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            (size,) = connection.execute("PRAGMA page_size").fetchone()
        return {"file (bytes)": pages * size, "log (bytes)": self.log_bytes()}

    async def remove(self) -> None:
        for part in self._path.parent.glob(f"{self._path.name}*"):
            part.unlink()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class Postgres(Backend):
    """A schema of the run's own in the database at `LANGSWARM_TEST_POSTGRES`."""

    name = "postgres"

    def __init__(self, delay: float, dsn: str) -> None:
        super().__init__(delay)
        self._dsn = dsn
        self._schema = f"load_{os.getpid()}"
        self._storage = {"dsn": dsn, "schema": self._schema}

    def server_seconds(self) -> float | None:
        if urlsplit(self._dsn).hostname not in ("127.0.0.1", "::1", "localhost"):
            return None
        return sum(map(_postgres_seconds, Path("/proc").glob("[0-9]*/stat"))) or None

    async def start(self) -> None:
        (self._begun,) = await self._ask("SELECT pg_current_wal_insert_lsn()")

    async def weigh(self) -> dict[str, Cell]:
        rows = await self._ask(_TABLES, self._schema)
        (written,) = await self._ask("SELECT pg_current_wal_insert_lsn() - $1", self._begun[0])
        found: dict[str, Cell] = {"log written by the whole server (bytes)": int(written[0])}
        for table, heap, indexes, updates, hot, dead in rows:
            name = table.removeprefix("langswarm_")
            found[f"{name} (bytes)"] = heap
            found[f"{name}, indexes (bytes)"] = indexes
            if updates:
                found[f"{name}, updates that moved no index"] = f"{100 * hot / updates:.1f} %"
                found[f"{name}, dead rows"] = dead
        return found

    async def remove(self) -> None:
        await self._ask(f"DROP SCHEMA IF EXISTS {self._schema} CASCADE")

    async def _ask(self, query: str, *values: Any) -> list[Any]:
        import asyncpg  # type: ignore[import-untyped]

        connection = await asyncpg.connect(self._dsn)
        try:
            return await connection.fetch(query, *values)  # type: ignore[no-any-return]
        finally:
            await connection.close()


def _postgres_seconds(stat: Path) -> float:
    """Processor time of a process and of its children that ended, if it is a PostgreSQL server's.

    Args:
        stat: Its file in ``/proc``; it may be gone by now.
    """
    try:
        name, _, values = stat.read_text().partition("(")[2].rpartition(")")
    except OSError:
        return 0.0
    ticks = sum(map(int, values.split()[11:15])) if name == "postgres" else 0
    return ticks / os.sysconf("SC_CLK_TCK")


_TABLES = """
SELECT relname, pg_table_size(relid), pg_indexes_size(relid), n_tup_upd, n_tup_hot_upd, n_dead_tup
FROM pg_stat_user_tables WHERE schemaname = $1 AND pg_table_size(relid) > 16384 ORDER BY relname
"""


def make_backend(name: str, delay: float, folder: Path, dsn: str | None) -> Backend:
    """A backend by its name.

    Args:
        name: One of `BACKENDS`.
        delay: Seconds that the mock provider takes for a reply.
        folder: Where its files go.
        dsn: Where PostgreSQL is; None for the server that the tests use.
    """
    if name == "sqlite":
        return SQLite(delay, folder)
    if name == "postgres":
        default = f"postgresql://{getpass.getuser()}@127.0.0.1:5432/test"
        return Postgres(delay, dsn or os.environ.get("LANGSWARM_TEST_POSTGRES") or default)
    return Backend(delay)
