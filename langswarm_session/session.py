"""A session: one conversation, its turns and its record."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import from_json

from langswarm_session import window
from langswarm_session.blocks import Block, blocks_adapter
from langswarm_session.checks import (
    as_messages,
    check_id,
    check_limit,
    check_name,
    check_seconds,
    describe,
    make_message,
)
from langswarm_session.errors import (
    InvalidInputError,
    ProviderCapabilityError,
    ProviderSessionError,
    ProviderStreamError,
    SessionError,
)
from langswarm_session.interfaces import (
    IProviderSession,
    ISession,
    ISessionLifecycleHook,
    ISessionMiddleware,
    ProviderCapability,
)
from langswarm_session.models import (
    MessageRole,
    SessionBackend,
    SessionContext,
    SessionMessage,
    SessionMetrics,
    SessionStatus,
    Turn,
    TurnStatus,
    new_id,
)
from langswarm_session.pipeline import Pipeline, in_session
from langswarm_session.records import (
    Appended,
    IdempotencyKey,
    NewSession,
    ProviderReply,
    ProviderRequest,
    SessionChanges,
    SessionRecord,
    StreamEvent,
)
from langswarm_session.turns import OpenTurn, Reader

if TYPE_CHECKING:
    from langswarm_session.manager import SessionManager

_UNSET: Any = object()

_PAGE = 500
"""How many messages `iter_messages` reads at a time."""

_OWN_COLUMNS = ("provider", "model", "backend")
_PROVIDER_STATE = ("provider_session_id", "provider_context")


class BaseSession(ISession):
    """One conversation of one user. Made by `SessionManager`.

    Properties show what the last call saw; `refresh` reads them anew. A session may be used from
    any task, thread and event loop, and several objects may stand for one session, in any number
    of processes.
    """

    def __init__(self, manager: SessionManager, record: SessionRecord) -> None:
        self._manager = manager
        self._runtime = manager._runtime
        self._storage = manager._storage
        self._pipeline = Pipeline(manager._pipeline.middleware, manager._pipeline.hooks)
        self._record = record
        # The window as it was at a revision, so that a turn need not read it again.
        self._window: list[SessionMessage] = []
        self._window_revision = -1
        self._window_limit = 0
        self._context: tuple[SessionRecord, SessionContext] | None = None

    def __repr__(self) -> str:
        record = self._record
        return (
            f"<{type(self).__name__} {record.session_id!r} of {record.user_id!r}: "
            f"{record.status}, {record.message_count} messages, {record.provider}/{record.model}>"
        )

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self._record.session_id

    @property
    def user_id(self) -> str:
        """Whose session it is."""
        return self._record.user_id

    @property
    def status(self) -> SessionStatus:
        """The status, as of the last call."""
        return SessionStatus(self._record.status)

    @property
    def context(self) -> SessionContext:
        """The context, as of the last call."""
        if self._context is None or not _same_context(self._context[0], self._record):
            self._context = (self._record, self._record.to_context())
        return self._context[1]

    @property
    def metrics(self) -> SessionMetrics:
        """The figures, as of the last call."""
        return self._record.to_metrics()

    @property
    def revision(self) -> int:
        """A number that every write moves, as of the last call."""
        return self._record.revision

    @property
    def manager(self) -> SessionManager:
        """The manager it came from."""
        return self._manager

    def add_middleware(self, middleware: ISessionMiddleware) -> None:
        """Let a middleware see this session's messages, through this object."""
        self._pipeline.add_middleware(middleware)

    def add_lifecycle_hook(self, hook: ISessionLifecycleHook) -> None:
        """Let a hook observe this session, through this object."""
        self._pipeline.add_hook(hook)

    async def refresh(self) -> None:
        """Read the properties anew.

        Raises:
            SessionNotFoundError: If the session was deleted.
        """
        self._manager._check_open()
        self._record = await self._storage.get_session(self.session_id)

    async def send_message(
        self,
        content: str | list[Block] | SessionMessage,
        role: MessageRole | str = MessageRole.USER,
        *,
        metadata: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
        wait: float | None = _UNSET,
        **options: Any,
    ) -> SessionMessage:
        """Send a message and return the reply.

        The message is durable before the provider is called; the reply, its usage and the turn's
        status are, together, before this returns.

        Args:
            content: Text, blocks, or a message of your own making.
            role: Who speaks, if the content is not a message already.
            metadata: JSON values to keep with the message.
            idempotency_key: A second call with the same key gives the stored reply; one whose
                turn failed is tried again without storing the message twice.
            wait: How long to wait for a turn that is running, in seconds, in place of the
                manager's ``turn_wait``; 0 not to wait, None to wait for ever.
            **options: The provider's own (``temperature``, ``tools``...).

        Returns:
            The reply as it was stored.

        Raises:
            InvalidInputError: If the content cannot be sent.
            SessionBusyError: If another turn runs for too long.
            NestedTurnError: If this is called inside a turn of the same session.
            MessageRefusedError: If a middleware refuses the message or the reply.
            ProviderSessionError: If there is no reply; the turn has failed then.
            SessionNotFoundError, SessionInactiveError, SessionStorageError
        """
        provider = self._provider(options)
        turn = await self._begin(content, role, metadata, idempotency_key, wait)
        if turn.replayed:
            return turn.reply
        async with turn:
            request = await self._request(turn, options)
            try:
                reply = await provider.send_message(request)
            except Exception as error:
                raise self._provider_error(error, provider) from error
            stored = await turn.complete(self._checked(reply, provider))
        return stored[-1]

    def stream_message(
        self,
        content: str | list[Block] | SessionMessage,
        role: MessageRole | str = MessageRole.USER,
        *,
        metadata: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
        wait: float | None = _UNSET,
        **options: Any,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Send a message and yield the reply in pieces.

        When the reader stops early the turn is cancelled, and what was yielded by then is kept:
        use ``async with contextlib.aclosing(...)`` where it must have happened when the block ends.
        Middleware sees the whole reply before it is stored; the pieces are the provider's, unless
        a middleware has ``holds_stream`` set: then there is one piece, after the middleware.

        Args and errors are those of `send_message`.

        Yields:
            The pieces; the last event carries the whole reply as it was stored.
        """
        reader = Reader()
        begin = partial(self._begin, content, role, metadata, idempotency_key, wait)
        stream = self._stream(reader, begin, options)
        reader.reads(stream)
        return stream

    async def _stream(
        self, reader: Reader, begin: Callable[[], Awaitable[OpenTurn]], options: dict[str, Any]
    ) -> AsyncGenerator[StreamEvent, None]:
        provider = self._provider(options)
        turn = await begin()
        if turn.replayed:
            yield StreamEvent(text=turn.reply.text)
            yield StreamEvent(message=turn.reply)
            return
        turn.reader = reader
        held = self._pipeline.holds_stream
        async with turn:
            request = await self._request(turn, options)
            reply: ProviderReply | None = None
            async with aclosing(self._events(provider, request)) as events:
                async for event in events:
                    if isinstance(event, ProviderReply):
                        reply = event
                    elif not held:
                        turn.received(event.text)
                        yield event
            if reply is None:
                raise ProviderStreamError(
                    "the stream ended before the reply was complete; send the message again",
                    session_id=self.session_id,
                    provider=provider.name,
                )
            stored = await turn.complete(self._checked(reply, provider))
        if held:
            yield StreamEvent(text=stored[-1].text)
        yield StreamEvent(message=stored[-1])

    async def begin_turn(
        self,
        messages: str | SessionMessage | Sequence[SessionMessage],
        *,
        idempotency_key: str | None = None,
        wait: float | None = _UNSET,
    ) -> OpenTurn:
        """Begin a turn that something other than a provider of ours answers.

        Args:
            messages: What it begins with; it is stored, after the middleware, when this returns.
            idempotency_key: See `send_message`.
            wait: See `send_message`.

        Returns:
            The open turn, to be used as an async context manager or ended by its methods.

        Raises:
            As `send_message`, but for the provider's errors.
        """
        given = self._messages(messages)
        return await self._begin_with(given, idempotency_key, wait)

    async def record(
        self,
        messages: SessionMessage | Sequence[SessionMessage],
        *,
        idempotency_key: str | None = None,
        expected_revision: int | None = None,
        wait: float | None = _UNSET,
    ) -> list[SessionMessage]:
        """Store messages that were made elsewhere, as one complete turn.

        Inside a turn of this session they are added to that turn instead. A message whose id is
        stored already is not stored again.

        Args:
            messages: What to store, in order.
            idempotency_key: See `send_message`.
            expected_revision: Store nothing unless the session is at this revision.
            wait: See `send_message`.

        Returns:
            The messages as stored, with their places in the log.

        Raises:
            RevisionConflictError: If the revision is another.
            MessageConflictError: If an id is stored with other content.
            InvalidInputError, MessageRefusedError, SessionBusyError, SessionNotFoundError,
            SessionInactiveError, SessionStorageError
        """
        given = self._messages(messages)
        self._manager._check_open()
        if not given:
            return []
        turn = self._runtime.open_turn(self.session_id)
        if turn is not None and idempotency_key is None and expected_revision is None:
            return await turn.add(given)
        key = self._key(idempotency_key, given)
        processed = await self._process(given)

        async def append() -> Appended:
            appended = await self._storage.append(
                self.session_id, processed, expected_revision=expected_revision, key=key
            )
            self._moved(appended.record)
            return appended

        appended = await self._runtime.alone(self.session_id, append, self._wait(wait))
        await self._pipeline.stored(self, appended.new_messages)
        return appended.messages

    async def get_messages(self, limit: int | None = None) -> list[SessionMessage]:
        """The newest messages, or all, oldest first.

        Args:
            limit: How many of the newest; None for all.

        Raises:
            InvalidInputError: If the limit is negative.
            SessionNotFoundError, SessionStorageError
        """
        limit = check_limit(limit)
        self._manager._check_open()
        return await self._storage.get_messages(self.session_id, limit=limit)

    async def iter_messages(self, *, after: int = 0) -> AsyncIterator[SessionMessage]:
        """All messages, oldest first, read as they are used: for logs larger than memory.

        Args:
            after: Begin after this sequence number.
        """
        self._manager._check_open()
        while True:
            page = await self._storage.get_messages(self.session_id, after=after, limit=_PAGE)
            for message in page:
                yield message
            if len(page) < _PAGE:
                return
            after = page[-1].seq or after

    async def get_turns(self, limit: int = 100) -> list[Turn]:
        """The newest turns with their status, oldest first.

        Args:
            limit: How many at most.
        """
        checked = check_limit(limit, optional=False)
        self._manager._check_open()
        return await self._storage.get_turns(self.session_id, limit=checked or 0)

    async def add_system_message(self, content: str) -> SessionMessage:
        """Store a system message; from then on every request carries it.

        Returns:
            The message as stored.
        """
        message = make_message(content, MessageRole.SYSTEM, session_id=self.session_id)
        return (await self.record(message))[-1]

    async def clear_messages(self, *, expected_revision: int | None = None) -> None:
        """Remove all messages and turns for good. The session stays.

        Args:
            expected_revision: Remove nothing unless the session is at this revision.
        """
        self._manager._check_open()

        async def clear() -> None:
            self._record = await self._storage.clear_messages(
                self.session_id, expected_revision=expected_revision
            )

        await self._runtime.alone(self.session_id, clear, self._wait(_UNSET))

    async def update_context(
        self, *, expected_revision: int | None = None, **changes: Any
    ) -> SessionContext:
        """Change keys of the context; unknown ones are kept with it.

        Args:
            expected_revision: Change nothing unless the session is at this revision.
            **changes: New values by key, such as ``max_messages=50``.

        Returns:
            The context after the change.

        Raises:
            InvalidInputError: If a value does not fit, or a key cannot be changed.
        """
        self._manager._check_open()
        for name in ("session_id", "user_id"):
            if name in changes:
                raise InvalidInputError(f"{name} cannot be changed", session_id=self.session_id)
        context = check_context(self.context.model_dump(), changes, self.session_id)
        columns = {name: getattr(context, name) for name in _OWN_COLUMNS if name in changes}
        for name in ("provider", "model"):
            if name in columns:
                check_name(columns[name], name)
        if "provider" in columns:
            self._manager._check_provider(columns["provider"])
        state = None
        if any(name in changes for name in _PROVIDER_STATE):
            state = {name: getattr(context, name) for name in _PROVIDER_STATE}
        others = {
            name: value
            for name, value in context.model_dump(mode="json").items()
            if name in changes and name not in _OWN_COLUMNS and name not in _PROVIDER_STATE
        }
        update = SessionChanges(context=others or None, provider_state=state, **columns)
        self._record = await self._storage.update_session(
            self.session_id, update, expected_revision=expected_revision
        )
        return self.context

    async def set_status(self, status: SessionStatus | str) -> None:
        """Change the status: only an active session takes new turns.

        Raises:
            InvalidInputError: If there is no such status.
        """
        self._manager._check_open()
        try:
            changes = SessionChanges(status=SessionStatus(status))
        except ValueError as error:
            raise InvalidInputError(str(error), session_id=self.session_id) from error
        self._record = await self._storage.update_session(self.session_id, changes)

    async def archive(self) -> None:
        """Archive the session: it can be read, and takes no new turn."""
        await self.set_status(SessionStatus.ARCHIVED)
        await self._pipeline.archived(self)

    async def fork(
        self,
        at: int | SessionMessage | None = None,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
    ) -> BaseSession:
        """A new session that begins with a copy of this one's log.

        Args:
            at: The last message to copy, or its sequence number; None for all.
            session_id: The new session's id; made up when None.
            user_id: Whose it is; this one's user when None.

        Returns:
            The new session. It keeps the context, and none of the provider's state.

        Raises:
            InvalidInputError: If ``at`` is not in the log's range.
            SessionExistsError: If the id is taken.
        """
        self._manager._check_open()
        seq = at.seq if isinstance(at, SessionMessage) else at
        source = await self._storage.get_session(self.session_id)
        if at is not None and not (type(seq) is int and 0 <= seq <= source.last_seq):
            raise InvalidInputError(
                f"at must be a message of the log or its sequence number, not {at!r}",
                session_id=self.session_id,
            )
        new = NewSession(
            session_id=check_id(new_id() if session_id is None else session_id, "session_id"),
            user_id=check_id(self.user_id if user_id is None else user_id, "user_id"),
            provider=source.provider,
            model=source.model,
            backend=SessionBackend(source.backend),
            context=from_json(source.context),
        )
        record = await self._storage.fork_session(self.session_id, new, at=seq)
        return await self._manager._created(record)

    # What turns need

    def _moved(self, record: SessionRecord) -> None:
        self._record = record

    async def _history(self, turn: OpenTurn) -> list[SessionMessage]:
        # While a turn holds the lease nobody else changes the log, so the revision it began at
        # tells whether the window is the one kept from the turn before.
        before = turn._first_revision - 1
        room = max(0, self.context.max_messages - len(turn.messages))
        if self._window_revision == before and self.context.max_messages <= self._window_limit:
            self._window = window.cut(self._window, room)
        else:
            self._window = await window.load(
                self._storage, self.session_id, before=turn.id, max_messages=room
            )
            self._window_revision = before
            self._window_limit = self.context.max_messages
        return self._window

    def _remember(self, turn: OpenTurn, status: TurnStatus) -> None:
        """Keep the window for the next turn."""
        known = self._window_revision == turn._first_revision - 1
        if known and status is TurnStatus.COMPLETE:
            self._window = [*self._window, *turn.messages]
            self._window_revision = self._record.revision
        else:
            self._window_revision = -1

    async def _begin(
        self,
        content: str | list[Block] | SessionMessage,
        role: MessageRole | str,
        metadata: dict[str, Any] | None,
        idempotency_key: str | None,
        wait: float | None,
    ) -> OpenTurn:
        message = make_message(content, role, session_id=self.session_id, metadata=metadata)
        if message.role is MessageRole.ASSISTANT:
            raise InvalidInputError(
                "an assistant's message is not sent; store it with record()",
                session_id=self.session_id,
            )
        if not message.content:
            raise InvalidInputError("the message is empty", session_id=self.session_id)
        return await self._begin_with([message], idempotency_key, wait)

    async def _begin_with(
        self, messages: list[SessionMessage], idempotency_key: str | None, wait: float | None
    ) -> OpenTurn:
        self._manager._check_open()
        key = self._key(idempotency_key, messages)
        processed = await self._process(messages)
        turn = await self._runtime.begin(self, processed, key, self._wait(wait))
        if turn._added:
            try:
                await self._pipeline.stored(self, turn.messages)
            except BaseException as error:  # cancelled meanwhile
                await turn._abandon(error)
                raise
        return turn

    async def _process(self, messages: list[SessionMessage]) -> list[SessionMessage]:
        try:
            return await self._pipeline.process(self, messages)
        except SessionError as error:
            await self._pipeline.failed(self, error)
            raise

    async def _request(self, turn: OpenTurn, options: dict[str, Any]) -> ProviderRequest:
        messages = [*await turn.history(), *turn.messages]
        return ProviderRequest(
            session_id=self.session_id,
            context=self.context,
            messages=messages,
            new_count=len(turn.messages),
            options=options,
        )

    def _messages(
        self, messages: str | SessionMessage | Sequence[SessionMessage]
    ) -> list[SessionMessage]:
        if isinstance(messages, str):
            messages = make_message(messages, MessageRole.USER, session_id=self.session_id)
        return as_messages(messages, self.session_id)

    def _key(
        self, idempotency_key: str | None, messages: Sequence[SessionMessage]
    ) -> IdempotencyKey | None:
        if idempotency_key is None:
            return None
        digest = hashlib.sha256()
        for message in messages:
            content = message.content
            digest.update(message.role.value.encode())
            digest.update(
                content.encode() if isinstance(content, str) else blocks_adapter.dump_json(content)
            )
        return IdempotencyKey(check_id(idempotency_key, "idempotency_key"), digest.hexdigest())

    def _wait(self, wait: float | None) -> float | None:
        if wait is _UNSET:
            return self._runtime.turn_wait
        return None if wait is None else check_seconds(wait, "wait")

    # What providers need

    def _provider(self, options: dict[str, Any]) -> IProviderSession:
        self._manager._check_open()
        provider = self._manager._provider(self._record.provider, self.session_id)
        if options.get("tools") and ProviderCapability.TOOLS not in provider.capabilities:
            raise ProviderCapabilityError(
                f"the provider {provider.name!r} takes no tools",
                session_id=self.session_id,
                provider=provider.name,
            )
        return provider

    async def _events(
        self, provider: IProviderSession, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        try:
            async with aclosing(provider.stream_message(request)) as events:
                async for event in events:
                    yield event
        except Exception as error:
            raise self._provider_error(error, provider) from error

    def _checked(self, reply: ProviderReply, provider: IProviderSession) -> ProviderReply:
        if not reply.messages:
            raise ProviderSessionError(
                f"the provider {provider.name!r} gave no message",
                session_id=self.session_id,
                provider=provider.name,
            )
        return reply

    def _provider_error(self, error: Exception, provider: IProviderSession) -> SessionError:
        if isinstance(error, SessionError):
            return in_session(error, self.session_id)
        return ProviderSessionError(
            f"the provider {provider.name!r} failed: {type(error).__name__}",
            session_id=self.session_id,
            provider=provider.name,
        )


def check_context(
    values: dict[str, Any], changes: dict[str, Any], session_id: str | None
) -> SessionContext:
    """A context with changes applied.

    Raises:
        InvalidInputError: If a value does not fit.
    """
    if changes.get("persist_messages") is False:
        raise InvalidInputError(
            "every message is stored; for a conversation that leaves nothing behind use a "
            "manager with storage='memory'",
            session_id=session_id,
        )
    try:
        return SessionContext.model_validate({**values, **changes})
    except ValidationError as error:
        raise InvalidInputError(describe(error), session_id=session_id) from None


def _same_context(one: SessionRecord, other: SessionRecord) -> bool:
    return (
        one.context == other.context
        and one.provider_state == other.provider_state
        and one.model == other.model
        and one.provider == other.provider
        and one.backend == other.backend
    )
