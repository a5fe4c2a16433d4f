"""What the SQLite schema must look like, and how one that is there differs from that.

What it must look like is what the migrations make of an empty database.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import lru_cache
from typing import NamedTuple

from langswarm_session.errors import StorageCorruptError
from langswarm_session.storage.sqlite.schema import MIGRATIONS

logger = logging.getLogger(__name__)

_OBJECTS = "SELECT type, name, tbl_name, ifnull(sql, '') FROM sqlite_master"
# Names that need no quotes are given some when a table is renamed.
_TOKENS = re.compile(r"""'(?:[^']|'')*'|"(\w+)"|\s+""")


_SET_MINUTES = (
    "UPDATE sessions SET active_minute = last_activity / 60000000 "
    "WHERE active_minute != last_activity / 60000000"
)


class Object(NamedTuple):
    """A table, index, trigger or view.

    Attributes:
        kind: Which of these.
        table: The table that it is, or is on.
        sql: What makes it.
    """

    kind: str
    table: str
    sql: str

    @property
    def is_unique(self) -> bool:
        """Whether it is an index that refuses rows."""
        return self.sql.upper().startswith("CREATE UNIQUE ")


@lru_cache(maxsize=4)
def expected(version: int) -> dict[str, Object]:
    """Return what a version of the schema has, by name."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for statements in MIGRATIONS[:version]:
            for statement in statements:
                connection.execute(statement)
        return objects(connection)


def objects(connection: sqlite3.Connection) -> dict[str, Object]:
    """Return what a database has, by name, without what SQLite keeps there for itself."""
    return {
        str(name): Object(str(kind), str(table), str(sql))
        for kind, name, table, sql in connection.execute(_OBJECTS)
        if not str(name).startswith("sqlite_")
    }


def differences(connection: sqlite3.Connection, version: int) -> Iterator[str]:
    """Say what is not as a version of the schema makes it."""
    wanted, found = expected(version), objects(connection)
    for name, want in wanted.items():
        have = found.get(name)
        if have is None:
            yield f"the {want.kind} {name} is missing"
        elif have.kind != want.kind:
            yield f"{name} is a {have.kind}, and should be a {want.kind}"
        elif _plain(have.sql) != _plain(want.sql) or have.table != want.table:
            yield f"the {want.kind} {name} is not the one that this package makes"
    tables = {each.table for each in wanted.values()}
    for name in found.keys() - wanted.keys():
        have = found[name]
        # Another index costs writes only, unless it refuses them.
        if have.table in tables and (have.kind == "trigger" or have.is_unique):
            yield f"the {have.kind} {name} on {have.table} is not of this package"


def mend(connection: sqlite3.Connection, path: str) -> None:
    """Make again what is missing of the newest version and holds nothing of its own: indexes, and
    the triggers that keep the minute of a session's activity.

    Without the index of ids a message could be stored twice.

    Args:
        connection: A connection in autocommit mode.
        path: The file, for messages.

    Raises:
        StorageCorruptError: If a table is missing, is none, or has rows that no index allows.
    """
    wanted, found = expected(len(MIGRATIONS)), objects(connection)
    for name, want in wanted.items():
        have = found.get(name)
        if want.kind == "table" and (have is None or have.kind != "table"):
            what = "is missing" if have is None else f"is a {have.kind}"
            raise StorageCorruptError(f"{path}: the table {name} {what}; restore a copy")
    missing = [name for name in wanted if name not in found]
    if not missing:
        return
    logger.warning("%s: %s missing, and made again", path, ", ".join(missing))
    connection.execute("BEGIN IMMEDIATE")
    try:
        for name in wanted.keys() - objects(connection).keys():
            connection.execute(wanted[name].sql)
        connection.execute(_SET_MINUTES)
        connection.execute("COMMIT")
    except sqlite3.IntegrityError:
        connection.execute("ROLLBACK")
        raise StorageCorruptError(
            f"{path}: rows are stored twice that can be there only once, as an index was missing; "
            "restore a copy"
        ) from None
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _plain(sql: str) -> str:
    """A statement with its white space and its quotes as they need to be."""
    return _TOKENS.sub(_replaced, sql).strip()


def _replaced(match: re.Match[str]) -> str:
    if match[0].startswith("'"):
        return match[0]
    return match[1] or " "
