"""Connections to PostgreSQL that heal. Everything here runs on one event loop.

A connection that broke is dropped and made anew; one that was idle is asked first whether it still
stands, since a firewall may have forgotten it without a word. Through a pooler such as pgbouncer a
statement may run on another server connection than the one before: there, nothing is prepared.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import asyncpg  # type: ignore[import-untyped,import-not-found,unused-ignore]

from langswarm_session.errors import InvalidInputError, SessionError
from langswarm_session.storage.postgres.connect import connect
from langswarm_session.storage.postgres.errors import (
    is_of_parameters,
    may_connect_later,
    unreachable,
)
from langswarm_session.storage.postgres.search_path import SAFE_PATH
from langswarm_session.storage.postgres.tls import unreadable_file

_FIRST_DELAY, _LAST_DELAY = 0.05, 1.0
"""Seconds between two tries to connect, doubling in between."""

_CHECK_AFTER, _CHECK_TIME = 15.0, 3.0
"""Idle for so many seconds, a connection has so many to answer before it is used again."""

_ON = (
    "pg_catalog.set_config('synchronous_commit', pg_catalog.replace("
    "pg_catalog.current_setting('synchronous_commit'), 'off', 'on'), {})"
)

DURABLE = f"(SELECT {_ON.format('true')}) OPERATOR(pg_catalog.<>) ''"
"""True, and makes the transaction durable when it is acknowledged, for where `is_pooled`."""

CLOSE_TIME = 5.0
"""How many seconds a connection has to say goodbye."""

_SOCKET_OPTIONS = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 30),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 20_000),  # milliseconds
)
"""What makes the system notice that the other side is gone, where it knows of such a thing."""


_READ_SIZE = 65_536
"""Bytes read at once, a quarter of what asyncio would: the driver makes rows of them in one go, and
no other thread runs meanwhile.
"""

_GREET = (
    "SELECT CASE WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) {:d} "
    f"THEN pg_catalog.set_config('search_path', '{SAFE_PATH}', false) END, "
    "CASE WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) {:d} "
    f"THEN {_ON.format('false')} END"
)
"""Sets the safe path, and has what is committed on this connection be durable when it is
acknowledged, whatever the database, the role or the address says of others'. Nothing comes back,
and nothing is set, through a pooler: that gives out keys of its own, with the number of a process
of its own, and what is set for a session there stays with whoever has the server's connection next.
"""


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How a pool connects; times in seconds.

    Attributes:
        options: What asyncpg is to be given: the address and the password, which are not shown.
        name: What to call the database in messages, without secrets.
        min_connections: How many stay open though they are idle.
        max_connections: How many may be open.
        connect_timeout: How long to try to connect.
        idle_timeout: How long a connection may be idle.
        prepared_statements: Whether statements may be prepared; None: where there is no pooler.
    """

    options: dict[str, Any] = field(repr=False)
    name: str
    min_connections: int
    max_connections: int
    connect_timeout: float
    idle_timeout: float
    prepared_statements: bool | None


class Connection:
    """One connection. One task at a time may use it.

    Args:
        raw: The driver's.
        prepares: Whether statements may be prepared.
        is_pooled: Whether each transaction may run on another connection of a pooler's to the
            server: then it has to see to it itself that it is durable (`DURABLE`), and that names
            are looked for in the right place (`SET_PATH`).
    """

    def __init__(self, raw: Any, prepares: bool, is_pooled: bool) -> None:
        self._raw = raw
        self.prepares = prepares
        self.is_pooled = is_pooled
        self._prepared: dict[str, Any] = {}
        self.is_condemned = False
        """Whether it is not to be used again, as the server was asked to stop what runs on it."""
        self.used_at = asyncio.get_running_loop().time()

    @property
    def is_closed(self) -> bool:
        """Whether it is known to be gone."""
        return bool(self._raw.is_closed())

    @property
    def server_pid(self) -> int:
        """The process that serves it, unless `is_pooled`."""
        return int(self._raw.get_server_pid())

    @property
    def answers_through(self) -> int | None:
        """The descriptor that the answer comes through to what was sent; None if that is not sent
        to its end yet, or it is not known.
        """
        transport = getattr(self._raw, "_transport", None)
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            return None
        connected = transport.get_extra_info("socket")
        return None if connected is None else int(connected.fileno())

    async def fetch(self, query: str, *values: Any) -> list[Any]:
        """Run a statement and return its rows."""
        if not self.prepares:
            return list(await self._raw.fetch(query, *values))
        statement = self._prepared.get(query)
        if statement is None:
            # The name is given, as the driver would prepare none without its cache.
            name = f"langswarm_{len(self._prepared)}"
            statement = self._prepared[query] = await self._raw.prepare(query, name=name)
        return await statement.fetch(*values)  # type: ignore[no-any-return]

    def has_prepared(self, query: str) -> bool:
        """Whether the statement needs no preparing any more."""
        return query in self._prepared

    async def script(self, text: str) -> None:
        """Run statements without values."""
        await self._raw.execute(text)

    async def warnings(self, text: str) -> list[str]:
        """Run statements without values, and return what the server warns of meanwhile."""
        said: list[str] = []

        def note(_: Any, message: Any) -> None:
            if message.severity_en == "WARNING":
                said.append(message.message)

        self._raw.add_log_listener(note)
        try:
            await self._raw.execute(text)
        finally:
            self._raw.remove_log_listener(note)
        return said

    async def commit(self) -> None:
        """Commit.

        Raises:
            asyncpg.PostgresError: If it was rolled back instead.
        """
        if await self._raw.execute("COMMIT") != "COMMIT":
            raise asyncpg.TransactionRollbackError("the transaction had failed before")

    async def roll_back(self) -> None:
        """End a transaction, if it goes on; a connection that cannot do so is closed."""
        if self.is_closed or not self._raw.is_in_transaction():
            return
        try:
            async with asyncio.timeout(CLOSE_TIME):
                await self._raw.execute("ROLLBACK")
        except Exception:  # noqa: BLE001 - the server rolls back when the connection ends
            self._raw.terminate()

    async def stands(self) -> bool:
        """Whether the server still answers."""
        try:
            async with asyncio.timeout(_CHECK_TIME):
                await self._raw.execute("SELECT 1")
        except Exception:  # noqa: BLE001 - whatever the reason, it is not used again
            return False
        return True

    async def close(self) -> None:
        """Say goodbye, or hang up."""
        try:
            await self._raw.close(timeout=CLOSE_TIME)
        except Exception:  # noqa: BLE001 - then it is closed without
            self._raw.terminate()


class Pool:
    """Connections for many tasks. One more than they share is kept for what cannot wait.

    Where the server gives fewer than are allowed, whoever gets none takes, in its turn, what
    another gives back.
    """

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._free = asyncio.Semaphore(settings.max_connections - 1)
        self._reserved = asyncio.Lock()
        self._idle: list[Connection] = []
        self._short: deque[asyncio.Future[Connection]] = deque()
        """Those who could make none, in the order in which they get one. Then none is idle."""
        self._closing: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._sweep: asyncio.TimerHandle | None = None

    async def acquire(self, *, reserved: bool = False) -> Connection:
        """A connection that stands; `release` it afterwards.

        Args:
            reserved: Take the one that is kept for what is short and waits for no lock.

        Raises:
            SessionStorageError: If none can be made.
        """
        place = self._reserved if reserved else self._free
        await place.acquire()
        try:
            return await self._standing()
        except BaseException:
            place.release()
            raise

    def take(self, query: str) -> Connection | None:
        """A connection that has this statement prepared, without a wait; None if there is none.

        `release` it afterwards.
        """
        if not self._idle or self._free.locked():
            return None
        connection = self._idle[-1]
        idle = self._loop.time() - connection.used_at
        if connection.is_closed or idle >= _CHECK_AFTER or not connection.has_prepared(query):
            return None
        try:
            self._free.acquire().send(None)
        except StopIteration:
            # As it is not locked, it is acquired at once.
            return self._idle.pop()
        raise AssertionError("a semaphore that is not locked lets nobody wait")

    def release(
        self, connection: Connection, *, reserved: bool = False, usable: bool
    ) -> asyncio.Task[None] | None:
        """Give a connection back.

        Args:
            reserved: As it was taken.
            usable: Whether it is in order: outside a transaction, with nothing under way.

        Returns:
            What closes it if it is not: then the server has stopped what was under way.
        """
        closing = None
        if usable and not (connection.is_closed or connection.is_condemned):
            connection.used_at = self._loop.time()
            self._pass_on(connection)
        else:
            closing = self._drop(connection)
        (self._reserved if reserved else self._free).release()
        return closing

    async def close(self) -> None:
        """Close what is idle; nothing else may be in use any more."""
        if self._sweep is not None:
            self._sweep.cancel()
        while self._idle:
            self._drop(self._idle.pop())
        await asyncio.gather(*self._closing)

    def _pass_on(self, connection: Connection) -> None:
        """Give a connection to whoever is short of one; without anybody it is idle."""
        if self._short:
            self._short.popleft().set_result(connection)
            return
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._settings.idle_timeout, self._sweep_idle)

    async def _standing(self) -> Connection:
        return await self._take_idle() or await self._connect()

    async def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            idle = self._loop.time() - connection.used_at
            if not connection.is_closed and (idle < _CHECK_AFTER or await connection.stands()):
                return connection
            self._drop(connection)
        return None

    async def _connect(self) -> Connection:
        deadline = self._loop.time() + self._settings.connect_timeout
        delay = _FIRST_DELAY
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._connect_once()
            except SessionError:  # of the password
                raise
            except Exception as error:  # noqa: BLE001 - told as ours below
                self._check_files(error)
                # Another may have given one back meanwhile, which is as good.
                given = await self._take_idle()
                is_last = not may_connect_later(error) or self._loop.time() + delay > deadline
                if given is None and is_last:
                    raise unreachable(error, self._settings.name) from _cause(error)
            given = given or await self._given_back(delay)
            if given is not None:
                return given
            delay = min(2 * delay, _LAST_DELAY)

    def _check_files(self, error: Exception) -> None:
        if not isinstance(error, (OSError, asyncpg.ClientConfigurationError)):
            return
        unreadable = unreadable_file(self._settings.options.get("dsn"))
        if unreadable is not None:
            raise InvalidInputError(f"{self._settings.name}: {unreadable}") from error

    async def _given_back(self, seconds: float) -> Connection | None:
        """What another gives back within some seconds, if it is this one's turn to get it."""
        given: asyncio.Future[Connection] = self._loop.create_future()
        self._short.append(given)
        try:
            await asyncio.wait([given], timeout=seconds)
        except asyncio.CancelledError:
            if given.done():
                self._pass_on(given.result())
            raise
        finally:
            if not given.done():
                self._short.remove(given)
        return given.result() if given.done() else None

    async def _connect_once(self) -> Connection:
        settings = self._settings
        raw = await connect(
            **settings.options, timeout=settings.connect_timeout, statement_cache_size=0
        )
        try:
            watch(raw)
            is_pooled = await raw.fetchval(_GREET.format(*[raw.get_server_pid()] * 2)) is None
        except BaseException:
            raw.terminate()
            raise
        asked = settings.prepared_statements
        return Connection(raw, not is_pooled if asked is None else asked, is_pooled)

    def _drop(self, connection: Connection) -> asyncio.Task[None]:
        task = self._loop.create_task(connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    def _sweep_idle(self) -> None:
        self._sweep = None
        oldest = self._loop.time() - self._settings.idle_timeout
        spare = len(self._idle) - self._settings.min_connections
        # Those used last stand at the end, so the idlest come first.
        while spare > 0 and self._idle and self._idle[0].used_at <= oldest:
            self._drop(self._idle.pop(0))
            spare -= 1
        if self._idle:
            delay = max(self._idle[0].used_at - oldest, 1.0)
            self._sweep = self._loop.call_later(delay, self._sweep_idle)


def _cause(error: Exception) -> Exception | None:
    """The error as the cause of ours, unless it quotes what the address sets."""
    return None if is_of_parameters(error) else error


def watch(raw: Any) -> None:
    """Read in small pieces, and let the system notice a peer that is gone without a word."""
    transport = getattr(raw, "_transport", None)
    if transport is None:
        return
    transport.max_size = _READ_SIZE
    connected = transport.get_extra_info("socket")
    if connected is None or connected.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for level, option, value in _SOCKET_OPTIONS:
        if hasattr(socket, option):
            connected.setsockopt(level, getattr(socket, option), value)
