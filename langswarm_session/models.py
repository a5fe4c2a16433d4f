"""The data of a session: messages, turns, context and metrics. Frozen, and without I/O."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from langswarm_session._bulk import unchecked
from langswarm_session.blocks import Block, JsonObject, Model, is_turn_context, text_of


class SessionStatus(StrEnum):
    """What may be done with a session: only an active one takes new turns."""

    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    ARCHIVED = "archived"
    ERROR = "error"


class MessageRole(StrEnum):
    """Who speaks."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"
    FUNCTION = "function"
    TOOL = "tool"


RESULT_ROLES = (MessageRole.TOOL, MessageRole.FUNCTION)
"""Who gives the results of tools."""


class SessionBackend(StrEnum):
    """Where the conversation's state is sought.

    The local record is always the source of truth. With `PROVIDER_NATIVE` and `HYBRID` a provider
    that keeps conversations is asked to keep this one too; with the others it is sent the window
    of each turn and keeps nothing.
    """

    PROVIDER_NATIVE = "provider_native"
    LOCAL_MEMORY = "local_memory"
    LOCAL_SQLITE = "local_sqlite"
    EXTERNAL_DB = "external_db"
    HYBRID = "hybrid"

    @property
    def is_native(self) -> bool:
        """Whether a provider that keeps conversations is asked to keep this one."""
        return self in (SessionBackend.PROVIDER_NATIVE, SessionBackend.HYBRID)


class TurnStatus(StrEnum):
    """How a turn stands: open while it is being answered, then one of the others for good."""

    OPEN = "open"
    COMPLETE = "complete"
    CANCELLED = "cancelled"
    FAILED = "failed"


_UUID7 = 0x7000_8000_0000_0000_0000
"""The version and the variant of a UUID of version 7, in their places (RFC 9562, section 5.7)."""
_RANDOM_BITS = 0x0FFF_3FFF_FFFF_FFFF_FFFF


def new_id() -> str:
    """Return a new unique id: the 32 hex digits of a UUID of version 7 (RFC 9562), ordered by time.

    Its 74 random bits come from the operating system, so that ids cannot be predicted and stay
    unique when a program seeds `random` or forks. Nothing is buffered: a fork would share a buffer.
    """
    bits = int.from_bytes(os.urandom(10), "big")
    return "%032x" % (time.time_ns() // 1_000_000 << 80 | _UUID7 | bits & _RANDOM_BITS)


def utc_now() -> datetime:
    """Now, aware, in UTC."""
    return datetime.now(UTC)


def _to_utc(value: datetime) -> datetime:
    try:
        return value if value.tzinfo is UTC else value.astimezone(UTC)
    except OverflowError:
        raise ValueError("this moment has no year in UTC") from None


UtcDatetime = Annotated[AwareDatetime, AfterValidator(_to_utc)]
"""A point in time: aware on the way in, in UTC from then on."""


_TOKENS = Field(default=0, ge=0, le=2**40)
"""Far more than any reply takes, and the sum over millions of them still has less than 64 bits."""


class TokenUsage(Model):
    """Tokens of one reply, as the provider counted them; each count is 2**40 at most.

    Attributes:
        input_tokens: Tokens sent, cached ones included.
        output_tokens: Tokens generated, reasoning included.
        cached_tokens: Those of the input that were read from the provider's cache.
        reasoning_tokens: Those of the output that were reasoning.
        details: Whatever else the provider counted.
    """

    input_tokens: int = _TOKENS
    output_tokens: int = _TOKENS
    cached_tokens: int = _TOKENS
    reasoning_tokens: int = _TOKENS
    details: JsonObject | None = None

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


class SessionMessage(Model):
    """One entry of a session's log.

    Attributes:
        id: Unique within the session; a message whose id is stored already is not stored twice.
        role: Who speaks.
        content: Text, or a list of typed blocks.
        timestamp: When it was made, aware, in UTC, exact to the microsecond.
        name: The speaker's name, where the format has one.
        metadata: The caller's own data; JSON values only.
        provider: Who made it, of a reply: the provider's name.
        model: The model that made it, of a reply.
        provider_message_id: The provider's id of the message.
        usage: The tokens that generating it took.
        finish_reason: Why the generation ended (``stop``, ``tool_calls``, ``length``,
            ``refusal``, ``cancelled``...).
        turn_id: The turn it belongs to: the sequence number of that turn's first message.
            Given by the storage.
        seq: Its place in the log, from 1. Given by the storage.
        native: The message as a framework or provider had it, by format name, as far as the
            fields above could not give it back exactly.
    """

    id: str = Field(default_factory=new_id, min_length=1, max_length=512)
    role: MessageRole
    content: str | list[Block] = ""
    timestamp: UtcDatetime = Field(default_factory=utc_now)
    name: str | None = None
    metadata: JsonObject = Field(default_factory=dict)
    provider: str | None = None
    model: str | None = None
    provider_message_id: str | None = None
    usage: TokenUsage | None = None
    finish_reason: str | None = None
    turn_id: int | None = None
    seq: int | None = None
    native: JsonObject | None = None

    @property
    def text(self) -> str:
        """The readable text of the content: without other blocks, and without turn context."""
        if isinstance(self.content, str):
            return self.content
        return text_of([block for block in self.content if not is_turn_context(block)])

    @property
    def token_count(self) -> int | None:
        """Input and output tokens together, or None where nobody counted them."""
        return None if self.usage is None else self.usage.total_tokens

    @property
    def blocks(self) -> list[Block]:
        """The content as blocks: a string becomes one text block, an empty one none."""
        if isinstance(self.content, str):
            from langswarm_session.blocks import TextBlock

            return [TextBlock(text=self.content)] if self.content else []
        return self.content

    def _repr_html_(self) -> str:
        from langswarm_session._display import message_html

        return message_html(self)

    def __rich__(self) -> Any:
        from langswarm_session._display import rich_messages

        return rich_messages([self])

    def says_same(self, other: SessionMessage) -> bool:
        """Return whether another message says the same: speaker and content."""
        return self.role is other.role and self.content == other.content

    def replaced(self, **changes: Any) -> Self:
        """Return a copy with other values in some fields, validated.

        Args:
            **changes: New values by field name.

        Raises:
            pydantic.ValidationError: If a value does not fit its field.
        """
        return type(self).model_validate({**self.__dict__, **changes})

    @classmethod
    def _trusted(cls, values: dict[str, Any]) -> Self:
        """Return a message from values that are known to be valid, and complete.

        Validating them is what reading a long log would cost most.
        """
        return unchecked(cls, values, _MESSAGE_FIELDS)

    def _placed(self, seq: int, turn_id: int) -> Self:
        """Return a copy with the place in the log that the storage gave it."""
        return self._trusted({**self.__dict__, "seq": seq, "turn_id": turn_id})


_MESSAGE_FIELDS = set(SessionMessage.model_fields)

BARE_MESSAGE: dict[str, Any] = dict.fromkeys(SessionMessage.model_fields)
"""All fields of a message without a value, for `SessionMessage._trusted` to be given some."""


class Turn(Model):
    """A user's message and all that answers it.

    Attributes:
        id: The sequence number of the turn's first message.
        session_id: The session it belongs to.
        status: How it stands.
        first_seq: Its first message's sequence number.
        last_seq: Its last message's sequence number.
        started_at: When its first message was made.
        finished_at: When it ended; None while it is open.
        idempotency_key: The caller's key, if one was given.
        error: Why it was cancelled or failed.
    """

    id: int
    session_id: str
    status: TurnStatus
    first_seq: int
    last_seq: int
    started_at: UtcDatetime
    finished_at: UtcDatetime | None = None
    idempotency_key: str | None = None
    error: str | None = None

    def _repr_html_(self) -> str:
        from langswarm_session._display import turn_html

        return turn_html(self)

    def __rich__(self) -> Any:
        from langswarm_session._display import rich_turn

        return rich_turn(self)


class MessageList(list[SessionMessage]):
    """Messages that show themselves as a transcript in a notebook or terminal."""

    def _repr_html_(self) -> str:
        from langswarm_session._display import messages_html

        return messages_html(self)

    def __rich__(self) -> Any:
        from langswarm_session._display import rich_messages

        return rich_messages(self)


class Fallback(Model):
    """Who answers when those before it cannot.

    Attributes:
        provider: The provider's name.
        model: The model's name; the session's own when None.
    """

    provider: str = Field(min_length=1)
    model: str | None = None


def _as_fallback(value: Any) -> Any:
    """Return a fallback from ``"mock"``, ``("anthropic", "claude-...")`` or a mapping."""
    if isinstance(value, str):
        return {"provider": value}
    if isinstance(value, tuple | list) and len(value) in (1, 2):
        return dict(zip(("provider", "model"), value, strict=False))
    return value


class Summary(Model):
    """A shorter text that stands for the beginning of a log in the window; the log keeps all.

    Attributes:
        text: The summary.
        last_seq: The sequence number of the last message it covers; it covers all up to there.
    """

    text: str = Field(min_length=1)
    last_seq: int = Field(ge=1)


class TokenCounter(StrEnum):
    """How tokens are counted where a window has a budget of them."""

    ESTIMATE = "estimate"
    """From the length of the texts; nothing to install, no network."""
    TIKTOKEN = "tiktoken"
    """By OpenAI's tokenizer, which fetches its vocabulary when it is first used."""
    PROVIDER = "provider"
    """By asking the provider: one more request each turn."""


NOTES = "langswarm"
"""The key of a reply's metadata under which this package keeps what it notes about the request:
repairs, a fallback, a changed prefix and what the reply was made under."""


class SessionContext(BaseModel):
    """What a session is about and how its window is cut; unknown keys are kept with it.

    Attributes:
        session_id: The session.
        user_id: Whose it is.
        provider: Who generates replies.
        model: The model's name.
        backend: Where the conversation's state is sought.
        max_messages: How many of the newest messages a request carries at most; a window that would
            have more begins again with about half of it.
        max_input_tokens: How many tokens of messages a request carries at most; None for as many
            as there are. The newest message is sent whatever it takes.
        token_counter: How those are counted.
        summary: What stands for the beginning of the log in the window, if anything.
        fallback: Who answers, in this order, while the provider is down or takes no more requests.
        auto_archive: Whether `cleanup_inactive_sessions` may archive the session.
        provider_session_id: The provider's id of the conversation, once it has one.
        provider_context: What else the provider needs to go on with it.
        provider_seq: The newest message of the log that the provider's own copy has.
        provider_calls: The ids of the calls in that copy that have no result yet.
        provider_states: The same four of the other providers that answered here, by name.
        request_state: Where requests begin, and what providers noted about them; see
            `langswarm_session.requests.state`.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        ser_json_inf_nan="constants",
        defer_build=True,
        hide_input_in_errors=True,
    )
    __pydantic_extra__: JsonObject

    session_id: str
    user_id: str
    provider: str
    model: str
    backend: SessionBackend = SessionBackend.PROVIDER_NATIVE
    max_messages: int = Field(default=200, ge=1, le=2**31 - 1)
    max_input_tokens: int | None = Field(default=None, ge=1, le=2**31 - 1)
    token_counter: TokenCounter = TokenCounter.ESTIMATE
    summary: Summary | None = None
    fallback: list[Annotated[Fallback, BeforeValidator(_as_fallback)]] = Field(default_factory=list)
    auto_archive: bool = True
    provider_session_id: str | None = None
    provider_context: JsonObject = Field(default_factory=dict)
    provider_seq: int = 0
    provider_calls: list[str] = Field(default_factory=list)
    provider_states: dict[str, JsonObject] = Field(default_factory=dict)
    request_state: JsonObject = Field(default_factory=dict)


class SessionMetrics(Model):
    """Figures of a session, kept by the storage with each write.

    Attributes:
        message_count: Messages in the log, of all speakers.
        turn_count: Turns ever begun.
        input_tokens: Tokens sent, summed over the replies.
        output_tokens: Tokens generated.
        cached_tokens: Input tokens read from a provider's cache.
        reasoning_tokens: Output tokens that were reasoning.
        errors: Turns that failed.
        created_at: When the session was created.
        last_activity: When it was last written to.
    """

    message_count: int = 0
    turn_count: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    errors: int = 0
    created_at: UtcDatetime
    last_activity: UtcDatetime

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    @property
    def session_duration(self) -> float:
        """Seconds from the creation to the last activity."""
        return (self.last_activity - self.created_at).total_seconds()


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC, exact."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the aware UTC time that is ``micros`` microseconds after 1970-01-01 UTC.

    Raises:
        ValueError: If that has no year.
    """
    try:
        return _EPOCH + micros * _MICROSECOND
    except OverflowError:
        raise ValueError("this moment has no year in UTC") from None


def _build_all() -> None:
    """Build whatever model is to be built at its first use.

    A thread that does so holds a lock of pydantic's. In a process that was forked off meanwhile
    nothing would release it.
    """
    waiting: list[type[BaseModel]] = [SessionContext, Model]
    while waiting:
        model = waiting.pop()
        model.model_rebuild()
        waiting += model.__subclasses__()


os.register_at_fork(before=_build_all)
