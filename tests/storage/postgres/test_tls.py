"""Files that TLS with PostgreSQL takes, where they cannot be read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import postgres_server  # noqa: F401 - skips the module without the driver
import pytest

from langswarm_session import InvalidInputError
from langswarm_session.storage.postgres.storage import PostgresSessionStorage
from langswarm_session.storage.postgres.tls import unreadable_file

DSN = "postgresql://ann:secret@127.0.0.1:1/db"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and an environment, that say nothing of TLS."""
    for name in ("SSLMODE", "SSLROOTCERT", "SSLCRL", "SSLCERT", "SSLKEY"):
        monkeypatch.delenv(f"PG{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("sslmode=verify-full", "/.postgresql/root.crt'"),
        ("sslmode=verify-ca&sslrootcert=/not/there", "sslrootcert is '/not/there'"),
        ("sslmode=require&sslrootcert=/not/there", "sslrootcert is '/not/there'"),
        ("sslcert=/not/there", "sslcert is '/not/there'"),
    ],
)
async def test_a_file_that_is_missing_is_told_of_at_once(query: str, named: str) -> None:
    storage = PostgresSessionStorage(f"{DSN}?{query}", connect_timeout=600, timeout=600)
    async with asyncio.timeout(60):
        with pytest.raises(InvalidInputError, match="No such file or directory") as caught:
            await storage.find_session("s")
    assert named in str(caught.value)
    assert "secret" not in str(caught.value)
    await storage.close()


@pytest.mark.parametrize("name", ["sslrootcert", "sslcrl", "sslcert"])
def test_a_file_may_be_named_in_the_environment(
    name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = home / "there"
    there.touch()
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.setenv(f"PG{name.upper()}", str(home / "gone"))
    for dsn in (None, DSN):
        assert f"{name} is '{home / 'gone'}'" in str(unreadable_file(dsn))
    assert unreadable_file(f"{DSN}?{name}={there}") is None
    assert unreadable_file(f"{DSN}?sslmode=disable") is None


def test_a_key_goes_with_its_certificate(home: Path) -> None:
    there = home / "there"
    there.touch()
    assert unreadable_file(f"{DSN}?sslkey={home}") is None
    assert "sslkey" in str(unreadable_file(f"{DSN}?sslcert={there}&sslkey={home}"))
    assert unreadable_file(f"{DSN}?sslcert={there}&sslkey={there}") is None


def test_what_the_mode_does_not_take_may_be_missing(home: Path) -> None:
    for mode in ("allow", "prefer"):
        assert unreadable_file(f"{DSN}?sslmode={mode}&sslrootcert=/not/there") is None
    assert unreadable_file(f"{DSN}?sslmode=require") is None
    (home / ".postgresql").mkdir()
    (home / ".postgresql" / "root.crt").touch()
    assert unreadable_file(f"{DSN}?sslmode=verify-full") is None
