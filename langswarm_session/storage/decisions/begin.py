"""The decision about a turn's beginning: a new turn, one that is open again, or a replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langswarm_session.models import MessageRole, SessionMessage, TurnStatus
from langswarm_session.records import IdempotencyKey, Lease, SessionRecord, SessionRef, TurnStart
from langswarm_session.storage import rules
from langswarm_session.storage.decisions.draft import Draft, in_order, known_turn, numbered
from langswarm_session.storage.decisions.facts import Facts, Plan, Repeat, Write


@dataclass(eq=False)
class BeginTurn(Write[TurnStart]):
    """See `ISessionStorage.begin_turn`."""

    ref: SessionRef
    messages: Sequence[SessionMessage]
    lease: Lease
    key: IdempotencyKey | None = None
    expected_revision: int | None = None

    @property
    def may_be_plain(self) -> bool:
        """See `Write.may_be_plain`."""
        return bool(self.messages)

    def result(self, record: SessionRecord) -> TurnStart:
        """See `Write.result`."""
        added = numbered(record, self.messages, record.turn_id)
        return TurnStart(record, added, added=len(added))

    def turns(self, facts: Facts) -> dict[int, bool]:
        """See `Write.turns`."""
        turns = Write.turns(self, facts)
        turn = self._known_turn(facts)
        return turns if turn is None else {**turns, turn: True}

    def decide(self, facts: Facts) -> Plan[TurnStart]:
        """See `Write.decide`."""
        rules.check_begins(self.ref.session_id, self.messages)
        fresh = rules.new_messages(self.ref.session_id, self.messages, facts.stored)
        if self._was_made(facts, fresh):
            return Plan(self._made(facts))
        turn = self._known_turn(facts)
        if turn is not None:
            known, begun = known_turn(facts, turn), facts.turns[turn].messages
            asked = rules.last_begun(len(self.messages), facts.stored.values(), turn)
            outcome = rules.check_begun(known, self.key, facts.record, begun, asked)
            if outcome == "replay":
                return Plan(TurnStart(facts.record, list(begun), replayed=True))
            if outcome == "resume":
                return self._resume(facts, turn, asked)
        return self._begin(facts, fresh)

    def _known_turn(self, facts: Facts) -> int | None:
        """Return the turn of the key, or that of the last message if all are stored."""
        if facts.key_turn is not None or not rules.leads_to_turn(self.key):
            return facts.key_turn
        if not self.messages or any(message.id not in facts.stored for message in self.messages):
            return None
        return facts.stored[self.messages[-1].id].turn_id

    def _was_made(self, facts: Facts, fresh: Sequence[SessionMessage]) -> bool:
        if facts.repeat is Repeat.MAYBE:
            return bool(facts.stored) and not fresh and facts.record.turn_token == self.lease.token
        return facts.repeat is Repeat.CERTAIN

    def _made(self, facts: Facts) -> TurnStart:
        begun = in_order(self.messages, facts.stored)
        own = [message for message in begun if message.turn_id == facts.record.turn_id]
        return TurnStart(facts.record, begun, added=len(own))

    def _lease(self, facts: Facts) -> dict[str, Any]:
        return {
            "turn_token": self.lease.token,
            "turn_owner": self.lease.owner,
            "turn_expires": facts.now + int(self.lease.seconds * 1_000_000),
        }

    def _begin(self, facts: Facts, fresh: Sequence[SessionMessage]) -> Plan[TurnStart]:
        draft = Draft(facts)
        draft.make_free(self.expected_revision)
        turn = draft.record.last_seq + 1
        # A turn takes a number also where it adds no message: no other turn may have it.
        numbers = max(len(fresh), 1)
        turns = draft.record.turn_count + 1
        draft.count(
            fresh, numbers, len(fresh), turn_id=turn, turn_count=turns, **self._lease(facts)
        )
        draft.take_key(turn, TurnStatus.OPEN, self.key)
        added = numbered(draft.record, fresh, turn)
        begun = in_order(self.messages, facts.stored, added)
        result = TurnStart(draft.record, begun, added=len(added))
        return Plan(result, draft.record, added=added, notes=list(draft.notes.values()))

    def _resume(self, facts: Facts, turn: int, asked: int) -> Plan[TurnStart]:
        """Open a turn again that has no whole reply, with the messages that it began with."""
        draft = Draft(facts)
        draft.make_free(self.expected_revision)
        messages = facts.turns[turn].messages
        reply = _reply(messages, max(turn, asked + 1))
        removed = {message.seq or 0: message.id for message in reply}
        draft.count((), 0, -len(removed), turn_id=turn, **self._lease(facts))
        draft.set_status(turn, TurnStatus.OPEN)
        left = [message for message in messages if message.seq not in removed]
        asked_for = in_order(self.messages, facts.stored)
        result = TurnStart(draft.record, rules.begun_with(self.key, asked_for, left))
        notes = list(draft.notes.values())
        return Plan(result, draft.record, removed=removed, notes=notes)


def _reply(messages: Sequence[SessionMessage], first: int) -> list[SessionMessage]:
    """Return what there is of a reply: from its first message from a number on."""
    rest = [message for message in messages if (message.seq or 0) >= first]
    while rest and rest[0].role is not MessageRole.ASSISTANT:
        del rest[0]
    return rest
