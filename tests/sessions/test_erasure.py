from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from langswarm_session import (
    InvalidInputError,
    MockProviderSession,
    ProviderUnavailableError,
    SessionManager,
    SessionMessage,
    StorageBusyError,
)


class Keeps(MockProviderSession):
    """A provider that cannot delete, until it can."""

    down = True

    async def delete_provider_session(self, provider_session_id: str) -> None:
        if self.down:
            raise ProviderUnavailableError("it is down", provider="mock")
        await super().delete_provider_session(provider_session_id)


async def kept_session(manager: SessionManager, user: str, **options: Any) -> None:
    """A session of which the mock keeps a copy."""
    session = await manager.create_session(user, "mock", "echo", **options)
    native = await manager.core.providers.of("mock", "").create_provider_session(user)
    await session.update_context(provider_session_id=native)
    await session.send_message("hello")


async def test_everything_of_a_user_and_nothing_of_another(manager: SessionManager):
    for user in ("ann", "bob", "ann"):
        await kept_session(manager, user)
    report = await manager.erase_user("ann")
    assert (report.complete, len(report.sessions), report.messages) == (True, 2, 4)
    assert [provider for provider, _ in report.at_providers] == ["mock", "mock"]
    assert await manager.list_user_sessions("ann") == []
    assert len(await manager.list_user_sessions("bob")) == 1
    assert (await manager.erase_user("ann")).sessions == []
    with pytest.raises(InvalidInputError):
        await manager.erase_user("")


async def test_what_a_provider_keeps_is_told_of_and_can_be_tried_again(manager: SessionManager):
    provider = Keeps()
    manager.add_provider_session("mock", provider)
    await kept_session(manager, "ann", session_id="s")
    await manager.create_session("ann", "mock", "echo", session_id="empty")
    report = await manager.erase_user("ann")
    assert not report.complete
    assert report.sessions == ["empty"]
    (left,) = report.not_erased
    assert (left.session_id, list(left.at_providers)) == ("s", ["mock"])
    assert isinstance(left.error, ProviderUnavailableError)
    provider.down = False
    assert (await manager.erase_user("ann")).complete


async def test_here_only_says_what_is_left_there(manager: SessionManager):
    manager.add_provider_session("mock", Keeps())
    await kept_session(manager, "ann")
    report = await manager.erase_user("ann", at_providers=False)
    assert not report.complete
    assert len(report.sessions) == 1
    assert [provider for provider, _ in report.left_at_providers] == ["mock"]


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_of_the_person_is_left_in_the_file(tmp_path: Path, seed: int):
    """Also where pages were split while it was written, which `secure_delete` does not clean."""
    chance = random.Random(seed)
    async with SessionManager("sqlite", storage_config={"db_path": tmp_path / "x.db"}) as manager:
        sessions = [
            await manager.create_session(user, "mock", "echo", topic=f"about {user}")
            for user in ["PERSON", "another", "athird"] * 8
        ]
        for number in range(600):
            session = chance.choice(sessions)
            text = f"said by {session.user_id} " * chance.choice([1, 5, 30, 300])
            message = SessionMessage(role="user", content=text, metadata={"who": session.user_id})
            await session.record(message, idempotency_key=f"{session.user_id} {number}")
            if number % 20 == 0:
                await session.update_context(note=session.user_id * chance.randint(1, 80))
        assert any(b"PERSON" in file.read_bytes() for file in tmp_path.iterdir())
        report = await manager.erase_user("PERSON")
        assert (report.complete, len(report.sessions)) == (True, 8)
        files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        assert not [name for name, content in files.items() if b"PERSON" in content]
        assert b"another" in files["x.db"]
        assert files["x.db-wal"] == b""
        assert sum(each.metrics.message_count for each in await manager.list_sessions()) == len(
            [hit async for each in manager.iter_sessions() async for hit in each.iter_messages()]
        )


async def test_a_reader_that_keeps_the_old_state_is_told_of(tmp_path: Path):
    path = tmp_path / "x.db"
    config = {"db_path": path, "busy_timeout": 0.2}
    async with SessionManager("sqlite", storage_config=config) as manager:
        session = await manager.create_session("ann", "mock", "echo")
        await session.send_message("hello")
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchone()
        report = await manager.erase_user("ann")
        assert len(report.sessions) == 1
        assert isinstance(report.scrub_error, StorageBusyError)
        assert not report.complete
        reader.close()
        assert (await manager.erase_user("ann")).complete
