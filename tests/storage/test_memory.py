from pathlib import Path

import pytest

from langswarm_session import (
    InMemorySessionStorage,
    MessageRole,
    SessionBackend,
    SessionMessage,
)
from langswarm_session.models import TurnStatus
from langswarm_session.records import Lease, NewSession, TurnEnd
from langswarm_session.storage import memory
from langswarm_session.storage.base import StorageBase
from langswarm_session.testing import StorageConformance
from langswarm_session.testing.making import ref
from langswarm_session.testing.storage_restore import RestoreTests
from langswarm_session.testing.storage_search import SearchTests


class TestInMemorySessionStorage(StorageConformance):
    restores_exactly = True

    def make_storage(self, tmp_path: Path) -> InMemorySessionStorage:
        return InMemorySessionStorage()


def new_session(name: str, user: str = "user") -> NewSession:
    return NewSession(name, user, "mock", "echo", SessionBackend.LOCAL_MEMORY)


def said(count: int, role: MessageRole = MessageRole.USER) -> list[SessionMessage]:
    return [SessionMessage(role=role, content=str(number)) for number in range(count)]


@pytest.fixture
async def storage() -> InMemorySessionStorage:
    """One session: a system message, many others, and at the end a turn that failed."""
    storage = InMemorySessionStorage()
    await storage.create_session(new_session("s"))
    await storage.append(ref("s"), said(1, MessageRole.SYSTEM))
    await storage.append(ref("s"), said(1_000))
    await storage.begin_turn(ref("s"), said(1), Lease("token", "owner", 30))
    await storage.end_turn(ref("s"), TurnEnd("token", TurnStatus.FAILED, error="no"), ())
    return storage


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[SessionMessage]:
    """The messages that a storage looks at from now on."""
    seen: list[SessionMessage] = []
    known = memory._Log.is_answered

    def watching(log: memory._Log, message: SessionMessage) -> bool:
        seen.append(message)
        return known(log, message)

    monkeypatch.setattr(memory._Log, "is_answered", watching)
    return seen


async def test_a_window_is_read_from_its_end(
    storage: InMemorySessionStorage, looked_at: list[SessionMessage]
) -> None:
    window = await storage.get_messages(ref("s"), limit=20, before=1_003, answered_only=True)
    assert [message.seq for message in window] == list(range(982, 1_002))
    assert len(looked_at) == 21  # the failed turn's message is passed over


async def test_system_messages_are_found_without_the_others(
    storage: InMemorySessionStorage, looked_at: list[SessionMessage]
) -> None:
    found = await storage.get_messages(ref("s"), answered_only=True, system_only=True)
    assert [message.seq for message in found] == [1]
    assert len(looked_at) == 1


async def test_a_users_listing_ends_with_the_last_session() -> None:
    storage = InMemorySessionStorage()
    for name, user in (("a", "one"), ("b", "two"), ("c", "one")):
        await storage.create_session(new_session(name, user))
    await storage.delete_session(ref("a", "one"))
    page = await storage.list_sessions(user_id="one")
    assert [record.session_id for record in page.records] == ["c"]
    await storage.delete_session(ref("c", "one"))
    assert (await storage.list_sessions(user_id="one")).records == []
    await storage.create_session(new_session("a", "one"))
    page = await storage.list_sessions(user_id="one")
    assert [record.session_id for record in page.records] == ["a"]


class WithoutHelp(InMemorySessionStorage):
    """What a storage of somebody's inherits that does not know of these methods."""

    get_turn_notes = StorageBase.get_turn_notes
    restore_session = StorageBase.restore_session
    search_messages = StorageBase.search_messages


class TestWithoutHelp(RestoreTests, SearchTests):
    def make_storage(self, tmp_path: Path) -> InMemorySessionStorage:
        return WithoutHelp()
