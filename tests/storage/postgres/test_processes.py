"""Processes on one PostgreSQL schema that fork, and end without a close; `chaos` kills them."""

from __future__ import annotations

from collections.abc import Sequence

import postgres_server
import pytest
from storage.process_tests import ProcessTests

from langswarm_session.storage.postgres.storage import PostgresSessionStorage


class TestProcesses(ProcessTests):
    making = """
from langswarm_session.storage.postgres.storage import PostgresSessionStorage
storage = PostgresSessionStorage(sys.argv[1], schema=sys.argv[2])
"""

    @pytest.fixture(autouse=True)
    def own_schema(self, postgres_schema: str) -> None:
        self.schema = postgres_schema

    def arguments(self) -> Sequence[str]:
        return [postgres_server.dsn(), self.schema]

    def make_storage(self) -> PostgresSessionStorage:
        return PostgresSessionStorage(postgres_server.dsn(), schema=self.schema)
