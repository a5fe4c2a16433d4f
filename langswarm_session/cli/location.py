"""Where the sessions are: a file, or any storage by its URL."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from langswarm_session.cli.outcome import reported
from langswarm_session.errors import InvalidInputError, StorageUnavailableError
from langswarm_session.manager import SessionManager
from langswarm_session.storage.sqlite.storage import SQLiteSessionStorage

T = TypeVar("T")

DEFAULT_DB = "langswarm_sessions.db"

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]

_SECRET = re.compile(r"^(\w+:/*)[^@]*@", re.DOTALL)


def shown(address: str) -> str:
    """An address as it may be printed: without names and passwords."""
    return _SECRET.sub(r"\1***@", address.partition("?")[0])


@dataclass(frozen=True, slots=True)
class Place:
    """Where the sessions are.

    Attributes:
        db: A file, or a URL; None: the default file.
        storage: A storage's URL or name, in place of it.
    """

    db: str | None
    storage: str | None

    def manager(self, *, must_exist: bool) -> SessionManager:
        """A manager on it.

        Args:
            must_exist: A file that is not there is an error, rather than a new database.

        Raises:
            InvalidInputError: If both a file and a storage are named, or it is no address.
            StorageUnavailableError: If the file has to be there and is not.
            UnknownStorageError: If there is no such storage.
        """
        if self.storage is not None and self.db is not None:
            raise InvalidInputError("name the sessions by --db or by --storage, not by both")
        if "" in (self.storage, self.db):
            raise InvalidInputError("--db or --storage is empty, and names nothing")
        address = self.storage or self.db or DEFAULT_DB
        if self.storage is not None or "://" in address:
            manager = SessionManager(address)
        elif _SECRET.match(address):
            raise InvalidInputError(
                f"{shown(address)} is neither a file nor a URL; a URL has :// in it"
            )
        else:
            manager = SessionManager("sqlite", storage_config={"db_path": address})
        if must_exist and not exists(manager):
            path = getattr(manager.storage, "db_path", "")
            raise StorageUnavailableError(
                f"there is no database {path!r}; name another with --db, or make it with `chat`"
            )
        return manager

    def run(
        self,
        work: Callable[[SessionManager], Awaitable[T]],
        *,
        as_json: bool,
        must_exist: bool = True,
    ) -> T:
        """Do something with a manager, which is closed afterwards.

        Raises:
            typer.Exit: With the exit code, if it raised; the error has been written then.
        """
        with reported(as_json=as_json):
            manager = self.manager(must_exist=must_exist)
            return asyncio.run(_closing(manager, work))
        raise AssertionError("reported() either raises or lets it return")


def exists(manager: SessionManager) -> bool:
    """Whether a manager's storage is there, as far as that can be seen without opening it."""
    storage = manager.storage
    return not isinstance(storage, SQLiteSessionStorage) or Path(storage.db_path).exists()


async def _closing(manager: SessionManager, work: Callable[[SessionManager], Awaitable[T]]) -> T:
    async with manager:
        return await work(manager)
