"""The decisions about changes to a session, and to what its log holds already."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from langswarm_session.models import SessionMessage
from langswarm_session.records import Appended, SessionChanges, SessionRecord, SessionRef
from langswarm_session.storage import rules
from langswarm_session.storage.decisions.draft import Draft, in_order, numbered
from langswarm_session.storage.decisions.facts import Facts, Plan, Repeat, Write
from langswarm_session.storage.edits import check_edit
from langswarm_session.storage.rows import dump_json, placed


@dataclass(eq=False)
class UpdateSession(Write[SessionRecord]):
    """See `ISessionStorage.update_session`."""

    ref: SessionRef
    changes: SessionChanges
    expected_revision: int | None = None
    messages = ()
    key = None

    def turns(self, facts: Facts) -> dict[int, bool]:
        """See `Write.turns`."""
        return {}

    def decide(self, facts: Facts) -> Plan[SessionRecord]:
        """See `Write.decide`."""
        if facts.repeat is Repeat.CERTAIN:
            return Plan(facts.record)
        rules.check_revision(facts.record, self.expected_revision)
        draft = Draft(facts)
        draft.move(**self._fields(facts.record))
        return Plan(draft.record, draft.record)

    def _fields(self, record: SessionRecord) -> dict[str, str]:
        changes = self.changes
        state, context = changes.provider_state, changes.context
        if context is not None:
            context = {**record.context_values(), **context}
        fields = {
            "status": changes.status and changes.status.value,
            "provider": changes.provider,
            "model": changes.model,
            "backend": changes.backend and changes.backend.value,
            "provider_state": None if state is None else dump_json(dict(state)),
            "context": None if context is None else dump_json(context),
        }
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(eq=False)
class ClearLog(Write[SessionRecord]):
    """See `ISessionStorage.clear_messages`."""

    ref: SessionRef
    expected_revision: int | None = None
    messages = ()
    key = None

    def decide(self, facts: Facts) -> Plan[SessionRecord]:
        """See `Write.decide`."""
        if facts.repeat is Repeat.CERTAIN:
            return Plan(facts.record)
        draft = Draft(facts)
        draft.make_free(self.expected_revision)
        draft.move(message_count=0)
        return Plan(draft.record, draft.record, clears=True)


@dataclass(eq=False)
class EditLog(Write[Appended]):
    """See `ISessionStorage.edit_messages`.

    Attributes:
        messages: The messages to add.
    """

    ref: SessionRef
    expected_revision: int
    remove: Sequence[int] = ()
    change: Sequence[SessionMessage] = ()
    messages: Sequence[SessionMessage] = ()
    key = None

    def numbers(self) -> Collection[int]:
        """See `Write.numbers`."""
        return {*self.remove, *(message.seq or 0 for message in self.change)}

    def changed(self) -> Sequence[SessionMessage]:
        """See `Write.changed`."""
        return self.change

    def turns(self, facts: Facts) -> dict[int, bool]:
        """See `Write.turns`."""
        places = facts.places
        shortened = {places[seq].turn: False for seq in self.remove if seq in places}
        return {**Write.turns(self, facts), **shortened}

    def decide(self, facts: Facts) -> Plan[Appended]:
        """See `Write.decide`."""
        if facts.repeat is Repeat.CERTAIN:
            stored = in_order(self.messages, facts.stored)
            return Plan(Appended(facts.record, stored, len(stored)))
        new = self._check(facts)
        if not (self.remove or self.change or self.messages):
            return Plan(Appended(facts.record, []))
        draft = Draft(facts)
        draft.make_free(self.expected_revision)
        removed, size = {*self.remove}, len(self.messages)
        turns = draft.record.turn_count + min(size, 1)
        draft.count(new, size, size - len(removed), turn_count=turns)
        changed = [
            placed(message, message.seq or 0, facts.places[message.seq or 0].turn)
            for message in self.change
        ]
        forgotten = self._settle(draft, facts, removed)
        added = numbered(draft.record, self.messages, draft.record.last_seq - size + 1)
        return Plan(
            Appended(draft.record, added, size),
            draft.record,
            removed={seq: facts.places[seq].id for seq in sorted(removed)},
            changed=changed,
            added=added,
            notes=[note for turn, note in draft.notes.items() if turn not in forgotten],
            forgotten=forgotten,
        )

    def _check(self, facts: Facts) -> list[SessionMessage]:
        """Return the messages that were not in the log before, whose tokens are to be counted."""
        rules.check_append(facts.record, None, self.expected_revision, facts.now)
        return check_edit(
            facts.record,
            self.remove,
            self.change,
            self.messages,
            known={seq: place.id for seq, place in facts.places.items()},
            taken=facts.stored,
        )

    def _settle(self, draft: Draft, facts: Facts, removed: Collection[int]) -> set[int]:
        """Bring the notes on turns in line with the messages that these still have.

        Returns:
            The turns that have none.
        """
        forgotten = set()
        changed = {message.seq: message.role for message in self.change}
        for turn in {facts.places[seq].turn for seq in removed}:
            note = draft.note_of(turn)
            roles = {**draft.roles(turn)}
            left = [changed.get(seq, role) for seq, role in roles.items() if seq not in removed]
            if note is None:
                continue
            if not left:
                forgotten.add(turn)
                continue
            answered = rules.answered(note.status, [role for role in left if role is not None])
            draft.notes[turn] = note._replace(key=None, digest=None, answered=answered)
        return forgotten
