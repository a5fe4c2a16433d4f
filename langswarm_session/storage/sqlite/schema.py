"""The SQLite schema, and how an older file becomes a newer one.

The version is SQLite's ``user_version``; ``application_id`` tells our files from others.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from langswarm_session.errors import StorageCorruptError, StorageVersionError

APPLICATION_ID = 0x4C535352  # "LSSR"

MIGRATIONS: list[list[str]] = [
    # 1: messages are a plain rowid table with an index for their place: appending to it touches
    # the fewest pages when many sessions share a commit. The id comes first in the other index
    # since ids rise with time, so that new ones land on one page there as well.
    [
        """
        CREATE TABLE sessions (
            key INTEGER PRIMARY KEY AUTOINCREMENT,
            session_id TEXT NOT NULL UNIQUE,
            user_id TEXT NOT NULL,
            provider TEXT NOT NULL,
            model TEXT NOT NULL,
            backend TEXT NOT NULL,
            status TEXT NOT NULL,
            context TEXT NOT NULL,
            provider_state TEXT,
            created_at INTEGER NOT NULL,
            last_activity INTEGER NOT NULL,
            revision INTEGER NOT NULL DEFAULT 0,
            last_seq INTEGER NOT NULL DEFAULT 0,
            message_count INTEGER NOT NULL DEFAULT 0,
            turn_count INTEGER NOT NULL DEFAULT 0,
            input_tokens INTEGER NOT NULL DEFAULT 0,
            output_tokens INTEGER NOT NULL DEFAULT 0,
            cached_tokens INTEGER NOT NULL DEFAULT 0,
            reasoning_tokens INTEGER NOT NULL DEFAULT 0,
            errors INTEGER NOT NULL DEFAULT 0,
            turn_id INTEGER,
            turn_token TEXT,
            turn_owner TEXT,
            turn_expires INTEGER
        )
        """,
        "CREATE INDEX sessions_by_user ON sessions (user_id, last_activity)",
        """
        CREATE TABLE messages (
            session INTEGER NOT NULL,
            seq INTEGER NOT NULL,
            role INTEGER NOT NULL,
            content TEXT,
            timestamp INTEGER NOT NULL,
            id NOT NULL,
            turn INTEGER NOT NULL,
            extra TEXT
        )
        """,
        "CREATE UNIQUE INDEX messages_by_place ON messages (session, seq)",
        "CREATE UNIQUE INDEX messages_by_id ON messages (id, session)",
        # Role 2 is "system": such messages stay in the window, however old they are.
        "CREATE INDEX messages_of_system ON messages (session, seq) WHERE role = 2",
        # Only turns that say more than "complete" have a row here.
        """
        CREATE TABLE turns (
            session INTEGER NOT NULL,
            turn INTEGER NOT NULL,
            status TEXT NOT NULL,
            answered INTEGER NOT NULL,
            key TEXT,
            digest TEXT,
            error TEXT,
            finished_at INTEGER,
            PRIMARY KEY (session, turn)
        ) WITHOUT ROWID
        """,
        "CREATE UNIQUE INDEX turns_by_key ON turns (session, key) WHERE key IS NOT NULL",
    ],
    # 2: what is indexed of a session's activity is the minute only, so that most writes move no
    # index of sessions: one page less a commit. A column that is computed would not do: SQLite
    # writes the entry anew whenever what it is computed of is set.
    [
        "ALTER TABLE sessions ADD COLUMN active_minute INTEGER NOT NULL DEFAULT 0",
        "UPDATE sessions SET active_minute = last_activity / 60000000",
        "DROP INDEX sessions_by_user",
        "CREATE INDEX sessions_by_user ON sessions (user_id, active_minute)",
        "CREATE INDEX sessions_by_activity ON sessions (active_minute)",
        "CREATE INDEX sessions_of_active ON sessions (active_minute) WHERE status = 'active'",
        """
        CREATE TRIGGER sessions_created AFTER INSERT ON sessions BEGIN
            UPDATE sessions SET active_minute = new.last_activity / 60000000 WHERE key = new.key;
        END
        """,
        """
        CREATE TRIGGER sessions_moved AFTER UPDATE OF last_activity ON sessions
        WHEN new.active_minute != new.last_activity / 60000000 BEGIN
            UPDATE sessions SET active_minute = new.last_activity / 60000000 WHERE key = new.key;
        END
        """,
    ],
    # 3: messages with several tools' results, which some doors show as several messages, are few.
    [
        """
        CREATE INDEX messages_of_many ON messages (session, seq)
        WHERE instr(substr(extra, instr(extra, '"tool_result"') + 13), '"tool_result"') > 0
        """,
    ],
]
"""One list of statements per version, oldest first. Only ever appended to."""


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Several reads that see the database as it was at one moment."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


def migrate(connection: sqlite3.Connection, path: str) -> bool:
    """Bring a database to the newest schema, in one transaction.

    Args:
        connection: A connection in autocommit mode.
        path: The file, for messages.

    Returns:
        Whether the database was empty before.

    Raises:
        StorageVersionError: If the schema is newer than this version of the package knows.
        StorageCorruptError: If the file is a database of something else.
    """
    if _version(connection) == len(MIGRATIONS) and _application(connection) == APPLICATION_ID:
        return False
    connection.execute("BEGIN IMMEDIATE")
    try:
        check(connection, path)
        before = _version(connection)
        for statements in MIGRATIONS[before:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return before == 0


def check(connection: sqlite3.Connection, path: str) -> None:
    """Refuse a database that is not ours, or newer than we are; writes nothing.

    Raises:
        StorageVersionError, StorageCorruptError
    """
    version, application = _version(connection), _application(connection)
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if application != APPLICATION_ID and not (empty and application == 0 and version == 0):
        raise StorageCorruptError(
            f"{path} is a database of another program; name another file as db_path"
        )
    if version > len(MIGRATIONS):
        raise StorageVersionError(
            f"{path} has schema version {version}, and this version of langswarm-session knows "
            f"up to {len(MIGRATIONS)}; upgrade the package (the file was left as it is)"
        )


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _application(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA application_id").fetchone()[0])
