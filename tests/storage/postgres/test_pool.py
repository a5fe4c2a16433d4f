"""Connections to PostgreSQL: who gets which, and what is done to make one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import postgres_server
import pytest
from asyncpg import TooManyConnectionsError

from langswarm_session import StorageBusyError
from langswarm_session.storage.postgres import pool as postgres_pool
from langswarm_session.storage.postgres.pool import Connection, Pool, PoolSettings
from langswarm_session.storage.postgres.storage import PostgresSessionStorage
from langswarm_session.testing.making import new_session, ref, texts, user


def settings(**changes: Any) -> PoolSettings:
    return PoolSettings(
        **{
            "options": {},
            "name": "db",
            "min_connections": 1,
            "max_connections": 10,
            "connect_timeout": 100.0,
            "idle_timeout": 300.0,
            "prepared_statements": True,
            **changes,
        }
    )


# Where the server gives fewer connections than are allowed


class Raw:
    """The driver's connection, of which a pool asks no more than this."""

    def __init__(self) -> None:
        self.closed = False

    def is_closed(self) -> bool:
        return self.closed

    async def close(self, **_: float) -> None:
        self.closed = True


class Few:
    """A server that gives so many connections at once, and says no to whoever wants more."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.given: list[Raw] = []
        self.refused = 0

    async def connect(self, _: Pool) -> Connection:
        await asyncio.sleep(0)
        if len([raw for raw in self.given if not raw.closed]) >= self.number:
            self.refused += 1
            raise TooManyConnectionsError("too many connections for role")
        self.given.append(Raw())
        return Connection(self.given[-1], prepares=True, is_pooled=False)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Few:
    """One that gives a single connection; nobody asks again before a minute has gone by."""
    few = Few(1)
    monkeypatch.setattr(Pool, "_connect_once", lambda pool: few.connect(pool))
    monkeypatch.setattr(postgres_pool, "_FIRST_DELAY", 60.0)
    return few


@pytest.fixture
async def pool(few: Few) -> AsyncIterator[Pool]:
    pool = Pool(settings())
    yield pool
    await pool.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def short(pool: Pool, few: Few, **options: Any) -> asyncio.Task[Connection]:
    """Somebody who waits, as there is no connection to be had."""
    refused = few.refused
    task = asyncio.ensure_future(pool.acquire(**options))
    await until(lambda: few.refused > refused and pool._short)
    return task


async def test_whoever_is_refused_gets_what_is_given_back_each_in_turn(
    pool: Pool, few: Few
) -> None:
    connection = await pool.acquire()
    waiting = [await short(pool, few, reserved=n == 1) for n in range(3)]
    for n, task in enumerate(waiting):
        assert not task.done()
        pool.release(connection, reserved=n == 2, usable=True)
        async with asyncio.timeout(30):
            assert await task is connection
    pool.release(connection, usable=True)
    assert len(few.given) == 1


async def test_what_is_given_back_while_one_is_refused_is_taken(pool: Pool, few: Few) -> None:
    connection = await pool.acquire()
    task = asyncio.ensure_future(pool.acquire())
    await asyncio.sleep(0)  # it asks the server
    pool.release(connection, usable=True)
    async with asyncio.timeout(30):
        assert await task is connection
    assert few.refused == 1
    pool.release(connection, usable=True)


async def test_a_cancelled_wait_loses_no_connection(pool: Pool, few: Few) -> None:
    connection = await pool.acquire()
    waiting = [await short(pool, few) for _ in range(3)]
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    pool.release(connection, usable=True)
    waiting[1].cancel()  # the connection is its already, and it has not heard of it
    async with asyncio.timeout(30):
        assert await waiting[2] is connection
    assert all(task.cancelled() for task in waiting[:2])
    pool.release(connection, usable=True)
    assert await pool.acquire() is connection
    pool.release(connection, usable=True)


async def test_whoever_gets_none_hears_of_it(few: Few, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_pool, "_FIRST_DELAY", 0.01)
    pool = Pool(settings(connect_timeout=0.05))
    connection = await pool.acquire()
    for reserved in (False, True):
        with pytest.raises(StorageBusyError, match="no more connections"):
            await pool.acquire(reserved=reserved)
    pool.release(connection, usable=True)
    assert await pool.acquire() is connection
    pool.release(connection, usable=True)
    await pool.close()


async def test_a_connection_that_broke_is_made_anew_by_whoever_waits(
    few: Few, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_pool, "_FIRST_DELAY", 0.01)
    pool = Pool(settings())
    connection = await pool.acquire()
    task = await short(pool, few)
    pool.release(connection, usable=False)
    other = await task
    assert other is not connection
    pool.release(other, usable=True)
    await pool.close()


async def test_a_contention_gets_by_with_two_connections(
    postgres_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, taken = postgres_pool.asyncpg.connect, 0

    async def connect_few(*args: Any, **options: Any) -> Any:
        nonlocal taken
        if taken == 2:
            raise TooManyConnectionsError("too many connections for role")
        taken += 1
        return await connect(*args, **options)

    monkeypatch.setattr(postgres_pool.asyncpg, "connect", connect_few)
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema)
    names = [f"s{n}" for n in range(20)]
    await asyncio.gather(*(storage.create_session(new_session(name)) for name in names))
    for _ in range(3):
        await asyncio.gather(
            *(storage.append(ref(name), [user(name)]) for name in names),
            *(storage.get_turns(ref(name)) for name in names),
        )
    assert texts(await storage.get_messages(ref("s7"))) == ["s7"] * 3
    await storage.close()


# What is shown


def test_settings_show_no_password() -> None:
    options = {"dsn": "postgresql://ann:secret@host/db", "password": "secret"}
    assert "secret" not in repr(settings(options=options))
