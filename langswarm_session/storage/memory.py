"""Sessions in this process's memory: for development and tests, gone when the process is."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from langswarm_session.errors import SessionError, StorageClosedError
from langswarm_session.models import (
    MessageRole,
    SessionMessage,
    SessionStatus,
    Turn,
    TurnStatus,
    from_micros,
    to_micros,
)
from langswarm_session.records import (
    LogMeasure,
    NewSession,
    SessionPage,
    SessionRecord,
    SessionRef,
    StorageHealth,
)
from langswarm_session.storage import rules
from langswarm_session.storage.base import StorageBase
from langswarm_session.storage.decisions import Facts, MessagePlace, Plan, TurnFacts, Write
from langswarm_session.storage.measuring import has_several_results
from langswarm_session.storage.rows import dump_json, encode_message
from langswarm_session.storage.session_rows import NoteRow

if TYPE_CHECKING:
    from langswarm_session.archive import SessionArchive, TurnNote

R = TypeVar("R")


@dataclass(slots=True)
class _Log:
    """A session: its row, its messages in order, and notes on its turns.

    The system messages are also kept apart: each window has all of them, however old they are. So
    are the numbers of those that have several tools' results.
    """

    record: SessionRecord
    messages: list[SessionMessage] = field(default_factory=list)
    system: list[SessionMessage] = field(default_factory=list)
    several: list[int] = field(default_factory=list)
    by_id: dict[str, SessionMessage] = field(default_factory=dict)
    notes: dict[int, NoteRow] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)

    def facts(self, write: Write[Any]) -> Facts:
        """Return what a write is decided on."""
        by_id, key = self.by_id, write.key
        facts = Facts(
            record=self.record,
            now=_now(),
            stored={m.id: _own(by_id[m.id]) for m in write.messages if m.id in by_id},
            key_turn=None if key is None else self.keys.get(key.key),
            places=self._places(write.numbers()),
        )
        for turn, with_messages in write.turns(facts).items():
            facts.turns[turn] = self._turn_facts(turn, with_messages=with_messages)
        return facts

    def apply(self, plan: Plan[Any]) -> None:
        """Write a plan."""
        self.record = plan.record or self.record
        if plan.clears:
            self._clear()
        if plan.removed:
            self._remove(plan.removed)
        if plan.changed:
            self._replace(plan.changed)
        for message in plan.added:
            self._add(_own(message))
        for note in plan.notes:
            self._save_note(note)
        for turn in plan.forgotten:
            self._forget(turn)

    def find_apart(self) -> None:
        """Find what is kept apart again, after others than new messages were touched."""
        self.system = [each for each in self.messages if each.role is MessageRole.SYSTEM]
        self.several = [each.seq or 0 for each in self.messages if has_several_results(each)]

    def is_answered(self, message: SessionMessage) -> bool:
        """Return whether the turn that the message is in belongs in a window."""
        note = self.notes.get(message.turn_id or 0)
        return note is None or note.answered

    def _places(self, numbers: Iterable[int]) -> dict[int, MessagePlace]:
        places = {}
        for seq in numbers:
            index = _index(self.messages, seq)
            if index < len(self.messages) and self.messages[index].seq == seq:
                message = self.messages[index]
                places[seq] = MessagePlace(message.id, message.turn_id or 0)
        return places

    def _turn_facts(self, turn: int, *, with_messages: bool) -> TurnFacts:
        messages = self._turn(turn)
        return TurnFacts(
            note=self.notes.get(turn),
            roles={message.seq or 0: message.role for message in messages},
            is_last=bool(messages) and messages[-1] is self.messages[-1],
            messages=list(map(_own, messages)) if with_messages else (),
        )

    def _turn(self, turn: int) -> list[SessionMessage]:
        """Return a turn's messages, which stand together."""
        numbers = range(_index(self.messages, turn), len(self.messages))
        messages = map(self.messages.__getitem__, numbers)
        return list(takewhile(lambda message: message.turn_id == turn, messages))

    def _clear(self) -> None:
        self.messages, self.system, self.several = [], [], []
        self.by_id, self.notes, self.keys = {}, {}, {}

    def _remove(self, removed: Mapping[int, str]) -> None:
        for message_id in removed.values():
            del self.by_id[message_id]
        self.messages = [message for message in self.messages if message.seq not in removed]
        self.find_apart()

    def _replace(self, changed: Sequence[SessionMessage]) -> None:
        for message in map(_own, changed):
            self.messages[_index(self.messages, message.seq or 0)] = message
            self.by_id[message.id] = message
        self.find_apart()

    def _add(self, message: SessionMessage) -> None:
        self.messages.append(message)
        if message.role is MessageRole.SYSTEM:
            self.system.append(message)
        if has_several_results(message):
            self.several.append(message.seq or 0)
        self.by_id[message.id] = message

    def _save_note(self, note: NoteRow) -> None:
        self._forget(note.turn)
        self.notes[note.turn] = note
        if note.key is not None:
            self.keys[note.key] = note.turn

    def _forget(self, turn: int) -> None:
        former = self.notes.pop(turn, None)
        if former is not None and former.key is not None:
            del self.keys[former.key]


def _index(messages: Sequence[SessionMessage], seq: int) -> int:
    """Where the first message with at least this number stands."""
    return bisect_left(messages, seq, key=lambda message: message.seq or 0)


def _own(message: SessionMessage) -> SessionMessage:
    """A copy that shares nothing that can be changed, as a database would give it."""
    usage = message.usage
    shared = message.metadata or message.native or (usage is not None and usage.details)
    if isinstance(message.content, str) and not shared:
        return message._trusted({**message.__dict__, "metadata": {}})
    return message.model_copy(deep=True)


def _now() -> int:
    return time.time_ns() // 1000


class InMemorySessionStorage(StorageBase):
    """Sessions in this process's memory, for development and tests.

    Keeps all promises but the one that needs a disk: what it holds is gone with the process.
    """

    name: ClassVar[str] = "memory"

    def __init__(self) -> None:
        self._lock = Lock()
        self._logs: dict[str, _Log] = {}
        self._by_user: dict[str, dict[str, _Log]] = {}
        self._created = 0
        self._closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self._logs)} sessions)"

    async def create_session(self, session: NewSession) -> SessionRecord:
        """See `ISessionStorage.create_session`."""
        with self._lock:
            return self._create(session).record

    async def find_session(self, session_id: str, *, user_id: str | None = None) -> SessionRecord:
        """See `ISessionStorage.find_session`."""
        with self._lock:
            self._refuse_if_closed()
            log = self._logs.get(session_id)
            if log is None or user_id not in (None, log.record.user_id):
                raise rules.not_found(session_id)
            return log.record

    async def get_session(self, ref: SessionRef) -> SessionRecord:
        """See `ISessionStorage.get_session`."""
        with self._lock:
            return self._log(ref).record

    async def list_sessions(
        self,
        *,
        user_id: str | None = None,
        status: SessionStatus | None = None,
        inactive_since: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> SessionPage:
        """See `ISessionStorage.list_sessions`."""
        before = None if cursor is None else rules.parse_cursor(cursor)
        with self._lock:
            self._refuse_if_closed()
            logs = self._logs if user_id is None else self._by_user.get(user_id, {})
            found = sorted(
                (
                    (log.record.last_activity, log.record.session_id, log.record)
                    for log in logs.values()
                    if (status is None or log.record.status == status.value)
                    and (inactive_since is None or log.record.last_activity < inactive_since)
                ),
                key=lambda entry: entry[:2],
                reverse=True,
            )
        if before is not None:
            found = [entry for entry in found if entry[:2] < before]
        page = [record for _, _, record in found[:limit]]
        more = bool(page) and len(found) > limit
        return SessionPage(page, rules.make_cursor(page[-1]) if more else None)

    async def delete_session(
        self, ref: SessionRef, *, expected_revision: int | None = None
    ) -> None:
        """See `ISessionStorage.delete_session`."""
        with self._lock:
            record = self._log(ref).record
            rules.check_revision(record, expected_revision)
            user_id = record.user_id
            del self._logs[ref.session_id], self._by_user[user_id][ref.session_id]
            if not self._by_user[user_id]:
                del self._by_user[user_id]

    async def write(self, write: Write[R]) -> R:
        """See `StorageBase.write`."""
        for message in (*write.messages, *write.changed()):
            encode_message(message)  # refuses what a database would refuse
        with self._lock:
            log = self._log(write.ref)
            plan = write.decide(log.facts(write))
            if plan.record is not None:
                log.apply(plan)
            return plan.result

    async def renew_turns(self, tokens: Mapping[str, SessionRef], seconds: float) -> set[str]:
        """See `ISessionStorage.renew_turns`."""
        expires = _now() + int(seconds * 1_000_000)
        with self._lock:
            held = self._with_leases(tokens)
            for log in held.values():
                log.record = log.record._replace(turn_expires=expires)
            return set(held)

    async def request_cancel(self, tokens: Mapping[str, SessionRef]) -> set[str]:
        """See `ISessionStorage.request_cancel`."""
        with self._lock:
            held = self._with_leases(tokens)
            for log in held.values():
                owner = log.record.turn_owner or ""
                if not rules.is_cancel_requested(owner):
                    log.record = log.record._replace(turn_owner=rules.CANCEL_MARK + owner)
            return set(held)

    async def cancel_requested(self, tokens: Mapping[str, SessionRef]) -> set[str]:
        """See `ISessionStorage.cancel_requested`."""
        with self._lock:
            return {
                token
                for token, log in self._with_leases(tokens).items()
                if rules.is_cancel_requested(log.record.turn_owner)
            }

    async def get_messages(
        self,
        ref: SessionRef,
        *,
        limit: int | None = None,
        before: int | None = None,
        after: int | None = None,
        answered_only: bool = False,
        system_only: bool = False,
    ) -> list[SessionMessage]:
        """See `ISessionStorage.get_messages`."""
        with self._lock:
            log = self._log(ref)
            source = log.system if system_only else log.messages
            start = 0 if after is None else _index(source, after + 1)
            stop = len(source) if before is None else _index(source, before)
            newest = limit is not None and after is None
            # From the end that the limit counts from, so that nothing beyond it is looked at.
            places = range(stop - 1, start - 1, -1) if newest else range(start, stop)
            wanted = (
                source[place]
                for place in places
                if not answered_only or log.is_answered(source[place])
            )
            count = len(source) if limit is None else min(limit, len(source))
            found = [_own(message) for message in islice(wanted, count)]
        if newest:
            found.reverse()
        return found

    async def measure_log(
        self, ref: SessionRef, *, after: int = 0, skip: int | None = None
    ) -> LogMeasure:
        """See `ISessionStorage.measure_log`."""
        with self._lock:
            log = self._log(ref)
            start = _index(log.messages, after + 1)
            count = len(log.messages) - start
            is_there = skip is not None and skip < count
            at = log.messages[start + skip].seq if is_there and skip is not None else None
            return LogMeasure(count, at, log.several[bisect_left(log.several, after + 1) :])

    async def get_turns(self, ref: SessionRef, *, limit: int = 100) -> list[Turn]:
        """See `ISessionStorage.get_turns`."""
        with self._lock:
            log = self._log(ref)
            spans: dict[int, list[SessionMessage]] = {}
            for message in reversed(log.messages):
                turn = message.turn_id or 0
                if turn not in spans and len(spans) == limit:
                    break
                spans.setdefault(turn, []).insert(0, message)
            return [_turn(log, turn, spans[turn]) for turn in sorted(spans)]

    async def fork_session(
        self, ref: SessionRef, session: NewSession, *, at: int | None = None
    ) -> SessionRecord:
        """See `ISessionStorage.fork_session`."""
        with self._lock:
            source = self._log(ref)
            last = source.record.last_seq if at is None else at
            if source.record.turn_token is not None and source.record.turn_id is not None:
                last = min(last, source.record.turn_id - 1)
            target = self._create(session)
            target.messages = source.messages[: _index(source.messages, last + 1)]
            newest = (target.messages[-1].seq or 0) if target.messages else 0
            target.find_apart()
            target.by_id = {message.id: message for message in target.messages}
            target.notes = {
                turn: note._replace(key=None, digest=None)
                for turn, note in source.notes.items()
                if turn <= newest
            }
            target.record = target.record._replace(
                last_seq=newest,
                message_count=len(target.messages),
                turn_count=len({message.turn_id for message in target.messages}),
            )
            return target.record

    async def get_turn_notes(
        self, ref: SessionRef, *, after: int = 0, limit: int = 500
    ) -> list[TurnNote]:
        """See `ISessionStorage.get_turn_notes`."""
        from langswarm_session.archive import TurnNote

        with self._lock:
            notes = self._log(ref).notes
            turns = sorted(turn for turn in notes if turn > after)[:limit]
            return [TurnNote(**notes[turn]._asdict()) for turn in turns]

    async def restore_session(self, archive: SessionArchive) -> SessionRecord:
        """See `ISessionStorage.restore_session`."""
        record = archive.record
        messages = list(archive.messages())
        notes = {note.turn: note for note in archive.notes()}
        _check(messages)
        with self._lock:
            if record.session_id in self._logs:
                raise rules.exists(record.session_id)
            self._refuse_if_closed()
            log = self._add(record)
            log.messages = messages
            log.find_apart()
            log.by_id = {message.id: message for message in messages}
            log.notes = {turn: NoteRow(**dict(note)) for turn, note in notes.items()}
            log.keys = {note.key: turn for turn, note in notes.items() if note.key is not None}
            return log.record

    async def health(self) -> StorageHealth:
        """See `ISessionStorage.health`."""
        started = time.perf_counter()
        try:
            with self._lock:
                self._refuse_if_closed()
                sessions = len(self._logs)
                messages = sum(len(log.messages) for log in self._logs.values())
        except SessionError as error:
            return StorageHealth(ok=False, backend=self.name, detail=str(error))
        latency = time.perf_counter() - started
        return StorageHealth(
            ok=True,
            backend=self.name,
            sessions=sessions,
            messages=messages,
            latency_seconds=latency,
        )

    async def close(self) -> None:
        """See `ISessionStorage.close`."""
        self._closed = True

    def _create(self, session: NewSession) -> _Log:
        self._refuse_if_closed()
        if session.session_id in self._logs:
            raise rules.exists(session.session_id)
        return self._add(rules.new_record(session, dump_json(dict(session.context)), _now()))

    def _add(self, record: SessionRecord) -> _Log:
        self._created += 1
        record = record._replace(creation=self._created)
        log = self._logs[record.session_id] = _Log(record)
        self._by_user.setdefault(record.user_id, {})[record.session_id] = log
        return log

    def _found(self, ref: SessionRef) -> _Log | None:
        log = self._logs.get(ref.session_id)
        if log is None or log.record.user_id != ref.user_id:
            return None
        return log if ref.creation in (None, log.record.creation) else None

    def _log(self, ref: SessionRef) -> _Log:
        self._refuse_if_closed()
        log = self._found(ref)
        if log is None:
            raise rules.not_found(ref.session_id)
        return log

    def _with_leases(self, tokens: Mapping[str, SessionRef]) -> dict[str, _Log]:
        """The logs of the leases that are still held, by token."""
        self._refuse_if_closed()
        found = ((token, self._found(ref)) for token, ref in tokens.items())
        return {
            token: log for token, log in found if log is not None and log.record.turn_token == token
        }

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StorageClosedError("the storage was closed")


def _check(messages: Sequence[SessionMessage]) -> None:
    """Refuse what a database would refuse."""
    for message in messages:
        encode_message(message)


def _turn(log: _Log, turn: int, messages: list[SessionMessage]) -> Turn:
    note = log.notes.get(turn)
    status = TurnStatus.COMPLETE if note is None else note.status
    is_open = log.record.turn_token is not None and log.record.turn_id == turn
    finished = (note and note.finished_at) or to_micros(messages[-1].timestamp)
    return Turn(
        id=turn,
        session_id=log.record.session_id,
        status=TurnStatus.OPEN if is_open else status,
        first_seq=messages[0].seq or 0,
        last_seq=messages[-1].seq or 0,
        started_at=messages[0].timestamp,
        finished_at=None if is_open else from_micros(finished),
        idempotency_key=note and note.key,
        error=note and note.error,
    )
