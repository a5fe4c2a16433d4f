"""What a storage reads before a write is decided, and what it writes afterwards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cached_property
from secrets import token_urlsafe
from typing import Any, Generic, NamedTuple, TypeVar

from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.records import IdempotencyKey, SessionRecord, SessionRef
from langswarm_session.storage.session_rows import NoteRow

R = TypeVar("R")


class FactsChangedError(Exception):
    """Someone else wrote to the session after its facts were read: the write is decided again."""


class Repeat(Enum):
    """Whether a write is made again because its answer was lost."""

    NO = auto()
    MAYBE = auto()
    """The first attempt may have been stored: the facts tell."""
    CERTAIN = auto()
    """The first attempt is known to be stored."""


class MessagePlace(NamedTuple):
    """The id of a stored message, and the turn that it is in."""

    id: str
    turn: int


@dataclass(slots=True)
class TurnFacts:
    """One turn of a log.

    Attributes:
        note: The storage's note on the turn, if it has one.
        roles: The roles of the turn's messages by number, oldest first; None for a damaged one.
        is_last: Whether the newest message of the log is in the turn.
        messages: The messages, oldest first, where the write asks for them.
    """

    note: NoteRow | None = None
    roles: Mapping[int, MessageRole | None] = field(default_factory=dict)
    is_last: bool = False
    messages: Sequence[SessionMessage] = ()


@dataclass(slots=True)
class Facts:
    """What a write is decided on, all of one version of the session.

    Attributes:
        record: The session.
        now: The time that leases and activity go by, in microseconds since 1970.
        stored: Those of the write's messages whose ids are stored, by id, as they are stored.
        key_turn: The turn that the write's idempotency key was used in.
        places: The ids and turns of the stored messages with the write's numbers.
        turns: The turns that `Write.turns` asks for.
        repeat: Whether the write is made again.
        version: What the storage itself needs to know again when it applies the plan.
    """

    record: SessionRecord
    now: int
    stored: Mapping[str, SessionMessage] = field(default_factory=dict)
    key_turn: int | None = None
    places: Mapping[int, MessagePlace] = field(default_factory=dict)
    turns: dict[int, TurnFacts] = field(default_factory=dict)
    repeat: Repeat = Repeat.NO
    version: Any = None

    def lapsed_turn(self) -> int | None:
        """Return the turn whose lease has run out, which the next write ends."""
        record = self.record
        is_lapsed = record.turn_token is not None and (record.turn_expires or 0) <= self.now
        return record.turn_id if is_lapsed else None


@dataclass(slots=True)
class Plan(Generic[R]):
    """What to write, all or nothing, and what the call returns then.

    Attributes:
        result: What the call returns.
        record: The session's new row; None: nothing is to be written.
        clears: Whether all messages and notes are removed.
        removed: The messages to remove: their ids by number.
        changed: Messages to put in the place of those with their numbers.
        added: New messages, with their numbers and turns.
        notes: Notes on turns, each to replace the one before, in this order: a key is given up by
            one turn before another takes it.
        forgotten: The turns whose notes are to be removed.
    """

    result: R
    record: SessionRecord | None = None
    clears: bool = False
    removed: Mapping[int, str] = field(default_factory=dict)
    changed: Sequence[SessionMessage] = ()
    added: Sequence[SessionMessage] = ()
    notes: Sequence[NoteRow] = ()
    forgotten: Collection[int] = ()


class Write(ABC, Generic[R]):
    """A write to one session.

    Attributes:
        ref: The session.
        messages: The messages whose ids are looked up: `Facts.stored`.
        key: The idempotency key that is looked up: `Facts.key_turn`.
    """

    ref: SessionRef
    messages: Sequence[SessionMessage]
    key: IdempotencyKey | None

    @cached_property
    def nonce(self) -> str:
        """A text that no other write has, to recognise this one if its answer is lost."""
        return token_urlsafe(6)

    @property
    def may_be_plain(self) -> bool:
        """Whether it can be done in one step where nothing stands in its way."""
        return False

    def result(self, record: SessionRecord) -> R:
        """Return what the call returns if the write was plain: all its messages are new.

        Args:
            record: The session after the write.
        """
        raise NotImplementedError

    @property
    def is_of_open_turn(self) -> bool:
        """Whether the write goes on with a turn that is open."""
        return False

    def numbers(self) -> Collection[int]:
        """Return the numbers of the messages that are looked up: `Facts.places`."""
        return ()

    def changed(self) -> Sequence[SessionMessage]:
        """Return the messages that are put in the place of stored ones."""
        return ()

    def turns(self, facts: Facts) -> dict[int, bool]:
        """Return the turns to read, given all other facts; and of which the messages too."""
        turn = facts.lapsed_turn()
        return {} if turn is None else {turn: False}

    @abstractmethod
    def decide(self, facts: Facts) -> Plan[R]:
        """Return what to write.

        Raises:
            SessionError: If the write is refused; see `ISessionStorage`.
        """
