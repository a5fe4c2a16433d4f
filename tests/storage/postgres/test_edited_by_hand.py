from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import postgres_server
import pytest
from edited_by_hand import fill, use

from langswarm_session import PostgresSessionStorage
from langswarm_session.records import SessionRecord
from langswarm_session.storage.rows import MESSAGE_COLUMNS
from langswarm_session.storage.session_rows import NOTE_COLUMNS

OURS = ": (SessionStorageError|StorageUnavailableError|InvalidInputError)"

COLUMNS = {
    "sessions": SessionRecord._fields[:-1],
    "messages": ("session", *MESSAGE_COLUMNS.split(", ")),
    "turns": ("session", *NOTE_COLUMNS.split(", ")),
}
JSON = [None, "", "[]", "{", '{"blocks":[1]}', '{"role":"evil"}']
VALUES: dict[str, list[Any]] = {
    "text": [None, "a\x01b", ""],
    "bigint": [None, -1, 2**63 - 1],
    "smallint": [None, -1, 99],
    "bytea": [None, b"", b"x" * 17, b"x" * 32],
    "boolean": [None, False],
    "context": JSON,
    "provider_state": JSON,
    "extra": JSON,
    # No number at all would be one that belongs to nothing.
    **{name: [0, -1, 2**63 - 1] for name in ("session", "turn", "seq")},
}


class Edited:
    """A schema with sessions in it, of which cells are changed."""

    def __init__(self, connection: Any, schema: str) -> None:
        self._connection = connection
        self.schema = schema

    async def types(self, table: str) -> dict[str, str]:
        """The type of each column."""
        rows = await self._connection.fetch(
            "SELECT column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = $1 AND table_name = $2",
            self.schema,
            f"langswarm_{table}",
        )
        return dict(rows)

    async def outcomes(self, *statements: str, values: tuple[Any, ...] = ()) -> list[str]:
        """What comes of all calls after these changes."""
        storage = PostgresSessionStorage(postgres_server.dsn(), schema=self.schema)
        for table in COLUMNS:
            await self.run(f"TRUNCATE {{}}.langswarm_{table}")
        await fill(storage)
        for statement in statements:
            await self.run(statement, *values)
        return await use(storage)

    async def run(self, statement: str, *values: Any) -> None:
        await self._connection.execute(statement.format(self.schema), *values)


@pytest.fixture
async def edited(postgres_schema: str) -> AsyncIterator[Edited]:
    connection = await asyncpg.connect(postgres_server.dsn())
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema)
    await storage.list_sessions()
    await storage.close()
    yield Edited(connection, postgres_schema)
    await connection.close()


@pytest.mark.parametrize("table", COLUMNS)
async def test_a_cell(edited: Edited, table: str) -> None:
    types = await edited.types(table)
    key = {"sessions": "session_id = 's'", "messages": "seq = 2", "turns": "turn = 3"}[table]
    if table == "sessions":  # what is computed of another column is missing with it
        await edited.run("ALTER TABLE {}.langswarm_sessions ALTER active_minute DROP NOT NULL")
    wrong = []
    for column in COLUMNS[table]:
        if column not in ("session", "turn", "seq"):
            await edited.run(f"ALTER TABLE {{}}.langswarm_{table} ALTER {column} DROP NOT NULL")
        for value in VALUES.get(column, VALUES[types[column]]):
            statement = f"UPDATE {{}}.langswarm_{table} SET {column} = $1 WHERE {key}"
            if found := await edited.outcomes(statement, values=(value,)):
                wrong += [f"{column} = {value!r}: {each}" for each in found]
    assert wrong == []


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE {}.langswarm_messages ALTER timestamp TYPE numeric",
        "ALTER TABLE {}.langswarm_messages ALTER content TYPE bytea USING content::bytea",
        "ALTER TABLE {}.langswarm_sessions ALTER errors DROP DEFAULT, ALTER errors TYPE text",
        "ALTER TABLE {}.langswarm_turns ALTER answered TYPE int USING answered::int",
        "ALTER TABLE {}.langswarm_sessions DROP COLUMN model",
    ],
)
async def test_a_column(edited: Edited, statement: str) -> None:
    found = await edited.outcomes(statement)
    # What the server says of it depends on how the column is used.
    assert [each for each in found if not re.search(OURS, each)] == []
