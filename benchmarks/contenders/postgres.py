"""The limit in PostgreSQL: a table, an index and one commit a turn, with asyncpg or psycopg 3."""

# ruff: noqa: D102 (the base class describes the methods)

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from benchmarks.contenders.raw import JsonStore, decode, to_rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from benchmarks.load import Turn

CONNECTIONS = 10
"""As many as the pool of our own storage has."""
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS messages (id BIGSERIAL PRIMARY KEY, session TEXT, data TEXT)",
    "CREATE INDEX IF NOT EXISTS messages_session ON messages (session)",
)
_INSERT = "INSERT INTO messages (session, data) SELECT {}, data FROM unnest({}::text[]) AS data"
_READ = "SELECT data FROM messages WHERE session = {} ORDER BY id"
_NEWEST = "SELECT data FROM messages WHERE session = {} ORDER BY id DESC LIMIT {}"


class _Connections:
    """A pool that does nothing but lend: the drivers' own ask the server at each return."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        self._connect = connect
        self._idle: list[Any] = []
        self._free = asyncio.Semaphore(CONNECTIONS)

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[Any]:
        async with self._free:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                yield connection
            finally:
                self._idle.append(connection)

    async def close(self) -> None:
        for connection in self._idle:
            await connection.close()


class AsyncpgStore(JsonStore):
    """asyncpg, one prepared statement a turn."""

    def __init__(self, connections: _Connections) -> None:
        self._connections = connections

    @classmethod
    async def open(cls, place: str) -> Self:
        import asyncpg

        connections = _Connections(lambda: asyncpg.connect(place))
        async with connections.borrow() as connection:
            for statement in _SCHEMA:
                await connection.execute(statement)
        return cls(connections)

    async def append_turn(self, session: str, turn: Turn) -> None:
        await self.preload(session, (turn,))

    async def preload(self, session: str, turns: Sequence[Turn]) -> None:
        data = [row for _, row in to_rows(session, turns)]
        async with self._connections.borrow() as connection:
            await connection.execute(_INSERT.format("$1", "$2"), session, data)

    async def read_all(self, session: str) -> list[dict[str, str]]:
        async with self._connections.borrow() as connection:
            return decode(await connection.fetch(_READ.format("$1"), session))

    async def newest(self, session: str, count: int) -> list[dict[str, str]]:
        async with self._connections.borrow() as connection:
            rows = await connection.fetch(_NEWEST.format("$1", "$2"), session, count)
        return decode(rows)[::-1]

    async def close(self) -> None:
        await self._connections.close()


class PsycopgStore(JsonStore):
    """psycopg 3, one statement a turn, prepared at its fifth use."""

    def __init__(self, connections: _Connections, stack: AsyncExitStack) -> None:
        self._connections = connections
        self._stack = stack

    @classmethod
    async def open(cls, place: str) -> Self:
        import psycopg

        stack = AsyncExitStack()
        connections = _Connections(lambda: psycopg.AsyncConnection.connect(place, autocommit=True))
        stack.push_async_callback(connections.close)
        async with connections.borrow() as connection:
            for statement in _SCHEMA:
                await connection.execute(statement)
        return cls(connections, stack)

    async def append_turn(self, session: str, turn: Turn) -> None:
        await self.preload(session, (turn,))

    async def preload(self, session: str, turns: Sequence[Turn]) -> None:
        data = [row for _, row in to_rows(session, turns)]
        async with self._connections.borrow() as connection:
            await connection.execute(_INSERT.format("%s", "%s"), (session, data))

    async def read_all(self, session: str) -> list[dict[str, str]]:
        async with self._connections.borrow() as connection:
            found = await connection.execute(_READ.format("%s"), (session,))
            return decode(await found.fetchall())

    async def newest(self, session: str, count: int) -> list[dict[str, str]]:
        async with self._connections.borrow() as connection:
            found = await connection.execute(_NEWEST.format("%s", "%s"), (session, count))
            return decode(await found.fetchall())[::-1]

    async def close(self) -> None:
        await self._stack.aclose()


class PipelineStore(PsycopgStore):
    """psycopg 3 in pipeline mode: a transaction of one statement a message, sent in one go."""

    async def append_turn(self, session: str, turn: Turn) -> None:
        async with (
            self._connections.borrow() as connection,
            connection.pipeline(),
            connection.transaction(),
        ):
            for row in to_rows(session, (turn,)):
                await connection.execute(
                    "INSERT INTO messages (session, data) VALUES (%s, %s)", row
                )
