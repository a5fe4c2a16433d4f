"""LlamaIndex's PostgreSQL chat store: one row a conversation, an array of all its messages."""

# ruff: noqa: D102 (the base class describes the methods)

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from llama_index.storage.chat_store.postgres import PostgresChatStore

from benchmarks.contenders.base import Store, UnsupportedError
from benchmarks.contenders.llama_index import to_messages
from benchmarks.places import split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.llms.types import ChatMessage

    from benchmarks.load import Turn


def make_store(place: str) -> PostgresChatStore:
    """The store, with the drivers that it has by default."""
    dsn, schema = split(place)
    address = dsn.removeprefix("postgresql")
    return PostgresChatStore.from_params(
        connection_string=f"postgresql+psycopg{address}",
        async_connection_string=f"postgresql+asyncpg{address}",
        schema_name=schema,
    )


async def close_store(store: PostgresChatStore) -> None:
    """It has no way to close; what it made does."""
    store._session.kw["bind"].dispose()
    await store._async_session.kw["bind"].dispose()


class ArrayChatStore(Store):
    """`PostgresChatStore`: two calls a turn, as it takes one message at a time."""

    def __init__(self, store: PostgresChatStore) -> None:
        self._store = store

    @classmethod
    async def open(cls, place: str) -> Self:
        return cls(make_store(place))

    async def begin(self, session: str) -> None:
        pass

    async def append_turn(self, session: str, turn: Turn) -> None:
        for message in to_messages((turn,)):
            await self._store.async_add_message(session, message)

    async def preload(self, session: str, turns: Sequence[Turn]) -> None:
        await self._store.aset_messages(session, to_messages(turns))

    async def read_all(self, session: str) -> list[ChatMessage]:
        return await self._store.aget_messages(session)

    async def newest(self, session: str, count: int) -> list[ChatMessage]:
        raise UnsupportedError("no")

    @staticmethod
    def text(message: Any) -> str:
        return str(message.content)

    async def close(self) -> None:
        await close_store(self._store)
