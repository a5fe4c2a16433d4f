"""A whole session outside of any storage: its row, its messages and what is known of its turns.

The messages wait in a temporary file, so that a session may be larger than memory, and can be read
as often as a storage has to try.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from langswarm_session.blocks import Model
from langswarm_session.models import SessionMessage, TurnStatus
from langswarm_session.records import SessionRecord


class TurnNote(Model):
    """What is known of a turn beyond that it is complete. Only turns with more to say have one.

    Attributes:
        turn: The sequence number of the turn's first message.
        status: How it stands.
        answered: Whether it belongs in the window.
        key: The caller's idempotency key.
        digest: Of what the turn was asked under that key; None where it is not known.
        error: Why it was cancelled or failed.
        finished_at: When it ended, in microseconds since 1970; None for when its last message was
            made.
    """

    turn: int
    status: TurnStatus
    answered: bool = True
    key: str | None = None
    digest: str | None = None
    error: str | None = None
    finished_at: int | None = None


@dataclass(slots=True)
class SessionArchive:
    """A session to be restored as it was.

    Attributes:
        record: Its row, with the figures that the storage is to keep. No turn is open.
    """

    record: SessionRecord
    _messages: IO[bytes]
    _notes: IO[bytes]

    def messages(self) -> Iterator[SessionMessage]:
        """Its messages with their numbers and turns, oldest first. May be read again."""
        for line in _lines(self._messages):
            yield SessionMessage.model_validate_json(line)

    def notes(self) -> Iterator[TurnNote]:
        """What is known of its turns, oldest first. May be read again."""
        for line in _lines(self._notes):
            yield TurnNote.model_validate_json(line)


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """The file's lines, each read where the one before ended, so that two may read at once."""
    place = 0
    while True:
        file.seek(place)
        line = file.readline()
        if not line:
            return
        place = file.tell()
        yield line
