"""What can be found wrong with a PostgreSQL database. Nothing here writes, or makes tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg  # type: ignore[import-untyped,import-not-found,unused-ignore]

from langswarm_session.errors import StorageBusyError, StorageCorruptError, StorageVersionError
from langswarm_session.findings import Finding, ok, problem, warning
from langswarm_session.models import SessionContext
from langswarm_session.storage.calls import in_thread
from langswarm_session.storage.examining import (
    LogFigures,
    Reading,
    TimeLimit,
    figures,
    open_turns,
)
from langswarm_session.storage.postgres.connect import connect
from langswarm_session.storage.postgres.errors import state_of, typed_error, unreachable
from langswarm_session.storage.postgres.expected import differences
from langswarm_session.storage.postgres.pool import PoolSettings, watch
from langswarm_session.storage.postgres.rows import from_text, to_record
from langswarm_session.storage.postgres.schema import MIGRATIONS, Tables, find_version
from langswarm_session.storage.postgres.search_path import SET_PATH
from langswarm_session.storage.postgres.statements import FIELDS
from langswarm_session.storage.rows import MESSAGE_COLUMNS, decode_message
from langswarm_session.storage.session_rows import NOTE_COLUMNS, decode_note

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
    "WHERE s.key = t.session) OR (t.status = 'complete' AND NOT EXISTS (SELECT 1 "
    # One about messages of another turn that was never answered has none.
    "FROM {messages} AS m WHERE m.session = t.session AND m.seq >= t.turn AND m.turn = t.turn))"
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
_AMCHECK = (
    "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace "
    "ON pg_namespace.oid = extnamespace WHERE extname = 'amcheck'"
)
_PROSPECTS = (
    "SELECT current_setting('server_encoding'), "
    "pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean, "
    "coalesce((SELECT has_schema_privilege(oid, 'CREATE') AND has_schema_privilege(oid, 'USAGE') "
    "FROM pg_namespace WHERE nspname = $1), has_database_privilege(current_database(), 'CREATE')) "
    "AND NOT EXISTS (SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
    "WHERE nspname = $1 AND relname = ANY($2::text[]) AND NOT pg_has_role(relowner, 'USAGE'))"
)
_FUNCTION = (
    "SELECT 1 FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace "
    "WHERE nspname = $1 AND proname = $2 AND has_function_privilege(pg_proc.oid, 'EXECUTE')"
)
_DURABILITY = (
    "SELECT current_setting('fsync'), current_setting('full_page_writes'), "
    "current_setting('synchronous_commit'), (SELECT array_agg(relname::text ORDER BY relname) "
    "FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = $1 "
    "AND relname = ANY($2::text[]) AND relpersistence = 'u')"
)
_ACCESS = (
    "SELECT has_schema_privilege('public', $1, 'CREATE'), (SELECT array_agg(relname::text "
    "ORDER BY relname) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
    "WHERE nspname = $1 AND relname = ANY($2::text[]) "
    "AND has_table_privilege('public', pg_class.oid, 'SELECT, INSERT, UPDATE, DELETE'))"
)
_BEGIN = (
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {:d}; "
    f"SET LOCAL lock_timeout = {{:d}}; {SET_PATH}"
)
_TO_TELL = 1.0
"""Seconds that the server has to say that it has come to the end of its time."""

_PORTION = 500
"""How many messages are read at once."""

_BUSY = (
    "see in pg_stat_activity what keeps the tables locked or the server busy, or give the storage "
    "a longer timeout"
)
_GRANT = "GRANT this user USAGE ON the SCHEMA and SELECT, INSERT, UPDATE, DELETE ON its tables"
_RESCUE = "restore a backup, or bring what can be read elsewhere with `export --all` and `import`"


class _Asking:
    """A connection whose server has so many seconds for each question, and for all of them.

    Args:
        raw: The driver's.
        limit: How long all may take.
        patience: How long an answer may take, or wait for others.
        full: Whether an answer may take all the time there is.
    """

    def __init__(self, raw: Any, limit: TimeLimit, patience: float, *, full: bool) -> None:
        self._raw = raw
        self._limit = limit
        self._patience = patience
        self._full = full

    async def begin(self) -> None:
        """Begin a transaction, in which the server heeds the limit as well."""
        limits = (max(1, int(each * 1000)) for each in (self._seconds, self._patience))
        async with asyncio.timeout(self._seconds + _TO_TELL):
            await self._raw.execute(_BEGIN.format(*limits))

    async def fetch(self, query: str, *values: Any) -> list[Any]:
        """Run a statement and return its rows."""
        async with asyncio.timeout(self._seconds + _TO_TELL):
            return await self._raw.fetch(query, *values)  # type: ignore[no-any-return]

    async def value(self, query: str, *values: Any) -> Any:
        """Run a statement and return the first value of its first row; None if there is none."""
        rows = await self.fetch(query, *values)
        return rows[0][0] if rows else None

    async def close(self) -> None:
        """Say goodbye, or hang up."""
        try:
            async with asyncio.timeout(_TO_TELL):
                await self._raw.close()
        except Exception:  # noqa: BLE001 - then it is closed without
            self._raw.terminate()

    @property
    def _seconds(self) -> float:
        """How long the next answer may take."""
        return self._limit.left if self._full else min(self._limit.left, self._patience)


async def examine(
    settings: PoolSettings, tables: Tables, *, patience: float, seconds: float, full: bool
) -> list[Finding]:
    """Look at a database.

    Args:
        settings: How to connect.
        tables: Where the tables are.
        patience: How long the server may wait for others, and, unless it is to look at everything,
            take for each answer.
        seconds: How long all may take.
        full: Whether the indexes are checked (with the extension amcheck), and every message read.
    """
    limit = TimeLimit(seconds)
    try:
        async with asyncio.timeout(limit.left):
            raw = await connect(
                **settings.options, timeout=settings.connect_timeout, statement_cache_size=0
            )
    except Exception as error:  # noqa: BLE001 - whatever it is, there is no connection
        advice = "start the server, or mend the address, the user or the password"
        return [problem("server", str(unreachable(error, settings.name)), advice)]
    watch(raw)
    connection = _Asking(raw, limit, patience, full=full)
    try:
        every = _all(connection, settings.name, tables, limit, patience, full=full)
        return [finding async for finding in every]
    finally:
        await connection.close()


async def _all(
    connection: _Asking,
    name: str,
    tables: Tables,
    limit: TimeLimit,
    patience: float,
    *,
    full: bool,
) -> AsyncIterator[Finding]:
    try:
        await connection.begin()
        async for finding in _database(connection, name, tables, limit, full=full):
            yield finding
        await connection.fetch("ROLLBACK")
    except Exception as error:  # noqa: BLE001 - that is a finding too
        yield limit.finding() if limit.is_over else _failed(error, name, patience)


def _failed(error: Exception, name: str, seconds: float) -> Finding:
    """What kept the rest from being looked at."""
    failure = typed_error(error, name)
    if isinstance(failure, StorageBusyError):
        return problem("storage", f"{failure}; {seconds:g} seconds were given", _BUSY)
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return problem("storage", str(failure), _GRANT)
    return problem("storage", str(failure), "no more was looked at; do so when that is mended")


async def _database(
    connection: _Asking, name: str, tables: Tables, limit: TimeLimit, *, full: bool
) -> AsyncIterator[Finding]:
    limit.at = "the server"
    number = int(await connection.value("SHOW server_version_num"))
    version = await connection.value("SHOW server_version")
    if number < _OLDEST:
        yield problem("server", f"PostgreSQL {version}", "use version 13 or newer")
    else:
        yield ok("server", f"{name}, PostgreSQL {version}")
    for finding in await durability(connection, tables):
        yield finding
    limit.at = "the schema"
    try:
        schema = await find_version(connection, tables, name)
    except StorageVersionError as error:
        yield problem("schema", str(error), "upgrade the package")
        return
    except StorageCorruptError as error:
        yield problem("schema", str(error), "make a copy of what is left before anything else")
        return
    yield await _schema(connection, tables, schema)
    if not schema:
        return
    if schema == len(MIGRATIONS):
        yield await _function(connection, tables)
        yield await _objects(connection, tables)
    yield await _access(connection, tables)
    limit.at = "the figures of the sessions"
    async for finding in _tables(connection, tables):
        yield finding
    if full:
        async for finding in _readable(connection, tables, limit):
            yield finding
        limit.at = "the indexes"
        yield await _amcheck(connection, tables)


async def _objects(connection: _Asking, tables: Tables) -> Finding:
    """Whether tables, indexes and functions are as the newest version makes them."""
    different = [each async for each in differences(connection, tables)]
    if not different:
        return ok("objects", "tables, indexes and functions are as they were made")
    advice = (
        "find out who changed the schema; drop what is not of this package, and bring what is "
        "missing back from a backup"
    )
    return problem("objects", "; ".join(different), advice)


async def _access(connection: _Asking, tables: Tables) -> Finding:
    """Whether everybody may do what only this package's users should."""
    may_create, may_read = (await connection.fetch(_ACCESS, tables.schema, _plain_names(tables)))[0]
    if may_read:
        advice = "REVOKE ALL on them FROM PUBLIC"
        what = f"everybody who can connect may read or change {', '.join(may_read)}"
        return problem("access", what, advice)
    if may_create:
        advice = (
            f"REVOKE CREATE ON SCHEMA {tables.schema} FROM PUBLIC, or use a schema of your own "
            "(schema=...)"
        )
        what = f"everybody who can connect may create objects in the schema {tables.schema!r}"
        return warning("access", what, advice)
    return ok("access", "nobody has rights that were not granted to them")


async def durability(connection: Any, tables: Tables) -> list[Finding]:
    """What there is to say of whether the server keeps what it acknowledged, if it is killed."""
    rows = await connection.fetch(_DURABILITY, tables.schema, _plain_names(tables))
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


async def _schema(connection: _Asking, tables: Tables, version: int) -> Finding:
    newest = len(MIGRATIONS)
    if version == newest:
        return ok("schema", f"version {version}")
    what = f"version {version}, the newest is {newest}" if version else "the tables are not there"
    row = (await connection.fetch(_PROSPECTS, tables.schema, _plain_names(tables)))[0]
    encoding, is_read_only, may_make = row
    if encoding != "UTF8":
        advice = "create a database with the encoding UTF8"
        return problem("schema", f"{what}, and the encoding is {encoding}", advice)
    if is_read_only:
        advice = "use the primary server, or set default_transaction_read_only = off"
        return problem("schema", f"{what}, and the server is read-only", advice)
    if not may_make:
        advice = (
            "have the owner of the tables, or of what they are to be in, use the storage first; or "
            f"GRANT CREATE ON the schema {tables.schema!r}, or on the database where it is missing"
        )
        return problem("schema", f"{what}, and this user may not change that", advice)
    if not version:
        advice = "nothing has to be done: they are made when the storage is used first"
        return warning("schema", f"{what} yet", advice)
    advice = "the next program that uses the database brings it to the newest version"
    return warning("schema", what, advice)


async def _function(connection: _Asking, tables: Tables) -> Finding:
    name = f"{tables.prefix}write_together"
    if await connection.value(_FUNCTION, tables.schema, name):
        return ok("function", name)
    advice = "restore it from a backup: without it many writes at once fail"
    return problem("function", f"{name} is gone, or this user may not use it", advice)


def _plain_names(tables: Tables) -> list[str]:
    return [tables.prefix + each for each in ("sessions", "messages", "turns")]


def _names(tables: Tables) -> list[str]:
    return [tables.sql(each) for each in ("{sessions}", "{messages}", "{turns}")]


async def _tables(connection: _Asking, tables: Tables) -> AsyncIterator[Finding]:
    rows = await connection.fetch(tables.sql(_MISCOUNTED))
    lost = [await connection.value(tables.sql(each)) for each in (_LOST_MESSAGES, _LOST_NOTES)]
    yield figures(LogFigures([from_text(row[0]) for row in rows], *lost))
    leases = await connection.fetch(tables.sql(_LEASES))
    now = await connection.value(f"SELECT {_NOW}")
    texts = [(from_text(name), owner and from_text(owner), ends) for name, owner, ends in leases]
    yield await in_thread(open_turns, texts, now)
    broken = [row[0] for row in await connection.fetch(_BROKEN_INDEXES, _names(tables))]
    if broken:
        yield problem("indexes", f"not valid: {', '.join(broken)}", "REINDEX them")
    else:
        yield ok("indexes", "all are valid")
    dead, live = (await connection.fetch(_DEAD, _names(tables)))[0]
    if dead > 100_000 and dead > live:
        advice = "see that autovacuum is on and gets through, or run VACUUM"
        yield warning("dead rows", f"{dead} beside {live} live ones", advice)
    else:
        yield ok("dead rows", f"{dead} beside {live} live ones")


async def _readable(
    connection: _Asking, tables: Tables, limit: TimeLimit
) -> AsyncIterator[Finding]:
    """Whether every session, note on a turn, and message can be read."""
    readings = [
        (Reading("sessions", _RESCUE), f"{FIELDS}, key", "{sessions}", _to_context),
        (Reading("notes", _RESCUE), f"{NOTE_COLUMNS}, session", "{turns}", decode_note),
        (Reading("messages", _RESCUE), f"{MESSAGE_COLUMNS}, session", "{messages}", decode_message),
    ]
    cut_short: Exception | None = None
    for reading, columns, table, decode in readings:
        limit.at = f"the {reading.check}"
        query = tables.sql(f"SELECT {columns} FROM {table}")
        try:
            async for *row, place in _rows(connection, query):
                reading.look(f"session {place} #{row[0]}", decode, tuple(row))
                limit.at = f"the {reading.check}, of which {reading.count} were read"
        except Exception as error:  # noqa: BLE001 - raised when it has been told what was read
            cut_short = error
        yield reading.finding(is_whole=cut_short is None)
        if cut_short is not None:
            raise cut_short


async def _rows(connection: _Asking, query: str) -> AsyncIterator[Any]:
    await connection.fetch(f"DECLARE langswarm_rows CURSOR FOR {query}")
    while rows := await connection.fetch(f"FETCH {_PORTION} FROM langswarm_rows"):
        for row in rows:
            yield row
    await connection.fetch("CLOSE langswarm_rows")


def _to_context(row: tuple[Any, ...]) -> SessionContext:
    return to_record(row).to_context()


async def _amcheck(connection: _Asking, tables: Tables) -> Finding:
    """Whether the indexes are sound, where the server has what tells it."""
    place = await connection.value(_AMCHECK)
    if place is None:
        return ok("amcheck", "the extension is not installed, so the indexes were not looked into")
    try:
        for row in await connection.fetch(_INDEXES, _names(tables)):
            await connection.fetch(f"SELECT {place}.bt_index_check($1::regclass)", row[0])
    except asyncpg.InsufficientPrivilegeError:
        return ok("amcheck", "this user may not use it, so the indexes were not looked into")
    except asyncpg.PostgresError as error:
        if not state_of(error).startswith("XX"):
            raise
        return problem("amcheck", str(error), "REINDEX the index; find out what the disk did")
    return ok("amcheck", "the indexes are sound")
