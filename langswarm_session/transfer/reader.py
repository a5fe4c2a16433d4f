"""Read the lines that `langswarm_session.transfer.exporting` writes, and check each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from langswarm_session._validation import check_id, check_name, describe
from langswarm_session.archive import SessionArchive
from langswarm_session.errors import ImportFormatError, InvalidInputError
from langswarm_session.models import SessionContext, SessionMessage, to_micros
from langswarm_session.records import SessionRecord
from langswarm_session.requests.provider_state import STATE_KEYS
from langswarm_session.storage.rows import dump_json, encode_message
from langswarm_session.transfer.archive_writer import ArchiveWriter
from langswarm_session.transfer.exporting import FORMAT, VERSION, SessionRow, TurnRow
from langswarm_session.transfer.local_paths import without_local_paths

STATE_LEFT_OUT = (
    "the conversation that a provider keeps is left out: it may not be this session's; a backup of "
    "your own keeps it with trusted=True (--trusted)"
)
PATHS_LEFT_OUT = (
    "paths of local files in its messages were dropped: they would be read on this machine; a "
    "backup of your own keeps them with trusted=True (--trusted)"
)

_CLOSED = "a turn that was open is noted as failed: nobody is left to end it"

_MISCOUNTED = "its messages were miscounted where it came from, and are counted anew"


@dataclass(slots=True)
class ReadSession:
    """A session that was read, and is right.

    Attributes:
        writer: What keeps the archive; to be closed after use.
        archive: The session.
        source_id: Its id where it came from; None where it had none.
        notes: What is not as it was.
    """

    writer: ArchiveWriter
    archive: SessionArchive
    source_id: str | None
    notes: list[str] = field(default_factory=list)


class SessionReader:
    """Reads the lines of one session and holds them to what they must be.

    Args:
        trusted: Whether messages may name local files.
    """

    def __init__(self, *, trusted: bool = False) -> None:
        self._trusted = trusted
        self._writer = ArchiveWriter()
        self._notes: dict[str, None] = {}
        self._row: SessionRow | None = None
        self._last_seq = self._last_turn = self._last_note = 0
        self._ids: set[str] = set()
        self._keys: set[str] = set()

    def read(self, number: int, line: Mapping[str, Any]) -> ReadSession | None:
        """Take a line in; returns the session at its end.

        Raises:
            ImportFormatError: If it is not what must follow.
        """
        try:
            return self._read(dict(line))
        except ValueError as error:
            raise self.wrong(reason_of(error), number) from None

    def wrong(self, reason: str, number: int | None) -> ImportFormatError:
        """What is wrong, and where."""
        session_id = None if self._row is None else self._row.session_id
        return ImportFormatError(reason, session_id=session_id, line=number)

    def close(self) -> None:
        """Let go of what was read."""
        self._writer.close()

    def _read(self, line: dict[str, Any]) -> ReadSession | None:
        kind = line.pop("type", None)
        if (kind == "session") != (self._row is None):
            raise InvalidInputError(
                "a session begins before the one before it has ended"
                if kind == "session"
                else "this belongs to a session, and none has begun"
            )
        if kind == "session":
            self._begin(line)
        elif kind == "message":
            self._message(SessionMessage.model_validate(line))
        elif kind == "turn":
            self._turn(TurnRow.model_validate(line))
        elif kind == "end":
            return self._end(line)
        else:
            raise InvalidInputError(f"there is no line of the type {kind!r}")
        return None

    def _begin(self, line: Mapping[str, Any]) -> None:
        version = line.get("version")
        if line.get("format") != FORMAT or type(version) is not int:
            raise InvalidInputError(f"it is no session of the format {FORMAT}")
        if version > VERSION:
            raise InvalidInputError(
                f"it has version {version} of the format, and this version of langswarm-session "
                f"knows up to {VERSION}; upgrade the package"
            )
        row = SessionRow.model_validate(line.get("session"))
        row = self._without_state(row)
        check_id(row.session_id, "session_id")
        check_id(row.user_id, "user_id")
        check_name(row.provider, "provider")
        check_name(row.model, "model")
        SessionContext.model_validate(
            {
                **row.context,
                **(row.provider_state or {}),
                **row.model_dump(include={"session_id", "user_id", "provider", "model"}),
            }
        )
        self._row = row

    def _without_state(self, row: SessionRow) -> SessionRow:
        """Return the row without a provider's state among the context's own keys.

        No export puts it there, and a session would go on with whatever conversation it names.
        """
        context = {name: value for name, value in row.context.items() if name not in STATE_KEYS}
        if len(context) == len(row.context):
            return row
        self._notes[STATE_LEFT_OUT] = None
        return row.model_copy(update={"context": context})

    def _message(self, message: SessionMessage) -> None:
        assert self._row is not None
        seq, turn = message.seq, message.turn_id
        if seq is None or turn is None:
            raise InvalidInputError("the message has no seq or no turn_id")
        if not self._last_seq < seq <= self._row.last_seq:
            raise InvalidInputError(f"the message's seq {seq} does not follow {self._last_seq}")
        if not max(1, self._last_turn) <= turn <= seq:
            raise InvalidInputError(f"the turn {turn} of message {seq} is not in order")
        self._check_noted(turn)
        if message.id in self._ids:
            raise InvalidInputError(f"the message id {message.id!r} comes twice")
        kept = message if self._trusted else without_local_paths(message)
        if kept is not message:
            self._notes[PATHS_LEFT_OUT] = None
        encode_message(kept)
        self._ids.add(message.id)
        self._last_seq, self._last_turn = seq, turn
        self._writer.add(kept)

    def _turn(self, row: TurnRow) -> None:
        if row.turn <= max(self._last_turn, self._last_note):
            raise InvalidInputError(f"what is said of turn {row.turn} does not go before it")
        if row.key is not None and row.key in self._keys:
            raise InvalidInputError(f"the idempotency key of turn {row.turn} comes twice")
        for text in (row.key, row.digest, row.error):
            dump_json(text)
        self._check_noted(None)
        if row.key is not None:
            self._keys.add(row.key)
        self._last_note = row.turn
        self._writer.note(row.to_note())

    def _check_noted(self, turn: int | None) -> None:
        """Raises InvalidInputError if a turn that something was said of has no message."""
        if self._last_note not in (self._last_turn, turn) and self._last_note > self._last_turn:
            raise InvalidInputError(f"turn {self._last_note} has no message")

    def _end(self, line: Mapping[str, Any]) -> ReadSession:
        row = self._row
        assert row is not None
        self._check_noted(None)
        count = self._writer.message_count
        expected = line.get("messages")
        if expected != count:
            raise InvalidInputError(
                f"there are {count} messages, and {expected} there should be: some are missing"
            )
        archive = self._writer.finish(_record(row)._replace(message_count=count))
        notes = [*self._notes, *([_CLOSED] if self._writer.closed_turns else [])]
        if row.message_count != count:
            notes.append(_MISCOUNTED)
        return ReadSession(self._writer, archive, row.session_id, notes)


def _record(row: SessionRow) -> SessionRecord:
    """The row as a storage is to keep it."""
    values = row.model_dump(mode="python")
    values["context"] = dump_json(row.context)
    values["provider_state"] = None if row.provider_state is None else dump_json(row.provider_state)
    values["created_at"] = to_micros(row.created_at)
    values["last_activity"] = to_micros(row.last_activity)
    values["backend"], values["status"] = row.backend.value, row.status.value
    return SessionRecord(**values)


def reason_of(error: ValueError) -> str:
    """What is wrong, in one line; a pydantic error is a ValueError too."""
    return describe(error) if isinstance(error, ValidationError) else str(error)
