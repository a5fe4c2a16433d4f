"""What can be found wrong with a SQLite file. Nothing here writes to it, or makes it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from langswarm_session.errors import StorageCorruptError, StorageVersionError
from langswarm_session.findings import Finding, ok, problem, warning
from langswarm_session.models import SessionContext
from langswarm_session.storage.examining import (
    LogFigures,
    Reading,
    TimeLimit,
    figures,
    open_turns,
)
from langswarm_session.storage.rows import MESSAGE_COLUMNS, decode_message
from langswarm_session.storage.session_rows import NOTE_COLUMNS, decode_note, decode_record
from langswarm_session.storage.sqlite.expected import differences
from langswarm_session.storage.sqlite.file import check_end
from langswarm_session.storage.sqlite.schema import MIGRATIONS, check, snapshot
from langswarm_session.storage.sqlite.transactions import FIELDS

_LARGE_WAL = 64 * 2**20
_MUCH_FREE = 64 * 2**20
_LITTLE_SPACE = 256 * 2**20
_PATIENCE = 10.0
"""Seconds to wait for a program that keeps the file locked."""

_STEPS = 100_000
"""Steps of a statement after which it is asked whether the time is over: about a millisecond."""

_RESCUE = (
    "make a copy of the file now; restore the last good one, or bring what can be read into a new "
    "file with `export --all` and `import`"
)

_COUNTS = (
    *("revision", "last_seq", "message_count", "turn_count", "errors"),
    *("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"),
)
_MISCOUNTED = (
    "SELECT s.session_id FROM sessions AS s LEFT JOIN (SELECT session, count(*) AS size, "
    "max(seq) AS last FROM messages GROUP BY session) AS log ON log.session = s.key "
    "WHERE s.message_count != ifnull(log.size, 0) OR ifnull(log.last, 0) > s.last_seq "
    "OR s.active_minute != s.last_activity / 60000000 "
    # What grows beyond 64 bits is no whole number any more.
    f"OR 'real' IN ({', '.join(f'typeof(s.{name})' for name in _COUNTS)})"
)
_LOST_MESSAGES = "SELECT count(*) FROM messages WHERE session NOT IN (SELECT key FROM sessions)"
_LOST_NOTES = (
    "SELECT count(*) FROM turns WHERE session NOT IN (SELECT key FROM sessions) OR "
    # One about messages of another turn that was never answered has none.
    "(status = 'complete' AND NOT EXISTS (SELECT 1 FROM messages AS m "
    "WHERE m.session = turns.session AND m.seq >= turns.turn AND m.turn = turns.turn))"
)
_LEASES = "SELECT session_id, turn_owner, turn_expires FROM sessions WHERE turn_token IS NOT NULL"


def examine(path: str, *, synchronous: str, full: bool, seconds: float) -> list[Finding]:
    """Look at a file. Blocks: as long as it takes to read the indexes, or, if full, all of it.

    Args:
        path: The file.
        synchronous: What the storage asks of each commit.
        full: Whether every index is compared with its table, and every message read.
        seconds: How long that may take.
    """
    if not Path(path).exists():
        advice = "name another with --db, or make it with `chat` or `import`"
        return [problem("file", f"there is no database {path!r}", advice)]
    limit = TimeLimit(seconds)
    found = list(_place(path))
    if _is_left_to_writers(path):
        what = "it was not closed, and only a user who may write to it can open it now"
        return [*found, problem("file", what, "run this as such a user")]
    try:
        with _opened(path, limit) as connection:
            # As they come, so that what was found is kept when the rest cannot be looked at.
            found.extend(_database(connection, path, synchronous, limit, full=full))
    except StorageVersionError as error:
        found.append(problem("schema", str(error), "upgrade the package"))
    except (StorageCorruptError, sqlite3.DatabaseError) as error:
        found.append(_failed(error, limit))
    return found


@contextmanager
def _opened(path: str, limit: TimeLimit) -> Iterator[sqlite3.Connection]:
    """A connection that only reads, and whose statements end when the time is over."""
    address = Path(path).absolute().as_uri() + "?mode=ro"
    if _leaves_files(path):
        address += "&immutable=1"
    connection = sqlite3.connect(
        address, uri=True, timeout=min(_PATIENCE, limit.seconds), check_same_thread=False
    )
    # A check of the whole file is one step, which no handler is asked about in between.
    alarm = threading.Timer(limit.left, connection.interrupt)
    alarm.daemon = True
    with closing(connection):
        connection.isolation_level = None
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.set_progress_handler(lambda: limit.is_over, _STEPS)
        alarm.start()
        try:
            yield connection
        finally:
            alarm.cancel()
            alarm.join()


def _leaves_files(path: str) -> bool:
    """Whether SQLite would make files beside the database that its writers cannot open.

    Whoever opens it needs a ``-wal`` and a ``-shm``, which are his who was the first, with the
    permissions of the database (https://www.sqlite.org/wal.html#read_only_databases).
    """
    return not _is_writable(path) and not Path(f"{path}-shm").exists()


def _is_left_to_writers(path: str) -> bool:
    """Whether there is a log that cannot be read without making such files."""
    log = Path(f"{path}-wal")
    return _leaves_files(path) and log.exists() and log.stat().st_size > 0


def _is_writable(path: str | Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _failed(error: Exception, limit: TimeLimit) -> Finding:
    """What kept the rest from being looked at."""
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
        return limit.finding()
    if isinstance(error, sqlite3.OperationalError):
        advice = "see what is at that path, who may read it, and which program keeps it locked"
        return problem("file", f"it cannot be opened: {error}", advice)
    return problem("file", f"it cannot be read: {error}", _RESCUE)


def _place(path: str) -> Iterator[Finding]:
    """The file and the folder that it lies in."""
    folder = Path(path).absolute().parent
    if os.access(path, os.R_OK | os.W_OK) and os.access(folder, os.W_OK):
        yield ok("file", path)
    else:
        advice = "give this user the right to write to the file and to its folder"
        yield problem("file", f"{path} or its folder cannot be written", advice)
    yield from _foreign(path, folder)
    mode = stat.S_IMODE(Path(path).stat().st_mode)
    if mode & 0o007:
        advice = f"chmod o-rwx {path}, and the files beside it, unless others are to use it"
        yield warning("access", f"the file has the mode {mode:04o}, for every user", advice)
    else:
        yield ok("access", f"the file has the mode {mode:04o}")
    free = shutil.disk_usage(folder).free
    if free < _LITTLE_SPACE:
        yield problem(
            "disk", f"{_size(free)} are free", "free some space: a full disk stops writes"
        )
    else:
        yield ok("disk", f"{_size(free)} are free")
    wal = Path(f"{path}-wal")
    size = wal.stat().st_size if wal.exists() else 0
    if size > _LARGE_WAL:
        yield warning(
            "write-ahead log",
            f"{_size(size)}: it cannot be folded into the file",
            "some process has been reading the same state for a long time; end it",
        )
    else:
        yield ok("write-ahead log", _size(size))


def _foreign(path: str, folder: Path) -> Iterator[Finding]:
    """What others can put, or have put, beside the file."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o002:
        yield warning(
            "folder",
            f"{folder} has the mode {mode:04o}: every user can put files beside the database",
            "keep the database in a folder that only its users may write to",
        )
    for name in (f"{path}-wal", f"{path}-shm"):
        if _is_writable(path) and Path(name).exists() and not _is_writable(name):
            yield problem(
                "file",
                f"{name} cannot be written by this user, so the database cannot be, either",
                "give it the owner and the mode of the database (chown, chmod)",
            )


def _database(
    connection: sqlite3.Connection, path: str, synchronous: str, limit: TimeLimit, *, full: bool
) -> Iterator[Finding]:
    with snapshot(connection):
        check(connection, path)
        check_end(connection, path)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        yield _schema(version)
        yield _objects(connection, version)
        limit.at = "the integrity of the file"
        yield _integrity(connection, full=full)
        yield from _settings(connection, synchronous)
        if version:
            limit.at = "the figures of the sessions"
            miscounted = [row[0] for row in connection.execute(_MISCOUNTED)]
            lost = [
                connection.execute(query).fetchone()[0] for query in (_LOST_MESSAGES, _LOST_NOTES)
            ]
            yield figures(LogFigures(miscounted, *lost))
            yield open_turns(_leases(connection), time.time_ns() // 1000)
            if full:
                yield from _readable(connection, limit)


def _objects(connection: sqlite3.Connection, version: int) -> Finding:
    """Whether tables, indexes and triggers are as this version of the schema makes them."""
    different = list(differences(connection, version))
    if not different:
        return ok("objects", "tables, indexes and triggers are as they were made")
    advice = (
        "find out who changed the schema; export the sessions (`export --all`) and import them "
        "into a new file, and drop what is not of this package"
    )
    return problem("objects", "; ".join(different), advice)


def _leases(connection: sqlite3.Connection) -> Iterator[tuple[str, str | None, int | None]]:
    """Session, owner and end of each lease; what is none of that is not there."""
    for session_id, owner, expires in connection.execute(_LEASES):
        yield (
            str(session_id),
            owner if isinstance(owner, str) else None,
            expires if isinstance(expires, int) else None,
        )


def _schema(version: int) -> Finding:
    newest = len(MIGRATIONS)
    if version == newest:
        return ok("schema", f"version {version}")
    if version < 0:
        return problem("schema", f"there is no version {version}", _RESCUE)
    return warning(
        "schema",
        f"version {version}, the newest is {newest}",
        "make a copy of the file; the next program that uses it brings it to the newest version",
    )


def _integrity(connection: sqlite3.Connection, *, full: bool) -> Finding:
    pragma = "integrity_check" if full else "quick_check"
    said = [str(row[0]) for row in connection.execute(f"PRAGMA {pragma}(10)")]
    if said == ["ok"]:
        return ok("integrity", pragma)
    return problem("integrity", "; ".join(said), _RESCUE)


def _settings(connection: sqlite3.Connection, synchronous: str) -> Iterator[Finding]:
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode == "wal":
        yield ok("journal", "wal")
    else:
        advice = "another program changed it; the next one that uses the storage sets it to wal"
        yield warning("journal", str(mode), advice)
    if synchronous == "FULL":
        yield ok("synchronous", synchronous)
    else:
        advice = "use FULL for what must survive a power cut"
        yield warning(
            "synchronous", f"{synchronous}: a power cut may take the last moments", advice
        )
    free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("freelist_count", "page_size")
    )
    if free * size > _MUCH_FREE:
        advice = "it is used again; to give it back to the disk run VACUUM in a quiet hour"
        yield warning("free pages", f"{_size(free * size)} of the file are free", advice)


def _readable(connection: sqlite3.Connection, limit: TimeLimit) -> Iterator[Finding]:
    """Whether every session, note on a turn, and message can be read."""
    # What is no text comes as bytes, so that the rest of the table can be read.
    connection.text_factory = _text_or_bytes
    names = dict(connection.execute("SELECT key, session_id FROM sessions"))
    sessions, notes, messages = (
        Reading(check, _RESCUE) for check in ("sessions", "notes", "messages")
    )
    cut_short: sqlite3.Error | None = None
    try:
        limit.at = "the sessions"
        for row in connection.execute(f"SELECT {FIELDS} FROM sessions"):
            sessions.look(repr(row[0]), _to_context, row)
        limit.at = "the notes on turns"
        for place, *row in connection.execute(f"SELECT session, {NOTE_COLUMNS} FROM turns"):
            notes.look(f"{names.get(place)} #{row[0]}", decode_note, row)
        for place, *row in connection.execute(f"SELECT session, {MESSAGE_COLUMNS} FROM messages"):
            limit.at = f"the messages, of which {messages.count} were read"
            messages.look(f"{names.get(place)} #{row[0]}", decode_message, row)
    except sqlite3.Error as error:
        cut_short = error
    for each in (sessions, notes, messages):
        yield each.finding(is_whole=cut_short is None)
    if cut_short is not None:
        raise cut_short


def _to_context(row: tuple[Any, ...]) -> SessionContext:
    return decode_record(row).to_context()


def _text_or_bytes(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _size(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
