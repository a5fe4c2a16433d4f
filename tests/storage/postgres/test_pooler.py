"""Through pgbouncer in transaction mode, where there is one to start."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import postgres_server
import pytest
from storage.durability_tests import commits_of

from langswarm_session.storage.postgres.storage import PostgresSessionStorage
from langswarm_session.testing import StorageConformance
from langswarm_session.testing.making import completed, lease, new_session, ref, reply, texts, user

BINARY = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

pytestmark = pytest.mark.skipif(
    BINARY is None, reason="pgbouncer is not installed (apt-get install pgbouncer)"
)

SETTINGS = """
[databases]
{database} = host={host} port={port} user={user} {password} connect_query='{connect_query}'
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
max_client_conn = 200
{run_as}
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def pooler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a pooler before the server."""
    postgres_server.need()
    parts, own_port = urlsplit(postgres_server.dsn()), free_port()
    # Read before it gives up the rights of root, if it has them.
    settings = tmp_path_factory.mktemp("pgbouncer") / "pgbouncer.ini"
    settings.write_text(
        SETTINGS.format(
            database=parts.path[1:],
            host=parts.hostname,
            port=parts.port or 5432,
            user=parts.username,
            password=f"password={parts.password}" if parts.password else "",
            own_port=own_port,
            connect_query="SET synchronous_commit = off",
            run_as="user = nobody" if os.getuid() == 0 else "",
        )
    )
    assert BINARY
    process = subprocess.Popen([BINARY, "-q", str(settings)], stderr=subprocess.PIPE)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", own_port)) == 0:
                    break
            if process.poll() is not None:
                assert process.stderr
                pytest.fail(process.stderr.read().decode())
            asyncio.run(asyncio.sleep(0.02))
        yield postgres_server.through(own_port)
    finally:
        process.terminate()
        process.communicate()


class TestThroughPgBouncer(StorageConformance):
    durable = True

    @pytest.fixture(autouse=True)
    def own_schema(self, postgres_schema: str, pooler: str) -> None:
        self.schema, self.dsn = postgres_schema, pooler

    def make_storage(self, tmp_path: Path) -> PostgresSessionStorage:
        return PostgresSessionStorage(self.dsn, schema=self.schema)


@pytest.fixture
async def storage(pooler: str, postgres_schema: str) -> AsyncIterator[PostgresSessionStorage]:
    storage = PostgresSessionStorage(pooler, schema=postgres_schema)
    yield storage
    await storage.close()


async def test_the_pooler_is_found_out(
    storage: PostgresSessionStorage, postgres_schema: str
) -> None:
    direct = PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema)
    for each, prepares in ((storage, False), (direct, True)):
        await each.list_sessions()
        pool = each._engine._jobs.pool
        assert pool is not None
        assert [connection.prepares for connection in pool._idle] == [prepares]
    await direct.close()


async def test_many_share_a_few_connections(
    storage: PostgresSessionStorage, pooler: str, postgres_schema: str
) -> None:
    storages = [storage, *(PostgresSessionStorage(pooler, schema=postgres_schema) for _ in "123")]

    async def talk(one: PostgresSessionStorage, name: str) -> None:
        await one.create_session(new_session(name))
        for n in range(10):
            begun = lease()
            await one.begin_turn(ref(name), [user(f"{n}")], begun)
            await one.end_turn(ref(name), completed(begun), [reply(f"{n}")])
            await one.append(ref(name), [user("x")])
        read = texts(await one.get_messages(ref(name)))
        assert read == [text for n in range(10) for text in (f"{n}", f"{n}", "x")]

    await asyncio.gather(*(talk(one, f"s{n}") for n, one in enumerate(storages * 6)))
    for each in storages[1:]:
        await each.close()


async def test_what_is_acknowledged_is_durable_though_others_commits_are_not(
    storage: PostgresSessionStorage, pooler: str, postgres_schema: str
) -> None:
    assert await commits_of(storage, postgres_schema) == {"on"}
    # What others do there is as it was.
    others = await asyncpg.connect(pooler, statement_cache_size=0)
    assert await others.fetchval("SHOW synchronous_commit") == "off"
    await others.close()
