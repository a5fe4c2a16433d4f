"""A session: one conversation, its turns and its record."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from functools import partial
from html import escape
from typing import Any

from langswarm_session._display import (
    SESSION_COLUMNS,
    SHOWN,
    rich_table,
    session_html,
    session_row,
)
from langswarm_session._sync import bridge
from langswarm_session._validation import (
    check_expected,
    check_limit,
    check_name,
    check_seconds,
    check_status,
)
from langswarm_session.blocks import Block
from langswarm_session.errors import InvalidInputError, SessionError
from langswarm_session.fidelity import Loss, losses
from langswarm_session.interfaces import ISession, ISessionLifecycleHook, ISessionMiddleware
from langswarm_session.models import (
    MessageList,
    MessageRole,
    SessionContext,
    SessionMessage,
    SessionMetrics,
    SessionStatus,
    Turn,
)
from langswarm_session.records import (
    LogMeasure,
    SessionChanges,
    SessionRecord,
    SessionRef,
    StreamEvent,
)
from langswarm_session.requests.normalize.target import Target
from langswarm_session.requests.window import Window
from langswarm_session.sessions import context as contexts
from langswarm_session.sessions import edits
from langswarm_session.sessions.compaction import compact
from langswarm_session.sessions.erasure import delete
from langswarm_session.sessions.forking import fork
from langswarm_session.sessions.owner import SessionOwner
from langswarm_session.sessions.reconcile import Reconciliation, reconcile
from langswarm_session.storage.calls import in_thread
from langswarm_session.tools import call_tools
from langswarm_session.turns.beginning import begin, begin_again
from langswarm_session.turns.cancelling import cancel
from langswarm_session.turns.core import SessionCore
from langswarm_session.turns.inputs import (
    check_sent,
    make_message,
    renamed,
    texts_or_messages,
    with_turn_context,
)
from langswarm_session.turns.reading import current_messages, iter_messages, read_window
from langswarm_session.turns.recording import record
from langswarm_session.turns.replies import answer, check_answerable
from langswarm_session.turns.streams import stream
from langswarm_session.turns.turn import OpenTurn

_UNSET: Any = object()


class BaseSession(ISession):
    """One conversation of one user. Made by `SessionManager`.

    Properties show what the last call saw; `refresh` reads them anew. A session may be used from
    any task, thread and event loop, and several objects may stand for one session, in any number
    of processes.
    """

    def __init__(self, manager: SessionOwner, record: SessionRecord) -> None:
        self._attach(manager, SessionCore(manager.core, record))

    def _attach(self, manager: SessionOwner, core: SessionCore) -> None:
        self._manager = manager
        self.core = core
        core.show_as(self, partial(self._reopen, manager))

    @classmethod
    def _reopen(cls, manager: SessionOwner, core: SessionCore) -> BaseSession:
        """Return a session again whose object is no longer referenced, while its turn is open."""
        session = cls.__new__(cls)
        session._attach(manager, core)
        return session

    def __repr__(self) -> str:
        record = self.core.record
        return (
            f"<{type(self).__name__} {record.session_id!r} of {record.user_id!r}: "
            f"{record.status}, {record.message_count} messages, {record.provider}/{record.model}>"
        )

    def _repr_html_(self) -> str:
        async def look() -> tuple[SessionRecord, MessageList]:
            messages = await self.get_messages(SHOWN)
            return await self.core.storage.get_session(self.core.ref), messages

        try:
            return session_html(*bridge.run(look()))
        except SessionError as error:  # also shown when its manager is closed
            return f"{escape(repr(self))} ({escape(str(error))})"

    def __rich__(self) -> Any:
        return rich_table(SESSION_COLUMNS, [session_row(self.core.record)])

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self.core.record.session_id

    @property
    def user_id(self) -> str:
        """Whose session it is."""
        return self.core.record.user_id

    @property
    def ref(self) -> SessionRef:
        """The session's id, owner and creation: what its storage's calls take."""
        return self.core.ref

    @property
    def status(self) -> SessionStatus:
        """The status, as of the last call."""
        return SessionStatus(self.core.record.status)

    @property
    def context(self) -> SessionContext:
        """The context, as of the last call."""
        return self.core.context

    @property
    def metrics(self) -> SessionMetrics:
        """The figures, as of the last call."""
        return self.core.record.to_metrics()

    @property
    def revision(self) -> int:
        """A number that every write moves, as of the last call."""
        return self.core.record.revision

    @property
    def last_seq(self) -> int:
        """The sequence number given last, as of the last call."""
        return self.core.record.last_seq

    @property
    def manager(self) -> SessionOwner:
        """The manager it came from."""
        return self._manager

    def add_middleware(self, middleware: ISessionMiddleware) -> None:
        """Let a middleware see this session's messages, through this object."""
        self.core.pipeline.add_middleware(middleware)

    def add_lifecycle_hook(self, hook: ISessionLifecycleHook) -> None:
        """Let a hook observe this session, through this object."""
        self.core.pipeline.add_hook(hook)

    async def refresh(self) -> None:
        """Read the properties anew.

        Raises:
            SessionNotFoundError: If the session was deleted.
        """
        await self.core.refresh()

    async def send_message(
        self,
        content: str | list[Block] | SessionMessage,
        role: MessageRole | str = MessageRole.USER,
        *,
        metadata: dict[str, Any] | None = None,
        turn_context: str | None = None,
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
            turn_context: What the model is to know for this answer and nobody said: the date,
                retrieved text. It is stored and sent behind the message's own content, where it
                stays, so that later requests begin with this one; it is not in ``message.text``.
            idempotency_key: A second call with the same key gives the stored reply; one whose
                turn failed, or was cancelled, is tried again without storing the message twice,
                unless others followed it: then it is stored once more, behind them.
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
            TurnCancelledError: If somebody else cancelled the turn, or closed the manager.
            SessionNotFoundError, SessionInactiveError, SessionStorageError
        """
        check_answerable(self.core, options)
        message = self._question(content, role, metadata, turn_context)
        turn = await self._begin(message, idempotency_key, wait)
        return await answer(self.core, turn, options)

    def stream_message(
        self,
        content: str | list[Block] | SessionMessage,
        role: MessageRole | str = MessageRole.USER,
        *,
        metadata: dict[str, Any] | None = None,
        turn_context: str | None = None,
        idempotency_key: str | None = None,
        wait: float | None = _UNSET,
        **options: Any,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Send a message and yield the reply in pieces.

        When the reader stops early the turn is cancelled, and what was yielded by then is kept:
        use ``async with contextlib.aclosing(...)`` where it must have happened when the block ends.
        Whatever ends the reader (a cancelled task or scope, a closed event loop), that is kept.
        Middleware sees the whole reply before it is stored; the pieces are the provider's, unless
        a middleware has ``holds_stream`` set: then there is one piece, after the middleware.

        Args and errors are those of `send_message`.

        Yields:
            The pieces; the last event carries the whole reply as it was stored.
        """
        make_question = partial(self._question, content, role, metadata, turn_context)

        async def begin() -> OpenTurn:
            return await self._begin(make_question(), idempotency_key, wait)

        return stream(self.core, begin, options)

    async def regenerate(
        self,
        message: SessionMessage | str | None = None,
        *,
        idempotency_key: str | None = None,
        wait: float | None = _UNSET,
        **options: Any,
    ) -> SessionMessage:
        """Answer the last message of the user again.

        The log keeps every answer, and `get_messages` returns them. The newest one counts: the
        others are in no request from then on, and not in `get_current_messages`. An answer that
        broke off counts if anything of it was shown. What a provider keeps of the conversation is
        removed there.

        Args:
            message: The message or its id; the newest of the user when None.
            idempotency_key: A second call with the same key returns the answer of the first, and
                makes another without one.
            wait: See `send_message`.
            **options: The provider's own (``temperature``, ``tools``...).

        Returns:
            The answer as it was stored.

        Raises:
            InvalidInputError: If there is no such message, or the user said something after it:
                `fork` the session for that.
            SessionError: Whatever else `send_message` raises.
        """
        check_answerable(self.core, options)
        turn = await begin_again(self.core, message, idempotency_key, self._wait(wait))
        return await answer(self.core, turn, options)

    def stream_regenerated(
        self,
        message: SessionMessage | str | None = None,
        *,
        idempotency_key: str | None = None,
        wait: float | None = _UNSET,
        **options: Any,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Answer the last message of the user again, and yield the answer in pieces.

        Args and errors are those of `regenerate`, all else is as in `stream_message`.
        """

        async def begin() -> OpenTurn:
            return await begin_again(self.core, message, idempotency_key, self._wait(wait))

        return stream(self.core, begin, options)

    async def cancel(self) -> bool:
        """End the turn that is running in this session, keeping what has been shown of the reply.

        May be called from any task, thread, event loop or process. Whoever waits for the reply gets
        `TurnCancelledError`. A turn of this process is ended immediately; another process looks
        several times a second whether it was asked to. One whose process is dead is ended as
        failed.

        Returns:
            Whether a turn was running; it has ended when this returns.

        Raises:
            SessionBusyError: If another process that runs the turn does not answer.
            SessionNotFoundError, SessionStorageError
        """
        return await cancel(self.core)

    async def begin_turn(
        self,
        messages: str | SessionMessage | Sequence[SessionMessage],
        *,
        idempotency_key: str | None = None,
        wait: float | None = _UNSET,
        answerer: str | None = None,
        regenerate: bool = False,
    ) -> OpenTurn:
        """Begin a turn that something other than a provider of ours answers.

        Args:
            messages: What it begins with; it is stored, after the middleware, when this returns.
            idempotency_key: See `send_message`.
            wait: See `send_message`.
            answerer: Who answers, where several are asked the same message. A repeat is one of the
                same answerer; another one's turn is about the stored message, and may be open
                beside the first. It is kept with the answer.
            regenerate: Whether the messages are to be answered again, as by `regenerate`; none
                stand for the last of the user.

        Returns:
            The open turn, to be used as an async context manager or ended by its methods.

        Raises:
            As `send_message`, but for the provider's errors.
        """
        asked = texts_or_messages(messages, self.session_id)
        if regenerate:
            last = asked[-1] if asked else None
            return await begin_again(self.core, last, idempotency_key, self._wait(wait), answerer)
        return await begin(self.core, asked, idempotency_key, self._wait(wait), answerer)

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
        checked = texts_or_messages(messages, self.session_id)
        check_expected(expected_revision, self.session_id)
        return await record(
            self.core,
            checked,
            idempotency_key=idempotency_key,
            expected_revision=expected_revision,
            wait=self._wait(wait),
        )

    async def get_messages(self, limit: int | None = None) -> MessageList:
        """The newest messages, or all, oldest first: a list that a notebook shows as a transcript.

        Args:
            limit: How many of the newest; None for all.

        Raises:
            InvalidInputError: If the limit is negative.
            SessionNotFoundError, SessionStorageError
        """
        limit = check_limit(limit)
        self.core.check_open()
        return MessageList(await self.core.storage.get_messages(self.core.ref, limit=limit))

    async def get_current_messages(self, limit: int | None = None) -> MessageList:
        """Return the newest messages, or all, without those that a compaction replaced.

        The record keeps what was replaced: `get_messages` returns it.

        Args:
            limit: How many of the newest; None for all.

        Raises:
            InvalidInputError: If the limit is negative.
            SessionNotFoundError, SessionStorageError
        """
        checked = check_limit(limit)
        self.core.check_open()
        return MessageList(await current_messages(self.core, checked))

    async def get_window(self) -> list[SessionMessage]:
        """The window as of the last call, oldest first: what of the log is sent at the most.

        A turn is sent this, or less where that and what it begins with are more than the context's
        ``max_messages``. Without a provider, as where only frameworks wrote to the session, it is
        what a framework is handed.

        Raises:
            SessionNotFoundError, SessionStorageError
        """
        context = self.context
        provider = self.core.shared.providers.made(context.provider)
        target = None if provider is None else provider.target(context, {})
        return (await self.read_window(target)).messages

    async def read_window(self, target: Target | None = None) -> Window:
        """Return the window as of the last call, and where it begins if that is elsewhere than it
        was: who runs turns of a framework tells the turn (`OpenTurn.begin_requests_at`).

        Args:
            target: What the provider that is asked accepts; None for a framework, which is handed
                what a vendor's compactions stand for.

        Raises:
            SessionNotFoundError, SessionStorageError
        """
        return await read_window(self.core, target)

    async def read_messages(
        self, *, after: int = 0, before: int | None = None, limit: int | None = None
    ) -> MessageList:
        """Return the oldest messages behind a number, oldest first.

        Args:
            after: The sequence number to begin after.
            before: The sequence number to end before; None for the log's end.
            limit: How many at most; None for all.

        Raises:
            InvalidInputError: If the limit is negative.
            SessionNotFoundError, SessionStorageError
        """
        checked = check_limit(limit)
        self.core.check_open()
        return MessageList(
            await self.core.storage.get_messages(
                self.core.ref, after=after, before=before, limit=checked
            )
        )

    async def measure(self, *, after: int = 0, skip: int | None = None) -> LogMeasure:
        """Return how many messages there are, and which one stands at a position.

        Args:
            after: Only of messages with a larger sequence number.
            skip: How many of these precede the one that is asked for.

        Raises:
            SessionNotFoundError, SessionStorageError
        """
        self.core.check_open()
        return await self.core.storage.measure_log(self.core.ref, after=after, skip=skip)

    def iter_messages(self, *, after: int = 0) -> AsyncIterator[SessionMessage]:
        """All messages, oldest first, read as they are used: for logs larger than memory.

        Args:
            after: Begin after this sequence number.
        """
        return iter_messages(self.core, after)

    async def get_turns(self, limit: int = 100) -> list[Turn]:
        """The newest turns with their status, oldest first.

        Args:
            limit: How many at most.
        """
        checked = check_limit(limit, optional=False)
        self.core.check_open()
        return await self.core.storage.get_turns(self.core.ref, limit=checked or 0)

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
        check_expected(expected_revision, self.session_id)
        self.core.check_open()
        await edits.clear(self.core, expected_revision)

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
        check_expected(expected_revision, self.session_id, optional=False)
        self.core.check_open()
        return await edits.edit(
            self.core, expected_revision=expected_revision, remove=remove, change=change, add=add
        )

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
        check_expected(expected_revision, self.session_id)
        self.core.check_open()
        update = contexts.changes_of(self.context, changes, self.last_seq)
        if update.provider is not None:
            self.core.shared.providers.check(update.provider)
        await self.core.update(update, expected_revision=expected_revision)
        return self.context

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
        self.core.shared.providers.check(check_name(provider, "provider"))
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
        seq = self.core.record.last_seq if last_seq is None else last_seq
        if not (type(seq) is int and 1 <= seq <= self.core.record.last_seq):
            raise InvalidInputError(
                f"last_seq must be the sequence number of a message of the log, not {seq!r}",
                session_id=self.session_id,
            )
        return await self.update_context(summary={"text": text, "last_seq": seq})

    async def compact(self) -> SessionMessage:
        """Have the provider make a compaction of the conversation: its own block, unreadable here.

        It is stored as the newest message, and requests to this provider begin with it from then
        on. Other providers, and readers of the log, have the messages before it.

        Returns:
            The message as stored.

        Raises:
            ProviderCapabilityError: If the provider makes none.
            RevisionConflictError: If somebody wrote to the session meanwhile; nothing was stored.
            ProviderSessionError: If there is no compaction.
            SessionNotFoundError, SessionInactiveError, SessionStorageError
        """
        self.core.check_open()
        return await compact(self.core)

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
        return await reconcile(self.core, pull=pull)

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
        messages = await self.get_messages()
        # Entry points are read from the disk, and a framework may be imported.
        return await in_thread(losses, target, messages, self.context, self.core.shared.providers)

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
        check_expected(expected_revision, self.session_id)
        self.core.check_open()
        changes = SessionChanges(status=check_status(status, self.session_id))
        await self.core.update(changes, expected_revision=expected_revision)

    async def archive(self, *, expected_revision: int | None = None) -> None:
        """Archive the session: it can be read, and takes no new turn.

        Args:
            expected_revision: Change nothing unless the session is at this revision.

        Raises:
            RevisionConflictError: If the revision is another.
        """
        await self.set_status(SessionStatus.ARCHIVED, expected_revision=expected_revision)
        await self.core.pipeline.archived(self)

    async def delete(
        self, *, at_providers: bool = True, expected_revision: int | None = None
    ) -> None:
        """Remove the session and all it holds for good, and what providers keep of it.

        Args:
            at_providers: Whether the providers' copies are removed as well.
            expected_revision: Remove nothing unless the session is at this revision.

        Raises:
            RevisionConflictError: If the revision is another.
            ProviderSessionError: If a provider could not; then nothing was removed here either.
            SessionNotFoundError: If it was removed before, whatever has its id now.
        """
        check_expected(expected_revision, self.session_id)
        await self.refresh()
        await delete(self.core, at_providers=at_providers, expected_revision=expected_revision)

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
            The new session. It keeps the context, and none of the provider's state; its requests
            begin where those of this one do.

        Raises:
            InvalidInputError: If ``at`` is not in the log's range.
            SessionExistsError: If the id is taken.
        """
        record = await fork(self.core, at, session_id=session_id, user_id=user_id)
        return await announce(self._manager, record)

    def _question(
        self,
        content: str | list[Block] | SessionMessage,
        role: MessageRole | str,
        metadata: dict[str, Any] | None,
        turn_context: str | None,
    ) -> SessionMessage:
        message = make_message(content, role, session_id=self.session_id, metadata=metadata)
        message = check_sent(message, self.session_id)
        return message if turn_context is None else with_turn_context(message, turn_context)

    async def _begin(
        self, message: SessionMessage, idempotency_key: str | None, wait: float | None
    ) -> OpenTurn:
        turn = await begin(self.core, [message], idempotency_key, self._wait(wait))
        turn.rename = renamed  # a provider may give two replies one id
        return turn

    def _wait(self, wait: float | None) -> float | None:
        if wait is _UNSET:
            return self.core.locks.turn_wait
        return None if wait is None else check_seconds(wait, "wait")


async def announce(manager: SessionOwner, record: SessionRecord) -> BaseSession:
    """Return the session of a record that was just created, and tell the hooks of it."""
    session = BaseSession(manager, record)
    await manager.core.pipeline.created(session)
    return session
