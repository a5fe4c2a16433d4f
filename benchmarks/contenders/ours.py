"""langswarm-session: its storages, and a whole turn through a session."""

# ruff: noqa: D102 (the base class describes the methods)

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from benchmarks.contenders.base import Store
from benchmarks.load import Turn, answer_to
from benchmarks.places import is_postgres, split
from langswarm_session import (
    BaseSession,
    MessageRole,
    SessionBackend,
    SessionMessage,
    StorageFactory,
    create_session_manager,
)
from langswarm_session.errors import SessionExistsError
from langswarm_session.records import NewSession, SessionRef

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

USER = "user"
CHUNK = 500
"""Turns stored at once where nothing is timed."""


def where(place: str) -> tuple[str, dict[str, str]]:
    """The name of the storage for a place, and its configuration."""
    if is_postgres(place):
        dsn, schema = split(place)
        return "postgres", {"dsn": dsn, "schema": schema}
    return "sqlite", {"db_path": place}


def as_messages(turns: Sequence[Turn]) -> list[SessionMessage]:
    """The turns as a storage takes them."""
    return [
        SessionMessage(role=role, content=text)
        for turn in turns
        for role, text in zip((MessageRole.USER, MessageRole.ASSISTANT), turn, strict=True)
    ]


def _ref(session: str) -> SessionRef:
    return SessionRef(session, USER, None)


class StorageStore(Store):
    """The storage's `append`: the write that everything else comes down to."""

    def __init__(self, place: str) -> None:
        name, config = where(place)
        self._storage = StorageFactory.create_storage(name, **config)

    @classmethod
    async def open(cls, place: str) -> Self:
        return cls(place)

    async def begin(self, session: str) -> None:
        new = NewSession(session, USER, "mock", "echo", SessionBackend.LOCAL_SQLITE)
        with suppress(SessionExistsError):
            await self._storage.create_session(new)

    async def append_turn(self, session: str, turn: Turn) -> None:
        await self._storage.append(_ref(session), as_messages((turn,)))

    async def preload(self, session: str, turns: Sequence[Turn]) -> None:
        for start in range(0, len(turns), CHUNK):
            await self._storage.append(_ref(session), as_messages(turns[start : start + CHUNK]))

    async def read_all(self, session: str) -> list[SessionMessage]:
        return await self._storage.get_messages(_ref(session))

    async def newest(self, session: str, count: int) -> list[SessionMessage]:
        return await self._storage.get_messages(_ref(session), limit=count)

    @staticmethod
    def text(message: Any) -> str:
        return str(message.text)

    async def close(self) -> None:
        await self._storage.close()


class SessionStore(Store):
    """`session.send_message` with the echoing mock provider: two writes a turn, not one."""

    def __init__(self, place: str) -> None:
        name, config = where(place)
        self._manager = create_session_manager(name, config)
        self._sessions: dict[str, BaseSession] = {}

    @classmethod
    async def open(cls, place: str) -> Self:
        return cls(place)

    async def begin(self, session: str) -> None:
        self._sessions[session] = await self._manager.get_or_create_session(
            session, user_id=USER, provider="mock", model="echo"
        )

    async def append_turn(self, session: str, turn: Turn) -> None:
        await self._sessions[session].send_message(turn.user)

    async def read_all(self, session: str) -> Sequence[SessionMessage]:
        return await self._sessions[session].get_messages()

    async def newest(self, session: str, count: int) -> Sequence[SessionMessage]:
        return await self._sessions[session].get_messages(limit=count)

    async def stream(self, session: str) -> AsyncIterator[SessionMessage]:
        """All messages, in order, read as they are used."""
        async for message in self._sessions[session].iter_messages():
            yield message

    @staticmethod
    def text(message: Any) -> str:
        """The text; an echo counts as the answer to what it echoes."""
        if message.role is MessageRole.ASSISTANT:
            return answer_to(message.text.removeprefix("You said: "))
        return str(message.text)

    async def close(self) -> None:
        await self._manager.close()
