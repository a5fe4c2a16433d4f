"""Every storage against a plain model of the record, over random operations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from langswarm_session import InMemorySessionStorage, ISessionStorage, SQLiteSessionStorage
from langswarm_session.testing import StorageMachine

FULL = os.environ.get("LANGSWARM_CHAOS") == "full"


class MemoryMachine(StorageMachine):
    def make_storage(self, folder: Path) -> ISessionStorage:
        return InMemorySessionStorage()


class SQLiteMachine(StorageMachine):
    durable = True

    def make_storage(self, folder: Path) -> ISessionStorage:
        return SQLiteSessionStorage(folder / "sessions.db", synchronous="NORMAL")


class PostgresMachine(StorageMachine):
    durable = True
    schema = ""

    def make_storage(self, folder: Path) -> ISessionStorage:
        import postgres_server

        from langswarm_session.storage.postgres.storage import PostgresSessionStorage

        prefix = f"{folder.name.lower()}_"
        return PostgresSessionStorage(
            postgres_server.dsn(), schema=self.schema, table_prefix=prefix
        )


def run(machine: type[StorageMachine], examples: int, **others: Any) -> None:
    """Run examples of a machine, twenty times as many in the long form."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples * (20 if FULL else 1),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            **others,
        ),
    )


@pytest.mark.timeout(900)
def test_memory_is_as_the_model_says() -> None:
    run(MemoryMachine, 60)


@pytest.mark.timeout(900)
def test_sqlite_is_as_the_model_says() -> None:
    run(SQLiteMachine, 40)


@pytest.mark.timeout(900)
def test_postgres_is_as_the_model_says(
    postgres_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgresMachine, "schema", postgres_schema)
    run(PostgresMachine, 10)


def test_what_a_storage_loses_is_found() -> None:
    class Forgetful(InMemorySessionStorage):
        async def clear_messages(self, ref, *, expected_revision=None):
            return await self.get_session(ref)

    class ForgetfulMachine(StorageMachine):
        def make_storage(self, folder: Path) -> ISessionStorage:
            return Forgetful()

    with pytest.raises(AssertionError):
        run(ForgetfulMachine, 60, phases=[Phase.generate], report_multiple_bugs=False)
