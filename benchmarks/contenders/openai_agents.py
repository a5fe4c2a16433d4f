"""The OpenAI Agents SDK: its SQLite session and its SQLAlchemy session."""

# ruff: noqa: D102 (the base class describes the methods)

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from agents import SQLiteSession

from benchmarks.contenders.base import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.memory import SessionABC

    from benchmarks.load import Turn


def items_of(turns: Sequence[Turn]) -> list[Any]:
    """Responses items in their short form, which is the cheaper one for the peer."""
    return [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]


def runner_items_of(turns: Sequence[Turn]) -> list[Any]:
    """The same as `Runner.run` stores them: an answer with all that the API says of it."""
    return [
        item
        for turn in turns
        for item in (
            {"content": turn.user, "role": "user"},
            {
                "id": f"msg_{uuid4().hex}",
                "content": [
                    {
                        "annotations": [],
                        "text": turn.assistant,
                        "type": "output_text",
                        "logprobs": [],
                    }
                ],
                "role": "assistant",
                "status": "completed",
                "type": "message",
            },
        )
    ]


def text_of(item: Any) -> str:
    """The text of an item in either form."""
    content = item["content"]
    return str(content if isinstance(content, str) else content[0]["text"])


class _SessionStore(Store):
    """One session object for each conversation, made once, as the SDK's examples do."""

    def __init__(self) -> None:
        self._sessions: dict[str, Any] = {}

    def _make(self, session: str) -> SessionABC:
        raise NotImplementedError

    def _items(self, turns: Sequence[Turn]) -> list[Any]:
        return items_of(turns)

    async def begin(self, session: str) -> None:
        self._sessions[session] = self._make(session)

    async def append_turn(self, session: str, turn: Turn) -> None:
        await self._sessions[session].add_items(self._items((turn,)))

    async def preload(self, session: str, turns: Sequence[Turn]) -> None:
        await self._sessions[session].add_items(self._items(turns))

    async def read_all(self, session: str) -> list[Any]:
        return await self._sessions[session].get_items()  # type: ignore[no-any-return]

    async def newest(self, session: str, count: int) -> list[Any]:
        return await self._sessions[session].get_items(limit=count)  # type: ignore[no-any-return]

    @staticmethod
    def text(message: Any) -> str:
        return text_of(message)


class SQLiteStore(_SessionStore):
    """`SQLiteSession`: a connection for each session and worker thread."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    @classmethod
    async def open(cls, path: str) -> Self:
        return cls(path)

    def _make(self, session: str) -> SessionABC:
        return SQLiteSession(session, self._path)

    async def close(self) -> None:
        for session in self._sessions.values():
            session.close()


class SQLAlchemyStore(_SessionStore):
    """`SQLAlchemySession`: one engine for all, as its documentation advises."""

    def __init__(self, engine: Any) -> None:
        super().__init__()
        self._engine = engine

    @classmethod
    async def open(cls, place: str) -> Self:
        from benchmarks.contenders.engines import make_engine

        return cls(make_engine(place))

    def _make(self, session: str) -> SessionABC:
        from agents.extensions.memory import SQLAlchemySession

        return SQLAlchemySession(session, engine=self._engine, create_tables=True)

    async def begin(self, session: str) -> None:
        await super().begin(session)
        await self._sessions[session].get_items(limit=1)  # creates the tables

    async def close(self) -> None:
        await self._engine.dispose()


class RunnerSQLiteStore(SQLiteStore):
    """`SQLiteSession` with a Runner's items."""

    def _items(self, turns: Sequence[Turn]) -> list[Any]:
        return runner_items_of(turns)


class RunnerSQLAlchemyStore(SQLAlchemyStore):
    """`SQLAlchemySession` with a Runner's items."""

    def _items(self, turns: Sequence[Turn]) -> list[Any]:
        return runner_items_of(turns)
