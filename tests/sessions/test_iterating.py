"""Going through all sessions, while others write to them."""

from __future__ import annotations

import pytest

from langswarm_session import (
    InvalidInputError,
    MessageRole,
    SessionManager,
    SessionMessage,
)
from langswarm_session import (
    manager as manager_module,
)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(manager_module, "_PAGE", 2)


@pytest.fixture
async def names(manager: SessionManager) -> list[str]:
    """Seven sessions of two users."""
    names = [f"s{n}" for n in range(7)]
    for n, name in enumerate(names):
        await manager.create_session("bob" if n % 3 else "ann", "mock", "m", session_id=name)
    return names


async def test_all_of_them_newest_activity_first(manager: SessionManager, names: list[str]):
    assert [each.session_id async for each in manager.iter_sessions()] == names[::-1]
    assert [each.session_id async for each in manager.iter_sessions("ann")] == ["s6", "s3", "s0"]
    bobs = manager.for_user("bob")
    assert [each.session_id async for each in bobs.iter_sessions()] == ["s5", "s4", "s2", "s1"]
    await manager.archive_session("s4")
    archived = [each.session_id async for each in manager.iter_sessions(status="archived")]
    assert archived == ["s4"]


async def test_one_that_moves_to_the_front_meanwhile_is_not_missed(
    manager: SessionManager, names: list[str]
):
    seen = []
    async for session in manager.iter_sessions():
        seen.append(session.session_id)
        if len(seen) == 3:
            for name in ("s0", "s6"):
                hello = SessionMessage(role=MessageRole.USER, content="hello")
                await (await manager.get_session(name)).record(hello)
            await manager.create_session("ann", "mock", "m", session_id="new")
    assert sorted(seen) == sorted([*names, "new"])


async def test_they_may_be_deleted_meanwhile(manager: SessionManager, names: list[str]):
    seen = []
    async for session in manager.iter_sessions():
        seen.append(session.session_id)
        await manager.delete_session(session.session_id)
    assert seen == names[::-1]
    assert [each async for each in manager.iter_sessions()] == []


async def test_the_inactive_ones(manager: SessionManager, names: list[str]):
    await (await manager.get_session("s1")).update_context(auto_archive=False)
    await manager.archive_session("s2")
    inactive = [each.session_id async for each in manager.iter_inactive_sessions(0)]
    assert inactive == ["s6", "s5", "s4", "s3", "s2", "s0"]
    active = manager.iter_inactive_sessions(0, status="active")
    assert "s2" not in [each.session_id async for each in active]
    assert [each async for each in manager.iter_inactive_sessions(1)] == []


async def test_what_cannot_be(manager: SessionManager):
    for broken in (
        manager.iter_sessions(""),
        manager.iter_sessions(status="lost"),
        manager.iter_inactive_sessions(-1),
        manager.iter_inactive_sessions(status="lost"),
    ):
        with pytest.raises(InvalidInputError):
            await anext(broken)
