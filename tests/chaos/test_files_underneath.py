"""Files that are removed and replaced while they are written to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.audit import audit
from chaos.matrix import Notes
from chaos.places import Place
from chaos.probe import check_errors
from chaos.processes import Writer, all_said
from chaos.scale import scaled

pytestmark = pytest.mark.timeout(300)

TIMES = scaled(2, 20)
GONE = {
    "StorageUnavailableError": "removed or replaced while it was in use",
    "SessionNotFoundError": "create it with create_session",
}


def files(place: Place) -> list[Path]:
    """The database's files, the one itself first."""
    path = Path(place.config["db_path"])
    return [each for each in (path, *map(path.with_name, beside(path))) if each.exists()]


def beside(path: Path) -> list[str]:
    return [f"{path.name}-wal", f"{path.name}-shm"]


async def one_round(writers: list[Writer], number: int) -> None:
    """Let all write a round, at the same time."""
    for writer in writers:
        writer.go()
    for writer in writers:
        writer.wait_for(f"rest {number}")


async def test_a_file_that_is_removed(
    sqlite_place: Place, start: Callable[..., Writer], note: Notes
) -> None:
    """Nothing more is acknowledged into the void; all goes on in a new file."""
    writers = [start(sqlite_place, f"w{number}") for number in range(2)]
    for _ in range(TIMES):
        for writer in writers:
            writer.wait_for_more(5)
        before = [writer.ledger.errors.total() for writer in writers]
        for file in files(sqlite_place):
            file.unlink()
        for writer, errors_before in zip(writers, before, strict=True):
            writer.wait_for(errors=errors_before + 1)
    for writer in writers:
        writer.wait_for_more(50)
        writer.kill()
    ledger = all_said(writers)
    errors = check_errors(ledger.errors, ledger.messages, GONE)
    found = await audit(sqlite_place, ledger)
    note("file removed", "sqlite", TIMES, found, errors)


async def test_a_file_that_is_removed_without_its_log(
    sqlite_place: Place, start: Callable[..., Writer], note: Notes
) -> None:
    """Whoever types ``rm sessions.db`` forgets the files beside it."""
    writers = [
        start(sqlite_place, f"w{number}", turns=5, gate=True, rounds=TIMES + 1)
        for number in range(2)
    ]
    await one_round(writers, 0)
    for number in range(TIMES):
        files(sqlite_place)[0].unlink()
        await one_round(writers, number + 1)
    ledger = all_said(writers)
    errors = check_errors(ledger.errors, ledger.messages, GONE)
    found = await audit(sqlite_place, ledger)
    note("file removed without its -wal", "sqlite", TIMES, found, errors)


async def test_a_file_that_is_replaced(
    sqlite_place: Place, start: Callable[..., Writer], note: Notes, tmp_path: Path
) -> None:
    """A copy is put back: what is written from then on is in there."""
    first = start(sqlite_place, "first", turns=5)
    first.end()
    [path, *_] = files(sqlite_place)
    copy = tmp_path / "copy.db"
    writer = start(sqlite_place, "writer", turns=5, gate=True, rounds=TIMES + 1)
    for number in range(TIMES):
        writer.go()
        writer.wait_for(f"rest {number}")
        with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
            source.backup(target)
        source.close()
        target.close()
        for file in files(sqlite_place)[1:]:
            file.unlink()
        copy.replace(path)
    writer.go()
    ledger = all_said([first, writer])
    writer.end()
    ledger = all_said([first, writer])
    errors = check_errors(ledger.errors, ledger.messages, GONE)
    assert errors["StorageUnavailableError"] >= TIMES
    found = await audit(sqlite_place, ledger)
    note("file replaced", "sqlite", TIMES, found, errors)


@pytest.mark.parametrize("endings", [("-wal",), ("-wal", "-shm")], ids=" ".join)
@pytest.mark.parametrize("at_once", [1, 2])
async def test_a_log_that_is_removed(
    sqlite_place: Place,
    start: Callable[..., Writer],
    note: Notes,
    at_once: int,
    endings: tuple[str, ...],
) -> None:
    """What is acknowledged, before and from then on, survives a kill."""
    before = start(sqlite_place, "before", turns=5)
    before.end()
    # So little that nothing of it is folded into the file before the kill.
    writers = [
        start(sqlite_place, f"w{number}", turns=5, gate=True, rounds=TIMES + 2)
        for number in range(at_once)
    ]
    await one_round(writers, 0)
    for number in range(TIMES):
        for each in files(sqlite_place):
            if each.name.endswith(endings):
                each.unlink()
        await one_round(writers, number + 1)
    for writer in writers:
        writer.kill()
    ledger = all_said([before, *writers])
    errors = check_errors(ledger.errors, ledger.messages, GONE)
    found = await audit(sqlite_place, ledger)
    note("-wal removed, then kill -9", "sqlite", TIMES, found, errors)
