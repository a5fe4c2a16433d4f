"""How what a PostgreSQL storage writes is committed, in each of the ways in which it writes."""

from __future__ import annotations

import asyncio

import postgres_server

from langswarm_session.records import IdempotencyKey
from langswarm_session.storage.postgres.storage import PostgresSessionStorage
from langswarm_session.testing.making import new_session, ref, user


async def commits_of(storage: PostgresSessionStorage, schema: str) -> set[str]:
    """The values that ``synchronous_commit`` has when the storage's writes are committed."""
    names = [f"s{n}" for n in range(5)]
    await asyncio.gather(*(storage.create_session(new_session(name)) for name in names))
    await asyncio.to_thread(_watch, schema)
    for n in range(3):
        await storage.append(ref("s0"), [user(f"{n}")])
    await asyncio.gather(*(storage.append(ref(name), [user("a")]) for name in names * 4))
    log = await storage.append(ref("s0"), [user("b")], key=IdempotencyKey("k", "d"))
    await storage.edit_messages(ref("s0"), expected_revision=log.record.revision, add=[user("c")])
    query = f'SELECT setting FROM "{schema}".commits'
    rows = await asyncio.to_thread(postgres_server.query, query)
    assert len(rows) == 3 + 4 * len(names) + 2
    return {row[0] for row in rows}


def _watch(schema: str) -> None:
    """Have each message leave a note when it is committed."""
    own = f'"{schema}"'
    postgres_server.query(f"CREATE TABLE {own}.commits (setting text)")
    postgres_server.query(
        f"CREATE FUNCTION {own}.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"INSERT INTO {own}.commits VALUES (current_setting('synchronous_commit')); "
        "RETURN NULL; END $$"
    )
    postgres_server.query(
        f"CREATE CONSTRAINT TRIGGER note AFTER INSERT ON {own}.langswarm_messages "
        f"DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {own}.note()"
    )
