"""Sessions from lines: those of `langswarm_session.transfer.exporting`, and those of OpenAI's APIs.

Nothing is written of a session before all of it was read and found to be right; then all of it is
written at once. Neither middleware nor hooks for messages see what is imported, since it is a
record already; the hook for a new session does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from langswarm_session._validation import check_id, check_name
from langswarm_session.errors import (
    ImportFormatError,
    InvalidInputError,
    SessionError,
    SessionExistsError,
    SessionNotFoundError,
)
from langswarm_session.formats import openai_transcripts as transcripts
from langswarm_session.models import SessionMessage, new_id
from langswarm_session.records import SessionRecord
from langswarm_session.session import announce
from langswarm_session.transfer.exporting import FORMAT
from langswarm_session.transfer.foreign import of_chat, of_thread
from langswarm_session.transfer.jsonlines import Lines, objects
from langswarm_session.transfer.reader import (
    STATE_LEFT_OUT,
    ReadSession,
    SessionReader,
    reason_of,
)

if TYPE_CHECKING:
    from langswarm_session.manager import SessionManager

_KINDS = (
    "it is none of: a line of `export`, a conversation of OpenAI's chat format (an object with "
    "`messages`), messages of an OpenAI thread"
)


class OnConflict(StrEnum):
    """What to do about a session whose id is taken."""

    FAIL = "fail"
    """It is an error."""
    SKIP = "skip"
    """The one that is there stays as it is."""
    NEW_ID = "new-id"
    """It gets another id."""


@dataclass(frozen=True, slots=True)
class ImportedSession:
    """What became of one session.

    Attributes:
        session_id: Its id here.
        source_id: Its id where it came from; None where it had none.
        user_id: Whose it is.
        messages: How many messages it has.
        turns: In how many turns.
        skipped: Whether it was left out because its id is taken.
        notes: What is not as it was.
        error: Why it was not imported.
    """

    session_id: str
    source_id: str | None
    user_id: str
    messages: int
    turns: int
    skipped: bool = False
    notes: tuple[str, ...] = ()
    error: SessionError | None = None


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How sessions are imported.

    Attributes:
        user_id: Whose they become; None: whose they were, or ``default`` where nobody says.
        session_id: The id of the only one there is; None: what it was.
        on_conflict: What to do where the id is taken.
        dry_run: Whether all is read and checked, and nothing is written.
        provider: Who answers in a conversation whose format does not say so.
        model: With which model.
        trusted: Whether the lines are a backup of your own, unchanged. Then a session that keeps
            its id and user continues the conversation that a provider keeps, and messages keep
            the names of local files, which frameworks read. Never for what users hand in.
    """

    user_id: str | None = None
    session_id: str | None = None
    on_conflict: OnConflict = OnConflict.FAIL
    dry_run: bool = False
    provider: str = "none"
    model: str = "none"
    trusted: bool = False

    def __post_init__(self) -> None:
        if self.user_id is not None:
            check_id(self.user_id, "user_id")
        if self.session_id is not None:
            check_id(self.session_id, "session_id")
        check_name(self.provider, "provider")
        check_name(self.model, "model")
        try:
            object.__setattr__(self, "on_conflict", OnConflict(self.on_conflict))
        except ValueError as error:
            raise InvalidInputError(f"on_conflict: {error}") from None


async def import_session(
    manager: SessionManager, lines: Lines, options: ImportOptions | None = None
) -> ImportedSession:
    """Import the one session that there is in lines; see `import_sessions`.

    Raises:
        ImportFormatError: If there is none, or more than one; the first has been imported then.
        SessionExistsError: If its id is taken, and that is an error.
        SessionStorageError
    """
    options = options or ImportOptions()
    imported: ImportedSession | None = None
    async for each in import_sessions(manager, lines, options):
        if imported is not None:
            raise ImportFormatError("there is more than one session; use import_sessions()")
        if each.error is not None:
            raise each.error
        imported = each
    if imported is None:
        raise ImportFormatError("there is no session in it")
    return imported


async def import_sessions(
    manager: SessionManager, lines: Lines, options: ImportOptions | None = None
) -> AsyncIterator[ImportedSession]:
    """Import sessions, one by one as they are read; each is written whole, or not at all.

    A second run goes on where the first one ended, with `OnConflict.SKIP`.

    Args:
        manager: Where to.
        lines: The lines of `export_session`; objects with ``messages`` in OpenAI's chat format; or
            messages of OpenAI threads, as the Assistants API listed them. A JSON document of any
            of these may span several lines.
        options: How.

    Yields:
        What became of each; with an error if its id is taken and that is an error.

    Raises:
        ImportFormatError: At what cannot be imported. The sessions before it have been.
        SessionStorageError
    """
    manager.core.check_open()
    options = options or ImportOptions()
    names: set[str] = set()
    async for found in _found(lines, options):
        with found.writer:
            _rename(found, options)
            if options.session_id is not None and names:
                raise ImportFormatError("there is more than one session, and one id for it")
            imported = await _keep(manager, found, options, names)
            names.add(imported.session_id)
            yield imported


async def _keep(
    manager: SessionManager, found: ReadSession, options: ImportOptions, names: set[str]
) -> ImportedSession:
    storage, archive = manager.storage, found.archive
    skipped, error = False, None
    try:
        if options.dry_run:
            name = archive.record.session_id
            if name in names or await _exists(manager, name):
                raise SessionExistsError("the id is taken", session_id=name)
        else:
            await announce(manager, await storage.restore_session(archive))
    except SessionExistsError as taken:
        if options.on_conflict is OnConflict.NEW_ID:
            renamed = archive.record._replace(session_id=new_id())
            found.archive.record = _apart(renamed, found.notes)
            return await _keep(manager, found, options, names)
        skipped = options.on_conflict is OnConflict.SKIP
        error = None if skipped else taken
    record = found.archive.record
    return ImportedSession(
        record.session_id,
        found.source_id,
        record.user_id,
        found.writer.message_count,
        found.writer.turn_count,
        skipped,
        tuple(found.notes),
        error,
    )


async def _exists(manager: SessionManager, session_id: str) -> bool:
    try:
        await manager.storage.find_session(session_id)
    except SessionNotFoundError:
        return False
    return True


def _rename(found: ReadSession, options: ImportOptions) -> None:
    """Give a session the user and the id that were asked for."""
    before = found.archive.record
    record = before._replace(
        user_id=before.user_id if options.user_id is None else options.user_id,
        session_id=before.session_id if options.session_id is None else options.session_id,
    )
    if not options.trusted or record != before:
        record = _apart(record, found.notes)
    found.archive.record = record


def _apart(record: SessionRecord, notes: list[str]) -> SessionRecord:
    """Return the row without what a provider keeps, which stays with the session it came from."""
    if record.provider_state is None:
        return record
    if STATE_LEFT_OUT not in notes:
        notes.append(STATE_LEFT_OUT)
    return record._replace(provider_state=None)


async def _found(lines: Lines, options: ImportOptions) -> AsyncIterator[ReadSession]:
    """The sessions of lines of any kind."""
    threads = transcripts.Threads()
    own: SessionReader | None = None
    try:
        async for number, record in objects(lines):
            if own is not None or record.get("type") == "session":
                own = own or SessionReader(trusted=options.trusted)
                found = own.read(number, record)
                if found is not None:
                    own = None
                    yield found
            elif record.get("format") == FORMAT:
                for document in _document(number, record):
                    yield _of_document(number, document, trusted=options.trusted)
            elif _is_chat(record):
                yield of_chat(number, record, options)
            else:
                _add(threads, number, record)
        if own is not None:
            raise own.wrong("the file is cut off: the session has no end", None)
    finally:
        if own is not None:
            own.close()
    for thread_id, messages in _threads(threads):
        yield of_thread(thread_id, messages, threads.is_cut_off, options)


def _is_chat(record: Mapping[str, Any]) -> bool:
    messages = record.get("messages")
    return isinstance(messages, list) and not any(map(transcripts.is_thread_message, messages))


def _add(threads: transcripts.Threads, number: int, record: Mapping[str, Any]) -> None:
    try:
        if threads.add(record):
            return
    except ValueError as error:
        raise ImportFormatError(str(error), line=number) from None
    raise ImportFormatError(_KINDS, line=number)


def _threads(threads: transcripts.Threads) -> Iterator[tuple[str, list[SessionMessage]]]:
    try:
        for thread_id, messages in threads.by_thread():
            yield check_id(thread_id, "thread_id"), messages
    except ValueError as error:
        raise ImportFormatError(reason_of(error)) from None


def _of_document(number: int, lines: Iterator[dict[str, Any]], *, trusted: bool) -> ReadSession:
    """Return a session of a JSON document of `export`."""
    reading = SessionReader(trusted=trusted)
    try:
        for line in lines:
            found = reading.read(number, line)
            if found is not None:
                return found
        raise reading.wrong("the session has no end", number)
    except ImportFormatError:
        reading.close()
        raise


def _document(number: int, record: Mapping[str, Any]) -> Iterator[Iterator[dict[str, Any]]]:
    """The lines of each session in a JSON document of `export`."""
    sessions = record.get("sessions")
    if not isinstance(sessions, list) or not all(isinstance(each, dict) for each in sessions):
        raise ImportFormatError("the document has no list of sessions", line=number)
    head = {"type": "session", "format": FORMAT, "version": record.get("version")}
    for each in sessions:
        yield _lines_of(head, each)


def _lines_of(head: dict[str, Any], session: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield {**head, "session": session.get("session")}
    lines = session.get("log")
    yield from lines if isinstance(lines, list) else ()
    yield {"type": "end", "messages": session.get("messages")}
