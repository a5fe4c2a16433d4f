from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from langswarm_session import SessionMessage, SQLiteSessionStorage, StorageCorruptError
from langswarm_session.models import MessageRole
from langswarm_session.records import SessionRef
from langswarm_session.storage.sqlite.expected import differences
from langswarm_session.storage.sqlite.schema import MIGRATIONS, migrate
from langswarm_session.testing.making import new_session, texts, user

S = SessionRef("s", "user", None)
NEWEST = len(MIGRATIONS)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    migrate(connection, "a.db")
    yield connection
    connection.close()


def test_what_the_migrations_make_is_what_is_expected(database: sqlite3.Connection) -> None:
    assert list(differences(database, NEWEST)) == []


@pytest.mark.parametrize("version", range(NEWEST + 1))
def test_an_older_version_is_compared_with_itself(version: int) -> None:
    connection = sqlite3.connect(":memory:")
    for statements in MIGRATIONS[:version]:
        for statement in statements:
            connection.execute(statement)
    assert list(differences(connection, version)) == []
    assert bool(list(differences(connection, NEWEST))) is (version < NEWEST)
    connection.close()


CHANGES = {
    "an index that is gone": ("DROP INDEX messages_by_id", "the index messages_by_id is missing"),
    "one that is no longer unique": (
        "DROP INDEX messages_by_id; CREATE INDEX messages_by_id ON messages (id, session)",
        "the index messages_by_id is not the one",
    ),
    "one without its condition": (
        "DROP INDEX sessions_of_active; CREATE INDEX sessions_of_active ON sessions (status)",
        "the index sessions_of_active is not the one",
    ),
    "one that refuses rows": (
        "CREATE UNIQUE INDEX evil ON messages (role)",
        "the index evil on messages is not of this package",
    ),
    "a trigger": (
        "CREATE TRIGGER evil AFTER INSERT ON messages BEGIN UPDATE sessions SET errors = 1; END",
        "the trigger evil on messages is not of this package",
    ),
    "a trigger that is gone": ("DROP TRIGGER sessions_moved", "trigger sessions_moved is missing"),
    "another trigger of that name": (
        (
            "DROP TRIGGER sessions_moved; CREATE TRIGGER sessions_moved AFTER UPDATE ON sessions "
            "BEGIN UPDATE sessions SET user_id = 'evil'; END"
        ),
        "the trigger sessions_moved is not the one",
    ),
    "a view in a table's place": (
        "ALTER TABLE turns RENAME TO other; CREATE VIEW turns AS SELECT * FROM other",
        "turns is a view, and should be a table",
    ),
    "a table that is gone": ("DROP TABLE turns", "the table turns is missing"),
    "another column": ("ALTER TABLE turns ADD evil", "the table turns is not the one"),
    "a column that is gone": ("ALTER TABLE turns DROP error", "the table turns is not the one"),
    "a constraint that is gone": (
        (
            "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = replace(sql, "
            "'user_id TEXT NOT NULL', 'user_id TEXT'); PRAGMA writable_schema = RESET"
        ),
        "the table sessions is not the one",
    ),
    "a computed column": (
        "ALTER TABLE messages ADD evil AS (zeroblob(9))",
        "the table messages is not the one",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_as_it_was_made(database: sqlite3.Connection, change: str) -> None:
    script, said = CHANGES[change]
    database.executescript(script)
    assert said in "; ".join(differences(database, NEWEST))


@pytest.mark.parametrize(
    "script",
    [
        "CREATE INDEX own ON messages (timestamp)",
        "CREATE TABLE own (a UNIQUE); CREATE VIEW owner AS SELECT * FROM sessions",
        "CREATE TABLE own (a); CREATE TRIGGER t AFTER INSERT ON own BEGIN SELECT 1; END",
        "ALTER TABLE turns RENAME TO other; ALTER TABLE other RENAME TO turns",
        "ANALYZE",
        "VACUUM",
    ],
)
def test_what_does_no_harm(database: sqlite3.Connection, script: str) -> None:
    database.executescript(script)
    assert list(differences(database, NEWEST)) == []


# What is made again


async def changed(path: Path, script: str) -> SQLiteSessionStorage:
    """A storage of a file with a session, to which this was done."""
    storage = SQLiteSessionStorage(path)
    await storage.create_session(new_session("s"))
    await storage.append(S, [user("a", id="one")])
    await storage.close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(script)
    connection.close()
    return SQLiteSessionStorage(path)


def found(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    different = list(differences(connection, NEWEST))
    connection.close()
    return different


async def test_an_index_that_is_missing_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.db"
    storage = await changed(path, "DROP INDEX messages_by_id; DROP INDEX turns_by_key")
    with caplog.at_level(logging.WARNING):
        await storage.append(S, [user("a", id="one")])
    assert "messages_by_id, turns_by_key missing, and made again" in caplog.text
    assert texts(await storage.get_messages(S)) == ["a"], "it is not stored twice"
    await storage.close()
    assert found(path) == []


async def test_a_trigger_that_is_missing_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    storage = await changed(
        path, "DROP TRIGGER sessions_moved; UPDATE sessions SET last_activity = 600000000"
    )
    record = (await storage.list_sessions(inactive_since=660_000_000)).records
    assert [each.session_id for each in record] == ["s"]
    await storage.close()
    assert found(path) == []


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("DROP TABLE turns", "the table turns is missing"),
        (
            "ALTER TABLE messages RENAME TO m; CREATE VIEW messages AS SELECT * FROM m",
            "the table messages is a view",
        ),
        (
            (
                "ALTER TABLE sessions RENAME TO s; CREATE VIEW sessions AS WITH RECURSIVE r AS "
                "(SELECT 1 UNION ALL SELECT 1 FROM r) SELECT s.* FROM s, r"
            ),
            "the table sessions is a view",
        ),
        (
            (
                "DROP INDEX messages_by_id; INSERT INTO messages "
                "SELECT session, seq + 1, role, content, timestamp, id, turn, extra FROM messages"
            ),
            "rows are stored twice",
        ),
    ],
    ids=["no table", "a view", "a view without an end", "stored twice"],
)
async def test_what_cannot_be_made_again_is_damage(tmp_path: Path, script: str, said: str) -> None:
    storage = await changed(tmp_path / "a.db", script)
    for call in (storage.get_messages(S), storage.append(S, [user("b")]), storage.list_sessions()):
        with pytest.raises(StorageCorruptError, match=said):
            await call
    assert not (await storage.health()).ok
    await storage.close()


async def test_nothing_that_a_file_brings_along_is_trusted(tmp_path: Path) -> None:
    storage = await changed(tmp_path / "a.db", "SELECT 1")
    message = SessionMessage(role=MessageRole.USER, content="a")
    await storage.append(S, [message])

    def trusted(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA trusted_schema").fetchone()[0])

    assert await storage._engine.read(trusted) == 0
    assert await storage._engine.write(trusted) == 0
    await storage.close()
