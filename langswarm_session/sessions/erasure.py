"""Removing everything of a person: here, at the providers, and from what a file still holds."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from langswarm_session.errors import SessionError, SessionNotFoundError, in_session
from langswarm_session.records import SessionChanges
from langswarm_session.requests.provider_state import ProviderState, states_of, with_state
from langswarm_session.storage.rules import check_revision

if TYPE_CHECKING:
    from langswarm_session.interfaces import IProviderSession
    from langswarm_session.manager import SessionManager
    from langswarm_session.session import BaseSession

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NotErased:
    """A session that is still there.

    Attributes:
        session_id: The session.
        at_providers: The providers that keep some of it, each with its id of the conversation.
        error: Why it could not be removed.
    """

    session_id: str
    at_providers: dict[str, str]
    error: SessionError


@dataclass(slots=True)
class ErasureReport:
    """What became of a person's data.

    Attributes:
        user_id: The person.
        sessions: The ids of the sessions that were removed.
        messages: How many messages they had.
        at_providers: What providers kept of them and removed: provider and id.
        left_at_providers: What providers keep of the removed sessions, as it was not to be removed
            there or cannot be: provider and id, of a conversation or a reply.
        not_erased: The sessions that could not be removed.
        scrub_error: Why the storage could not overwrite what the removed sessions left behind.
    """

    user_id: str
    sessions: list[str] = field(default_factory=list)
    messages: int = 0
    at_providers: list[tuple[str, str]] = field(default_factory=list)
    left_at_providers: list[tuple[str, str]] = field(default_factory=list)
    not_erased: list[NotErased] = field(default_factory=list)
    scrub_error: SessionError | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing of the person is left that this storage or a provider of ours held."""
        return not (self.not_erased or self.left_at_providers or self.scrub_error)


async def erase_user(
    manager: SessionManager, user_id: str, *, at_providers: bool, scrub: bool
) -> ErasureReport:
    """Remove a user's sessions; see `SessionManager.erase_user`."""
    report = ErasureReport(user_id)
    failed: dict[str, NotErased] = {}
    while True:
        # Again, until no pass finds any more: some may be made meanwhile.
        removed = len(report.sessions)
        async for session in manager.iter_sessions(user_id):
            if session.session_id not in failed:
                await _erase(session, report, failed, at_providers=at_providers)
        if len(report.sessions) == removed:
            break
    report.not_erased = list(failed.values())
    if scrub:
        try:
            await manager.storage.scrub()
        except SessionError as error:
            report.scrub_error = error
    return report


async def forget_at_providers(
    session: BaseSession, *, replies: bool = False
) -> list[tuple[str, str]]:
    """Remove what providers keep of a conversation.

    Args:
        session: The session.
        replies: Whether the replies that they keep besides are removed as well, one by one.

    Returns:
        What they cannot remove: each provider with its id of a reply.

    Raises:
        ProviderSessionError: If one of them could not.
    """
    left: list[tuple[str, str]] = []
    states, own = states_of(session.context), session.context.provider
    for name in {**states, own: None}:
        state = states.get(name)
        if state is None and name not in session.manager._providers.names:
            continue  # it is a door's name, or this program has no such provider
        provider = session.manager._providers.of(name, session.session_id)
        try:
            if replies and provider.keeps_replies and session.context.backend.is_native:
                ids = await _replies_of(session, name)
                left += [(name, reply) for reply in await provider.delete_replies(ids)]
            if state is not None:
                await _remove(session, name, state, provider)
        except SessionError as error:
            raise in_session(error, session.session_id) from error.__cause__
    for name, reply in left:
        logger.warning("session %r: %s keeps the reply %s, and cannot remove it",
                       session.session_id, name, reply)  # fmt: skip
    return left


async def _remove(
    session: BaseSession, name: str, state: ProviderState, provider: IProviderSession
) -> None:
    """Remove a provider's copies; one of which only a part is left is not used again."""
    try:
        for copy in state.copies:
            await provider.delete_provider_session(copy)
    except (SessionError, asyncio.CancelledError):
        outdated = provider.outdated(state.context)
        if outdated is not None:
            after = replace(state, context=outdated)
            changes = SessionChanges(provider_state=with_state(session.context, name, after))
            session._moved(await session._storage.update_session(session.ref, changes))
        raise


async def _replies_of(session: BaseSession, provider: str) -> list[str]:
    """Return a provider's ids of the replies that it gave in a session."""
    return [
        message.provider_message_id
        async for message in session.iter_messages()
        if message.provider == provider and message.provider_message_id
    ]


async def delete(
    session: BaseSession, *, at_providers: bool, expected_revision: int | None = None
) -> list[tuple[str, str]]:
    """Remove a session that was read just now, and what providers keep of it.

    Returns:
        What providers cannot remove: each with its id of a reply.

    Raises:
        RevisionConflictError: If the revision is another.
        ProviderSessionError: If a provider could not; then nothing was removed here either.
        SessionNotFoundError: If it was removed meanwhile, whatever has its id now.
    """
    check_revision(session._record, expected_revision)
    left = await forget_at_providers(session, replies=True) if at_providers else []
    await session._storage.delete_session(session.ref, expected_revision=expected_revision)
    await session.manager._pipeline.deleted(session)
    return left


async def _erase(
    session: BaseSession,
    report: ErasureReport,
    failed: dict[str, NotErased],
    *,
    at_providers: bool,
) -> None:
    kept = _kept(session)
    try:
        await session.refresh()
        kept = _kept(session)
        left = await delete(session, at_providers=at_providers)
    except SessionNotFoundError:  # somebody else was quicker
        return
    except SessionError as error:
        failed[session.session_id] = NotErased(session.session_id, kept, error)
        return
    report.sessions.append(session.session_id)
    report.messages += session.metrics.message_count
    report.left_at_providers.extend(left)
    (report.at_providers if at_providers else report.left_at_providers).extend(kept.items())


def _kept(session: BaseSession) -> dict[str, str]:
    """Return the providers that keep some of a session, each with its id of the conversation."""
    states = states_of(session.context)
    return {name: state.session_id for name, state in states.items() if state.session_id}
