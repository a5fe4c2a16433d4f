"""The examination of any storage by its contract, and what the storages' own ones share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from langswarm_session.errors import StorageCorruptError
from langswarm_session.findings import Finding, ok, problem, warning
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.records import SessionRecord
from langswarm_session.storage.calls import in_thread
from langswarm_session.storage.owner import is_dead

_PAGE = 500
_NAMED = 5
"""How many sessions a finding names."""


class TimeLimit:
    """How long an examination may take, and what it is looking at.

    Args:
        seconds: How long.

    Attributes:
        seconds: How long.
        at: What is being looked at, for a message.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.at = "the connection"
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """How many seconds are left; none below zero."""
        return max(0.0, self._end - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self._end

    def finding(self) -> Finding:
        """Say that it was over, and how far the examination had come."""
        return warning(
            "time",
            f"{self.seconds:g} seconds were over at {self.at}; the rest was not looked at",
            "give it more time (--timeout), or run it when less is going on",
        )


class Reading:
    """Rows that are read one by one, and those of them that cannot be.

    Args:
        check: What they are called.
        advice: What to do where some cannot be read.

    Attributes:
        count: How many were looked at.
    """

    def __init__(self, check: str, advice: str) -> None:
        self.check = check
        self.count = 0
        self._advice = advice
        self._bad: list[str] = []

    def look(self, name: str, decode: Callable[[Any], object], row: Any) -> None:
        """Look at a row.

        Args:
            name: What it is called, if it cannot be read.
            decode: Reads it.
            row: The row.
        """
        self.count += 1
        try:
            decode(row)
        except StorageCorruptError:
            self._bad.append(name)

    def finding(self, *, is_whole: bool) -> Finding:
        """Say whether all could be read.

        Args:
            is_whole: Whether all were looked at.
        """
        if self._bad:
            first = ", ".join(self._bad[:_NAMED])
            what = f"{len(self._bad)} cannot be read: {first}"
            return problem(self.check, what, self._advice)
        if is_whole:
            return ok(self.check, "every one can be read")
        return ok(self.check, f"{self.count} were read by then, and every one of these can be")


async def examine_by_contract(storage: ISessionStorage, seconds: float) -> list[Finding]:
    """Return what can be found of any storage, by the methods that all have.

    Args:
        storage: The storage.
        seconds: How long that may take.
    """
    limit = TimeLimit(seconds)
    found: list[Finding] = []
    try:
        async with asyncio.timeout(seconds):
            async for finding in _by_contract(storage, limit):
                found.append(finding)  # noqa: PERF401 - what was found by then is kept
    except TimeoutError:
        found.append(limit.finding())
    return found


async def _by_contract(storage: ISessionStorage, limit: TimeLimit) -> AsyncIterator[Finding]:
    limit.at = "the health of the storage"
    health = await storage.health()
    if not health.ok:
        advice = "the message says what is wrong; without the storage nothing works"
        yield problem("storage", health.detail or "it does not answer", advice)
        return
    yield ok("storage", f"{health.sessions} sessions and {health.messages} messages")
    limit.at = "the open turns"
    leases = [
        (record.session_id, record.turn_owner, record.turn_expires)
        async for record in _records(storage)
        if record.turn_token is not None
    ]
    yield await in_thread(open_turns, leases, time.time_ns() // 1000)


async def _records(storage: ISessionStorage) -> AsyncIterator[SessionRecord]:
    cursor: str | None = None
    while True:
        page = await storage.list_sessions(limit=_PAGE, cursor=cursor)
        for record in page.records:
            yield record
        cursor = page.next_cursor
        if cursor is None:
            return


def open_turns(leases: Iterable[tuple[str, str | None, int | None]], now: int) -> Finding:
    """What there is to say of the turns that are open.

    Args:
        leases: Session, owner and end of each lease.
        now: The time that the ends go by, in microseconds since 1970.
    """
    running, left = 0, []
    for session_id, owner, expires in leases:
        if is_dead(owner) or expires is None or expires <= now:
            left.append(session_id)
        else:
            running += 1
    if not left:
        return ok("open turns", f"{running} running, none left behind")
    return warning(
        "open turns",
        f"{running} running, {len(left)} left behind by processes that ended: {named(left)}",
        "nothing has to be done: the next turn in such a session notes the old one as failed",
    )


def named(sessions: list[str]) -> str:
    """The first few of the sessions, for a message."""
    more = f" and {len(sessions) - _NAMED} more" if len(sessions) > _NAMED else ""
    return ", ".join(map(repr, sessions[:_NAMED])) + more


@dataclass(frozen=True, slots=True)
class LogFigures:
    """How a storage's figures and its logs fit together.

    Attributes:
        miscounted: Sessions whose row counts other messages than there are, or has a figure that
            is no count.
        lost_messages: Messages without a session.
        lost_notes: Notes of turns without a session, or without a message.
    """

    miscounted: list[str]
    lost_messages: int
    lost_notes: int


def figures(found: LogFigures) -> Finding:
    """What there is to say of figures and logs."""
    wrong = []
    if found.miscounted:
        wrong.append(f"{len(found.miscounted)} sessions are miscounted: {named(found.miscounted)}")
    if found.lost_messages:
        wrong.append(f"{found.lost_messages} messages belong to no session")
    if found.lost_notes:
        wrong.append(f"{found.lost_notes} notes on turns belong to none")
    if not wrong:
        return ok("figures", "they fit the logs")
    return problem(
        "figures",
        "; ".join(wrong),
        "another program wrote to the database, or this is a bug: make a copy of it and report it",
    )
