"""What a contender must be able to do to be measured."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.load import Turn


class UnsupportedError(Exception):
    """The contender has no way to do this; the message says what it has instead."""


class Store(ABC):
    """One open database of one contender, with that contender's own defaults.

    Attributes:
        place: Where it is; set by `Bench.stores`.
    """

    place: str

    @classmethod
    @abstractmethod
    async def open(cls, place: str) -> Self:
        """Open the database, new or not.

        Args:
            place: The path of a file; or the address of a schema, as `benchmarks.places` has it.
        """

    @abstractmethod
    async def begin(self, session: str) -> None:
        """Make a session ready for its first turn, whatever that takes; never timed."""

    @abstractmethod
    async def append_turn(self, session: str, turn: Turn) -> None:
        """Store one turn; durable when it returns, as far as the contender promises that."""

    async def preload(self, session: str, turns: Sequence[Turn]) -> None:
        """Store many turns as cheaply as the contender's API can; never timed."""
        for turn in turns:
            await self.append_turn(session, turn)

    @abstractmethod
    async def read_all(self, session: str) -> Sequence[Any]:
        """All messages of a session, in order, as the contender gives them."""

    async def newest(self, session: str, count: int) -> Sequence[Any]:
        """The newest messages of a session, in order."""
        raise UnsupportedError("no")

    @staticmethod
    @abstractmethod
    def text(message: Any) -> str:
        """The text of a message that `read_all` gave."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the database."""


class Kind(StrEnum):
    """The part a contender plays."""

    OURS = "ours"
    PEER = "peer"
    LIMIT = "limit"
    TRIED = "tried"


@dataclass(frozen=True)
class Contender:
    """One row of the tables.

    Attributes:
        name: What the row is called.
        kind: The part it plays.
        place: Where its `Store` is, `module:class`; imported when it is its turn, so that one
            whose package is missing is a row that says so.
        reads: What `read_all` gives: typed messages, dicts, or decoded JSON.
        grows: Whether the cost of a turn grows with the conversation, so that lengths and
            counts must be cut for it.
        answers: Whether it stores a user's message first and has it answered then, so that a
            message without an answer is what a killed process may rightly leave.
        slow: Whether it is so slow, to start or to write, that a quick run leaves it out
            where everybody costs seconds.
        wal: Whether its file has a write-ahead log.
    """

    name: str
    kind: Kind
    place: str
    reads: str
    grows: bool = False
    answers: bool = False
    slow: bool = False
    wal: bool = True

    def load(self) -> type[Store]:
        """The adapter.

        Raises:
            ImportError: If a package is not installed.
        """
        module, _, name = self.place.partition(":")
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]

    @property
    def label(self) -> str:
        """The name as the tables print it."""
        return (
            self.name
            if self.kind in (Kind.OURS, Kind.PEER)
            else f"*{self.kind.value}*: {self.name}"
        )
