"""The search of the SQLite storage: a scan by the database, and a closer look at what it finds."""

from __future__ import annotations

import sqlite3
from typing import Any

from langswarm_session.search import ESCAPE, MessageHit, Search, SearchPage
from langswarm_session.storage.rows import MESSAGE_COLUMNS, ROLES, decode_message
from langswarm_session.storage.session_rows import decode_names
from langswarm_session.storage.sqlite import transactions as log
from langswarm_session.storage.sqlite.schema import snapshot

# A message of blocks has no content of its own. LIKE ends at a NUL, so what has one is looked at.
_CANDIDATES = (
    "SELECT m.rowid, s.session_id, s.user_id FROM messages AS m JOIN sessions AS s "
    f"ON s.key = m.session WHERE (m.content LIKE ? ESCAPE '{ESCAPE}' "
    f"OR (m.content IS NULL AND m.extra LIKE ? ESCAPE '{ESCAPE}') OR instr(m.content, char(0))) "
)
_ORDER = "ORDER BY m.timestamp DESC, s.session_id DESC, m.seq DESC"
_MESSAGE = f"SELECT {MESSAGE_COLUMNS} FROM messages WHERE rowid = ?"


def search_messages(connection: sqlite3.Connection, search: Search) -> SearchPage:
    """Find messages; see `ISessionStorage.search_messages`.

    Raises:
        SessionNotFoundError: If the search is for one session, and there is none.
    """
    with snapshot(connection):
        query, values = _query(connection, search)
        hits: list[MessageHit] = []
        # Only the places are sorted, not the messages.
        for rowid, *names in connection.execute(query, values):
            session_id, user_id = decode_names(names)
            row = connection.execute(_MESSAGE, (rowid,)).fetchone()
            message = decode_message(row)
            if search.matches(message):
                hits.append(search.hit(session_id, user_id, message))
                if len(hits) > search.limit:
                    break
        return search.page(hits)


def _query(connection: sqlite3.Connection, search: Search) -> tuple[str, list[Any]]:
    query = _CANDIDATES
    values: list[Any] = [search.content_pattern, search.json_pattern]
    if search.session is not None:
        query += "AND m.session = ? "
        values.append(log.load(connection, search.session).creation)
    if search.user_id is not None:
        query += "AND s.user_id = ? "
        values.append(search.user_id)
    if search.role is not None:
        query += "AND m.role = ? "
        values.append(ROLES.index(search.role))
    if search.before is not None:
        query += "AND (m.timestamp, s.session_id, m.seq) < (?, ?, ?) "
        values += search.before
    return query + _ORDER, values
