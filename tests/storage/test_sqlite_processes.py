"""Processes on one file that fork, and that end without a close; `chaos` kills them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from langswarm_session import SessionMessage, SQLiteSessionStorage
from langswarm_session.testing.making import texts


def spawn(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The exit code, output and errors of a process that must end by itself."""
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with its children
        out, err = process.communicate()
        err += "killed: it did not end"
    return process.returncode, out, err


def run(path: Path, program: str) -> list[str]:
    """Run a program that has the storage `storage` and the helpers at hand; its lines of output."""
    header = f"""
        import asyncio, os, sys, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork() beside threads
        from langswarm_session import SQLiteSessionStorage
        from langswarm_session.testing.making import *
        storage = SQLiteSessionStorage({str(path)!r}, busy_timeout=3)
        def append(text):
            asyncio.run(storage.append("s", [user(text)]))
        def read():
            return texts(asyncio.run(storage.get_messages("s")))
        asyncio.run(storage.create_session(new_session("s")))
    """
    with spawn("-c", textwrap.dedent(header) + textwrap.dedent(program)) as process:
        code, out, err = outcome(process)
    assert (code, err) == (0, "")
    return out.splitlines()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


async def stored(path: Path, session: str = "s") -> list[SessionMessage]:
    storage = SQLiteSessionStorage(path)
    try:
        return await storage.get_messages(session)
    finally:
        await storage.close()


def integrity(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


async def test_a_forgotten_close_neither_hangs_nor_loses(path: Path) -> None:
    out = run(
        path,
        """
        async def main():
            for n in range(30):
                await storage.append("s", [user(str(n))])
            print(len(await storage.get_messages("s")))
        asyncio.run(main())
        """,
    )
    assert out == ["30"]
    # The log was folded into the file, as if it had been closed.
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert texts(await stored(path)) == [str(n) for n in range(30)]


@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)"])
async def test_an_exit_amid_calls_loses_nothing_acknowledged(path: Path, end: str) -> None:
    out = run(
        path,
        f"""
        async def main():
            calls = [asyncio.ensure_future(storage.append("s", [user(str(n))])) for n in range(50)]
            for n, call in enumerate(calls[:25]):
                await call
                print(n, flush=True)
            {end}
        try:
            asyncio.run(main())
        except SystemExit:
            pass
        """,
    )
    assert out == [str(n) for n in range(25)]
    found = texts(await stored(path))
    assert found[:25] == [str(n) for n in range(25)]
    assert found == [str(n) for n in range(len(found))]
    assert integrity(path) == "ok"


async def test_a_storage_that_was_dropped_closes_itself(path: Path) -> None:
    out = run(
        path,
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
    assert [each.name for each in path.parent.iterdir()] == [path.name]


async def test_a_forked_child_works(path: Path) -> None:
    out = run(
        path,
        """
        append("parent")
        child = os.fork()
        if child == 0:
            append("child")
            print(read(), flush=True)
            os._exit(0)
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


async def test_parent_and_forked_child_write_at_once(path: Path) -> None:
    run(
        path,
        """
        append("before")
        children = []
        for n in range(3):
            child = os.fork()
            if child == 0:
                for m in range(20):
                    append(f"child {n} {m}")
                os._exit(0)
            children.append(child)
        for m in range(20):
            append(f"parent {m}")
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        """,
    )
    log = await stored(path)
    assert [message.seq for message in log] == list(range(1, 82))
    for name in ("child 0", "child 1", "child 2", "parent"):
        mine = [text for text in texts(log) if text.startswith(name)]
        assert mine == [f"{name} {m}" for m in range(20)]
    assert integrity(path) == "ok"


async def test_a_childs_writes_outlive_its_parents_close(path: Path) -> None:
    # The parent believes itself alone with the file: SQLite's locks do not survive a fork, and it
    # removes the write-ahead log that the child is writing to.
    out = run(
        path,
        """
        append("parent")
        to_child, to_parent = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            append("child")
            os.write(to_parent[1], b".")
            os.read(to_child[0], 1)
            append("child again")
            os._exit(0)
        os.read(to_parent[0], 1)
        asyncio.run(storage.close())
        os.write(to_child[1], b".")
        print("child", os.waitpid(child, 0)[1])
        """,
    )
    assert out == ["child 0"]
    assert texts(await stored(path)) == ["parent", "child", "child again"]
    assert integrity(path) == "ok"


async def test_a_fork_amid_a_write_leaves_the_child_no_lock(path: Path) -> None:
    # The parent's lock, copied with its memory, would hold in the child for ever.
    out = run(
        path,
        """
        append("before")
        inside, leave = threading.Event(), threading.Event()
        def write_slowly(connection):
            inside.set()
            leave.wait(0.5)
        writing = threading.Thread(
            target=lambda: asyncio.run(storage._engine.write(write_slowly))
        )
        writing.start()
        inside.wait()
        child = os.fork()
        if child == 0:
            append("child")
            os._exit(0)
        leave.set()
        writing.join()
        print("child", os.waitpid(child, 0)[1])
        """,
    )
    assert out == ["child 0"]
    assert texts(await stored(path)) == ["before", "child"]
