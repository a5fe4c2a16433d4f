from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from langswarm_session import SQLiteSessionStorage
from langswarm_session.findings import Finding, Level
from langswarm_session.records import SessionRef
from langswarm_session.storage.examining import TimeLimit
from langswarm_session.storage.rows import decode_message
from langswarm_session.storage.sqlite import examine as sqlite_examine
from langswarm_session.testing.making import new_session, reply, user

S = SessionRef("s", "user", None)


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A file with a session of two messages."""
    storage = SQLiteSessionStorage(tmp_path / "a.db")
    await storage.create_session(new_session("s"))
    await storage.append(S, [user("a"), reply("b")])
    await storage.close()
    return tmp_path / "a.db"


async def examined(path: Path, *, full: bool = True, seconds: float = 300.0) -> dict[str, Finding]:
    storage = SQLiteSessionStorage(path)
    found = await storage.examine(full=full, seconds=seconds)
    await storage.close()
    assert all(each.advice for each in found if each.level is not Level.OK)
    return {each.check: each for each in found}


async def problems(path: Path, **options: Any) -> dict[str, str]:
    found = await examined(path, **options)
    return {each.check: each.message for each in found.values() if each.level is Level.PROBLEM}


def edit(path: Path, script: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(script)
    connection.close()


async def test_nothing_is_wrong(path: Path) -> None:
    found = await examined(path)
    assert {each.level for each in found.values()} == {Level.OK}
    for check in ("sessions", "notes", "messages"):
        assert found[check].message == "every one can be read"


async def test_a_schema_that_somebody_changed(path: Path) -> None:
    edit(path, "DROP INDEX messages_by_id")
    for full in (False, True):
        assert "messages_by_id is missing" in (await problems(path, full=full))["objects"]


@pytest.mark.parametrize(
    ("script", "check"),
    [
        ("UPDATE messages SET content = CAST(x'ff' AS TEXT) WHERE seq = 1", "messages"),
        ("UPDATE messages SET role = 99 WHERE seq = 1", "messages"),
        ("UPDATE messages SET extra = '[]' WHERE seq = 1", "messages"),
        ("UPDATE sessions SET context = '[]'", "sessions"),
        ("UPDATE sessions SET user_id = x'00'", "sessions"),
        ("INSERT INTO turns VALUES (1, 1, 'evil', 1, NULL, NULL, NULL, NULL)", "notes"),
    ],
)
async def test_what_cannot_be_read(path: Path, script: str, check: str) -> None:
    edit(path, script)
    found = await examined(path)
    assert "1 cannot be read" in found[check].message
    others = {"sessions", "notes", "messages"} - {check}
    assert {found[each].level for each in others} == {Level.OK}


@pytest.mark.parametrize("value", ["'x'", "x'00'", "1.5"])
async def test_a_lease_that_is_none(path: Path, value: str) -> None:
    edit(
        path,
        f"UPDATE sessions SET turn_token = 't', turn_id = 1, turn_owner = {value}, "
        f"turn_expires = {value}",
    )
    assert "1 left behind" in (await examined(path))["open turns"].message


async def test_an_activity_that_is_indexed_wrongly(path: Path) -> None:
    edit(path, "UPDATE sessions SET active_minute = 1")
    assert "1 sessions are miscounted: 's'" in (await problems(path))["figures"]


async def test_a_file_that_every_user_can_read(path: Path) -> None:
    assert (await examined(path))["access"].level is Level.OK
    path.chmod(0o644)
    found = (await examined(path))["access"]
    assert found.level is Level.WARNING
    assert "0644" in found.message


def beside(path: Path) -> set[str]:
    return {each.name for each in path.parent.iterdir()} - {path.name}


def not_writable(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    # The permissions themselves would not keep root from it.
    monkeypatch.setattr(sqlite_examine, "_is_writable", lambda path: not str(path).endswith(names))


async def test_a_user_who_may_only_read_leaves_nothing_that_writers_cannot_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    not_writable(monkeypatch, ".db")
    for full in (False, True):
        assert await problems(path, full=full) == {}
        assert beside(path) == set()


async def test_a_log_that_only_a_writer_may_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(f"{path}-wal").write_bytes(b"x")
    not_writable(monkeypatch, ".db")
    assert "it was not closed" in (await problems(path))["file"]
    assert beside(path) == {"a.db-wal"}


async def test_files_of_another_user_beside_the_database(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(f"{path}-wal").touch()
    not_writable(monkeypatch, "-wal")
    assert "a.db-wal cannot be written" in (await problems(path))["file"]


async def test_a_folder_in_which_every_user_may_create(path: Path) -> None:
    path.parent.chmod(0o1777)
    found = (await examined(path))["folder"]
    assert found.level is Level.WARNING
    assert "1777" in found.message


async def test_a_version_that_there_is_none_of(path: Path) -> None:
    edit(path, "PRAGMA user_version = -1")
    assert "no version -1" in (await problems(path))["schema"]


# A limited time


async def test_what_was_read_before_the_time_was_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(path, "UPDATE messages SET role = 99")
    monkeypatch.setattr(sqlite_examine, "_STEPS", 1)
    limits: list[TimeLimit] = []

    class Noted(TimeLimit):
        def __init__(self, seconds: float) -> None:
            super().__init__(seconds)
            limits.append(self)

    def decode(row: Any) -> Any:
        limits[0]._end = 0.0
        return decode_message(row)

    monkeypatch.setattr(sqlite_examine, "TimeLimit", Noted)
    monkeypatch.setattr(sqlite_examine, "decode_message", decode)
    found = await examined(path)
    assert found["sessions"].level is Level.OK
    assert "1 cannot be read" in found["messages"].message
    assert "over at the messages, of which 0 were read" in found["time"].message
    assert found["time"].level is Level.WARNING


async def test_a_check_that_takes_long_is_ended(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As one statement: what ends it comes from another thread, or from within.
    forever = "WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT 1 FROM r) SELECT count(*) FROM r"
    monkeypatch.setattr(sqlite_examine, "_MISCOUNTED", forever)
    found = await examined(path, seconds=0.3)
    assert "0.3 seconds were over at the figures" in found["time"].message
    assert found["integrity"].level is Level.OK
    assert not any(isinstance(each, threading.Timer) for each in threading.enumerate())


def test_a_limit_counts_down() -> None:
    limit = TimeLimit(60)
    assert 0 < limit.left <= 60
    assert not limit.is_over
    limit._end = time.monotonic() - 1
    assert limit.left == 0
    assert limit.is_over
