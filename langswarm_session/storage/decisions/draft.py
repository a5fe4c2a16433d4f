"""A plan in the making: the row of a session and the notes on its turns while they change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langswarm_session.models import MessageRole, SessionMessage, TurnStatus
from langswarm_session.records import IdempotencyKey, SessionRecord
from langswarm_session.storage import rules
from langswarm_session.storage.decisions.facts import Facts
from langswarm_session.storage.rows import placed
from langswarm_session.storage.session_rows import NoteRow

NO_LEASE: dict[str, Any] = {"turn_token": None, "turn_owner": None, "turn_expires": None}


class Draft:
    """The changes to a session.

    Args:
        facts: What they are decided on.

    Attributes:
        record: The row with the changes so far.
        notes: The changed notes by turn.
    """

    def __init__(self, facts: Facts) -> None:
        self.record: SessionRecord = facts.record
        self.notes: dict[int, NoteRow] = {}
        self._facts = facts

    def move(self, **fields: Any) -> None:
        """Change the row, which moves its revision."""
        self.record = self.record._replace(revision=self.record.revision + 1, **fields)

    def count(
        self,
        new: Iterable[SessionMessage],
        numbers: int,
        count: int | None = None,
        **fields: Any,
    ) -> None:
        """Count messages in the row.

        Args:
            new: The messages whose tokens are counted.
            numbers: How many sequence numbers they take.
            count: By how many messages the log grows; None: by as many.
            **fields: What else changes.
        """
        record = self.record
        sums = rules.usage_sums(new)
        self.record = record._replace(
            revision=record.revision + 1,
            last_activity=max(record.last_activity, self._facts.now),
            last_seq=record.last_seq + numbers,
            message_count=record.message_count + (numbers if count is None else count),
            input_tokens=record.input_tokens + sums[0],
            output_tokens=record.output_tokens + sums[1],
            cached_tokens=record.cached_tokens + sums[2],
            reasoning_tokens=record.reasoning_tokens + sums[3],
            **fields,
        )

    def make_free(self, expected_revision: int | None) -> None:
        """End the turn whose lease has run out.

        Raises:
            SessionInactiveError, RevisionConflictError, SessionBusyError: If the session cannot be
                written to.
        """
        rules.check_writable(self.record)
        rules.check_revision(self.record, expected_revision)
        if rules.check_free(self.record, self._facts.now):
            turn = self.record.turn_id
            assert turn is not None, "a session with a lease has a turn"
            self.set_status(turn, TurnStatus.FAILED, rules.LOST_OWNER)
            self.move(errors=self.record.errors + 1, **NO_LEASE)

    def held_turn(self, token: str) -> int:
        """Return the turn whose lease is held.

        Raises:
            TurnLostError: If the lease is not held any more.
        """
        if self.record.turn_token != token or self.record.turn_id is None:
            raise rules.lost(self.record.session_id)
        return self.record.turn_id

    def note_of(self, turn: int) -> NoteRow | None:
        """Return the note on a turn, as it is to be."""
        facts = self._facts.turns.get(turn)
        return self.notes.get(turn) or (facts.note if facts is not None else None)

    def set_status(
        self,
        turn: int,
        status: TurnStatus,
        error: str | None = None,
        new: Sequence[SessionMessage] = (),
    ) -> None:
        """Note how a turn stands, and whether it belongs in the window.

        Args:
            turn: The turn.
            status: How it stands.
            error: Why it failed or was cancelled.
            new: The messages that are added to it.
        """
        roles = [*self.roles(turn).values(), *(message.role for message in new)]
        note = self.note_of(turn)
        self.notes[turn] = NoteRow(
            turn=turn,
            status=status,
            answered=rules.answered(status, [role for role in roles if role is not None]),
            key=None if note is None else note.key,
            digest=None if note is None else note.digest,
            error=error,
            finished_at=None if status is TurnStatus.OPEN else self._facts.now,
        )

    def take_key(self, turn: int, status: TurnStatus, key: IdempotencyKey | None) -> None:
        """Note a new turn's key, which no other turn has from now on."""
        if key is None:
            return
        former = self._facts.key_turn
        note = None if former is None else self.note_of(former)
        if note is not None:
            self.notes[note.turn] = note._replace(key=None, digest=None)
        self.notes[turn] = NoteRow(
            turn,
            status,
            answered=True,
            key=key.key,
            digest=key.digest,
            error=None,
            finished_at=None,
        )

    def roles(self, turn: int) -> Mapping[int, MessageRole | None]:
        """Return the roles of a turn's stored messages, by number."""
        facts = self._facts.turns.get(turn)
        return {} if facts is None else facts.roles


def numbered(
    record: SessionRecord, messages: Sequence[SessionMessage], turn: int | None
) -> list[SessionMessage]:
    """Return messages that are the newest of a log, with their numbers and turn.

    Args:
        record: The session's row, which has counted them.
        messages: The messages.
        turn: The turn that they are in; None for one that begins with them.
    """
    first = record.last_seq - len(messages) + 1
    turn = first if turn is None else turn
    return [placed(message, seq, turn) for seq, message in enumerate(messages, first)]


def in_order(
    messages: Sequence[SessionMessage],
    stored: Mapping[str, SessionMessage],
    placed: Sequence[SessionMessage] = (),
) -> list[SessionMessage]:
    """Return all messages of a write as they are stored, each once, in the order of the write."""
    if not stored and len(placed) == len(messages):
        return list(placed)
    known = {**stored, **{message.id: message for message in placed}}
    ids = dict.fromkeys(message.id for message in messages)
    return [known[message_id] for message_id in ids if message_id in known]


def known_turn(facts: Facts, turn: int) -> rules.KnownTurn:
    """Return what the rules ask about a turn that was begun before."""
    turn_facts, record = facts.turns[turn], facts.record
    note = turn_facts.note
    status = TurnStatus.COMPLETE if note is None else note.status
    if record.turn_token is not None and record.turn_id == turn:
        status = TurnStatus.OPEN
    return rules.KnownTurn(turn, turn_facts.is_last, status, None if note is None else note.digest)
