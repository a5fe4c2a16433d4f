"""What there is to compare in each database, and what is wanted of ours there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.contenders import CONTENDERS, POSTGRES, POSTGRES_RAW, RAW, Contender
from benchmarks.contenders.listers import LISTERS, Lister
from benchmarks.contenders.postgres_listers import POSTGRES_LISTERS
from benchmarks.places import Files, Places, Schemas, default_dsn

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Goals:
    """What ours shall reach; None where nothing is wanted.

    Attributes:
        append: Time of an append, against the fastest peer.
        append_raw: The same, against the limit.
        sessions: Turns a second of many sessions, against the fastest peer.
        processes: Turns a second of many processes, against the fastest peer.
        read: Time to read a whole log, against the fastest peer.
        read_dicts: The same, against the fastest peer that returns dicts.
        read_typed: How many times faster than the fastest typed peer.
        newest_raw: Time to read the newest messages, against the limit.
        turn_raw: Time of a whole turn, against the limit's commit.
        listing: Time to list a user's sessions, in milliseconds.
        listing_peer: How many times faster that is than the fastest peer.
    """

    append: float
    sessions: float
    processes: float
    append_raw: float | None = None
    read: float | None = None
    read_dicts: float | None = None
    read_typed: float | None = None
    newest_raw: float | None = None
    turn_raw: float | None = None
    listing: float | None = None
    listing_peer: float | None = None


@dataclass(frozen=True)
class Backend:
    """A database.

    Attributes:
        name: What ``--backend`` calls it.
        title: What the tables call it.
        contenders: The rows of most tables.
        raw: The limit among them.
        listers: Those that can list sessions.
        goals: What is wanted of ours.
        sections: The sections that can be measured in it; None for all.
        grows_log: Whether a young database has a log that has yet to reach its full size.
    """

    name: str
    title: str
    contenders: tuple[Contender, ...]
    raw: Contender
    listers: tuple[type[Lister], ...]
    goals: Goals
    sections: tuple[str, ...] | None = None
    grows_log: bool = False

    def places(self, folder: Path) -> Places:
        """Where the contenders of a run keep what they store."""
        return Schemas(default_dsn()) if self is POSTGRESQL else Files(folder)


SQLITE = Backend(
    "sqlite",
    "SQLite",
    CONTENDERS,
    RAW,
    LISTERS,
    Goals(
        append=0.6,
        append_raw=1.7,
        sessions=10,
        processes=5,
        read_dicts=1.2,
        read_typed=2,
        newest_raw=2.5,
        turn_raw=4,
        listing=0.5,
        listing_peer=5,
    ),
    grows_log=True,
)
POSTGRESQL = Backend(
    "postgres",
    "PostgreSQL",
    POSTGRES,
    POSTGRES_RAW,
    POSTGRES_LISTERS,
    Goals(append=0.35, sessions=12, processes=8, read=0.5),
    sections=("length", "sessions", "processes", "listing", "readers", "turn", "memory", "kill"),
)
BACKENDS = {backend.name: backend for backend in (SQLITE, POSTGRESQL)}
