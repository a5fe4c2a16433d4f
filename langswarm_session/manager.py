"""The manager: creates, finds, lists, archives and removes sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from html import escape
from types import TracebackType
from typing import Any, Self

from langswarm_session._display import SESSIONS_SHOWN, rich_note
from langswarm_session._sync import bridge
from langswarm_session._validation import (
    check_expected,
    check_id,
    check_limit,
    check_name,
    check_seconds,
    check_status,
)
from langswarm_session.errors import (
    InvalidInputError,
    SessionError,
    SessionExistsError,
    SessionNotFoundError,
    in_session,
)
from langswarm_session.interfaces import (
    IProviderSession,
    ISessionLifecycleHook,
    ISessionMiddleware,
    ISessionStorage,
)
from langswarm_session.models import MessageRole, SessionBackend, SessionStatus, new_id
from langswarm_session.providers.registry import ProviderOptions, Providers
from langswarm_session.records import NewSession, SessionRecord, StorageHealth
from langswarm_session.requests.provider_state import STATE_KEYS
from langswarm_session.search import Search
from langswarm_session.session import BaseSession, announce
from langswarm_session.sessions.cleanup import archive_inactive, inactive
from langswarm_session.sessions.context import as_json, changes_of, check_context
from langswarm_session.sessions.erasure import ErasureReport, delete, erase_user
from langswarm_session.sessions.listing import MessageHits, SessionList, each_once
from langswarm_session.sessions.owner import SessionOwner
from langswarm_session.storage.completing import completed
from langswarm_session.storage.factory import StorageFactory
from langswarm_session.turns.core import ManagerCore, SessionCore
from langswarm_session.turns.endings import settled
from langswarm_session.turns.locks import TurnLocks
from langswarm_session.users import DEFAULT_USER

_PAGE = 500
"""How many sessions `iter_sessions` reads at a time."""


class SessionManager(SessionOwner):
    """Creates, finds, lists, archives and removes sessions. Does no I/O until it is used.

    May be used from any thread and event loop, and as an async context manager. A manager that is
    never closed keeps nothing from the interpreter's exit and loses nothing.

    Args:
        storage: A storage, the name of one, or a URL. A storage made here is closed with the
            manager; one that was given is left to its owner.
        providers: By name: a key, options, or a provider. Those not named here are made when they
            are first needed, with what the environment holds.
        fallback: The provider to use where the named one is not configured. None: that is an
            error.
        lease_seconds: How long after the death of a machine its turns may be taken over, at the
            most. (A dead process on the same machine is found at once.)
        turn_wait: How long a turn waits for the one before it in the same session, in seconds;
            0: not at all, None: for ever.
        stall_seconds: How long the event loop of an open turn may stand still, in seconds, until
            the turn is ended with what has been shown; None: for ever. A model that says nothing
            for long is no reason: the loop that waits for it still runs.

    Raises:
        UnknownStorageError: If there is no such storage.
        UnknownProviderError: If one of the providers is unknown.
        InvalidInputError: If an argument cannot be used.
    """

    def __init__(
        self,
        storage: str | ISessionStorage = "sqlite",
        providers: Mapping[str, ProviderOptions] | None = None,
        *,
        storage_config: Mapping[str, Any] | None = None,
        fallback: str | None = None,
        lease_seconds: float = 30.0,
        turn_wait: float | None = 60.0,
        stall_seconds: float | None = 600.0,
    ) -> None:
        lease_seconds = check_seconds(lease_seconds, "lease_seconds", above=0)
        if turn_wait is not None:
            turn_wait = check_seconds(turn_wait, "turn_wait")
        if stall_seconds is not None:
            stall_seconds = check_seconds(stall_seconds, "stall_seconds", above=0)
        self._owns_storage = isinstance(storage, str)
        if isinstance(storage, str):
            storage = StorageFactory.create_storage(storage, **(storage_config or {}))
        elif not isinstance(storage, ISessionStorage):
            raise InvalidInputError(
                f"storage is a name, a URL or an ISessionStorage, not {type(storage).__name__}"
            )
        elif storage_config:
            raise InvalidInputError("storage_config goes with a storage's name, not with a storage")
        storage = completed(storage)
        locks = TurnLocks(
            storage,
            lease_seconds=lease_seconds,
            turn_wait=turn_wait,
            stall_seconds=stall_seconds,
        )
        self.core = ManagerCore(storage, Providers(providers, fallback), locks)

    def __repr__(self) -> str:
        names = ", ".join(self.core.providers.names) or "-"
        return f"<{type(self).__name__} on {self.core.storage!r}, providers: {names}>"

    def _repr_html_(self) -> str:
        try:
            sessions = self._newest()
        except SessionError as error:  # a notebook shows a manager that was closed, too
            return escape(f"{self!r} ({error})")
        return sessions.to_html(repr(self))

    def __rich__(self) -> Any:
        try:
            sessions = self._newest()
        except SessionError as error:  # as a notebook does
            return rich_note(f"{self!r} ({error})")
        return rich_note(repr(self), sessions.__rich__())

    def _newest(self) -> SessionList[BaseSession]:
        """The sessions that are shown; blocks."""
        return bridge.run(self.list_sessions(SESSIONS_SHOWN))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def storage(self) -> ISessionStorage:
        """Where the sessions live."""
        return self.core.storage

    async def create_session(
        self,
        user_id: str,
        provider: str,
        model: str,
        backend: SessionBackend | str = SessionBackend.PROVIDER_NATIVE,
        session_id: str | None = None,
        **context: Any,
    ) -> BaseSession:
        """Create a session.

        Args:
            user_id: Whose it is.
            provider: Who generates replies.
            model: The model's name.
            backend: Where the conversation's state is sought.
            session_id: Its id; made up when None.
            **context: Keys of the `SessionContext`, and any others to keep with it.

        Raises:
            InvalidInputError: If an argument cannot be used.
            UnknownProviderError: If there is no such provider.
            SessionExistsError: If the id is taken.
            SessionStorageError: If the storage fails.
        """
        self.core.check_open()
        self.core.providers.check(check_name(provider, "provider"))
        return await self._create(user_id, provider, model, backend, session_id, context)

    async def get_or_create_session(
        self,
        session_id: str,
        user_id: str = DEFAULT_USER,
        *,
        provider: str = "none",
        model: str = "none",
        backend: SessionBackend | str = SessionBackend.PROVIDER_NATIVE,
        **context: Any,
    ) -> BaseSession:
        """The session, created if there is none: what a framework's door calls at its first write.

        Args:
            session_id: Its id.
            user_id: Whose it is; another user's session is refused as if it did not exist.
            provider: For a new one: who generates replies. A door puts its own name here.
            model: For a new one: the model's name.
            backend: For a new one: where the conversation's state is sought.
            **context: For a new one: see `create_session`.

        Raises:
            SessionNotFoundError: If the session exists and is another user's.
        """
        check_id(user_id, "user_id")
        try:
            return await self.get_session(session_id, user_id=user_id)
        except SessionNotFoundError:
            try:
                return await self._create(user_id, provider, model, backend, session_id, context)
            except SessionExistsError:  # another caller was quicker, or it is another user's
                return await self.get_session(session_id, user_id=user_id)

    async def get_session(self, session_id: str, *, user_id: str | None = None) -> BaseSession:
        """Find a session.

        Args:
            session_id: Its id.
            user_id: Whose it must be; another user's is refused as if it did not exist. None finds
                any user's, which is for operators.

        Raises:
            SessionNotFoundError: If there is none.
        """
        self.core.check_open()
        check_id(session_id, "session_id")
        if user_id is not None:
            check_id(user_id, "user_id")
        return self._open(await self.core.storage.find_session(session_id, user_id=user_id))

    async def list_user_sessions(
        self,
        user_id: str,
        limit: int = 100,
        *,
        status: SessionStatus | str | None = None,
        cursor: str | None = None,
    ) -> SessionList[BaseSession]:
        """A user's sessions, newest activity first.

        Args:
            user_id: The user.
            limit: How many at most.
            status: Only those with this status.
            cursor: The ``next_cursor`` of the page before.

        Raises:
            InvalidInputError: If an argument cannot be used.
        """
        return await self._list(check_id(user_id, "user_id"), limit, status, cursor)

    async def list_sessions(
        self,
        limit: int = 100,
        *,
        status: SessionStatus | str | None = None,
        cursor: str | None = None,
    ) -> SessionList[BaseSession]:
        """All users' sessions, newest activity first; the arguments are `list_user_sessions`'s."""
        return await self._list(None, limit, status, cursor)

    def iter_sessions(
        self, user_id: str | None = None, *, status: SessionStatus | str | None = None
    ) -> AsyncIterator[BaseSession]:
        """All sessions, newest activity first, read as they are used; each comes once.

        One that is written to meanwhile moves to the front of the list, which is why what moved
        there comes last.

        Args:
            user_id: Only this user's; None for all users.
            status: Only those with this status.

        Raises:
            InvalidInputError: If an argument cannot be used.
        """

        async def page_at(cursor: str | None) -> SessionList[BaseSession]:
            if user_id is not None:
                check_id(user_id, "user_id")
            return await self._list(user_id, _PAGE, status, cursor)

        return each_once(page_at)

    async def search_messages(
        self,
        text: str,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        role: MessageRole | str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> MessageHits:
        """Find messages by their text, whatever the case of its letters; newest first.

        There is no index for it: every message of the users and sessions asked for is looked at,
        by the database where it can. A million short messages take SQLite about a second.

        Args:
            text: Any part of what can be read in a message, tool calls and results included.
            user_id: Only in this user's sessions; None for all users.
            session_id: Only in this session.
            role: Only what this role said.
            limit: How many at most.
            cursor: The ``next_cursor`` of the page before.

        Raises:
            InvalidInputError: If an argument cannot be used.
            SessionNotFoundError: If there is no such session, or it is not the user's.
        """
        self.core.check_open()
        checked = check_limit(limit, optional=False) or 0
        if user_id is not None:
            check_id(user_id, "user_id")
        try:
            wanted = None if role is None else MessageRole(role)
        except ValueError as error:
            raise InvalidInputError(str(error)) from error
        search = Search(text, user_id=user_id, role=wanted, limit=checked, cursor=cursor)
        if session_id is not None:
            search.session = (await self.get_session(session_id, user_id=user_id)).ref
        if not checked:
            return MessageHits([], cursor)
        page = await self.core.storage.search_messages(search)
        return MessageHits(page.hits, page.next_cursor)

    async def archive_session(self, session_id: str, *, user_id: str | None = None) -> None:
        """Archive a session: it can be read, and takes no new turn.

        Raises:
            SessionNotFoundError: If there is none.
        """
        await (await self.get_session(session_id, user_id=user_id)).archive()

    async def delete_session(
        self,
        session_id: str,
        *,
        user_id: str | None = None,
        at_providers: bool = True,
        expected_revision: int | None = None,
    ) -> None:
        """Remove a session and all it holds for good, at the providers too if they keep any of it.

        Args:
            session_id: The session.
            user_id: Whose it must be.
            at_providers: Whether the providers' copies are removed as well.
            expected_revision: Remove nothing unless the session is at this revision.

        Raises:
            SessionNotFoundError: If there is none.
            RevisionConflictError: If the revision is another.
            ProviderSessionError: If the provider could not; then nothing was removed here either.
        """
        check_expected(expected_revision, session_id)
        session = await self.get_session(session_id, user_id=user_id)
        await delete(session.core, at_providers=at_providers, expected_revision=expected_revision)

    async def erase_user(
        self, user_id: str, *, at_providers: bool = True, scrub: bool = True
    ) -> ErasureReport:
        """Remove everything of a user for good: here, and what providers keep of it.

        A session that a provider could not remove stays, since with it the provider's id of the
        conversation would be lost; it is in the report, and calling this again tries again.
        Afterwards the storage overwrites what was deleted as far as it can (SQLite: it rewrites
        the file; PostgreSQL: it frees the space, and its own logs and backups keep what they keep).

        Args:
            user_id: The user.
            at_providers: Whether the providers' copies are removed as well.
            scrub: Whether the storage is to overwrite what was deleted.

        Returns:
            What was removed, and what was not.

        Raises:
            InvalidInputError: If it is no user's id.
            SessionStorageError: If the sessions cannot be listed.
        """
        self.core.check_open()
        checked = check_id(user_id, "user_id")

        async def sessions() -> AsyncIterator[SessionCore]:
            async for session in self.iter_sessions(checked):
                yield session.core

        return await erase_user(
            self.core, sessions, checked, at_providers=at_providers, scrub=scrub
        )

    async def cleanup_inactive_sessions(self, max_inactive_hours: float = 24) -> int:
        """Archive the active sessions that nobody has written to for a while.

        Sessions whose context has ``auto_archive=False`` are left alone, and so are those that are
        written to, or removed, before it is their turn.

        Args:
            max_inactive_hours: For how long, in hours.

        Returns:
            How many were archived.

        Raises:
            SessionStorageError: If the storage fails; what was archived by then stays so.
        """
        return await archive_inactive(self.core, self._open, max_inactive_hours)

    def iter_inactive_sessions(
        self, max_inactive_hours: float = 24, *, status: SessionStatus | str | None = None
    ) -> AsyncIterator[BaseSession]:
        """The sessions that nobody has written to for a while, latest activity first.

        Sessions whose context has ``auto_archive=False`` are left out. They may be archived or
        deleted while this goes on.

        Args:
            max_inactive_hours: For how long, in hours.
            status: Only those with this status.
        """
        return inactive(self.core, self._open, max_inactive_hours, status)

    def for_user(self, user_id: str) -> UserSessions:
        """A view in which only this user's sessions exist."""
        return UserSessions(self, check_id(user_id, "user_id"))

    def add_provider_session(self, provider: str, provider_session: IProviderSession) -> None:
        """Use this provider for the sessions that name it.

        Raises:
            InvalidInputError: If it is not a provider.
        """
        check_name(provider, "provider")
        self.core.providers.add(provider, provider_session)

    def provider(self, name: str) -> IProviderSession:
        """Return a provider, made if it was not before.

        Args:
            name: Its name.

        Raises:
            UnknownProviderError: If there is none.
            ProviderSessionError: If it cannot be made.
        """
        return self.core.providers.of(name)

    def add_global_middleware(self, middleware: ISessionMiddleware) -> None:
        """Let a middleware see the messages of all sessions that are got from now on."""
        self.core.pipeline.add_middleware(middleware)

    def add_global_hook(self, hook: ISessionLifecycleHook) -> None:
        """Let a hook observe all sessions that are got from now on."""
        self.core.pipeline.add_hook(hook)

    async def health(self) -> StorageHealth:
        """How the storage is doing; does not raise when it is doing badly."""
        self.core.check_open()
        return await self.core.storage.health()

    async def close(self, *, wait: float = 0) -> None:
        """End the open turns and close what the manager opened. May be called twice.

        Turns that are open are cancelled: what has been shown of their replies is stored, whoever
        waits for them gets `TurnCancelledError`, and their sessions are free when this returns. No
        cancellation of the caller keeps it from doing so. May be called from any event loop.

        Args:
            wait: How long to let open turns go on first, in seconds. No new one begins.
        """
        if self.core.locks.is_closed:
            return
        wait = check_seconds(wait, "wait")
        self.core.locks.is_closed = True
        try:
            if wait:
                await self.core.locks.finish(wait)
        finally:
            await settled(asyncio.ensure_future(self._close()))

    async def _close(self) -> None:
        # One that cannot be closed keeps none of the others open.
        async with AsyncExitStack() as stack:
            if self._owns_storage:
                stack.push_async_callback(self.core.storage.close)
            for provider in self.core.providers:
                stack.push_async_callback(provider.close)
            await self.core.locks.close()

    def _open(self, record: SessionRecord) -> BaseSession:
        return BaseSession(self, record)

    async def _create(
        self,
        user_id: str,
        provider: str,
        model: str,
        backend: SessionBackend | str,
        session_id: str | None,
        context: Mapping[str, Any],
    ) -> BaseSession:
        self.core.check_open()
        new = {
            "session_id": check_id(new_id() if session_id is None else session_id, "session_id"),
            "user_id": check_id(user_id, "user_id"),
            "provider": check_name(provider, "provider"),
            "model": check_name(model, "model"),
            "backend": backend,
        }
        checked = check_context(new, dict(context), new["session_id"])
        created = NewSession(
            session_id=checked.session_id,
            user_id=checked.user_id,
            provider=checked.provider,
            model=checked.model,
            backend=checked.backend,
            context=as_json(checked, context.keys() - STATE_KEYS),
        )
        state = {name: context[name] for name in STATE_KEYS if name in context}
        try:
            record = await self.core.storage.create_session(created)
            if state:
                # Where it is kept when it changes: elsewhere it would come back after a switch.
                changes = changes_of(record.to_context(), state, record.last_seq)
                record = await self.core.storage.update_session(record.ref, changes)
        except InvalidInputError as error:
            raise in_session(error, checked.session_id) from error.__cause__
        return await announce(self, record)

    async def _list(
        self,
        user_id: str | None,
        limit: int,
        status: SessionStatus | str | None,
        cursor: str | None,
    ) -> SessionList[BaseSession]:
        self.core.check_open()
        checked = check_limit(limit, optional=False)
        wanted = None if status is None else check_status(status)
        if not checked:
            return SessionList([], cursor)
        page = await self.core.storage.list_sessions(
            user_id=user_id, status=wanted, limit=checked, cursor=cursor
        )
        return SessionList([self._open(record) for record in page.records], page.next_cursor)


class UserSessions:
    """A manager as one user sees it: no other user's sessions exist in it.

    Made by `SessionManager.for_user`; the methods are the manager's without the user.
    """

    def __init__(self, manager: SessionManager, user_id: str) -> None:
        self.manager = manager
        self.user_id = user_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.user_id!r} in {self.manager!r}>"

    async def create_session(
        self,
        provider: str,
        model: str,
        backend: SessionBackend | str = SessionBackend.PROVIDER_NATIVE,
        session_id: str | None = None,
        **context: Any,
    ) -> BaseSession:
        """See `SessionManager.create_session`."""
        return await self.manager.create_session(
            self.user_id, provider, model, backend, session_id, **context
        )

    async def get_or_create_session(self, session_id: str, **context: Any) -> BaseSession:
        """See `SessionManager.get_or_create_session`."""
        return await self.manager.get_or_create_session(session_id, self.user_id, **context)

    async def get_session(self, session_id: str) -> BaseSession:
        """See `SessionManager.get_session`."""
        return await self.manager.get_session(session_id, user_id=self.user_id)

    async def list_sessions(
        self,
        limit: int = 100,
        *,
        status: SessionStatus | str | None = None,
        cursor: str | None = None,
    ) -> SessionList[BaseSession]:
        """See `SessionManager.list_user_sessions`."""
        return await self.manager.list_user_sessions(
            self.user_id, limit, status=status, cursor=cursor
        )

    def iter_sessions(
        self, *, status: SessionStatus | str | None = None
    ) -> AsyncIterator[BaseSession]:
        """See `SessionManager.iter_sessions`."""
        return self.manager.iter_sessions(self.user_id, status=status)

    async def search_messages(
        self,
        text: str,
        *,
        session_id: str | None = None,
        role: MessageRole | str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> MessageHits:
        """See `SessionManager.search_messages`."""
        return await self.manager.search_messages(
            text,
            user_id=self.user_id,
            session_id=session_id,
            role=role,
            limit=limit,
            cursor=cursor,
        )

    async def archive_session(self, session_id: str) -> None:
        """See `SessionManager.archive_session`."""
        await self.manager.archive_session(session_id, user_id=self.user_id)

    async def delete_session(self, session_id: str) -> None:
        """See `SessionManager.delete_session`."""
        await self.manager.delete_session(session_id, user_id=self.user_id)
