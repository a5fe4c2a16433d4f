from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from langswarm_session import SQLiteSessionStorage, StorageBusyError, StorageUnavailableError
from langswarm_session.storage.sqlite import lock as sqlite_lock
from langswarm_session.storage.sqlite.lock import locked
from langswarm_session.testing.making import new_session

LOCK_ALL = """
import fcntl, os, sys
os.setgid(65534); os.setuid(65534)
held = []
for path in sys.argv[1:]:
    try:
        held.append(os.open(path, os.O_RDONLY))
        fcntl.flock(held[-1], fcntl.LOCK_EX)
        fcntl.lockf(held[-1], fcntl.LOCK_SH)
    except OSError as error:
        print(path, error.strerror)
print("done", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a.db")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that all users can read, with those above it."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def flocked(path: Path) -> Iterator[None]:
    """Hold what anybody may who can open the path to read it."""
    handle = os.open(path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def locking_as_another_user(paths: list[str]) -> Iterator[list[str]]:
    """Have another user hold what locks it can get; what it is told about the others."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCK_ALL, *paths],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        yield list(iter(other.stdout.readline, "done\n"))
        other.communicate("")


async def test_who_may_read_the_folder_or_the_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with flocked(tmp_path):
        storage = SQLiteSessionStorage(path, busy_timeout=0)
        await storage.create_session(new_session("a"))
        await storage.close()
        with flocked(path):
            storage = SQLiteSessionStorage(path, busy_timeout=0)
            await storage.create_session(new_session("b"))
            await storage.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
async def test_another_user_can_lock_nothing_of_a_new_database(open_folder: Path) -> None:
    path = open_folder / "a.db"
    storage = SQLiteSessionStorage(path, busy_timeout=5)
    await storage.create_session(new_session("a"))
    with locked(str(path), 0o600, 1.0):
        names = [str(each) for each in open_folder.iterdir()]
        assert len(names) == 4
        with locking_as_another_user([str(open_folder), *names]) as refused:
            assert sorted(refused) == sorted(f"{name} Permission denied\n" for name in names)
            await storage.create_session(new_session("b"))
    await storage.close()


def test_only_one_has_it_at_a_time(path: str) -> None:
    inside, most = [0], [0]

    def enter() -> None:
        for _ in range(20):
            with locked(path, 0o600, 30.0):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.0001)
                inside[0] -= 1

    threads = [threading.Thread(target=enter) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert not Path(f"{path}-langswarm-lock").exists()


def test_who_waits_too_long_is_told(path: str) -> None:
    with (
        locked(path, 0o600, 1.0),
        pytest.raises(StorageBusyError, match="opening it for 0.02 seconds"),
        locked(path, 0o600, 0.02),
    ):
        pass


def test_what_a_killed_process_left_is_used(path: str) -> None:
    lock = Path(f"{path}-langswarm-lock")
    lock.touch(0o600)
    with locked(path, 0o600, 0.0):
        assert lock.exists()
    assert not lock.exists()


@pytest.mark.parametrize(("mode", "writers"), [(0o600, 0o600), (0o644, 0o600), (0o664, 0o660)])
def test_those_may_lock_it_who_may_write_to_the_database(
    path: str, mode: int, writers: int
) -> None:
    def found() -> int:
        return stat.S_IMODE(Path(f"{path}-langswarm-lock").stat().st_mode)

    with locked(path, mode, 1.0):  # there is no database yet
        assert found() == writers
    Path(path).touch()
    Path(path).chmod(mode)
    with locked(path, 0o600, 1.0):
        assert found() == writers


def test_a_link_in_its_place_is_not_followed(path: str, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("content")
    Path(f"{path}-langswarm-lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic") as caught, locked(path, 0o666, 0.0):
        pass
    assert caught.value.errno == errno.ELOOP
    assert (tmp_path / "victim").stat().st_mode & 0o777 != 0o666


async def test_a_link_in_its_place_is_a_typed_error(path: str, tmp_path: Path) -> None:
    Path(f"{path}-langswarm-lock").symlink_to(tmp_path / "victim")
    storage = SQLiteSessionStorage(path, busy_timeout=0)
    with pytest.raises(StorageUnavailableError, match="symbolic links"):
        await storage.create_session(new_session("a"))
    await storage.close()
    assert not (tmp_path / "victim").exists()


def test_another_users_that_cannot_be_opened(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Path(f"{path}-langswarm-lock")
    lock.touch()

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    access = os.access
    monkeypatch.setattr(sqlite_lock, "_open", refuse)
    monkeypatch.setattr(
        os, "access", lambda name, *a, **k: str(name) != str(lock) and access(name, *a, **k)
    )
    with (
        pytest.raises(StorageUnavailableError, match="langswarm-lock cannot be opened.* remove it"),
        locked(path, 0o600, 0.02),
    ):
        pass


def test_a_file_system_that_does_not_lock(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(path, 0o600, 1.0):
        pass
    assert not Path(f"{path}-langswarm-lock").exists()


def test_a_folder_that_cannot_be_written(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with locked(path, 0o600, 1.0):
        assert not Path(f"{path}-langswarm-lock").exists()
