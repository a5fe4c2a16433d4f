"""What the PostgreSQL schema must look like, and how one that is there differs from that.

A test makes the schema and compares it, so that what is written here follows every migration.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langswarm_session.storage.postgres.schema import MIGRATIONS, Tables

_COUNT = "bigint NOT NULL DEFAULT 0"
_NAME = "text COLLATE C NOT NULL"
_COLUMNS: dict[str, dict[str, str]] = {
    "sessions": {
        "key": "bigint NOT NULL IDENTITY",
        "session_id": _NAME,
        "user_id": _NAME,
        **dict.fromkeys(("provider", "model", "backend", "status", "context"), "text NOT NULL"),
        "provider_state": "text",
        **dict.fromkeys(("created_at", "last_activity"), "bigint NOT NULL"),
        **dict.fromkeys(
            ("revision", "last_seq", "message_count", "turn_count", "input_tokens"), _COUNT
        ),
        **dict.fromkeys(("output_tokens", "cached_tokens", "reasoning_tokens", "errors"), _COUNT),
        "turn_id": "bigint",
        "turn_token": "text COLLATE C",
        "turn_owner": "text",
        "turn_expires": "bigint",
        "active_minute": "bigint NOT NULL GENERATED (last_activity / 60000000)",
    },
    "messages": {
        **dict.fromkeys(("session", "seq", "turn", "timestamp"), "bigint NOT NULL"),
        "role": "smallint NOT NULL",
        "id": "bytea NOT NULL",
        **dict.fromkeys(("content", "extra"), "text"),
    },
    "turns": {
        **dict.fromkeys(("session", "turn"), "bigint NOT NULL"),
        "status": "text NOT NULL",
        "answered": "boolean NOT NULL",
        "key": "text COLLATE C",
        **dict.fromkeys(("digest", "error"), "text"),
        "finished_at": "bigint",
    },
    "schema_version": {"version": "integer NOT NULL"},
}

_INDEXES: dict[str, tuple[str, ...]] = {
    "sessions": (
        "UNIQUE (key)",
        "UNIQUE (session_id)",
        "(user_id, active_minute)",
        "(active_minute)",
        "(active_minute) WHERE (status = 'active'::text)",
    ),
    "messages": (
        "UNIQUE (session, seq)",
        "UNIQUE (id, session)",
        "(session, seq) WHERE (role = 2)",
        '(session, seq) WHERE (extra ~~ \'%"tool_result"%"tool_result"%\'::text)',
    ),
    "turns": ("UNIQUE (session, turn)", "UNIQUE (session, key) WHERE (key IS NOT NULL)"),
    "schema_version": ("UNIQUE (version)",),
}
"""By what they hold, as those of a table that was made again, for partitions, have other names."""

_FUNCTIONS = {
    "write": {"plan_cache_mode=force_generic_plan", "search_path=pg_catalog, pg_temp"},
    "write_together": {
        "plan_cache_mode=force_generic_plan",
        "enable_seqscan=off",
        "search_path=pg_catalog, pg_temp",
    },
}
"""The settings of each function."""

_TABLE = "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1"
_THIS = f"c.oid = (SELECT c.oid {_TABLE} AND c.relname = $2)"
_KIND = (
    # "relhasrules" stays true after the last rule was dropped, until the table is vacuumed:
    # https://www.postgresql.org/docs/current/catalog-pg-class.html
    "SELECT c.relkind::text, c.relrowsecurity, "
    "EXISTS (SELECT 1 FROM pg_rewrite WHERE ev_class = c.oid), "
    "(SELECT array_agg(tgname::text ORDER BY tgname) FROM pg_trigger "
    f"WHERE tgrelid = c.oid AND NOT tgisinternal) {_TABLE} AND c.relname = $2"
)
_ATTRIBUTES = (
    "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod) "
    "|| CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || o.collname ELSE '' END "
    "|| CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END "
    "|| CASE a.attidentity WHEN 'a' THEN ' IDENTITY' WHEN 'd' THEN ' IDENTITY BY DEFAULT' "
    "ELSE '' END "
    "|| CASE WHEN a.attgenerated <> '' THEN ' GENERATED ' || pg_get_expr(d.adbin, d.adrelid) "
    "WHEN d.adbin IS NOT NULL THEN ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid) ELSE '' END "
    "FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid "
    "JOIN pg_type AS t ON t.oid = a.atttypid LEFT JOIN pg_collation AS o ON o.oid = a.attcollation "
    "LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum "
    f"WHERE {_THIS} AND a.attnum > 0 AND NOT a.attisdropped"
)
_DEFINITIONS = (
    "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_class AS c "
    f"JOIN pg_index AS i ON i.indrelid = c.oid WHERE {_THIS}"
)
_CONSTRAINTS = (
    "SELECT o.conname::text || ' ' || pg_get_constraintdef(o.oid) FROM pg_class AS c "
    # Of keys the index tells; NOT NULL is a constraint from PostgreSQL 18 on, told by the column.
    f"JOIN pg_constraint AS o ON o.conrelid = c.oid WHERE {_THIS} "
    "AND o.contype NOT IN ('p', 'u', 'n')"
)
_BODIES = (
    "SELECT p.prosrc, coalesce(p.proconfig, '{}'), p.prosecdef FROM pg_proc AS p "
    "JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = $1 AND p.proname = $2"
)
_INDEX = re.compile(r"CREATE (UNIQUE )?INDEX .*? USING btree (\(.*)", re.DOTALL)
_BODY = re.compile(r"FUNCTION \{(\w+)\}\(.*?AS \$langswarm\$(.*?)\$langswarm\$", re.DOTALL)


async def differences(connection: Any, tables: Tables) -> AsyncIterator[str]:
    """Say what is not as the newest version makes it.

    Args:
        connection: A connection, whose ``fetch`` runs a statement.
        tables: Where the tables are.
    """
    for table in _COLUMNS:
        place = (tables.schema, tables.prefix + table)
        rows = await connection.fetch(_KIND, *place)
        for each in _unusual(*rows[0]):
            yield f"{place[1]} {each}"
        stored = dict(await connection.fetch(_ATTRIBUTES, *place))
        for each in _compared(_COLUMNS[table], stored):
            yield f"{place[1]}: {each}"
        for each in _indexes(_INDEXES[table], await connection.fetch(_DEFINITIONS, *place)):
            yield f"{place[1]}: {each}"
        for row in await connection.fetch(_CONSTRAINTS, *place):
            yield f"{place[1]}: another constraint: {row[0]}"
    for name in _FUNCTIONS:
        rows = await connection.fetch(_BODIES, tables.schema, tables.prefix + name)
        for each in _function(tables, name, rows):
            yield f"the function {tables.prefix}{name} {each}"


def _unusual(
    kind: str, has_row_security: bool, has_rules: bool, triggers: list[str] | None
) -> Iterator[str]:
    if kind not in ("r", "p"):
        yield "is not a table"
    if has_row_security:
        yield "has row security, which may hide rows"
    if has_rules:
        yield "has rules, which change what is written"
    if triggers:
        yield f"has triggers, which are not of this package: {', '.join(triggers)}"


def _compared(expected: dict[str, str], stored: dict[str, str]) -> Iterator[str]:
    for column, kind in expected.items():
        if column not in stored:
            yield f"the column {column} is missing"
        elif stored[column] != kind:
            yield f"the column {column} is {stored[column]}, and should be {kind}"
    for column in stored.keys() - expected.keys():
        yield f"another column: {column}"


def _indexes(expected: tuple[str, ...], rows: list[Any]) -> Iterator[str]:
    stored = {_held(definition): name for name, definition in rows}
    for index in expected:
        if index not in stored:
            yield f"the index on {index} is missing"
    for index in stored.keys() - expected:
        # Any other costs writes only; one that is unique refuses some of them.
        if index.startswith("UNIQUE") or "(" not in index:
            yield f"another index: {stored[index]}"


def _held(definition: str) -> str:
    match = _INDEX.fullmatch(definition)
    return definition if match is None else f"{match[1] or ''}{match[2]}"


def _function(tables: Tables, name: str, rows: list[Any]) -> Iterator[str]:
    if not rows:
        yield "is missing"
    elif len(rows) > 1:
        yield "is there more than once"
    else:
        body, settings, is_definer = rows[0]
        if body != tables.sql(_bodies()[name]) or is_definer:
            yield "is not the one that this package makes"
        elif set(settings) != _FUNCTIONS[name]:
            yield f"has other settings: {', '.join(settings) or 'none'}"


def _bodies() -> dict[str, str]:
    """The functions' bodies, as the newest migration with each has them."""
    statements = [statement for version in MIGRATIONS for statement in version]
    return {match[1]: match[2] for text in statements for match in _BODY.finditer(text)}
