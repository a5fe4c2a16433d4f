"""A turn whose key is known is found, whatever else is the matter with the session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from langswarm_session import (
    InMemorySessionStorage,
    ISessionStorage,
    SessionMessage,
    SessionStatus,
    SQLiteSessionStorage,
)
from langswarm_session.records import IdempotencyKey, SessionChanges
from langswarm_session.testing.making import lease, new_session, ref, texts, user

KEY = IdempotencyKey("key", "digest")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ISessionStorage]:
    if request.param == "memory":
        made: ISessionStorage = InMemorySessionStorage()
    elif request.param == "sqlite":
        made = SQLiteSessionStorage(tmp_path / "sessions.db")
    else:
        schema = request.getfixturevalue("postgres_schema")
        import postgres_server

        from langswarm_session.storage.postgres.storage import PostgresSessionStorage

        made = PostgresSessionStorage(postgres_server.dsn(), schema=schema)
    await made.create_session(new_session("s"))
    yield made
    await made.close()


async def begin(storage: ISessionStorage) -> object:
    return await storage.begin_turn(ref("s"), [user("another")], lease())


async def archive(storage: ISessionStorage) -> object:
    return await storage.update_session(ref("s"), SessionChanges(status=SessionStatus.ARCHIVED))


@pytest.mark.parametrize("meanwhile", [begin, archive])
async def test_an_append_that_is_made_again(
    storage: ISessionStorage, meanwhile: Callable[[ISessionStorage], Awaitable[object]]
) -> None:
    """As a retry does whose first answer got lost; with new message ids it is found everywhere."""
    message = user("once")
    await storage.append(ref("s"), [message], key=KEY)
    await meanwhile(storage)
    for again in (user("once"), message):
        found: list[SessionMessage] = (await storage.append(ref("s"), [again], key=KEY)).messages
        assert texts(found) == ["once"]
