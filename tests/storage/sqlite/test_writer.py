"""The writer's connection: when the write-ahead log is folded into the file."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from langswarm_session import MessageRole, SessionBackend, SessionMessage
from langswarm_session.records import NewSession
from langswarm_session.storage.sqlite.storage import SQLiteSessionStorage
from langswarm_session.storage.sqlite.writer import Writer
from langswarm_session.testing.making import ref

FRAME = 4096 + 24
LIMIT = 1_000
"""Pages after which the log is to be folded."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


async def storage_with_sessions(path: Path, count: int) -> SQLiteSessionStorage:
    # Whether an fsync reaches the disk does not matter here.
    storage = SQLiteSessionStorage(path, synchronous="NORMAL")
    for number in range(count):
        new = NewSession(f"s{number}", "user", "mock", "echo", SessionBackend.LOCAL_SQLITE)
        await storage.create_session(new)
    return storage


def message(size: int) -> SessionMessage:
    return SessionMessage(role=MessageRole.USER, content="x" * size)


def pages(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size // FRAME


async def test_the_log_keeps_its_size_whatever_is_written(path: Path) -> None:
    storage = await storage_with_sessions(path, 100)
    # Writes that share a commit add few pages each, those alone many: no estimate fits both.
    for _ in range(60):
        await asyncio.gather(*(storage.append(ref(f"s{n}"), [message(20)]) for n in range(100)))
    for number in range(1_500):
        await storage.append(ref(f"s{number % 100}"), [message(20)])
    size = pages(path)
    await storage.close()
    assert LIMIT / 2 < size < 1.6 * LIMIT  # a busy machine lets the checkpoint wait


async def test_the_log_grows_while_a_reader_needs_it_and_no_longer(path: Path) -> None:
    storage = await storage_with_sessions(path, 1)
    await storage.append(ref("s0"), [message(10)])
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchone()
        for _ in range(500):
            await storage.append(ref("s0"), [message(12_000)])
        grown = pages(path)
        assert grown > 2 * LIMIT
    for _ in range(500):
        await storage.append(ref("s0"), [message(12_000)])
    size = pages(path)
    await storage.close()
    assert size < grown + 2.5 * LIMIT  # it would be four times that


async def test_a_reader_makes_checkpoints_no_more_frequent(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What he keeps in the log is not taken for what was written since the last one."""
    checkpoint, count = Writer.checkpoint, 0

    def counted(writer: Writer) -> None:
        nonlocal count
        count += 1
        checkpoint(writer)

    monkeypatch.setattr(Writer, "checkpoint", counted)
    storage = await storage_with_sessions(path, 1)

    async def checkpoints() -> int:
        before = count
        for _ in range(1_500):  # of some five pages each
            await storage.append(ref("s0"), [message(200)])
        return count - before

    await checkpoints()
    alone = await checkpoints()
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchone()
        beside = await checkpoints()
    await storage.close()
    assert beside < 2 * alone  # it would be three times as many
