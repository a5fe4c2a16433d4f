"""What can be found wrong with a PostgreSQL database. Nothing here writes, or makes tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg  # type: ignore[import-untyped,import-not-found,unused-ignore]

from langswarm_session.diagnosis import (
    Finding,
    LogFigures,
    figures,
    ok,
    open_turns,
    problem,
    warning,
)
from langswarm_session.errors import StorageCorruptError
from langswarm_session.storage.postgres_pool import PoolSettings
from langswarm_session.storage.postgres_rows import from_text
from langswarm_session.storage.postgres_schema import MIGRATIONS, Tables
from langswarm_session.storage.rows import MESSAGE_COLUMNS, decode_message

_OLDEST = 130_000
_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_MISCOUNTED = (
    "SELECT s.session_id FROM {sessions} AS s LEFT JOIN (SELECT session, count(*) AS size, "
    "max(seq) AS last FROM {messages} GROUP BY session) AS log ON log.session = s.key "
    "WHERE s.message_count <> coalesce(log.size, 0) OR coalesce(log.last, 0) > s.last_seq"
)
_LOST_MESSAGES = (
    "SELECT count(*) FROM {messages} AS m WHERE NOT EXISTS "
    "(SELECT 1 FROM {sessions} AS s WHERE s.key = m.session)"
)
_LOST_NOTES = (
    "SELECT count(*) FROM {turns} AS t WHERE NOT EXISTS (SELECT 1 FROM {sessions} AS s "
    "JOIN {messages} AS m ON m.session = s.key WHERE s.key = t.session AND m.seq >= t.turn "
    "AND m.turn = t.turn)"
)
_LEASES = "SELECT session_id, turn_owner, turn_expires FROM {sessions} WHERE turn_token IS NOT NULL"
_BROKEN_INDEXES = (
    "SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid "
    "WHERE i.indrelid = ANY($1::text[]::regclass[]) AND NOT (i.indisvalid AND i.indisready)"
)
_DEAD = (
    "SELECT coalesce(sum(n_dead_tup), 0)::bigint, coalesce(sum(n_live_tup), 0)::bigint "
    "FROM pg_stat_user_tables WHERE relid = ANY($1::text[]::regclass[])"
)
_INDEXES = (
    "SELECT i.indexrelid::regclass::text FROM pg_index AS i JOIN pg_class AS c "
    "ON c.oid = i.indexrelid JOIN pg_am AS a ON a.oid = c.relam "
    "WHERE i.indrelid = ANY($1::text[]::regclass[]) AND a.amname = 'btree'"
)
_DURABILITY = (
    "SELECT current_setting('fsync'), current_setting('full_page_writes'), "
    "current_setting('synchronous_commit'), (SELECT array_agg(relname::text ORDER BY relname) "
    "FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = $1 "
    "AND relname = ANY($2::text[]) AND relpersistence = 'u')"
)
_RESCUE = "restore a backup, or bring what can be read elsewhere with `export --all` and `import`"


async def examine(settings: PoolSettings, tables: Tables, *, full: bool) -> list[Finding]:
    """Look at a database.

    Args:
        settings: How to connect.
        tables: Where the tables are.
        full: Whether the indexes are checked (with the extension amcheck), and every message read.
    """
    try:
        connection = await asyncpg.connect(
            **settings.options, timeout=settings.connect_timeout, statement_cache_size=0
        )
    except (OSError, TimeoutError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as e:
        advice = "start the server, or mend the address, the user or the password"
        return [problem("server", f"{settings.name}: no connection ({_reason(e)})", advice)]
    try:
        return [finding async for finding in _database(connection, settings, tables, full=full)]
    finally:
        await connection.close()


def _reason(error: BaseException) -> str:
    """What went wrong; an error of the driver may quote the address, so only its kind is told."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return type(error).__name__


async def _database(
    connection: Any, settings: PoolSettings, tables: Tables, *, full: bool
) -> AsyncIterator[Finding]:
    number = int(await connection.fetchval("SHOW server_version_num"))
    version = await connection.fetchval("SHOW server_version")
    if number < _OLDEST:
        yield problem("server", f"PostgreSQL {version}", "use version 13 or newer")
    else:
        yield ok("server", f"{settings.name}, PostgreSQL {version}")
    for finding in await durability(connection, tables):
        yield finding
    schema = await _schema_version(connection, tables)
    yield _schema(schema)
    if not 0 < schema <= len(MIGRATIONS):
        return
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        async for finding in _tables(connection, tables):
            yield finding
        if full:
            yield await _readable(connection, tables)
    if full:
        yield await _amcheck(connection, tables)


async def durability(connection: Any, tables: Tables) -> list[Finding]:
    """What there is to say of whether the server keeps what it acknowledged, if it is killed."""
    names = [tables.prefix + each for each in ("sessions", "messages", "turns")]
    rows = await connection.fetch(_DURABILITY, tables.schema, names)
    fsync, full_page_writes, synchronous_commit, unlogged = rows[0]
    found = [_setting("fsync", fsync), _setting("full_page_writes", full_page_writes)]
    if synchronous_commit == "off":
        synchronous_commit = "off, and on for what this storage writes"
    found.append(ok("synchronous_commit", synchronous_commit))
    if unlogged:
        what = "unlogged, so the server empties them when it starts after a crash"
        advice = "ALTER TABLE ... SET LOGGED"
        found.append(problem("tables", f"{', '.join(unlogged)}: {what}", advice))
    return found


def _setting(name: str, value: str) -> Finding:
    if value != "off":
        return ok(name, value)
    what = "what was acknowledged may be lost when the server or its machine stops"
    return problem(name, f"off, so {what}", f"set {name} = on in the server's configuration")


async def _schema_version(connection: Any, tables: Tables) -> int:
    """The version of our tables; 0 where there are none."""
    there = await connection.fetchval(
        "SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "WHERE nspname = $1 AND relname = $2",
        tables.schema,
        f"{tables.prefix}schema_version",
    )
    if not there:
        return 0
    query = tables.sql("SELECT max(version) FROM {schema_version}")
    return int(await connection.fetchval(query) or 0)


def _schema(version: int) -> Finding:
    newest = len(MIGRATIONS)
    if version == newest:
        return ok("schema", f"version {version}")
    if not version:
        advice = "nothing has to be done: they are made when the storage is used first"
        return warning("schema", "the tables are not there yet", advice)
    if version > newest:
        return problem("schema", f"version {version}, {newest} is known", "upgrade the package")
    advice = "the next program that uses the database brings it to the newest version"
    return warning("schema", f"version {version}, the newest is {newest}", advice)


def _names(tables: Tables) -> list[str]:
    return [tables.sql(each) for each in ("{sessions}", "{messages}", "{turns}")]


async def _tables(connection: Any, tables: Tables) -> AsyncIterator[Finding]:
    rows = await connection.fetch(tables.sql(_MISCOUNTED))
    lost = [await connection.fetchval(tables.sql(each)) for each in (_LOST_MESSAGES, _LOST_NOTES)]
    yield figures(LogFigures([from_text(row[0]) for row in rows], *lost))
    leases = await connection.fetch(tables.sql(_LEASES))
    now = await connection.fetchval(f"SELECT {_NOW}")
    yield open_turns(
        [(from_text(name), owner and from_text(owner), ends) for name, owner, ends in leases], now
    )
    broken = [row[0] for row in await connection.fetch(_BROKEN_INDEXES, _names(tables))]
    if broken:
        yield problem("indexes", f"not valid: {', '.join(broken)}", "REINDEX them")
    else:
        yield ok("indexes", "all are valid")
    dead, live = (await connection.fetchrow(_DEAD, _names(tables)))[:2]
    if dead > 100_000 and dead > live:
        advice = "see that autovacuum is on and gets through, or run VACUUM"
        yield warning("dead rows", f"{dead} beside {live} live ones", advice)
    else:
        yield ok("dead rows", f"{dead} beside {live} live ones")


async def _readable(connection: Any, tables: Tables) -> Finding:
    """Whether every message can be read."""
    query = f"SELECT session, {MESSAGE_COLUMNS} FROM {{messages}}"
    bad: list[str] = []
    async for place, *row in connection.cursor(tables.sql(query), prefetch=500):
        try:
            decode_message(tuple(row))
        except StorageCorruptError:
            bad.append(f"session {place} #{row[0]}")
    if not bad:
        return ok("messages", "every one can be read")
    return problem("messages", f"{len(bad)} cannot be read: {', '.join(bad[:5])}", _RESCUE)


async def _amcheck(connection: Any, tables: Tables) -> Finding:
    """Whether the indexes are sound, where the server has what tells it."""
    if not await connection.fetchval("SELECT 1 FROM pg_extension WHERE extname = 'amcheck'"):
        return ok("amcheck", "the extension is not installed, so the indexes were not looked into")
    try:
        for row in await connection.fetch(_INDEXES, _names(tables)):
            await connection.fetchval("SELECT bt_index_check($1::regclass)", row[0])
    except asyncpg.InsufficientPrivilegeError:
        return ok("amcheck", "this user may not use it, so the indexes were not looked into")
    except asyncpg.PostgresError as error:
        return problem("amcheck", str(error), "REINDEX the index; find out what the disk did")
    return ok("amcheck", "the indexes are sound")
