"""Processes on one PostgreSQL schema that fork, and end without a close; `chaos` kills them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import postgres_server

from langswarm_session import SessionMessage
from langswarm_session.storage.postgres import PostgresSessionStorage
from langswarm_session.testing.making import texts

HEADER = """
import asyncio, os, sys, threading
from langswarm_session import blocking
from langswarm_session.storage.postgres import PostgresSessionStorage
from langswarm_session.testing.making import new_session, texts, user
storage = PostgresSessionStorage(sys.argv[1], schema=sys.argv[2])
def append(text):
    asyncio.run(storage.append("s", [user(text)]))
def read():
    return texts(asyncio.run(storage.get_messages("s")))
asyncio.run(storage.create_session(new_session("s")))
"""


def spawn(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def run(schema: str, body: str) -> list[str]:
    """What a script says, which must end well and complain of nothing."""
    script = HEADER + textwrap.dedent(body)
    process = spawn("-c", script, postgres_server.dsn(), schema)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    return out.splitlines()


async def stored(schema: str, session: str = "s") -> list[SessionMessage]:
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=schema)
    try:
        return await storage.get_messages(session)
    finally:
        await storage.close()


async def test_a_forgotten_close_neither_hangs_nor_loses(postgres_schema: str) -> None:
    out = run(
        postgres_schema,
        """
        async def main():
            for n in range(30):
                await storage.append("s", [user(str(n))])
            print(len(await storage.get_messages("s")))
        asyncio.run(main())
        """,
    )
    assert out == ["30"]
    assert texts(await stored(postgres_schema)) == [str(n) for n in range(30)]


async def test_an_exit_amid_calls_loses_nothing_acknowledged(postgres_schema: str) -> None:
    out = run(
        postgres_schema,
        """
        async def main():
            calls = [asyncio.ensure_future(storage.append("s", [user(str(n))])) for n in range(50)]
            for n, call in enumerate(calls[:25]):
                await call
                print(n, flush=True)
            os._exit(0)
        asyncio.run(main())
        """,
    )
    assert out == [str(n) for n in range(25)]
    found = texts(await stored(postgres_schema))
    assert found == [str(n) for n in range(len(found))]
    assert len(found) >= 25


async def test_a_storage_that_was_dropped_closes_itself(postgres_schema: str) -> None:
    out = run(
        postgres_schema,
        """
        append("a")
        del storage
        import gc
        gc.collect()
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                thread.join()
        print("closed")
        """,
    )
    assert out == ["closed"]


async def test_a_forked_child_works(postgres_schema: str) -> None:
    out = run(
        postgres_schema,
        """
        append("parent")
        child = os.fork()
        if child == 0:
            append("child")
            print(read(), flush=True)
            sys.exit(0)
        print("child", os.waitpid(child, 0)[1])
        append("parent again")
        print(read())
        """,
    )
    assert out == [
        "['parent', 'child']",
        "child 0",
        "['parent', 'child', 'parent again']",
    ]


async def test_parent_and_forked_child_write_at_once(postgres_schema: str) -> None:
    run(
        postgres_schema,
        """
        append("before")
        going = True
        def keep_reading():
            while going:
                read()
        reader = threading.Thread(target=keep_reading)
        reader.start()
        children = []
        for n in range(3):
            child = os.fork()
            if child == 0:
                for m in range(10):
                    blocking.run(storage.append("s", [user(f"child {n} {m}")]))
                os._exit(0)
            children.append(child)
        for m in range(10):
            append(f"parent {m}")
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        going = False
        reader.join()
        """,
    )
    log = await stored(postgres_schema)
    assert [message.seq for message in log] == list(range(1, 42))
    for name in ("child 0", "child 1", "child 2", "parent"):
        mine = [text for text in texts(log) if text.startswith(name)]
        assert mine == [f"{name} {m}" for m in range(10)]
