from pathlib import Path

from langswarm_session import InMemorySessionStorage
from langswarm_session.testing import StorageConformance


class TestInMemorySessionStorage(StorageConformance):
    def make_storage(self, tmp_path: Path) -> InMemorySessionStorage:
        return InMemorySessionStorage()
