"""Connecting where blocking calls on event loops are refused."""

from __future__ import annotations

import asyncio
from typing import Any

import postgres_server
import pytest

from langswarm_session.storage.postgres import connect as postgres_connect
from langswarm_session.storage.postgres.connect import connect


@pytest.fixture
def is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_connect, "is_watched", lambda: True)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether an event loop seemed to run each time that the options were read."""
    seen: list[bool] = []
    utils: Any = postgres_connect.asyncpg.connect_utils
    parse = utils._parse_connect_arguments

    def note(**options: Any) -> Any:
        seen.append(asyncio._get_running_loop() is not None)
        return parse(**options)

    monkeypatch.setattr(utils, "_parse_connect_arguments", note)
    return seen


@pytest.mark.usefixtures("is_watched")
async def test_no_event_loop_seems_to_run_while_files_are_looked_for(seen: list[bool]) -> None:
    connection = await connect(dsn=postgres_server.dsn(), timeout=10, statement_cache_size=0)
    assert seen == [False]
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


async def test_elsewhere_it_is_the_drivers_own_way(seen: list[bool]) -> None:
    connection = await connect(dsn=postgres_server.dsn(), timeout=10)
    assert seen == [True]
    await connection.close()


@pytest.mark.usefixtures("is_watched")
@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:1"])
async def test_a_server_that_is_not_there(host: str) -> None:
    with pytest.raises(OSError, match="Connect call failed"):
        await connect(dsn=f"postgresql://user@{host}/test", timeout=10)
    assert asyncio.get_running_loop().is_running()


@pytest.mark.usefixtures("is_watched")
async def test_what_cannot_be_used_is_refused_as_by_the_driver() -> None:
    with pytest.raises(postgres_connect.asyncpg.ClientConfigurationError):
        await connect(dsn="postgresql://", timeout=10, ssl="nonsense")


@pytest.mark.usefixtures("is_watched")
async def test_its_time_is_limited_and_it_can_be_cancelled(
    unused_server: asyncio.Server,
) -> None:
    port = unused_server.sockets[0].getsockname()[1]
    dsn = f"postgresql://user@127.0.0.1:{port}/test?sslmode=disable"
    with pytest.raises(TimeoutError):
        await connect(dsn=dsn, timeout=0.05)
    task = asyncio.ensure_future(connect(dsn=dsn, timeout=60))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture
async def unused_server() -> Any:
    """A server that says nothing."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield server
    for writer in writers:
        writer.close()
    server.close()
