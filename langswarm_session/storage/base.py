"""The class to derive a storage from."""

from __future__ import annotations

from langswarm_session.archive import SessionArchive, TurnNote
from langswarm_session.findings import Finding
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.records import LogMeasure, SessionRecord, SessionRef
from langswarm_session.search import Search, SearchPage
from langswarm_session.storage.examining import examine_by_contract
from langswarm_session.storage.measuring import measure_by_reading
from langswarm_session.storage.replaying import replay, turn_notes
from langswarm_session.storage.searching import search_logs


class StorageBase(ISessionStorage):
    """A storage with the optional methods, made of the others.

    A storage that can do one of them better overrides it.
    """

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
