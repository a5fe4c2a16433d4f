"""A session as lines: everything that its record holds, in a form that any program can read.

Each line is a JSON object with a ``type``. The first is the ``session``, with the format's name
and version, its context and its figures. Then come its messages (``message``) in order, whose
``turn_id`` is the number of their turn's first message; a turn that says more than that it is
complete (``turn``: status, key, error) stands before its first message. The last line is the
``end``, which counts the messages, so that a file that was cut off is told from a whole one. Times
are ISO 8601 in UTC. The lines of several sessions follow each other. NaN and infinities, which data
of a caller's or a tool's may hold, have no form in JSON: they are written ``NaN``, ``Infinity`` and
``-Infinity``, as Python's and most lenient readers take them, and a strict reader refuses the line.

``export_session`` yields these lines; `langswarm_session.transfer.importing` brings them back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from langswarm_session.archive import TurnNote
from langswarm_session.blocks import JsonObject, Model
from langswarm_session.errors import RevisionConflictError
from langswarm_session.models import (
    SessionBackend,
    SessionMessage,
    SessionStatus,
    TurnStatus,
    UtcDatetime,
    from_micros,
    to_micros,
)
from langswarm_session.records import SessionRecord

if TYPE_CHECKING:
    from langswarm_session.interfaces import ISessionStorage
    from langswarm_session.session import BaseSession

FORMAT = "langswarm-session"
VERSION = 1
"""Moves when an older version of the package could not read the lines any more."""

_PAGE = 200
"""How many messages or notes are read at a time; messages may be large."""

_LARGEST = 2**53 - 1
"""What every JSON reader keeps exactly; and what is added to it here does not take it to 2**63."""
_Count = Field(ge=0, le=_LARGEST)


class SessionRow(Model):
    """A session's own line: what its storage keeps of it beside messages and turns."""

    session_id: str
    user_id: str
    provider: str
    model: str
    backend: SessionBackend
    status: SessionStatus
    context: JsonObject
    provider_state: JsonObject | None = None
    created_at: UtcDatetime
    last_activity: UtcDatetime
    revision: int = _Count
    last_seq: int = _Count
    message_count: int = _Count
    turn_count: int = _Count
    input_tokens: int = _Count
    output_tokens: int = _Count
    cached_tokens: int = _Count
    reasoning_tokens: int = _Count
    errors: int = _Count

    @classmethod
    def of_record(cls, record: SessionRecord) -> SessionRow:
        """The line of a storage's row.

        Raises:
            StorageCorruptError: If it holds what no storage puts there.
        """
        values = {name: getattr(record, name) for name in cls.model_fields}
        with record.decoding():
            return cls.model_validate(
                {
                    **values,
                    "context": record.context_values(),
                    "provider_state": record.provider_values() if record.provider_state else None,
                    "created_at": from_micros(record.created_at),
                    "last_activity": from_micros(record.last_activity),
                }
            )


class TurnRow(Model):
    """The line of a turn: its `TurnNote`, with a time that can be read."""

    type: Literal["turn"] = "turn"
    turn: int = Field(ge=1, le=_LARGEST)
    status: TurnStatus
    answered: bool = True
    key: str | None = None
    digest: str | None = None
    error: str | None = None
    finished_at: UtcDatetime | None = None

    @classmethod
    def of_note(cls, note: TurnNote) -> TurnRow:
        """The line of a note."""
        ended = None if note.finished_at is None else from_micros(note.finished_at)
        return cls.model_validate({**note.model_dump(), "finished_at": ended})

    def to_note(self) -> TurnNote:
        """The note of a line."""
        ended = None if self.finished_at is None else to_micros(self.finished_at)
        values = self.model_dump(exclude={"type"})
        return TurnNote.model_validate({**values, "finished_at": ended})


async def export_session(session: BaseSession) -> AsyncIterator[dict[str, Any]]:
    """The lines of a session, read as they are used: for logs larger than memory.

    What is written to the session meanwhile is left out.

    Yields:
        The lines, as plain JSON data.

    Raises:
        SessionNotFoundError: If the session was deleted.
        RevisionConflictError: If messages were removed meanwhile, so that the lines do not fit
            together; export it again.
    """
    storage, ref = session.core.storage, session.ref
    session.core.check_open()
    record = await storage.get_session(ref)
    row = SessionRow.of_record(record).model_dump(mode="json", exclude_none=True)
    yield {"type": "session", "format": FORMAT, "version": VERSION, "session": row}
    notes = _notes(storage, record)
    note = await anext(notes, None)
    count = 0
    async for message in messages_of(storage, record):
        while note is not None and note.turn <= (message.turn_id or 0):
            yield TurnRow.of_note(note).model_dump(mode="json", exclude_none=True)
            note = await anext(notes, None)
        count += 1
        yield {"type": "message", **message.model_dump(mode="json", exclude_none=True)}
    if count != record.message_count:
        now = await storage.get_session(ref)
        if now.revision != record.revision:
            raise RevisionConflictError(
                "messages were removed while it was exported; export it again",
                session_id=ref.session_id,
            )
    yield {"type": "end", "session_id": ref.session_id, "messages": count}


async def messages_of(
    storage: ISessionStorage, record: SessionRecord
) -> AsyncIterator[SessionMessage]:
    """A session's messages up to the last one of its row, oldest first."""
    after = 0
    while after < record.last_seq:
        page = await storage.get_messages(record.ref, after=after, limit=_PAGE)
        for message in page:
            after = message.seq or 0
            if after <= record.last_seq:
                yield message
        if len(page) < _PAGE:
            return


async def _notes(storage: ISessionStorage, record: SessionRecord) -> AsyncIterator[TurnNote]:
    """What is known of a session's turns as of its row, in order; the open one has a note."""
    is_open = record.turn_id if record.turn_token is not None else None
    after = 0
    while True:
        page = await storage.get_turn_notes(record.ref, after=after, limit=_PAGE)
        for note in page:
            after = note.turn
            if is_open is not None and note.turn >= is_open:
                if note.turn > is_open:
                    yield TurnNote(turn=is_open, status=TurnStatus.OPEN)
                else:
                    note = note.model_copy(update={"status": TurnStatus.OPEN})  # noqa: PLW2901
                is_open = None
            yield note
        if len(page) < _PAGE:
            break
    if is_open is not None:
        yield TurnNote(turn=is_open, status=TurnStatus.OPEN)
