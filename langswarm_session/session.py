"""A session: one conversation, its turns and its record."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import from_json

from langswarm_session import blocking, fidelity, window
from langswarm_session.answering import Answer, Answering, check_tools
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
    ProviderAuthenticationError,
    SessionError,
)
from langswarm_session.fidelity import Loss
from langswarm_session.interfaces import (
    ISession,
    ISessionLifecycleHook,
    ISessionMiddleware,
)
from langswarm_session.models import (
    MessageList,
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
from langswarm_session.pipeline import Pipeline
from langswarm_session.provider_state import KEYS, ProviderState, states_of, stored
from langswarm_session.reconcile import Reconciliation, reconcile
from langswarm_session.records import (
    Appended,
    IdempotencyKey,
    NewSession,
    SessionChanges,
    SessionRecord,
    StreamEvent,
)
from langswarm_session.storage.rules import check_revision
from langswarm_session.tools import as_tools, call_tools
from langswarm_session.turns import OpenTurn, Reader

if TYPE_CHECKING:
    from langswarm_session.manager import SessionManager

_UNSET: Any = object()

_PAGE = 500
"""How many messages `iter_messages` reads at a time."""

_OWN_COLUMNS = ("provider", "model", "backend")
_PROVIDER_STATE = (*KEYS, "provider_states")


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

    def _repr_html_(self) -> str:
        from langswarm_session.rendering import SHOWN, session_html

        async def look() -> tuple[SessionRecord, MessageList]:
            messages = await self.get_messages(SHOWN)
            return await self._storage.get_session(self.session_id), messages

        try:
            return session_html(*blocking.run(look()))
        except SessionError as error:  # also shown when its manager is closed
            return f"{escape(repr(self))} ({escape(str(error))})"

    def __rich__(self) -> Any:
        from langswarm_session.rendering import SESSION_COLUMNS, rich_table, session_row

        return rich_table(SESSION_COLUMNS, [session_row(self._record)])

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
    def last_seq(self) -> int:
        """The sequence number given last, as of the last call."""
        return self._record.last_seq

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
        self._check_answerable(options)
        turn = await self._begin(content, role, metadata, idempotency_key, wait)
        if turn.replayed:
            return turn.reply
        async with turn:
            answer = await Answering(self, turn, options).send()
            stored = await turn.complete(answer.messages, provider_state=answer.provider_state)
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
        self._check_answerable(options)
        turn = await begin()
        if turn.replayed:
            yield StreamEvent(text=turn.reply.text)
            yield StreamEvent(message=turn.reply)
            return
        turn.reader = reader
        held = self._pipeline.holds_stream
        async with turn:
            answer: Answer | None = None
            async with aclosing(Answering(self, turn, options).stream()) as events:
                async for event in events:
                    if isinstance(event, Answer):
                        answer = event
                    elif not held:
                        turn.received(event.text)
                        yield event
            assert answer is not None
            stored = await turn.complete(answer.messages, provider_state=answer.provider_state)
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
                self.session_id,
                processed,
                expected_revision=expected_revision,
                key=key,
                user_id=self.user_id,
            )
            self._moved(appended.record)
            return appended

        appended = await self._runtime.alone(self.session_id, append, self._wait(wait))
        await self._pipeline.stored(self, appended.new_messages)
        return appended.messages

    async def get_messages(self, limit: int | None = None) -> MessageList:
        """The newest messages, or all, oldest first: a list that a notebook shows as a transcript.

        Args:
            limit: How many of the newest; None for all.

        Raises:
            InvalidInputError: If the limit is negative.
            SessionNotFoundError, SessionStorageError
        """
        limit = check_limit(limit)
        self._manager._check_open()
        return MessageList(await self._storage.get_messages(self.session_id, limit=limit))

    async def get_window(self) -> list[SessionMessage]:
        """What of the log the next turn is to know, as of the last call: its window, oldest first.

        Raises:
            SessionNotFoundError, SessionStorageError
        """
        self._manager._check_open()
        context = self.context
        return await window.load(
            self._storage,
            self.session_id,
            before=self.last_seq + 1,
            max_messages=context.max_messages,
            summary=context.summary,
        )

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

        Raises:
            ProviderSessionError: If a provider that keeps a copy could not remove it; then nothing
                was removed here either.
        """
        self._manager._check_open()

        async def clear() -> None:
            await self.refresh()
            check_revision(self._record, expected_revision)
            expected = expected_revision
            if self.context.summary is not None or states_of(self.context):
                await self._manager._forget_at_providers(self)
                changes = SessionChanges(context={"summary": None}, provider_state={})
                self._record = await self._storage.update_session(
                    self.session_id, changes, expected_revision=self._record.revision
                )
                expected = self._record.revision
            self._record = await self._storage.clear_messages(
                self.session_id, expected_revision=expected
            )

        await self._runtime.alone(self.session_id, clear, self._wait(_UNSET))

    async def edit_messages(
        self,
        *,
        expected_revision: int,
        remove: Sequence[int] = (),
        change: Sequence[SessionMessage] = (),
        add: Sequence[SessionMessage] = (),
    ) -> list[SessionMessage]:
        """Remove, change and add messages in one write: for histories that are edited, not logged.

        What stays keeps its number; what is added comes last. A message of the log that is removed
        and added again was moved: it keeps its id, and neither middleware nor hooks see it again.
        Middleware sees what is changed or new. What a provider keeps of the conversation is
        removed there, and the summary dropped, where they have a message that is removed or
        changed; the next turn begins from the record.

        Args:
            expected_revision: The revision that the messages were read at, read before them.
            remove: The sequence numbers of the messages to remove.
            change: Messages of the log with other values, in the place of those.
            add: Messages to add, in order, as one complete turn.

        Returns:
            What was added, as stored.

        Raises:
            RevisionConflictError: If the session is at another revision: read it again.
            MessageConflictError: If the id of a message to add is stored already.
            NestedTurnError: If this is called inside a turn of the same session.
            ProviderSessionError: If a provider that keeps a copy could not remove it.
            InvalidInputError, MessageRefusedError, SessionBusyError, SessionNotFoundError,
            SessionInactiveError, SessionStorageError
        """
        self._manager._check_open()
        changed = await self._process(self._messages(change))
        moved = {message.id for message in add if message.seq in {*remove}}
        fresh = await self._process([each for each in self._messages(add) if each.id not in moved])
        rest = iter(fresh)
        added = [each if each.id in moved else next(rest) for each in add]
        touched = [*remove, *(message.seq or 0 for message in changed)]

        async def edit() -> Appended:
            expected = await self._forget_edited(touched, expected_revision)
            appended = await self._storage.edit_messages(
                self.session_id,
                expected_revision=expected,
                remove=remove,
                change=changed,
                add=added,
            )
            self._moved(appended.record)
            return appended

        appended = await self._runtime.alone(self.session_id, edit, self._wait(_UNSET))
        new = [message for message in appended.messages if message.id not in moved]
        await self._pipeline.stored(self, new)
        return appended.messages

    async def _forget_edited(self, touched: Sequence[int], expected_revision: int) -> int:
        """Drop the summary and providers' copies that have a message which is about to change.

        Returns:
            The revision after that.
        """
        await self.refresh()
        check_revision(self._record, expected_revision)
        covered = [state.seq for state in states_of(self.context).values()]
        if self.context.summary is not None:
            covered.append(self.context.summary.last_seq)
        if not touched or max(covered, default=0) < min(touched):
            return expected_revision
        await self._manager._forget_at_providers(self)
        changes = SessionChanges(context={"summary": None}, provider_state={})
        self._record = await self._storage.update_session(
            self.session_id, changes, expected_revision=expected_revision
        )
        return self._record.revision

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
        others = {
            name: value
            for name, value in context.model_dump(mode="json").items()
            if name in changes and name not in _OWN_COLUMNS and name not in _PROVIDER_STATE
        }
        state = self._changed_state(context, changes)
        update = SessionChanges(context=others or None, provider_state=state, **columns)
        self._record = await self._storage.update_session(
            self.session_id, update, expected_revision=expected_revision
        )
        return self.context

    def _changed_state(
        self, context: SessionContext, changes: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """What to store of the providers' state when the context changes; None if it does not."""
        if not any(name in changes for name in ("provider", *_PROVIDER_STATE)):
            return None
        states = states_of(self.context)
        if any(name in changes for name in _PROVIDER_STATE):
            # A conversation that a caller names is taken to be where the record is.
            states[context.provider] = ProviderState(
                context.provider_session_id, context.provider_context, self._record.last_seq
            )
        return stored(states, context.provider)

    async def switch_provider(
        self, provider: str, model: str | None = None, *, expected_revision: int | None = None
    ) -> SessionContext:
        """Let another provider, or another model, answer from the next turn on.

        It gets the conversation from the record. What the one before keeps of it is left there,
        and gone on with when the session comes back to it.

        Args:
            provider: The provider's name.
            model: The model's name; the session's own when None.
            expected_revision: Change nothing unless the session is at this revision.

        Returns:
            The context after the change.

        Raises:
            InvalidInputError: If a name cannot be used.
            UnknownProviderError: If there is no such provider.
            SessionNotFoundError, RevisionConflictError, SessionStorageError
        """
        changes = {"provider": provider, **({} if model is None else {"model": model})}
        self._manager._check_provider(check_name(provider, "provider"))
        return await self.update_context(expected_revision=expected_revision, **changes)

    async def set_summary(self, text: str | None, last_seq: int | None = None) -> SessionContext:
        """Let a summary stand for the beginning of the log in every request; the log keeps all.

        Args:
            text: The summary; None to go without one again.
            last_seq: The sequence number of the last message that it covers; the newest when None.

        Raises:
            InvalidInputError: If there is no such message, or no text.
        """
        if text is None:
            return await self.update_context(summary=None)
        await self.refresh()
        seq = self._record.last_seq if last_seq is None else last_seq
        if not (type(seq) is int and 1 <= seq <= self._record.last_seq):
            raise InvalidInputError(
                f"last_seq must be the sequence number of a message of the log, not {seq!r}",
                session_id=self.session_id,
            )
        return await self.update_context(summary={"text": text, "last_seq": seq})

    async def call_tools(self, reply: SessionMessage, tools: Sequence[Any]) -> SessionMessage:
        """Run the tools that a reply calls; see `langswarm_session.tools.call_tools`.

        Args:
            reply: The reply with the calls.
            tools: What was offered: functions, or Tools with one.

        Returns:
            One message with all results: the argument of the next `send_message`.

        Raises:
            InvalidInputError: If the reply calls no tool.
        """
        return await call_tools(reply, tools, self.context)

    async def reconcile(self, *, pull: bool = False) -> Reconciliation:
        """Compare the provider's own copy of the conversation with the record.

        Args:
            pull: Whether to store what only the provider has, at the end of the log.

        Returns:
            What only one side has.

        Raises:
            ProviderCapabilityError: If the provider keeps no conversations.
            ProviderSessionError: If it cannot be asked.
        """
        return await reconcile(self, pull=pull)

    async def fidelity(self, target: str) -> list[Loss]:
        """What a framework or provider would not get of this conversation as it is.

        Args:
            target: ``langchain``, ``llama_index``, ``openai_agents``, or a provider's name. Nobody
                is asked anything, and no provider needs its key for it.

        Returns:
            An entry for each message that loses something, oldest first.

        Raises:
            MissingDependencyError: If the framework, or the provider's SDK, is not installed.
            UnknownProviderError: If there is no such framework or provider.
        """
        target = fidelity.check_target(target)
        messages = await self.get_messages()
        if fidelity.is_door(target):
            return fidelity.door_losses(target, messages)
        losses = partial(fidelity.provider_losses, context=self.context, messages=messages)
        try:
            return losses(self._manager._providers.get(target) or self._manager._keyless(target))
        except ProviderAuthenticationError:  # a known one that was made without a key
            return losses(self._manager._keyless(target))

    async def set_status(
        self, status: SessionStatus | str, *, expected_revision: int | None = None
    ) -> None:
        """Change the status: only an active session takes new turns.

        Args:
            status: The new one.
            expected_revision: Change nothing unless the session is at this revision.

        Raises:
            InvalidInputError: If there is no such status.
            RevisionConflictError: If the revision is another.
        """
        self._manager._check_open()
        try:
            changes = SessionChanges(status=SessionStatus(status))
        except ValueError as error:
            raise InvalidInputError(str(error), session_id=self.session_id) from error
        self._record = await self._storage.update_session(
            self.session_id, changes, expected_revision=expected_revision
        )

    async def archive(self, *, expected_revision: int | None = None) -> None:
        """Archive the session: it can be read, and takes no new turn.

        Args:
            expected_revision: Change nothing unless the session is at this revision.

        Raises:
            RevisionConflictError: If the revision is another.
        """
        await self.set_status(SessionStatus.ARCHIVED, expected_revision=expected_revision)
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
            context=_forked_context(from_json(source.context), seq),
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
        context = self.context
        room = max(0, context.max_messages - len(turn.messages))
        needed = window.calls_needed(turn.messages)
        if self._window_revision == before and context.max_messages <= self._window_limit:
            self._window = window.cut(self._window, room, needed)
        else:
            self._window = await window.load(
                self._storage,
                self.session_id,
                before=turn.id,
                max_messages=room,
                needed=needed,
                summary=context.summary,
            )
            self._window_revision = before
            self._window_limit = context.max_messages
        return self._window

    def _remember(self, turn: OpenTurn, status: TurnStatus) -> None:
        """Keep the window for the next turn."""
        known = self._window_revision == turn._first_revision - 1 and not turn.resumed
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
        if turn.is_open:
            try:
                if turn._added:
                    new = [each for each in turn.messages if each.turn_id == turn.id]
                    await self._pipeline.stored(self, new)
                await self._leave_out_known(turn)
            except BaseException as error:  # cancelled meanwhile
                await turn._abandon(error)
                raise
        return turn

    async def _leave_out_known(self, turn: OpenTurn) -> None:
        """Of messages that were stored before, those in the window stay where they are there.

        The others (of a turn that failed, or cut from the window) are sent with the new ones.
        """
        if any(message.turn_id != turn.id for message in turn.messages):
            known = {message.id for message in await turn.history()}
            turn.messages = [message for message in turn.messages if message.id not in known]

    async def _process(self, messages: list[SessionMessage]) -> list[SessionMessage]:
        try:
            return await self._pipeline.process(self, messages)
        except SessionError as error:
            await self._pipeline.failed(self, error)
            raise

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
            body = (
                content.encode() if isinstance(content, str) else blocks_adapter.dump_json(content)
            )
            # The length tells where the next message begins.
            digest.update(f"{message.role.value}:{len(body)}:".encode())
            digest.update(body)
        return IdempotencyKey(check_id(idempotency_key, "idempotency_key"), digest.hexdigest())

    def _wait(self, wait: float | None) -> float | None:
        if wait is _UNSET:
            return self._runtime.turn_wait
        return None if wait is None else check_seconds(wait, "wait")

    def _check_answerable(self, options: Mapping[str, Any]) -> None:
        """Raises what can be known to be wrong before anything is stored."""
        self._manager._check_open()
        provider = self._manager._provider(self.context.provider, self.session_id)
        if options.get("tools"):
            as_tools(options["tools"])
        check_tools(provider, options, self.session_id)


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


def _forked_context(context: dict[str, Any], at: int | None) -> dict[str, Any]:
    """A context without a summary of more than was copied."""
    summary = context.get("summary")
    if summary is not None and at is not None and summary["last_seq"] > at:
        return {**context, "summary": None}
    return context


def _same_context(one: SessionRecord, other: SessionRecord) -> bool:
    return (
        one.context == other.context
        and one.provider_state == other.provider_state
        and one.model == other.model
        and one.provider == other.provider
        and one.backend == other.backend
    )
