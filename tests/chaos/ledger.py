"""What writers write, and what they said became of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

WHOLE = {"append": 4, "steps": 3, "send": 2, "stream": 2, "keyed": 2}
"""How many messages a whole turn of each kind has."""


def said(writer: str, number: int, part: int) -> str:
    """The text of one message: who wrote it, the turn's number, its place in the turn.

    The lengths differ, so that turns lie across pages, and some have a NUL.
    """
    filler = "xyzäöü\u2028" * (number % 7 * 100)
    return f"{writer} {number} {part} {filler}" + "\0" * (number % 5 == 4)


def parse(text: str) -> tuple[str, int, int]:
    """Writer, number and part of a text, of which the end may be missing."""
    writer, number, part = text.split(" ", 3)[:3]
    return writer, int(number), int(part)


@dataclass
class Ledger:
    """What writers said, by session.

    Attributes:
        kinds: Which kind of turn each writer writes to each session.
        kept: The turns that were acknowledged, as (writer, number).
        asked: Those whose first message was acknowledged.
        errors: How often each error was raised, by its class.
        messages: One message of each class.
    """

    kinds: dict[tuple[str, str], str] = field(default_factory=dict)
    kept: dict[str, set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))
    asked: dict[str, set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))
    errors: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)

    @property
    def sessions(self) -> list[str]:
        """The sessions that are known to have been created."""
        return sorted({session for session, _ in self.kinds})

    @property
    def acknowledged(self) -> int:
        """How many turns were acknowledged."""
        return sum(map(len, self.kept.values()))

    def note(self, line: list[Any]) -> None:
        """Take down a line that a writer said."""
        match line:
            case ["created", session]:
                # It was not there (any more): what was in the one before is gone with its file.
                self.kept[session].clear()
                self.asked[session].clear()
            case ["session", session, writer, kind]:
                self.kinds[session, writer] = kind
            case ["kept", session, writer, number]:
                self.kept[session].add((writer, number))
            case ["asked", session, writer, number]:
                self.asked[session].add((writer, number))
            case ["error", name, message]:
                self.errors[name] += 1
                self.messages.setdefault(name, message)

    def add(self, others: Iterable[Ledger]) -> Ledger:
        """Take over what others have; returns itself."""
        for other in others:
            self.kinds.update(other.kinds)
            for session, turns in other.kept.items():
                self.kept[session] |= turns
            for session, turns in other.asked.items():
                self.asked[session] |= turns
            self.errors.update(other.errors)
            for name, message in other.messages.items():
                self.messages.setdefault(name, message)
        return self
