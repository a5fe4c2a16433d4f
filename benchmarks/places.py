"""Where the contenders keep what they store: files in a folder, or schemas of a PostgreSQL server.

A place is one string that a child process can be given: the path of a file, or the address of a
database with a search path that names one schema, which the drivers of all contenders understand.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_DSN = "postgresql://127.0.0.1:5432/test"
"""The server that is used unless the environment variable of `DSN_VARIABLE` names another."""
DSN_VARIABLE = "LANGSWARM_BENCH_POSTGRES"

_SEARCH_PATH = "options=-csearch_path%3D"


def is_postgres(place: str) -> bool:
    """Whether the place is in PostgreSQL."""
    return place.startswith("postgresql://")


def split(place: str) -> tuple[str, str]:
    """The address of a place's database, and its schema."""
    dsn, _, schema = place.partition(f"?{_SEARCH_PATH}")
    return dsn, unquote(schema)


class Places(ABC):
    """Gives out fresh places, and removes them all at the end."""

    @abstractmethod
    def new(self) -> str:
        """An empty place."""

    def facts(self) -> dict[str, str]:
        """What the figures depend on beside the machine."""
        return {}

    def close(self) -> None:  # noqa: B027 - for most there is nothing to do
        """Remove what was given out, unless somebody else does."""


class Files(Places):
    """Files, each in a folder of its own.

    Args:
        folder: Where the folders are; whoever made it removes it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()

    def new(self) -> str:
        """A path at which there is nothing yet."""
        folder = self._folder / f"{next(self._numbers):04}"
        folder.mkdir()
        return str(folder / "store.db")


class Schemas(Places):
    """Schemas of this run, which are dropped when it is over.

    Args:
        dsn: The address of the database, without a query.

    Raises:
        ValueError: If the address has a query, which is where the schema goes.
    """

    def __init__(self, dsn: str) -> None:
        if urlsplit(dsn).query:
            raise ValueError("the address must have no query: the schema goes there")
        self._dsn = dsn
        self._prefix = f"bench_{os.getpid()}_"
        self._made: list[str] = []

    def new(self) -> str:
        """The address of a schema with nothing in it."""
        schema = f"{self._prefix}{len(self._made)}"
        self._made.append(schema)
        self._run(f"CREATE SCHEMA {schema}")
        return f"{self._dsn}?{_SEARCH_PATH}{quote(schema)}"

    def facts(self) -> dict[str, str]:
        """The server's version, and what a commit waits for."""
        names = ("server_version", "synchronous_commit", "fsync", "shared_buffers")
        return {f"postgres {name}": str(self._run(f"SHOW {name}")[0][0]) for name in names}

    def close(self) -> None:
        """Drop the schemas."""
        while self._made:
            self._run(f"DROP SCHEMA IF EXISTS {self._made.pop()} CASCADE")

    def _run(self, statement: str) -> list[Any]:
        import psycopg

        with psycopg.connect(self._dsn, autocommit=True) as connection:
            found = connection.execute(statement)  # type: ignore[arg-type,unused-ignore]
            return found.fetchall() if found.description else []


def default_dsn() -> str:
    """The address of the server to use."""
    return os.environ.get(DSN_VARIABLE) or DEFAULT_DSN
