"""LlamaIndex's SQLAlchemy chat store, in whatever database."""

# ruff: noqa: D102 (the base class describes the methods)

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.contenders.base import Store, UnsupportedError
from benchmarks.contenders.engines import make_engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.load import Turn

_CHUNK = 500
"""Turns in one INSERT: SQLite takes so many bound values and no more."""


def to_messages(turns: Sequence[Turn]) -> list[ChatMessage]:
    """The turns as LlamaIndex has them."""
    return [
        ChatMessage(role=role, content=text)
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]


class ChatStore(Store):
    """`SQLAlchemyChatStore` over aiosqlite or asyncpg."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._store = SQLAlchemyChatStore("messages", async_engine=engine)

    @classmethod
    async def open(cls, place: str) -> Self:
        store = cls(make_engine(place))
        await store._store.get_messages("nobody", limit=1)  # creates the table
        return store

    async def begin(self, session: str) -> None:
        pass

    async def append_turn(self, session: str, turn: Turn) -> None:
        await self._store.add_messages(session, to_messages((turn,)))

    async def preload(self, session: str, turns: Sequence[Turn]) -> None:
        for start in range(0, len(turns), _CHUNK):
            await self._store.add_messages(session, to_messages(turns[start : start + _CHUNK]))

    async def read_all(self, session: str) -> list[ChatMessage]:
        return await self._store.get_messages(session)

    async def newest(self, session: str, count: int) -> list[ChatMessage]:
        raise UnsupportedError("oldest only")

    @staticmethod
    def text(message: Any) -> str:
        return str(message.content)

    async def close(self) -> None:
        await self._engine.dispose()


class SingleChatStore(ChatStore):
    """The same with a call for each message, which is all that a `BaseChatStore` can be asked."""

    async def append_turn(self, session: str, turn: Turn) -> None:
        for message in to_messages((turn,)):
            await self._store.add_message(session, message)


class SyncChatStore(SingleChatStore):
    """The same for who runs no event loop: it has async methods only, so one is run for each call.

    The loop is made once, which is cheaper than `asyncio.run`.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self._loop = asyncio.new_event_loop()

    @classmethod
    async def open(cls, place: str) -> Self:
        store = cls(make_engine(place))
        store._loop.run_until_complete(store._store.get_messages("nobody", limit=1))
        return store

    async def append_turn(self, session: str, turn: Turn) -> None:
        for message in to_messages((turn,)):
            self._loop.run_until_complete(self._store.add_message(session, message))

    async def preload(self, session: str, turns: Sequence[Turn]) -> None:
        self._loop.run_until_complete(super().preload(session, turns))

    async def read_all(self, session: str) -> list[ChatMessage]:
        return self._loop.run_until_complete(self._store.get_messages(session))

    async def close(self) -> None:
        self._loop.run_until_complete(self._engine.dispose())
        self._loop.close()
