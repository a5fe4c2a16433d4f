"""Databases in which somebody wrote what no storage does: only our own errors come of it."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from edited_by_hand import fill, use
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from langswarm_session import SQLiteSessionStorage
from langswarm_session.records import SessionRecord
from langswarm_session.storage.rows import MESSAGE_COLUMNS
from langswarm_session.storage.session_rows import NOTE_COLUMNS

COLUMNS = [
    *(("sessions", name) for name in (*SessionRecord._fields, "active_minute")),
    *(("messages", name) for name in ("session", *MESSAGE_COLUMNS.split(", "))),
    *(("turns", name) for name in ("session", *NOTE_COLUMNS.split(", "))),
]

NUMBERS = st.sampled_from(
    [0, 1, -1, 2, 5, 99, 2**31, 2**53, 2**63 - 1, -(2**63), 253402300800000000]
)
JSON = st.sampled_from(
    [
        *("true", "[]", "{}", "null", "1e999", '"a"', "{", "[" * 500 + "]" * 500, "1" * 5000),
        *('{"role":"evil"}', '{"seq":"x"}', '{"provider":[]}', '{"metadata":[]}', '{"native":1}'),
        *('{"blocks":{}}', '{"blocks":[1]}', '{"blocks":[{"type":[]}]}', '{"usage":[]}'),
        *('{"usage":{"input_tokens":-1}}', '{"content":1}', '{"id":[]}', '{"timestamp":0}'),
        *('{"summary":5}', '{"summary":{"text":"a","last_seq":"x"}}', '{"max_messages":"many"}'),
        *('{"session_id":[]}', '{"provider_states":7}', '{"provider_session_id":[]}'),
        *('{"fallback":[[]]}', '{"usage":{"details":[]}}', '{"": {"": [null]}}'),
    ]
)
TEXTS = st.sampled_from(["", "x", "1", "1.5", "evil", "active", "open", "\0", "a\x01b", "ü" * 500])
VALUES = st.one_of(
    st.none(),
    NUMBERS,
    st.floats(),
    TEXTS,
    JSON,
    st.sampled_from([b"", b"\xff\x00", b"x" * 16, b"x" * 17, b"active"]),
    st.sampled_from([b"\xff", b"a\xc3", b"\xed\xa0\x80"]).map(lambda raw: ("as text", raw)),
)


@lru_cache(maxsize=1)
def filled() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"

        async def make() -> None:
            storage = SQLiteSessionStorage(path)
            await fill(storage)
            await storage.close()

        asyncio.run(make())
        return path.read_bytes()


def write(path: Path, table: str, column: str, row: int, value: Any) -> None:
    """Write into a cell what its column would not take."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA writable_schema = ON")
    stored = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
    schema = stored.fetchall()
    for name, sql in schema:
        loose = sql and sql.replace(" NOT NULL", "")
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (loose, name))
    connection.close()
    connection = sqlite3.connect(path, isolation_level=None)
    new = "?"
    if isinstance(value, tuple):
        new, value = "CAST(? AS TEXT)", value[1]
    keys = "session, turn" if table == "turns" else "rowid"
    key = f"(SELECT {keys} FROM {table} ORDER BY {keys} LIMIT 1 OFFSET ?)"
    try:
        connection.execute(
            f"UPDATE OR IGNORE {table} SET {column} = {new} WHERE ({keys}) = {key}", (value, row)
        )
    except sqlite3.Error:
        pass  # not even by hand
    connection.execute("PRAGMA writable_schema = ON")
    for name, sql in schema:
        connection.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (sql, name))
    connection.close()


@settings(deadline=None)
@given(st.sampled_from(COLUMNS), st.integers(0, 5), VALUES)
@example(("messages", "id"), 0, None)
def test_a_cell_of_a_sqlite_file(place: tuple[str, str], row: int, value: Any) -> None:
    # A storage takes such a name, and a manager refuses it: neither is damage.
    assume(not (place[1] == "user_id" and value == "\0"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        path.write_bytes(filled())
        write(path, *place, row, value)
        assert asyncio.run(use(SQLiteSessionStorage(path, timeout=10))) == []
