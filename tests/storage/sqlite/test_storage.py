from __future__ import annotations

import asyncio
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from langswarm_session import (
    InvalidInputError,
    SessionNotFoundError,
    SessionStatus,
    SessionStorageError,
    SQLiteSessionStorage,
    StorageBusyError,
    StorageCorruptError,
    StorageUnavailableError,
    TurnStatus,
)
from langswarm_session.findings import Level
from langswarm_session.records import SessionChanges, TurnEnd
from langswarm_session.storage import rules
from langswarm_session.storage.sqlite import engine as sqlite_engine
from langswarm_session.storage.sqlite import transactions
from langswarm_session.storage.sqlite.schema import MIGRATIONS
from langswarm_session.testing import StorageConformance
from langswarm_session.testing.making import completed, lease, new_session, ref, reply, texts, user
from langswarm_session.transfer.exporting import SessionRow


class TestSQLiteSessionStorage(StorageConformance):
    restores_exactly = True
    durable = True

    def make_storage(self, tmp_path: Path) -> SQLiteSessionStorage:
        return SQLiteSessionStorage(tmp_path / "sessions.db")


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SQLiteSessionStorage]:
    # One reader, so that what a test sets on its connection holds for all reads.
    storage = SQLiteSessionStorage(tmp_path / "sessions.db", max_readers=1)
    await storage.create_session(new_session("s"))
    yield storage
    await storage.close()


# The file


async def test_making_one_does_no_io(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "sessions.db"
    storage = SQLiteSessionStorage(path)
    assert not path.parent.exists()
    await storage.close()
    assert not path.parent.exists()


async def test_the_first_use_makes_the_file_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "sessions.db"
    storage = SQLiteSessionStorage(path)
    assert (await storage.list_sessions()).records == []
    assert path.exists()
    await storage.close()


@pytest.mark.parametrize(
    "name", ["#?%41 &=.db", "sp ace'\"`;.db", "\u00fc\U0001f600.db", "file:x.db"]
)
async def test_any_file_name_is_a_file_name(tmp_path: Path, name: str) -> None:
    storage = SQLiteSessionStorage(tmp_path / name)
    await storage.create_session(new_session("s"))
    assert (await storage.find_session("s")).session_id == "s"
    await storage.close()
    assert [each.name for each in tmp_path.iterdir()] == [name]


async def test_a_relative_path_is_of_where_the_storage_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    storage = SQLiteSessionStorage("sessions.db")
    await storage.create_session(new_session("s"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    await storage.append(ref("s"), [user("a")])
    assert texts(await storage.get_messages(ref("s"))) == ["a"]
    await storage.close()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"db_path": ""},
        {"db_path": ":memory:"},
        {"db_path": "a\0b"},
        {"synchronous": "OFF"},
        {"synchronous": "full"},
        *({"busy_timeout": value} for value in (-1, "long", None, math.nan, math.inf, 1e12)),
        *({"timeout": value} for value in (0, math.nan, math.inf, 1e12)),
        *({"max_readers": value} for value in (0, 1.5, True)),
        *({"max_waiting": value} for value in (0, "3", True)),
    ],
)
def test_arguments_that_cannot_be_used(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        SQLiteSessionStorage(**arguments)


async def test_the_longest_wait_is_a_wait(tmp_path: Path) -> None:
    storage = SQLiteSessionStorage(tmp_path / "a.db", busy_timeout=1e9, timeout=1e9)
    assert await pragma_of(storage, "busy_timeout") > 10**9
    await storage.close()


async def test_it_is_examined_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = SQLiteSessionStorage("a.db/")
    await storage.create_session(new_session("s"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = {each.check: each for each in await storage.examine(full=True)}
    assert {each.level for each in found.values()} == {Level.OK}
    assert found["file"].message == str(tmp_path / "a.db")
    await storage.close()


def test_its_repr_says_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    assert repr(SQLiteSessionStorage(path)) == f"SQLiteSessionStorage(db_path={str(path)!r})"


@pytest.mark.parametrize(("chosen", "synchronous"), [({}, 2), ({"synchronous": "NORMAL"}, 1)])
async def test_it_is_as_durable_as_was_chosen(
    tmp_path: Path, chosen: dict[str, Any], synchronous: int
) -> None:
    storage = SQLiteSessionStorage(tmp_path / "sessions.db", **chosen)
    for pragma, value in (("synchronous", synchronous), ("journal_mode", "wal")):
        assert await pragma_of(storage, pragma) == value
    await storage.close()
    connection = sqlite3.connect(tmp_path / "sessions.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


async def test_closing_leaves_one_file(storage: SQLiteSessionStorage, tmp_path: Path) -> None:
    await storage.append(ref("s"), [user("a")])
    await storage.get_messages(ref("s"))
    assert (tmp_path / "sessions.db-wal").exists()
    await storage.close()
    assert [each.name for each in tmp_path.iterdir()] == ["sessions.db"]


async def test_health_knows_the_size_and_the_schema(storage: SQLiteSessionStorage) -> None:
    before = await storage.health()
    await storage.append(ref("s"), [user("x" * 1_000_000)])
    after = await storage.health()
    assert before.schema_version == after.schema_version == len(MIGRATIONS)
    assert before.size_bytes
    assert after.size_bytes
    assert 950_000 <= after.size_bytes - before.size_bytes < 1_100_000


async def test_a_removed_file_is_noticed(storage: SQLiteSessionStorage, tmp_path: Path) -> None:
    await storage.append(ref("s"), [user("a")])
    for each in tmp_path.iterdir():
        each.unlink()
    with pytest.raises(StorageUnavailableError):
        await storage.append(ref("s"), [user("lost")])
    with pytest.raises(SessionNotFoundError):
        await storage.append(ref("s"), [user("b")])
    await storage.create_session(new_session("s"))
    await storage.append(ref("s"), [user("c")])
    assert texts(await storage.get_messages(ref("s"))) == ["c"]


async def test_a_replaced_file_is_noticed(storage: SQLiteSessionStorage, tmp_path: Path) -> None:
    # A backup is put back while another process already writes to it.
    await storage.append(ref("s"), [user("old")])
    other = SQLiteSessionStorage(tmp_path / "backup.db")
    await other.create_session(new_session("s"))
    await other.append(ref("s"), [user("restored")])
    await other.close()
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"sessions.db{suffix}").unlink()
    (tmp_path / "backup.db").replace(tmp_path / "sessions.db")
    other = SQLiteSessionStorage(tmp_path / "sessions.db")
    await other.append(ref("s"), [user("by the other")])
    with pytest.raises(StorageUnavailableError):
        await storage.append(ref("s"), [user("lost")])
    await storage.append(ref("s"), [user("new")])
    assert texts(await storage.get_messages(ref("s"))) == ["restored", "by the other", "new"]
    await other.append(ref("s"), [user("last")])
    assert texts(await storage.get_messages(ref("s")))[3:] == ["last"]
    await other.close()


async def test_a_file_removed_without_its_log_is_noticed(
    storage: SQLiteSessionStorage, tmp_path: Path
) -> None:
    # The new file has a log of its own, though others, in this process too, use the old one still.
    other = SQLiteSessionStorage(tmp_path / "sessions.db")
    for _ in range(3):
        await asyncio.gather(*(other.get_messages(ref("s")) for _ in range(10)))
        (tmp_path / "sessions.db").unlink()
        with pytest.raises(StorageUnavailableError, match="nothing of this call was kept"):
            await storage.append(ref("s"), [user("lost")])
        await storage.create_session(new_session("s"))
        await asyncio.gather(*(storage.append(ref("s"), [user(str(n))]) for n in range(50)))
        with pytest.raises(StorageUnavailableError):
            await other.append(ref("s"), [user("lost")])
        await other.append(ref("s"), [user("by the other")])
        for each in (storage, other):
            log = await each.get_messages(ref("s"))
            assert texts(log) == [*(str(n) for n in range(50)), "by the other"]
        await storage.append(ref("s"), [user("more")])
    await other.close()


async def test_what_is_left_of_a_file_is_no_log_of_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).write_bytes(b"of a file that is gone")
    storage = SQLiteSessionStorage(path)
    await storage.create_session(new_session("s"))
    await storage.append(ref("s"), [user("a")])
    assert texts(await storage.get_messages(ref("s"))) == ["a"]
    await storage.close()
    assert [each.name for each in tmp_path.iterdir()] == ["sessions.db"]


async def test_a_file_replaced_without_its_log_is_noticed(
    storage: SQLiteSessionStorage, tmp_path: Path
) -> None:
    await storage.append(ref("s"), [user("old")])
    backup = SQLiteSessionStorage(tmp_path / "backup.db")
    await backup.create_session(new_session("s"))
    await backup.append(ref("s"), [user("restored")])
    await backup.close()
    (tmp_path / "backup.db").replace(tmp_path / "sessions.db")
    with pytest.raises(StorageUnavailableError):
        await storage.append(ref("s"), [user("lost")])
    await storage.append(ref("s"), [user("new")])
    assert texts(await storage.get_messages(ref("s"))) == ["restored", "new"]


async def test_a_moved_file_takes_along_what_was_acknowledged(
    storage: SQLiteSessionStorage, tmp_path: Path
) -> None:
    await storage.append(ref("s"), [user("a")])
    (tmp_path / "sessions.db").rename(tmp_path / "moved.db")
    with pytest.raises(StorageUnavailableError):
        await storage.append(ref("s"), [user("lost")])
    moved = SQLiteSessionStorage(tmp_path / "moved.db")
    assert texts(await moved.get_messages(ref("s"))) == ["a"]
    await moved.close()


@pytest.mark.parametrize("has_read", [True, False])
async def test_who_only_reads_notices_too(
    storage: SQLiteSessionStorage,
    tmp_path: Path,
    has_read: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sqlite_engine._Reader, "_LOOK_EVERY", 0.0)
    if has_read:
        await storage.find_session("s")
    (tmp_path / "sessions.db").unlink()
    # Its writer has the old file, and its reader would come upon another, or none.
    with pytest.raises(StorageUnavailableError, match="removed or replaced"):
        await storage.find_session("s")
    with pytest.raises(SessionNotFoundError):
        await storage.find_session("s")


def remove_log(folder: Path) -> None:
    (folder / "sessions.db-wal").unlink()


async def seen_by_a_new_process(folder: Path) -> list[str]:
    """What is in the files, were everybody killed now."""
    copy = folder / "killed"
    shutil.copytree(folder, copy)
    (copy / "sessions.db-shm").unlink(missing_ok=True)
    storage = SQLiteSessionStorage(copy / "sessions.db")
    try:
        return texts(await storage.get_messages(ref("s")))
    finally:
        await storage.close()
        shutil.rmtree(copy)


async def test_a_removed_log_is_noticed(storage: SQLiteSessionStorage, tmp_path: Path) -> None:
    other = SQLiteSessionStorage(tmp_path / "sessions.db")
    await other.append(ref("s"), [user("by the other")])
    await storage.append(ref("s"), [user("a")])
    for number in range(3):
        await asyncio.gather(*(other.get_messages(ref("s")) for _ in range(10)))
        remove_log(tmp_path)
        with pytest.raises(StorageUnavailableError, match="nothing of this call was kept"):
            await storage.append(ref("s"), [user("lost")])
        expected = ["by the other", "a", *"bc" * number]
        assert await seen_by_a_new_process(tmp_path) == expected
        await storage.append(ref("s"), [user("b")])
        with pytest.raises(StorageUnavailableError):
            await other.append(ref("s"), [user("lost")])
        await other.append(ref("s"), [user("c")])
        expected += "bc"
        assert await seen_by_a_new_process(tmp_path) == expected
        for each in (storage, other):
            assert texts(await each.get_messages(ref("s"))) == expected
    await other.close()
    assert {each.name for each in tmp_path.iterdir()} == {
        "sessions.db",
        "sessions.db-wal",
        "sessions.db-shm",
    }


async def test_a_log_removed_before_the_end_is_saved(
    storage: SQLiteSessionStorage, tmp_path: Path
) -> None:
    other = SQLiteSessionStorage(tmp_path / "sessions.db")
    await other.append(ref("s"), [user("by the other")])
    await storage.append(ref("s"), [user("a")])
    remove_log(tmp_path)
    await storage.close()
    assert await seen_by_a_new_process(tmp_path) == ["by the other", "a"]
    await other.close()
    assert await seen_by_a_new_process(tmp_path) == ["by the other", "a"]


async def test_a_removed_log_that_cannot_be_saved_yet(
    storage: SQLiteSessionStorage, tmp_path: Path
) -> None:
    await storage.append(ref("s"), [user("a")])
    await storage.get_messages(ref("s"))  # so that its one reader has the log open as well
    remove_log(tmp_path)
    obstacle = tmp_path / "sessions.db-langswarm-copy" / "file"
    obstacle.parent.mkdir()
    obstacle.touch()
    for _ in range(3):
        with pytest.raises(StorageUnavailableError):
            await storage.append(ref("s"), [user("lost")])
        assert texts(await storage.get_messages(ref("s"))) == ["a"]
    obstacle.unlink()
    obstacle.parent.rmdir()
    with pytest.raises(StorageUnavailableError):
        await storage.append(ref("s"), [user("lost")])
    await storage.append(ref("s"), [user("b")])
    assert await seen_by_a_new_process(tmp_path) == ["a", "b"]


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux tells who has a file open")
async def test_nobody_joins_those_whose_log_was_removed(
    storage: SQLiteSessionStorage, tmp_path: Path
) -> None:
    await storage.append(ref("s"), [user("a")])
    remove_log(tmp_path)
    other = SQLiteSessionStorage(tmp_path / "sessions.db", busy_timeout=0.1)
    with pytest.raises(StorageUnavailableError, match="-wal was removed"):
        await other.append(ref("s"), [user("lost")])
    with pytest.raises(StorageUnavailableError, match="removed or replaced"):
        await storage.append(ref("s"), [user("lost")])
    await other.append(ref("s"), [user("b")])
    await storage.append(ref("s"), [user("c")])
    assert texts(await other.get_messages(ref("s"))) == ["a", "b", "c"]
    await other.close()


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux tells who has a file open")
async def test_nobody_joins_those_whose_index_of_the_log_was_removed(
    storage: SQLiteSessionStorage, tmp_path: Path
) -> None:
    """They hold their locks in it, of which a newcomer with another one would know nothing."""
    await storage.append(ref("s"), [user("a")])
    (tmp_path / "sessions.db-shm").unlink()
    program = (
        "import asyncio, sys\n"
        "from langswarm_session import SQLiteSessionStorage\n"
        "storage = SQLiteSessionStorage(sys.argv[1], busy_timeout=0.1)\n"
        "asyncio.run(storage.find_session('s'))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "sessions.db")]
    refused = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert "sessions.db-shm was removed" in refused.stderr
    await storage.append(ref("s"), [user("b")])
    await storage.close()
    joined = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert (joined.returncode, joined.stderr) == (0, "")
    other = SQLiteSessionStorage(tmp_path / "sessions.db")
    assert texts(await other.get_messages(ref("s"))) == ["a", "b"]
    await other.close()


async def test_health_looks_where_sessions_are_looked_up(
    storage: SQLiteSessionStorage, tmp_path: Path
) -> None:
    await storage.close()
    path = tmp_path / "sessions.db"
    with sqlite3.connect(path) as connection:
        [page] = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_sessions_1'"
        ).fetchone()
    connection.close()
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = bytes(4096)
    path.write_bytes(data)
    damaged = SQLiteSessionStorage(path)
    health = await damaged.health()
    assert (health.ok, "damaged" in (health.detail or "")) == (False, True)
    await damaged.close()


async def test_health_remembers_damage_until_there_is_another_file(
    storage: SQLiteSessionStorage, tmp_path: Path
) -> None:
    for n in range(300):
        await storage.append(ref("s"), [user(f"{n} " + "x" * 1000)])
    await storage.close()
    path = tmp_path / "sessions.db"
    whole = path.read_bytes()
    data = bytearray(whole)
    place = data.index(b"150 xxx") // 4096 * 4096
    data[place : place + 4096] = bytes(4096)
    path.write_bytes(data)
    damaged = SQLiteSessionStorage(path)
    assert (await damaged.health()).ok  # which is all that can be known yet
    for limit in (None, 200):
        with pytest.raises(StorageCorruptError):
            await damaged.get_messages(ref("s"), limit=limit)
    assert len(await damaged.get_messages(ref("s"), limit=20)) == 20
    health = await damaged.health()
    assert (health.ok, "damaged" in (health.detail or "")) == (False, True)
    (tmp_path / "restored.db").write_bytes(whole)
    (tmp_path / "restored.db").replace(path)
    assert "replaced" in ((await damaged.health()).detail or "")
    assert (await damaged.health()).ok
    assert len(await damaged.get_messages(ref("s"))) == 300
    await damaged.close()


# What is deleted is gone


async def leave_nothing(storage: SQLiteSessionStorage, tmp_path: Path, secret: str) -> None:
    await storage.create_session(new_session("kept"))
    await storage.append(ref("kept"), [user("to be kept")])
    assert holds(tmp_path, secret)
    await storage.delete_session((await storage.find_session("s")).ref)
    await storage.close()
    assert not holds(tmp_path, secret)
    assert holds(tmp_path, "to be kept")


def holds(folder: Path, text: str) -> bool:
    return any(text.encode() in each.read_bytes() for each in folder.iterdir())


async def test_deleted_messages_are_gone_from_the_file(
    storage: SQLiteSessionStorage, tmp_path: Path
) -> None:
    secret = "a secret of theirs"
    long = " ".join([secret] * 5000)  # takes pages of its own
    messages = [user(secret), user(long), reply(metadata={"k": secret}), user(id=secret)]
    await storage.append(ref("s"), messages)
    await leave_nothing(storage, tmp_path, secret)


async def test_a_deleted_sessions_own_data_is_gone_from_the_file(
    storage: SQLiteSessionStorage, tmp_path: Path
) -> None:
    secret = "a secret of theirs"
    await storage.delete_session(ref("s"))
    own = (await storage.create_session(new_session("s", secret, {"k": secret}))).ref
    begun = lease()
    await storage.begin_turn(own, [user()], begun)
    end = TurnEnd(
        begun.token, TurnStatus.FAILED, secret, provider_state={"provider_context": {"k": secret}}
    )
    await storage.end_turn(own, end, [])
    await leave_nothing(storage, tmp_path, secret)


async def test_cleared_messages_are_gone_from_the_file(
    storage: SQLiteSessionStorage, tmp_path: Path
) -> None:
    await storage.append(ref("s"), [user("a secret of theirs")])
    await storage.clear_messages(ref("s"))
    await storage.close()
    assert not holds(tmp_path, "a secret of theirs")


# What it costs: counted in steps of SQLite's virtual machine, which no load of the machine changes


async def steps(storage: SQLiteSessionStorage, call: Any, *, writing: bool = False) -> int:
    """How many steps SQLite takes for a call, once it knows the schema and the statements."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    run = storage._engine.write if writing else partial(on_each_reader, storage)
    counted = []
    # More than once, as the writer's own settings and checkpoints take some steps now and then.
    for _ in range(4):
        await call()
        await run(lambda connection: connection.set_progress_handler(step, 1))
        count = 0
        await call()
        counted.append(count)
        await run(lambda connection: connection.set_progress_handler(None, 1))
    return min(counted)


async def on_each_reader(storage: SQLiteSessionStorage, job: Any) -> None:
    """Do something with the connection of the reader's thread and that of the callers'."""
    engine = storage._engine
    await engine.read(job)
    with engine._here:
        assert engine._reader is not None
        engine._reader.run(job, engine._writer.files)


async def fill(storage: SQLiteSessionStorage, turns: int) -> None:
    for _ in range(turns // 50):
        await asyncio.gather(*(storage.append(ref("s"), [user(), reply()]) for _ in range(50)))


async def test_the_newest_messages_cost_the_same_in_any_log(storage: SQLiteSessionStorage) -> None:
    reads = [
        lambda: storage.get_messages(ref("s"), limit=20),
        lambda: storage.get_messages(ref("s"), limit=20, before=90),
        lambda: storage.get_messages(ref("s"), limit=20, answered_only=True),
        lambda: storage.get_messages(ref("s"), limit=20, after=10),
        lambda: storage.get_messages(ref("s"), system_only=True),
        lambda: storage.get_turns(ref("s"), limit=10),
        lambda: storage.find_session("s"),
    ]
    await fill(storage, 50)
    few = [await steps(storage, read) for read in reads]
    await fill(storage, 2000)
    many = [await steps(storage, read) for read in reads]
    # A deeper index takes a few comparisons more, none of them a step.
    assert many == few


async def test_a_write_costs_the_same_in_any_log(storage: SQLiteSessionStorage) -> None:
    async def turn() -> None:
        begun = lease()
        await storage.begin_turn(ref("s"), [user()], begun)
        await storage.append(ref("s"), [reply()], token=begun.token)
        await storage.end_turn(ref("s"), completed(begun), [reply()])

    async def append() -> None:
        await storage.append(ref("s"), [user(), reply()])

    await fill(storage, 50)
    few = [await steps(storage, write, writing=True) for write in (append, turn)]
    await fill(storage, 2000)
    many = [await steps(storage, write, writing=True) for write in (append, turn)]
    # Whether it runs on the caller's thread or the writer's sets the writer's patience: 5 steps.
    assert all(abs(more - less) <= 5 for more, less in zip(many, few, strict=True))


async def plans(storage: SQLiteSessionStorage, call: Any) -> list[str]:
    """How SQLite goes about the statements of a call."""
    statements: list[str] = []
    read: Any = storage._engine.read
    await on_each_reader(storage, lambda each: each.set_trace_callback(statements.append))
    await call()
    await on_each_reader(storage, lambda each: each.set_trace_callback(None))
    found = []
    for statement in statements:
        if statement.startswith("SELECT"):
            rows = await read(
                lambda connection, each=statement: connection.execute(
                    f"EXPLAIN QUERY PLAN {each}"
                ).fetchall()
            )
            found += [row[3] for row in rows]
    assert found
    return found


async def test_messages_are_found_by_index(storage: SQLiteSessionStorage) -> None:
    for read in (
        lambda: storage.get_messages(ref("s"), limit=20),
        lambda: storage.get_messages(ref("s"), limit=20, before=9, answered_only=True),
        lambda: storage.get_messages(ref("s"), after=9),
        lambda: storage.get_messages(ref("s"), before=9, system_only=True),
        lambda: storage.get_turns(ref("s")),
    ):
        for plan in await plans(storage, read):
            assert not plan.startswith("SCAN")
            assert "TEMP B-TREE" not in plan
    plan = await plans(storage, lambda: storage.get_messages(ref("s"), before=9, system_only=True))
    assert any("messages_of_system" in each for each in plan)


async def test_a_log_is_measured_by_index(storage: SQLiteSessionStorage) -> None:
    await storage.append(ref("s"), [user() for _ in range(5)])
    for removed in ((), (3,)):  # then numbers are missing
        revision = (await storage.get_session(ref("s"))).revision
        await storage.edit_messages(ref("s"), expected_revision=revision, remove=removed)
        found = await plans(storage, lambda: storage.measure_log(ref("s"), after=2, skip=1))
        assert any("messages_of_many" in plan for plan in found)
        assert all("INDEX" in plan for plan in found if plan.startswith(("SCAN m", "SEARCH m")))
        assert not any("TEMP B-TREE" in plan for plan in found)


async def test_sessions_are_found_by_index(storage: SQLiteSessionStorage) -> None:
    cursor = "1:s"
    for index, listings in {
        "sessions_by_user": (
            lambda: storage.list_sessions(user_id="user"),
            lambda: storage.list_sessions(user_id="user", cursor=cursor),
            lambda: storage.list_sessions(
                user_id="user", status=SessionStatus.ACTIVE, cursor=cursor
            ),
        ),
        "sessions_by_activity": (
            lambda: storage.list_sessions(),
            lambda: storage.list_sessions(cursor=cursor),
            lambda: storage.list_sessions(inactive_since=5),
        ),
        "sessions_of_active": (
            lambda: storage.list_sessions(status=SessionStatus.ACTIVE, inactive_since=5),
            lambda: storage.list_sessions(
                status=SessionStatus.ACTIVE, inactive_since=5, cursor=cursor
            ),
        ),
    }.items():
        for listing in listings:
            access, sorting = await plans(storage, listing)
            assert f"sessions USING INDEX {index}" in access
            assert sorting == "USE TEMP B-TREE FOR RIGHT PART OF ORDER BY"  # within a minute


async def test_the_newest_sessions_cost_the_same_among_many(storage: SQLiteSessionStorage) -> None:
    async def create(first: int, last: int) -> None:
        await asyncio.gather(
            *(storage.create_session(new_session(f"s{n}", f"u{n % 2}")) for n in range(first, last))
        )
        await storage._engine.write(
            lambda connection: connection.execute(
                f"UPDATE sessions SET last_activity = key * {rules.MINUTE}"
            )
        )

    async def cost() -> list[int]:
        return [
            await steps(storage, partial(storage.list_sessions, user_id="u0", limit=10)),
            await steps(storage, partial(storage.list_sessions, limit=10)),
            await steps(storage, partial(storage.list_sessions, inactive_since=rules.MINUTE * 9)),
        ]

    await create(0, 50)
    few = await cost()
    await create(50, 1000)
    assert await cost() == few


async def test_a_cleanup_does_not_walk_over_what_was_archived(
    storage: SQLiteSessionStorage,
) -> None:
    async def archived(first: int, last: int) -> None:
        for n in range(first, last):
            await storage.create_session(new_session(f"s{n}"))
            await storage.update_session(
                ref(f"s{n}"), SessionChanges(status=SessionStatus.ARCHIVED)
            )

    active = partial(storage.list_sessions, status=SessionStatus.ACTIVE, inactive_since=2**60)
    await archived(0, 10)
    few = await steps(storage, active)
    await archived(10, 200)
    assert await steps(storage, active) == few
    assert [each.session_id for each in (await active()).records] == ["s"]


async def test_what_is_indexed_of_activity_follows_it(storage: SQLiteSessionStorage) -> None:
    async def stored() -> tuple[int, int]:
        row: tuple[int, int] = await storage._engine.read(
            lambda connection: connection.execute(
                "SELECT active_minute, last_activity FROM sessions"
            ).fetchone()
        )
        return row

    minute, activity = await stored()
    assert minute == activity // rules.MINUTE
    change = "UPDATE sessions SET last_activity = ?"
    for moment in (7 * rules.MINUTE, 8 * rules.MINUTE - 1, 8 * rules.MINUTE, 5):
        await storage._engine.write(
            partial(lambda now, connection: connection.execute(change, (now,)), moment)
        )
        assert await stored() == (moment // rules.MINUTE, moment)
    await storage.append(ref("s"), [user("a")])
    minute, activity = await stored()
    assert minute == activity // rules.MINUTE > 8


@pytest.mark.parametrize("user_id", ["user", None])
async def test_pages_among_sessions_of_the_same_moment(
    storage: SQLiteSessionStorage, user_id: str | None
) -> None:
    for n in range(10):
        await storage.create_session(new_session(f"s{n}"))
    await storage._engine.write(
        lambda connection: connection.execute("UPDATE sessions SET last_activity = 7")
    )
    seen, cursor = [], None
    while True:
        page = await storage.list_sessions(user_id=user_id, limit=3, cursor=cursor)
        seen += [record.session_id for record in page.records]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == [*(f"s{n}" for n in reversed(range(10))), "s"]


# Odds and ends


async def test_turns_and_session_are_read_at_one_moment(
    storage: SQLiteSessionStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn that begins while turns are read is not seen as one that is complete."""
    load = transactions.load
    begin = sqlite3.connect(tmp_path / "sessions.db", isolation_level=None, check_same_thread=False)

    def load_then_begin(connection: sqlite3.Connection, session_id: str) -> Any:
        loaded = load(connection, session_id)
        begin.execute("BEGIN IMMEDIATE")
        begin.execute("UPDATE sessions SET last_seq = 1, turn_id = 1, turn_token = 't'")
        begin.execute(
            "INSERT INTO messages (session, seq, role, content, timestamp, id, turn) "
            "VALUES (1, 1, 0, 'hello', 0, 'id', 1)"
        )
        begin.execute("COMMIT")
        return loaded

    with monkeypatch.context() as patched:
        patched.setattr(transactions, "load", load_then_begin)
        turns = await storage.get_turns(ref("s"))
    begin.close()
    assert turns == []
    assert [turn.status for turn in await storage.get_turns(ref("s"))] == [TurnStatus.OPEN]


async def test_numbers_that_fit_no_column_fail_alone(storage: SQLiteSessionStorage) -> None:
    outcomes = await asyncio.gather(
        storage.append(ref("s"), [user("before")]),
        storage.append(ref("s"), [user("huge")], expected_revision=2**63),
        storage.append(ref("s"), [user("after")]),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], InvalidInputError)
    assert texts(await storage.get_messages(ref("s"))) == ["before", "after"]
    assert (await storage.health()).ok


@pytest.mark.parametrize(
    ("column", "value"),
    [("input_tokens", "9223372036854775807 + 1"), ("context", "'{secret'"), ("context", "'[]'")],
)
async def test_a_row_that_cannot_be_is_damage(
    storage: SQLiteSessionStorage, column: str, value: str
) -> None:
    await storage._engine.write(
        lambda connection: connection.execute(f"UPDATE sessions SET {column} = {value}")
    )

    async def decode() -> None:
        (await storage.find_session("s")).to_context()

    async def export() -> None:
        SessionRow.of_record(await storage.find_session("s"))

    for read in (decode, export):
        with pytest.raises(StorageCorruptError, match="restore a copy") as caught:
            await read()
        assert caught.value.session_id == "s"
        assert "secret" not in str(caught.value)


async def test_a_time_that_cannot_be_is_damage(storage: SQLiteSessionStorage) -> None:
    await storage.append(ref("s"), [user("a")])
    await storage._engine.write(
        lambda connection: connection.execute("UPDATE messages SET timestamp = ?", (2**62,))
    )
    for read in (storage.get_messages, storage.get_turns):
        with pytest.raises(StorageCorruptError, match="restore a copy"):
            await read(ref("s"))


async def test_text_that_is_no_unicode_is_refused(storage: SQLiteSessionStorage) -> None:
    # File names and subprocess output may hold lone surrogates; nothing of such a write is kept.
    with pytest.raises((SessionStorageError, InvalidInputError)):
        await storage.create_session(new_session("\ud800"))
    with pytest.raises((SessionStorageError, InvalidInputError)):
        await storage.create_session(new_session("t", context={"k": "\ud800"}))
    assert [each.session_id for each in (await storage.list_sessions()).records] == ["s"]


@pytest.mark.parametrize("reading", [True, False])
async def test_a_file_with_a_rollback_journal_that_another_uses(
    storage: SQLiteSessionStorage, tmp_path: Path, reading: bool
) -> None:
    """It has no write-ahead log that could have been removed, and is waited for."""
    await storage.close()
    another = sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)
    another.execute("PRAGMA journal_mode = DELETE")
    another.execute("BEGIN" if reading else "BEGIN IMMEDIATE")
    another.execute("SELECT count(*) FROM sessions").fetchone()
    impatient = SQLiteSessionStorage(tmp_path / "sessions.db", busy_timeout=0.05)
    with pytest.raises(StorageBusyError, match="locked"):
        await impatient.find_session("s")
    another.execute("COMMIT")
    another.close()
    assert (await impatient.find_session("s")).session_id == "s"
    assert await pragma_of(impatient, "journal_mode") == "wal"
    await impatient.close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
async def test_what_is_no_file_is_unavailable(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.db")
    storage = SQLiteSessionStorage(tmp_path / "pipe.db")
    with pytest.raises(SessionStorageError):
        await storage.create_session(new_session("s"))
    await storage.close()


async def pragma_of(storage: SQLiteSessionStorage, name: str) -> Any:
    return await storage._engine.write(
        lambda connection: connection.execute(f"PRAGMA {name}").fetchone()[0]
    )


async def test_a_trigger_that_keeps_messages_out_is_told(
    storage: SQLiteSessionStorage, tmp_path: Path
) -> None:
    """``RAISE(IGNORE)`` drops a row in silence (https://www.sqlite.org/lang_createtrigger.html)."""
    await storage.append(ref("s"), [user("a")])
    with closing(sqlite3.connect(storage.db_path, isolation_level=None)) as connection:
        connection.execute(
            "CREATE TRIGGER planted BEFORE INSERT ON messages BEGIN SELECT RAISE(IGNORE); END"
        )
    with pytest.raises(StorageCorruptError, match="trigger"):
        await storage.append(ref("s"), [user("b")])
    assert [each.text for each in await storage.get_messages(ref("s"))] == ["a"]
    assert (await storage.get_session(ref("s"))).message_count == 1
