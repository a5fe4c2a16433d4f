"""Removing everything of a person: here, at the providers, and from what a file still holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from langswarm_session.errors import SessionError, SessionNotFoundError
from langswarm_session.requests.provider_state import states_of
from langswarm_session.storage.rules import check_revision
from langswarm_session.turns.provider_copies import forget_at_providers

if TYPE_CHECKING:
    from langswarm_session.turns.core import ManagerCore, SessionCore


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
    shared: ManagerCore,
    sessions: Callable[[], AsyncIterator[SessionCore]],
    user_id: str,
    *,
    at_providers: bool,
    scrub: bool,
) -> ErasureReport:
    """Remove a user's sessions; see `SessionManager.erase_user`.

    Args:
        shared: The manager.
        sessions: Lists the user's sessions as they are when it is called.
        user_id: The user.
        at_providers: Whether the providers' copies are removed as well.
        scrub: Whether the storage is to overwrite what was deleted.
    """
    report = ErasureReport(user_id)
    failed: dict[str, NotErased] = {}
    while True:
        # Again, until no pass finds any more: some may be made meanwhile.
        removed = len(report.sessions)
        async for core in sessions():
            if core.session_id not in failed:
                await _erase(core, report, failed, at_providers=at_providers)
        if len(report.sessions) == removed:
            break
    report.not_erased = list(failed.values())
    if scrub:
        try:
            await shared.storage.scrub()
        except SessionError as error:
            report.scrub_error = error
    return report


async def delete(
    core: SessionCore, *, at_providers: bool, expected_revision: int | None = None
) -> list[tuple[str, str]]:
    """Remove a session that was read just now, and what providers keep of it.

    Returns:
        What providers cannot remove: each with its id of a reply.

    Raises:
        RevisionConflictError: If the revision is another.
        ProviderSessionError: If a provider could not; then nothing was removed here either.
        SessionNotFoundError: If it was removed meanwhile, whatever has its id now.
    """
    check_revision(core.record, expected_revision)
    left = await forget_at_providers(core, replies=True) if at_providers else []
    await core.storage.delete_session(core.ref, expected_revision=expected_revision)
    await core.shared.pipeline.deleted(core.session)
    return left


async def _erase(
    core: SessionCore,
    report: ErasureReport,
    failed: dict[str, NotErased],
    *,
    at_providers: bool,
) -> None:
    held = _held_at_providers(core)
    try:
        await core.refresh()
        held = _held_at_providers(core)
        left = await delete(core, at_providers=at_providers)
    except SessionNotFoundError:  # somebody else was quicker
        return
    except SessionError as error:
        failed[core.session_id] = NotErased(core.session_id, held, error)
        return
    report.sessions.append(core.session_id)
    report.messages += core.record.to_metrics().message_count
    report.left_at_providers.extend(left)
    (report.at_providers if at_providers else report.left_at_providers).extend(held.items())


def _held_at_providers(core: SessionCore) -> dict[str, str]:
    """Return the providers that keep some of a session, each with its id of the conversation."""
    states = states_of(core.context)
    return {name: state.session_id for name, state in states.items() if state.session_id}
