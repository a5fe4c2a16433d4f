from pathlib import Path

from langswarm_session import InMemorySessionStorage, ISessionStorage
from langswarm_session.testing import StorageConformance
from langswarm_session.testing.storage_restore import RestoreTests
from langswarm_session.testing.storage_search import SearchTests


class TestInMemorySessionStorage(StorageConformance):
    restores_exactly = True

    def make_storage(self, tmp_path: Path) -> InMemorySessionStorage:
        return InMemorySessionStorage()


class WithoutHelp(InMemorySessionStorage):
    """What a storage of somebody's inherits that does not know of these methods."""

    get_turn_notes = ISessionStorage.get_turn_notes
    restore_session = ISessionStorage.restore_session
    search_messages = ISessionStorage.search_messages


class TestWithoutHelp(RestoreTests, SearchTests):
    def make_storage(self, tmp_path: Path) -> InMemorySessionStorage:
        return WithoutHelp()
