from __future__ import annotations

import asyncio
from typing import Any

import postgres_server
import pytest

from langswarm_session import StorageCorruptError, StorageUnavailableError, StorageVersionError
from langswarm_session.storage.postgres import schema as postgres_schema
from langswarm_session.storage.postgres import storage as postgres
from langswarm_session.storage.postgres.storage import PostgresSessionStorage
from langswarm_session.testing.making import new_session, ref, reply, texts, user


def open_storage(schema: str, **options: Any) -> PostgresSessionStorage:
    return PostgresSessionStorage(postgres_server.dsn(), schema=schema, **options)


@pytest.fixture(autouse=True)
def own_migrations(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The migrations, to which a test may add one of its own."""
    migrations = list(postgres_schema.MIGRATIONS)
    monkeypatch.setattr(postgres_schema, "MIGRATIONS", migrations)
    monkeypatch.setattr(postgres, "MIGRATIONS", migrations)
    return migrations


def ask(schema: str, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in postgres_server.query(query.format(f'"{schema}"'))]


async def test_storages_that_open_at_once(postgres_schema: str) -> None:
    storages = [open_storage(postgres_schema, table_prefix=f"p{n % 3}_") for n in range(9)]
    await asyncio.gather(
        *(each.create_session(new_session(f"{n}")) for n, each in enumerate(storages))
    )
    for each in storages:
        assert len((await each.list_sessions()).records) == 3
        assert (await each.health()).schema_version == len(postgres.MIGRATIONS)
        await each.close()


async def test_a_lock_timeout_of_the_users_lets_storages_open_at_once(postgres_schema: str) -> None:
    storages = [
        PostgresSessionStorage(
            f"{postgres_server.dsn()}?lock_timeout=1", schema=postgres_schema, table_prefix=f"p{n}_"
        )
        for n in range(6)
    ]
    await asyncio.gather(*(each.create_session(new_session("s")) for each in storages))
    for each in storages:
        await each.close()


async def test_an_older_schema_becomes_a_newer_one_once(
    postgres_schema: str, own_migrations: list[list[str]]
) -> None:
    old = open_storage(postgres_schema)
    await old.create_session(new_session("s"))
    await old.append(ref("s"), [user("a"), reply("b")])
    own_migrations.append(
        [
            "ALTER TABLE {sessions} ADD COLUMN extra text",
            "ALTER TABLE {turns} ADD COLUMN extra text",
        ]
    )
    new = [open_storage(postgres_schema) for _ in range(4)]
    logs = await asyncio.gather(*(each.get_messages(ref("s")) for each in new))
    assert [texts(each) for each in logs] == [["a", "b"]] * 4
    # The older one goes on as well, as the statements name their columns.
    for each in (old, *new):
        await each.append(ref("s"), [user("c")])
    assert len(await old.get_messages(ref("s"))) == 7
    query = "SELECT version FROM {}.langswarm_schema_version ORDER BY version"
    versions = [(n,) for n in range(1, len(own_migrations) + 1)]
    assert await asyncio.to_thread(ask, postgres_schema, query) == versions
    for each in (old, *new):
        await each.close()


async def test_a_schema_of_version_1_becomes_the_newest_in_place(
    postgres_schema: str, own_migrations: list[list[str]]
) -> None:
    newest = own_migrations[1:]
    del own_migrations[1:]
    first = open_storage(postgres_schema)
    await first.create_session(new_session("s"))
    await first.close()
    own_migrations += newest
    storages = [open_storage(postgres_schema) for _ in range(5)]
    await asyncio.gather(
        *(each.append(ref("s"), [user(f"{n}"), reply(f"{n}")]) for n, each in enumerate(storages))
    )
    log = await storages[0].get_messages(ref("s"))
    assert sorted(texts(log)) == sorted(f"{n}" for n in range(5) for _ in "ab")
    for each in storages:
        assert (await each.health()).schema_version == len(postgres.MIGRATIONS)
        await each.close()
    # A process of the version before calls this one, until it is started anew.
    query = "SELECT pronamespace::regnamespace::text FROM pg_proc WHERE proname = 'langswarm_write'"
    assert (postgres_schema,) in await asyncio.to_thread(ask, postgres_schema, query)


async def test_a_migration_that_fails_leaves_all_as_it_was(
    postgres_schema: str, own_migrations: list[list[str]]
) -> None:
    old = open_storage(postgres_schema)
    await old.create_session(new_session("s"))
    own_migrations.append(["ALTER TABLE {sessions} ADD COLUMN extra text", "SELECT 1/0"])
    new = open_storage(postgres_schema)
    for _ in range(2):
        with pytest.raises(Exception, match="division by zero"):
            await new.find_session("s")
    del own_migrations[-1]
    await new.append(ref("s"), [user("a")])
    query = "SELECT version FROM {}.langswarm_schema_version ORDER BY version"
    versions = [(n,) for n in range(1, len(own_migrations) + 1)]
    assert await asyncio.to_thread(ask, postgres_schema, query) == versions
    await old.close()
    await new.close()


async def test_a_newer_schema_is_refused_and_left_alone(postgres_schema: str) -> None:
    old = open_storage(postgres_schema)
    await old.create_session(new_session("s"))
    await old.close()
    await asyncio.to_thread(
        ask, postgres_schema, "INSERT INTO {}.langswarm_schema_version VALUES (99)"
    )
    storage = open_storage(postgres_schema)
    for _ in range(2):
        with pytest.raises(StorageVersionError, match="99"):
            await storage.append(ref("s"), [user()])
    health = await storage.health()
    assert (health.ok, "upgrade" in str(health.detail)) == (False, True)
    await storage.close()
    count = "SELECT message_count FROM {}.langswarm_sessions"
    assert await asyncio.to_thread(ask, postgres_schema, count) == [(0,)]


async def test_tables_of_another_program_are_left_alone(postgres_schema: str) -> None:
    await asyncio.to_thread(ask, postgres_schema, "CREATE SCHEMA {}")
    await asyncio.to_thread(ask, postgres_schema, "CREATE TABLE {}.langswarm_messages (a int)")
    storage = open_storage(postgres_schema)
    with pytest.raises(StorageCorruptError, match="table_prefix"):
        await storage.create_session(new_session("s"))
    await storage.close()
    tables = f"SELECT tablename::text FROM pg_tables WHERE schemaname = '{postgres_schema}'"
    assert await asyncio.to_thread(ask, postgres_schema, tables) == [("langswarm_messages",)]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TYPE {}.langswarm_turns AS ENUM ()",
        "CREATE VIEW {}.langswarm_messages_by_id AS SELECT 1",
        "CREATE TABLE {}.langswarm_schema_version AS SELECT 'x' AS version",
    ],
)
async def test_names_that_something_else_has_are_told_of(
    postgres_schema: str, statement: str
) -> None:
    await asyncio.to_thread(ask, postgres_schema, "CREATE SCHEMA {}")
    await asyncio.to_thread(ask, postgres_schema, statement)
    storage = open_storage(postgres_schema)
    for _ in range(2):
        with pytest.raises(StorageCorruptError, match="table_prefix"):
            await storage.create_session(new_session("s"))
    await storage.close()


@pytest.mark.parametrize("lost", ["messages", "turns", "sessions", "schema_version"])
async def test_tables_of_which_some_are_gone_are_no_new_ones(
    postgres_schema: str, lost: str
) -> None:
    old = open_storage(postgres_schema)
    await old.create_session(new_session("s"))
    await asyncio.to_thread(ask, postgres_schema, f"DROP TABLE {{}}.langswarm_{lost} CASCADE")
    storages = [old, open_storage(postgres_schema)]
    if lost == "schema_version":
        await storages.pop(0).append(ref("s"), [user()])  # it has no need of it any more
    else:
        assert "restore" in str((await old.health()).detail)
    for each in storages:
        for _ in range(2):
            with pytest.raises(StorageCorruptError, match=f"gone .langswarm_{lost}.: restore"):
                await each.append(ref("s"), [user()])
        await each.close()
    await old.close()


async def test_tables_without_a_version_are_no_new_ones(postgres_schema: str) -> None:
    for again in (False, True):
        storage = open_storage(postgres_schema)
        if again:
            with pytest.raises(StorageCorruptError, match="no version"):
                await storage.find_session("s")
        else:
            await storage.create_session(new_session("s"))
        await storage.close()
        await asyncio.to_thread(ask, postgres_schema, "DELETE FROM {}.langswarm_schema_version")


async def test_tables_that_are_all_gone_are_made_again_beside_what_is_left(
    postgres_schema: str,
) -> None:
    storage = open_storage(postgres_schema)
    await storage.create_session(new_session("s"))
    tables = ", ".join(
        f"{{0}}.langswarm_{each}" for each in ("messages", "turns", "sessions", "schema_version")
    )
    await asyncio.to_thread(ask, postgres_schema, f"DROP TABLE {tables} CASCADE")
    with pytest.raises(StorageUnavailableError, match="makes them again"):
        await storage.append(ref("s"), [user()])
    names = [f"t{n}" for n in range(5)]
    await asyncio.gather(*(storage.create_session(new_session(name)) for name in names))
    await asyncio.gather(*(storage.append(ref(name), [user()]) for name in names))
    assert (await storage.health()).messages == 5
    await storage.close()


async def test_a_column_that_is_gone_is_told_of(postgres_schema: str) -> None:
    storage = open_storage(postgres_schema)
    await storage.create_session(new_session("s"))
    change = "ALTER TABLE {}.langswarm_messages DROP COLUMN extra"
    await asyncio.to_thread(ask, postgres_schema, change)
    with pytest.raises(StorageCorruptError, match="not as they were made"):
        await storage.append(ref("s"), [user()])
    await storage.close()
