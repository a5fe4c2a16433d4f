"""Sessions in Redis: shared by many processes and machines, as durable as the server is."""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlencode

from langswarm_redis.commands import (
    Keyspace,
    creation_number,
    first_fields,
    new_number,
)
from langswarm_redis.lane import Lane, Word
from langswarm_redis.plain import plain_words
from langswarm_redis.rows import (
    check_sums,
    decode_all,
    encode,
    own_fields,
    to_bytes,
    to_fields,
    to_number,
    to_record,
)
from langswarm_redis.server import SCHEMA_VERSION, Durability, Server
from langswarm_redis.session import create, load
from langswarm_redis.turns import to_turns
from langswarm_session.errors import (
    InvalidInputError,
    SessionError,
    SessionNotFoundError,
    StorageBusyError,
)
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
from langswarm_session.storage.decisions import Facts, FactsChangedError, Plan, Write, is_plain
from langswarm_session.storage.rows import dump_json
from langswarm_session.storage.session_rows import damaged

R = TypeVar("R")

_AT_ONCE = 500
"""Further messages than these are made in a thread, so that no event loop waits for them."""


class RedisSessionStorage(StorageBase):
    """Sessions in a Redis server, version 6.2 or newer, or what speaks its protocol.

    The first use connects. Any number of storages, threads, event loops, processes and machines may
    use one server. A server that restarts is waited for.

    What is acknowledged survives a crash of the server only if it keeps an append-only file and
    syncs each write (``appendonly yes``, ``appendfsync always``). That is looked at when it is
    connected to, and `health` says what is not so.

    Args:
        url: The address: ``redis://user:password@host:port/db``, ``rediss://`` with TLS,
            ``unix:///path?db=0``. Its options (``?ssl_ca_certs=...``) are those of redis-py.
        password: The password, if the address is to have none.
        prefix: What the names of all keys begin with.
        durability: What to do where acknowledged writes might be lost: ``require`` refuses the
            server, ``warn`` logs it, ``accept`` says it in `health` only.
        timeout: How long a call may take, in seconds.
        connect_timeout: How long to try to connect, in seconds.

    Raises:
        InvalidInputError: If an argument cannot be used.
    """

    name: ClassVar[str] = "redis"

    def __init__(
        self,
        url: str = "redis://127.0.0.1:6379/0",
        *,
        password: str | None = None,
        prefix: str = "langswarm:",
        durability: Durability = "warn",
        timeout: float = 30.0,
        connect_timeout: float = 10.0,
    ) -> None:
        if durability not in ("require", "warn", "accept"):
            raise InvalidInputError("durability must be 'require', 'warn' or 'accept'")
        if not (isinstance(prefix, str) and prefix):
            raise InvalidInputError("prefix must be a text, and not an empty one")
        if min(timeout, connect_timeout) <= 0:
            raise InvalidInputError("timeout and connect_timeout must be above 0")
        self._server = Server(
            url, password, prefix, durability, timeout=timeout, connect_timeout=connect_timeout
        )
        self._prefix = to_bytes(prefix)
        self._timeout = self.retry_seconds = timeout
        # Reads of long logs hold up no write.
        self._reads, self._writes = (Lane(self._server, timeout) for _ in range(2))
        # Also at the interpreter's exit, so that a forgotten close() loses nothing.
        weakref.finalize(self, _close, self._writes, self._reads)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._server.name!r}, prefix={self._server.prefix!r})"

    @property
    def address(self) -> str:
        """See `ISessionStorage.address`."""
        return f"{self._server.name}?{urlencode({'prefix': self._server.prefix})}"

    async def create_session(self, session: NewSession) -> SessionRecord:
        """See `ISessionStorage.create_session`."""
        record = rules.new_record(session, dump_json(dict(session.context)), 0)
        return await create(self._named(session.session_id), record)

    async def find_session(self, session_id: str, *, user_id: str | None = None) -> SessionRecord:
        """See `ISessionStorage.find_session`."""
        record = (await load(self._named(session_id))).record
        if user_id not in (None, record.user_id):
            raise rules.not_found(session_id)
        return record

    async def get_session(self, ref: SessionRef) -> SessionRecord:
        """See `ISessionStorage.get_session`."""
        record = (await load(self._named(ref.session_id))).record
        rules.check_ref(record, ref)
        return record

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
        index = b"index" if user_id is None else b"user:" + to_bytes(user_id)
        wanted = "" if status is None else status.value
        since: Word = "" if inactive_since is None else inactive_since
        at: tuple[Word, Word] = ("", "")
        before: tuple[int, bytes] | None = None
        if cursor is not None:
            activity, last_id = rules.parse_cursor(cursor)
            at = before = (activity, to_bytes(last_id))
        found: list[Any] = []
        # One more than asked for, to know whether there is another page.
        while len(found) <= limit:
            words = (self._prefix, limit + 1 - len(found), wanted, since, *at)
            more, end = await self._reads.read("sessions", self._prefix + index, *words)
            found += more
            if end is None:
                break
            at = (end[0], end[1])
        records = [to_record(row) for row in found[:limit]]
        if not records or len(found) <= limit:
            return SessionPage(records, None)
        last = records[-1]
        if before is not None and (last.last_activity, to_bytes(last.session_id)) >= before:
            # The index says other than the session itself, and the pages would never end.
            raise damaged("the place of a session in the index", last.session_id)
        return SessionPage(records, rules.make_cursor(last))

    async def delete_session(
        self, ref: SessionRef, *, expected_revision: int | None = None
    ) -> None:
        """See `ISessionStorage.delete_session`."""
        place = self._place(ref)
        deadline = time.monotonic() + self._timeout
        is_tried = False
        while True:
            try:
                session = await load(place)
                rules.check_ref(session.record, ref)
                rules.check_revision(session.record, expected_revision)
                is_tried = True
                await session.remove()
            except FactsChangedError:
                self._check_deadline(deadline)
            except SessionNotFoundError:
                # If it was there before, it went meanwhile, and maybe by this very call.
                if not is_tried:
                    raise
                return
            else:
                return

    async def plain(self, write: Write[R]) -> SessionRecord | None:
        """See `StorageBase.plain`: one script."""
        rows = [word for message in write.messages for word in encode(message)]
        for message in write.changed():
            encode(message)  # refuses what cannot be stored
        sums = rules.usage_sums(write.messages)
        check_sums(sums)
        if not is_plain(write) or len(set(rows[0::2])) < len(write.messages):
            return None
        place = self._place(write.ref, write.nonce)
        words = (self._prefix, place.session_id, *plain_words(write), *sums)
        words = (*words, place.user, place.number, *rows)
        reply = await self._writes.write("write", [place.key("s")], place.nonce, *words)
        return to_record(reply) if isinstance(reply, list) else None

    async def facts(self, write: Write[R]) -> Facts:
        """See `StorageBase.facts`."""
        session = await load(self._place(write.ref, write.nonce))
        rules.check_ref(session.record, write.ref)
        return await session.facts(write)

    async def apply(self, facts: Facts, plan: Plan[R]) -> None:
        """See `StorageBase.apply`."""
        await facts.version.commit(facts, plan)

    async def renew_turns(self, tokens: Mapping[str, SessionRef], seconds: float) -> set[str]:
        """See `ISessionStorage.renew_turns`."""
        words = (self._prefix, int(seconds * 1_000_000), *self._leases(tokens))
        held = await self._writes.read("renew", self._prefix, *words)
        return {token.decode() for token in held}

    async def request_cancel(self, tokens: Mapping[str, SessionRef]) -> set[str]:
        """See `ISessionStorage.request_cancel`."""
        words = (self._prefix, rules.CANCEL_MARK, "ask", *self._leases(tokens))
        held = await self._writes.read("cancel", self._prefix, *words)
        return {token.decode() for token in held}

    async def cancel_requested(self, tokens: Mapping[str, SessionRef]) -> set[str]:
        """See `ISessionStorage.cancel_requested`."""
        words = (self._prefix, rules.CANCEL_MARK, "tell", *self._leases(tokens))
        asked = await self._reads.read("cancel", self._prefix, *words)
        return {token.decode() for token in asked}

    def _leases(self, tokens: Mapping[str, SessionRef]) -> list[Word]:
        """Return leases as scripts take them: of each its session's id, token, owner, number."""
        words: list[Word] = []
        for token, ref in tokens.items():
            place = self._place(ref)
            words += [place.session_id, to_bytes(token), place.user, place.number]
        return words

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
        place = self._place(ref)
        filters = ("answered" if answered_only else "", "system" if system_only else "")
        deadline = time.monotonic() + self._timeout
        while (rows := await self._rows(place, limit, before, after, filters)) is None:
            self._check_deadline(deadline)
        if after is None:
            rows.reverse()
        if len(rows) <= _AT_ONCE:
            return decode_all(rows)
        return await in_thread(decode_all, rows)

    async def measure_log(
        self, ref: SessionRef, *, after: int = 0, skip: int | None = None
    ) -> LogMeasure:
        """See `ISessionStorage.measure_log`."""
        place = self._place(ref)
        span = (after, "" if skip is None else skip)
        words = (self._prefix, place.session_id, *span, place.user, place.number)
        reply = await self._reads.read("measure", place.key("s"), *words)
        if reply is None:
            raise rules.not_found(ref.session_id)
        count, at, several = reply
        return LogMeasure(count, to_number(at) if at else None, [to_number(seq) for seq in several])

    async def get_turns(self, ref: SessionRef, *, limit: int = 100) -> list[Turn]:
        """See `ISessionStorage.get_turns`."""
        place = self._place(ref)
        words = (self._prefix, place.session_id, limit, place.user, place.number)
        reply = await self._reads.read("turns", place.key("s"), *words)
        if reply is None:
            raise rules.not_found(ref.session_id)
        return to_turns(ref.session_id, *reply)

    async def fork_session(
        self, ref: SessionRef, session: NewSession, *, at: int | None = None
    ) -> SessionRecord:
        """See `ISessionStorage.fork_session`."""
        source, target = self._place(ref), self._named(session.session_id)
        record = rules.new_record(session, dump_json(dict(session.context)), 0)
        number, _ = await new_number(target)
        fields = first_fields(target, number) | own_fields(record)
        last = "9007199254740992" if at is None else at
        copied = (self._prefix, source.session_id, target.session_id, last)
        words: tuple[Word, ...] = (*copied, source.user, source.number)
        keys = [source.key("s"), target.key("s")]
        reply = await self._writes.write("fork", keys, target.nonce, *words, *to_fields(fields))
        if reply == b"none":
            raise rules.not_found(ref.session_id)
        if reply == b"taken":
            raise rules.exists(session.session_id)
        return (await load(target)).record if reply == b"made" else to_record(reply)

    async def health(self) -> StorageHealth:
        """See `ISessionStorage.health`; with ``ok``, ``detail`` says what a crash would lose."""
        started = time.perf_counter()
        words: tuple[Word, ...] = (2, "ZCARD", self._prefix + b"index")
        words += (2, "GET", self._prefix + b"messages")
        try:
            counts = await self._reads.read("guarded", self._prefix, 0, "", "*", *words)
        except SessionError as error:
            return StorageHealth(ok=False, backend=self.name, detail=str(error))
        return StorageHealth(
            ok=True,
            backend=self.name,
            sessions=counts[0],
            messages=int(counts[1] or 0),
            latency_seconds=time.perf_counter() - started,
            schema_version=SCHEMA_VERSION,
            detail="; ".join(self._server.caveats) or None,
        )

    async def close(self) -> None:
        """See `ISessionStorage.close`."""
        await in_thread(_close, self._writes, self._reads)

    def _named(self, session_id: str) -> Keyspace:
        return Keyspace(self._reads, self._writes, self._prefix, to_bytes(session_id))

    def _place(self, ref: SessionRef, nonce: str | None = None) -> Keyspace:
        place = self._named(ref.session_id)
        place.nonce = place.nonce if nonce is None else nonce
        place.user = to_bytes(ref.user_id)
        place.number = b"" if ref.creation is None else creation_number(ref.creation)
        return place

    async def _rows(
        self,
        place: Keyspace,
        limit: int | None,
        before: int | None,
        after: int | None,
        filters: tuple[str, str],
    ) -> list[bytes] | None:
        """Rows in the order in which they are read; None if they were changed meanwhile.

        A long log comes in pieces, so that the server does other things in between.
        """
        first: list[Word] = ["" if each is None else each for each in (before, after)]
        rows: list[bytes] = []
        mark = None
        while True:
            left = 2**53 if limit is None else limit - len(rows)
            words = (self._prefix, place.session_id, left, *first, *filters)
            words = (*words, place.user, place.number)
            reply = await self._reads.read("messages", place.key("s"), *words)
            if reply is None:
                raise rules.not_found(place.session_id.decode())
            if mark not in (None, reply[0]):
                return None
            mark, more, end = reply
            rows += more
            if not end or len(rows) == limit:
                return rows
            first[0 if after is None else 1] = end

    def _check_deadline(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise StorageBusyError(
                f"{self._server.name}: other writes came in between for {self._timeout:g} seconds; "
                "try again"
            )


def _close(*lanes: Lane) -> None:
    for lane in lanes:
        lane.close()
