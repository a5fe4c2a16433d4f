"""Sessions in this process's memory: for development and tests, gone when the process is."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

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
    Appended,
    IdempotencyKey,
    Lease,
    LogMeasure,
    NewSession,
    SessionChanges,
    SessionPage,
    SessionRecord,
    SessionRef,
    StorageHealth,
    TurnEnd,
    TurnStart,
)
from langswarm_session.storage import rules
from langswarm_session.storage.base import StorageBase
from langswarm_session.storage.edits import check_edit
from langswarm_session.storage.measuring import has_several_results
from langswarm_session.storage.rows import dump_json, encode_message

if TYPE_CHECKING:
    from langswarm_session.archive import SessionArchive, TurnNote


@dataclass(slots=True)
class _TurnNote:
    """What is known of a turn that is more than complete."""

    status: TurnStatus
    answered: bool = True
    key: str | None = None
    digest: str | None = None
    error: str | None = None
    finished_at: int | None = None


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
    turns: dict[int, _TurnNote] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)

    def move(self, new: Sequence[SessionMessage] = (), **changes: Any) -> SessionRecord:
        """Count what is about to be added and change the row."""
        record = self.record
        added = rules.usage_sums(new)
        self.record = record._replace(
            revision=record.revision + 1,
            last_activity=max(record.last_activity, _now()),
            last_seq=record.last_seq + len(new),
            message_count=record.message_count + len(new),
            input_tokens=record.input_tokens + added[0],
            output_tokens=record.output_tokens + added[1],
            cached_tokens=record.cached_tokens + added[2],
            reasoning_tokens=record.reasoning_tokens + added[3],
            **changes,
        )
        return self.record

    def put(self, new: Sequence[SessionMessage], turn: int) -> None:
        """Add messages whose numbers the row has counted already."""
        first = self.record.last_seq - len(new) + 1
        for seq, message in enumerate(new, first):
            placed = _own(message._placed(seq, turn))
            self.messages.append(placed)
            if placed.role is MessageRole.SYSTEM:
                self.system.append(placed)
            if has_several_results(placed):
                self.several.append(seq)
            self.by_id[placed.id] = placed

    def find_apart(self) -> None:
        """Find what is kept apart again, after others than new messages were touched."""
        self.system = [each for each in self.messages if each.role is MessageRole.SYSTEM]
        self.several = [each.seq or 0 for each in self.messages if has_several_results(each)]

    def is_answered(self, message: SessionMessage) -> bool:
        """Whether the turn that the message is in belongs in a window."""
        note = self.turns.get(message.turn_id or 0)
        return note is None or note.answered

    def of_turn(self, turn: int) -> list[SessionMessage]:
        """A turn's messages."""
        return [_own(message) for message in self.since(turn) if message.turn_id == turn]

    def since(self, seq: int) -> list[SessionMessage]:
        """The messages from a sequence number on."""
        return self.messages[_index(self.messages, seq) :]

    def note(self, turn: int, status: TurnStatus, error: str | None = None) -> None:
        """Note how a turn stands."""
        note = self.turns.setdefault(turn, _TurnNote(status))
        note.status, note.error = status, error
        note.finished_at = None if status is TurnStatus.OPEN else _now()
        note.answered = rules.answered(status, [each.role for each in self.since(turn)])

    def save_key(self, turn: int, status: TurnStatus, key: IdempotencyKey) -> None:
        """Note a turn's key, which no other turn has from now on."""
        former = self.keys.get(key.key)
        if former is not None:
            self.turns[former].key = self.turns[former].digest = None
        self.turns[turn] = _TurnNote(status, key=key.key, digest=key.digest)
        self.keys[key.key] = turn

    def known_turn(
        self, key: IdempotencyKey | None, stored: SessionMessage | None = None
    ) -> rules.KnownTurn | None:
        """The turn that the key was used in before, or else the one a stored message is in."""
        turn = None if key is None else self.keys.get(key.key)
        if turn is None and stored is not None:
            turn = self.by_id[stored.id].turn_id
        if turn is None:
            return None
        note = self.turns.get(turn) or _TurnNote(TurnStatus.COMPLETE)
        is_open = self.record.turn_token is not None and self.record.turn_id == turn
        status = TurnStatus.OPEN if is_open else note.status
        is_last = bool(self.messages) and self.messages[-1].turn_id == turn
        return rules.KnownTurn(turn, is_last, status, note.digest)

    def make_free(self, expected_revision: int | None) -> None:
        """Raise if the session cannot be written to; end a turn whose lease ran out."""
        rules.check_writable(self.record)
        rules.check_revision(self.record, expected_revision)
        if rules.check_free(self.record, _now()):
            turn = self.record.turn_id
            assert turn is not None, "a session with a lease has a turn"
            self.note(turn, TurnStatus.FAILED, rules.LOST_OWNER)
            record = self.record
            self.record = record._replace(
                errors=record.errors + 1, revision=record.revision + 1, **_NO_LEASE
            )

    def take_out(self, removed: Mapping[int, SessionMessage]) -> None:
        """Remove messages, and what is noted of turns that is true no more."""
        self.messages = [message for message in self.messages if message.seq not in removed]
        self.find_apart()
        for message in removed.values():
            del self.by_id[message.id]
        for turn in {message.turn_id or 0 for message in removed.values()} & self.turns.keys():
            note, left = self.turns[turn], self.of_turn(turn)
            if note.key is not None:
                del self.keys[note.key]
            if left:
                note.key = note.digest = None
                note.answered = rules.answered(note.status, [each.role for each in left])
            else:
                del self.turns[turn]

    def exchange(self, changed: Sequence[SessionMessage]) -> None:
        """Put messages in the place of those with the same numbers."""
        for message in changed:
            self.messages[_index(self.messages, message.seq or 0)] = message
            self.by_id[message.id] = message
        self.find_apart()

    def drop_reply(self, turn: int, after: int) -> None:
        """Remove what there was of an unfinished turn's reply, behind a message."""
        rest = self.since(max(turn, after + 1))
        while rest and rest[0].role is not MessageRole.ASSISTANT:
            del rest[0]
        for message in rest:
            del self.by_id[message.id]
        del self.messages[len(self.messages) - len(rest) :]
        self.find_apart()
        self.record = self.record._replace(message_count=len(self.messages))


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


_NO_LEASE: dict[str, Any] = {"turn_token": None, "turn_owner": None, "turn_expires": None}


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

    async def update_session(
        self, ref: SessionRef, changes: SessionChanges, *, expected_revision: int | None = None
    ) -> SessionRecord:
        """See `ISessionStorage.update_session`."""
        with self._lock:
            log = self._log(ref)
            record = log.record
            rules.check_revision(record, expected_revision)
            values: dict[str, Any] = {"revision": record.revision + 1}
            if changes.status is not None:
                values["status"] = changes.status.value
            if changes.provider is not None:
                values["provider"] = changes.provider
            if changes.model is not None:
                values["model"] = changes.model
            if changes.backend is not None:
                values["backend"] = changes.backend.value
            if changes.provider_state is not None:
                values["provider_state"] = dump_json(dict(changes.provider_state))
            if changes.context is not None:
                values["context"] = dump_json({**record.context_values(), **changes.context})
            log.record = record._replace(**values)
            return log.record

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

    async def append(
        self,
        ref: SessionRef,
        messages: Sequence[SessionMessage],
        *,
        token: str | None = None,
        expected_revision: int | None = None,
        key: IdempotencyKey | None = None,
    ) -> Appended:
        """See `ISessionStorage.append`."""
        _check(messages)
        with self._lock:
            log = self._log(ref)
            fresh = rules.new_messages(ref.session_id, messages, _stored(log, messages))
            if not fresh:
                if messages:
                    known = None if key is None else log.known_turn(key)
                    if rules.is_replay(known, key, token, log.record):
                        return Appended(log.record, log.of_turn(known.turn))
                    rules.check_append(log.record, token, expected_revision, _now())
                return Appended(log.record, _as_stored(log, messages))
            if token is not None:
                turn = _held(log, token)
                rules.check_revision(log.record, expected_revision)
                log.move(fresh)
            else:
                known = None if key is None else log.known_turn(key)
                if known is not None and rules.check_known(known, key, log.record) == "replay":
                    return Appended(log.record, log.of_turn(known.turn))
                log.make_free(expected_revision)
                turn = log.record.last_seq + 1
                log.move(fresh, turn_count=log.record.turn_count + 1)
                if key is not None:
                    log.save_key(turn, TurnStatus.COMPLETE, key)
            log.put(fresh, turn)
            return Appended(log.record, _as_stored(log, messages), len(fresh))

    async def begin_turn(
        self,
        ref: SessionRef,
        messages: Sequence[SessionMessage],
        lease: Lease,
        *,
        key: IdempotencyKey | None = None,
        expected_revision: int | None = None,
    ) -> TurnStart:
        """See `ISessionStorage.begin_turn`."""
        _check(messages)
        with self._lock:
            log = self._log(ref)
            fresh = rules.new_messages(ref.session_id, messages, _stored(log, messages))
            rules.check_begins(ref.session_id, messages)
            leads = not fresh and rules.leads_to_turn(key)
            known = log.known_turn(key, messages[-1] if leads else None)
            outcome, asked = None, 0
            if known is not None:
                begun, stored = log.of_turn(known.turn), _stored(log, messages).values()
                asked = rules.last_begun(len(messages), stored, known.turn)
                outcome = rules.check_begun(known, key, log.record, begun, asked)
                if outcome == "replay":
                    return TurnStart(log.record, begun, replayed=True)
            log.make_free(expected_revision)
            held: dict[str, Any] = {
                "turn_token": lease.token,
                "turn_owner": lease.owner,
                "turn_expires": _now() + int(lease.seconds * 1_000_000),
            }
            if known is not None and outcome == "resume":
                log.drop_reply(known.turn, asked)
                log.move(turn_id=known.turn, **held)
                log.note(known.turn, TurnStatus.OPEN)
                given = _stored(log, messages).values()
                begun = rules.begun_with(key, map(_own, given), log.of_turn(known.turn))
                return TurnStart(log.record, begun)
            turn = log.record.last_seq + 1
            log.move(fresh, turn_id=turn, turn_count=log.record.turn_count + 1, **held)
            if not fresh:  # no other turn may have its number
                log.record = log.record._replace(last_seq=turn)
            if key is not None:
                log.save_key(turn, TurnStatus.OPEN, key)
            log.put(fresh, turn)
            return TurnStart(log.record, _as_stored(log, messages), added=len(fresh))

    async def end_turn(
        self, ref: SessionRef, end: TurnEnd, messages: Sequence[SessionMessage]
    ) -> Appended:
        """See `ISessionStorage.end_turn`."""
        _check(messages)
        changes: dict[str, Any] = dict(_NO_LEASE)
        if end.provider_state is not None:
            changes["provider_state"] = dump_json(dict(end.provider_state))
        with self._lock:
            log = self._log(ref)
            turn = _held(log, end.token)
            stored = _stored(log, messages)
            fresh = rules.new_messages(ref.session_id, messages, stored)
            rules.check_ends(ref.session_id, stored.values(), turn)
            failed = int(end.status is TurnStatus.FAILED)
            log.move(fresh, errors=log.record.errors + failed, **changes)
            log.put(fresh, turn)
            if turn in log.turns or end.status is not TurnStatus.COMPLETE:
                log.note(turn, end.status, end.error)
            return Appended(log.record, _as_stored(log, messages), len(fresh))

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

    async def clear_messages(
        self, ref: SessionRef, *, expected_revision: int | None = None
    ) -> SessionRecord:
        """See `ISessionStorage.clear_messages`."""
        with self._lock:
            log = self._log(ref)
            log.make_free(expected_revision)
            log.messages, log.system, log.several = [], [], []
            log.by_id, log.turns, log.keys = {}, {}, {}
            log.record = log.record._replace(message_count=0, revision=log.record.revision + 1)
            return log.record

    async def edit_messages(
        self,
        ref: SessionRef,
        *,
        expected_revision: int,
        remove: Sequence[int] = (),
        change: Sequence[SessionMessage] = (),
        add: Sequence[SessionMessage] = (),
    ) -> Appended:
        """See `ISessionStorage.edit_messages`."""
        _check([*change, *add])
        with self._lock:
            log = self._log(ref)
            rules.check_append(log.record, None, expected_revision, _now())
            wanted = {*remove, *(message.seq for message in change)}
            found = {m.seq or 0: m for m in log.messages if m.seq in wanted}
            new = check_edit(
                log.record,
                remove,
                change,
                add,
                known={seq: message.id for seq, message in found.items()},
                taken=_stored(log, add),
            )
            if not (add or wanted):
                return Appended(log.record, [])
            log.make_free(expected_revision)
            log.take_out({seq: found[seq] for seq in remove})
            log.exchange(
                [_own(m.model_copy(update={"turn_id": found[m.seq or 0].turn_id})) for m in change]
            )
            log.move(new, turn_count=log.record.turn_count + min(len(add), 1))
            last_seq = log.record.last_seq - len(new) + len(add)
            log.record = log.record._replace(
                last_seq=last_seq, message_count=len(log.messages) + len(add)
            )
            log.put(add, last_seq - len(add) + 1)
            return Appended(log.record, _as_stored(log, add), len(add))

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
            target.turns = {
                turn: _TurnNote(
                    note.status, note.answered, None, None, note.error, note.finished_at
                )
                for turn, note in source.turns.items()
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
            notes = self._log(ref).turns
            found = sorted(turn for turn in notes if turn > after)[:limit]
            return [TurnNote(turn=turn, **asdict(notes[turn])) for turn in found]

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
            log.turns = {
                turn: _TurnNote(**note.model_dump(exclude={"turn"})) for turn, note in notes.items()
            }
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


def _held(log: _Log, token: str) -> int:
    if log.record.turn_token != token or log.record.turn_id is None:
        raise rules.lost(log.record.session_id)
    return log.record.turn_id


def _stored(log: _Log, messages: Sequence[SessionMessage]) -> Mapping[str, SessionMessage]:
    return {m.id: log.by_id[m.id] for m in messages if m.id in log.by_id}


def _as_stored(log: _Log, messages: Sequence[SessionMessage]) -> list[SessionMessage]:
    return [_own(log.by_id[message_id]) for message_id in dict.fromkeys(m.id for m in messages)]


def _turn(log: _Log, turn: int, messages: list[SessionMessage]) -> Turn:
    note = log.turns.get(turn) or _TurnNote(TurnStatus.COMPLETE)
    is_open = log.record.turn_token is not None and log.record.turn_id == turn
    finished = note.finished_at or to_micros(messages[-1].timestamp)
    return Turn(
        id=turn,
        session_id=log.record.session_id,
        status=TurnStatus.OPEN if is_open else note.status,
        first_seq=messages[0].seq or 0,
        last_seq=messages[-1].seq or 0,
        started_at=messages[0].timestamp,
        finished_at=None if is_open else from_micros(finished),
        idempotency_key=note.key,
        error=note.error,
    )
