"""What a session remembers of its requests, so that every process sends the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from langswarm_session.models import SessionContext
from langswarm_session.records import PrefixChangeReason


@dataclass(frozen=True, slots=True)
class RequestState:
    """Where the requests of a session begin, and what providers noted about them.

    Attributes:
        start: The sequence number of the first message that is sent, system messages aside; older
            ones stay left out until the limits are raised. 0 for the whole log.
        max_messages: The context's limit of messages for which that was decided.
        max_input_tokens: Its limit of tokens; None for none.
        summary: The sequence number of the last message that its summary covered; 0 for none.
        compactions: The sequence number of the newest message in which a provider gave a compaction
            of the log, by the provider's name: requests to that provider begin there.
        reasoning_after: The reasoning of replies up to this sequence number is left out, because a
            provider refused it or dropped it.
        compactions_refused: Compactions up to this sequence number are left out, because a provider
            refused one.
        notes: What each provider noted about its requests, by the provider's name.
        untold: Why requests begin elsewhere since a turn that ended without a reply: the next reply
            reports it. None where there is nothing to report.
    """

    start: int = 0
    max_messages: int = 0
    max_input_tokens: int | None = None
    summary: int = 0
    compactions: Mapping[str, int] = field(default_factory=dict)
    reasoning_after: int = 0
    compactions_refused: int = 0
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    untold: PrefixChangeReason | None = None

    @classmethod
    def of(cls, context: SessionContext) -> Self:
        """Return the state that a context holds."""
        stored = context.request_state
        if not stored:
            return cls()
        return cls(
            start=stored.get("start", 0),
            max_messages=stored.get("max_messages", 0),
            max_input_tokens=stored.get("max_input_tokens"),
            summary=stored.get("summary", 0),
            compactions=stored.get("compactions", {}),
            reasoning_after=stored.get("reasoning_after", 0),
            compactions_refused=stored.get("compactions_refused", 0),
            notes=stored.get("notes", {}),
            untold=_reason(stored.get("untold")),
        )

    def to_context(self) -> dict[str, Any]:
        """Return the value of `SessionContext.request_state`: only what is set."""
        values = {
            "start": self.start,
            "max_messages": self.max_messages,
            "max_input_tokens": self.max_input_tokens,
            "summary": self.summary,
            "compactions": dict(self.compactions),
            "reasoning_after": self.reasoning_after,
            "compactions_refused": self.compactions_refused,
            "notes": {name: dict(notes) for name, notes in self.notes.items()},
            "untold": self.untold and self.untold.value,
        }
        return {name: value for name, value in values.items() if value}

    def under(self, context: SessionContext) -> tuple[Self, PrefixChangeReason | None]:
        """Return the state under a context's limits and summary, and why it is another, if it is.

        Requests begin elsewhere once a summary covers more or less than it did, and with the whole
        log again once a limit was raised.
        """
        covered = _covered(context)
        if covered < self.summary or (self.start and self._is_raised(context)):
            reason = PrefixChangeReason.LIMITS
            if covered < self.summary:
                reason = PrefixChangeReason.SUMMARY
            return self.started_at(covered and covered + 1, context), reason
        if covered > self.summary:
            start = max(self.start, covered + 1)
            return self.started_at(start, context), PrefixChangeReason.SUMMARY
        return self, None

    def _is_raised(self, context: SessionContext) -> bool:
        """Return whether one of the limits is higher than when the start was decided."""
        before, after = self.max_input_tokens, context.max_input_tokens
        return context.max_messages > self.max_messages or (
            before is not None and (after is None or after > before)
        )

    def started_at(self, seq: int, context: SessionContext) -> Self:
        """Return the state with requests that begin at a message, under a context's limits."""
        return replace(
            self,
            start=seq,
            max_messages=context.max_messages if seq else 0,
            max_input_tokens=context.max_input_tokens if seq else None,
            summary=_covered(context),
        )

    def compacted(self, provider: str, seq: int) -> Self:
        """Return the state in which a message holds a provider's compaction of the log."""
        compactions = {**self.compactions, provider: seq}
        return replace(self, compactions=compactions, untold=PrefixChangeReason.SUMMARY)

    def told(self) -> Self:
        """Return the state once it is reported where requests begin."""
        return replace(self, untold=None)

    def without_reasoning(self, seq: int) -> Self:
        """Return the state in which the reasoning of replies up to a number is left out."""
        return replace(self, reasoning_after=max(seq, self.reasoning_after))

    def without_compactions(self, seq: int) -> Self:
        """Return the state in which compactions up to a sequence number are left out."""
        compactions = {name: at for name, at in self.compactions.items() if at > seq}
        state = replace(self.without_stand_ins(), compactions=compactions)
        return replace(state, compactions_refused=max(seq, self.compactions_refused))

    def with_notes(self, provider: str, notes: Mapping[str, Any]) -> Self:
        """Return the state with other notes of a provider."""
        return replace(self, notes={**self.notes, provider: dict(notes)})

    @property
    def noted_through(self) -> int:
        """The newest message that something in the notes stands for; 0 for none."""
        found = (note["through"] for notes in self.notes.values() for note in _stand_ins(notes))
        return max(found, default=0)

    def without_stand_ins(self, *, behind: int = -1) -> Self:
        """Return the state without notes that stand for messages, as those are about to change.

        Args:
            behind: Those that stand for no message behind this one stay.
        """
        notes = {
            name: {
                key: note
                for key, note in kept.items()
                if note not in _stand_ins(kept) or note["through"] <= behind
            }
            for name, kept in self.notes.items()
        }
        return replace(self, notes=notes)

    def up_to(self, seq: int | None) -> Self:
        """Return the state for a copy of the log that ends at a message.

        Of what providers noted, what happened behind that message is left out.

        Args:
            seq: The last message of the copy; None for all.
        """
        if seq is None:
            return self
        compactions = {name: at for name, at in self.compactions.items() if at <= seq}
        notes = {
            name: {key: _note_up_to(note, seq) for key, note in kept.items()}
            for name, kept in self.without_stand_ins(behind=seq).notes.items()
        }
        state = replace(self, compactions=compactions, notes=notes)
        if seq >= self.start:
            return state
        return replace(state, start=0, max_messages=0, max_input_tokens=None, summary=0, notes={})


def _stand_ins(notes: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the notes that stand for messages ``through`` one of them: a summary of theirs."""
    values = (note for note in notes.values() if isinstance(note, Mapping))
    return [note for note in values if isinstance(note.get("through"), int)]


def _note_up_to(note: Any, seq: int) -> Any:
    """Return a provider's note for a copy of the log that ends at a message.

    A note may have ``changes``, each with the number of the message that it stands behind: by its
    key ``after``, or first in a list.
    """
    if not isinstance(note, Mapping) or not isinstance(note.get("changes"), list):
        return note
    changes = [change for change in note["changes"] if _after(change) < seq]
    return {**note, "changes": changes}


def _after(change: Any) -> int:
    return int(change["after"] if isinstance(change, Mapping) else change[0])


def _reason(stored: object) -> PrefixChangeReason | None:
    known = {reason.value: reason for reason in PrefixChangeReason}
    return known.get(stored) if isinstance(stored, str) else None


def _covered(context: SessionContext) -> int:
    """Return the last message that a context's summary covers; 0 for none."""
    return 0 if context.summary is None else context.summary.last_seq
