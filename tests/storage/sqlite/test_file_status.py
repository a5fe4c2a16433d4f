from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from langswarm_session.storage.sqlite import file_status as module
from langswarm_session.storage.sqlite.file_status import FileStatus, file_status


@pytest.fixture(params=["statx", "stat"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "stat":
        monkeypatch.setattr(module, "_statx", None)
    elif module._statx is None:
        assert not sys.platform.startswith("linux"), "its C libraries have had statx since 2018"
        pytest.skip("there is no statx() here")


def test_a_file_is_what_the_system_says_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ä file"
    path.write_bytes(b"x" * 4321)
    status = path.stat()
    found = file_status(str(path))
    device = status.st_dev
    assert found == FileStatus((os.major(device), os.minor(device), status.st_ino), 4321)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    assert file_status(str(tmp_path / "link")) == file_status(str(tmp_path / "file"))


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert file_status(str(tmp_path / "other")) is None
    assert file_status(str(tmp_path / "file" / "other")) is None


def test_what_cannot_be_told_is_raised(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File name too long"):
        file_status(str(tmp_path / ("x" * 300)))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="device numbers of Linux")
def test_devices_are_told_apart(tmp_path: Path) -> None:
    own, other = file_status(str(tmp_path)), file_status("/proc/self/maps")
    assert own
    assert other
    assert own.identity[:2] != other.identity[:2]
