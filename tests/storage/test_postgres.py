from __future__ import annotations

from pathlib import Path

import postgres_server
import pytest

from langswarm_session.storage.postgres import PostgresSessionStorage
from langswarm_session.testing import StorageConformance


class TestPostgresSessionStorage(StorageConformance):
    durable = True

    @pytest.fixture(autouse=True)
    def own_schema(self, postgres_schema: str) -> None:
        self.schema = postgres_schema

    def make_storage(self, tmp_path: Path) -> PostgresSessionStorage:
        return PostgresSessionStorage(postgres_server.dsn(), schema=self.schema)
