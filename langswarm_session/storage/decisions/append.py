"""The decision about an append: a turn of its own, or a part of the turn whose token it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langswarm_session.models import SessionMessage, TurnStatus
from langswarm_session.records import Appended, IdempotencyKey, SessionRecord, SessionRef
from langswarm_session.storage import rules
from langswarm_session.storage.decisions.draft import Draft, in_order, known_turn, numbered
from langswarm_session.storage.decisions.facts import Facts, Plan, Repeat, Write


@dataclass(eq=False)
class Append(Write[Appended]):
    """See `ISessionStorage.append`."""

    ref: SessionRef
    messages: Sequence[SessionMessage]
    token: str | None = None
    expected_revision: int | None = None
    key: IdempotencyKey | None = None

    @property
    def may_be_plain(self) -> bool:
        """See `Write.may_be_plain`."""
        return bool(self.messages)

    def result(self, record: SessionRecord) -> Appended:
        """See `Write.result`."""
        turn = None if self.token is None else record.turn_id
        added = numbered(record, self.messages, turn)
        return Appended(record, added, len(added))

    @property
    def is_of_open_turn(self) -> bool:
        """See `Write.is_of_open_turn`."""
        return self.token is not None

    def turns(self, facts: Facts) -> dict[int, bool]:
        """See `Write.turns`."""
        turns = Write.turns(self, facts)
        if facts.key_turn is not None and self.token is None:
            turns[facts.key_turn] = True
        return turns

    def decide(self, facts: Facts) -> Plan[Appended]:
        """See `Write.decide`."""
        fresh = rules.new_messages(self.ref.session_id, self.messages, facts.stored)
        if self._was_made(facts, fresh):
            stored = in_order(self.messages, facts.stored)
            return Plan(Appended(facts.record, stored, len(stored)))
        replayed = self._replayed(facts)
        if replayed is not None:
            return Plan(Appended(facts.record, list(replayed)))
        if fresh:
            return self._add(facts, fresh)
        if self.messages:
            rules.check_append(facts.record, self.token, self.expected_revision, facts.now)
        return Plan(Appended(facts.record, in_order(self.messages, facts.stored)))

    def _was_made(self, facts: Facts, fresh: Sequence[SessionMessage]) -> bool:
        if facts.repeat is Repeat.MAYBE:
            return bool(facts.stored) and not fresh
        return facts.repeat is Repeat.CERTAIN

    def _replayed(self, facts: Facts) -> Sequence[SessionMessage] | None:
        """Return the messages of the turn that the key stands for, if it is complete."""
        turn = facts.key_turn
        if turn is None or self.token is not None or not self.messages:
            return None
        outcome = rules.check_known(known_turn(facts, turn), self.key, facts.record)
        return facts.turns[turn].messages if outcome == "replay" else None

    def _add(self, facts: Facts, fresh: Sequence[SessionMessage]) -> Plan[Appended]:
        draft = Draft(facts)
        if self.token is None:
            turn = self._begin(draft, fresh)
        else:
            turn = draft.held_turn(self.token)
            rules.check_revision(draft.record, self.expected_revision)
            draft.count(fresh, len(fresh))
        added = numbered(draft.record, fresh, turn)
        result = Appended(draft.record, in_order(self.messages, facts.stored, added), len(added))
        notes = list(draft.notes.values())
        return Plan(result, draft.record, added=added, notes=notes)

    def _begin(self, draft: Draft, fresh: Sequence[SessionMessage]) -> int:
        draft.make_free(self.expected_revision)
        turn = draft.record.last_seq + 1
        draft.count(fresh, len(fresh), turn_count=draft.record.turn_count + 1)
        draft.take_key(turn, TurnStatus.COMPLETE, self.key)
        return turn
