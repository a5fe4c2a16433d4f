"""Sessions in one SQLite file: durable, embedded, shared by any number of processes."""

from __future__ import annotations

import os
import sqlite3
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import quote

from langswarm_session._validation import check_count, check_seconds
from langswarm_session.errors import InvalidInputError, SessionError
from langswarm_session.models import SessionMessage, SessionStatus, Turn
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
from langswarm_session.storage.decisions import Write
from langswarm_session.storage.naming import names_session
from langswarm_session.storage.rows import SYSTEM, dump_json, encode_message
from langswarm_session.storage.session_rows import decode_numbers, decode_record
from langswarm_session.storage.sqlite import transactions as log
from langswarm_session.storage.sqlite.calls import Job
from langswarm_session.storage.sqlite.engine import SQLiteEngine
from langswarm_session.storage.sqlite.errors import typed_error
from langswarm_session.storage.sqlite.file import DatabaseFile, Synchronous
from langswarm_session.storage.sqlite.file_mode import PRIVATE, check_mode
from langswarm_session.storage.sqlite.plain import plain
from langswarm_session.storage.sqlite.plans import decide
from langswarm_session.storage.sqlite.schema import MIGRATIONS, snapshot

if TYPE_CHECKING:
    from langswarm_session.archive import SessionArchive, TurnNote
    from langswarm_session.findings import Finding
    from langswarm_session.search import Search, SearchPage

T = TypeVar("T")
R = TypeVar("R")

_REQUEST_CANCEL = (
    f"UPDATE sessions SET turn_owner = CASE WHEN turn_owner LIKE '{rules.CANCEL_MARK}%' "
    f"THEN turn_owner ELSE '{rules.CANCEL_MARK}' || turn_owner END "
    f"WHERE {log.OWN} AND turn_token = ?"
)
_CANCEL_REQUESTED = (
    f"SELECT 1 FROM sessions WHERE {log.OWN} AND turn_token = ? "
    f"AND turn_owner LIKE '{rules.CANCEL_MARK}%'"
)
_FEW_LEASES = 50
"""As many are looked up faster than another thread could be asked to."""

_ANSWERED = (
    "AND NOT EXISTS (SELECT 1 FROM turns WHERE turns.session = messages.session "
    "AND turns.turn = messages.turn AND NOT turns.answered) "
)
_FEW, _LITTLE = 200, 32_768
"""So many rows are read, and characters stored, about as quickly as handed to another thread."""

_ROW = 100
"""Characters that the other columns of a message are worth."""


class SQLiteSessionStorage(StorageBase):
    """Sessions in one SQLite file.

    The first use opens the file and creates what is missing. Any number of storages, threads, event
    loops and processes of one machine may use one file; it must not lie on a network drive
    (https://www.sqlite.org/wal.html).

    Args:
        db_path: The file; its folder is created if need be.
        synchronous: ``FULL``: what was acknowledged survives a power cut. ``NORMAL``: it survives a
            killed process, and a power cut may take the last moments. NORMAL is faster.
        busy_timeout: How long to wait for another process's write, in seconds.
        max_readers: How many reads may go on at once.
        max_waiting: How many calls may wait at once; further ones raise `StorageBusyError`.
        timeout: How long a call may take in all, in seconds; then it raises `StorageBusyError`.
        mode: The permissions of the file if it has to be created, and so of the files that SQLite
            puts beside it: ``0o600`` by default, for this user only; ``0o660`` lets the file's
            group use it as well. A file that is there keeps its own.

    Raises:
        InvalidInputError: If an argument cannot be used.
    """

    name: ClassVar[str] = "sqlite"

    def __init__(
        self,
        db_path: str | os.PathLike[str] = "langswarm_sessions.db",
        *,
        synchronous: Synchronous = "FULL",
        busy_timeout: float = 30.0,
        max_readers: int = 4,
        max_waiting: int = 10_000,
        timeout: float = 60.0,
        mode: int | str = PRIVATE,
    ) -> None:
        path = os.fspath(db_path)
        if not path or "\0" in path or path == ":memory:":
            raise InvalidInputError(
                f"db_path {path!r} names no file; for sessions in memory use storage='memory'"
            )
        if synchronous not in ("FULL", "NORMAL"):
            raise InvalidInputError(f"synchronous is 'FULL' or 'NORMAL', not {synchronous!r}")
        busy_timeout = check_seconds(busy_timeout, "busy_timeout")
        timeout = check_seconds(timeout, "timeout", above=0)
        max_readers = check_count(max_readers, "max_readers", least=1)
        max_waiting = check_count(max_waiting, "max_waiting", least=1)
        self.db_path = path
        self._address = f"sqlite:///{quote(str(Path(path).absolute()))}"
        self._busy_timeout = busy_timeout
        self._synchronous = synchronous
        self._engine = SQLiteEngine(
            DatabaseFile(str(Path(path).absolute()), synchronous, busy_timeout, check_mode(mode)),
            max_readers=max_readers,
            max_waiting=max_waiting,
            timeout=timeout,
        )
        # Also at the interpreter's exit, so that a forgotten close() loses nothing.
        weakref.finalize(self, self._engine.close)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(db_path={self.db_path!r})"

    @property
    def address(self) -> str:
        """See `ISessionStorage.address`."""
        return self._address

    async def create_session(self, session: NewSession) -> SessionRecord:
        """See `ISessionStorage.create_session`."""
        context = dump_json(dict(session.context))
        return await self._write(
            lambda connection: log.create(connection, session, context), is_small=True
        )

    @names_session
    async def find_session(self, session_id: str, *, user_id: str | None = None) -> SessionRecord:
        """See `ISessionStorage.find_session`."""
        return await self._engine.read(
            lambda connection: log.find(connection, session_id, user_id), is_small=True
        )

    @names_session
    async def get_session(self, ref: SessionRef) -> SessionRecord:
        """See `ISessionStorage.get_session`."""
        return await self._engine.read(lambda connection: log.load(connection, ref), is_small=True)

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
        where: list[str] = ["true"]
        values: list[Any] = []
        if user_id is not None:
            where.append("user_id = ?")
            values.append(user_id)
        if status is not None:
            # Not as a value: SQLite would not know that the index of the active ones will do.
            where.append(f"status = '{status.value}'")
        if inactive_since is not None:
            where.append("last_activity < ? AND active_minute <= ?")
            values += [inactive_since, inactive_since // rules.MINUTE]
        if cursor is not None:
            activity, last_id = rules.parse_cursor(cursor)
            where.append("(last_activity, session_id) < (?, ?) AND active_minute <= ?")
            values += [activity, last_id, activity // rules.MINUTE]
        query = (
            f"SELECT {log.FIELDS} FROM sessions WHERE {' AND '.join(where)} "
            "ORDER BY active_minute DESC, last_activity DESC, session_id DESC LIMIT ?"
        )

        def job(connection: sqlite3.Connection) -> SessionPage:
            rows = connection.execute(query, (*values, limit + 1)).fetchall()
            records = [decode_record(row) for row in rows[:limit]]
            more = bool(records) and len(rows) > limit
            return SessionPage(records, rules.make_cursor(records[-1]) if more else None)

        # Where a status is asked for, it may look at many that have another.
        is_small = status is None and limit <= _FEW
        return await self._engine.read(job, is_small=is_small)

    @names_session
    async def delete_session(
        self, ref: SessionRef, *, expected_revision: int | None = None
    ) -> None:
        """See `ISessionStorage.delete_session`."""

        def job(connection: sqlite3.Connection) -> None:
            record = log.load(connection, ref)
            rules.check_revision(record, expected_revision)
            place = (record.creation,)
            connection.execute("DELETE FROM messages WHERE session = ?", place)
            connection.execute("DELETE FROM turns WHERE session = ?", place)
            connection.execute("DELETE FROM sessions WHERE key = ?", place)

        await self._write(job)

    @names_session
    async def write(self, write: Write[R]) -> R:
        """See `StorageBase.write`."""
        rows = [encode_message(message) for message in write.messages]
        for message in write.changed():
            encode_message(message)  # refuses what cannot be stored
        size = sum(_ROW + len(row[1] or "") + len(row[4] or "") for row in rows)

        def job(connection: sqlite3.Connection) -> R:
            record = plain(connection, write, rows)
            return decide(connection, write) if record is None else write.result(record)

        is_small = size <= _LITTLE and write.may_be_plain
        # What goes on with a turn that is open is not refused, however many calls wait.
        must = write.is_of_open_turn
        try:
            return await self._engine.write(job, is_small=is_small, size=size, must=must)
        except sqlite3.IntegrityError:
            # A message id or the key is stored already.
            return await self._write(lambda connection: decide(connection, write), must=must)

    async def renew_turns(self, tokens: Mapping[str, SessionRef], seconds: float) -> set[str]:
        """See `ISessionStorage.renew_turns`."""

        def job(connection: sqlite3.Connection) -> set[str]:
            expires = log.now() + int(seconds * 1_000_000)
            return {
                token
                for token, ref in tokens.items()
                if connection.execute(
                    f"UPDATE sessions SET turn_expires = ? WHERE {log.OWN} AND turn_token = ?",
                    (expires, *ref, token),
                ).rowcount
            }

        return await self._write(job, must=True)

    async def request_cancel(self, tokens: Mapping[str, SessionRef]) -> set[str]:
        """See `ISessionStorage.request_cancel`."""

        def job(connection: sqlite3.Connection) -> set[str]:
            return {
                token
                for token, ref in tokens.items()
                if connection.execute(_REQUEST_CANCEL, (*ref, token)).rowcount
            }

        return await self._engine.write(job, must=True)

    async def cancel_requested(self, tokens: Mapping[str, SessionRef]) -> set[str]:
        """See `ISessionStorage.cancel_requested`."""

        def job(connection: sqlite3.Connection) -> set[str]:
            return {
                token
                for token, ref in tokens.items()
                if connection.execute(_CANCEL_REQUESTED, (*ref, token)).fetchone()
            }

        return await self._engine.read(job, is_small=len(tokens) < _FEW_LEASES)

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
        condition = _ANSWERED if answered_only else ""
        values: list[int] = []
        if system_only:
            condition += f"AND role = {SYSTEM} "
        if before is not None:
            condition += "AND seq < ? "
            values.append(before)
        if after is not None:
            condition += "AND seq > ? "
            values.append(after)
        newest = limit is not None and after is None
        condition += "ORDER BY seq DESC" if newest else "ORDER BY seq"
        if limit is not None:
            condition += " LIMIT ?"
            values.append(limit)

        def job(connection: sqlite3.Connection) -> list[SessionMessage]:
            messages = log.select_own(connection, ref, condition, tuple(values))
            if newest:
                messages.reverse()
            return messages

        is_small = limit is not None and limit <= _FEW and not system_only
        return await self._engine.read(job, is_small=is_small)

    @names_session
    async def measure_log(
        self, ref: SessionRef, *, after: int = 0, skip: int | None = None
    ) -> LogMeasure:
        """See `ISessionStorage.measure_log`."""

        def job(connection: sqlite3.Connection) -> LogMeasure:
            with snapshot(connection):
                return log.measure(connection, ref, after, skip)

        return await self._engine.read(job)

    @names_session
    async def get_turns(self, ref: SessionRef, *, limit: int = 100) -> list[Turn]:
        """See `ISessionStorage.get_turns`."""

        def job(connection: sqlite3.Connection) -> list[Turn]:
            with snapshot(connection):
                return log.select_turns(connection, log.load(connection, ref), limit)

        return await self._engine.read(job)

    @names_session
    async def fork_session(
        self, ref: SessionRef, session: NewSession, *, at: int | None = None
    ) -> SessionRecord:
        """See `ISessionStorage.fork_session`."""
        context = dump_json(dict(session.context))

        def job(connection: sqlite3.Connection) -> SessionRecord:
            source = log.load(connection, ref)
            target = log.create(connection, session, context)
            log.copy_log(connection, source, target.creation, at)
            return log.load(connection, target.ref)

        return await self._write(job)

    @names_session
    async def get_turn_notes(
        self, ref: SessionRef, *, after: int = 0, limit: int = 500
    ) -> list[TurnNote]:
        """See `ISessionStorage.get_turn_notes`."""
        # What a first turn does not need is loaded when it is used, here and below.
        from langswarm_session.storage.sqlite.restore import turn_notes

        return await self._engine.read(lambda connection: turn_notes(connection, ref, after, limit))

    async def restore_session(self, archive: SessionArchive) -> SessionRecord:
        """See `ISessionStorage.restore_session`."""
        from langswarm_session.storage.sqlite.restore import restore

        return await self._write(lambda connection: restore(connection, archive))

    async def scrub(self) -> None:
        """See `ISessionStorage.scrub`. Takes as much free space as the file has."""
        from langswarm_session.storage.sqlite.scrub import scrub

        await self._write(lambda _: None)  # it is open, and nothing waits before us
        try:
            await in_thread(scrub, self._engine.path, timeout=self._busy_timeout)
        except sqlite3.Error as error:
            raise typed_error(error, self.db_path) from error

    async def search_messages(self, search: Search) -> SearchPage:
        """See `ISessionStorage.search_messages`."""
        from langswarm_session.storage.sqlite.search import search_messages

        return await self._engine.read(lambda connection: search_messages(connection, search))

    async def examine(self, *, full: bool = False, seconds: float = 300.0) -> list[Finding]:
        """See `ISessionStorage.examine`. Does not open the storage, nor make a file."""
        from langswarm_session.storage.sqlite.examine import examine

        return await in_thread(
            examine, self._engine.path, synchronous=self._synchronous, full=full, seconds=seconds
        )

    async def health(self) -> StorageHealth:
        """See `ISessionStorage.health`."""

        def job(connection: sqlite3.Connection) -> tuple[int, int, int]:
            counts = connection.execute(
                "SELECT count(*), ifnull(sum(message_count), 0) FROM sessions"
            ).fetchone()
            sessions, messages = decode_numbers(counts)
            # Every call looks its session up, by an index that was not read for that.
            connection.execute("SELECT 1 FROM sessions WHERE session_id = ''").fetchone()
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            return sessions, messages, pages * connection.execute("PRAGMA page_size").fetchone()[0]

        started = time.perf_counter()
        try:
            await self._engine.check()
            sessions, messages, size = await self._engine.read(job)
        except SessionError as error:
            return StorageHealth(ok=False, backend=self.name, detail=str(error))
        return StorageHealth(
            ok=True,
            backend=self.name,
            sessions=sessions,
            messages=messages,
            size_bytes=size,
            latency_seconds=time.perf_counter() - started,
            schema_version=len(MIGRATIONS),
        )

    async def close(self) -> None:
        """See `ISessionStorage.close`."""
        await in_thread(self._engine.close)

    async def _write(self, job: Job[T], *, is_small: bool = False, must: bool = False) -> T:
        """Run a job for which it is an error that rows do not fit together."""
        try:
            return await self._engine.write(job, is_small=is_small, must=must)
        except sqlite3.IntegrityError as error:
            raise typed_error(error, self.db_path) from error
