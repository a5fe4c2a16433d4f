"""The search of the PostgreSQL storage: the server scans, and what it finds is looked at."""

from __future__ import annotations

from typing import Any

from langswarm_session.search import ESCAPE, MessageHit, Place, Search, SearchPage
from langswarm_session.storage.postgres.pool import Connection
from langswarm_session.storage.postgres.rows import from_text, to_text
from langswarm_session.storage.postgres.schema import Tables
from langswarm_session.storage.postgres.transactions import load, own
from langswarm_session.storage.rows import MESSAGE_COLUMNS, ROLES, decode_message
from langswarm_session.storage.session_rows import decode_names

# A message of blocks, or with a NUL in it, has no content of its own. With the collation "C" the
# letters of ASCII match whatever their case, in any language.
_CANDIDATES = (
    "SELECT m.session, m.seq, m.timestamp, s.session_id, s.user_id FROM {messages} AS m "
    "JOIN {sessions} AS s ON s.key = m.session "
    f"WHERE (m.content COLLATE \"C\" ILIKE $1 ESCAPE '{ESCAPE}' "
    f"OR (m.content IS NULL AND m.extra COLLATE \"C\" ILIKE $2 ESCAPE '{ESCAPE}')) "
)
_ORDER = "ORDER BY m.timestamp DESC, s.session_id DESC, m.seq DESC"
_MESSAGES = (
    f"SELECT {', '.join(f'm.{name}' for name in MESSAGE_COLUMNS.split(', '))}, wanted.n "
    "FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS wanted (session, seq, n) "
    "JOIN {messages} AS m USING (session, seq) ORDER BY wanted.n"
)
_SCAN, _LOOK = 10_000, 200
"""How many candidates a scan gives at most, and how many of them are read at a time."""


async def search_messages(connection: Connection, tables: Tables, search: Search) -> SearchPage:
    """Find messages; see `ISessionStorage.search_messages`.

    Raises:
        SessionNotFoundError: If the search is for one session, and there is none.
    """
    if search.session is not None:
        await load(connection, tables, search.session, lock=False)
    hits: list[MessageHit] = []
    before = search.before
    while True:
        query, values = _query(search, before)
        found = await connection.fetch(tables.sql(query), *values)
        for start in range(0, len(found), _LOOK):
            hits += await _look(connection, tables, search, found[start : start + _LOOK])
            if len(hits) > search.limit:
                return search.page(hits)
        if len(found) < _SCAN:
            return search.page(hits)
        last = found[-1]
        before = Place(last[2], from_text(*decode_names(last[3:4])), last[1])


async def _look(
    connection: Connection, tables: Tables, search: Search, found: list[Any]
) -> list[MessageHit]:
    """Those of the candidates that match."""
    sessions, seqs = [row[0] for row in found], [row[1] for row in found]
    rows = await connection.fetch(tables.sql(_MESSAGES), sessions, seqs)
    hits = []
    for *row, number in rows:
        message = decode_message(tuple(row))
        if search.matches(message):
            session_id, user_id = decode_names(found[number - 1][3:])
            hits.append(search.hit(from_text(session_id), from_text(user_id), message))
    return hits


def _query(search: Search, before: Place | None) -> tuple[str, list[Any]]:
    query = _CANDIDATES
    values: list[Any] = [search.content_pattern, search.json_pattern]

    def given(value: object) -> str:
        values.append(value)
        return f"${len(values)}"

    if search.session is not None:
        session_id, user_id, creation = map(given, own(search.session))
        query += (
            f"AND s.session_id = {session_id} AND s.user_id = {user_id} "
            f"AND s.key = coalesce({creation}::bigint, s.key) "
        )
    if search.user_id is not None:
        query += f"AND s.user_id = {given(to_text(search.user_id))} "
    if search.role is not None:
        query += f"AND m.role = {given(ROLES.index(search.role))} "
    if before is not None:
        place = (before.timestamp, to_text(before.session_id), before.seq)
        query += f"AND (m.timestamp, s.session_id, m.seq) < ({', '.join(map(given, place))}) "
    return f"{query}{_ORDER} LIMIT {_SCAN}", values
