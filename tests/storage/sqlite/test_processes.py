"""Processes on one file that fork, and that end without a close; `chaos` kills them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from storage.process_tests import ProcessTests

from langswarm_session import SQLiteSessionStorage
from langswarm_session.testing.making import texts


class TestProcesses(ProcessTests):
    making = """
from langswarm_session import SQLiteSessionStorage
from langswarm_session.testing.making import texts
storage = SQLiteSessionStorage(sys.argv[1], busy_timeout=3)
"""
    may_fork_while_reading = False  # SQLite has locks of its own, which the child would inherit

    @pytest.fixture(autouse=True)
    def own_file(self, tmp_path: Path) -> Iterator[None]:
        self.path = tmp_path / "sessions.db"
        yield
        connection = sqlite3.connect(self.path)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()

    def arguments(self) -> Sequence[Path]:
        return [self.path]

    def make_storage(self) -> SQLiteSessionStorage:
        return SQLiteSessionStorage(self.path)

    def check_closed(self) -> None:
        # The log was folded into the file, as if it had been closed.
        assert [each.name for each in self.path.parent.iterdir()] == [self.path.name]

    async def test_a_childs_writes_outlive_its_parents_close(self) -> None:
        # The parent believes itself alone with the file: SQLite's locks do not survive a fork, and it
        # removes the write-ahead log that the child is writing to.
        out = self.run(
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
        assert texts(await self.stored()) == ["parent", "child", "child again"]

    async def test_a_fork_amid_a_write_leaves_the_child_no_lock(self) -> None:
        # The parent's lock, copied with its memory, would hold in the child for ever.
        out = self.run(
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
        assert texts(await self.stored()) == ["before", "child"]
