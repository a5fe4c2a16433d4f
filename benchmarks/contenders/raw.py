"""The limit: a table, an index and one commit a turn.  And the same through aiosqlite."""

# ruff: noqa: D102 (the base class describes the methods)

from __future__ import annotations

import asyncio
import json
import sqlite3
from typing import TYPE_CHECKING, Any, Self

from benchmarks.contenders.base import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.load import Turn

_SETTINGS = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, session TEXT, data TEXT)",
    "CREATE INDEX IF NOT EXISTS messages_session ON messages (session)",
)
_INSERT = "INSERT INTO messages (session, data) VALUES (?, ?)"
_READ = "SELECT data FROM messages WHERE session = ? ORDER BY id"
_NEWEST = "SELECT data FROM messages WHERE session = ? ORDER BY id DESC LIMIT ?"


def to_rows(session: str, turns: Sequence[Turn]) -> list[tuple[str, str]]:
    """A row of session and JSON for each message."""
    return [
        (session, json.dumps({"role": role, "content": text}))
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]


def decode(rows: Sequence[Any]) -> list[dict[str, str]]:
    """The messages of rows of JSON."""
    return [json.loads(data) for (data,) in rows]


class JsonStore(Store):
    """What both have in common: JSON objects of role and content, and no sessions to prepare."""

    async def begin(self, session: str) -> None:
        pass

    @staticmethod
    def text(message: Any) -> str:
        return str(message["content"])


class RawStore(JsonStore):
    """The standard library's module, called on the caller's own thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, path: str) -> Self:
        connection = sqlite3.connect(path, timeout=30)
        for statement in (*_SETTINGS, *_SCHEMA):
            connection.execute(statement)
        return cls(connection)

    async def append_turn(self, session: str, turn: Turn) -> None:
        await self.preload(session, (turn,))

    async def preload(self, session: str, turns: Sequence[Turn]) -> None:
        with self._connection as connection:
            connection.executemany(_INSERT, to_rows(session, turns))

    async def read_all(self, session: str) -> list[dict[str, str]]:
        return decode(self._connection.execute(_READ, (session,)).fetchall())

    async def newest(self, session: str, count: int) -> list[dict[str, str]]:
        return decode(self._connection.execute(_NEWEST, (session, count)).fetchall())[::-1]

    async def close(self) -> None:
        self._connection.close()


class AiosqliteStore(JsonStore):
    """One shared aiosqlite connection: two hops to its thread for a write, one for a read.

    The lock is needed: without it one task commits another's half, and the statement that commits
    while another runs fails.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._transaction = asyncio.Lock()

    @classmethod
    async def open(cls, path: str) -> Self:
        import aiosqlite

        connection = await aiosqlite.connect(path, timeout=30)
        for statement in (*_SETTINGS, *_SCHEMA):
            await connection.execute(statement)
        return cls(connection)

    async def append_turn(self, session: str, turn: Turn) -> None:
        await self.preload(session, (turn,))

    async def preload(self, session: str, turns: Sequence[Turn]) -> None:
        async with self._transaction:
            await self._connection.executemany(_INSERT, to_rows(session, turns))
            await self._connection.commit()

    async def read_all(self, session: str) -> list[dict[str, str]]:
        return decode(await self._connection.execute_fetchall(_READ, (session,)))

    async def newest(self, session: str, count: int) -> list[dict[str, str]]:
        rows = await self._connection.execute_fetchall(_NEWEST, (session, count))
        return decode(list(rows))[::-1]

    async def close(self) -> None:
        await self._connection.close()
