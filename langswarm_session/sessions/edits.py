"""Taking messages out of a log or changing them, there and in what was made of them.

A provider's own copy of the conversation and the summary may have what is removed or changed; then
they go as well, before the log changes, and the next turn begins from the record.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from langswarm_session._validation import check_seqs
from langswarm_session.records import Appended, SessionChanges
from langswarm_session.requests.provider_state import states_of, without_copies
from langswarm_session.requests.state import RequestState
from langswarm_session.sessions.erasure import forget_at_providers
from langswarm_session.storage.rules import check_revision
from langswarm_session.turns.inputs import as_messages

if TYPE_CHECKING:
    from langswarm_session.models import SessionMessage
    from langswarm_session.session import BaseSession


async def clear(session: BaseSession, expected_revision: int | None) -> None:
    """See `BaseSession.clear_messages`."""

    async def clear() -> None:
        await session.refresh()
        check_revision(session._record, expected_revision)
        expected = expected_revision
        if _is_held_elsewhere(session):
            expected = await _forget(session, session.revision, replies=True)
        record = await session._storage.clear_messages(session.ref, expected_revision=expected)
        session._moved(record)

    await session._runtime.alone(session.ref, clear, session._runtime.turn_wait)


async def edit(
    session: BaseSession,
    *,
    expected_revision: int,
    remove: Sequence[int],
    change: Sequence[SessionMessage],
    add: Sequence[SessionMessage],
) -> list[SessionMessage]:
    """See `BaseSession.edit_messages`."""
    changed = await session._process(as_messages(change, session.session_id))
    given = as_messages(add, session.session_id)
    removed = check_seqs(remove, "remove", session.session_id)
    moved = {message.id for message in given if message.seq in {*removed}}
    added = await _processed(session, given, moved)
    touched = [*removed, *(message.seq or 0 for message in changed)]

    async def edit() -> Appended:
        expected = await _forget_touched(session, touched, expected_revision)
        appended = await session._storage.edit_messages(
            session.ref,
            expected_revision=expected,
            remove=removed,
            change=changed,
            add=added,
        )
        session._moved(appended.record)
        return appended

    appended = await session._runtime.alone(session.ref, edit, session._runtime.turn_wait)
    new = [message for message in appended.messages if message.id not in moved]
    await session._pipeline.stored(session, new)
    return appended.messages


async def _processed(
    session: BaseSession, messages: list[SessionMessage], moved: set[str]
) -> list[SessionMessage]:
    """The messages after the middleware, which has seen those that are only moved before."""
    fresh = await session._process([each for each in messages if each.id not in moved])
    rest = iter(fresh)
    return [each if each.id in moved else next(rest) for each in messages]


async def _forget_touched(
    session: BaseSession, touched: Sequence[int], expected_revision: int
) -> int:
    """Drop the summary and providers' copies that have a message which is about to change.

    Returns:
        The revision after that.
    """
    await session.refresh()
    check_revision(session._record, expected_revision)
    covered = [state.seq for state in states_of(session.context).values()]
    covered.append(RequestState.of(session.context).noted_through)
    if session.context.summary is not None:
        covered.append(session.context.summary.last_seq)
    if not touched or max(covered, default=0) < min(touched):
        return expected_revision
    return await _forget(session, expected_revision)


def _is_held_elsewhere(session: BaseSession) -> bool:
    """Whether a summary, a provider's copy or its notes have something of the log."""
    context = session.context
    noted = RequestState.of(context).noted_through
    return context.summary is not None or bool(states_of(context)) or bool(noted)


async def _forget(session: BaseSession, expected_revision: int, *, replies: bool = False) -> int:
    """Drop the summary and all providers' copies; returns the revision after that."""
    await forget_at_providers(session, replies=replies)
    changes = SessionChanges(
        context={"summary": None}, provider_state=without_copies(session.context)
    )
    record = await session._storage.update_session(
        session.ref, changes, expected_revision=expected_revision
    )
    session._moved(record)
    return record.revision
