"""The one connection that writes: transactions that calls share, and checkpoints."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Sequence
from functools import partial
from threading import Lock

from langswarm_session.errors import SessionError, SessionStorageError, StorageUnavailableError
from langswarm_session.storage.inline import LatencyGate
from langswarm_session.storage.sqlite.calls import JobCall
from langswarm_session.storage.sqlite.copy import copy_database
from langswarm_session.storage.sqlite.errors import (
    ReplacedError,
    is_busy,
    let_go,
    needs_reopening,
    typed_error,
)
from langswarm_session.storage.sqlite.file import DatabaseFile, OpenFiles

logger = logging.getLogger(__name__)

_CHECKPOINT_AFTER = 1_000
"""Pages of the write-ahead log after which it is folded into the file: SQLite's own default."""

_FRAME = 4096 + 24
"""Bytes of a page in the write-ahead log (https://www.sqlite.org/fileformat2.html#walformat)."""


class _Log:
    """How long the write-ahead log is.

    SQLite tells only at a checkpoint, after which it begins to write over the file from its start:
    until then it is an estimate, but the file's size shows where that was too low.
    """

    _CHARACTERS_A_PAGE, _CHANGES_A_PAGE = 3_000, 16

    def __init__(self) -> None:
        self._estimate = 0.0
        self._factor = 1.0
        self._largest = _CHECKPOINT_AFTER
        self._size = 0
        self._kept = 0
        """Pages that it had at the last checkpoint and has still, for those who read them."""

    @property
    def is_long(self) -> bool:
        """Whether it is to be folded into the file."""
        # A commit for which the file has to grow is dearer by a third.
        estimate = self._estimate * self._factor
        return estimate >= _CHECKPOINT_AFTER or self._size > self._largest

    def grew(self, calls: Sequence[JobCall], changes: int, size: int) -> None:
        """Calls were committed that changed so many rows; before, its file had so many bytes."""
        # A turn alone dirties its session's row, the messages, and an index for place and for id;
        # those that share a commit share most of these pages.
        self._estimate += 3 + len(calls) + changes / self._CHANGES_A_PAGE
        self._estimate += sum(call.size for call in calls) / self._CHARACTERS_A_PAGE
        self._size = size // _FRAME

    def was_folded(self, pages: int, folded: int) -> None:
        """It was as long as this, and so much of it is in the database now."""
        grown = pages - self._kept
        if self._estimate and grown > 0:
            self._factor = min(4.0, max(0.1, grown / self._estimate))
        self._estimate = 0.0
        self._kept = pages if folded < pages else 0
        # What a reader needs still cannot be written over: then it goes on growing.
        more = _CHECKPOINT_AFTER if folded < pages else _CHECKPOINT_AFTER // 100
        self._largest = max(_CHECKPOINT_AFTER, self._size + more)


class Writer:
    """Commits calls to one file. Whoever uses it holds its `lock`.

    Args:
        file: The file.

    Attributes:
        lock: Held by the thread that uses the connection.
        files: What is open, for others to read; None if nothing is.
        gate: Whether commits have been quick lately.
    """

    def __init__(self, file: DatabaseFile) -> None:
        self.lock = Lock()
        self.files: OpenFiles | None = None
        self.gate = LatencyGate()
        self._file = file
        self._connection: sqlite3.Connection | None = None
        self._files: OpenFiles | None = None
        self._waits = True
        self._log = _Log()
        self._log_size = 0

    @property
    def is_open(self) -> bool:
        """Whether the next commit need not open the file first."""
        return self._connection is not None

    @property
    def wants_checkpoint(self) -> bool:
        """Whether the write-ahead log has become long."""
        return self._log.is_long

    def commit(self, calls: Sequence[JobCall]) -> None:
        """Run calls in one transaction; if that fails, each in one of its own.

        Only when the transaction has begun are they claimed: a caller that is cancelled while
        another process has the database locked need not wait for that.
        """
        calls = [call for call in calls if call.is_wanted]
        if not calls:
            return
        try:
            connection = self._begin(waits=True)
        except ReplacedError as error:
            self._tell(calls, self._let_go() or StorageUnavailableError(str(error)))
            return
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            self._fail(calls, error)
            return
        self._run_begun(connection, calls)

    def commit_now(self, call: JobCall) -> bool:
        """Run a call in a transaction of its own; False, and nothing done, if that would take long:
        another process has the database locked, or it is not the one that was opened.
        """
        try:
            connection = self._begin(waits=False)
        except ReplacedError:
            return False
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            if isinstance(error, sqlite3.Error) and is_busy(error):
                return False
            self._fail([call], error)
            return True
        self._run_begun(connection, [call])
        return True

    def checkpoint(self) -> None:
        """Fold what can be of the write-ahead log into the file."""
        pages = folded = 0
        if self._connection is not None:
            try:
                row = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                _, pages, folded = row
            except sqlite3.Error as error:
                # All of it is in the log still, and is folded in the next time.
                logger.warning("%s", typed_error(error, self._file.path))
        self._log.was_folded(pages, folded)

    def end(self) -> None:
        """Close the connection; the last one to a file folds all of the log into it."""
        if self._files is not None and not self._files.are_there:
            failure = self._let_go()
            if failure is not None:
                logger.warning("%s", typed_error(failure, self._file.path))
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._files = None

    def _run_begun(self, connection: sqlite3.Connection, calls: Sequence[JobCall]) -> None:
        """Run those calls that nobody has withdrawn, in the transaction that has begun."""
        begun = [call for call in calls if call.claim()]
        if begun:
            self._run(connection, begun)
        else:
            connection.execute("ROLLBACK")

    def _run(self, connection: sqlite3.Connection, calls: Sequence[JobCall]) -> None:
        changes = connection.total_changes
        try:
            for call in calls:
                try:
                    call.result, call.error = call.job(connection), None
                except SessionStorageError:
                    raise  # what was written before it is not to be kept
                except SessionError as error:
                    let_go(error)
                    call.error = error
            started = time.perf_counter()
            connection.execute("COMMIT")
        except BaseException as error:
            let_go(error)
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if not isinstance(error, Exception):
                raise  # an interrupt, of a caller on whose thread this runs
            if len(calls) > 1:
                for call in calls:
                    self.commit([call])
            elif isinstance(error, sqlite3.IntegrityError):
                calls[0].error = error  # for the job's owner, who knows what it means
            else:
                self._fail(calls, error)
            return
        self.gate.record(time.perf_counter() - started)
        self._log.grew(calls, connection.total_changes - changes, self._log_size)

    def _begin(self, *, waits: bool) -> sqlite3.Connection:
        """Begin a transaction, in the file that is at the path now.

        Raises:
            ReplacedError: If it is not the one that is open.
            SessionStorageError, sqlite3.Error, OSError
        """
        if self._connection is None or self._files is None:
            self.files = None
            self._connection, self._files = self._file.open()
            self.files, self._waits = self._files, True
        connection, files = self._connection, self._files
        try:
            self._let_wait(connection, waits=waits)
            connection.execute("BEGIN IMMEDIATE")
            # What is written to a file that has no name any more is lost with the process. As all
            # look only now, nobody can have committed to it after one has found it gone.
            self._log_size = files.look()
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error) and not is_busy(error):
                files.look()
            raise
        return connection

    def _let_go(self) -> Exception | None:
        """Save what was acknowledged and is in files that have no name any more, and close them.

        Returns:
            Why that cannot be done: the files are open still, and the next call tries again.
        """
        connection, files = self._connection, self._files
        assert connection is not None, "what was replaced is open"
        assert files is not None, "what was replaced is open"
        try:
            if files.has_database:
                self._file.replace(files, partial(copy_database, connection, files.path))
            else:
                self._fold_away(connection)
                self._file.remove_stale_log(files)
        except (sqlite3.Error, OSError, SessionError) as failure:
            return failure
        self._close()
        self.files = None
        return None

    def _fold_away(self, connection: sqlite3.Connection) -> None:
        """Fold the log into a database that may have been moved, where it is of use alone."""
        try:
            connection.execute("PRAGMA wal_checkpoint(FULL)")
        except sqlite3.Error as error:
            logger.warning("%s", typed_error(error, self._file.path))

    def _let_wait(self, connection: sqlite3.Connection, *, waits: bool) -> None:
        """Set whether to wait for other processes."""
        if self._waits is not waits:
            milliseconds = int(self._file.busy_timeout * 1000) if waits else 0
            connection.execute(f"PRAGMA busy_timeout = {milliseconds}")
            self._waits = waits

    def _fail(self, calls: Sequence[JobCall], error: Exception) -> None:
        # What has no name any more cannot be opened again, and is let go of by the next call.
        is_there = self._files is not None and self._files.are_there
        if is_there and isinstance(error, sqlite3.Error) and needs_reopening(error):
            self._close()
        self._tell(calls, error)

    def _tell(self, calls: Sequence[JobCall], error: Exception) -> None:
        for call in calls:
            call.error = typed_error(error, self._file.path)
