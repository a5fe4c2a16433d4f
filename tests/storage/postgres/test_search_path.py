"""Code that others put where the server may look for ours: none of it is run."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import postgres_server
import pytest
from edited_by_hand import fill, use

from langswarm_session import PostgresSessionStorage, StorageCorruptError
from langswarm_session.findings import Level
from langswarm_session.storage.postgres import pool as postgres_pool
from langswarm_session.storage.postgres.schema import MIGRATIONS, Tables
from langswarm_session.testing.making import new_session, ref, texts, user

TRAPS = """
DO $do$
DECLARE
    f record;
    body text := $$BEGIN RAISE EXCEPTION 'a stranger''s code was run'; END$$;
BEGIN
    FOR f IN SELECT proname AS name, pg_get_function_identity_arguments(oid) AS arguments,
            pg_get_function_result(oid) AS result
        FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f'
            AND prorettype <> 'record'::regtype
            AND proname IN ('unnest', 'replace', 'current_setting', 'set_config', 'clock_timestamp',
                'pg_advisory_xact_lock', 'pg_current_xact_id_if_assigned', 'pg_xact_status',
                'pg_total_relation_size', 'pg_backend_pid', 'date_part', 'extract', 'quote_ident',
                'cardinality', 'array_fill', 'has_schema_privilege', 'has_database_privilege',
                'has_function_privilege', 'pg_has_role', 'pg_is_in_recovery', 'current_database')
    LOOP
        EXECUTE format('CREATE FUNCTION %I.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L',
            '{schema}', f.name, f.arguments, f.result, body);
    END LOOP;
    FOR f IN SELECT oid, oprname AS name, oprleft::regtype AS l, oprright::regtype AS r,
            oprresult::regtype AS result
        FROM pg_operator WHERE oprkind = 'b' AND oprnamespace = 'pg_catalog'::regnamespace
            AND oprname IN ('=', '<>', '<', '>', '<=', '>=', '+', '-', '*', '/', '||', '~~*')
            AND oprleft::regtype::text IN ('smallint', 'integer', 'bigint', 'numeric', 'text',
                'name', 'boolean', 'bytea', 'oid', 'anyarray')
    LOOP
        EXECUTE format('CREATE FUNCTION %I.trap_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L',
            '{schema}', f.oid, f.l, f.r, f.result, body);
        EXECUTE format('CREATE OPERATOR %I.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = %I.trap_%s)',
            '{schema}', f.name, f.l, f.r, '{schema}', f.oid);
    END LOOP;
END
$do$
"""
"""Puts a function and an operator of the same signature beside each of PostgreSQL's that we use."""

BETTER = """
CREATE FUNCTION "{schema}".unnest(a text[]) RETURNS SETOF text LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION 'a stranger''s code was run'; END$$
"""
"""Fits better than PostgreSQL's own, so that it is preferred wherever its schema is in the path."""

WRITE = """
CREATE FUNCTION "{schema}".langswarm_write_together({types}) RETURNS SETOF text LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION 'a stranger''s code was run'; END$$
"""


AS_POOLED = "SELECT NULL -- {} {}"
"""What a connection is told by a pooler, which cannot be told by the server."""


@contextmanager
def trapped(schema: str, path: str, *traps: str) -> Iterator[str]:
    """The address as a user who owns a schema, and whose path leads over one with traps in it."""
    postgres_server.need_right("rolcreaterole")
    with postgres_server.schema() as evil:
        postgres_server.query(f'CREATE SCHEMA "{evil}"')
        for trap in traps:
            postgres_server.query(trap.replace("{schema}", evil))
        with postgres_server.role(f'USAGE ON SCHEMA "{evil}"') as dsn:
            user_name = urlsplit(dsn).username
            postgres_server.query(f'CREATE SCHEMA "{schema}" AUTHORIZATION {user_name}')
            path = path.format(f'"{evil}"')
            postgres_server.query(f"ALTER ROLE {user_name} SET search_path = {path}")
            yield dsn
            postgres_server.query(f"DROP OWNED BY {user_name} CASCADE")


@pytest.fixture(params=["direct", "pooled"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the server is reached; as through a pooler, which cannot be told by the server."""
    if request.param == "pooled":
        monkeypatch.setattr(postgres_pool, "_GREET", AS_POOLED)
    return request.param


@pytest.mark.parametrize(
    ("path", "traps"),
    [
        ('"$user", {}, public', [BETTER]),
        ("{}, pg_catalog", [TRAPS]),
        ("pg_temp, {}, pg_catalog", [TRAPS, BETTER]),
    ],
    ids=["overloads", "same names", "both"],
)
async def test_nothing_is_run_that_is_not_ours(
    way: str, path: str, traps: list[str], postgres_schema: str
) -> None:
    with trapped(postgres_schema, path, *traps) as dsn:
        storage = PostgresSessionStorage(dsn, schema=postgres_schema)
        await fill(storage)
        together = [storage.append(ref("other"), [user(str(n))]) for n in range(5)]
        others = [storage.create_session(new_session(f"s{n}")) for n in range(5)]
        await asyncio.gather(*together, *others)
        await asyncio.gather(*(storage.append(ref(f"s{n}"), [user("a")]) for n in range(5)))
        health = await storage.health()
        assert health.ok, health.detail
        levels = {each.level for each in await storage.examine(full=True)}
        assert Level.PROBLEM not in levels
        await storage.scrub()
        assert await use(storage) == []


async def test_a_transaction_through_a_pooler_leaves_the_path_as_it_was(
    postgres_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_pool, "_GREET", AS_POOLED)
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema)
    await storage.create_session(new_session("s"))
    await storage.get_messages(ref("s"))
    await storage.append(ref("s"), [user("a")])
    [connection] = storage._engine._jobs.pool._idle  # type: ignore[union-attr]
    work = connection._raw.fetchval("SHOW search_path")
    found = asyncio.run_coroutine_threadsafe(work, storage._engine._loop)  # type: ignore[arg-type]
    assert await asyncio.wrap_future(found) == '"$user", public'
    await storage.close()


async def test_a_function_beside_ours_is_not_taken_for_it(postgres_schema: str) -> None:
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema)
    await storage.create_session(new_session("s"))
    types = ", ".join(["text"] * 25)
    planted = WRITE.replace("{schema}", postgres_schema).replace("{types}", types)
    await asyncio.to_thread(postgres_server.query, planted)
    session = [new_session(f"s{n}") for n in range(4)]
    await asyncio.gather(*map(storage.create_session, session))
    await asyncio.gather(*(storage.append(ref(f"s{n}"), [user(str(n))]) for n in range(4)))
    assert texts(await storage.get_messages(ref("s3"))) == ["3"]
    await storage.close()


async def test_the_functions_have_a_path_of_their_own(postgres_schema: str) -> None:
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema)
    await storage.list_sessions()
    await storage.close()
    rows = await asyncio.to_thread(
        postgres_server.query,
        "SELECT proname, proconfig FROM pg_proc WHERE pronamespace = $1::regnamespace",
        f'"{postgres_schema}"',
    )
    assert sorted(row[0] for row in rows) == ["langswarm_write", "langswarm_write_together"]
    for row in rows:
        assert "search_path=pg_catalog, pg_temp" in row[1]


# Tables that were there before ours


async def plant(dsn: str, schema: str) -> None:
    """Make our tables as another user, who might have put anything into them."""
    connection = await asyncpg.connect(dsn)
    tables = Tables(schema, "langswarm_")
    await connection.execute(tables.sql("CREATE TABLE {schema_version} (version int PRIMARY KEY)"))
    for number, statements in enumerate(MIGRATIONS, 1):
        for statement in statements:
            await connection.execute(tables.sql(statement))
        await connection.execute(tables.sql(f"INSERT INTO {{schema_version}} VALUES ({number})"))
    for table in ("sessions", "messages", "turns", "schema_version"):
        name = tables.sql(f"{{{table}}}")
        await connection.execute(f"GRANT ALL ON {name} TO PUBLIC")
    await connection.close()


@pytest.fixture
async def open_schema(postgres_schema: str) -> AsyncIterator[tuple[str, str, str]]:
    """A schema in which everybody may create what they like, and two users."""
    await asyncio.to_thread(postgres_server.need_right, "rolcreaterole")
    postgres_server.query(f'CREATE SCHEMA "{postgres_schema}"')
    postgres_server.query(f'GRANT CREATE, USAGE ON SCHEMA "{postgres_schema}" TO PUBLIC')
    with postgres_server.role() as stranger, postgres_server.role() as own:
        yield postgres_schema, stranger, own
        postgres_server.query(f"DROP OWNED BY {urlsplit(stranger).username} CASCADE")
        postgres_server.query(f"DROP OWNED BY {urlsplit(own).username} CASCADE")


async def refused(dsn: str, schema: str) -> bool:
    storage = PostgresSessionStorage(dsn, schema=schema)
    try:
        await storage.create_session(new_session(uuid.uuid4().hex))
    except StorageCorruptError as error:
        return "may have put them there" in str(error)
    finally:
        await storage.close()
    return False


async def problems(dsn: str, schema: str) -> dict[str, Any]:
    storage = PostgresSessionStorage(dsn, schema=schema)
    found = await storage.examine()
    await storage.close()
    return {each.check: each.message for each in found if each.level is Level.PROBLEM}


async def test_tables_that_a_stranger_may_have_put_there_are_refused(
    open_schema: tuple[str, str, str],
) -> None:
    schema, stranger, own = open_schema
    await plant(stranger, schema)
    assert await refused(own, schema)
    assert "may have put them there" in (await problems(own, schema))["schema"]
    # Whoever made them, and who stands for them, may use them.
    assert not await refused(stranger, schema)
    postgres_server.query(f"GRANT {urlsplit(stranger).username} TO {urlsplit(own).username}")
    assert not await refused(own, schema)


async def test_tables_in_a_schema_that_is_not_open_to_all_are_trusted(
    open_schema: tuple[str, str, str],
) -> None:
    schema, stranger, own = open_schema
    await plant(stranger, schema)
    postgres_server.query(f'REVOKE CREATE ON SCHEMA "{schema}" FROM PUBLIC')
    assert not await refused(own, schema)


async def test_tables_of_the_schemas_owner_are_trusted(open_schema: tuple[str, str, str]) -> None:
    schema, stranger, own = open_schema
    await plant(stranger, schema)
    postgres_server.query(f'ALTER SCHEMA "{schema}" OWNER TO {urlsplit(stranger).username}')
    assert not await refused(own, schema)
    postgres_server.query(f'ALTER SCHEMA "{schema}" OWNER TO CURRENT_USER')
