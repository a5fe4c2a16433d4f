"""What the conformance tests of a storage share: the fixture, and how a storage is made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import pytest
import pytest_asyncio

from langswarm_session.interfaces import ISessionStorage


@pytest.mark.asyncio
class StorageTests:
    """The base of the conformance tests; see `langswarm_session.testing.StorageConformance`."""

    durable: ClassVar[bool] = False

    def make_storage(self, tmp_path: Path) -> ISessionStorage:
        """A storage that holds nothing yet. Override this.

        Args:
            tmp_path: A folder of the test's own. A storage on a server may make the name of a
                schema or database from it.
        """
        raise NotImplementedError("override make_storage(self, tmp_path) to return your storage")

    def reopen(self, tmp_path: Path) -> ISessionStorage:
        """Another storage on the same data, as another process would make it.

        Called when `durable` is set, also while the first one is in use. Override it if
        `make_storage` cannot be called twice.

        Args:
            tmp_path: The folder that `make_storage` was given.
        """
        return self.make_storage(tmp_path)

    @pytest_asyncio.fixture
    async def storage(self, tmp_path: Path) -> AsyncIterator[ISessionStorage]:
        """A storage that holds nothing yet, closed after the test."""
        storage = self.make_storage(tmp_path)
        yield storage
        await storage.close()

    @pytest_asyncio.fixture
    async def second(
        self, storage: ISessionStorage, tmp_path: Path
    ) -> AsyncIterator[ISessionStorage]:
        """Another storage on the same data; the same one where nothing is durable."""
        if not self.durable:
            yield storage
            return
        second = self.reopen(tmp_path)
        yield second
        await second.close()
