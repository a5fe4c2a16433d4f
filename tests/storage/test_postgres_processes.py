"""Several processes on one PostgreSQL schema: at once, killed, forked, ended without a close."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import postgres_server

from langswarm_session import SessionMessage, TurnStatus
from langswarm_session.storage.postgres import PostgresSessionStorage
from langswarm_session.testing.making import texts

CHILD = Path(__file__).with_name("postgres_child.py")
KILLS = min(100, int(os.environ.get("LANGSWARM_KILLS", "5")))
PROCESSES, TURNS = 10, 10

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


async def test_processes_that_start_at_once_share_all(postgres_schema: str) -> None:
    names = [f"p{n}" for n in range(PROCESSES)]
    dsn = postgres_server.dsn()
    processes = [spawn(CHILD, "share", dsn, postgres_schema, name, str(TURNS)) for name in names]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [(*process.communicate(timeout=100), process.returncode) for process in processes]
    assert ends == [("done\n", "", 0)] * PROCESSES
    expected = {name: [f"{name} {n}" for n in range(TURNS) for _ in "12"] for name in names}
    for name in names:
        assert texts(await stored(postgres_schema, name)) == expected[name]
    shared = await stored(postgres_schema, "shared")
    assert [message.seq for message in shared] == list(range(1, 2 * PROCESSES * TURNS + 1))
    assert texts(shared[0::2]) == texts(shared[1::2])
    for name in names:
        assert [text for text in texts(shared) if text.startswith(f"{name} ")] == expected[name]


async def test_a_killed_process_loses_nothing_it_acknowledged(postgres_schema: str) -> None:
    acknowledged: dict[str, set[int]] = {}
    asked: dict[str, set[int]] = defaultdict(set)
    for number in range(KILLS):
        for what, session, *turn in killed_after(
            postgres_schema, f"k{number}", random.randint(8, 150)
        ):
            if what == "session":
                acknowledged[session] = set()
            else:
                (asked if what == "asked" else acknowledged)[session].add(int(turn[0]))
    assert sum(map(len, acknowledged.values())) >= KILLS
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema)
    for session, turns in acknowledged.items():
        # Waits for what the server may still have been doing for the killed process.
        log = await storage.get_messages(session)
        found = [int(message.text.split()[0]) for message in log]
        # Whole turns of four messages, in order, each once; what was not acknowledged may be
        # there as well, and only the last turn that was begun by itself may lack its answer.
        whole = len(found) // 4 * 4
        assert found[:whole] == [n for n in range(whole // 4) for _ in range(4)]
        assert found[whole:] == ([] if session not in asked else [whole // 4] * (len(found) % 4))
        assert len(found) - whole <= 1
        assert turns <= set(found[:whole])
        assert asked[session] <= set(found)
        record = await storage.get_session(session)
        assert (record.message_count, record.last_seq) == (len(log), len(log))
        last = (await storage.get_turns(session, limit=1))[0] if log else None
        assert last is None or (last.status is TurnStatus.OPEN) == (len(found) > whole)
    await storage.close()


def killed_after(schema: str, name: str, lines: int) -> Iterator[list[str]]:
    """What a process said that was killed when it had said this much."""
    with spawn(CHILD, "endless", postgres_server.dsn(), schema, name) as process:
        assert process.stdout
        assert process.stderr
        for number, line in enumerate(process.stdout):
            if number == lines:
                process.kill()
            # A line that the kill cut short acknowledges nothing.
            if line.endswith("\n"):
                yield line.split()
        error = process.stderr.read()
    assert error == ""
    # The server notices a moment later that nobody is there any more.
    while postgres_server.query(
        "SELECT 1 FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state <> 'idle' "
        "AND query LIKE '%' || $1 || '%'",
        schema,
    ):
        pass


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
