"""The middleware and hooks that every message passes, whichever door it comes through."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from langswarm_session.errors import InvalidInputError, MiddlewareError, SessionError, in_session
from langswarm_session.interfaces import ISession, ISessionLifecycleHook, ISessionMiddleware
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.turns import endings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from langswarm_session.records import FallbackEvent, PrefixChange
    from langswarm_session.requests.normalize import Repair

logger = logging.getLogger(__name__)


class Pipeline:
    """Middleware and hooks in the order they were added.

    Attributes:
        middleware: Changes, replaces or refuses messages.
        hooks: Observe.
    """

    def __init__(
        self,
        middleware: Sequence[ISessionMiddleware] = (),
        hooks: Sequence[ISessionLifecycleHook] = (),
    ) -> None:
        self.middleware = list(middleware)
        self.hooks = list(hooks)

    def add_middleware(self, middleware: ISessionMiddleware) -> None:
        """Add one behind the others.

        Raises:
            InvalidInputError: If it is none.
        """
        if not isinstance(middleware, ISessionMiddleware):
            raise InvalidInputError(
                f"expected an ISessionMiddleware, not {type(middleware).__name__}"
            )
        self.middleware.append(middleware)

    def add_hook(self, hook: ISessionLifecycleHook) -> None:
        """Add one behind the others.

        Raises:
            InvalidInputError: If it is none.
        """
        if not isinstance(hook, ISessionLifecycleHook):
            raise InvalidInputError(f"expected an ISessionLifecycleHook, not {type(hook).__name__}")
        self.hooks.append(hook)

    @property
    def holds_stream(self) -> bool:
        """Whether some middleware must see a whole reply before the reader sees any of it."""
        return any(middleware.holds_stream for middleware in self.middleware)

    async def process(
        self, session: ISession, messages: Sequence[SessionMessage]
    ) -> list[SessionMessage]:
        """Pass messages through the middleware: replies in reverse order, all others in order.

        Raises:
            MessageRefusedError: If a middleware refuses one.
            MiddlewareError: If a middleware fails.
        """
        if not self.middleware:
            return list(messages)
        return [await self._process_one(session, message) for message in messages]

    async def _process_one(self, session: ISession, message: SessionMessage) -> SessionMessage:
        incoming = message.role is MessageRole.ASSISTANT
        for middleware in reversed(self.middleware) if incoming else self.middleware:
            try:
                if incoming:
                    message = await middleware.process_incoming_message(session, message)
                else:
                    message = await middleware.process_outgoing_message(session, message)
            except SessionError as error:
                raise in_session(error, session.session_id) from error.__cause__
            except Exception as error:
                # What it says may quote the message, and is the cause's alone.
                raise MiddlewareError(
                    f"{type(middleware).__name__} failed: {type(error).__name__}",
                    session_id=session.session_id,
                ) from error
            if not isinstance(message, SessionMessage):
                raise MiddlewareError(
                    f"{type(middleware).__name__} returned {type(message).__name__}, not a "
                    "SessionMessage; to refuse a message raise MessageRefusedError",
                    session_id=session.session_id,
                )
        return message

    async def process_partial(
        self, session: ISession, messages: Sequence[SessionMessage]
    ) -> list[SessionMessage]:
        """Pass the part of a reply that was shown through the middleware.

        The middleware may be what broke the turn off, and may do the same again: where the part
        does not get through, nothing is returned.
        """
        if not messages:
            return []
        # In a task of its own, whose cancellation by a middleware is told from the caller's.
        passing = asyncio.ensure_future(self.process(session, messages))
        try:
            done, _ = await asyncio.wait([passing], timeout=endings.PARTIAL_SECONDS)
        finally:
            passing.cancel()
        try:
            if done:
                return passing.result()
            reason = f"the middleware took longer than {endings.PARTIAL_SECONDS:g} s over it"
        except SessionError:
            reason = "it was refused"
        except asyncio.CancelledError:
            reason = "the middleware was cancelled"
        logger.warning("session %r: the partial reply was lost: %s", session.session_id, reason)
        return []

    async def stored(self, session: ISession, messages: Sequence[SessionMessage]) -> None:
        """Tell the hooks of messages that were stored."""
        for hook in self.hooks:
            for message in messages:
                if message.role is MessageRole.ASSISTANT:
                    await _observe(hook.on_message_received, session, message)
                else:
                    await _observe(hook.on_message_sent, session, message)

    async def repaired(self, session: ISession, repairs: Sequence[Repair]) -> None:
        """Tell the hooks what was changed of a request."""
        for hook in self.hooks:
            await _observe(hook.on_request_repaired, session, repairs)

    async def prefix_changed(self, session: ISession, change: PrefixChange) -> None:
        """Tell the hooks that a request did not begin with the whole of the one before."""
        for hook in self.hooks:
            await _observe(hook.on_prefix_changed, session, change)

    async def fell_back(self, session: ISession, event: FallbackEvent) -> None:
        """Tell the hooks that another provider answers."""
        for hook in self.hooks:
            await _observe(hook.on_provider_fallback, session, event)

    async def created(self, session: ISession) -> None:
        """Tell the hooks of a new session."""
        for hook in self.hooks:
            await _observe(hook.on_session_created, session)

    async def archived(self, session: ISession) -> None:
        """Tell the hooks that a session was archived."""
        for hook in self.hooks:
            await _observe(hook.on_session_archived, session)

    async def deleted(self, session: ISession) -> None:
        """Tell the hooks that a session was deleted."""
        for hook in self.hooks:
            await _observe(hook.on_session_deleted, session)

    async def failed(self, session: ISession, error: BaseException) -> None:
        """Tell the hooks of a turn that failed or was cancelled."""
        for hook in self.hooks:
            await _observe(hook.on_error, session, error)


async def _observe(call: Callable[..., Awaitable[None]], *args: object) -> None:
    try:
        await call(*args)
    except Exception:
        name = getattr(call, "__qualname__", repr(call))
        logger.exception("the hook %s raised; the turn goes on without it", name)
