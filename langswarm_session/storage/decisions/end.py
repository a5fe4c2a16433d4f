"""The decision about a turn's end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from langswarm_session.models import SessionMessage, TurnStatus
from langswarm_session.records import Appended, SessionRecord, SessionRef, TurnEnd
from langswarm_session.storage import rules
from langswarm_session.storage.decisions.draft import NO_LEASE, Draft, in_order, numbered
from langswarm_session.storage.decisions.facts import Facts, Plan, Repeat, Write
from langswarm_session.storage.rows import dump_json


@dataclass(eq=False)
class EndTurn(Write[Appended]):
    """See `ISessionStorage.end_turn`."""

    ref: SessionRef
    end: TurnEnd
    messages: Sequence[SessionMessage]
    key = None

    @cached_property
    def state(self) -> str | None:
        """The provider's new state as JSON, if it changes."""
        state = self.end.provider_state
        return None if state is None else dump_json(dict(state))

    @property
    def may_be_plain(self) -> bool:
        """See `Write.may_be_plain`."""
        return True

    def result(self, record: SessionRecord) -> Appended:
        """See `Write.result`."""
        added = numbered(record, self.messages, record.turn_id)
        return Appended(record, added, len(added))

    @property
    def is_of_open_turn(self) -> bool:
        """See `Write.is_of_open_turn`."""
        return True

    def turns(self, facts: Facts) -> dict[int, bool]:
        """See `Write.turns`."""
        turn = facts.record.turn_id
        return {} if turn is None else {turn: False}

    def decide(self, facts: Facts) -> Plan[Appended]:
        """See `Write.decide`."""
        fresh = rules.new_messages(self.ref.session_id, self.messages, facts.stored)
        if self._was_made(facts, fresh):
            stored = in_order(self.messages, facts.stored)
            return Plan(Appended(facts.record, stored, len(stored)))
        draft = Draft(facts)
        turn = draft.held_turn(self.end.token)
        rules.check_ends(self.ref.session_id, facts.stored.values(), turn)
        draft.count(fresh, len(fresh), **self._changes(draft))
        added = numbered(draft.record, fresh, turn)
        if self.end.status is not TurnStatus.COMPLETE or draft.note_of(turn) is not None:
            draft.set_status(turn, self.end.status, self.end.error, added)
        stored = in_order(self.messages, facts.stored, added)
        result = Appended(draft.record, stored, len(added))
        return Plan(result, draft.record, added=added, notes=list(draft.notes.values()))

    def _changes(self, draft: Draft) -> dict[str, Any]:
        changes = {**NO_LEASE}
        if self.end.provider_state is not None:
            changes["provider_state"] = self.state
        if self.end.status is TurnStatus.FAILED:
            changes["errors"] = draft.record.errors + 1
        return changes

    def _was_made(self, facts: Facts, fresh: Sequence[SessionMessage]) -> bool:
        """Return whether a turn's end whose answer was lost has been stored."""
        if facts.repeat is not Repeat.MAYBE:
            return facts.repeat is Repeat.CERTAIN
        turn = facts.record.turn_id
        if facts.record.turn_token == self.end.token or turn is None or fresh:
            return False
        note = facts.turns[turn].note
        if facts.stored:
            return True
        if note is None:
            return self.end.status is TurnStatus.COMPLETE
        return (note.status, note.error) == (self.end.status, self.end.error)
