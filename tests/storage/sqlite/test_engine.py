from __future__ import annotations

import asyncio
import errno
import gc
import sqlite3
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from langswarm_session import (
    IdempotencyConflictError,
    InvalidInputError,
    MessageConflictError,
    SessionNotFoundError,
    SessionStorageError,
    SQLiteSessionStorage,
    StorageBusyError,
    StorageClosedError,
    StorageCorruptError,
    StorageFullError,
    StorageUnavailableError,
    TurnStatus,
)
from langswarm_session.records import IdempotencyKey, Lease, TurnEnd
from langswarm_session.storage.rows import encode_message
from langswarm_session.storage.sqlite import transactions
from langswarm_session.storage.sqlite.engine import MAX_BATCH
from langswarm_session.storage.sqlite.errors import typed_error
from langswarm_session.testing.making import lease, new_session, ref, texts, user

KEY = IdempotencyKey("key", "digest")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
async def storage(path: Path) -> AsyncIterator[SQLiteSessionStorage]:
    storage = SQLiteSessionStorage(path)
    await storage.create_session(new_session("s"))
    yield storage
    await storage.close()


class Lock:
    """Another program that holds the write lock of a database."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


async def count_commits(storage: SQLiteSessionStorage) -> Callable[[], int]:
    """What tells how many transactions were committed since."""
    statements: list[str] = []
    await storage._engine.write(lambda connection: connection.set_trace_callback(statements.append))
    statements.clear()  # of the commit of that
    return lambda: statements.count("COMMIT")


async def queued(storage: SQLiteSessionStorage, path: Path, *calls: Any) -> list[Any]:
    """The outcomes of calls that all had to wait for one another, so that they share a commit."""
    lock = Lock(path)
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    lock.release()
    return await asyncio.gather(*tasks, return_exceptions=True)


# Commits


async def test_one_append_is_one_commit(storage: SQLiteSessionStorage) -> None:
    commits = await count_commits(storage)
    for n in range(5):
        await storage.append(ref("s"), [user(str(n)), user(str(n))])
    assert commits() == 5


async def test_appends_that_wait_share_a_commit(storage: SQLiteSessionStorage, path: Path) -> None:
    for n in range(50):
        await storage.create_session(new_session(f"s{n}"))
    commits = await count_commits(storage)
    await queued(storage, path, *(storage.append(ref(f"s{n}"), [user(str(n))]) for n in range(50)))
    # The writer may have taken the first of them before the others came.
    assert 1 <= commits() <= 2
    assert [texts(await storage.get_messages(ref(f"s{n}"))) for n in range(50)] == [
        [str(n)] for n in range(50)
    ]


async def test_more_than_a_commit_takes(storage: SQLiteSessionStorage, path: Path) -> None:
    size = 2 * MAX_BATCH + 10
    commits = await count_commits(storage)
    await queued(storage, path, *(storage.append(ref("s"), [user(str(n))]) for n in range(size)))
    assert 3 <= commits() <= 4
    assert texts(await storage.get_messages(ref("s"))) == [str(n) for n in range(size)]


async def test_a_bad_write_in_a_shared_commit_fails_alone(
    storage: SQLiteSessionStorage, path: Path
) -> None:
    known = user("known")
    await storage.append(ref("s"), [known], key=KEY)
    outcomes = await queued(
        storage,
        path,
        storage.append(ref("s"), [user("a")]),
        storage.append(ref("nowhere"), [user()]),
        storage.append(ref("s"), [known.replaced(content="changed"), user("not stored")]),
        storage.append(ref("s"), [user("b")]),
        storage._engine.write(lambda connection: connection.execute("no SQL")),
        storage.append(ref("s"), [user()], key=IdempotencyKey("key", "other")),
        storage._engine.write(lambda _: 1 // 0),
        storage.append(ref("s"), [known, user("c")]),
    )
    errors = [type(each) if isinstance(each, BaseException) else None for each in outcomes]
    assert errors == [
        None,
        SessionNotFoundError,
        MessageConflictError,
        None,
        SessionStorageError,
        IdempotencyConflictError,
        SessionStorageError,
        None,
    ]
    assert sorted(texts(await storage.get_messages(ref("s")))) == ["a", "b", "c", "known"]


async def test_a_write_is_durable_when_it_returns(
    storage: SQLiteSessionStorage, path: Path, tmp_path: Path
) -> None:
    # What lies on the disk now, without the process that wrote it.
    await storage.append(ref("s"), [user("a")])
    copy = tmp_path / "copy"
    copy.mkdir()
    for suffix in ("", "-wal"):
        (copy / f"sessions.db{suffix}").write_bytes(path.with_name(path.name + suffix).read_bytes())
    other = SQLiteSessionStorage(copy / "sessions.db")
    assert texts(await other.get_messages(ref("s"))) == ["a"]
    await other.close()


# Readers


async def test_a_long_read_holds_up_no_write_and_no_other_read(
    storage: SQLiteSessionStorage,
) -> None:
    inside, leave = threading.Event(), threading.Event()

    def read_slowly(connection: sqlite3.Connection) -> list[int]:
        rows = connection.execute("SELECT seq FROM messages ORDER BY seq")
        seen = [next(rows)[0]]
        inside.set()
        leave.wait()
        return seen + [row[0] for row in rows]

    await storage.append(ref("s"), [user("0")])
    reading = asyncio.ensure_future(storage._engine.read(read_slowly))
    await asyncio.to_thread(inside.wait)
    for n in range(1, 20):
        await storage.append(ref("s"), [user(str(n))])
        assert len(await storage.get_messages(ref("s"))) == n + 1
    leave.set()
    # It saw the log as it was when it began.
    assert await reading == [1]


async def test_as_many_reads_as_there_are_readers(path: Path) -> None:
    storage = SQLiteSessionStorage(path, max_readers=3)
    together = threading.Barrier(3)
    await asyncio.gather(*(storage._engine.read(lambda _: together.wait()) for _ in range(3)))
    names = await asyncio.gather(
        *(storage._engine.read(lambda _: threading.current_thread().ident) for _ in range(30))
    )
    assert 1 <= len(set(names)) <= 3
    await storage.close()


async def test_a_reader_cannot_write(storage: SQLiteSessionStorage) -> None:
    with pytest.raises(StorageUnavailableError):
        await storage._engine.read(lambda connection: connection.execute("DELETE FROM sessions"))
    assert len((await storage.list_sessions()).records) == 1


async def test_a_read_that_fails_leaves_its_reader_usable(path: Path) -> None:
    storage = SQLiteSessionStorage(path, max_readers=1)
    for _ in range(3):
        with pytest.raises(SessionStorageError):
            await storage._engine.read(lambda connection: connection.execute("no SQL"))
    assert (await storage.list_sessions()).records == []
    await storage.close()


async def test_no_thread_keeps_what_was_read_or_written(path: Path) -> None:
    storage = SQLiteSessionStorage(path)

    class Found:
        pass

    for do in (storage._engine.read, storage._engine.write):
        gone = threading.Event()
        weakref.finalize(await do(lambda _: Found()), gone.set)
        assert await asyncio.to_thread(gone.wait, 10)
    await storage.close()


# Closing


async def test_close_waits_for_what_was_accepted(path: Path) -> None:
    storage = SQLiteSessionStorage(path)
    await storage.create_session(new_session("s"))
    lock = Lock(path)
    writing = [asyncio.ensure_future(storage.append(ref("s"), [user(str(n))])) for n in range(10)]
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(storage.close())
    await asyncio.sleep(0)
    lock.release()
    await closing
    assert [len((await each).messages) for each in writing] == [1] * 10
    with pytest.raises(StorageClosedError):
        await storage.append(ref("s"), [user()])


async def test_a_closed_storage_leaves_no_thread(path: Path) -> None:
    before = set(threading.enumerate())
    storage = SQLiteSessionStorage(path)
    await asyncio.gather(*(storage.list_sessions() for _ in range(20)))
    started = set(threading.enumerate()) - before
    assert any("sqlite" in thread.name for thread in started)
    await storage.close()
    assert not [each for each in started if each.is_alive() and "sqlite" in each.name]


async def test_a_dropped_storage_closes_itself(path: Path) -> None:
    before = set(threading.enumerate())
    storage = SQLiteSessionStorage(path)
    await storage.create_session(new_session("s"))
    await storage.find_session("s")
    started = [each for each in set(threading.enumerate()) - before if "sqlite" in each.name]
    dropped = weakref.ref(storage)
    del storage
    gc.collect()
    assert dropped() is None
    for thread in started:
        await asyncio.to_thread(thread.join)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


async def test_a_storage_may_be_collected_in_its_own_thread(path: Path) -> None:
    # The garbage collector runs wherever it runs; here a reader ends up dropping the storage.
    before = set(threading.enumerate())
    inside, leave = threading.Event(), threading.Event()
    storage = SQLiteSessionStorage(path)
    await storage.create_session(new_session("s"))
    held = [storage]

    def read(_: sqlite3.Connection) -> None:
        inside.set()
        leave.wait()
        held.clear()

    reading = asyncio.ensure_future(storage._engine.read(read))
    await asyncio.to_thread(inside.wait)
    started = [each for each in set(threading.enumerate()) - before if "sqlite" in each.name]
    del storage
    leave.set()
    await reading
    for thread in started:
        await asyncio.to_thread(thread.join)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


async def test_a_closed_loop_harms_nobody(storage: SQLiteSessionStorage, path: Path) -> None:
    lock = Lock(path)

    def abandon() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(storage.append(ref("s"), [user("abandoned")]))
        loop.run_until_complete(asyncio.sleep(0))
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()

    await asyncio.to_thread(abandon)
    lock.release()
    await storage.append(ref("s"), [user("after")])
    # What was cancelled may have been written already, if the writer had taken it.
    assert texts(await storage.get_messages(ref("s")))[-1:] == ["after"]


# On the caller's thread


def be_quick(storage: SQLiteSessionStorage) -> None:
    """Let small work be done on the caller's thread."""
    for _ in range(20):
        storage._engine._writer.gate.record(0)
        storage._engine._read_gate.record(0)


async def test_small_work_is_done_on_the_callers_thread(storage: SQLiteSessionStorage) -> None:
    here = threading.get_ident()
    for run in (storage._engine.write, storage._engine.read):
        be_quick(storage)
        assert await run(lambda _: threading.get_ident(), is_small=True) == here
        assert await run(lambda _: threading.get_ident()) != here


async def test_work_that_has_been_slow_is_not(storage: SQLiteSessionStorage) -> None:
    be_quick(storage)
    storage._engine._writer.gate.record(1)
    storage._engine._read_gate.record(1)
    for run in (storage._engine.write, storage._engine.read):
        where = await run(lambda _: threading.get_ident(), is_small=True)
        assert where != threading.get_ident()


async def test_writes_at_once_are_gathered(storage: SQLiteSessionStorage) -> None:
    be_quick(storage)
    commits = await count_commits(storage)
    await asyncio.gather(*(storage.append(ref("s"), [user(str(n))]) for n in range(20)))
    assert commits() == 1


async def test_nobody_waits_for_another_process_on_the_callers_thread(
    storage: SQLiteSessionStorage, path: Path
) -> None:
    lock = Lock(path)
    be_quick(storage)
    writing = asyncio.ensure_future(storage.append(ref("s"), [user("later")]))
    await asyncio.sleep(0.05)  # the loop goes on
    assert not writing.done()
    lock.release()
    assert texts((await writing).messages) == ["later"]


@pytest.mark.parametrize("gathered", [True, False])
def test_an_interrupt_on_the_callers_thread_harms_nothing(path: Path, gathered: bool) -> None:
    storage = SQLiteSessionStorage(path)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(storage.create_session(new_session("s")))

    def interrupted(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM sessions")
        raise KeyboardInterrupt

    async def write() -> None:
        be_quick(storage)
        for _ in range(0 if gathered else 100):
            storage._engine._contention.record(1)
        await storage._engine.write(interrupted, is_small=True)

    writing = loop.create_task(write())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(writing)
    # Whoever goes on with the loop, as a notebook does, finds all as it was.
    outcome = loop.run_until_complete(asyncio.gather(writing, return_exceptions=True))
    assert isinstance(outcome[0], asyncio.CancelledError | KeyboardInterrupt)
    be_quick(storage)
    loop.run_until_complete(storage.append(ref("s"), [user("after")]))
    assert texts(loop.run_until_complete(storage.get_messages(ref("s")))) == ["after"]
    assert storage._engine._accepted == storage._engine._finished
    loop.run_until_complete(storage.close())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def test_what_cannot_be_decoded_is_told_and_not_quoted(storage: SQLiteSessionStorage) -> None:
    def read(_: sqlite3.Connection) -> None:
        raise UnicodeDecodeError("utf-8", b"a secret", 0, 1, "a secret")

    for is_small in (True, False):
        be_quick(storage)
        with pytest.raises(StorageCorruptError) as caught:
            await storage._engine.read(read, is_small=is_small)
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None


# Limits


async def test_more_calls_than_may_wait_are_refused(path: Path) -> None:
    storage = SQLiteSessionStorage(path, max_waiting=5)
    await storage.create_session(new_session("s"))
    lock = Lock(path)
    writing = [asyncio.ensure_future(storage.append(ref("s"), [user(str(n))])) for n in range(8)]
    await asyncio.sleep(0)
    renewing = asyncio.ensure_future(storage.renew_turns({"token": ref("s")}, 30))  # never refused
    await asyncio.sleep(0)
    lock.release()
    outcomes = await asyncio.gather(*writing, return_exceptions=True)
    assert [type(each) for each in outcomes[5:]] == [StorageBusyError] * 3
    assert await renewing == set()
    assert texts(await storage.get_messages(ref("s"))) == [str(n) for n in range(5)]
    await storage.close()


async def test_no_call_waits_for_ever(path: Path) -> None:
    storage = SQLiteSessionStorage(path, timeout=0.2)
    await storage.create_session(new_session("s"))
    inside, leave = threading.Event(), threading.Event()

    def write_slowly(_: sqlite3.Connection) -> None:
        inside.set()
        leave.wait()

    slow = asyncio.ensure_future(storage._engine.write(write_slowly))
    await asyncio.to_thread(inside.wait)
    with pytest.raises(StorageBusyError, match="nothing of it was kept"):
        await storage.append(ref("s"), [user("waits")])
    with pytest.raises(StorageBusyError, match="may be stored"):
        await slow
    leave.set()
    await storage.append(ref("s"), [user("after")])
    assert texts(await storage.get_messages(ref("s"))) == ["after"]
    await storage.close()


# Cancelled callers


async def test_a_cancelled_write_that_was_begun_is_waited_for(
    storage: SQLiteSessionStorage,
) -> None:
    inside, leave = threading.Event(), threading.Event()

    def write_slowly(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE sessions SET model = 'another'")
        inside.set()
        leave.wait()

    slow = asyncio.ensure_future(storage._engine.write(write_slowly))
    await asyncio.to_thread(inside.wait)
    queued = asyncio.ensure_future(storage.append(ref("s"), [user("queued")]))
    await asyncio.sleep(0.01)
    for task in (slow, queued):
        task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert (slow.done(), queued.cancelled()) == (False, True)
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await slow
    record = await storage.get_session(ref("s"))
    assert (record.model, record.message_count) == ("another", 0)


async def test_a_write_that_waits_for_another_process_is_withdrawn_immediately(
    storage: SQLiteSessionStorage, path: Path
) -> None:
    lock = Lock(path)
    waiting = asyncio.ensure_future(storage.append(ref("s"), [user("waits")]))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(waiting), 10)
    lock.release()
    await storage.append(ref("s"), [user("after")])
    assert texts(await storage.get_messages(ref("s"))) == ["after"]


async def test_a_cancelled_caller_waits_no_longer_than_any(path: Path) -> None:
    storage = SQLiteSessionStorage(path, timeout=0.2)
    await storage.create_session(new_session("s"))
    inside, leave = threading.Event(), threading.Event()

    def write_slowly(_: sqlite3.Connection) -> None:
        inside.set()
        leave.wait()

    slow = asyncio.ensure_future(storage._engine.write(write_slowly))
    await asyncio.to_thread(inside.wait)
    slow.cancel()
    with pytest.raises(StorageBusyError, match="may be stored") as caught:
        await slow
    assert caught.value.may_be_stored
    leave.set()
    await storage.close()


# Threads that end


class Ended(BaseException):
    """What a debugger or a watchdog raises in a thread."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_when_the_writers_thread_ends_those_that_wait_are_told(
    storage: SQLiteSessionStorage,
) -> None:
    inside, leave = threading.Event(), threading.Event()

    def end(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM sessions")
        inside.set()
        leave.wait()
        raise Ended

    first = asyncio.ensure_future(storage._engine.write(end))
    await asyncio.to_thread(inside.wait)
    second = asyncio.ensure_future(storage.append(ref("s"), [user("waits")]))
    await asyncio.sleep(0.01)
    leave.set()
    outcomes = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(each) for each in outcomes] == [StorageUnavailableError] * 2
    assert [each.may_be_stored for each in outcomes] == [True, False]
    await storage.append(ref("s"), [user("after")])
    assert texts(await storage.get_messages(ref("s"))) == ["after"]
    assert storage._engine._accepted == storage._engine._finished


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_when_a_readers_thread_ends_those_that_wait_are_told(path: Path) -> None:
    storage = SQLiteSessionStorage(path, max_readers=1)
    await storage.create_session(new_session("s"))

    def end(_: sqlite3.Connection) -> None:
        raise Ended

    with pytest.raises(StorageUnavailableError):
        await storage._engine.read(end)
    assert await storage.get_messages(ref("s")) == []
    assert storage._engine._reading == 0
    await storage.close()


# What goes wrong


async def test_a_lock_that_is_held_too_long(storage: SQLiteSessionStorage, path: Path) -> None:
    impatient = SQLiteSessionStorage(path, busy_timeout=0)
    assert len((await impatient.list_sessions()).records) == 1
    lock = Lock(path)
    outcomes = await asyncio.gather(
        *(impatient.append(ref("s"), [user(str(n))]) for n in range(3)), return_exceptions=True
    )
    assert [type(each) for each in outcomes] == [StorageBusyError] * 3
    assert str(path) in str(outcomes[0])
    assert await impatient.get_messages(ref("s")) == []
    lock.release()
    await impatient.append(ref("s"), [user("after")])
    assert texts(await storage.get_messages(ref("s"))) == ["after"]
    await impatient.close()


async def test_a_full_disk_keeps_nothing_of_the_write(storage: SQLiteSessionStorage) -> None:
    async def limit(pages: int) -> None:
        await storage._engine.write(
            lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        )

    await storage.append(ref("s"), [user("before")])
    used = await storage._engine.write(
        lambda connection: connection.execute("PRAGMA page_count").fetchone()[0]
    )
    await limit(used + 2)
    for _ in range(2):
        with pytest.raises(StorageFullError):
            await storage.append(ref("s"), [user("x"), user("x" * 1_000_000)])
    assert texts(await storage.get_messages(ref("s"))) == ["before"]
    outcomes = await asyncio.gather(
        storage.append(ref("s"), [user("small")]),
        storage.append(ref("s"), [user("x" * 1_000_000)]),
        storage.append(ref("s"), [user("small too")]),
        return_exceptions=True,
    )
    assert [isinstance(each, StorageFullError) for each in outcomes] == [False, True, False]
    await limit(1_000_000)
    await storage.append(ref("s"), [user("x" * 1_000_000)])
    assert [len(text) for text in texts(await storage.get_messages(ref("s")))] == [
        6,
        5,
        9,
        1_000_000,
    ]


async def test_a_file_that_may_not_grow(path: Path) -> None:
    # A real failure to write, of a process that may write only so much to any file.
    program = f"""
import asyncio, resource
from langswarm_session import SQLiteSessionStorage, SessionStorageError
from langswarm_session.testing.making import *

async def main():
    storage = SQLiteSessionStorage({str(path)!r})
    await storage.create_session(new_session("s"))
    await storage.append(ref("s"), [user("before")])
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    try:
        await storage.append(ref("s"), [user("x" * 1_000_000)])
    except SessionStorageError as error:
        print(type(error).__name__)
    print(texts(await storage.get_messages(ref("s"))))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await storage.append(ref("s"), [user("after")])
    await storage.close()

asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": ":".join(filter(None, sys.path))},
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["StorageUnavailableError", "['before']"]
    storage = SQLiteSessionStorage(path)
    assert texts(await storage.get_messages(ref("s"))) == ["before", "after"]
    await storage.close()


async def test_a_path_below_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    storage = SQLiteSessionStorage(tmp_path / "file" / "sessions.db")
    for _ in range(2):
        with pytest.raises(StorageUnavailableError):
            await storage.create_session(new_session("s"))
    with pytest.raises(StorageUnavailableError):
        await storage.find_session("s")
    health = await storage.health()
    assert (health.ok, str(tmp_path) in (health.detail or "")) == (False, True)
    await storage.close()


@pytest.mark.parametrize("name", [".", "/proc/sessions.db", "/proc/sessions/sessions.db"])
async def test_a_path_that_cannot_be_a_file_is_unavailable(tmp_path: Path, name: str) -> None:
    storage = SQLiteSessionStorage(tmp_path / name)
    with pytest.raises(StorageUnavailableError):
        await storage.create_session(new_session("s"))
    await storage.close()


async def test_a_path_that_comes_to_be_works_from_then_on(tmp_path: Path) -> None:
    blocked = tmp_path / "folder"
    blocked.write_text("not a folder yet")
    storage = SQLiteSessionStorage(blocked / "sessions.db")
    with pytest.raises(SessionStorageError):
        await storage.create_session(new_session("s"))
    blocked.unlink()
    await storage.create_session(new_session("s"))
    assert (await storage.health()).ok
    await storage.close()


def sqlite_error(path: Path, kind: str) -> Exception:
    """An error as SQLite itself raises it."""
    sqlite3.connect(path).execute("CREATE TABLE t (a UNIQUE)").connection.close()
    address = f"{path.as_uri()}?mode=ro" if kind == "readonly" else path.as_uri()
    connection = sqlite3.connect(address, uri=True, isolation_level=None, timeout=0)
    try:
        if kind == "busy":
            lock = Lock(path)
            try:
                connection.execute("BEGIN IMMEDIATE")
            finally:
                lock.release()
        elif kind == "unknown":
            connection.execute("SELECT nothing")
        connection.execute("INSERT INTO t VALUES (1)")
    except sqlite3.Error as error:
        return error
    finally:
        connection.close()
    raise AssertionError("nothing went wrong")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("readonly", StorageUnavailableError),
        ("busy", StorageBusyError),
        ("unknown", SessionStorageError),
    ],
)
def test_sqlites_errors_get_a_type(path: Path, kind: str, expected: type[Exception]) -> None:
    error = typed_error(sqlite_error(path, kind), "the/path.db")
    assert type(error) is expected
    assert str(error).startswith("the/path.db: ")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_FULL, StorageFullError),
        (sqlite3.SQLITE_IOERR | 3 << 8, StorageUnavailableError),
        (sqlite3.SQLITE_CORRUPT | 1 << 8, StorageCorruptError),
        (sqlite3.SQLITE_NOTADB, StorageCorruptError),
        (sqlite3.SQLITE_LOCKED | 1 << 8, StorageBusyError),
        (sqlite3.SQLITE_MISUSE, SessionStorageError),
    ],
)
def test_extended_codes_are_those_of_their_kind(code: int, expected: type[Exception]) -> None:
    error = sqlite3.OperationalError("as SQLite says")
    error.sqlite_errorcode = code
    assert type(typed_error(error, "path")) is expected


def test_the_systems_errors_get_a_type() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert type(typed_error(full, "path")) is StorageFullError
    assert type(typed_error(PermissionError("no"), "path")) is StorageUnavailableError


async def test_a_text_that_cannot_be_stored_is_no_damage(storage: SQLiteSessionStorage) -> None:
    for _ in range(2):
        with pytest.raises(InvalidInputError):
            await storage.find_session("\ud800")
    assert (await storage.health()).ok


def test_our_own_errors_stay_what_they_are() -> None:
    error = SessionNotFoundError("gone", session_id="s")
    assert typed_error(error, "path") is error


async def damaged_turn(storage: SQLiteSessionStorage, path: Path) -> Lease:
    """Begin a turn in `s` with a message that cannot be decoded afterwards, and another."""
    begun = lease(60)
    damaged = user("x").replaced(metadata={"a": 1})
    await storage.begin_turn(ref("s"), [damaged, user()], begun)
    run(path, "UPDATE messages SET extra = '{broken' WHERE extra IS NOT NULL")
    return begun


def run(path: Path, statement: str) -> Any:
    """What a statement of another program gives."""
    connection = sqlite3.connect(path, isolation_level=None)
    row = connection.execute(statement).fetchone()
    connection.close()
    return row


async def test_damage_in_one_session_hides_nothing_of_another(
    storage: SQLiteSessionStorage, path: Path
) -> None:
    """Whoever keeps the error keeps no connection at what the database was at that moment."""
    await damaged_turn(storage, path)
    kept: list[StorageCorruptError] = []
    for limit in (10, None):  # read in the caller's thread, and in another
        for _ in range(10):
            with pytest.raises(StorageCorruptError) as raised:
                await storage.get_messages(ref("s"), limit=limit)
            kept.append(raised.value)
    await storage.create_session(new_session("other"))
    await storage.append(ref("other"), [user("new")])
    for limit in (10, None):
        assert texts(await storage.get_messages(ref("other"), limit=limit)) == ["new"]
    busy, pages, folded = run(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    assert (busy, pages, folded) == (0, 0, 0)


async def test_damage_met_by_a_write_harms_no_later_one(
    storage: SQLiteSessionStorage, path: Path
) -> None:
    asked = [user("x").replaced(metadata={"a": 1}), user()]
    await storage.append(ref("s"), asked, key=KEY)
    run(path, "UPDATE messages SET extra = '{broken' WHERE extra IS NOT NULL")
    kept: list[StorageCorruptError] = []
    for _ in range(3):
        with pytest.raises(StorageCorruptError) as raised:  # it gives back what is stored
            await storage.append(ref("s"), asked, key=KEY)
        kept.append(raised.value)
    await storage.create_session(new_session("other"))
    for n in range(3):
        run(path, "UPDATE sessions SET errors = errors + 1 WHERE session_id = 'other'")
        await storage.append(ref("other"), [user(f"{n}")])
    assert texts(await storage.get_messages(ref("other"))) == ["0", "1", "2"]


async def test_a_write_that_meets_damage_keeps_nothing(
    storage: SQLiteSessionStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it shared its transaction with others, which are kept."""

    def insert(*_: Any) -> Any:
        raise StorageCorruptError("found in the middle")

    for name in ("t", "u"):
        await storage.create_session(new_session(name))
    before = await storage.find_session("s")
    damaged = user()
    real = transactions.insert
    monkeypatch.setattr(
        transactions,
        "insert",
        lambda *given: (insert if encode_message(damaged) in given[-1] else real)(*given),
    )
    appends = [storage.append(ref("t"), [user("t")]), storage.append(ref("s"), [damaged])]
    outcomes = await asyncio.gather(
        *appends, storage.append(ref("u"), [user("u")]), return_exceptions=True
    )
    assert [type(each) is StorageCorruptError for each in outcomes] == [False, True, False]
    assert await storage.find_session("s") == before
    for name in ("t", "u"):
        assert texts(await storage.get_messages(ref(name))) == [name]


async def test_a_turn_with_a_message_that_cannot_be_decoded_ends(
    storage: SQLiteSessionStorage, path: Path
) -> None:
    begun = await damaged_turn(storage, path)
    await storage.end_turn(ref("s"), TurnEnd(begun.token, TurnStatus.FAILED, error="x"), [])
    assert (await storage.get_turns(ref("s")))[0].status is TurnStatus.FAILED
    await storage.append(ref("s"), [user()])
