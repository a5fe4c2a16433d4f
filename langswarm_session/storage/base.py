"""The class to derive a storage from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TypeVar

from langswarm_session.archive import SessionArchive, TurnNote
from langswarm_session.errors import StorageBusyError
from langswarm_session.findings import Finding
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import SessionMessage
from langswarm_session.records import (
    Appended,
    IdempotencyKey,
    Lease,
    LogMeasure,
    SessionChanges,
    SessionRecord,
    SessionRef,
    TurnEnd,
    TurnStart,
)
from langswarm_session.search import Search, SearchPage
from langswarm_session.storage.decisions import (
    Append,
    BeginTurn,
    ClearLog,
    EditLog,
    EndTurn,
    Facts,
    FactsChangedError,
    Plan,
    UpdateSession,
    Write,
)
from langswarm_session.storage.examining import examine_by_contract
from langswarm_session.storage.measuring import measure_by_reading
from langswarm_session.storage.naming import names_session
from langswarm_session.storage.replaying import replay, turn_notes
from langswarm_session.storage.searching import search_logs

R = TypeVar("R")


class StorageBase(ISessionStorage):
    """A storage with the optional methods, and with all writes to a session.

    A storage implements `facts` and `apply`, and what its engine can do in one step as `plain`.
    One whose engine holds a lock or a transaction from the facts to the plan overrides `decide`
    instead. One that can do an optional method better overrides it.

    Attributes:
        retry_seconds: How long a write is decided again while others write in between.
    """

    retry_seconds: float = 30.0

    async def plain(self, write: Write[R]) -> SessionRecord | None:
        """Do a write in one step if nothing stands in its way, and return the session after it.

        It is plain if it may be (`Write.may_be_plain`), the session is there and has the expected
        revision, no other turn is open, and no message id and no key is stored. The result is None
        where it is not plain; then nothing was written.
        """
        return None

    async def facts(self, write: Write[R]) -> Facts:
        """Read what a write is decided on, all of one version of the session.

        Raises:
            SessionNotFoundError: If there is no such session.
            FactsChangedError: If someone else writes meanwhile.
        """
        raise NotImplementedError

    async def apply(self, facts: Facts, plan: Plan[R]) -> None:
        """Write a plan, all or nothing, if the session is still at the version of the facts.

        Raises:
            FactsChangedError: If it is not, or if this very plan turns out to be stored already.
        """
        raise NotImplementedError

    @names_session
    async def write(self, write: Write[R]) -> R:
        """Do a write to a session."""
        record = await self.plain(write)
        return await self.decide(write) if record is None else write.result(record)

    async def decide(self, write: Write[R]) -> R:
        """Do a write by its facts and its plan, again if someone else writes in between.

        Raises:
            StorageBusyError: If others write in between for `retry_seconds`.
        """
        deadline = time.monotonic() + self.retry_seconds
        while True:
            try:
                facts = await self.facts(write)
                plan = write.decide(facts)
                if plan.record is not None:
                    await self.apply(facts, plan)
            except FactsChangedError:
                self._check(write, deadline)
            else:
                return plan.result

    def _check(self, write: Write[R], deadline: float) -> None:
        if time.monotonic() > deadline:
            raise StorageBusyError(
                f"other writes to the session came in between for {self.retry_seconds:g} seconds; "
                "try again",
                session_id=write.ref.session_id,
            )

    async def update_session(
        self, ref: SessionRef, changes: SessionChanges, *, expected_revision: int | None = None
    ) -> SessionRecord:
        """See `ISessionStorage.update_session`."""
        return await self.write(UpdateSession(ref, changes, expected_revision))

    async def append(
        self,
        ref: SessionRef,
        messages: Sequence[SessionMessage],
        *,
        token: str | None = None,
        expected_revision: int | None = None,
        key: IdempotencyKey | None = None,
    ) -> Appended:
        """See `ISessionStorage.append`."""
        return await self.write(Append(ref, tuple(messages), token, expected_revision, key))

    async def begin_turn(
        self,
        ref: SessionRef,
        messages: Sequence[SessionMessage],
        lease: Lease,
        *,
        key: IdempotencyKey | None = None,
        expected_revision: int | None = None,
    ) -> TurnStart:
        """See `ISessionStorage.begin_turn`."""
        return await self.write(BeginTurn(ref, tuple(messages), lease, key, expected_revision))

    async def end_turn(
        self, ref: SessionRef, end: TurnEnd, messages: Sequence[SessionMessage]
    ) -> Appended:
        """See `ISessionStorage.end_turn`."""
        return await self.write(EndTurn(ref, end, tuple(messages)))

    async def clear_messages(
        self, ref: SessionRef, *, expected_revision: int | None = None
    ) -> SessionRecord:
        """See `ISessionStorage.clear_messages`."""
        return await self.write(ClearLog(ref, expected_revision))

    async def edit_messages(
        self,
        ref: SessionRef,
        *,
        expected_revision: int,
        remove: Sequence[int] = (),
        change: Sequence[SessionMessage] = (),
        add: Sequence[SessionMessage] = (),
    ) -> Appended:
        """See `ISessionStorage.edit_messages`."""
        return await self.write(
            EditLog(ref, expected_revision, tuple(remove), tuple(change), tuple(add))
        )

    async def measure_log(
        self, ref: SessionRef, *, after: int = 0, skip: int | None = None
    ) -> LogMeasure:
        """See `ISessionStorage.measure_log`; reads the log."""
        return await measure_by_reading(self, ref, after=after, skip=skip)

    async def get_turn_notes(
        self, ref: SessionRef, *, after: int = 0, limit: int = 500
    ) -> list[TurnNote]:
        """See `ISessionStorage.get_turn_notes`; reads all turns."""
        return await turn_notes(self, ref, after=after, limit=limit)

    async def restore_session(self, archive: SessionArchive) -> SessionRecord:
        """See `ISessionStorage.restore_session`; writes the turns once more."""
        return await replay(self, archive)

    async def search_messages(self, search: Search) -> SearchPage:
        """See `ISessionStorage.search_messages`; reads every log."""
        return await search_logs(self, search)

    async def scrub(self) -> None:
        """See `ISessionStorage.scrub`; does nothing."""

    async def examine(self, *, full: bool = False, seconds: float = 300.0) -> list[Finding]:
        """See `ISessionStorage.examine`; looks at what the other methods tell."""
        return await examine_by_contract(self, seconds)
