"""What the manager, a storage and a provider hand to each other: small, immutable, without I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic_core import from_json

from langswarm_session.blocks import Block, Model
from langswarm_session.errors import StorageCorruptError
from langswarm_session.models import (
    NOTES,
    SessionContext,
    SessionMessage,
    SessionMetrics,
    SessionStatus,
    TurnStatus,
    from_micros,
)
from langswarm_session.requests.normalize import Repair, Target, normalize

if TYPE_CHECKING:
    from langswarm_session.models import SessionBackend

_MADE_UNDER = "made_under"

SaveState = Callable[[str | None, Mapping[str, Any] | None], Awaitable[None]]
"""Keeps a provider's state: its id of the conversation, and what else it needs."""


class SessionRef(NamedTuple):
    """Which session a call is about: its id, its owner and its creation.

    A session that was deleted and created again under the same id, for the same user too, is
    another one: a reference to the first never leads to the second.

    Attributes:
        session_id: The session's id.
        user_id: Whose session it must be.
        creation: What its storage knows this creation of the session by; it is never given to
            another. None stands for whichever creation there is now: only for callers that know
            nothing of a session but its name.
    """

    session_id: str
    user_id: str
    creation: int | None


_NO_STATE: dict[str, Any] = {
    "provider_session_id": None,
    "provider_context": {},
    "provider_seq": 0,
    "provider_calls": [],
    "provider_states": {},
    "request_state": {},
}
"""Takes the place of such keys in a context's own column, where they never belong."""


class SessionRecord(NamedTuple):
    """A session as its storage keeps it, with the lease of its open turn. Times in microseconds.

    Attributes:
        context: The context's other keys, a JSON object.
        provider_state: `provider_session_id` and `provider_context`, a JSON object, or None.
        revision: Moves with each write to the session.
        last_seq: The sequence number given last; numbers are never given twice.
        turn_id: The turn begun last with a lease, or None.
        turn_token: The token of the lease on it; None once it has ended.
        turn_owner: The process that holds the lease, behind `storage.rules.CANCEL_MARK` once
            somebody asked it to end the turn.
        turn_expires: When the lease ends unless it is renewed.
        creation: What the storage knows this creation of the session by; see `SessionRef`. 0 for a
            session that is in no storage yet.
    """

    session_id: str
    user_id: str
    provider: str
    model: str
    backend: str
    status: str
    context: str
    provider_state: str | None
    created_at: int
    last_activity: int
    revision: int
    last_seq: int
    message_count: int
    turn_count: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    errors: int
    turn_id: int | None = None
    turn_token: str | None = None
    turn_owner: str | None = None
    turn_expires: int | None = None
    creation: int = 0

    @property
    def ref(self) -> SessionRef:
        """The reference that every call about this session takes."""
        return SessionRef(self.session_id, self.user_id, self.creation)

    def to_context(self) -> SessionContext:
        """The session's context.

        Raises:
            StorageCorruptError: If it holds what no storage puts there.
        """
        with self.decoding():
            return SessionContext.model_validate(
                {
                    **self.context_values(),
                    **_NO_STATE,
                    **self.provider_values(),
                    "session_id": self.session_id,
                    "user_id": self.user_id,
                    "provider": self.provider,
                    "model": self.model,
                    "backend": self.backend,
                }
            )

    def context_values(self) -> dict[str, Any]:
        """Return the context's other keys.

        Raises:
            StorageCorruptError: If they are not a JSON object.
        """
        with self.decoding():
            return _json_object(self.context)

    def provider_values(self) -> dict[str, Any]:
        """Return `provider_session_id` and `provider_context`, as far as there are any.

        Raises:
            StorageCorruptError: If they are not a JSON object.
        """
        with self.decoding():
            return _json_object(self.provider_state) if self.provider_state else {}

    def to_metrics(self) -> SessionMetrics:
        """The session's figures.

        Raises:
            StorageCorruptError: If one holds what no storage puts there.
        """
        with self.decoding():
            return SessionMetrics(
                message_count=self.message_count,
                turn_count=self.turn_count,
                input_tokens=self.input_tokens,
                output_tokens=self.output_tokens,
                cached_tokens=self.cached_tokens,
                reasoning_tokens=self.reasoning_tokens,
                errors=self.errors,
                created_at=from_micros(self.created_at),
                last_activity=from_micros(self.last_activity),
            )

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Says of columns that cannot be read that they are damaged; what they hold is not quoted.

        Raises:
            StorageCorruptError: In place of what reading them raises.
        """
        try:
            yield
        except (ValueError, TypeError, RecursionError):
            raise StorageCorruptError(
                "its row cannot be decoded: the database is damaged; restore a copy",
                session_id=self.session_id,
            ) from None


def _json_object(text: str) -> dict[str, Any]:
    value = from_json(text)
    if not isinstance(value, dict):
        raise TypeError("not a JSON object")
    return value


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session to create.

    Attributes:
        context: The context's keys beyond the fields here.
    """

    session_id: str
    user_id: str
    provider: str
    model: str
    backend: SessionBackend
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionChanges:
    """What to change of a session; None leaves a field as it is.

    Attributes:
        context: Keys to set in the context; the others stay.
        provider_state: The whole new provider state (an empty one removes it).
    """

    status: SessionStatus | None = None
    provider: str | None = None
    model: str | None = None
    backend: SessionBackend | None = None
    context: Mapping[str, Any] | None = None
    provider_state: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SessionPage:
    """One page of a listing.

    Attributes:
        records: The sessions, newest activity first.
        next_cursor: What to pass to get the next page; None on the last.
    """

    records: list[SessionRecord]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a session's one turn.

    Attributes:
        token: Unique to this turn; every later write of the turn is checked against it.
        owner: The process that asks.
        seconds: How long the lease holds unless it is renewed.
    """

    token: str
    owner: str
    seconds: float


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's key for a turn, and a digest of what the turn was asked.

    A second turn with the same key is the same turn; with another digest it is a mistake.

    Attributes:
        key: The key.
        digest: Of what the turn was asked.
        only: Whether nothing but the key tells that a turn was begun before: the messages that it
            begins with may be stored in another turn, which answers them as well.
    """

    key: str
    digest: str
    only: bool = False


@dataclass(frozen=True, slots=True)
class Appended:
    """What a write left behind.

    Attributes:
        record: The session after the write.
        messages: The messages as stored, with their places in the log.
        added: How many of them are new; the others were stored already.
    """

    record: SessionRecord
    messages: list[SessionMessage]
    added: int = 0

    @property
    def new_messages(self) -> list[SessionMessage]:
        """The messages that this write added."""
        known = self.record.last_seq - self.added
        return [message for message in self.messages if (message.seq or 0) > known]


@dataclass(frozen=True, slots=True)
class TurnStart:
    """What beginning a turn came to.

    Attributes:
        record: The session after the write.
        messages: The turn's messages as stored: those given, or, when the key was known, all of
            the turn that it stands for.
        replayed: Whether the turn was answered already; then nothing was written.
        added: How many of the messages are new; the others were stored already.
    """

    record: SessionRecord
    messages: list[SessionMessage]
    replayed: bool = False
    added: int = 0


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """How a turn ends.

    Attributes:
        token: The lease's token.
        status: Complete, cancelled or failed.
        error: Why it was cancelled or failed.
        provider_state: The provider's new state, if it changed.
    """

    token: str
    status: TurnStatus
    error: str | None = None
    provider_state: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class LogMeasure:
    """How much of a log there is.

    Attributes:
        count: How many messages.
        at: The number of the message that was asked for by its position; None if there is none.
        several: The numbers of the messages that may have the results of several tools, in order.
    """

    count: int
    at: int | None
    several: list[int]


class PrefixChangeReason(StrEnum):
    """Why a request does not begin with the whole of the one before."""

    WINDOW = "window"
    """It would have been longer than ``max_messages``."""
    BUDGET = "budget"
    """It would have been longer than ``max_input_tokens``."""
    SIZE = "size"
    """The provider refused it as too long."""
    SUMMARY = "summary"
    """A summary or a compaction stands for older messages."""
    CALL = "call"
    """The turn has the result of a call that was left out, so it is sent again from there on."""
    LIMITS = "limits"
    """A limit was raised, so that older messages are sent again."""
    MODEL = "model"
    """Another provider or model answers."""
    SYSTEM = "system"
    """The system text changed."""
    TOOLS = "tools"
    """The tools changed."""
    REASONING = "reasoning"
    """The provider refused reasoning of earlier replies, so it is left out."""
    EDITED = "edited"
    """Earlier messages changed."""


class PrefixChange(Model):
    """One request that does not begin with the whole of the one before.

    Attributes:
        reason: Why.
        tokens: How many tokens it has, by estimate: none of them can be read from a cache behind
            what changed.
        detail: What exactly, for people.
    """

    reason: PrefixChangeReason
    tokens: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class MadeUnder:
    """The request that a reply answers.

    Attributes:
        prefix: The fingerprint of all of it.
        system: That of its system text.
        tools: That of its tools.
    """

    prefix: str
    system: str
    tools: str

    @classmethod
    def of(cls, message: SessionMessage) -> Self | None:
        """Return what a stored reply was made under; None if that is not known."""
        notes = message.metadata.get(NOTES) if message.metadata else None
        stored = notes.get(_MADE_UNDER) if isinstance(notes, dict) else None
        if not isinstance(stored, dict):
            return None
        values = [stored.get(name) for name in ("prefix", "system", "tools")]
        return cls(*map(str, values)) if all(values) else None

    def to_notes(self) -> dict[str, Any]:
        """Return it as a part of a message's metadata."""
        return {_MADE_UNDER: {"prefix": self.prefix, "system": self.system, "tools": self.tools}}


@dataclass(frozen=True, slots=True)
class StorageHealth:
    """How a storage is doing.

    Attributes:
        ok: Whether it can be read and written.
        backend: The storage's name.
        sessions: How many sessions it holds.
        messages: How many messages it holds.
        size_bytes: What it takes on disk or in memory; None where unknown.
        latency_seconds: How long a small read took.
        schema_version: The version of its schema; None where it has none.
        detail: What is wrong, where something is; with ``ok``, which promise it cannot keep.
    """

    ok: bool
    backend: str
    sessions: int = 0
    messages: int = 0
    size_bytes: int | None = None
    latency_seconds: float = 0.0
    schema_version: int | None = None
    detail: str | None = None


class ProviderRequest:
    """What a provider is asked to answer.

    Args:
        session_id: The session.
        context: Its context, with this provider's own state from the turns before.
        messages: The window: what of the record is to be sent, oldest first, the new ones last.
        new_count: How many of them, from the end, the provider has not seen.
        options: The caller's own keywords for this call (``temperature``, ``tools``...).
        target: What the provider accepts.
        turn_id: The turn: the sequence number of its first message.
        in_step: Whether the turn before this one is the last that this provider answered, and
            this one was never tried before: then its own copy is as it left it.
        retries: How often to try again what may be tried again; None: as often as usual.
        save: Keeps the provider's state at once, before the turn has ended.
        notes: What the provider noted about its earlier requests of the session.
        reasoning_after: The reasoning of replies up to this sequence number is left out.

    Attributes:
        repairs: What had to be changed of the messages that were looked at.
        made_under: What the reply is made under, once the provider has built its request.
        changed: Why it does not begin with the whole of the request before, if it does not.
    """

    def __init__(
        self,
        session_id: str,
        context: SessionContext,
        messages: Sequence[SessionMessage],
        new_count: int = 1,
        options: Mapping[str, Any] | None = None,
        *,
        target: Target | None = None,
        turn_id: int = 0,
        in_step: bool = False,
        retries: int | None = None,
        save: SaveState | None = None,
        notes: Mapping[str, Any] | None = None,
        reasoning_after: int = 0,
    ) -> None:
        self.session_id = session_id
        self.context = context
        self.window = messages
        self.new_count = new_count
        self.options: Mapping[str, Any] = {} if options is None else options
        self.target = Target() if target is None else target
        self.turn_id = turn_id
        self.in_step = in_step
        self.retries = retries
        self.repairs: list[Repair] = []
        self.notes: Mapping[str, Any] = {} if notes is None else notes
        self.reasoning_after = reasoning_after
        self.made_under: MadeUnder | None = None
        self.changed: PrefixChangeReason | None = None
        self._save = save

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.session_id!r}: {len(self.window)} messages>"

    @cached_property
    def messages(self) -> list[SessionMessage]:
        """The whole window, as the provider accepts it."""
        return self._normalized(self.window, None)

    @cached_property
    def new_messages(self) -> list[SessionMessage]:
        """The messages that the provider has not seen, as it accepts them behind the others."""
        new = self.window[len(self.window) - self.new_count :]
        return self._normalized(new, self.context.provider_calls)

    def split(self) -> tuple[list[SessionMessage], list[SessionMessage]]:
        """The whole window, as the provider accepts it: what was before this turn, and the rest."""
        messages = self.messages
        at = len(messages) - 1
        for place, message in enumerate(messages):
            if message.seq is not None and message.seq >= self.turn_id:
                at = place
                break
        return messages[:at], messages[at:]

    def with_window(self, messages: Sequence[SessionMessage]) -> ProviderRequest:
        """The same request with fewer of the older messages."""
        return ProviderRequest(
            self.session_id,
            self.context,
            messages,
            self.new_count,
            self.options,
            target=self.target,
            turn_id=self.turn_id,
            in_step=self.in_step,
            retries=self.retries,
            save=self._save,
            notes=self.notes,
            reasoning_after=self.reasoning_after,
        )

    def retarget(self, target: Target) -> None:
        """Make the request one for a server of which more is known than before."""
        self.target = target
        self.repairs.clear()
        for name in ("messages", "new_messages"):
            self.__dict__.pop(name, None)

    def note_prefix(self, made_under: MadeUnder, changed: PrefixChangeReason | None) -> None:
        """Note what the reply is made under.

        Args:
            made_under: The fingerprint of the request.
            changed: Why it does not begin with the whole of the request before; None if it does.
        """
        self.made_under, self.changed = made_under, changed

    def report(self, repair: Repair) -> None:
        """Say that something was changed."""
        if repair not in self.repairs:
            self.repairs.append(repair)

    async def save(
        self, provider_session_id: str | None, provider_context: Mapping[str, Any] | None = None
    ) -> None:
        """Keep the provider's state at once: what must not be forgotten if all ends here.

        Args:
            provider_session_id: The provider's id of the conversation.
            provider_context: What else is needed to go on with it.
        """
        if self._save is not None:
            await self._save(provider_session_id, provider_context)

    def _normalized(
        self, messages: Sequence[SessionMessage], open_calls: Sequence[str] | None
    ) -> list[SessionMessage]:
        normalized, repairs = normalize(messages, self.target, open_calls=open_calls)
        for repair in repairs:
            self.report(repair)
        return normalized


@dataclass(frozen=True, slots=True)
class ProviderReply:
    """A provider's answer.

    Attributes:
        messages: The reply; nearly always one message.
        provider_session_id: The provider's id of the conversation, where it keeps one.
        provider_context: What the provider needs to go on with it next time.
        notes: What the provider notes about its requests of the session: `ProviderRequest.notes` of
            the next one. None where that is as it was: only what changes rarely belongs here.
        dropped_reasoning: Whether the provider says that it left out reasoning of earlier replies,
            as what came before them had changed: later requests leave that out.
    """

    messages: list[SessionMessage]
    provider_session_id: str | None = None
    provider_context: Mapping[str, Any] | None = None
    notes: Mapping[str, Any] | None = None
    dropped_reasoning: bool = False


@dataclass(frozen=True, slots=True)
class FallbackEvent:
    """Why another provider answered than the session's own.

    Attributes:
        provider: Who should have answered.
        model: With which model.
        by_provider: Who was asked instead.
        by_model: With which model.
        reason: What went wrong: the error's name and message.
    """

    provider: str
    model: str
    by_provider: str
    by_model: str
    reason: str


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """A piece of a reply on its way.

    Attributes:
        text: New text, to be put after what came before.
        reasoning: New reasoning text.
        block: A block that is complete, such as a tool call.
        message: The whole reply as it was stored: with the last event only.
    """

    text: str = ""
    reasoning: str = ""
    block: Block | None = None
    message: SessionMessage | None = None

    def __str__(self) -> str:
        return self.text
