"""Sessions in PostgreSQL: durable, shared by any number of processes on any number of machines."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import urlencode

from langswarm_session._bulk import LONGEST_PAUSE, collector_paused
from langswarm_session._validation import check_count, check_seconds
from langswarm_session.errors import (
    InvalidInputError,
    MissingDependencyError,
    SessionError,
    StorageUnavailableError,
)
from langswarm_session.models import (
    SessionMessage,
    SessionStatus,
    Turn,
)
from langswarm_session.records import (
    LogMeasure,
    NewSession,
    SessionPage,
    SessionRecord,
    SessionRef,
    StorageHealth,
)
from langswarm_session.storage import rules
from langswarm_session.storage.base import StorageBase
from langswarm_session.storage.calls import in_thread
from langswarm_session.storage.decisions import Write, is_plain
from langswarm_session.storage.measuring import measure_span
from langswarm_session.storage.naming import names_session
from langswarm_session.storage.postgres.address import parse_address
from langswarm_session.storage.rows import (
    AT_ONCE,
    MESSAGE_COLUMNS,
    SYSTEM,
    decode_messages,
    dump_json,
)

try:
    from langswarm_session.storage.postgres import transactions as log
    from langswarm_session.storage.postgres.batches import WriteCall
    from langswarm_session.storage.postgres.engine import PostgresEngine
    from langswarm_session.storage.postgres.password import for_driver
    from langswarm_session.storage.postgres.plans import decide
    from langswarm_session.storage.postgres.pool import Connection, PoolSettings
    from langswarm_session.storage.postgres.rows import (
        EncodedMessages,
        decode_long,
        to_record,
        to_text,
    )
    from langswarm_session.storage.postgres.schema import MIGRATIONS, Tables
    from langswarm_session.storage.postgres.statements import FIELDS
except ModuleNotFoundError as error:
    if error.name != "asyncpg":
        raise
    raise MissingDependencyError(
        "PostgreSQL needs asyncpg; install it with: pip install 'langswarm-session[postgres]'"
    ) from error

if TYPE_CHECKING:
    from langswarm_session.archive import SessionArchive, TurnNote
    from langswarm_session.findings import Finding
    from langswarm_session.search import Search, SearchPage

_MESSAGES = (
    f"SELECT {MESSAGE_COLUMNS} FROM {{messages}} AS message "
    f"WHERE session = (SELECT key FROM {{sessions}} WHERE {log.OWN}) "
)
_ANSWERED = (
    "AND NOT EXISTS (SELECT 1 FROM {turns} AS turn WHERE turn.session = message.session "
    # Without OFFSET 0 each message is compared with all turns that were not answered.
    "AND turn.turn = message.turn AND NOT turn.answered OFFSET 0) "
)
_LIMIT = " LIMIT (SELECT ${}::bigint)"
"""How many; NULL for all. As the planner cannot know it, it reads by the index, which has the
order; it would sort a whole log for its end where it takes the log to be short."""

_OF_LOG = "FROM {messages} WHERE session = one.key "
_MEASURE = (
    f"SELECT key, message_count, (SELECT seq {_OF_LOG} ORDER BY seq LIMIT 1), "
    f"(SELECT seq {_OF_LOG} ORDER BY seq DESC LIMIT 1), "
    # As the index of them says it.
    f"ARRAY(SELECT seq {_OF_LOG} AND seq > $4 "
    """AND extra LIKE '%"tool_result"%"tool_result"%' ORDER BY seq) """
    f"FROM {{sessions}} AS one WHERE {log.OWN}"
)
_COUNT = (
    "SELECT count(*), (SELECT seq FROM {messages} WHERE session = $1 AND seq > $2 "
    "ORDER BY seq OFFSET $3 LIMIT 1) FROM {messages} WHERE session = $1 AND seq > $2"
)

_GIVEN = (
    "unnest($2::text[], $3::text[], $4::bigint[], $5::text[]) "
    "AS given (session_id, user_id, creation, turn_token)"
)
"""Leases, as `_of_leases` gives them."""

_RENEW = (
    f"WITH held AS (SELECT key, turn_token FROM {{sessions}} JOIN {_GIVEN} "
    "USING (session_id, user_id, turn_token) WHERE key = coalesce(creation, key)), "
    # A session that another transaction is at is renewed the next time: the others must not wait.
    "free AS (SELECT s.key FROM {sessions} AS s JOIN held USING (key, turn_token) "
    "FOR UPDATE OF s SKIP LOCKED), "
    "renewed AS (UPDATE {sessions} AS s SET turn_expires = "
    "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint + $1 "
    "FROM free WHERE s.key = free.key) "
    "SELECT turn_token FROM held"
)
_REQUEST_CANCEL = (
    "UPDATE {sessions} AS s SET turn_owner = CASE WHEN starts_with(s.turn_owner, $1) "
    f"THEN s.turn_owner ELSE $1 || s.turn_owner END FROM {_GIVEN} "
    "WHERE s.session_id = given.session_id AND s.user_id = given.user_id "
    "AND s.turn_token = given.turn_token AND s.key = coalesce(given.creation, s.key) "
    "RETURNING s.turn_token"
)
_CANCEL_REQUESTED = (
    f"SELECT turn_token FROM {{sessions}} JOIN {_GIVEN} "
    "USING (session_id, user_id, turn_token) "
    "WHERE key = coalesce(creation, key) AND starts_with(turn_owner, $1)"
)
_HEALTH = (
    "SELECT count(*), coalesce(sum(message_count), 0)::bigint, "
    "(SELECT sum(pg_total_relation_size(name::regclass))::bigint FROM unnest($1::text[]) AS name) "
    "FROM {sessions}"
)
_LONGEST = 2_147_483.0
"""The longest time that may be given, in seconds: the server counts milliseconds in 31 bits."""

T = TypeVar("T")
R = TypeVar("R")


class PostgresSessionStorage(StorageBase):
    """Sessions in a PostgreSQL database, version 13 or newer.

    The first use connects and creates what is missing. Any number of storages, threads, event
    loops, processes and machines may use one database. A server that restarts is waited for; what
    was under way is done again if it can be told that it was not done.

    Works through pgbouncer in transaction mode, and finds that out by itself.

    Args:
        dsn: The address, ``postgresql://user:password@host:port/database?sslmode=...``. What it
            leaves out comes from the environment, as with psql: ``PGHOST``, ``PGPORT``, ``PGUSER``,
            ``PGPASSWORD``, ``PGPASSFILE``, ``PGDATABASE``, ``PGTARGETSESSIONATTRS`` and
            ``PGSSLMODE`` with those about certificates; of the others, those that ask for more
            safety or name a service are refused. Its options are those of libpq. Without effect are
            those about keepalives, load balancing and compression, ``fallback_application_name``,
            and what is optional of channel binding, GSS encryption, ``sslcertmode`` and ``sslsni``;
            what could not be done is refused. Any other sets a parameter of the server.
        schema: The schema of the tables; it is created if need be. None: the address may say so
            (``?schema=x&table_prefix=y``); else it is ``public``.
        table_prefix: What the names of the tables begin with. None: the address may say so; else it
            is ``langswarm_``.
        password: The password, or a function that returns it at each connection, on a thread of
            its own if it is no coroutine function; goes before the one of the address.
        min_connections: How many connections stay open though they are idle.
        max_connections: How many connections may be open, at least 2: one is for what cannot wait.
        timeout: How long a call may take in all, in seconds; then it raises `StorageBusyError`, a
            second later at most, which is for telling the server.
        max_waiting: How many calls may wait at once; further ones raise `StorageBusyError`.
        max_waiting_size: How many characters of messages may wait to be stored, likewise; one call
            alone may have more.
        connect_timeout: How long to try to connect before a call fails, in seconds. None: the
            address may say so; else it is 10.
        idle_timeout: How long a connection may be idle before it is closed, in seconds.
        prepared_statements: Whether statements may be prepared; None: unless there is a pooler in
            between.

    Raises:
        InvalidInputError: If an argument cannot be used.
    """

    name: ClassVar[str] = "postgres"

    def __init__(
        self,
        dsn: str | None = None,
        *,
        schema: str | None = None,
        table_prefix: str | None = None,
        password: str | Callable[[], str | Awaitable[str]] | None = None,
        min_connections: int = 1,
        max_connections: int = 10,
        timeout: float = 30.0,
        max_waiting: int = 10_000,
        max_waiting_size: int = 256_000_000,
        connect_timeout: float | None = None,
        idle_timeout: float = 300.0,
        prepared_statements: bool | None = None,
    ) -> None:
        address = parse_address(dsn)
        self._address = address.name
        self._tables = Tables(
            _first(schema, address.schema, "public"),
            _first(table_prefix, address.table_prefix, "langswarm_"),
        )
        if not isinstance(prepared_statements, bool | None):
            raise InvalidInputError(
                f"prepared_statements must be True, False or None, not {prepared_statements!r}"
            )
        secret = None if password is None else for_driver(password, address.name)
        options = {"dsn": address.dsn, "password": secret}
        wait = _first(connect_timeout, address.connect_timeout, 10.0)
        most = check_count(max_connections, "max_connections", least=2)
        settings = self._settings = PoolSettings(
            options={name: value for name, value in options.items() if value is not None},
            name=address.name,
            min_connections=check_count(min_connections, "min_connections", least=0, most=most),
            max_connections=most,
            connect_timeout=check_seconds(wait, "connect_timeout", above=0, most=_LONGEST),
            idle_timeout=check_seconds(idle_timeout, "idle_timeout", above=0, most=_LONGEST),
            prepared_statements=prepared_statements,
        )
        self._timeout = check_seconds(timeout, "timeout", above=0, most=_LONGEST)
        self._engine = PostgresEngine(
            settings,
            self._tables,
            timeout=self._timeout,
            max_waiting=check_count(max_waiting, "max_waiting", least=1),
            max_waiting_size=check_count(max_waiting_size, "max_waiting_size", least=1),
        )
        # Also at the interpreter's exit, so that a forgotten close() loses nothing.
        weakref.finalize(self, self._engine.close)

    def __repr__(self) -> str:
        where = f"schema={self._tables.schema!r}, table_prefix={self._tables.prefix!r}"
        return f"{type(self).__name__}({self._address!r}, {where})"

    @property
    def address(self) -> str:
        """See `ISessionStorage.address`."""
        tables = {"schema": self._tables.schema, "table_prefix": self._tables.prefix}
        return f"{self._address}?{urlencode(tables)}"

    async def create_session(self, session: NewSession) -> SessionRecord:
        """See `ISessionStorage.create_session`."""
        context = dump_json(dict(session.context))

        async def job(connection: Connection) -> SessionRecord:
            return (await log.create(connection, self._tables, session, context)).record

        return await self._engine.transact(job)

    @names_session
    async def find_session(self, session_id: str, *, user_id: str | None = None) -> SessionRecord:
        """See `ISessionStorage.find_session`."""
        return await self._engine.read(
            lambda connection: log.find(connection, self._tables, session_id, user_id)
        )

    @names_session
    async def get_session(self, ref: SessionRef) -> SessionRecord:
        """See `ISessionStorage.get_session`."""

        async def job(connection: Connection) -> SessionRecord:
            return (await log.load(connection, self._tables, ref, lock=False)).record

        return await self._engine.read(job)

    async def list_sessions(
        self,
        *,
        user_id: str | None = None,
        status: SessionStatus | None = None,
        inactive_since: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> SessionPage:
        """See `ISessionStorage.list_sessions`."""
        values: list[Any] = []

        def given(value: object) -> str:
            values.append(value)
            return f"${len(values)}"

        where = ["true"]
        if user_id is not None:
            where.append(f"user_id = {given(to_text(user_id))}")
        if status is not None:
            # Not as a value: the planner would not know that the index of the active ones will do.
            where.append(f"status = '{status.value}'")
        if inactive_since is not None:
            where.append(f"last_activity < {given(inactive_since)}")
            where.append(f"active_minute <= {given(inactive_since // rules.MINUTE)}")
        if cursor is not None:
            activity, last_id = rules.parse_cursor(cursor)
            place = f"{given(activity)}, {given(to_text(last_id))}"
            where.append(f"(last_activity, session_id) < ({place})")
            where.append(f"active_minute <= {given(activity // rules.MINUTE)}")
        query = self._tables.sql(
            f"SELECT {FIELDS} FROM {{sessions}} WHERE {' AND '.join(where)} "
            "ORDER BY active_minute DESC, last_activity DESC, session_id DESC "
            f"LIMIT {given(limit + 1)}"
        )
        rows = await self._engine.read(lambda connection: connection.fetch(query, *values))
        records = [to_record(row) for row in rows[:limit]]
        more = bool(records) and len(rows) > limit
        return SessionPage(records, rules.make_cursor(records[-1]) if more else None)

    @names_session
    async def delete_session(
        self, ref: SessionRef, *, expected_revision: int | None = None
    ) -> None:
        """See `ISessionStorage.delete_session`."""

        async def job(connection: Connection) -> None:
            session = await self._load(connection, ref)
            rules.check_revision(session.record, expected_revision)
            await session.remove()

        await self._engine.transact(job)

    @names_session
    async def write(self, write: Write[R]) -> R:
        """See `StorageBase.write`."""
        batch = EncodedMessages(write.messages)
        EncodedMessages(write.changed())  # refuses what cannot be stored

        async def job(connection: Connection, unclear: bool) -> R:
            return await decide(connection, self._tables, write, unclear=unclear)

        call = WriteCall(write, batch, job) if is_plain(write) else None
        if call is None:
            return await self._engine.transact(lambda connection: job(connection, unclear=False))
        outcome = await self._engine.write(call)
        result: R = write.result(outcome) if isinstance(outcome, SessionRecord) else outcome
        return result

    async def renew_turns(self, tokens: Mapping[str, SessionRef], seconds: float) -> set[str]:
        """See `ISessionStorage.renew_turns`."""
        return await self._of_leases(_RENEW, tokens, int(seconds * 1_000_000))

    async def request_cancel(self, tokens: Mapping[str, SessionRef]) -> set[str]:
        """See `ISessionStorage.request_cancel`."""
        return await self._of_leases(_REQUEST_CANCEL, tokens, rules.CANCEL_MARK)

    async def cancel_requested(self, tokens: Mapping[str, SessionRef]) -> set[str]:
        """See `ISessionStorage.cancel_requested`."""
        return await self._of_leases(_CANCEL_REQUESTED, tokens, rules.CANCEL_MARK)

    async def _of_leases(
        self, query: str, tokens: Mapping[str, SessionRef], value: object
    ) -> set[str]:
        """Run a query about leases; return the tokens that it returns.

        Args:
            query: It takes the value, and of each lease the session's id, owner and creation, and
                the token.
            tokens: Sessions by lease token.
            value: What else the query takes.
        """
        held = {to_text(token): token for token in tokens}
        sessions = zip(*map(log.own, tokens.values()), strict=True) if tokens else ((), (), ())
        values = (value, *map(list, sessions), list(held))
        rows = await self._engine.read(
            lambda connection: connection.fetch(self._tables.sql(query), *values), is_urgent=True
        )
        return {held[row[0]] for row in rows}

    @names_session
    async def get_messages(
        self,
        ref: SessionRef,
        *,
        limit: int | None = None,
        before: int | None = None,
        after: int | None = None,
        answered_only: bool = False,
        system_only: bool = False,
    ) -> list[SessionMessage]:
        """See `ISessionStorage.get_messages`."""
        query = _MESSAGES + (_ANSWERED if answered_only else "")
        values: list[Any] = [*log.own(ref)]
        if system_only:
            query += f"AND role = {SYSTEM} "
        if before is not None:
            values.append(before)
            query += f"AND seq < ${len(values)} "
        if after is not None:
            values.append(after)
            query += f"AND seq > ${len(values)} "
        newest = limit is not None and after is None
        query += "ORDER BY seq DESC" if newest else "ORDER BY seq"
        values.append(limit)
        query = self._tables.sql(query + _LIMIT.format(len(values)))

        fetch = _fetch_many if limit is None or limit > AT_ONCE else Connection.fetch

        async def job(connection: Connection) -> list[Any]:
            rows = await fetch(connection, query, *values)
            if not rows:
                await log.load(connection, self._tables, ref, lock=False)
            return rows

        rows = await self._engine.read(job)
        if newest:
            rows.reverse()
        if len(rows) <= AT_ONCE:
            return decode_messages(rows)
        # So that no event loop waits for them.
        return await in_thread(decode_long, rows)

    @names_session
    async def measure_log(
        self, ref: SessionRef, *, after: int = 0, skip: int | None = None
    ) -> LogMeasure:
        """See `ISessionStorage.measure_log`."""

        async def job(connection: Connection) -> LogMeasure:
            query = self._tables.sql(_MEASURE)
            rows = await connection.fetch(query, *log.own(ref), after)
            if not rows:
                raise rules.not_found(ref.session_id)
            place, total, first, last, several = rows[0]
            span = measure_span(first, last, total, after, skip)
            if span is None:
                query = self._tables.sql(_COUNT)
                [span] = await connection.fetch(query, place, after, skip or 0)
            count, at = span
            return LogMeasure(count, None if skip is None else at, several)

        return await self._engine.read(job)

    @names_session
    async def get_turns(self, ref: SessionRef, *, limit: int = 100) -> list[Turn]:
        """See `ISessionStorage.get_turns`."""

        async def job(connection: Connection) -> list[Turn]:
            session = await log.load(connection, self._tables, ref, lock=False)
            return await session.select_turns(limit)

        return await self._engine.transact(job, "REPEATABLE READ")

    @names_session
    async def fork_session(
        self, ref: SessionRef, session: NewSession, *, at: int | None = None
    ) -> SessionRecord:
        """See `ISessionStorage.fork_session`."""
        context = dump_json(dict(session.context))

        async def job(connection: Connection) -> SessionRecord:
            source = await log.load(connection, self._tables, ref, lock=False)
            target = await log.create(connection, self._tables, session, context)
            await source.copy_to(target, at)
            return target.record

        # One view of the source, which others may go on writing to meanwhile.
        return await self._engine.transact(job, "REPEATABLE READ")

    @names_session
    async def get_turn_notes(
        self, ref: SessionRef, *, after: int = 0, limit: int = 500
    ) -> list[TurnNote]:
        """See `ISessionStorage.get_turn_notes`."""
        # What a first turn does not need is loaded when it is used, here and below.
        from langswarm_session.storage.postgres.restore import turn_notes

        return await self._engine.read(
            lambda connection: turn_notes(connection, self._tables, ref, after, limit)
        )

    async def restore_session(self, archive: SessionArchive) -> SessionRecord:
        """See `ISessionStorage.restore_session`."""
        from langswarm_session.storage.postgres.restore import restore

        return await self._engine.transact(
            lambda connection: restore(connection, self._tables, archive)
        )

    async def scrub(self) -> None:
        """See `ISessionStorage.scrub`: the server frees the space, which is written over later."""
        tables = [self._tables.sql(each) for each in ("{sessions}", "{messages}", "{turns}")]

        async def job(connection: Connection) -> None:
            # A table that is not this user's is skipped, which the server only warns of.
            skipped = [
                warning
                for table in tables
                for warning in await connection.warnings(f"VACUUM {table}")
            ]
            if skipped:
                raise StorageUnavailableError(
                    f"{self._address}: what was deleted is still in the tables' files; run VACUUM "
                    f"on {', '.join(tables)} as their owner ({'; '.join(skipped)})"
                )

        await self._engine.read(job, is_bare=True)

    async def search_messages(self, search: Search) -> SearchPage:
        """See `ISessionStorage.search_messages`."""
        from langswarm_session.storage.postgres.search import search_messages

        return await self._engine.read(
            lambda connection: search_messages(connection, self._tables, search)
        )

    async def examine(self, *, full: bool = False, seconds: float = 300.0) -> list[Finding]:
        """See `ISessionStorage.examine`. On a connection of its own, and makes no tables."""
        from langswarm_session.storage.postgres.examine import examine

        def look() -> list[Finding]:
            # On an event loop of its own, as the driver reads files where it connects.
            return asyncio.run(
                examine(
                    self._settings, self._tables, patience=self._timeout, seconds=seconds, full=full
                )
            )

        return await in_thread(look)

    async def health(self) -> StorageHealth:
        """See `ISessionStorage.health`."""
        from langswarm_session.findings import Level
        from langswarm_session.storage.postgres.examine import durability

        names = [self._tables.sql(each) for each in ("{sessions}", "{messages}", "{turns}")]

        async def job(connection: Connection) -> tuple[list[Any], list[Finding]]:
            rows = await connection.fetch(self._tables.sql(_HEALTH), names)
            return rows[0], await durability(connection, self._tables)

        started = time.perf_counter()
        try:
            (sessions, messages, size), found = await self._engine.read(job)
        except SessionError as error:
            return StorageHealth(ok=False, backend=self.name, detail=str(error))
        weak = [f"{each.check}: {each.message}" for each in found if each.level is Level.PROBLEM]
        return StorageHealth(
            ok=True,
            backend=self.name,
            sessions=sessions,
            messages=messages,
            size_bytes=size,
            latency_seconds=time.perf_counter() - started,
            schema_version=len(MIGRATIONS),
            detail="; ".join(weak) or None,
        )

    async def close(self) -> None:
        """See `ISessionStorage.close`."""
        await in_thread(self._engine.close)

    async def _load(self, connection: Connection, ref: SessionRef) -> log.Log:
        return await log.load(connection, self._tables, ref)


async def _fetch_many(connection: Connection, query: str, *values: Any) -> list[Any]:
    """Rows that may be a whole log, which the collector would go over as they come in."""
    with ExitStack() as pause:
        pause.enter_context(collector_paused())
        # A server that does not answer shall not keep it from its work.
        limit = asyncio.get_running_loop().call_later(LONGEST_PAUSE, pause.close)
        try:
            return await connection.fetch(query, *values)
        finally:
            limit.cancel()


def _first(given: T | None, said: T | None, otherwise: T) -> T:
    """An argument; what the address says of it if it is not given."""
    if given is not None:
        return given
    return otherwise if said is None else said
