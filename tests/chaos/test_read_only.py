"""Files, folders and servers that may be read and not written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaos.audit import audit
from chaos.disks import open_folder, unprivileged
from chaos.matrix import Notes
from chaos.places import Place
from chaos.probe import check_errors
from chaos.processes import Writer, all_said
from chaos.server import Server

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def open_place() -> Iterator[Place]:
    """A file that another user may use."""
    with open_folder() as folder:
        yield Place("sqlite", {"db_path": str(folder / "sessions.db")})


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "fault"),
    [
        (0o444, 0o755, "read-only file"),
        (0o644, 0o555, "read-only folder"),
        (0o444, 0o555, "read-only file and folder"),
    ],
)
async def test_what_may_not_be_written(
    open_place: Place,
    start: Callable[..., Writer],
    note: Notes,
    file_mode: int,
    folder_mode: int,
    fault: str,
) -> None:
    """It is told of; once it may be written, the same process goes on."""
    path = Path(open_place.config["db_path"])
    user = unprivileged()
    before = start(open_place, "before", turns=5)
    before.end()
    if user is not None:
        os.chown(path, user, user)
        os.chown(path.parent, user, user)
    path.chmod(file_mode)
    path.parent.chmod(folder_mode)
    writer = start(open_place, "writer", user=user)
    writer.wait_for(errors=10)
    assert writer.ledger.acknowledged == 0
    path.chmod(0o644)
    path.parent.chmod(0o755)
    writer.wait_for(kept=10)
    writer.kill()
    allowed = {"StorageUnavailableError": "cannot be (written|opened)"}
    errors = check_errors(writer.ledger.errors, writer.ledger.messages, allowed)
    found = await audit(open_place, all_said([before, writer]))
    note(fault, "sqlite", 1, found, errors)


async def test_a_server_that_may_not_write(
    server: Server, postgres_place: Place, start: Callable[..., Writer], note: Notes
) -> None:
    """As after a failover to a standby."""
    writer = start(postgres_place, "writer")
    writer.wait_for(kept=10)
    try:
        server.query("ALTER SYSTEM SET default_transaction_read_only = on")
        server.query("SELECT pg_reload_conf()")
        writer.wait_for_more(kept=0, errors=10)
    finally:
        server.query("ALTER SYSTEM RESET default_transaction_read_only")
        server.query("SELECT pg_reload_conf()")
    writer.wait_for_more(kept=10)
    writer.kill()
    allowed = {"StorageUnavailableError": "the server is read-only"}
    errors = check_errors(writer.ledger.errors, writer.ledger.messages, allowed)
    found = await audit(postgres_place, writer.ledger)
    note("read-only server", "postgres", 1, found, errors)
