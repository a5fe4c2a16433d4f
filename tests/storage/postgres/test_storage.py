from __future__ import annotations

import asyncio
import gc
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import postgres_server
import pytest
from storage.durability_tests import commits_of

from langswarm_session import (
    InvalidInputError,
    MessageConflictError,
    SessionBusyError,
    SessionError,
    SessionInactiveError,
    SessionManager,
    SessionStatus,
    StorageBusyError,
    StorageFactory,
    StorageUnavailableError,
)
from langswarm_session._sync import bridge
from langswarm_session.findings import Level
from langswarm_session.records import IdempotencyKey, SessionChanges
from langswarm_session.storage.postgres import storage as postgres
from langswarm_session.storage.postgres.storage import PostgresSessionStorage
from langswarm_session.testing import StorageConformance
from langswarm_session.testing.making import completed, lease, new_session, ref, reply, texts, user

NOWHERE = "postgresql://ann:secret@127.0.0.1:1/none"


class TestPostgresSessionStorage(StorageConformance):
    restores_exactly = True
    durable = True

    @pytest.fixture(autouse=True)
    def own_schema(self, postgres_schema: str) -> None:
        self.schema = postgres_schema

    def make_storage(self, tmp_path: Path) -> PostgresSessionStorage:
        return PostgresSessionStorage(postgres_server.dsn(), schema=self.schema)


@pytest.fixture
async def storage(postgres_schema: str) -> AsyncIterator[PostgresSessionStorage]:
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema)
    await storage.create_session(new_session("s"))
    yield storage
    await storage.close()


@asynccontextmanager
async def locked(storage: PostgresSessionStorage, session: str) -> AsyncIterator[None]:
    """Another transaction has the session's row meanwhile."""
    import asyncpg

    connection = await asyncpg.connect(postgres_server.dsn())
    async with connection.transaction():
        query = storage._tables.sql("SELECT 1 FROM {sessions} WHERE session_id = $1 FOR UPDATE")
        await connection.fetch(query, session)
        yield
    await connection.close()


# Making one


async def test_making_one_does_no_io() -> None:
    storage = PostgresSessionStorage(NOWHERE)
    assert storage._engine._thread is None
    await storage.close()
    assert storage._engine._thread is None


async def test_by_name_and_by_url(postgres_schema: str) -> None:
    postgres_server.need()
    options: dict[str, Any] = {"schema": postgres_schema, "table_prefix": "p_"}
    dsn = postgres_server.dsn()
    by_name = StorageFactory.create_storage(
        "postgres", dsn=dsn, min_connections=0, max_connections=3, **options
    )
    by_url = StorageFactory.create_storage(dsn, **options)
    other_url = StorageFactory.create_storage(f"postgres://{dsn.partition('://')[2]}", **options)
    await by_name.create_session(new_session("s"))
    assert await by_url.find_session("s") == await other_url.find_session("s")
    for storage in (by_name, by_url, other_url):
        assert isinstance(storage, PostgresSessionStorage)
        await storage.close()


@pytest.mark.parametrize(
    "options",
    [
        {"dsn": 5},
        {"dsn": "mysql://ann:secret@host/db"},
        {"dsn": "host=localhost password=secret"},
        {"dsn": "postgresql://ann:sec/ret@host/db"},
        {"dsn": "postgresql://ann:sec#ret@host/db"},
        {"dsn": "postgresql://ann:sec?ret@host/db"},
        {"dsn": "postgresql://ann:secret"},
        {"dsn": ""},
        {"dsn": "postgresql://ann:sec@ret@host/db"},
        {"dsn": "postgresql://ann@sec:ret@host/db"},
        {"schema": ""},
        {"schema": "a\0b"},
        {"schema": "s" * 64},
        {"table_prefix": "p" * 46},
        {"table_prefix": 5},
        {"max_connections": 1},
        {"min_connections": -1},
        {"min_connections": 11},
        {"timeout": 0},
        {"connect_timeout": -1},
        {"idle_timeout": 0},
    ],
)
def test_what_cannot_be_used_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        StorageFactory.create_storage("postgres", **options)
    assert "sec" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("timeout", [math.inf, math.nan, 3e6, "30", None, True]),
        ("connect_timeout", [math.inf, math.nan, 3e6, "30", True]),
        ("idle_timeout", [math.inf, math.nan, 3e6, "30", None, True]),
        ("min_connections", [1.0, "1", None, True]),
        ("max_connections", [2.5, "10", None, math.inf]),
        ("max_waiting", [0, 2.5, "10", None, math.inf]),
        ("max_waiting_size", [0, 2.5, "10", None, math.inf]),
        ("prepared_statements", ["no", 1]),
        ("schema", ["\ud800", b"public"]),
        ("table_prefix", ["\ud800", b"p_"]),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(InvalidInputError, match=rf"^{name} must be .*, not "):
            PostgresSessionStorage(**{name: value})


async def test_the_address_may_say_where_the_tables_are(postgres_schema: str) -> None:
    dsn = f"{postgres_server.dsn()}?schema={postgres_schema}&table_prefix=%70_&connect_timeout=5"
    storages = [
        PostgresSessionStorage(dsn),
        StorageFactory.create_storage(dsn),
        PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema, table_prefix="p_"),
        PostgresSessionStorage(dsn.replace("table_prefix=%70_", ""), table_prefix="p_"),
    ]
    await storages[0].create_session(new_session("s"))
    for storage in storages:
        assert (await storage.find_session("s")).session_id == "s"
        assert isinstance(storage, PostgresSessionStorage)
        await storage.close()
    assert storages[0]._settings.connect_timeout == 5
    assert PostgresSessionStorage(dsn, connect_timeout=3)._settings.connect_timeout == 3


@pytest.mark.parametrize("query", ["no_such=secret", "work_mem=lots", "wal_level=logical"])
async def test_a_parameter_that_the_server_does_not_take_is_named(query: str) -> None:
    postgres_server.need()
    storage = PostgresSessionStorage(f"{postgres_server.dsn()}?{query}")
    with pytest.raises(InvalidInputError, match=query.partition("=")[0]) as caught:
        await storage.find_session("s")
    assert "secret" not in str(caught.value)
    await storage.close()


@pytest.mark.parametrize(
    "dsn",
    [
        NOWHERE,
        "postgresql:///none?host=/nowhere&user=ann&password=secret",
        "postgresql://ann:secret@[::1]:1,127.0.0.1:1/none",
        "postgresql://ann:s%2Fecret@127.0.0.1:1/none?sslmode=disable",
    ],
)
async def test_no_password_is_ever_shown(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = PostgresSessionStorage(dsn, password=lambda: "secret", connect_timeout=0.05)
    with pytest.raises(StorageUnavailableError) as caught:
        await storage.find_session("s")
    error: BaseException | None = caught.value
    while error is not None:
        assert "ecret" not in repr(error) + str(error)
        error = error.__cause__
    assert "ecret" not in repr(storage) + str((await storage.health()).detail)
    await storage.close()


@pytest.mark.parametrize("dsn", ["postgresql://u:p@h/d?gsslib=secret", "postgresql://u:p@h:/d"])
async def test_an_address_the_driver_refuses_is_not_shown(dsn: str) -> None:
    storage = PostgresSessionStorage(dsn, connect_timeout=0.05)
    with pytest.raises(SessionError) as caught:
        await storage.find_session("s")
    assert "secret" not in str(caught.value)
    await storage.close()


async def test_a_database_that_is_not_there_is_named(postgres_schema: str) -> None:
    dsn = postgres_server.dsn().rpartition("/")[0] + "/not_there"
    storage = PostgresSessionStorage(dsn)
    with pytest.raises(StorageUnavailableError, match="not_there"):
        await storage.find_session("s")
    await storage.close()


# Names


@pytest.mark.parametrize(
    ("schema", "prefix"),
    [
        ("", ""),
        (" \"'{};--%s$1", "\"'{x} $$ "),
        ("\u00fc\U0001f600", "\u00e9_"),
        ("Upper", "P" * 45),
    ],
)
async def test_any_schema_and_prefix(postgres_schema: str, schema: str, prefix: str) -> None:
    name = f"{postgres_schema[:36]}{schema}"
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=name, table_prefix=prefix)
    beside = PostgresSessionStorage(
        postgres_server.dsn(), schema=name, table_prefix=prefix[:-1] + "x"
    )
    try:
        await asyncio.gather(*(each.create_session(new_session("s")) for each in (storage, beside)))
        await storage.append(ref("s"), [user("a"), reply("b")])
        assert texts(await storage.get_messages(ref("s"))) == ["a", "b"]
        health = await storage.health()
        assert (health.sessions, health.messages) == (1, 2)
        assert (await beside.find_session("s")).message_count == 0
    finally:
        await storage.close()
        await beside.close()
        quoted = name.replace('"', '""')
        await asyncio.to_thread(postgres_server.query, f'DROP SCHEMA "{quoted}" CASCADE')


NULS = "a\0\x01\x010b\x01"


async def test_names_with_nul_are_kept(storage: PostgresSessionStorage) -> None:
    key = IdempotencyKey(f"key{NULS}", f"digest{NULS}")
    begun = lease(token=f"token{NULS}")
    created = await storage.create_session(new_session(NULS, user_id=f"user{NULS}"))
    assert (created.session_id, created.user_id) == (NULS, f"user{NULS}")
    start = await storage.begin_turn(created.ref, [user(NULS, id=NULS)], begun, key=key)
    assert start.record.turn_token == begun.token
    assert await storage.renew_turns({begun.token: created.ref}, 60) == {begun.token}
    await storage.end_turn(
        created.ref, completed(begun), [reply(id=f"{NULS}2", metadata={NULS: NULS})]
    )
    assert (
        await storage.begin_turn(created.ref, [user("x")], lease(), key=IdempotencyKey("k", "d"))
    ).added
    stored = await storage.get_messages(created.ref, limit=2, before=3)
    assert [(m.id, m.text) for m in stored] == [(NULS, NULS), (f"{NULS}2", "hi")]
    assert (await storage.get_turns(created.ref))[0].idempotency_key == key.key
    page = await storage.list_sessions(user_id=f"user{NULS}")
    assert [record.session_id for record in page.records] == [NULS]


async def test_a_huge_message_comes_back(storage: PostgresSessionStorage) -> None:
    huge = "\u00e9x" * 10_000_000
    calls = [storage.append(ref("s"), [user(huge)]), storage.append(ref("s"), [user("b")])]
    await asyncio.gather(*calls)
    read = await storage.get_messages(ref("s"))
    assert sorted(map(len, texts(read))) == [1, len(huge)]
    assert huge in texts(read)


@pytest.mark.parametrize("field", ["session_id", "user_id"])
async def test_a_name_too_long_for_an_index_is_refused(
    storage: PostgresSessionStorage, field: str
) -> None:
    import random

    name = "".join(random.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=20_000))
    session = new_session(**{"session_id": "t", field: name})  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        await storage.create_session(session)


async def test_a_whole_log_is_read_in_its_order_and_not_sorted(
    storage: PostgresSessionStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the planner knows nothing of the tables yet."""
    from langswarm_session.storage.postgres.pool import Connection

    await storage.append(ref("s"), [user(f"{n}") for n in range(3000)])
    fetch, plans = Connection.fetch, []

    async def explain(self: Connection, query: str, *values: Any) -> list[Any]:
        if "langswarm_messages" in query:
            plans.append([row[0] for row in await fetch(self, f"EXPLAIN {query}", *values)])
        return await fetch(self, query, *values)

    monkeypatch.setattr(Connection, "fetch", explain)
    for options in ({}, {"answered_only": True}, {"after": 5}, {"limit": 20}):
        assert await storage.get_messages(ref("s"), **options)
    assert len(plans) == 4
    assert not [line for plan in plans for line in plan if "Sort" in line]


async def test_the_collector_waits_for_a_long_log_but_not_for_a_silent_server(
    storage: PostgresSessionStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from langswarm_session.storage.postgres.pool import Connection

    await storage.append(ref("s"), [user("a")])
    fetch, seen = Connection.fetch, []

    async def stall(self: Connection, query: str, *values: Any) -> list[Any]:
        seen.append(gc.isenabled())
        while not gc.isenabled():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return await fetch(self, query, *values)

    monkeypatch.setattr(postgres, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(Connection, "fetch", stall)
    async with asyncio.timeout(10):
        assert texts(await storage.get_messages(ref("s"))) == ["a"]
    assert seen == [False]
    assert gc.isenabled()


async def test_a_cleanup_does_not_walk_over_what_was_archived(
    storage: PostgresSessionStorage, postgres_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from langswarm_session.storage.postgres.pool import Connection

    fetch, plans = Connection.fetch, []
    table = storage._tables.sql("{sessions}")
    await asyncio.to_thread(
        postgres_server.query,
        f"INSERT INTO {table} (session_id, user_id, provider, model, backend, status, context, "
        "created_at, last_activity) SELECT 'old ' || n, 'u', 'p', 'm', 'hybrid', 'archived', '{}', "
        "n, n * 1000000 FROM generate_series(1::bigint, 5000) AS n",
    )
    await asyncio.to_thread(postgres_server.query, f"ANALYZE {table}")

    async def explain(self: Connection, query: str, *values: Any) -> list[Any]:
        plans.append([row[0] for row in await fetch(self, f"EXPLAIN {query}", *values)])
        return await fetch(self, query, *values)

    monkeypatch.setattr(Connection, "fetch", explain)
    for n in range(8):  # after a few, a prepared statement may get a plan for all values
        since = 5_000_000_000 - n
        page = await storage.list_sessions(status=SessionStatus.ACTIVE, inactive_since=since)
        assert not page.records
    assert len(plans) == 8
    assert not [plan for plan in plans if "langswarm_sessions_of_active" not in "".join(plan)]


# Durability


@pytest.mark.parametrize(("asked", "kept"), [("off", "on"), ("local", "local"), ("on", "on")])
async def test_what_is_acknowledged_is_durable_though_others_commits_are_not(
    postgres_schema: str, asked: str, kept: str
) -> None:
    dsn = f"{postgres_server.dsn()}?synchronous_commit={asked}"
    storage = PostgresSessionStorage(dsn, schema=postgres_schema)
    assert await commits_of(storage, postgres_schema) == {kept}
    assert (await storage.health()).detail is None
    found = {each.check: each for each in await storage.examine()}["synchronous_commit"]
    assert (found.level, found.message.partition(",")[0]) == (Level.OK, asked)
    await storage.close()


async def test_tables_that_a_crash_empties_are_told_of(storage: PostgresSessionStorage) -> None:
    table = storage._tables.sql("{messages}")
    await asyncio.to_thread(postgres_server.query, f"ALTER TABLE {table} SET UNLOGGED")
    health = await storage.health()
    assert (health.ok, "langswarm_messages: unlogged" in str(health.detail)) == (True, True)
    found = {each.check: each for each in await storage.examine()}["tables"]
    assert (found.level, "SET LOGGED" in found.advice) == (Level.PROBLEM, True)


# Users who own nothing


@pytest.fixture
def guest(storage: PostgresSessionStorage, postgres_schema: str) -> Iterator[str]:
    """The address as a user who may read and write the tables, and owns none."""
    schema = f'"{postgres_schema}"'
    tables = f"SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema}"
    with postgres_server.role(f"USAGE ON SCHEMA {schema}", tables) as dsn:
        yield dsn


async def test_a_user_who_may_not_free_what_was_deleted_is_told_so(
    guest: str, postgres_schema: str
) -> None:
    storage = PostgresSessionStorage(guest, schema=postgres_schema)
    await storage.append(ref("s"), [user("a")])
    manager = SessionManager(storage)
    report = await manager.erase_user("user")
    assert report.sessions == ["s"]
    assert isinstance(report.scrub_error, StorageUnavailableError)
    assert "run VACUUM" in str(report.scrub_error)
    assert "langswarm_turns" in str(report.scrub_error)
    await manager.close()


# Gathered writes


async def test_what_does_not_fit_fails_no_other(storage: PostgresSessionStorage) -> None:
    names = [f"s{n}" for n in range(30)]
    await asyncio.gather(*(storage.create_session(new_session(name)) for name in names))
    await storage.append(ref("s0"), [user("a", id="taken")])
    await storage.update_session(ref("s1"), SessionChanges(status=SessionStatus.ARCHIVED))
    await storage.begin_turn(ref("s2"), [user()], lease())
    for _ in range(3):
        outcomes = await asyncio.gather(
            *(storage.append(ref(name), [user("b", id="taken")]) for name in names),
            storage.append(ref("none"), [user()]),
            return_exceptions=True,
        )
        kinds = [type(each).__name__ for each in outcomes]
        assert kinds[:3] == ["MessageConflictError", "SessionInactiveError", "SessionBusyError"]
        assert kinds[3:] == ["Appended"] * 27 + ["SessionNotFoundError"]
    for name in names[3:]:
        assert texts(await storage.get_messages(ref(name))) == ["b"]


async def test_one_sessions_writes_are_made_as_they_came(storage: PostgresSessionStorage) -> None:
    await storage.create_session(new_session("t"))
    calls = [
        storage.append(ref(name), [user(f"{n}", id=f"{n % 25}{name if n < 25 else n}")])
        for n in range(50)
        for name in "st"
    ]
    await asyncio.gather(*calls)
    for name in "st":
        assert texts(await storage.get_messages(ref(name))) == [f"{n}" for n in range(50)]


async def test_a_session_that_others_hold_keeps_none_waiting(
    storage: PostgresSessionStorage,
) -> None:
    names = [f"s{n}" for n in range(12)]
    await asyncio.gather(*(storage.create_session(new_session(name)) for name in names))
    async with locked(storage, "s"):
        held = [asyncio.ensure_future(storage.append(ref("s"), [user(f"{n}")])) for n in range(5)]
        await asyncio.gather(*(storage.append(ref(name), [user()]) for name in names * 5))
        held += [asyncio.ensure_future(storage.append(ref("s"), [user("5")]))]
        await asyncio.gather(*(storage.append(ref(name), [user()]) for name in names))
        assert not any(call.done() for call in held)
    await asyncio.gather(*held)
    assert texts(await storage.get_messages(ref("s"))) == [f"{n}" for n in range(6)]


async def test_a_lock_that_is_held_too_long_is_told_of(postgres_schema: str) -> None:
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema, timeout=0.4)
    await storage.create_session(new_session("s"))
    async with locked(storage, "s"):
        calls = [
            storage.append(ref("s"), [user("a")]),
            storage.update_session(ref("s"), SessionChanges()),
            storage.delete_session(ref("s")),
        ]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in outcomes] == [StorageBusyError] * 3
    await storage.append(ref("s"), [user("b")])
    assert texts(await storage.get_messages(ref("s"))) == ["b"]
    await storage.close()


async def test_a_cancelled_wait_for_a_lock_ends(storage: PostgresSessionStorage) -> None:
    async with locked(storage, "s"):
        call = asyncio.ensure_future(storage.append(ref("s"), [user("a")]))
        await storage.list_sessions()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await storage.append(ref("s"), [user("b")])
    assert texts(await storage.get_messages(ref("s")))[-1] == "b"


async def test_a_clock_that_is_wrong_takes_no_lease(
    storage: PostgresSessionStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    await storage.begin_turn(ref("s"), [user()], lease(60))
    for shift in (10**15, -(10**15)):
        monkeypatch.setattr(time, "time_ns", lambda shift=shift: now + shift)
        with pytest.raises(SessionBusyError):
            await storage.append(ref("s"), [user()])
        created = await storage.create_session(new_session(f"{shift}"))
        assert abs(created.created_at - now // 1000) < 60_000_000


async def test_two_storages_race_on_one_session(
    storage: PostgresSessionStorage, postgres_schema: str
) -> None:
    other = PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema)

    def write(name: str) -> None:
        for n in range(25):
            one = (storage, other)[n % 2]
            bridge.run(one.append(ref("s"), [user(f"{name} {n}"), reply(f"{name} {n}")]))

    async def turns(name: str, one: PostgresSessionStorage) -> int:
        made = 0
        for _ in range(25):
            begun = lease()
            try:
                await one.begin_turn(ref("s"), [user(name)], begun)
            except SessionBusyError:
                continue
            await one.end_turn(ref("s"), completed(begun), [reply(name)])
            made += 1
        return made

    made = await asyncio.gather(turns("x", storage), turns("y", other))
    await asyncio.gather(*(asyncio.to_thread(write, name) for name in "ab"))
    log = await storage.get_messages(ref("s"))
    assert len(log) == 2 * (sum(made) + 50)
    assert [message.seq for message in log] == list(range(1, len(log) + 1))
    assert texts(log[0::2]) == texts(log[1::2])
    for name in "ab":
        mine = [text for text in texts(log[0::2]) if text.startswith(name)]
        assert mine == [f"{name} {n}" for n in range(25)]
    await other.close()


async def test_connections_are_no_more_than_allowed(postgres_schema: str) -> None:
    storage = PostgresSessionStorage(
        postgres_server.dsn(), schema=postgres_schema, max_connections=3, min_connections=0,
        idle_timeout=0.2,
    )  # fmt: skip
    names = [f"s{n}" for n in range(20)]
    await asyncio.gather(*(storage.create_session(new_session(name)) for name in names))
    work = [
        call
        for name in names
        for call in (storage.append(ref(name), [user()]), storage.get_turns(ref(name)))
    ]
    await asyncio.gather(*work, storage.list_sessions())
    pool = storage._engine._jobs.pool
    assert pool is not None
    assert 1 <= len(pool._idle) <= 3
    while pool._idle:  # noqa: ASYNC110 - until they have been idle for too long
        await asyncio.sleep(0.02)
    await storage.find_session("s1")
    await storage.close()


async def test_tables_that_are_gone_are_made_again(
    storage: PostgresSessionStorage, postgres_schema: str
) -> None:
    await asyncio.to_thread(postgres_server.query, f'DROP SCHEMA "{postgres_schema}" CASCADE')
    with pytest.raises(StorageUnavailableError, match="tables"):
        await storage.append(ref("s"), [user()])
    await storage.create_session(new_session("s"))
    await storage.append(ref("s"), [user()])


async def test_a_conflict_names_the_session(storage: PostgresSessionStorage) -> None:
    await storage.append(ref("s"), [user("a", id="x")])
    with pytest.raises(MessageConflictError) as caught:
        await storage.append(ref("s"), [user("b", id="x")])
    assert caught.value.session_id == "s"
    await storage.update_session(ref("s"), SessionChanges(status=SessionStatus.PAUSED))
    with pytest.raises(SessionInactiveError):
        await storage.append(ref("s"), [user("b")])
