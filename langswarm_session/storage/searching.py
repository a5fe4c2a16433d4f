"""The search of a storage that has none of its own: every log is read, page by page."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Sequence

from langswarm_session.errors import SessionNotFoundError
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import SessionMessage
from langswarm_session.records import SessionRecord, SessionRef
from langswarm_session.search import MessageHit, Place, Search, SearchPage

_PAGE = 500
"""How many sessions or messages are read at a time."""


async def search_logs(storage: ISessionStorage, search: Search) -> SearchPage:
    """Search a storage that has no search of its own: read every log, page by page."""
    if search.limit < 1:
        return SearchPage([], None)
    newest: list[tuple[Place, int, MessageHit]] = []
    count = 0
    async for record in _sessions(storage, search):
        async for page in _pages(storage, record.ref):
            # Away from the event loop: messages may be long.
            for message in await asyncio.to_thread(_matching, search, page):
                hit = search.hit(record.session_id, record.user_id, message)
                if search.before is None or hit.place < search.before:
                    count += 1
                    keep = heapq.heappush if len(newest) <= search.limit else heapq.heappushpop
                    keep(newest, (hit.place, count, hit))
    return search.page([hit for _, _, hit in sorted(newest, reverse=True)])


async def _sessions(storage: ISessionStorage, search: Search) -> AsyncIterator[SessionRecord]:
    if search.session is not None:
        record = await storage.get_session(search.session)
        if search.user_id in (None, record.user_id):
            yield record
        return
    cursor: str | None = None
    while True:
        page = await storage.list_sessions(user_id=search.user_id, limit=_PAGE, cursor=cursor)
        for record in page.records:
            yield record
        cursor = page.next_cursor
        if cursor is None:
            return


def _matching(search: Search, messages: Sequence[SessionMessage]) -> list[SessionMessage]:
    return [message for message in messages if search.matches(message)]


async def _pages(
    storage: ISessionStorage, ref: SessionRef
) -> AsyncIterator[Sequence[SessionMessage]]:
    after = 0
    while True:
        try:
            page = await storage.get_messages(ref, after=after, limit=_PAGE)
        except SessionNotFoundError:  # deleted meanwhile
            return
        if page:
            yield page
        if len(page) < _PAGE:
            return
        after = page[-1].seq or after
