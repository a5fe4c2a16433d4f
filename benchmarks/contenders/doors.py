"""langswarm-session through the interfaces of the frameworks.

The frameworks are imported where they are used, so that one that is missing costs one row.
"""

# ruff: noqa: D102 (the base class describes the methods)

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from benchmarks.contenders.base import Store
from langswarm_session import create_session_manager

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.load import Turn

CHUNK = 500
"""Turns handed over at once where nothing is timed."""


class _DoorStore(Store):
    """One manager for all, one door object for each conversation."""

    def __init__(self, path: str) -> None:
        self._manager = create_session_manager(storage="sqlite", storage_config={"db_path": path})

    @classmethod
    async def open(cls, path: str) -> Self:
        return cls(path)

    async def preload(self, session: str, turns: Sequence[Turn]) -> None:
        for start in range(0, len(turns), CHUNK):
            await self._add(session, turns[start : start + CHUNK])

    async def append_turn(self, session: str, turn: Turn) -> None:
        await self._add(session, (turn,))

    async def _add(self, session: str, turns: Sequence[Turn]) -> None:
        raise NotImplementedError

    @staticmethod
    def text(message: Any) -> str:
        return str(message.content)

    async def close(self) -> None:
        await self._manager.close()


class LangChainDoor(_DoorStore):
    """`SessionChatMessageHistory`, its async methods."""

    async def begin(self, session: str) -> None:
        from langchain_langswarm import SessionChatMessageHistory

        self._history = SessionChatMessageHistory(session, self._manager, user_id="user")

    async def _add(self, session: str, turns: Sequence[Turn]) -> None:
        from benchmarks.contenders.langchain_messages import to_messages

        await self._history.aadd_messages(to_messages(turns))

    async def read_all(self, session: str) -> Sequence[Any]:
        return await self._history.aget_messages()


class LangChainSyncDoor(LangChainDoor):
    """`SessionChatMessageHistory`, its synchronous methods; never waits for an event loop."""

    async def _add(self, session: str, turns: Sequence[Turn]) -> None:
        from benchmarks.contenders.langchain_messages import to_messages

        self._history.add_messages(to_messages(turns))

    async def read_all(self, session: str) -> Sequence[Any]:
        return self._history.messages

    async def close(self) -> None:
        asyncio.run(self._manager.close())  # nobody runs a loop here


class LlamaIndexDoor(_DoorStore):
    """`AsyncSessionChatStore`, what LlamaIndex's `Memory` takes."""

    async def begin(self, session: str) -> None:
        from llama_index_langswarm import AsyncSessionChatStore

        self._store = AsyncSessionChatStore(manager=self._manager)

    async def _add(self, session: str, turns: Sequence[Turn]) -> None:
        from benchmarks.contenders.llama_index import to_messages

        await self._store.add_messages(session, to_messages(turns))

    async def read_all(self, session: str) -> Sequence[Any]:
        messages: Sequence[Any] = await self._store.get_messages(session)
        return messages


class LlamaIndexSingleDoor(_DoorStore):
    """`SessionChatStore`, its async methods: a message is a call, and durable by itself."""

    async def begin(self, session: str) -> None:
        from llama_index_langswarm import SessionChatStore

        self._store = SessionChatStore(manager=self._manager)

    async def preload(self, session: str, turns: Sequence[Turn]) -> None:
        from benchmarks.contenders.llama_index import to_messages

        await self._store.aset_messages(session, to_messages(turns))

    async def _add(self, session: str, turns: Sequence[Turn]) -> None:
        from benchmarks.contenders.llama_index import to_messages

        for message in to_messages(turns):
            await self._store.async_add_message(session, message)

    async def read_all(self, session: str) -> Sequence[Any]:
        messages: Sequence[Any] = await self._store.aget_messages(session)
        return messages


class LlamaIndexSyncDoor(LlamaIndexSingleDoor):
    """`SessionChatStore`, its synchronous methods; never waits for an event loop."""

    async def preload(self, session: str, turns: Sequence[Turn]) -> None:
        from benchmarks.contenders.llama_index import to_messages

        self._store.set_messages(session, to_messages(turns))

    async def _add(self, session: str, turns: Sequence[Turn]) -> None:
        from benchmarks.contenders.llama_index import to_messages

        for message in to_messages(turns):
            self._store.add_message(session, message)

    async def read_all(self, session: str) -> Sequence[Any]:
        messages: Sequence[Any] = self._store.get_messages(session)
        return messages

    async def close(self) -> None:
        asyncio.run(self._manager.close())  # nobody runs a loop here


class AgentsDoor(_DoorStore):
    """`AgentSession`, a session of the OpenAI Agents SDK."""

    async def begin(self, session: str) -> None:
        from openai_agents_langswarm import AgentSession

        self._session = AgentSession(session, self._manager)

    def _items(self, turns: Sequence[Turn]) -> list[Any]:
        from benchmarks.contenders.openai_agents import items_of

        return items_of(turns)

    async def _add(self, session: str, turns: Sequence[Turn]) -> None:
        await self._session.add_items(self._items(turns))

    async def read_all(self, session: str) -> Sequence[Any]:
        items: Sequence[Any] = await self._session.get_items()
        return items

    async def newest(self, session: str, count: int) -> Sequence[Any]:
        items: Sequence[Any] = await self._session.get_items(limit=count)
        return items

    @staticmethod
    def text(message: Any) -> str:
        from benchmarks.contenders.openai_agents import text_of

        return text_of(message)


class AgentsRunnerDoor(AgentsDoor):
    """The same with the items that a Runner stores."""

    def _items(self, turns: Sequence[Turn]) -> list[Any]:
        from benchmarks.contenders.openai_agents import runner_items_of

        return runner_items_of(turns)
