"""Passwords for PostgreSQL, and functions that return them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import postgres_server
import pytest

from langswarm_session import InvalidInputError, StorageBusyError, StorageUnavailableError
from langswarm_session.storage.postgres.storage import PostgresSessionStorage
from langswarm_session.testing.making import new_session

NO_PASSWORDS = [b"secret", 5, None, "secret\0", "secret\ud800"]


@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        ({"timeout": 0.3}, StorageBusyError),
        ({"connect_timeout": 0.3}, StorageUnavailableError),
    ],
)
async def test_a_function_that_blocks_keeps_nobody_else_waiting(
    postgres_schema: str, limits: dict[str, float], kind: type[Exception]
) -> None:
    go, asked = threading.Event(), threading.Event()

    def password() -> str:
        if asked.is_set():
            go.wait(60)
        asked.set()
        return "secret"

    storage = PostgresSessionStorage(
        postgres_server.dsn(), schema=postgres_schema, password=password, **limits
    )
    await storage.create_session(new_session("s"))
    assert storage._engine._jobs is not None
    pool = storage._engine._jobs.pool
    (held,) = pool._idle
    pool._idle.clear()
    for call in (storage.find_session("s"), storage.list_sessions()):
        with pytest.raises(kind):
            await call
    assert not go.is_set()
    pool._idle.append(held)
    assert (await storage.find_session("s")).session_id == "s"
    go.set()
    await storage.close()


async def test_a_coroutine_function_is_awaited(postgres_schema: str) -> None:
    asked = 0

    async def password() -> str:
        nonlocal asked
        await asyncio.sleep(0)
        asked += 1
        return "secret"

    storage = PostgresSessionStorage(
        postgres_server.dsn(), schema=postgres_schema, password=password
    )
    await storage.create_session(new_session("s"))
    assert asked == 1
    await storage.close()


@pytest.mark.parametrize("returned", NO_PASSWORDS)
async def test_what_is_no_password_is_refused_at_once(returned: Any) -> None:
    postgres_server.need()
    asked = 0

    def password() -> Any:
        nonlocal asked
        asked += 1
        return returned

    storage = PostgresSessionStorage(postgres_server.dsn(), password=password)
    with pytest.raises(InvalidInputError, match="password") as caught:
        await storage.find_session("s")
    assert "secret" not in str(caught.value)
    assert asked == 1
    await storage.close()


@pytest.mark.parametrize("given", [each for each in NO_PASSWORDS if each is not None])
def test_what_is_no_password_is_refused_when_it_is_given(given: Any) -> None:
    with pytest.raises(InvalidInputError, match="password") as caught:
        PostgresSessionStorage(password=given)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("secret"), ConnectionError("secret")])
async def test_a_function_that_fails_is_told_of(error: Exception) -> None:
    postgres_server.need()
    asked = 0

    def password() -> str:
        nonlocal asked
        asked += 1
        raise error

    storage = PostgresSessionStorage(postgres_server.dsn(), password=password)
    with pytest.raises(StorageUnavailableError, match="function for the password") as caught:
        await storage.find_session("s")
    assert type(error).__name__ in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is error
    assert asked == 1
    await storage.close()
