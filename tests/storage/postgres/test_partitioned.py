"""The tables that grow, partitioned by session as ``docs/scaling.md`` says: all promises hold."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import postgres_server
import pytest

from langswarm_session.findings import Level
from langswarm_session.storage.postgres.storage import PostgresSessionStorage
from langswarm_session.storage.postgres.transactions import OWN
from langswarm_session.testing.making import new_session, ref, user
from langswarm_session.testing.storage_turns import TurnTests

DOCUMENT = Path(__file__).parents[3] / "docs" / "scaling.md"


def recipe() -> str:
    """The document's SQL."""
    (sql,) = re.findall(r"^```sql\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    return str(sql)


def run_in(schema: str, script: str) -> None:
    """Run a script as psql would in this schema."""

    async def run() -> None:
        import asyncpg

        connection = await asyncpg.connect(postgres_server.dsn())
        try:
            await connection.execute(f'SET search_path TO "{schema}"')
            await connection.execute(script)
        finally:
            await connection.close()

    postgres_server.run(run())


async def make_schema(schema: str) -> None:
    """Tables as they come, with a session in them."""
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=schema)
    await storage.create_session(new_session("from before", "somebody from before"))
    await storage.append(
        ref("from before", "somebody from before"),
        [user("kept", id="m1"), user("as well", id="m2")],
    )
    await storage.close()


class TestPartitioned(TurnTests):  # all of StorageConformance passes too, in minutes
    durable = True

    @pytest.fixture(autouse=True)
    def own_schema(self, postgres_schema: str) -> None:
        asyncio.run(make_schema(postgres_schema))
        run_in(postgres_schema, f"DELETE FROM langswarm_sessions; {recipe()}")
        self.schema = postgres_schema

    def make_storage(self, tmp_path: Path) -> PostgresSessionStorage:
        return PostgresSessionStorage(postgres_server.dsn(), schema=self.schema)


async def test_what_was_there_is_kept_and_spread(postgres_schema: str) -> None:
    await make_schema(postgres_schema)
    run_in(postgres_schema, recipe())
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema)
    for number in range(40):
        await storage.create_session(new_session(f"s{number}"))
        await storage.append(ref(f"s{number}"), [user("hello")])
    kept = await storage.get_messages(ref("from before", "somebody from before"))
    assert [message.text for message in kept] == ["kept", "as well"]
    levels = {each.check: each.level for each in await storage.examine(full=True)}
    assert Level.PROBLEM not in levels.values(), "what is partitioned is as it should be"
    await storage.close()
    rows: list[Any] = postgres_server.query(
        f'SELECT tableoid, count(*) FROM "{postgres_schema}".langswarm_messages GROUP BY 1'
    )
    assert len(rows) > 4
    assert sum(row[1] for row in rows) == 42


def test_a_session_is_looked_for_in_one_partition(postgres_schema: str) -> None:
    asyncio.run(make_schema(postgres_schema))
    run_in(postgres_schema, recipe())

    async def explain() -> str:
        import asyncpg

        connection = await asyncpg.connect(postgres_server.dsn())
        await connection.execute(f'SET search_path TO "{postgres_schema}"')
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        await connection.execute(
            "PREPARE newest (text, text, bigint) AS SELECT * FROM langswarm_messages "
            f"WHERE session = (SELECT key FROM langswarm_sessions WHERE {OWN}) "
            "ORDER BY seq DESC LIMIT 20"
        )
        rows = await connection.fetch(
            "EXPLAIN (ANALYZE) EXECUTE newest ('from before', 'somebody from before', NULL)"
        )
        await connection.close()
        return "\n".join(row[0] for row in rows)

    plan = postgres_server.run(explain())
    scans = re.findall(r"(?:Index Scan Backward|Heap Scan).* on langswarm_messages_.*", plan)
    assert len(scans) == 8
    assert sum("never executed" not in scan for scan in scans) == 1
