"""What a manager lists: a page of sessions, a page of messages found, and all pages one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from langswarm_session.search import MessageHit
    from langswarm_session.turns.core import SessionCore


class ListedSession(Protocol):
    """A session that can be listed."""

    @property
    def core(self) -> SessionCore:
        """The session, for what reads or writes it."""


SessionT = TypeVar("SessionT", bound=ListedSession)


class SessionList(list[SessionT]):
    """Some sessions, newest activity first.

    Attributes:
        next_cursor: What to pass as ``cursor`` to get those that follow; None if none do.
    """

    def __init__(self, sessions: Sequence[SessionT], next_cursor: str | None) -> None:
        super().__init__(sessions)
        self.next_cursor = next_cursor

    def _repr_html_(self) -> str:
        return self.to_html("and more" if self.next_cursor is not None else "")

    def __rich__(self) -> Any:
        from langswarm_session._display import SESSION_COLUMNS, rich_table, session_row

        return rich_table(SESSION_COLUMNS, [session_row(session.core.record) for session in self])

    def to_html(self, note: str) -> str:
        """A table of the sessions, and something to say of them."""
        from langswarm_session._display import SESSION_COLUMNS, session_row, table_html

        return table_html(
            SESSION_COLUMNS, [session_row(session.core.record) for session in self], note
        )


class MessageHits(list["MessageHit"]):
    """Messages that were found, newest first.

    Attributes:
        next_cursor: What to pass as ``cursor`` to get those that follow; None if none do.
    """

    def __init__(self, hits: Sequence[MessageHit], next_cursor: str | None) -> None:
        super().__init__(hits)
        self.next_cursor = next_cursor


PageAt = Callable[[str | None], Awaitable[SessionList[SessionT]]]
"""Gets the page that a cursor names; the first with None."""


async def each_once(page_at: PageAt[SessionT]) -> AsyncIterator[SessionT]:
    """All sessions of a listing, newest activity first; each comes once.

    One that is written to meanwhile moves to the front of the list, which is why what moved there
    comes last.
    """
    seen: set[str] = set()
    newest: int | None = None
    while True:
        first, is_fresh = newest, False
        async with aclosing(_back_to(newest, page_at)) as sessions:
            async for session in sessions:
                activity = session.core.record.last_activity
                first = activity if first is None else max(first, activity)
                if session.core.session_id not in seen:
                    seen.add(session.core.session_id)
                    is_fresh = True
                    yield session
        newest = first
        if not is_fresh:
            return


async def _back_to(newest: int | None, page_at: PageAt[SessionT]) -> AsyncGenerator[SessionT, None]:
    """The sessions of a listing as it is now, back to those whose activity is known."""
    cursor = None
    while True:
        page = await page_at(cursor)
        for session in page:
            yield session
        cursor = page.next_cursor
        is_known = newest is not None and page and page[-1].core.record.last_activity < newest
        if cursor is None or is_known:
            return
