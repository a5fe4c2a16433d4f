"""Whoever can list sessions in PostgreSQL.  Packages are imported where they are used.

As in `listers`, a peer creates one session by its own API, whose row is then copied in SQL.
"""

# ruff: noqa: D102 (the base class describes the methods)

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from benchmarks.contenders.listers import Lister, LlamaIndex, Manager
from benchmarks.load import make_turn

if TYPE_CHECKING:
    from collections.abc import Sequence


class PostgresLister(Lister):
    """A schema full of sessions."""

    def copy(self, statement: str, *values: object) -> None:
        import psycopg

        with psycopg.connect(self.place) as connection:
            connection.execute(statement, values)  # type: ignore[call-overload,unused-ignore]


class Raw(PostgresLister):
    """One indexed table, all columns of it, by asyncpg."""

    name = "*limit*: raw asyncpg"
    peer = False

    async def fill(self, sessions: int, users: int) -> None:
        import asyncpg

        self._connection: Any = await asyncpg.connect(self.place)
        await self._connection.execute(
            'CREATE TABLE sessions (id TEXT PRIMARY KEY, "user" TEXT, at BIGINT)'
        )
        await self._connection.execute('CREATE INDEX by_user ON sessions ("user", at)')
        self.copy(
            "INSERT INTO sessions SELECT 's' || n, 'u' || n %% %s, n FROM generate_series(0, %s) n",
            users,
            sessions - 1,
        )

    async def newest(self, user: str, count: int) -> Sequence[object]:
        query = 'SELECT * FROM sessions WHERE "user" = $1 ORDER BY at DESC LIMIT $2'
        found: Sequence[object] = await self._connection.fetch(query, user, count)
        return found

    async def close(self) -> None:
        await self._connection.close()


class LangGraph(PostgresLister):
    """`alist` filtered by metadata, one checkpoint a session, which is the fewest there can be."""

    name = "langgraph AsyncPostgresSaver"

    def __init__(self, place: str) -> None:
        import langgraph.checkpoint.postgres.aio as saver

        super().__init__(place)
        self._open = saver.AsyncPostgresSaver.from_conn_string
        self._stack = AsyncExitStack()

    async def fill(self, sessions: int, users: int) -> None:
        from langgraph.checkpoint.base import empty_checkpoint

        self._saver = await self._stack.enter_async_context(self._open(self.place))
        await self._saver.setup()
        config: Any = {"configurable": {"thread_id": "s0", "checkpoint_ns": ""}}
        metadata: Any = {"user_id": "u0"}
        await self._saver.aput(config, empty_checkpoint(), metadata, {})
        self.copy(
            "INSERT INTO checkpoints SELECT 's' || n, checkpoint_ns,"
            " checkpoint_id || lpad(n::text, 6, '0'), parent_checkpoint_id, type, checkpoint,"
            " jsonb_set(metadata, '{user_id}', to_jsonb('u' || n %% %s))"
            " FROM generate_series(1, %s) n, checkpoints",
            users,
            sessions - 1,
        )

    async def newest(self, user: str, count: int) -> Sequence[object]:
        found = self._saver.alist(None, filter={"user_id": user}, limit=count)
        return [checkpoint async for checkpoint in found]

    async def close(self) -> None:
        await self._stack.aclose()


class LlamaIndexAsyncpg(LlamaIndex, PostgresLister):
    """`get_keys`: the keys of all users, in no order."""

    name = "llama-index SQLAlchemyChatStore, asyncpg"

    def multiply(self, sessions: int) -> None:
        self.copy(
            "INSERT INTO messages (key, timestamp, role, status, data)"
            " SELECT 's' || n, timestamp + n, role, status, data"
            " FROM generate_series(1, %s) n, messages",
            sessions - 1,
        )


class LlamaIndexArrays(PostgresLister):
    """`get_keys`: the keys of all users, in no order; a sync method, as it has no other."""

    name = "llama-index PostgresChatStore"

    def __init__(self, place: str) -> None:
        from benchmarks.contenders.llama_index_postgres import make_store

        super().__init__(place)
        self._store = make_store(place)

    async def fill(self, sessions: int, users: int) -> None:
        from benchmarks.contenders.llama_index import to_messages

        await self._store.aset_messages("s0", to_messages([make_turn("s0", 0)])[:1])
        self.copy(
            "INSERT INTO chatstore (key, value) SELECT 's' || n, value"
            " FROM generate_series(1, %s) n, chatstore",
            sessions - 1,
        )

    async def newest(self, user: str, count: int) -> Sequence[object]:
        found: Sequence[object] = self._store.get_keys()
        return found

    async def close(self) -> None:
        from benchmarks.contenders.llama_index_postgres import close_store

        await close_store(self._store)


POSTGRES_LISTERS: tuple[type[Lister], ...] = (
    Manager,
    LangGraph,
    LlamaIndexAsyncpg,
    LlamaIndexArrays,
    Raw,
)
