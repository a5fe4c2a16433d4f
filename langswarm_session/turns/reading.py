"""Reading a session's log: its current messages, all of them, and the window that is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from langswarm_session.models import SessionMessage
from langswarm_session.requests import window
from langswarm_session.requests.state import RequestState
from langswarm_session.storage.replacements import CurrentLog

if TYPE_CHECKING:
    from langswarm_session.requests.normalize.target import Target
    from langswarm_session.turns.core import SessionCore

_PAGE = 500
"""How many messages `iter_messages` reads at a time."""


async def current_messages(core: SessionCore, limit: int | None) -> list[SessionMessage]:
    """Return the newest messages, or all, without those that a compaction replaced."""

    async def read(limit: int, before: int | None) -> list[SessionMessage]:
        return await core.storage.get_messages(core.ref, limit=limit, before=before)

    return await CurrentLog(read).newest(limit)


async def iter_messages(core: SessionCore, after: int = 0) -> AsyncIterator[SessionMessage]:
    """Yield all messages behind a number, oldest first, read as they are used."""
    core.check_open()
    while True:
        page = await core.storage.get_messages(core.ref, after=after, limit=_PAGE)
        for message in page:
            yield message
        if len(page) < _PAGE:
            return
        after = page[-1].seq or after


async def read_window(core: SessionCore, target: Target | None) -> window.Window:
    """Return the window as of the last call; see `BaseSession.read_window`."""
    core.check_open()
    context, before = core.context, core.record.last_seq + 1
    beginning = window.Beginning.of(RequestState.of(context), context, before, target)
    limit = context.max_messages
    loaded = await window.load(core.storage, core.ref, beginning, before=before, max_messages=limit)
    newest = window.cut(loaded.messages, limit)
    if newest.start is None and beginning.moved is not None:
        newest = newest._replace(start=beginning.start, reason=beginning.moved)
    return newest._replace(messages=window.with_summary(newest.messages, context))
