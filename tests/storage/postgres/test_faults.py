"""What becomes of calls when connections to PostgreSQL break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import postgres_server
import pytest
from postgres_proxy import Proxy, proxy
from storage.broken_connection_tests import LOST, BrokenConnectionTests, breaks

from langswarm_session import (
    ISessionStorage,
    SessionExistsError,
    SessionNotFoundError,
    StorageBusyError,
    StorageUnavailableError,
)
from langswarm_session.records import SessionChanges
from langswarm_session.storage.postgres.storage import PostgresSessionStorage
from langswarm_session.testing.making import (
    new_session,
    ref,
    reply,
    texts,
    user,
)


@pytest.fixture
def between(postgres_schema: str) -> Iterator[Proxy]:
    """The proxy between the storage and the server."""
    with proxy(postgres_server.port()) as made:
        yield made


@pytest.fixture
async def storage(between: Proxy, postgres_schema: str) -> AsyncIterator[PostgresSessionStorage]:
    storage = PostgresSessionStorage(
        postgres_server.through(between.port), schema=postgres_schema, connect_timeout=5
    )
    await storage.create_session(new_session("s"))
    yield storage
    between.before = between.after = None
    between.refuses = between.stalls = False
    await storage.close()


COMMIT = b"COMMIT\0"
"""The whole statement: READ COMMITTED has the word as well."""


class TestBrokenConnections(BrokenConnectionTests):
    pass


@LOST
async def test_a_commit_that_got_lost_is_looked_up(
    storage: PostgresSessionStorage, between: Proxy, answer: bool
) -> None:
    breaks(between, answer, COMMIT)
    created = await storage.create_session(new_session("t"))
    assert created == await storage.find_session("t")
    breaks(between, answer, COMMIT)
    changed = await storage.update_session(
        ref("s"), SessionChanges(context={"a": 1}), expected_revision=0
    )
    assert (changed.revision, changed) == (1, await storage.find_session("s"))
    breaks(between, answer, COMMIT)
    forked = await storage.fork_session(ref("s"), new_session("u"))
    assert forked == await storage.find_session("u")
    breaks(between, answer, COMMIT)
    await storage.delete_session(ref("t"))
    with pytest.raises(SessionNotFoundError):
        await storage.find_session("t")
    with pytest.raises(SessionExistsError):
        await storage.create_session(new_session("u"))
    assert between.broken == 4


async def test_two_connections_are_enough_to_look_a_commit_up(
    between: Proxy, postgres_schema: str
) -> None:
    dsn = postgres_server.through(between.port)
    storage = PostgresSessionStorage(dsn, schema=postgres_schema, max_connections=2)
    breaks(between, True, COMMIT)
    await storage.create_session(new_session("s"))
    between.after = lambda data: COMMIT in data and between.broken < 9
    names = [f"s{n}" for n in range(8)]
    await asyncio.gather(*(storage.create_session(new_session(name)) for name in names))
    assert between.broken == 9
    assert len((await storage.list_sessions()).records) == 9
    await storage.close()


async def test_many_sessions_whose_connection_broke_are_there_once(
    storage: PostgresSessionStorage, between: Proxy
) -> None:
    names = [f"s{n}" for n in range(20)]
    await asyncio.gather(*(storage.create_session(new_session(name)) for name in names))

    async def write(name: str) -> None:
        for n in range(10):
            await storage.append(ref(name), [user(f"{n}"), reply(f"{n}")])

    async def disturb() -> None:
        for _ in range(6):
            await storage.append(ref("s"), [user()])
            await asyncio.to_thread(between.cut)

    await asyncio.gather(disturb(), *map(write, names))
    for name in names:
        log = await storage.get_messages(ref(name))
        assert texts(log) == [f"{n}" for n in range(10) for _ in "ab"]
        assert [message.seq for message in log] == list(range(1, 21))
        assert (await storage.find_session(name)).revision == 10
    assert len(await storage.get_messages(ref("s"))) == 6


async def test_what_is_stored_already_costs_no_connection(
    storage: PostgresSessionStorage, between: Proxy
) -> None:
    names = [f"s{n}" for n in range(4)]
    await asyncio.gather(*(storage.create_session(new_session(name)) for name in names))
    stored = {name: [user("a"), reply("b")] for name in names}
    for _ in range(3):
        await asyncio.gather(*(storage.append(ref(name), stored[name]) for name in names))
    for _ in range(5):
        await storage.append(ref("s0"), stored["s0"])
        await asyncio.gather(*(storage.append(ref(name), stored[name]) for name in names))
    assert between.connections <= 10  # as many as may be open at once
    for name in names:
        assert texts(await storage.get_messages(ref(name))) == ["a", "b"]


async def test_idle_connections_that_were_closed_do_no_harm(
    storage: PostgresSessionStorage, between: Proxy
) -> None:
    await asyncio.gather(*(storage.find_session("s") for _ in range(8)))
    between.cut()
    await storage.append(ref("s"), [user("a")])
    between.cut()
    reads = await asyncio.gather(*(storage.get_messages(ref("s")) for _ in range(8)))
    assert all(texts(read) == ["a"] for read in reads)


async def test_the_server_hangs_up_on_idle_connections(
    storage: PostgresSessionStorage, postgres_schema: str
) -> None:
    await asyncio.gather(*(storage.find_session("s") for _ in range(4)))
    await asyncio.to_thread(
        postgres_server.query,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
        "AND query LIKE '%' || $1 || '%'",
        postgres_schema,
    )
    await storage.append(ref("s"), [user("a")])
    assert texts(await storage.get_messages(ref("s"))) == ["a"]


async def test_a_server_that_comes_back_is_waited_for(
    storage: PostgresSessionStorage, between: Proxy
) -> None:
    between.refuses = True
    between.cut()
    seen = between.connections
    calls = [asyncio.ensure_future(storage.append(ref("s"), [user(f"{n}")])) for n in range(5)]
    reading = asyncio.ensure_future(storage.find_session("s"))
    await asyncio.to_thread(between.wait_for, seen + 3)
    assert not any(call.done() for call in calls)
    between.refuses = False
    await asyncio.gather(*calls, reading)
    assert texts(await storage.get_messages(ref("s"))) == [f"{n}" for n in range(5)]


async def test_a_server_that_stays_away_is_told_of(between: Proxy, postgres_schema: str) -> None:
    dsn = postgres_server.through(between.port)
    storage = PostgresSessionStorage(dsn, schema=postgres_schema, connect_timeout=0.3)
    await storage.create_session(new_session("s"))
    between.refuses = True
    between.cut()
    with pytest.raises(StorageUnavailableError):
        await storage.append(ref("s"), [user("lost")])
    with pytest.raises(StorageUnavailableError):
        await storage.find_session("s")
    health = await storage.health()
    assert (health.ok, "reached" in str(health.detail)) == (False, True)
    between.refuses = False
    await storage.append(ref("s"), [user("kept")])
    assert texts(await storage.get_messages(ref("s"))) == ["kept"]
    await storage.close()


async def test_a_network_without_a_word_ends_the_call(between: Proxy, postgres_schema: str) -> None:
    dsn = postgres_server.through(between.port)
    storage = PostgresSessionStorage(dsn, schema=postgres_schema, connect_timeout=0.3, timeout=0.6)
    await storage.create_session(new_session("s"))
    between.stalls = True
    calls = [
        storage.append(ref("s"), [user("a")]),
        storage.find_session("s"),
        storage.list_sessions(),
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(each) for each in outcomes} <= {StorageBusyError, StorageUnavailableError}
    between.stalls = False
    between.cut()
    await storage.append(ref("s"), [user("b")])
    assert texts(await storage.get_messages(ref("s")))[-1] == "b"
    await storage.close()


async def test_a_commit_without_an_answer_is_told_of(between: Proxy, postgres_schema: str) -> None:
    dsn = postgres_server.through(between.port)
    storage = PostgresSessionStorage(dsn, schema=postgres_schema, timeout=0.5)
    await storage.create_session(new_session("s"))

    def stall(data: bytes) -> bool:
        between.stalls = between.stalls or COMMIT in data
        return False

    between.after = stall
    with pytest.raises(StorageUnavailableError, match="may be stored"):
        await storage.update_session(ref("s"), SessionChanges(model="m"))
    between.after, between.stalls = None, False
    between.cut()
    assert (await storage.find_session("s")).model in ("m", "model-1")
    await storage.close()


async def test_close_finishes_what_waits_for_the_server(
    storage: ISessionStorage, between: Proxy, postgres_schema: str
) -> None:
    between.refuses = True
    between.cut()
    seen = between.connections
    calls = [asyncio.ensure_future(storage.append(ref("s"), [user(f"{n}")])) for n in range(5)]
    await asyncio.to_thread(between.wait_for, seen + 1)
    closing = asyncio.ensure_future(storage.close())
    between.refuses = False
    await asyncio.gather(*calls, closing)
    again = PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema)
    assert texts(await again.get_messages(ref("s"))) == [f"{n}" for n in range(5)]
    await again.close()
