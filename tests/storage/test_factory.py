from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langswarm_session import (
    InMemorySessionStorage,
    InvalidInputError,
    SessionStorageError,
    SQLiteSessionStorage,
    StorageFactory,
    UnknownStorageError,
)
from langswarm_session.storage.factory import ENTRY_POINT_GROUP
from langswarm_session.testing.making import new_session


class Recorded(InMemorySessionStorage):
    """A storage that remembers what it was made from."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = config


@pytest.fixture
def registered() -> Iterator[str]:
    StorageFactory.register("recorded", Recorded)
    yield "recorded"
    StorageFactory._makers.pop("recorded")


@pytest.fixture
def plugged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A distribution on the path, as if installed, that brings a storage."""
    info = tmp_path / "plug_in-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{ENTRY_POINT_GROUP}]\n"
        "plugged = langswarm_plug_in:Storage\n"
        "broken = langswarm_plug_in:nothing\n"
        "absent = langswarm_plug_in_that_is_not_there:Storage\n"
        "memory = langswarm_plug_in:Storage\n"
        "other = langswarm_plug_in:make_other\n"
        "made = langswarm_plug_in:make\n"
    )
    (tmp_path / "langswarm_plug_in.py").write_text(
        "from langswarm_session import InMemorySessionStorage\n"
        "class Storage(InMemorySessionStorage):\n"
        "    name = 'plugged'\n"
        "    def __init__(self, **config):\n"
        "        super().__init__()\n"
        "        self.config = config\n"
        "def make(**config):\n"
        "    return Storage(made=True, **config)\n"
        "def make_other(**config):\n"
        "    return config\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "plugged"
    sys.modules.pop("langswarm_plug_in", None)


def test_memory_by_name() -> None:
    assert type(StorageFactory.create_storage("memory")) is InMemorySessionStorage


async def test_sqlite_by_name(tmp_path: Path) -> None:
    storage = StorageFactory.create_storage(
        "sqlite", db_path=tmp_path / "a.db", synchronous="NORMAL", busy_timeout=1, max_readers=2
    )
    assert isinstance(storage, SQLiteSessionStorage)
    assert storage.db_path == str(tmp_path / "a.db")
    assert list(tmp_path.iterdir()) == []
    await storage.create_session(new_session("s"))
    await storage.close()
    assert [each.name for each in tmp_path.iterdir()] == ["a.db"]


def test_sqlite_without_a_path_is_in_the_working_folder() -> None:
    storage = StorageFactory.create_storage("sqlite")
    assert isinstance(storage, SQLiteSessionStorage)
    assert storage.db_path == "langswarm_sessions.db"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///relative.db", "relative.db"),
        ("sqlite:///folder/relative.db", "folder/relative.db"),
        ("sqlite:////absolute/path.db", "/absolute/path.db"),
        ("sqlite:///with%20space%3F.db", "with space?.db"),
    ],
)
def test_sqlite_by_url(url: str, path: str) -> None:
    storage = StorageFactory.create_storage(url)
    assert isinstance(storage, SQLiteSessionStorage)
    assert storage.db_path == path


def test_a_url_takes_options_as_well() -> None:
    with pytest.raises(InvalidInputError, match="synchronous"):
        StorageFactory.create_storage("sqlite:///a.db", synchronous="OFF")


async def test_a_url_says_what_permissions_a_new_file_is_given(tmp_path: Path) -> None:
    storage = StorageFactory.create_storage(f"sqlite:///{tmp_path}/a.db?mode=0640")
    await storage.list_sessions()
    await storage.close()
    assert stat.S_IMODE((tmp_path / "a.db").stat().st_mode) == 0o640


def test_another_databases_address_is_not_quoted_with_its_password() -> None:
    for url in ("sqlite://me:secret@host/a", "sqlite://me@host/a?password=secret"):
        with pytest.raises(InvalidInputError) as caught:
            StorageFactory.create_storage(url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite://host/path.db", "sqlite://a.db"]
)
def test_a_url_that_names_no_file(url: str) -> None:
    with pytest.raises(InvalidInputError, match="names no file"):
        StorageFactory.create_storage(url)


@pytest.mark.parametrize("rest", ["a.db?busy_timeout=1", "a.db?mode=ro", "a#1.db", "a.db?", "#"])
def test_a_file_has_neither_query_nor_fragment(rest: str) -> None:
    with pytest.raises(InvalidInputError, match="%3F and %23.* storage_config"):
        StorageFactory.create_storage(f"sqlite:///{rest}")


@pytest.mark.parametrize("name", ["redis", "", "SQLite", "redis://localhost", "://"])
def test_an_unknown_storage_is_named_with_those_there_are(name: str) -> None:
    with pytest.raises(UnknownStorageError) as caught:
        StorageFactory.create_storage(name)
    assert repr(name.partition("://")[0]) in str(caught.value)
    assert "memory, postgres, postgresql, sqlite" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("sqlite", {"path": "a.db"}),
        ("sqlite", {"db_path": None}),
        ("sqlite", {"db_path": 5}),
        ("memory", {"db_path": "a.db"}),
    ],
)
def test_a_configuration_that_does_not_fit(name: str, config: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        StorageFactory.create_storage(name, **config)
    assert repr(name) in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "name", ["redis:secret@host/5", "ann:secret@host", "host/db?password=secret", "secr\u00e9t://h"]
)
def test_an_address_without_its_scheme_is_not_shown(name: str) -> None:
    """It may have a password in it."""
    with pytest.raises(UnknownStorageError, match="an address begins with scheme://") as caught:
        StorageFactory.create_storage(name)
    assert "secr" not in str(caught.value)


def test_a_storage_may_be_registered(registered: str) -> None:
    storage = StorageFactory.create_storage(registered, a=1)
    assert isinstance(storage, Recorded)
    assert storage.config == {"a": 1}


def test_a_registered_storage_gets_the_url(registered: str) -> None:
    storage = StorageFactory.create_storage(f"{registered}://host:1/path?x=y", a=1)
    assert isinstance(storage, Recorded)
    assert storage.config == {"a": 1, "url": "recorded://host:1/path?x=y"}


def test_a_registered_storage_goes_before_our_own() -> None:
    makers = dict(StorageFactory._makers)
    try:
        StorageFactory.register("memory", Recorded)
        assert type(StorageFactory.create_storage("memory")) is Recorded
    finally:
        StorageFactory._makers.clear()
        StorageFactory._makers.update(makers)


def test_a_registered_storage_is_among_those_there_are(registered: str) -> None:
    with pytest.raises(UnknownStorageError, match=registered):
        StorageFactory.create_storage("unknown")


def test_a_storage_may_come_with_an_entry_point(plugged_in: str) -> None:
    storage: Any = StorageFactory.create_storage(plugged_in, a=1)
    assert (storage.name, storage.config) == ("plugged", {"a": 1})
    storage = StorageFactory.create_storage("plugged://host")
    assert storage.config == {"url": "plugged://host"}


def test_an_entry_point_may_name_a_function(plugged_in: str) -> None:
    storage: Any = StorageFactory.create_storage("made://ann:secret@host/5", a=1)
    assert storage.config == {"made": True, "url": "made://ann:secret@host/5", "a": 1}


def test_a_plug_in_that_makes_no_storage_is_told(plugged_in: str) -> None:
    with pytest.raises(SessionStorageError, match="'other' makes a dict") as caught:
        StorageFactory.create_storage("other://ann:secret@host")
    assert "secret" not in str(caught.value)


def test_an_entry_point_replaces_none_of_ours(plugged_in: str) -> None:
    assert type(StorageFactory.create_storage("memory")) is InMemorySessionStorage


def test_entry_points_are_among_those_there_are(plugged_in: str) -> None:
    known = f"absent, broken, made, memory, other, {plugged_in}, postgres, postgresql, sqlite"
    with pytest.raises(UnknownStorageError, match=known):
        StorageFactory.create_storage("unknown")


@pytest.mark.parametrize("name", ["broken", "absent"])
def test_a_plug_in_that_cannot_be_loaded_is_a_typed_error(plugged_in: str, name: str) -> None:
    with pytest.raises(SessionStorageError, match=name) as caught:
        StorageFactory.create_storage(name)
    assert isinstance(caught.value.__cause__, AttributeError | ImportError)
