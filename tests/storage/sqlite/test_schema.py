from __future__ import annotations

import sqlite3
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from langswarm_session import (
    SessionStorageError,
    SQLiteSessionStorage,
    StorageCorruptError,
    StorageVersionError,
)
from langswarm_session.storage.sqlite import schema as sqlite_schema
from langswarm_session.storage.sqlite.schema import APPLICATION_ID, MIGRATIONS
from langswarm_session.testing.making import everything, lease, new_session, ref, reply, user


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


async def make(path: Path, turns: int = 3) -> tuple[object, ...]:
    """A file with a session `s`, closed; what the storage says of the session."""
    storage = SQLiteSessionStorage(path)
    await storage.create_session(new_session("s"))
    for n in range(turns):
        await storage.append(ref("s"), [user(f"asked {n}"), reply(f"answered {n} " + "x" * 500)])
    await storage.begin_turn(ref("s"), [user("open")], lease())
    seen = await everything(storage, "s")
    await storage.close()
    return seen


def execute(path: Path, *statements: str) -> Any:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        return rows
    finally:
        connection.close()


async def refuses(path: Path, error: type[SessionStorageError]) -> None:
    """Using the file raises, says which file, and leaves it and its folder as they were."""
    before = contents(path.parent)
    storage = SQLiteSessionStorage(path)
    for _ in range(2):
        with pytest.raises(error, match=path.name):
            await storage.append(ref("s"), [user("more")])
        with pytest.raises(error):
            await storage.get_messages(ref("s"))
    health = await storage.health()
    assert not health.ok
    assert health.detail
    await storage.close()
    assert contents(path.parent) == before


def contents(folder: Path) -> dict[str, str]:
    """A digest of each file: of two that differ no more can be seen than that they do."""
    return {each.name: sha256(each.read_bytes()).hexdigest() for each in folder.iterdir()}


def schema(path: Path) -> list[tuple[str, ...]]:
    return execute(path, "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name")


async def test_a_new_file_is_marked_as_ours(path: Path) -> None:
    await make(path)
    assert execute(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert execute(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]


async def test_an_empty_file_becomes_ours(path: Path) -> None:
    path.touch()
    seen = await make(path)
    storage = SQLiteSessionStorage(path)
    assert await everything(storage, "s") == seen
    await storage.close()


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
async def test_a_file_of_any_version_is_upgraded(path: Path, version: int) -> None:
    # The data that each version could hold, written by its own schema.
    for statements in MIGRATIONS[:version]:
        execute(path, *statements)
    execute(
        path,
        f"PRAGMA application_id = {APPLICATION_ID}",
        f"PRAGMA user_version = {version}",
        "INSERT INTO sessions (session_id, user_id, provider, model, backend, status, context, "
        "created_at, last_activity, last_seq, message_count, turn_count) VALUES "
        "('s', 'user', 'mock', 'model', 'hybrid', 'active', '{\"own\": 1}', 1, 2, 2, 2, 1)",
        "INSERT INTO messages (session, seq, role, content, timestamp, id, turn, extra) VALUES "
        "(1, 1, 0, 'asked', 1, x'00000000000000000000000000000001', 1, NULL), "
        "(1, 2, 1, 'answered', 2, 'id', 1, '{\"metadata\": {\"k\": null}}')",
    )
    storage = SQLiteSessionStorage(path)
    log = await storage.get_messages(ref("s"))
    assert [(message.id, message.text) for message in log] == [
        ("0" * 31 + "1", "asked"),
        ("id", "answered"),
    ]
    assert log[1].metadata == {"k": None}
    assert [
        each.session_id for each in (await storage.list_sessions(inactive_since=3)).records
    ] == ["s"]
    await storage.append(ref("s"), [user("more")])
    assert (await storage.find_session("s")).to_context().model_extra == {"own": 1}
    await storage.close()
    fresh = path.with_name("fresh.db")
    await make(fresh)
    assert schema(path) == schema(fresh)


async def test_an_older_file_is_upgraded_in_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = await make(path)
    newer = [*MIGRATIONS, ["CREATE TABLE later (a)", "INSERT INTO later VALUES (7)"], []]
    monkeypatch.setattr(sqlite_schema, "MIGRATIONS", newer)
    for _ in range(2):
        storage = SQLiteSessionStorage(path)
        assert await everything(storage, "s") == seen
        await storage.close()
    assert execute(path, "PRAGMA user_version") == [(len(newer),)]
    assert execute(path, "SELECT a FROM later") == [(7,)]


async def test_an_upgrade_that_fails_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = await make(path)
    broken = [*MIGRATIONS, ["DELETE FROM messages"], ["CREATE TABLE later (a)", "no SQL"]]
    with monkeypatch.context() as patched:
        patched.setattr(sqlite_schema, "MIGRATIONS", broken)
        await refuses(path, SessionStorageError)
    storage = SQLiteSessionStorage(path)
    assert await everything(storage, "s") == seen
    await storage.close()


@pytest.mark.parametrize("journal", ["wal", "delete"])
async def test_a_newer_file_is_refused_and_left_alone(path: Path, journal: str) -> None:
    await make(path)
    execute(
        path, f"PRAGMA user_version = {len(MIGRATIONS) + 1}", f"PRAGMA journal_mode = {journal}"
    )
    await refuses(path, StorageVersionError)


def another_program(path: Path) -> None:
    execute(path, "CREATE TABLE sessions (a)", "INSERT INTO sessions VALUES (1)")


def another_program_in_wal_mode(path: Path) -> None:
    execute(path, "PRAGMA journal_mode = WAL", "CREATE TABLE a (b)")


def another_program_with_a_version(path: Path) -> None:
    execute(path, "PRAGMA user_version = 1", "CREATE TABLE a (b)")


def another_program_with_an_id(path: Path) -> None:
    execute(path, "PRAGMA application_id = 7")


def a_text(path: Path) -> None:
    path.write_text("dear diary, " * 1000)


def a_short_text(path: Path) -> None:
    path.write_text("hello")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(8192))


@pytest.mark.parametrize(
    "write",
    [
        another_program,
        another_program_in_wal_mode,
        another_program_with_a_version,
        another_program_with_an_id,
        a_text,
        a_short_text,
        zeros,
    ],
)
async def test_what_is_not_ours_is_refused_and_left_alone(
    path: Path, write: Callable[[Path], None]
) -> None:
    write(path)
    await refuses(path, StorageCorruptError)
    with pytest.raises(StorageCorruptError, match="another program|not a SQLite database"):
        await SQLiteSessionStorage(path).find_session("s")


@pytest.mark.parametrize("keep", [100, 4096, 8192, 0.5, 0.9, -4000, -1])
async def test_a_truncated_file_is_refused_and_left_alone(path: Path, keep: float) -> None:
    await make(path, turns=50)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole) if 0 < keep < 1 else keep)])
    await refuses(path, StorageCorruptError)


async def test_a_last_page_that_is_in_the_log_may_be_cut(path: Path) -> None:
    """A process that was killed while it folded the log into the file leaves it so."""
    storage = SQLiteSessionStorage(path)
    await storage.create_session(new_session("s"))
    await storage.append(ref("s"), [user("x" * 9000)])
    log = path.with_name("sessions.db-wal").read_bytes()
    await storage.close()
    cut = path.with_name("cut.db")
    cut.write_bytes(path.read_bytes()[:-1000])
    cut.with_name("cut.db-wal").write_bytes(log)
    storage = SQLiteSessionStorage(cut)
    assert (await storage.get_messages(ref("s")))[0].text == "x" * 9000
    await storage.close()


async def test_a_damaged_page_is_told_and_the_rest_is_read(path: Path) -> None:
    await make(path, turns=200)
    storage = SQLiteSessionStorage(path)
    await storage.create_session(new_session("other"))
    await storage.append(ref("other"), [user("unharmed")])
    await storage.close()
    [(page,)] = execute(path, "SELECT rootpage FROM sqlite_master WHERE name = 'messages_by_place'")
    [(size,)] = execute(path, "PRAGMA page_size")
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    storage = SQLiteSessionStorage(path)
    with pytest.raises(StorageCorruptError):
        await storage.get_messages(ref("s"))
    with pytest.raises(StorageCorruptError):
        await storage.append(ref("other"), [user("more")])
    assert (await storage.find_session("other")).message_count == 1
    await storage.close()
