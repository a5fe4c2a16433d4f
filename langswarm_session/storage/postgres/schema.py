"""The PostgreSQL schema, and how an older one becomes a newer one.

The version is a row of a table of ours. Whoever finds an older one brings it up to date under an
advisory lock, in one transaction, so that any number of processes may start at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from langswarm_session.errors import (
    InvalidInputError,
    StorageCorruptError,
    StorageUnavailableError,
    StorageVersionError,
)
from langswarm_session.storage.postgres.search_path import SET_PATH

if TYPE_CHECKING:
    from langswarm_session.storage.postgres.pool import Connection

_LONGEST_NAME = 63
_LONGEST_SUFFIX = len("messages_of_system")
_TABLES = ("messages", "schema_version", "sessions", "turns")

_BEGIN = f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = 0; {SET_PATH}"

_FIND_TABLES = (
    "SELECT c.relname::pg_catalog.text, r.rolname::pg_catalog.text, "
    # Whether it belongs to somebody who is trusted: whoever this user stands for, who owns the
    # schema or the database, a superuser, or anybody where not everybody may create tables.
    "pg_catalog.pg_has_role(c.relowner, 'USAGE') OR r.rolsuper "
    "OR c.relowner OPERATOR(pg_catalog.=) n.nspowner "
    "OR c.relowner OPERATOR(pg_catalog.=) (SELECT datdba FROM pg_catalog.pg_database "
    "WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) "
    "OR NOT pg_catalog.has_schema_privilege('public', n.oid, 'CREATE') "
    "FROM pg_catalog.pg_class AS c "
    "JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace "
    "JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) c.relowner "
    # As texts: for what else it is given, the driver first asks for its type, by names of its own.
    "WHERE n.nspname::pg_catalog.text OPERATOR(pg_catalog.=) $1::pg_catalog.text "
    "AND c.relname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.text[])"
)
"""Through a pooler this is asked before any path is set. Not by to_regclass(): within a transaction
it may remember what was not there a moment ago."""

MIGRATIONS: list[list[str]] = [
    # 1: each write moves its session's row, so the row has room to be written again on its page,
    # and what is indexed of its activity is the minute only: then the indexes need no new entry.
    # Names are compared byte by byte, which no upgrade of the system's languages can change.
    [
        """
        CREATE TABLE {sessions} (
            key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            session_id text COLLATE "C" NOT NULL UNIQUE,
            user_id text COLLATE "C" NOT NULL,
            provider text NOT NULL,
            model text NOT NULL,
            backend text NOT NULL,
            status text NOT NULL,
            context text NOT NULL,
            provider_state text,
            created_at bigint NOT NULL,
            last_activity bigint NOT NULL,
            revision bigint NOT NULL DEFAULT 0,
            last_seq bigint NOT NULL DEFAULT 0,
            message_count bigint NOT NULL DEFAULT 0,
            turn_count bigint NOT NULL DEFAULT 0,
            input_tokens bigint NOT NULL DEFAULT 0,
            output_tokens bigint NOT NULL DEFAULT 0,
            cached_tokens bigint NOT NULL DEFAULT 0,
            reasoning_tokens bigint NOT NULL DEFAULT 0,
            errors bigint NOT NULL DEFAULT 0,
            turn_id bigint,
            turn_token text COLLATE "C",
            turn_owner text,
            turn_expires bigint,
            active_minute bigint NOT NULL GENERATED ALWAYS AS (last_activity / 60000000) STORED
        ) WITH (fillfactor = 60)
        """,
        "CREATE INDEX {sessions_by_user} ON {sessions} (user_id, active_minute)",
        "CREATE INDEX {sessions_by_activity} ON {sessions} (active_minute)",
        """
        CREATE TABLE {messages} (
            session bigint NOT NULL,
            seq bigint NOT NULL,
            turn bigint NOT NULL,
            timestamp bigint NOT NULL,
            role smallint NOT NULL,
            id bytea NOT NULL,
            content text,
            extra text,
            PRIMARY KEY (session, seq)
        )
        """,
        # Ids rise with time, so that new ones land on one page.
        "CREATE UNIQUE INDEX {messages_by_id} ON {messages} (id, session)",
        # Role 2 is "system": such messages stay in the window, however old they are.
        "CREATE INDEX {messages_of_system} ON {messages} (session, seq) WHERE role = 2",
        # Only turns that say more than "complete" have a row here.
        """
        CREATE TABLE {turns} (
            session bigint NOT NULL,
            turn bigint NOT NULL,
            status text NOT NULL,
            answered boolean NOT NULL,
            key text COLLATE "C",
            digest text,
            error text,
            finished_at bigint,
            PRIMARY KEY (session, turn)
        )
        """,
        "CREATE UNIQUE INDEX {turns_by_key} ON {turns} (session, key) WHERE key IS NOT NULL",
        # Stores many sessions' turns in one go, each if its session is free or its lease is held.
        # One row comes back for each: the session afterwards; all NULL if it was refused; with the
        # key 0 if another transaction has it (or it is not there) and there was to be no waiting.
        # An array that would hold nothing but NULL may be NULL itself.
        # Role 1 is "assistant". The plans are the same whatever the values, so they are made once
        # for a connection.
        """
        CREATE FUNCTION {write}(
            may_wait boolean,
            ids text[], tokens text[], next_tokens text[], owners text[], leases bigint[],
            revisions bigint[], sizes int[], inputs bigint[], outputs bigint[], cached bigint[],
            reasoning bigint[], states text[], statuses text[], answers boolean[],
            problems text[], keys text[], digests text[],
            roles smallint[], contents text[], times bigint[], message_ids bytea[], extras text[]
        ) RETURNS SETOF {sessions} LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
        AS $langswarm$
        #variable_conflict use_column
        DECLARE
            moved {sessions};
            moment bigint;
            places bigint[] := '{{}}';
            seqs bigint[] := '{{}}';
            in_turns bigint[] := '{{}}';
            free boolean[];
        BEGIN
            IF NOT may_wait THEN
                WITH locked AS MATERIALIZED (
                    SELECT session_id FROM {sessions} WHERE session_id = ANY (ids)
                    FOR UPDATE SKIP LOCKED
                )
                SELECT array_agg(session_id IS NOT NULL ORDER BY n) INTO free
                FROM unnest(ids) WITH ORDINALITY AS wanted (id, n)
                    LEFT JOIN locked ON session_id = id;
            END IF;
            FOR i IN 1 .. cardinality(ids) LOOP
                moved := NULL;
                IF NOT may_wait AND NOT free[i] THEN
                    moved.key := 0;
                    places := places || array_fill(NULL::bigint, ARRAY[sizes[i]]);
                    seqs := seqs || array_fill(NULL::bigint, ARRAY[sizes[i]]);
                    in_turns := in_turns || array_fill(NULL::bigint, ARRAY[sizes[i]]);
                    RETURN NEXT moved;
                    CONTINUE;
                END IF;
                moment := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
                UPDATE {sessions} AS s SET
                    revision = s.revision + 1,
                    last_activity = greatest(s.last_activity, moment),
                    last_seq = s.last_seq + sizes[i],
                    message_count = s.message_count + sizes[i],
                    turn_count = s.turn_count + (tokens[i] IS NULL)::int,
                    input_tokens = s.input_tokens + coalesce(inputs[i], 0),
                    output_tokens = s.output_tokens + coalesce(outputs[i], 0),
                    cached_tokens = s.cached_tokens + coalesce(cached[i], 0),
                    reasoning_tokens = s.reasoning_tokens + coalesce(reasoning[i], 0),
                    errors = s.errors + coalesce((statuses[i] = 'failed')::int, 0),
                    provider_state = coalesce(states[i], s.provider_state),
                    turn_id = CASE WHEN leases[i] IS NULL THEN s.turn_id ELSE s.last_seq + 1 END,
                    turn_token = next_tokens[i],
                    turn_owner = CASE WHEN next_tokens[i] IS NOT NULL
                        THEN coalesce(owners[i], s.turn_owner) END,
                    turn_expires = CASE WHEN next_tokens[i] IS NOT NULL
                        THEN coalesce(moment + leases[i], s.turn_expires) END
                WHERE s.session_id = ids[i]
                    AND s.turn_token IS NOT DISTINCT FROM tokens[i]
                    AND (tokens[i] IS NOT NULL OR s.status IN ('active', 'error'))
                    AND s.revision = coalesce(revisions[i], s.revision)
                    AND (keys[i] IS NULL OR NOT EXISTS (SELECT 1 FROM {turns} AS t
                        WHERE t.session = s.key AND t.key = keys[i]))
                RETURNING s.* INTO moved;
                FOR n IN 1 .. sizes[i] LOOP
                    places := places || moved.key;
                    seqs := seqs || moved.last_seq - sizes[i] + n;
                    in_turns := in_turns || CASE WHEN tokens[i] IS NULL
                        THEN moved.last_seq - sizes[i] + 1 ELSE moved.turn_id END;
                END LOOP;
                IF moved.key IS NOT NULL AND keys[i] IS NOT NULL THEN
                    INSERT INTO {turns} (session, turn, status, answered, key, digest)
                    VALUES (moved.key, moved.last_seq - sizes[i] + 1, statuses[i], true,
                        keys[i], digests[i]);
                ELSIF moved.key IS NOT NULL AND statuses[i] = 'complete' THEN
                    UPDATE {turns} SET status = 'complete', answered = true, error = NULL,
                        finished_at = moment
                    WHERE session = moved.key AND turn = moved.turn_id;
                ELSIF moved.key IS NOT NULL AND statuses[i] IS NOT NULL THEN
                    INSERT INTO {turns} AS t (session, turn, status, answered, error, finished_at)
                    VALUES (moved.key, moved.turn_id, statuses[i],
                        coalesce(answers[i], false) OR EXISTS (SELECT 1 FROM {messages} AS m WHERE
                            m.session = moved.key AND m.seq >= moved.turn_id
                            AND m.turn = moved.turn_id AND m.role = 1),
                        problems[i], moment)
                    ON CONFLICT (session, turn) DO UPDATE SET status = excluded.status,
                        answered = excluded.answered, error = excluded.error,
                        finished_at = excluded.finished_at;
                END IF;
                RETURN NEXT moved;
            END LOOP;
            IF cardinality(places) > 0 THEN
                INSERT INTO {messages} (session, seq, turn, timestamp, role, id, content, extra)
                SELECT m.place, m.seq, m.turn, m.moment, m.role, m.id, m.content, m.extra
                FROM unnest(places, seqs, in_turns, times, roles, message_ids, contents, extras)
                    AS m (place, seq, turn, moment, role, id, content, extra)
                WHERE m.place IS NOT NULL;
            END IF;
        END
        $langswarm$
        """,
    ],
    # 2: what the function above does, for all writes at once, which takes the server little more
    # than half the time. No two of them may be to one session. Whoever may wait does so before the
    # statement, so that it sees what was committed meanwhile. The function above stays for those
    # processes that do not know this one yet. This one is left over where only the tables are
    # dropped, as it is none of theirs.
    [
        """
        CREATE OR REPLACE FUNCTION {write_together}(
            may_wait boolean,
            ids text[], tokens text[], next_tokens text[], owners text[], leases bigint[],
            revisions bigint[], sizes int[], inputs bigint[], outputs bigint[], caches bigint[],
            reasonings bigint[], states text[], statuses text[], answers boolean[],
            problems text[], keys text[], digests text[],
            writes int[], places int[],
            roles smallint[], contents text[], times bigint[], message_ids bytea[], extras text[]
        ) RETURNS TABLE (
            key bigint, session_id text, user_id text, provider text, model text, backend text,
            status text, context text, provider_state text, created_at bigint,
            last_activity bigint, revision bigint, last_seq bigint, message_count bigint,
            turn_count bigint, input_tokens bigint, output_tokens bigint, cached_tokens bigint,
            reasoning_tokens bigint, errors bigint, turn_id bigint, turn_token text,
            turn_owner text, turn_expires bigint
        ) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
        SET enable_seqscan = off
        AS $langswarm$
        #variable_conflict use_column
        DECLARE
            moment bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
        BEGIN
            IF may_wait THEN
                PERFORM 1 FROM {sessions} WHERE session_id = ANY (ids) FOR UPDATE;
                moment := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
            END IF;
            RETURN QUERY WITH wanted AS MATERIALIZED (
                SELECT * FROM unnest(
                    ids, tokens, next_tokens, owners, leases, revisions, sizes, inputs, outputs,
                    caches, reasonings, states, statuses, answers, problems, keys, digests
                ) WITH ORDINALITY AS each (
                    id, token, next_token, owner, lease, needed, size, input, output, cached,
                    reasoning, state, note, has_answer, problem, turn_key, turn_digest, n
                )
            ), locked AS MATERIALIZED (
                SELECT key AS place, session_id AS id FROM {sessions}
                WHERE session_id = ANY (ids) FOR UPDATE SKIP LOCKED
            ), moved AS (
                UPDATE {sessions} AS s SET
                    revision = s.revision + 1,
                    last_activity = greatest(s.last_activity, moment),
                    last_seq = s.last_seq + w.size,
                    message_count = s.message_count + w.size,
                    turn_count = s.turn_count + (w.token IS NULL)::int,
                    input_tokens = s.input_tokens + coalesce(w.input, 0),
                    output_tokens = s.output_tokens + coalesce(w.output, 0),
                    cached_tokens = s.cached_tokens + coalesce(w.cached, 0),
                    reasoning_tokens = s.reasoning_tokens + coalesce(w.reasoning, 0),
                    errors = s.errors + coalesce((w.note = 'failed')::int, 0),
                    provider_state = coalesce(w.state, s.provider_state),
                    turn_id = CASE WHEN w.lease IS NULL THEN s.turn_id ELSE s.last_seq + 1 END,
                    turn_token = w.next_token,
                    turn_owner = CASE WHEN w.next_token IS NOT NULL
                        THEN coalesce(w.owner, s.turn_owner) END,
                    turn_expires = CASE WHEN w.next_token IS NOT NULL
                        THEN coalesce(moment + w.lease, s.turn_expires) END
                FROM wanted AS w JOIN locked ON locked.id = w.id
                WHERE s.key = locked.place
                    AND s.turn_token IS NOT DISTINCT FROM w.token
                    AND (w.token IS NOT NULL OR s.status IN ('active', 'error'))
                    AND s.revision = coalesce(w.needed, s.revision)
                    AND (w.turn_key IS NULL OR NOT EXISTS (SELECT 1 FROM {turns} AS t
                        WHERE t.session = s.key AND t.key = w.turn_key))
                RETURNING s.*, w.n, w.size, w.token, w.note, w.has_answer, w.problem, w.turn_key,
                    w.turn_digest,
                    CASE WHEN w.token IS NULL THEN s.last_seq - w.size + 1 ELSE s.turn_id END
                    AS turn
            ), put AS (
                INSERT INTO {messages} (session, seq, turn, timestamp, role, id, content, extra)
                SELECT moved.key, moved.last_seq - moved.size + m.place, moved.turn, m.moment,
                    m.role, m.id, m.content, m.extra
                FROM unnest(writes, places, times, roles, message_ids, contents, extras)
                    AS m (n, place, moment, role, id, content, extra)
                    JOIN moved ON moved.n = m.n
            ), keyed AS (
                INSERT INTO {turns} (session, turn, status, answered, key, digest)
                SELECT moved.key, moved.turn, moved.note, true, moved.turn_key, moved.turn_digest
                FROM moved WHERE moved.turn_key IS NOT NULL
            ), completed AS (
                UPDATE {turns} AS t SET status = 'complete', answered = true, error = NULL,
                    finished_at = moment
                FROM moved WHERE t.session = moved.key AND t.turn = moved.turn
                    AND moved.turn_key IS NULL AND moved.note = 'complete'
            ), noted AS (
                INSERT INTO {turns} AS t (session, turn, status, answered, error, finished_at)
                SELECT moved.key, moved.turn, moved.note,
                    coalesce(moved.has_answer, false) OR EXISTS (SELECT 1 FROM {messages} AS m
                        WHERE m.session = moved.key AND m.seq >= moved.turn
                        AND m.turn = moved.turn AND m.role = 1),
                    moved.problem, moment
                FROM moved WHERE moved.turn_key IS NULL AND moved.note <> 'complete'
                ON CONFLICT (session, turn) DO UPDATE SET status = excluded.status,
                    answered = excluded.answered, error = excluded.error,
                    finished_at = excluded.finished_at
            )
            SELECT CASE WHEN locked.place IS NULL THEN 0 ELSE moved.key END,
                moved.session_id, moved.user_id, moved.provider, moved.model, moved.backend,
                moved.status, moved.context, moved.provider_state, moved.created_at,
                moved.last_activity, moved.revision, moved.last_seq, moved.message_count,
                moved.turn_count, moved.input_tokens, moved.output_tokens, moved.cached_tokens,
                moved.reasoning_tokens, moved.errors, moved.turn_id, moved.turn_token,
                moved.turn_owner, moved.turn_expires
            FROM wanted AS w LEFT JOIN locked ON locked.id = w.id LEFT JOIN moved ON moved.n = w.n
            ORDER BY w.n;
        END
        $langswarm$
        """,
    ],
    # 3: a cleanup looks for the active sessions of long ago, where nearly all others are archived.
    [
        "CREATE INDEX {sessions_of_active} ON {sessions} (active_minute) WHERE status = 'active'",
    ],
    # 4: messages with several tools' results, which some doors show as several messages, are few.
    [
        """
        CREATE INDEX {messages_of_many} ON {messages} (session, seq)
        WHERE extra LIKE '%"tool_result"%"tool_result"%'
        """,
    ],
    # 5: the functions find what they call in the same place, whoever calls them and however. All
    # types are given, as others may have put functions of these names beside ours.
    [
        """
        ALTER FUNCTION {write}(
            boolean, text[], text[], text[], text[], bigint[], bigint[], int[], bigint[], bigint[],
            bigint[], bigint[], text[], text[], boolean[], text[], text[], text[], smallint[],
            text[], bigint[], bytea[], text[]
        ) SET search_path = pg_catalog, pg_temp
        """,
        """
        ALTER FUNCTION {write_together}(
            boolean, text[], text[], text[], text[], bigint[], bigint[], int[], bigint[], bigint[],
            bigint[], bigint[], text[], text[], boolean[], text[], text[], text[], int[], int[],
            smallint[], text[], bigint[], bytea[], text[]
        ) SET search_path = pg_catalog, pg_temp
        """,
    ],
]
"""One list of statements per version, oldest first. Only ever appended to."""


class Tables:
    """The names of our tables, as they are written in SQL.

    Args:
        schema: The schema they are in.
        prefix: What their names begin with.

    Raises:
        InvalidInputError: If there can be no tables of these names.
    """

    _NAMES = (
        "sessions",
        "sessions_by_user",
        "sessions_by_activity",
        "sessions_of_active",
        "messages",
        "messages_by_id",
        "messages_of_system",
        "messages_of_many",
        "turns",
        "turns_by_key",
        "write",
        "write_together",
        "schema_version",
    )

    def __init__(self, schema: str, prefix: str) -> None:
        self.schema = _checked("schema", schema, 0)
        self.prefix = _checked("table_prefix", prefix, _LONGEST_SUFFIX)
        if not schema:
            raise InvalidInputError("schema is empty; PostgreSQL's own is named 'public'")
        self._names = {
            # An index is where its table is; PostgreSQL wants no schema for it.
            name: _quoted(prefix + name) if "_by_" in name or "_of_" in name
            else f"{_quoted(schema)}.{_quoted(prefix + name)}"
            for name in self._NAMES
        }  # fmt: skip
        self._made: dict[str, str] = {}

    def sql(self, template: str) -> str:
        """The statement of a template that names our tables in braces."""
        made = self._made.get(template)
        if made is None:
            made = self._made[template] = template.format_map(self._names)
        return made


def _checked(name: str, value: object, room: int) -> str:
    if not isinstance(value, str) or "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise InvalidInputError(
            f"{name} must be a text without NUL and lone surrogates, not {value!r}"
        )
    if "$langswarm$" in value or len(value.encode()) > _LONGEST_NAME - room:
        raise InvalidInputError(
            f"{name} {value[:80]!r} is too long: {_LONGEST_NAME - room} bytes are allowed"
        )
    return value


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def migrate(connection: Connection, tables: Tables, name: str) -> None:
    """Bring the schema to the newest version.

    Args:
        connection: A connection outside a transaction.
        tables: Where the tables are.
        name: What to call the database in messages.

    Raises:
        StorageVersionError, StorageCorruptError: As `find_version`.
        StorageUnavailableError: If the database cannot hold every text.
    """
    if await find_version(connection, tables, name) == len(MIGRATIONS):
        return
    encoding = (await connection.fetch("SHOW server_encoding"))[0][0]
    if encoding != "UTF8":
        raise StorageUnavailableError(
            f"{name}: the database has the encoding {encoding}; create one with UTF8"
        )
    # Others may be at it; how long to wait for them is for each call's own time limit to say.
    await connection.script(_BEGIN)
    try:
        await connection.fetch("SELECT pg_advisory_xact_lock($1)", _lock_key(tables))
        version = await find_version(connection, tables, name)
        if not version:
            await _prepare(connection, tables)
        for number, statements in enumerate(MIGRATIONS[version:], version + 1):
            for statement in statements:
                await connection.script(tables.sql(statement))
            await connection.fetch(
                tables.sql("INSERT INTO {schema_version} (version) VALUES ($1)"), number
            )
        await connection.script("COMMIT")
    except BaseException:
        await connection.roll_back()
        raise


async def _prepare(connection: Connection, tables: Tables) -> None:
    """Create the schema, which an ordinary user may not even try where there is one already."""
    found = await connection.fetch("SELECT 1 FROM pg_namespace WHERE nspname = $1", tables.schema)
    if not found:
        await connection.script(f"CREATE SCHEMA {_quoted(tables.schema)}")
    await connection.script(tables.sql("CREATE TABLE {schema_version} (version int PRIMARY KEY)"))


async def find_version(connection: Any, tables: Tables, name: str) -> int:
    """The version of the schema; 0 if there is none yet.

    Args:
        connection: A connection, ours or the driver's.
        tables: Where the tables are.
        name: What to call the database in messages.

    Raises:
        StorageVersionError: If it is newer than this version of the package knows.
        StorageCorruptError: If only some of the tables are there, or not as they were made.
    """
    names = [tables.prefix + each for each in _TABLES]
    rows = await connection.fetch(_FIND_TABLES, tables.schema, names)
    found = [row[0] for row in rows]
    if not found:
        return 0
    strangers = {row[1] for row in rows if not row[2]}
    if strangers:
        raise _planted(tables, name, strangers)
    missing = [each for each in names if each not in found]
    if missing:
        raise _torn(name, f"some of the tables are gone ({', '.join(missing)})")
    rows = await connection.fetch(
        tables.sql("SELECT pg_catalog.max(version) FROM {schema_version}")
    )
    return _checked_version(rows[0][0], tables, name)


def _checked_version(version: object, tables: Tables, name: str) -> int:
    if not isinstance(version, int) or version < 1:
        raise _torn(name, f"{tables.prefix}schema_version holds no version")
    if version > len(MIGRATIONS):
        raise StorageVersionError(
            f"{name} has schema version {version}, and this version of langswarm-session knows up "
            f"to {len(MIGRATIONS)}; upgrade the package (the database was left as it is)"
        )
    return version


def _planted(tables: Tables, name: str, owners: Iterable[str]) -> StorageCorruptError:
    return StorageCorruptError(
        f"{name}: everybody may create tables in the schema {tables.schema!r}, and those with our "
        f"names are owned by {', '.join(sorted(owners))}, who may have put them there to read what "
        "is stored: if they are yours, run `REVOKE CREATE ON SCHEMA ... FROM PUBLIC`; if not, drop "
        "them, or name a schema of your own (schema=...)"
    )


def _torn(name: str, what: str) -> StorageCorruptError:
    return StorageCorruptError(
        f"{name}: {what}: restore them from a backup, or drop the rest to begin anew; if they are "
        "another program's, use another table_prefix"
    )


def _lock_key(tables: Tables) -> int:
    # One for all prefixes of a schema, as the first of them creates it.
    digest = sha256(f"langswarm-session {tables.schema}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
