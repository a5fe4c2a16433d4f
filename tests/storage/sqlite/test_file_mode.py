from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from langswarm_session import InvalidInputError, SQLiteSessionStorage
from langswarm_session.records import SessionRef
from langswarm_session.storage.sqlite.copy import copy_database
from langswarm_session.storage.sqlite.file_mode import create_file, writers_only
from langswarm_session.storage.sqlite.schema import migrate
from langswarm_session.testing.making import new_session, user

S = SessionRef("s", "user", None)


@pytest.fixture(params=[0o000, 0o022, 0o077], ids="umask {:03o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}


async def use(storage: SQLiteSessionStorage, folder: Path) -> dict[str, int]:
    """The permissions of all there is while the storage is in use."""
    await storage.create_session(new_session("s"))
    await storage.append(S, [user("a")])
    found = modes(folder)
    await storage.scrub()
    assert modes(folder) == found
    await storage.close()
    return found


def same(mode: int) -> dict[str, int]:
    return dict.fromkeys(("a.db", "a.db-wal", "a.db-shm"), mode)


async def test_a_new_database_is_its_users_alone(tmp_path: Path, umask: int) -> None:
    assert await use(SQLiteSessionStorage(tmp_path / "a.db"), tmp_path) == same(0o600)


@pytest.mark.parametrize("mode", [0o660, "0660", "660"])
async def test_a_new_database_has_the_permissions_that_were_asked_for(
    tmp_path: Path, umask: int, mode: int | str
) -> None:
    assert await use(SQLiteSessionStorage(tmp_path / "a.db", mode=mode), tmp_path) == same(0o660)


async def test_a_database_that_is_there_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.touch()
    path.chmod(0o644)
    assert await use(SQLiteSessionStorage(path), tmp_path) == same(0o644)
    assert await use_again(path) == 0o644


async def use_again(path: Path) -> int:
    storage = SQLiteSessionStorage(path, mode=0o600)
    await storage.append(S, [user("b")])
    await storage.close()
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_link_to_no_file_makes_a_private_one_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.db").symlink_to(tmp_path / "folder" / "real.db")
    storage = SQLiteSessionStorage(tmp_path / "a.db")
    await storage.create_session(new_session("s"))
    found = modes(tmp_path / "folder")
    assert found == dict.fromkeys(("real.db", "real.db-wal", "real.db-shm"), 0o600)
    await storage.close()


def test_a_copy_is_private_before_it_holds_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, copy = tmp_path / "a.db", tmp_path / "copy"
    seen = []
    connect = sqlite3.connect

    def connect_and_look(target: object, **options: object) -> sqlite3.Connection:
        seen.append(stat.S_IMODE(copy.stat().st_mode))
        return connect(target, **options)  # type: ignore[call-overload,no-any-return]

    database = connect(path)
    migrate(database, str(path))
    path.chmod(0o640)
    monkeypatch.setattr(sqlite3, "connect", connect_and_look)
    copy_database(database, str(path), copy)
    database.close()
    assert seen == [0o600]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o640


async def test_what_is_saved_of_a_removed_log_keeps_the_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    storage = SQLiteSessionStorage(path, mode=0o640)
    await storage.create_session(new_session("s"))
    (tmp_path / "a.db-wal").unlink()
    (tmp_path / "a.db-shm").unlink()
    await storage.close()
    assert modes(tmp_path) == {"a.db": 0o640}


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("content")
    path.chmod(0o644)
    assert not create_file(path, 0o600)
    assert path.read_text() == "content"
    assert modes(tmp_path) == {"a": 0o644}


@pytest.mark.parametrize("mode", [660, 0o1600, -1, True, 6.0, None, "rw", "", "ro", "0o8"])
def test_what_is_no_mode(tmp_path: Path, mode: object) -> None:
    with pytest.raises(InvalidInputError, match="in octal, as in 0o660"):
        SQLiteSessionStorage(tmp_path / "a.db", mode=mode)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", [0, 0o400, 0o066, "0077"])
def test_a_mode_that_nobody_could_work_with(tmp_path: Path, mode: int | str) -> None:
    with pytest.raises(InvalidInputError, match="add 0o600"):
        SQLiteSessionStorage(tmp_path / "a.db", mode=mode)


@pytest.mark.parametrize(
    ("mode", "writers"), [(0o600, 0o600), (0o644, 0o600), (0o664, 0o660), (0o666, 0o666)]
)
def test_who_may_only_read_may_not_open_what_is_for_writers(mode: int, writers: int) -> None:
    assert writers_only(mode) == writers
