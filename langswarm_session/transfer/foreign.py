"""Conversations of other programs' formats as sessions that can be restored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from operator import is_not
from typing import Any, Protocol

from langswarm_session._validation import check_id
from langswarm_session.errors import ImportFormatError, InvalidInputError
from langswarm_session.formats import openai_transcripts as transcripts
from langswarm_session.models import (
    MessageRole,
    SessionBackend,
    SessionMessage,
    SessionStatus,
    new_id,
    to_micros,
    utc_now,
)
from langswarm_session.records import SessionRecord
from langswarm_session.storage.rows import dump_json, encode_message
from langswarm_session.transfer.archive_writer import ArchiveWriter
from langswarm_session.transfer.local_paths import without_local_paths
from langswarm_session.transfer.reader import PATHS_LEFT_OUT, ReadSession, reason_of


class Options(Protocol):
    """What of the import's options these conversations need."""

    @property
    def provider(self) -> str:
        """Who answers."""

    @property
    def model(self) -> str:
        """With which model."""

    @property
    def trusted(self) -> bool:
        """Whether messages may name local files."""


def of_chat(number: int, record: Mapping[str, Any], options: Options) -> ReadSession:
    """A conversation of OpenAI's chat format."""
    given = record.get("id")
    try:
        moment = utc_now()
        messages = [transcripts.from_chat(each, moment) for each in record["messages"]]
        if given is not None:
            check_id(given, "id")
    except ValueError as error:
        raise ImportFormatError(reason_of(error), line=number) from None
    notes = ["its format has no times: that of the import stands for them"]
    others = {name: value for name, value in record.items() if name not in ("id", "messages")}
    return _foreign(given, messages, options, notes, {"imported": others} if others else {})


def of_thread(
    thread_id: str, messages: list[SessionMessage], cut_off: bool, options: Options
) -> ReadSession:
    """A thread of OpenAI's Assistants API."""
    notes = ["calls of tools are not in a thread's messages"]
    if cut_off:
        notes.append("the listing says that there are more messages (has_more): this is not all")
    return _foreign(thread_id, messages, options, notes, {"openai_thread_id": thread_id})


def _foreign(
    source_id: str | None,
    messages: list[SessionMessage],
    options: Options,
    notes: list[str],
    context: Mapping[str, Any],
) -> ReadSession:
    if not options.trusted:
        cleaned = [_without_paths(message) for message in messages]
        if any(map(is_not, cleaned, messages)):
            notes.append(PATHS_LEFT_OUT)
        messages = cleaned
    _check_foreign(messages)
    writer = ArchiveWriter()
    turn, before = 1, MessageRole.USER
    for seq, message in enumerate(messages, 1):
        # A turn is what a user says and all that answers it.
        if message.role is MessageRole.USER and before is not MessageRole.USER:
            turn = seq
        before = message.role
        writer.add(message.replaced(seq=seq, turn_id=turn))
    times = [message.timestamp for message in messages] or [utc_now()]
    record = _new_record(source_id, writer, options, min(times), max(times), context)
    return ReadSession(writer, writer.finish(record), source_id, notes)


def _without_paths(message: SessionMessage) -> SessionMessage:
    """Return the message without local paths, and without its original, which has them too."""
    cleaned = without_local_paths(message)
    return message if cleaned is message else cleaned.replaced(native=None)


def _check_foreign(messages: Iterable[SessionMessage]) -> None:
    """Raises ImportFormatError if the messages cannot be stored as they are."""
    ids: set[str] = set()
    for message in messages:
        if message.id in ids:
            raise ImportFormatError(f"the message id {message.id!r} comes twice")
        ids.add(message.id)
        try:
            encode_message(message)
        except InvalidInputError as error:
            raise ImportFormatError(str(error)) from None


def _new_record(
    source_id: str | None,
    writer: ArchiveWriter,
    options: Options,
    created: datetime,
    last: datetime,
    context: Mapping[str, Any],
) -> SessionRecord:
    sums = writer.usage
    return SessionRecord(
        session_id=source_id or new_id(),
        user_id="default",
        provider=options.provider,
        model=options.model,
        backend=SessionBackend.PROVIDER_NATIVE.value,
        status=SessionStatus.ACTIVE.value,
        context=dump_json(dict(context)),
        provider_state=None,
        created_at=to_micros(created),
        last_activity=to_micros(last),
        revision=1,
        last_seq=writer.message_count,
        message_count=writer.message_count,
        turn_count=writer.turn_count,
        input_tokens=sums[0],
        output_tokens=sums[1],
        cached_tokens=sums[2],
        reasoning_tokens=sums[3],
        errors=0,
    )
