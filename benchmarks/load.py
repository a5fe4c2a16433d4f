"""The work every contender is given, and the check of what it kept of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TEXT_LENGTH = 300
"""Characters of one message."""

_PROSE = (
    " The harbour office keeps its ledger by hand: one line for a ship that comes, one line for"
    ' a ship that goes, and nobody rubs a line out. "What was written," the clerk says, "was'
    ' true when it was written." So the book grows, and the last page is always the first one'
    " that is read in the morning, whatever lies before it."
)


class Turn(NamedTuple):
    """A user's message and the assistant's answer, `TEXT_LENGTH` characters each."""

    user: str
    assistant: str

    @property
    def payload(self) -> int:
        """Bytes of text a storage cannot do without."""
        return len(self.user.encode()) + len(self.assistant.encode())


def _text(session: str, index: int, role: str) -> str:
    head = f"{session}|{index}|{role}|"
    return head + _PROSE[: TEXT_LENGTH - len(head)]


def make_turn(session: str, index: int) -> Turn:
    """The turn number `index` of `session`; both of its texts say where they belong."""
    return Turn(_text(session, index, "user"), _text(session, index, "assistant"))


def make_turns(session: str, count: int, first: int = 0) -> list[Turn]:
    """`count` turns of `session`, numbered from `first`."""
    return [make_turn(session, index) for index in range(first, first + count)]


def answer_to(user: str) -> str:
    """The assistant's text that belongs to a user's text of `make_turn`."""
    session, index, _ = user.split("|", 2)
    return _text(session, int(index), "assistant")


@dataclass
class Audit:
    """What went wrong with the turns that were acknowledged, counted by reading them back.

    Attributes:
        acknowledged: Turns whose write returned without an error.
        lost: Acknowledged turns that are not there at all.
        torn: Turns of which one half is there, acknowledged or not.
        doubled: Messages that are there more than once.
        disordered: Messages that stand before one they should follow.
    """

    acknowledged: int = 0
    lost: int = 0
    torn: int = 0
    doubled: int = 0
    disordered: int = 0

    @property
    def clean(self) -> bool:
        """Nothing lost, torn, doubled or out of order."""
        return not (self.lost or self.torn or self.doubled or self.disordered)

    def add(
        self, texts: Iterable[str], acknowledged: Iterable[int], *, open_tail: bool = False
    ) -> None:
        """Count in one session.

        Args:
            texts: What the session holds now, in its order.
            acknowledged: The turns whose write returned.
            open_tail: Whether a user's message without an answer is legitimate where the next
                turn begins: where it is stored before the answer is asked for.
        """
        places = list(_places(texts))
        counts = Counter(places)
        wanted = set(acknowledged)
        halves = Counter(index for index, _ in counts)
        lone = {index for index, number in halves.items() if number == 1}
        if open_tail:
            lone -= {index for index in lone - wanted if (index, 0) in counts}
        self.acknowledged += len(wanted)
        self.lost += len(wanted - halves.keys())
        self.torn += len(lone)
        self.doubled += sum(number - 1 for number in counts.values())
        self.disordered += sum(later < earlier for earlier, later in pairwise(places))

    def summary(self) -> str:
        """The counts in one cell, `-` where all is well."""
        names = ("lost", "torn", "doubled", "disordered")
        return ", ".join(f"{getattr(self, n)} {n}" for n in names if getattr(self, n)) or "-"


def _places(texts: Iterable[str]) -> Iterator[tuple[int, int]]:
    """(turn, 0 for the user's or 1 for the assistant's message) of each text."""
    for text in texts:
        _, index, role, _ = text.split("|", 3)
        yield int(index), int(role == "assistant")


@dataclass
class Written:
    """What a writer says of its work; goes from a child process to its parent as JSON.

    Attributes:
        acknowledged: Turn numbers whose write returned, by session.
        errors: Messages of the exceptions that writes raised, with their numbers.
        started: When the first write began, seconds of the monotonic clock.
        ended: When the last write returned, seconds of the same clock.
    """

    acknowledged: dict[str, list[int]]
    errors: dict[str, int] = field(default_factory=dict)
    started: float = 0.0
    ended: float = 0.0
