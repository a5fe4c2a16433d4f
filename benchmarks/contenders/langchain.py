"""langchain-community's SQL chat history, async and sync."""

# ruff: noqa: D102 (the base class describes the methods)

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from langchain_community.chat_message_histories import SQLChatMessageHistory
from sqlalchemy import create_engine, insert
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.contenders.base import Store
from benchmarks.contenders.langchain_messages import to_messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.messages import BaseMessage

    from benchmarks.load import Turn


class _HistoryStore(Store):
    """One engine for all, one history object for each conversation."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._histories: dict[str, SQLChatMessageHistory] = {}

    async def begin(self, session: str) -> None:
        self._histories[session] = SQLChatMessageHistory(session, connection=self._engine)

    def _rows(self, session: str, turns: Sequence[Turn]) -> tuple[Any, list[dict[str, str]]]:
        """One INSERT and its values, for what would take the ORM seconds."""
        history = self._histories[session]
        models = (history.converter.to_sql_model(m, session) for m in to_messages(turns))
        values = [{"session_id": session, "message": model.message} for model in models]
        return insert(history.sql_model_class), values

    @staticmethod
    def text(message: Any) -> str:
        return str(message.content)


class AsyncHistory(_HistoryStore):
    """Its async methods, over aiosqlite."""

    @classmethod
    async def open(cls, path: str) -> Self:
        return cls(create_async_engine(f"sqlite+aiosqlite:///{path}"))

    async def begin(self, session: str) -> None:
        await super().begin(session)
        await self._histories[session].aget_messages()  # creates the table

    async def append_turn(self, session: str, turn: Turn) -> None:
        await self._histories[session].aadd_messages(to_messages((turn,)))

    async def preload(self, session: str, turns: Sequence[Turn]) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(*self._rows(session, turns))

    async def read_all(self, session: str) -> list[BaseMessage]:
        return await self._histories[session].aget_messages()

    async def close(self) -> None:
        await self._engine.dispose()


class SyncHistory(_HistoryStore):
    """Its synchronous methods; never waits for an event loop."""

    @classmethod
    async def open(cls, path: str) -> Self:
        return cls(create_engine(f"sqlite:///{path}"))

    async def append_turn(self, session: str, turn: Turn) -> None:
        self._histories[session].add_messages(to_messages((turn,)))

    async def preload(self, session: str, turns: Sequence[Turn]) -> None:
        with self._engine.begin() as connection:
            connection.execute(*self._rows(session, turns))

    async def read_all(self, session: str) -> list[BaseMessage]:
        return self._histories[session].messages

    async def close(self) -> None:
        self._engine.dispose()
