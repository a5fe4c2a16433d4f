"""The seams that others implement: storages, providers, middleware and hooks.

Everything is asynchronous. A storage must be usable from any thread and any event loop; providers,
middleware and hooks run on the loop of whoever calls the session.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from langswarm_session.errors import ProviderCapabilityError
from langswarm_session.models import (
    MessageRole,
    SessionBackend,
    SessionContext,
    SessionMessage,
    SessionMetrics,
    SessionStatus,
    Turn,
)
from langswarm_session.records import (
    Appended,
    FallbackEvent,
    IdempotencyKey,
    Lease,
    LogMeasure,
    NewSession,
    ProviderReply,
    ProviderRequest,
    SessionChanges,
    SessionPage,
    SessionRecord,
    SessionRef,
    StorageHealth,
    StreamEvent,
    TurnEnd,
    TurnStart,
)
from langswarm_session.requests.normalize import Repair, Target

if TYPE_CHECKING:
    from langswarm_session.archive import SessionArchive, TurnNote
    from langswarm_session.blocks import Block
    from langswarm_session.findings import Finding
    from langswarm_session.records import PrefixChange
    from langswarm_session.search import Search, SearchPage


class ISession(ABC):
    """One conversation of one user."""

    @property
    @abstractmethod
    def session_id(self) -> str:
        """The session's id."""

    @property
    @abstractmethod
    def user_id(self) -> str:
        """Whose session it is."""

    @property
    @abstractmethod
    def status(self) -> SessionStatus:
        """The status, as of the last call."""

    @property
    @abstractmethod
    def context(self) -> SessionContext:
        """The context, as of the last call."""

    @property
    @abstractmethod
    def metrics(self) -> SessionMetrics:
        """The figures, as of the last call."""

    @abstractmethod
    async def send_message(
        self,
        content: str | list[Block] | SessionMessage,
        role: MessageRole = MessageRole.USER,
        **options: Any,
    ) -> SessionMessage:
        """Send a message and return the reply."""

    @abstractmethod
    def stream_message(
        self,
        content: str | list[Block] | SessionMessage,
        role: MessageRole = MessageRole.USER,
        **options: Any,
    ) -> AsyncGenerator[StreamEvent, None]:
        """Send a message and yield the reply in pieces."""

    @abstractmethod
    async def cancel(self) -> bool:
        """End the turn that is running, wherever it runs; whether there was one."""

    @abstractmethod
    async def record(
        self, messages: SessionMessage | Sequence[SessionMessage]
    ) -> list[SessionMessage]:
        """Store messages that were made elsewhere."""

    @abstractmethod
    async def get_messages(self, limit: int | None = None) -> list[SessionMessage]:
        """The newest ``limit`` messages, or all, oldest first."""

    @abstractmethod
    async def add_system_message(self, content: str) -> SessionMessage:
        """Store a system message."""

    @abstractmethod
    async def clear_messages(self) -> None:
        """Remove all messages."""

    @abstractmethod
    async def update_context(self, **changes: Any) -> SessionContext:
        """Change keys of the context."""

    @abstractmethod
    async def archive(self) -> None:
        """Archive the session: it can be read, and takes no new turn."""


class ISessionManager(ABC):
    """Creates, finds, lists and removes sessions."""

    @abstractmethod
    async def create_session(
        self,
        user_id: str,
        provider: str,
        model: str,
        backend: SessionBackend = SessionBackend.PROVIDER_NATIVE,
        session_id: str | None = None,
        **context: Any,
    ) -> ISession:
        """Create a session."""

    @abstractmethod
    async def get_session(self, session_id: str, *, user_id: str | None = None) -> ISession:
        """Find a session."""

    @abstractmethod
    async def list_user_sessions(self, user_id: str, limit: int = 100) -> Sequence[ISession]:
        """A user's sessions, newest activity first."""

    @abstractmethod
    async def archive_session(self, session_id: str) -> None:
        """Archive a session."""

    @abstractmethod
    async def delete_session(self, session_id: str) -> None:
        """Remove a session and all it holds."""


class ISessionStorage(ABC):
    """Where sessions live.

    Making one does no I/O; the first call opens it. It may be called from any thread and event
    loop, at once, and after a fork. Which of several calls at once is made first is not said. A
    storage that is to be made from a URL takes it as the keyword ``url``; it never shows what a URL
    holds of secrets.

    Every method raises `SessionStorageError` when the storage itself fails. A write has happened
    for good when its method returns. A method that raises has changed nothing.

    Methods about an existing session take a `SessionRef`, and raise `SessionNotFoundError` unless
    there is a session of that id, owner and creation: no error tells whether another user has one
    of that id. The check is part of the statement that reads or writes, or of its transaction, so
    that nothing can come in between. A storage gives each session that it creates a number that no
    other ever had or will have (``SessionRecord.creation``).

    Turns: ``begin_turn`` takes a session's one lease and stores the turn's first messages in the
    same transaction; ``append`` with the lease's token adds to the turn; ``end_turn`` stores the
    rest, the status and the provider's state, and gives the lease back, again in one transaction.
    ``append`` without a token is a complete turn of its own. Whoever finds the lease held gets
    `SessionBusyError`; whoever finds it expired ends that turn as failed and goes on. Until then an
    expired lease still holds, and its turn can be added to and ended.

    Every write but the renewal of leases moves the session's revision; adding to, beginning, ending
    and editing move its last activity as well, which is never moved back.

    `langswarm_session.storage.base.StorageBase` is the class to derive a storage from: it has the
    optional methods, and all writes to a log for a storage that can read facts and apply a plan.
    `langswarm_session.testing.StorageConformance` holds an implementation to all this.
    """

    name: ClassVar[str]

    @property
    def address(self) -> str | None:
        """Where the sessions are: the same text in each process, without user names and secrets.

        None by default: for a storage that other processes cannot reach, or do not know by a text.
        """
        return None

    @abstractmethod
    async def create_session(self, session: NewSession) -> SessionRecord:
        """Create a session.

        Raises:
            SessionExistsError: If the id is taken.
        """

    @abstractmethod
    async def find_session(self, session_id: str, *, user_id: str | None = None) -> SessionRecord:
        """Look a session up by its id.

        Args:
            session_id: The id.
            user_id: Whose session it must be; None for any user's, which is for operators.
        """

    @abstractmethod
    async def get_session(self, ref: SessionRef) -> SessionRecord:
        """Return the session as it is now."""

    @abstractmethod
    async def list_sessions(
        self,
        *,
        user_id: str | None = None,
        status: SessionStatus | None = None,
        inactive_since: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> SessionPage:
        """List sessions, newest activity first; of those with the same, the greatest id first.

        Args:
            user_id: Only this user's; None for all users.
            status: Only those with this status.
            inactive_since: Only those last written to before this time (microseconds since 1970).
            limit: How many at most.
            cursor: Where the page before ended, made of nothing but what that page showed; see
                `langswarm_session.storage.rules.make_cursor`.

        Raises:
            InvalidInputError: If the cursor is not one of this storage.
        """

    @abstractmethod
    async def update_session(
        self, ref: SessionRef, changes: SessionChanges, *, expected_revision: int | None = None
    ) -> SessionRecord:
        """Change a session, whatever its status, and while a turn is open as well.

        Raises:
            RevisionConflictError: If its revision is not the expected one.
        """

    @abstractmethod
    async def delete_session(
        self, ref: SessionRef, *, expected_revision: int | None = None
    ) -> None:
        """Remove the session and all it holds for good, an open turn too.

        Raises:
            RevisionConflictError: If its revision is not the expected one.
        """

    @abstractmethod
    async def append(
        self,
        ref: SessionRef,
        messages: Sequence[SessionMessage],
        *,
        token: str | None = None,
        expected_revision: int | None = None,
        key: IdempotencyKey | None = None,
    ) -> Appended:
        """Add messages to the log: to the turn whose token is given, or as a turn of their own.

        Messages whose id is stored already are left out; the result has the stored ones. With
        nothing to add nothing is written.

        Args:
            key: For a turn of their own: if the key is known, its turn's messages are returned.

        Raises:
            SessionNotFoundError: If there is no such session, before all else that may be wrong.
            SessionBusyError: If another turn is open.
            SessionInactiveError: If the session takes no new turn.
            TurnLostError: If the token's lease is not held any more.
            RevisionConflictError: If the revision is not the expected one.
            MessageConflictError: If a message id is stored with other content.
            IdempotencyConflictError: If the key was used for other messages.
        """

    @abstractmethod
    async def begin_turn(
        self,
        ref: SessionRef,
        messages: Sequence[SessionMessage],
        lease: Lease,
        *,
        key: IdempotencyKey | None = None,
        expected_revision: int | None = None,
    ) -> TurnStart:
        """Take the session's lease and store the messages that begin the turn.

        With a key that is known, or messages that are all stored already: a complete turn that has
        a reply is returned as ``replayed``; an open one is busy; one that was cancelled, failed or
        never answered is opened again if nothing followed it, keeping what it began with, and a
        key's turn is begun anew otherwise. A reply is an assistant's message at the turn's end, or
        anywhere behind what it began with.

        With a key that has ``only`` set, messages that are stored lead to no turn: the new one is
        about them, has no row of its own before it is answered, and takes a number that no
        message has.

        Raises:
            InvalidInputError: If there is no message.
            SessionError: As `append` does.
        """

    @abstractmethod
    async def end_turn(
        self, ref: SessionRef, end: TurnEnd, messages: Sequence[SessionMessage]
    ) -> Appended:
        """Store the rest of the turn and its status, and give the lease back.

        A turn that was begun is ended whatever the session's status is by now.

        Raises:
            TurnLostError: If the lease is not held any more.
            MessageConflictError: If a message id is stored with other content, or in another turn.
        """

    @abstractmethod
    async def renew_turns(self, tokens: Mapping[str, SessionRef], seconds: float) -> set[str]:
        """Extend leases, to that long from now and no longer, expired ones too.

        Args:
            tokens: Sessions by lease token.
            seconds: How long the leases hold from now.

        Returns:
            The tokens of the leases that are still held.
        """

    @abstractmethod
    async def request_cancel(self, tokens: Mapping[str, SessionRef]) -> set[str]:
        """Ask the processes that hold leases to end their turns, keeping what there is of a reply.

        Asking is no write to the session: neither its revision nor the lease's end moves. What was
        asked is forgotten with the lease. `langswarm_session.storage.rules` has the mark that a
        lease's owner carries from then on.

        Args:
            tokens: Sessions by lease token.

        Returns:
            The tokens of the leases that are still held.
        """

    @abstractmethod
    async def cancel_requested(self, tokens: Mapping[str, SessionRef]) -> set[str]:
        """Return the tokens of the leases that are held and whose turn somebody asked to end.

        Reads only, and no more than these sessions: it is called twice a second while turns are
        open.

        Args:
            tokens: Sessions by lease token.
        """

    @abstractmethod
    async def get_messages(
        self,
        ref: SessionRef,
        *,
        limit: int | None = None,
        before: int | None = None,
        after: int | None = None,
        answered_only: bool = False,
        system_only: bool = False,
    ) -> list[SessionMessage]:
        """The newest ``limit`` messages, or all, oldest first.

        Args:
            before: Only those with a smaller sequence number.
            after: Only those with a larger one; then the limit takes the oldest.
            answered_only: Leave out the turns that failed or were cancelled before any reply.
            system_only: Only system messages.
        """

    async def measure_log(
        self, ref: SessionRef, *, after: int = 0, skip: int | None = None
    ) -> LogMeasure:
        """Return how many messages there are, and which one stands at a position.

        Optional: `langswarm_session.storage.base.StorageBase` reads the log for it.

        Args:
            after: Only of messages with a larger number.
            skip: How many of these precede the one that is asked for.
        """
        raise NotImplementedError

    @abstractmethod
    async def get_turns(self, ref: SessionRef, *, limit: int = 100) -> list[Turn]:
        """The newest turns that have messages, oldest first.

        A turn of which nothing else is known is complete, and finished with its last message.
        """

    @abstractmethod
    async def clear_messages(
        self, ref: SessionRef, *, expected_revision: int | None = None
    ) -> SessionRecord:
        """Remove all messages, turns and their keys; sequence numbers and figures go on.

        The count of messages is then 0; the last activity stays.

        Raises:
            SessionBusyError: If a turn is open.
            RevisionConflictError: If the revision is not the expected one.
        """

    @abstractmethod
    async def edit_messages(
        self,
        ref: SessionRef,
        *,
        expected_revision: int,
        remove: Sequence[int] = (),
        change: Sequence[SessionMessage] = (),
        add: Sequence[SessionMessage] = (),
    ) -> Appended:
        """Remove, change and add messages in one transaction.

        What stays keeps its number, and no number is given twice. What is added comes last, as a
        turn of its own; tokens of one that was among the removed are not counted again. A turn
        that loses a message gives up its idempotency key, since its answer is not whole any more.
        With nothing to do nothing is written.

        Args:
            expected_revision: The revision that the numbers were read at.
            remove: The sequence numbers of the messages to remove.
            change: Messages to put in the place of the stored ones with their number and id.
            add: Messages to add.

        Returns:
            The session, and what was added as it is stored.

        Raises:
            SessionBusyError: If a turn is open.
            SessionInactiveError: If the session takes no new turn.
            RevisionConflictError: If the revision is not the expected one.
            MessageConflictError: If the id of a message to add is stored, or comes twice.
            InvalidInputError: If a message to remove or change is not in the log.
        """

    @abstractmethod
    async def fork_session(
        self, ref: SessionRef, session: NewSession, *, at: int | None = None
    ) -> SessionRecord:
        """Create a session that begins with a copy of another's log.

        The copies keep their ids, numbers and turns, and how the turns ended, but no idempotency
        keys; an open turn is left out. Numbers go on after the last copy; messages and turns are
        counted as they were copied, tokens and errors from zero.

        Args:
            ref: The one to copy from.
            session: The one to create.
            at: The last sequence number to copy; None for all.

        Raises:
            SessionExistsError: If the new id is taken.
        """

    async def get_turn_notes(
        self, ref: SessionRef, *, after: int = 0, limit: int = 500
    ) -> list[TurnNote]:
        """What is known of turns beyond that they are complete, oldest first.

        Optional: `StorageBase` reads all turns for it. A turn that is open may have no note.

        Args:
            after: Only of turns with a larger number.
            limit: How many at most.
        """
        raise NotImplementedError

    async def restore_session(self, archive: SessionArchive) -> SessionRecord:
        """Create a session as it was elsewhere: whole, or not at all.

        Optional: `StorageBase` writes its turns once more, by the methods above; see
        `langswarm_session.storage.replaying` for what is then not as it was.

        Raises:
            SessionExistsError: If the id is taken.
        """
        raise NotImplementedError

    async def search_messages(self, search: Search) -> SearchPage:
        """Find messages by their text, newest first by their time.

        Optional: `StorageBase` reads every log for it.

        Raises:
            SessionNotFoundError: If the search is for one session, and there is none.
        """
        raise NotImplementedError

    async def scrub(self) -> None:
        """Overwrite what deleted sessions left behind, as far as the storage can.

        It may take as long as writing all that it holds. Optional: `StorageBase` does nothing, as
        is right for a storage whose deleting leaves nothing behind.
        """
        raise NotImplementedError

    async def examine(self, *, full: bool = False, seconds: float = 300.0) -> list[Finding]:
        """Look for what is wrong, or soon will be; writes nothing, and does not raise.

        Optional: `StorageBase` looks at what the methods above tell.

        Args:
            full: Whether all that is stored is read for it.
            seconds: How long that may take; what was found by then is returned, with a finding
                that says so.
        """
        raise NotImplementedError

    @abstractmethod
    async def health(self) -> StorageHealth:
        """How the storage is doing; does not raise when it is doing badly."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what was accepted and let go of everything. May be called twice."""


class ProviderCapability(StrEnum):
    """What a provider can do."""

    NATIVE = "native"
    """Keeps conversations itself."""
    STREAMING = "streaming"
    """Yields a reply in pieces as it is generated."""
    TOOLS = "tools"
    """Can be given tools to call."""


class IProviderSession(ABC):
    """Generates replies, and keeps conversations where it can."""

    name: ClassVar[str]
    capabilities: frozenset[ProviderCapability] = frozenset()

    @property
    def keeps_replies(self) -> bool:
        """Whether the provider keeps replies besides the conversations that they are in."""
        return False

    @abstractmethod
    async def send_message(self, request: ProviderRequest) -> ProviderReply:
        """Generate the reply to a window.

        Raises:
            ProviderSessionError: If there is no reply; the finer class says why.
        """

    async def stream_message(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """Generate the reply in pieces; the last thing yielded is the whole reply.

        A provider that cannot stream yields the text at once, as here.

        Raises:
            ProviderSessionError: If the reply breaks off.
        """
        reply = await self.send_message(request)
        for message in reply.messages:
            yield StreamEvent(text=message.text)
        yield reply

    def target(self, context: SessionContext, options: Mapping[str, Any]) -> Target:
        """What the provider accepts from this session; requests are made so that they fit it.

        Args:
            context: The session's context.
            options: The caller's keywords for this call.
        """
        return Target(provider=self.name, model=context.model)

    async def count_tokens(self, request: ProviderRequest) -> int:
        """How many tokens the request's messages take, by the provider's own count.

        Raises:
            ProviderCapabilityError: If the provider does not count.
        """
        raise ProviderCapabilityError(
            f"the provider {self.name!r} counts no tokens; use the token_counter 'estimate'",
            provider=self.name,
        )

    async def compact(self, request: ProviderRequest) -> ProviderReply:
        """Have the provider make a compaction: a block of its own that stands for a whole request.

        Args:
            request: What the compaction stands for: all that would be sent, without a new message.

        Returns:
            One assistant message with the provider's blocks as they came, in `OtherBlock`, and the
            tokens it took. It is stored behind what it stands for; later requests to this provider
            begin with it, those to other providers with the messages before it.

        Raises:
            ProviderCapabilityError: If the provider makes none.
            ProviderSessionError: If there is no reply; the finer class says why.
        """
        raise ProviderCapabilityError(
            f"the provider {self.name!r} makes no compactions; use SummarizingMiddleware without "
            "native=True",
            provider=self.name,
        )

    async def create_provider_session(self, user_id: str, **options: Any) -> str:
        """Create a conversation at the provider and return its id.

        Raises:
            ProviderCapabilityError: If the provider keeps no conversations.
        """
        raise self._keeps_nothing("create_provider_session")

    async def get_provider_session(self, provider_session_id: str) -> dict[str, Any]:
        """What the provider says of a conversation.

        Raises:
            ProviderCapabilityError: If the provider keeps no conversations.
        """
        raise self._keeps_nothing("get_provider_session")

    async def get_messages(
        self, provider_session_id: str, limit: int | None = None
    ) -> list[SessionMessage]:
        """The provider's own copy of a conversation: its newest messages, oldest first.

        Raises:
            ProviderCapabilityError: If the provider keeps no conversations.
        """
        raise self._keeps_nothing("get_messages")

    def pulled(self, provider_context: Mapping[str, Any]) -> Mapping[str, Any]:
        """What to go on with once the record has taken over what only the provider's copy had.

        By itself nothing is known any more of where the copy ends.

        Args:
            provider_context: What was known before.
        """
        return {}

    def outdated(self, provider_context: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the provider context with which the copy is made again from the record.

        None, as by default, where the provider's copy cannot be made again.

        Args:
            provider_context: What was known before.
        """
        return None

    async def delete_replies(self, provider_message_ids: Sequence[str]) -> list[str]:
        """Remove what the provider keeps of single replies, besides their conversation.

        By default nothing is kept of them.

        Args:
            provider_message_ids: The provider's ids of the replies; those that are gone are fine.

        Returns:
            The ids of those that the provider cannot remove.

        Raises:
            ProviderSessionError: If it could not be asked.
        """
        return []

    async def delete_provider_session(self, provider_session_id: str) -> None:
        """Remove a conversation at the provider, with all it holds; one that is gone is fine.

        Raises:
            ProviderCapabilityError: If the provider keeps no conversations.
        """
        raise self._keeps_nothing("delete_provider_session")

    async def close(self) -> None:  # noqa: B027 - most providers have nothing to let go of
        """Let go of connections. May be called twice."""

    def _keeps_nothing(self, operation: str) -> Exception:
        return ProviderCapabilityError(
            f"{operation}: the provider {self.name!r} keeps no conversations; "
            "the record is the local one",
            provider=self.name,
        )


class ISessionMiddleware:
    """Sees every message on its way; may change, replace or refuse it.

    The methods return the message to go on with: the one they got, or another. To refuse one, raise
    `MessageRefusedError`. Outgoing messages (to the provider: user, system, tool) pass the
    middleware in order, incoming ones (assistant) in reverse order.

    Attributes:
        holds_stream: Set it where nothing may reach the reader before `process_incoming_message`
            has seen the whole reply; a streamed reply then comes in one piece.
    """

    holds_stream: bool = False

    async def process_outgoing_message(
        self, session: ISession, message: SessionMessage
    ) -> SessionMessage:
        """Process a message before it is stored and sent."""
        return message

    async def process_incoming_message(
        self, session: ISession, message: SessionMessage
    ) -> SessionMessage:
        """Process a reply before it is stored and returned."""
        return message


class ISessionLifecycleHook:
    """Observes; an exception it raises is logged and changes nothing."""

    async def on_session_created(self, session: ISession) -> None:
        """A session was created."""

    async def on_message_sent(self, session: ISession, message: SessionMessage) -> None:
        """A message to the provider was stored."""

    async def on_message_received(self, session: ISession, message: SessionMessage) -> None:
        """A reply was stored."""

    async def on_request_repaired(self, session: ISession, repairs: Sequence[Repair]) -> None:
        """A request was changed so that the provider accepts it; the record is as it was."""

    async def on_prefix_changed(self, session: ISession, change: PrefixChange) -> None:
        """A request did not begin with the whole of the one before, so little of it was cached."""

    async def on_provider_fallback(self, session: ISession, event: FallbackEvent) -> None:
        """Another provider answered than the session's own."""

    async def on_session_archived(self, session: ISession) -> None:
        """A session was archived."""

    async def on_session_deleted(self, session: ISession) -> None:
        """A session was deleted."""

    async def on_error(self, session: ISession, error: BaseException) -> None:
        """A turn failed or was cancelled."""
