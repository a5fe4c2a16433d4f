"""Jobs on connections of a pool: reads, transactions, and what to do when a connection breaks.

What became of a transaction whose connection broke is found out on the next one, by its number.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

from langswarm_session.errors import SessionError, StorageUnavailableError
from langswarm_session.storage.postgres.calls import TimedCall
from langswarm_session.storage.postgres.errors import (
    GONE,
    is_lost,
    is_refused,
    may_repeat,
    state_of,
)
from langswarm_session.storage.postgres.pool import DURABLE, Connection, Pool, PoolSettings
from langswarm_session.storage.postgres.schema import Tables, migrate
from langswarm_session.storage.postgres.search_path import SET_PATH

logger = logging.getLogger(__name__)

T = TypeVar("T")
Job = Callable[[Connection], Awaitable[T]]
Isolation = Literal["READ COMMITTED", "REPEATABLE READ"]

_TRIES = 6
"""How often a job is begun at most, when connections break under it."""

_FIRST_DELAY = 0.05
"""Seconds before the second try, doubling from then on."""

_BEGIN = (
    "BEGIN ISOLATION LEVEL {}; SET LOCAL idle_in_transaction_session_timeout = {:d}; "
    "SET LOCAL lock_timeout = {:d}"
)
_BEGIN_POOLED = f"{_BEGIN}; {SET_PATH}; SELECT {DURABLE}"
_BEGIN_READ = f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = {{:d}}; {SET_PATH}"
"""The server ends it by itself if this process freezes or is cut off, and its locks with it."""

_NUMBER = "SELECT pg_current_xact_id_if_assigned()::text"
_STATUS = "SELECT pg_xact_status($1::text::xid8)"


class NotCommittedError(Exception):
    """A transaction was rolled back when its connection broke."""


class Jobs:
    """Runs jobs. Made and used on one event loop.

    Args:
        settings: How to connect.
        tables: Where the tables are.
        timeout: How long a call may take, in seconds; whoever calls sees to it.

    Attributes:
        patience: Held by whoever may have to wait for another transaction's locks, so that however
            many do, those that only read have a connection left.
    """

    def __init__(self, settings: PoolSettings, tables: Tables, timeout: float) -> None:
        self.name = settings.name
        self.tables = tables
        self.pool = Pool(settings)
        self.patience = asyncio.Semaphore(max(1, settings.max_connections - 2))
        self._timeout = timeout
        self._milliseconds = max(1, int(timeout * 1000))
        self._opening = asyncio.Lock()
        self._opened = False

    async def acquire(self, *, reserved: bool = False) -> Connection:
        """A connection to a database that has our tables; `release` it afterwards.

        Args:
            reserved: Take the one that is kept for what is short and waits for no lock.

        Raises:
            SessionStorageError: If none can be made.
        """
        connection = await self.pool.acquire(reserved=reserved)
        try:
            if not self._opened:
                await self._open(connection)
        except BaseException:
            self.pool.release(connection, reserved=reserved, usable=False)
            raise
        return connection

    def take(self, query: str) -> Connection | None:
        """A connection that stands ready for a statement; None if there is none at once."""
        return self.pool.take(query) if self._opened else None

    def note(self, error: BaseException) -> None:
        """Look for our tables again before the next job, if they are gone."""
        if state_of(error) in GONE:
            self._opened = False

    async def read(self, job: Job[T], *, is_urgent: bool = False, is_bare: bool = False) -> T:
        """Run a job that needs no transaction, and return its result; it may be run again.

        Args:
            job: What to do.
            is_urgent: Whether it is short, and takes the connection that is kept for such.
            is_bare: Whether it cannot be run in a transaction, as it is through a pooler.
        """
        return await self._repeated(lambda: self._read_once(job, is_urgent, is_bare))

    async def transact(
        self, job: Job[T], isolation: Isolation = "READ COMMITTED", *, call: TimedCall
    ) -> T:
        """Run a job in a transaction and return its result once that is durable.

        It may be run again after a rollback. While its commit is under way the call is unclear.
        """
        return await self._repeated(lambda: self._transact_once(job, isolation, call))

    async def stop(self, connection: Connection) -> None:
        """Ask the server to cancel the statement that runs on a condemned connection.

        The statement is then made or not, and its answer says which. Where the server cannot be
        asked, that answer is waited for.
        """
        if connection.is_pooled:
            return
        pid = connection.server_pid
        try:
            await self.read(
                lambda other: other.fetch("SELECT pg_cancel_backend($1)", pid), is_urgent=True
            )
        except Exception as error:  # noqa: BLE001 - the time limit holds as well
            logger.debug("%s: a statement could not be cancelled: %r", self.name, error)

    async def close(self) -> None:
        """Close the connections; none may be in use any more."""
        await self.pool.close()

    async def _open(self, connection: Connection) -> None:
        async with self._opening:
            if not self._opened:
                await migrate(connection, self.tables, self.name)
                self._opened = True

    async def _read_once(self, job: Job[T], is_urgent: bool, is_bare: bool) -> T:
        connection = await self.acquire(reserved=is_urgent)
        usable = False
        try:
            if connection.is_pooled and not is_bare:
                result = await self._read_pooled(connection, job)
            else:
                result = await job(connection)
            usable = True
        except SessionError:
            usable = True
            raise
        finally:
            self.pool.release(connection, reserved=is_urgent, usable=usable)
        return result

    async def _read_pooled(self, connection: Connection, job: Job[T]) -> T:
        """Run a job in a transaction, as what is set outside of one stays with the pooler."""
        try:
            await connection.script(_BEGIN_READ.format(self._milliseconds))
            result = await job(connection)
            await connection.commit()
        except Exception:
            await connection.roll_back()
            raise
        return result

    async def _transact_once(self, job: Job[T], isolation: Isolation, call: TimedCall) -> T:
        async with self.patience:
            return await self._transact_on(await self.acquire(), job, isolation, call)

    async def _transact_on(
        self, connection: Connection, job: Job[T], isolation: Isolation, call: TimedCall
    ) -> T:
        usable, number = False, None
        was_unclear = call.unclear
        try:
            limit = self._milliseconds
            begin = _BEGIN_POOLED if connection.is_pooled else _BEGIN
            await connection.script(begin.format(isolation, limit, limit))
            result = await job(connection)
            number = (await connection.fetch(_NUMBER))[0][0]
            call.unclear = call.unclear or number is not None
            await connection.commit()
            usable, call.unclear = True, False
        except SessionError:
            await connection.roll_back()
            usable = True
            raise
        except Exception as error:
            if number is None or not is_lost(error):
                call.unclear = was_unclear
                await connection.roll_back()
                usable = is_refused(error)
                raise
        except asyncio.CancelledError:
            if number is None:
                raise
            # By the time limit: from here on it is not cancelled with its caller.
            raise StorageUnavailableError(
                f"{self.name}: no answer to the commit in {self._timeout:g} seconds"
            ) from None
        finally:
            self.pool.release(connection, usable=usable)
        if not usable:
            await self._check_committed(number, call, was_unclear=was_unclear)
        return result

    async def _check_committed(self, number: Any, call: TimedCall, *, was_unclear: bool) -> None:
        """Find out what became of a transaction whose connection broke at its end.

        Raises:
            NotCommittedError: If it was rolled back.
        """
        delay = _FIRST_DELAY
        while True:
            rows = await self.read(lambda connection: connection.fetch(_STATUS, number))
            status = rows[0][0]
            if status == "committed":
                call.unclear = False
                return
            if status == "aborted":
                call.unclear = was_unclear
                raise NotCommittedError
            if status is None:
                raise StorageUnavailableError(
                    f"{self.name}: the connection broke at the commit, and the server cannot tell "
                    "what became of that"
                )
            await asyncio.sleep(delay)
            delay *= 2

    async def _repeated(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The outcome of an attempt, made again where nothing was kept of the last one."""
        delay = _FIRST_DELAY
        for tries in range(_TRIES):
            try:
                return await attempt()
            except Exception as error:
                self.note(error)
                again = isinstance(error, NotCommittedError) or is_lost(error) or may_repeat(error)
                if isinstance(error, SessionError) or not again or tries == _TRIES - 1:
                    raise
            await asyncio.sleep(delay)
            delay *= 2
        raise AssertionError("the last try returns or raises")
