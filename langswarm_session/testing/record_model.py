"""The record as plain lists: what every storage must do, and nothing of how.

Written from `ISessionStorage` and apart from the storages, so that a mistake of theirs is none
here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langswarm_session.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    MessageConflictError,
    RevisionConflictError,
    SessionBusyError,
    SessionError,
    SessionExistsError,
    SessionInactiveError,
    SessionNotFoundError,
    TurnLostError,
)
from langswarm_session.models import MessageRole, SessionMessage, SessionStatus, TurnStatus
from langswarm_session.records import IdempotencyKey, Lease, SessionRef, TurnEnd

Reason = type[SessionError]

LOST = "the process that ran the turn ended before the turn did"


class Refusal(Exception):  # noqa: N818 - it is none of a storage's errors
    """A call must raise one of these errors: there may be several reasons, and any may be named."""

    def __init__(self, *reasons: Reason) -> None:
        super().__init__(*reasons)
        self.reasons = set(reasons)


@dataclass(frozen=True)
class Result:
    """What a call must return.

    Attributes:
        messages: The messages, as they are stored.
        replayed: Whether a turn that is complete was found.
        or_refused: Why it may be refused as well: it changes nothing, and a storage may look at
            these first.
    """

    messages: list[SessionMessage]
    replayed: bool = False
    or_refused: frozenset[Reason] = frozenset()


@dataclass
class Note:
    """How a turn stands."""

    status: TurnStatus
    key: IdempotencyKey | None = None
    error: str | None = None


@dataclass
class Session:
    """One session: its log, its turns, its figures, and the lease of its open turn.

    Attributes:
        creation: What the storage said that it knows this creation by.
    """

    user: str
    creation: int | None = None
    status: SessionStatus = SessionStatus.ACTIVE
    context: dict[str, Any] = field(default_factory=dict)
    revision: int = 0
    last_seq: int = 0
    turn_count: int = 0
    errors: int = 0
    tokens: tuple[int, int] = (0, 0)
    log: list[SessionMessage] = field(default_factory=list)
    notes: dict[int, Note] = field(default_factory=dict)
    token: str | None = None
    turn: int = 0
    lapsed: bool = False

    # Looking

    def stored(self, messages: Sequence[SessionMessage]) -> list[SessionMessage]:
        """The messages as they are stored, each once, in the order given."""
        by_id = {each.id: each for each in self.log}
        return [by_id[each] for each in dict.fromkeys(message.id for message in messages)]

    def known_of(self, messages: Sequence[SessionMessage]) -> list[SessionMessage]:
        """Those of the messages that are stored, each once, in the order given."""
        ids = self.ids()
        return self.stored([message for message in messages if message.id in ids])

    def of_turn(self, turn: int) -> list[SessionMessage]:
        """The messages of a turn."""
        return [each for each in self.log if each.turn_id == turn]

    def is_meant_by(self, ref: SessionRef) -> bool:
        """Whether a reference with this session's name is to this session."""
        return ref.user_id == self.user and ref.creation in (None, self.creation)

    def refusals(self, token: str | None, revision: int | None) -> set[Reason]:
        """Why it cannot be written to, by whoever has the token or none."""
        reasons: set[Reason] = set()
        if revision not in (None, self.revision):
            reasons.add(RevisionConflictError)
        if token is not None:
            return reasons | ({TurnLostError} if token != self.token else set())
        if self.status not in (SessionStatus.ACTIVE, SessionStatus.ERROR):
            reasons.add(SessionInactiveError)
        if self.token is not None and not self.lapsed:
            reasons.add(SessionBusyError)
        return reasons

    def unanswered(self) -> set[int]:
        """The turns that ended early without a reply."""
        early = (TurnStatus.CANCELLED, TurnStatus.FAILED)
        replied = {each.turn_id for each in self.log if each.role is MessageRole.ASSISTANT}
        return {turn for turn, note in self.notes.items() if note.status in early} - {
            turn for turn in replied if turn is not None
        }

    # Changing

    def check(self, reasons: set[Reason]) -> None:
        """Refuse, if there is a reason."""
        if reasons:
            raise Refusal(*reasons)

    def make_free(self, revision: int | None) -> None:
        """Refuse, or end the turn whose lease has run out."""
        self.check(self.refusals(None, revision))
        if self.token is not None:
            self.notes[self.turn].status, self.notes[self.turn].error = TurnStatus.FAILED, LOST
            self.errors += 1
            self.revision += 1
            self.token = None

    def fresh(self, messages: Sequence[SessionMessage]) -> list[SessionMessage]:
        """Those that are not stored, each once; a refusal if one is stored otherwise."""
        seen = {each.id: each for each in self.log}
        new: list[SessionMessage] = []
        for message in messages:
            known = seen.setdefault(message.id, message)
            if known is message and message not in new and message.id not in self.ids():
                new.append(message)
            elif (known.role, known.content) != (message.role, message.content):
                raise Refusal(MessageConflictError)
        return new

    def ids(self) -> set[str]:
        """The ids of the messages that are stored."""
        return {each.id for each in self.log}

    def put(
        self, new: Sequence[SessionMessage], turn: int, counted_before: Collection[str] = ()
    ) -> None:
        """Add messages to a turn; the tokens of some were counted before."""
        for message in new:
            self.last_seq += 1
            self.log.append(message.replaced(seq=self.last_seq, turn_id=turn))
            used = message.usage
            if used is not None and message.id not in counted_before:
                sent, received = self.tokens
                self.tokens = (sent + used.input_tokens, received + used.output_tokens)
        self.revision += 1

    def begin(self, status: TurnStatus) -> int:
        """A new turn, which its messages are to be put into."""
        turn = self.last_seq + 1
        self.notes[turn] = Note(status)
        self.turn_count += 1
        return turn

    def give(self, key: IdempotencyKey | None, turn: int) -> None:
        """Let a turn have a key, which no other has then."""
        if key is not None:
            for note in self.notes.values():
                if note.key is not None and note.key.key == key.key:
                    note.key = None
            self.notes[turn].key = key

    def with_key(self, key: IdempotencyKey | None) -> int | None:
        """The turn that has the key."""
        if key is not None:
            for turn, note in self.notes.items():
                if note.key is not None and note.key.key == key.key:
                    return turn
        return None

    def asked(self, turn: int, messages: Sequence[SessionMessage]) -> int:
        """The number of the last message that a turn began with, if it began with these."""
        ids = {message.id for message in messages}
        ours = [each.seq or 0 for each in self.of_turn(turn) if each.id in ids]
        elsewhere = len([each for each in self.log if each.id in ids]) - len(ours)
        return max([turn + len(messages) - elsewhere - 1, *ours])

    def replies(self, turn: int, asked: int) -> list[SessionMessage]:
        """The assistant's messages of a turn behind what it began with."""
        return [
            each
            for each in self.of_turn(turn)
            if (each.seq or 0) > asked and each.role is MessageRole.ASSISTANT
        ]

    def is_answered(self, turn: int, messages: Sequence[SessionMessage]) -> bool:
        """Whether a turn that began with these has a reply, or ends with one."""
        ends_with_one = any(each.role is MessageRole.ASSISTANT for each in self.of_turn(turn)[-1:])
        return ends_with_one or bool(self.replies(turn, self.asked(turn, messages)))

    def known(
        self,
        turn: int,
        key: IdempotencyKey | None,
        to_answer: Sequence[SessionMessage] | None = None,
    ) -> str:
        """What to do about a turn that was begun before: replay, resume, or begin anew.

        Args:
            to_answer: What it is begun with again; None where it is only recorded.
        """
        note = self.notes[turn]
        if key is not None and note.key is not None and note.key.digest != key.digest:
            raise Refusal(IdempotencyConflictError)
        if note.status is TurnStatus.COMPLETE and (
            to_answer is None or self.is_answered(turn, to_answer)
        ):
            return "replay"
        if self.log and self.log[-1].turn_id == turn:
            return "resume"
        if key is None or note.key is None:
            raise Refusal(MessageConflictError)
        return "anew"


class Record:
    """All sessions."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.asked: set[str] = set()

    def find(self, ref: SessionRef) -> Session:
        """Return the session, or refuse; another user's is none, nor is another creation."""
        found = self.sessions.get(ref.session_id)
        if found is None or not found.is_meant_by(ref):
            raise Refusal(SessionNotFoundError)
        return found

    def create(self, session: str, user: str) -> None:
        """As `ISessionStorage.create_session`."""
        if session in self.sessions:
            raise Refusal(SessionExistsError)
        self.sessions[session] = Session(user)

    def delete(self, ref: SessionRef, revision: int | None) -> None:
        """As `ISessionStorage.delete_session`."""
        if revision not in (None, self.find(ref).revision):
            raise Refusal(RevisionConflictError)
        del self.sessions[ref.session_id]

    def update(
        self,
        ref: SessionRef,
        status: SessionStatus | None,
        context: dict[str, Any],
        revision: int | None,
    ) -> None:
        """As `ISessionStorage.update_session`."""
        found = self.find(ref)
        if revision not in (None, found.revision):
            raise Refusal(RevisionConflictError)
        found.status = status or found.status
        found.context = {**found.context, **context}
        found.revision += 1

    def clear(self, ref: SessionRef, revision: int | None) -> None:
        """As `ISessionStorage.clear_messages`."""
        found = self.find(ref)
        found.make_free(revision)
        found.log, found.notes = [], {}
        found.revision += 1

    def fork(self, ref: SessionRef, copy: str, user: str, at: int | None) -> None:
        """As `ISessionStorage.fork_session`."""
        found = self.find(ref)
        if copy in self.sessions:
            raise Refusal(SessionExistsError)
        last = found.last_seq if at is None else at
        if found.token is not None:
            last = min(last, found.turn - 1)
        log = [each for each in found.log if (each.seq or 0) <= last]
        turns = {each.turn_id or 0 for each in log}
        self.sessions[copy] = Session(
            user,
            last_seq=max((each.seq or 0 for each in log), default=0),
            turn_count=len(turns),
            log=log,
            notes={turn: replace(found.notes[turn], key=None) for turn in turns},
        )

    def append(
        self,
        ref: SessionRef,
        messages: Sequence[SessionMessage],
        token: str | None = None,
        key: IdempotencyKey | None = None,
        revision: int | None = None,
    ) -> Result:
        """As `ISessionStorage.append`."""
        found = self.find(ref)
        refusals = found.refusals(token, revision)
        if not messages:
            return Result([])
        turn = found.with_key(key) if token is None else None
        if turn is not None and found.known(turn, key) == "replay":
            # With nothing new in it, and with something changed, a storage may refuse it as well.
            others = refusals | {MessageConflictError}
            return Result(found.of_turn(turn), or_refused=frozenset(others))
        new = self._fresh(found, messages, refusals)
        if not new:
            found.check(refusals)
            return Result(found.stored(messages))
        if token is not None:
            found.check(refusals)
            found.put(new, found.turn)
        else:
            found.make_free(revision)
            turn = found.begin(TurnStatus.COMPLETE)
            found.give(key, turn)
            found.put(new, turn)
        return Result(found.stored(messages))

    def begin_turn(
        self,
        ref: SessionRef,
        messages: Sequence[SessionMessage],
        lease: Lease,
        key: IdempotencyKey | None = None,
        revision: int | None = None,
    ) -> Result:
        """As `ISessionStorage.begin_turn`."""
        if not messages:
            raise Refusal(InvalidInputError, SessionNotFoundError)
        found = self.find(ref)
        refusals = found.refusals(None, revision)
        turn = found.with_key(key)
        if turn is not None and found.known(turn, key, messages) == "replay":
            others = refusals | {MessageConflictError}
            return Result(found.of_turn(turn), replayed=True, or_refused=frozenset(others))
        new = self._fresh(found, messages, refusals)
        leads = key is None or not key.only
        if turn is None and not new and leads:
            turn = found.stored(messages)[-1].turn_id
        try:
            step = "anew" if turn is None else found.known(turn, key, messages)
        except Refusal as refusal:
            raise Refusal(*refusal.reasons, *refusals) from None
        if turn is not None and step == "replay":
            return Result(found.of_turn(turn), replayed=True, or_refused=frozenset(refusals))
        found.make_free(revision)
        if turn is not None and step == "resume":
            self._resume(found, turn, messages)
            own = found.of_turn(turn)
            earlier = (
                [] if leads else [each for each in found.known_of(messages) if each not in own]
            )
            started = [*earlier, *own]
        else:
            turn = found.begin(TurnStatus.OPEN)
            found.give(key, turn)
            found.put(new, turn)
            found.last_seq = max(found.last_seq, turn)
            started = found.stored(messages)
        found.token, found.turn, found.lapsed = lease.token, turn, lease.seconds == 0
        return Result(started)

    def end_turn(self, ref: SessionRef, end: TurnEnd, messages: Sequence[SessionMessage]) -> Result:
        """As `ISessionStorage.end_turn`."""
        found = self.find(ref)
        refusals = found.refusals(end.token, None)
        new = self._fresh(found, messages, refusals)
        ids = {message.id for message in messages}
        if any(each.id in ids and each.turn_id != found.turn for each in found.log):
            refusals.add(MessageConflictError)
        found.check(refusals)
        found.put(new, found.turn)
        found.notes[found.turn].status, found.notes[found.turn].error = end.status, end.error
        found.errors += end.status is TurnStatus.FAILED
        found.token = None
        return Result(found.stored(messages))

    def request_cancel(self, tokens: Mapping[str, SessionRef]) -> set[str]:
        """As `ISessionStorage.request_cancel`."""
        held = set(self._held(tokens))
        self.asked |= held
        return held

    def cancel_requested(self, tokens: Mapping[str, SessionRef]) -> set[str]:
        """As `ISessionStorage.cancel_requested`."""
        return self.asked & self._held(tokens).keys()

    def _held(self, tokens: Mapping[str, SessionRef]) -> dict[str, Session]:
        """Return the sessions of the leases that are still held, by token."""
        found = {token: self.sessions.get(ref.session_id) for token, ref in tokens.items()}
        return {
            token: session
            for token, session in found.items()
            if session is not None and session.is_meant_by(tokens[token]) and session.token == token
        }

    def renew_turns(self, tokens: Mapping[str, SessionRef], seconds: float) -> set[str]:
        """As `ISessionStorage.renew_turns`."""
        held = self._held(tokens)
        for session in held.values():
            session.lapsed = seconds == 0
        return set(held)

    def edit(
        self,
        ref: SessionRef,
        revision: int,
        remove: Sequence[int],
        change: Sequence[SessionMessage],
        add: Sequence[SessionMessage],
    ) -> Result:
        """As `ISessionStorage.edit_messages`."""
        found = self.find(ref)
        reasons = found.refusals(None, revision)
        places = {each.seq: each.id for each in found.log}
        used = [*{*remove}, *(each.seq for each in change)]
        if any(seq not in places for seq in used) or len({*used}) < len(used):
            reasons.add(InvalidInputError)
        removed = {places[seq] for seq in remove if seq in places}
        ids = [each.id for each in add]
        if len({*ids}) < len(ids) or {*ids} & (found.ids() - removed):
            reasons.add(MessageConflictError)
        found.check(reasons)
        if not (used or add):
            return Result([])
        found.make_free(revision)
        gone = {each.turn_id or 0 for each in found.log if each.seq in remove}
        changed = {each.seq: each for each in change}
        found.log = [
            changed[each.seq].replaced(turn_id=each.turn_id) if each.seq in changed else each
            for each in found.log
            if each.seq not in remove
        ]
        for turn in gone:
            found.notes[turn].key = None
            if not found.of_turn(turn):
                del found.notes[turn]
        turn = found.begin(TurnStatus.COMPLETE) if add else 0
        found.put(add, turn, counted_before=removed)
        return Result(found.stored(add))

    def _fresh(
        self, found: Session, messages: Sequence[SessionMessage], refusals: set[Reason]
    ) -> list[SessionMessage]:
        try:
            return found.fresh(messages)
        except Refusal as refusal:
            raise Refusal(*refusal.reasons, *refusals) from None

    def _resume(self, found: Session, turn: int, messages: Sequence[SessionMessage]) -> None:
        """Open a turn again with what it began with: what there was of a reply goes."""
        replies = found.replies(turn, found.asked(turn, messages))
        if replies:
            first = replies[0].seq or 0
            found.log = [each for each in found.log if (each.seq or 0) < first]
        found.notes[turn].status, found.notes[turn].error = TurnStatus.OPEN, None
        found.revision += 1
