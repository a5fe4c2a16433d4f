"""Whoever can list sessions in SQLite.  Packages are imported where they are used.

A peer whose own API takes minutes to create so many sessions creates one; its row is then copied in
SQL.  What is timed is the peer's own listing.
"""

# ruff: noqa: D102 (the base class describes the methods)

from __future__ import annotations

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack, closing
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.load import make_turn

if TYPE_CHECKING:
    from collections.abc import Sequence

_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "


class Lister(ABC):
    """A database full of sessions."""

    name: ClassVar[str]
    peer: ClassVar[bool] = True

    def __init__(self, place: str) -> None:
        self.place = place

    @abstractmethod
    async def fill(self, sessions: int, users: int) -> None:
        """Create that many sessions, spread evenly over the users `u0`, `u1`...; never timed."""

    @abstractmethod
    async def newest(self, user: str, count: int) -> Sequence[object]:
        """That user's newest sessions, or the nearest to it that the contender can give."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the database."""

    def copy(self, statement: str, *values: object) -> None:
        """Run SQL on the database from outside."""
        with closing(sqlite3.connect(self.place)) as connection, connection:
            connection.execute(statement, values)


class Manager(Lister):
    """`manager.list_user_sessions`: session objects."""

    name = "langswarm-session"
    peer = False

    def __init__(self, place: str) -> None:
        from benchmarks.contenders.ours import where
        from langswarm_session import create_session_manager

        super().__init__(place)
        name, config = where(place)
        self._manager = create_session_manager(name, config)

    async def fill(self, sessions: int, users: int) -> None:
        create = self._manager.create_session
        for start in range(0, sessions, users):
            await asyncio.gather(
                *(create(f"u{n}", "mock", "echo", session_id=f"s{start + n}") for n in range(users))
            )

    async def newest(self, user: str, count: int) -> Sequence[object]:
        found: Sequence[object] = await self._manager.list_user_sessions(user, limit=count)
        return found

    async def close(self) -> None:
        await self._manager.close()


class Raw(Lister):
    """One indexed table, all columns of it as tuples."""

    name = "*limit*: raw sqlite3"
    peer = False

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self._connection = sqlite3.connect(place)

    async def fill(self, sessions: int, users: int) -> None:
        with self._connection as connection:
            connection.execute("CREATE TABLE sessions (id TEXT PRIMARY KEY, user TEXT, at INTEGER)")
            connection.execute("CREATE INDEX by_user ON sessions (user, at)")
            rows = ((f"s{n}", f"u{n % users}", n) for n in range(sessions))
            connection.executemany("INSERT INTO sessions VALUES (?, ?, ?)", rows)

    async def newest(self, user: str, count: int) -> Sequence[object]:
        query = "SELECT * FROM sessions WHERE user = ? ORDER BY at DESC LIMIT ?"
        return self._connection.execute(query, (user, count)).fetchall()

    async def close(self) -> None:
        self._connection.close()


class GoogleAdk(Lister):
    """`list_sessions`: all of a user's sessions, oldest first; it has no limit."""

    name = "google-adk DatabaseSessionService"

    def __init__(self, place: str) -> None:
        from google.adk.sessions import DatabaseSessionService

        super().__init__(place)
        self._service: Any = DatabaseSessionService(f"sqlite+aiosqlite:///{place}")

    async def fill(self, sessions: int, users: int) -> None:
        await self._service.create_session(app_name="app", user_id="u0", session_id="s0")
        self.copy(
            f"{_NUMBERS} INSERT INTO sessions SELECT app_name, 'u' || (i % ?), 's' || i, state,"
            " create_time, update_time FROM n, sessions",
            sessions - 1,
            users,
        )

    async def newest(self, user: str, count: int) -> Sequence[object]:
        found: list[object] = (
            await self._service.list_sessions(app_name="app", user_id=user)
        ).sessions
        return found[-count:]

    async def close(self) -> None:
        await self._service.close()


class LangGraph(Lister):
    """`alist` filtered by metadata, one checkpoint a session, which is the fewest there can be."""

    name = "langgraph AsyncSqliteSaver"

    def __init__(self, place: str) -> None:
        import langgraph.checkpoint.sqlite.aio as saver

        super().__init__(place)
        self._open = saver.AsyncSqliteSaver.from_conn_string
        self._stack = AsyncExitStack()

    async def fill(self, sessions: int, users: int) -> None:
        from langgraph.checkpoint.base import empty_checkpoint

        self._saver = await self._stack.enter_async_context(self._open(self.place))
        config: Any = {"configurable": {"thread_id": "s0", "checkpoint_ns": ""}}
        metadata: Any = {"user_id": "u0"}
        await self._saver.aput(config, empty_checkpoint(), metadata, {})
        self.copy(
            f"{_NUMBERS} INSERT INTO checkpoints SELECT 's' || i, checkpoint_ns,"
            " printf('%s-%06d', checkpoint_id, i), parent_checkpoint_id, type, checkpoint,"
            " json_set(metadata, '$.user_id', 'u' || (i % ?)) FROM n, checkpoints",
            sessions - 1,
            users,
        )

    async def newest(self, user: str, count: int) -> Sequence[object]:
        found = self._saver.alist(None, filter={"user_id": user}, limit=count)
        return [checkpoint async for checkpoint in found]

    async def close(self) -> None:
        await self._stack.aclose()


class LlamaIndex(Lister):
    """`get_keys`: the keys of all users, in no order."""

    name = "llama-index SQLAlchemyChatStore"

    def __init__(self, place: str) -> None:
        from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore

        from benchmarks.contenders.engines import make_engine

        super().__init__(place)
        self._engine = make_engine(place)
        self._store = SQLAlchemyChatStore("messages", async_engine=self._engine)

    async def fill(self, sessions: int, users: int) -> None:
        from benchmarks.contenders.llama_index import to_messages

        await self._store.add_messages("s0", to_messages([make_turn("s0", 0)])[:1])
        self.multiply(sessions)

    def multiply(self, sessions: int) -> None:
        """Copy the one session that there is."""
        self.copy(
            f"{_NUMBERS} INSERT INTO messages (key, timestamp, role, status, data)"
            " SELECT 's' || i, timestamp + i, role, status, data FROM n, messages",
            sessions - 1,
        )

    async def newest(self, user: str, count: int) -> Sequence[object]:
        return await self._store.get_keys()

    async def close(self) -> None:
        await self._engine.dispose()


LISTERS: tuple[type[Lister], ...] = (Manager, GoogleAdk, LangGraph, LlamaIndex, Raw)
