from __future__ import annotations

import asyncio
import uuid
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import postgres_server
import pytest
from postgres_proxy import proxy

from langswarm_session import SessionError
from langswarm_session.findings import Finding, Level
from langswarm_session.storage.examining import TimeLimit
from langswarm_session.storage.postgres import examine as postgres_examine
from langswarm_session.storage.postgres.storage import PostgresSessionStorage
from langswarm_session.storage.rows import decode_message
from langswarm_session.testing.making import new_session, ref, reply, user


@pytest.fixture
async def schema(postgres_schema: str) -> str:
    """A schema with a session of two messages."""
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema)
    await storage.create_session(new_session("s"))
    await storage.append(ref("s"), [user("a"), reply("b")])
    await storage.close()
    return postgres_schema


async def examined(
    schema: str,
    dsn: str | None = None,
    *,
    full: bool = True,
    seconds: float = 300.0,
    **options: Any,
) -> dict[str, Finding]:
    storage = PostgresSessionStorage(dsn or postgres_server.dsn(), schema=schema, **options)
    found = await storage.examine(full=full, seconds=seconds)
    await storage.close()
    assert all(each.advice for each in found if each.level is not Level.OK)
    return {each.check: each for each in found}


async def problems(schema: str, dsn: str | None = None, **options: Any) -> dict[str, str]:
    found = await examined(schema, dsn, **options)
    wrong = [each for each in found.values() if each.level is Level.PROBLEM]
    return {each.check: f"{each.message} -> {each.advice}" for each in wrong}


async def ask(statement: str) -> None:
    await asyncio.to_thread(postgres_server.query, statement)


async def test_nothing_is_wrong(schema: str) -> None:
    found = await examined(schema)
    assert [each.level for each in found.values()] == [Level.OK] * len(found)
    assert found["messages"].message == "every one can be read"


async def test_every_message_is_looked_at(schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_examine, "_PORTION", 1)
    await ask(f"UPDATE \"{schema}\".langswarm_messages SET extra = '{{'")
    assert "2 cannot be read" in (await problems(schema))["messages"]


@pytest.mark.parametrize("table", ["messages", "turns", "sessions", "schema_version"])
async def test_a_table_that_is_gone(schema: str, table: str) -> None:
    await ask(f'DROP TABLE "{schema}".langswarm_{table} CASCADE')
    assert f"gone (langswarm_{table})" in (await problems(schema))["schema"]


async def test_a_function_that_is_gone(schema: str) -> None:
    await ask(f'DROP FUNCTION "{schema}".langswarm_write_together')
    assert "langswarm_write_together is gone" in (await problems(schema))["function"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DROP COLUMN version, ADD COLUMN a int", "not as they were made"),
        ("ALTER COLUMN version TYPE text", "holds no version"),
    ],
)
async def test_a_version_of_another_program(schema: str, change: str, said: str) -> None:
    await ask(f'ALTER TABLE "{schema}".langswarm_schema_version {change}')
    assert [said in each for each in (await problems(schema)).values()] == [True]


async def test_a_newer_version(schema: str) -> None:
    await ask(f'INSERT INTO "{schema}".langswarm_schema_version VALUES (99)')
    assert "upgrade the package" in (await problems(schema))["schema"]


async def test_tables_that_this_user_may_not_read(schema: str) -> None:
    with postgres_server.role(f'USAGE ON SCHEMA "{schema}"') as dsn:
        said = (await problems(schema, dsn))["storage"]
    assert "no permission" in said
    assert "GRANT" in said


# Where nothing is yet


async def refused_as_foreseen(schema: str, dsn: str, said: str) -> None:
    assert said in (await problems(schema, dsn))["schema"]
    storage = PostgresSessionStorage(dsn, schema=schema)
    with pytest.raises(SessionError):
        await storage.create_session(new_session("s"))
    await storage.close()


async def test_a_user_who_may_not_make_the_tables(postgres_schema: str) -> None:
    with postgres_server.role() as dsn:
        await refused_as_foreseen(postgres_schema, dsn, "GRANT CREATE")
        await ask(f'CREATE SCHEMA "{postgres_schema}"')
        await refused_as_foreseen(postgres_schema, dsn, "GRANT CREATE")


async def test_a_server_that_is_read_only(postgres_schema: str) -> None:
    dsn = f"{postgres_server.dsn()}?default_transaction_read_only=on"
    await refused_as_foreseen(postgres_schema, dsn, "the server is read-only")


async def test_a_database_that_cannot_hold_every_text(postgres_schema: str) -> None:
    await asyncio.to_thread(postgres_server.need_right, "rolcreatedb")
    name = f"langswarm_test_{uuid.uuid4().hex}"
    kind = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    await ask(f"CREATE DATABASE {name} {kind}")
    try:
        dsn = urlsplit(postgres_server.dsn())._replace(path=f"/{name}").geturl()
        await refused_as_foreseen(postgres_schema, dsn, "the encoding is LATIN1")
    finally:
        await ask(f"DROP DATABASE {name} WITH (FORCE)")


# A server that does not answer


async def test_a_server_that_refuses_says_why(postgres_schema: str) -> None:
    postgres_server.need()
    dsn = urlsplit(postgres_server.dsn())._replace(path="/not_there").geturl()
    assert "there is no such database" in (await problems(postgres_schema, dsn))["server"]


async def test_tables_that_somebody_keeps_locked(schema: str) -> None:
    other = await asyncpg.connect(postgres_server.dsn())
    async with other.transaction():
        await other.execute(f'LOCK TABLE "{schema}".langswarm_messages')
        wrong = await problems(schema, timeout=0.2)
    await other.close()
    assert "0.2 seconds" in wrong["storage"]
    assert "pg_stat_activity" in wrong["storage"]


async def test_a_connection_that_breaks(schema: str) -> None:
    with proxy(postgres_server.port()) as between:
        between.before = lambda data: b"indisvalid" in data
        found = await examined(schema, postgres_server.through(between.port))
    assert found["figures"].level is Level.OK
    assert "the connection broke" in found["storage"].message


async def examined_by_a_silent_server(
    schema: str, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> dict[str, Finding]:
    monkeypatch.setattr(postgres_examine, "_TO_TELL", 0.1)
    with proxy(postgres_server.port()) as between:

        def stall(data: bytes) -> bool:
            between.stalls = between.stalls or b"indisvalid" in data
            return False

        between.before = stall
        async with asyncio.timeout(20):
            found = await examined(schema, postgres_server.through(between.port), **options)
        between.stalls = False
    assert found["figures"].level is Level.OK
    return found


async def test_a_server_that_falls_silent(schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await examined_by_a_silent_server(schema, monkeypatch, full=False, timeout=0.5)
    assert "did not answer in time" in found["storage"].message


# A limited time


async def test_a_server_that_falls_silent_ends_even_a_look_at_everything(
    schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await examined_by_a_silent_server(schema, monkeypatch, seconds=5)
    assert "5 seconds were over at the figures" in found["time"].message
    assert found["time"].level is Level.WARNING
    assert "messages" not in found


async def test_what_was_read_before_the_time_was_over(
    schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(f'UPDATE "{schema}".langswarm_messages SET role = 99')
    monkeypatch.setattr(postgres_examine, "_PORTION", 1)
    monkeypatch.setattr(postgres_examine, "_TO_TELL", 0.0)
    limits: list[TimeLimit] = []

    class Noted(TimeLimit):
        def __init__(self, seconds: float) -> None:
            super().__init__(seconds)
            limits.append(self)

    def decode(row: Any) -> Any:
        limits[0]._end = 0.0
        return decode_message(row)

    monkeypatch.setattr(postgres_examine, "TimeLimit", Noted)
    monkeypatch.setattr(postgres_examine, "decode_message", decode)
    found = await examined(schema)
    assert "1 cannot be read" in found["messages"].message
    assert "over at the messages, of which 1 were read" in found["time"].message


# The schema as it should be


CHANGES = {
    "an index that is gone": ("DROP INDEX {s}.langswarm_messages_by_id", "UNIQUE (id, session)"),
    "one that is no longer unique": (
        ("DROP INDEX {s}.langswarm_messages_by_id; "
        "CREATE INDEX langswarm_messages_by_id ON {s}.langswarm_messages (id, session)"),
        "UNIQUE (id, session) is missing",
    ),
    "one that refuses rows": (
        "CREATE UNIQUE INDEX evil ON {s}.langswarm_messages (role)", "another index"
    ),
    "a partial one without its condition": (
        ("DROP INDEX {s}.langswarm_sessions_of_active; "
        "CREATE INDEX langswarm_sessions_of_active ON {s}.langswarm_sessions (active_minute DESC)"),
        "WHERE (status = 'active'::text) is missing",
    ),
    "a key that is gone": (
        "ALTER TABLE {s}.langswarm_turns DROP CONSTRAINT langswarm_turns_pkey",
        "UNIQUE (session, turn) is missing",
    ),
    "a column that is gone": ("ALTER TABLE {s}.langswarm_turns DROP COLUMN error", "column error"),
    "a column of another type": (
        "ALTER TABLE {s}.langswarm_messages ALTER seq TYPE numeric", "seq is numeric NOT NULL"
    ),
    "a column that may be empty": (
        "ALTER TABLE {s}.langswarm_sessions ALTER user_id DROP NOT NULL", "user_id is text"
    ),
    "a column with another collation": (
        'ALTER TABLE {s}.langswarm_sessions ALTER user_id TYPE text COLLATE "POSIX"',
        "user_id is text COLLATE POSIX",
    ),
    "a column without its default": (
        "ALTER TABLE {s}.langswarm_sessions ALTER errors DROP DEFAULT", "errors is bigint NOT NULL,"
    ),
    "a column that is not computed": (
        "ALTER TABLE {s}.langswarm_sessions ALTER active_minute DROP EXPRESSION",
        "active_minute is bigint NOT NULL,",
    ),
    "another column": ("ALTER TABLE {s}.langswarm_turns ADD evil text", "another column: evil"),
    "a constraint": (
        "ALTER TABLE {s}.langswarm_messages ADD CONSTRAINT evil CHECK (seq < 9)", "evil CHECK"
    ),
    "a trigger": (
        ("CREATE FUNCTION {s}.evil() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
        "CREATE TRIGGER evil BEFORE INSERT ON {s}.langswarm_messages FOR EACH ROW "
        "EXECUTE FUNCTION {s}.evil()"),
        "triggers, which are not of this package: evil",
    ),
    "a rule": (
        "CREATE RULE evil AS ON INSERT TO {s}.langswarm_turns DO INSTEAD NOTHING", "has rules"
    ),
    "row security": (
        "ALTER TABLE {s}.langswarm_messages ENABLE ROW LEVEL SECURITY", "row security"
    ),
    "a view in a table's place": (
        ("ALTER TABLE {s}.langswarm_turns RENAME TO other; "
        "CREATE VIEW {s}.langswarm_turns AS SELECT * FROM {s}.other"),
        "langswarm_turns is not a table",
    ),
    "another function": (
        "ALTER FUNCTION {s}.langswarm_write_together SECURITY DEFINER",
        "langswarm_write_together is not the one",
    ),
    "a function with another path": (
        "ALTER FUNCTION {s}.langswarm_write SET search_path = public",
        "langswarm_write has other settings",
    ),
    "a function beside ours": (
        "CREATE FUNCTION {s}.langswarm_write(a int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "more than once",
    ),
    "a function that is gone": ("DROP FUNCTION {s}.langswarm_write", "langswarm_write is missing"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
async def test_what_is_not_as_it_was_made(schema: str, change: str) -> None:
    statements, said = CHANGES[change]
    for statement in statements.split("; ") if "'BEGIN" not in statements else [statements]:
        await execute(statement.replace("{s}", f'"{schema}"'))
    assert said in (await problems(schema))["objects"]


async def execute(script: str) -> None:
    connection = await asyncpg.connect(postgres_server.dsn())
    await connection.execute(script)
    await connection.close()


async def test_an_index_that_costs_writes_alone_is_no_problem(schema: str) -> None:
    await execute(f'CREATE INDEX ON "{schema}".langswarm_messages (timestamp)')
    assert await problems(schema) == {}


async def test_a_rule_that_was_dropped_is_no_problem(schema: str) -> None:
    rule = f'ON "{schema}".langswarm_turns'
    await execute(f"CREATE RULE evil AS {rule.replace('ON', 'ON INSERT TO')} DO INSTEAD NOTHING")
    await execute(f"DROP RULE evil {rule}")
    assert await problems(schema) == {}


# Who may do what


async def test_tables_that_everybody_may_read(schema: str) -> None:
    await execute(f'GRANT SELECT ON "{schema}".langswarm_messages TO PUBLIC')
    assert "everybody who can connect may read" in (await problems(schema))["access"]


async def test_a_schema_in_which_everybody_may_create(schema: str) -> None:
    await execute(f'GRANT CREATE ON SCHEMA "{schema}" TO PUBLIC')
    found = (await examined(schema))["access"]
    assert found.level is Level.WARNING
    assert "REVOKE CREATE ON SCHEMA" in found.advice


async def test_a_session_that_cannot_be_read(schema: str) -> None:
    await ask(f"UPDATE \"{schema}\".langswarm_sessions SET context = '[]'")
    assert "1 cannot be read" in (await problems(schema))["sessions"]
