"""The making of an archive, message by message, in temporary files."""

from __future__ import annotations

from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import IO, Self

from langswarm_session.archive import SessionArchive, TurnNote
from langswarm_session.models import MessageRole, SessionMessage, TurnStatus
from langswarm_session.records import SessionRecord
from langswarm_session.storage import rules

_IN_MEMORY = 4 * 2**20
"""How many bytes are kept in memory before a file is made."""


class ArchiveWriter:
    """Puts an archive together, message by message. Use it as a context manager.

    A turn that is open has nobody who would end it where the session is restored, so it is noted
    as failed.

    Attributes:
        message_count: How many messages there are.
        turn_count: In how many turns.
        closed_turns: How many turns were open.
        usage: Input, output, cached and reasoning tokens of the messages.
    """

    def __init__(self) -> None:
        self._messages = _spool()
        self._notes = _spool()
        self._note: TurnNote | None = None
        self._last_turn = 0
        self.message_count = self.turn_count = self.closed_turns = 0
        self.usage = (0, 0, 0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the archive."""
        self._messages.close()
        self._notes.close()

    def add(self, message: SessionMessage) -> None:
        """Add the next message, which has its number and turn."""
        turn = message.turn_id or 0
        if turn != self._last_turn:
            self.turn_count += 1
            self._last_turn = turn
        note = self._note
        if note is not None and note.turn < turn:
            self._write_note()
        elif note is not None and note.status is TurnStatus.OPEN:
            answered = note.answered or message.role is MessageRole.ASSISTANT
            self._note = note.model_copy(update={"answered": answered})
        self._messages.write(message.model_dump_json(exclude_none=True).encode() + b"\n")
        self.message_count += 1
        sums = rules.usage_sums([message])
        self.usage = (
            self.usage[0] + sums[0],
            self.usage[1] + sums[1],
            self.usage[2] + sums[2],
            self.usage[3] + sums[3],
        )

    def note(self, note: TurnNote) -> None:
        """Add what is known of a turn; it goes before the turn's messages."""
        self._write_note()
        if note.status is TurnStatus.OPEN:
            note = note.model_copy(update={"answered": False})
        self._note = note

    def finish(self, record: SessionRecord) -> SessionArchive:
        """Return the archive, which exists for as long as this writer."""
        self._write_note()
        if self.closed_turns:
            record = record._replace(errors=record.errors + self.closed_turns)
        return SessionArchive(record, self._messages, self._notes)

    def _write_note(self) -> None:
        note, self._note = self._note, None
        if note is None:
            return
        if note.status is TurnStatus.OPEN:
            self.closed_turns += 1
            note = note.model_copy(update={"status": TurnStatus.FAILED, "error": rules.LOST_OWNER})
        self._notes.write(note.model_dump_json(exclude_none=True).encode() + b"\n")


def _spool() -> IO[bytes]:
    return SpooledTemporaryFile(_IN_MEMORY)
