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
from langswarm_session.storage.rules import check_revision
from langswarm_session.turns.inputs import as_messages
from langswarm_session.turns.provider_copies import forget_at_providers

if TYPE_CHECKING:
    from langswarm_session.models import SessionMessage
    from langswarm_session.turns.core import SessionCore


async def clear(core: SessionCore, expected_revision: int | None) -> None:
    """See `BaseSession.clear_messages`."""

    async def clear() -> None:
        await core.refresh()
        check_revision(core.record, expected_revision)
        expected = expected_revision
        if _is_held_elsewhere(core):
            expected = await _forget(core, core.record.revision, replies=True)
        record = await core.storage.clear_messages(core.ref, expected_revision=expected)
        core.moved(record)

    await core.locks.alone(core.ref, clear, core.locks.turn_wait)


async def edit(
    core: SessionCore,
    *,
    expected_revision: int,
    remove: Sequence[int],
    change: Sequence[SessionMessage],
    add: Sequence[SessionMessage],
) -> list[SessionMessage]:
    """See `BaseSession.edit_messages`."""
    changed = await core.process_first(as_messages(change, core.session_id))
    new = as_messages(add, core.session_id)
    removed = check_seqs(remove, "remove", core.session_id)
    moved = {message.id for message in new if message.seq in {*removed}}
    added = await _processed(core, new, moved)
    touched = [*removed, *(message.seq or 0 for message in changed)]

    async def edit() -> Appended:
        expected = await _forget_touched(core, touched, expected_revision)
        appended = await core.storage.edit_messages(
            core.ref,
            expected_revision=expected,
            remove=removed,
            change=changed,
            add=added,
        )
        core.moved(appended.record)
        return appended

    appended = await core.locks.alone(core.ref, edit, core.locks.turn_wait)
    await core.stored([message for message in appended.messages if message.id not in moved])
    return appended.messages


async def _processed(
    core: SessionCore, messages: list[SessionMessage], moved: set[str]
) -> list[SessionMessage]:
    """The messages after the middleware, which has seen those that are only moved before."""
    fresh = await core.process_first([message for message in messages if message.id not in moved])
    rest = iter(fresh)
    return [message if message.id in moved else next(rest) for message in messages]


async def _forget_touched(core: SessionCore, touched: Sequence[int], expected_revision: int) -> int:
    """Drop the summary and providers' copies that have a message which is about to change.

    Returns:
        The revision after that.
    """
    await core.refresh()
    check_revision(core.record, expected_revision)
    covered = [state.seq for state in states_of(core.context).values()]
    covered.append(RequestState.of(core.context).noted_through)
    if core.context.summary is not None:
        covered.append(core.context.summary.last_seq)
    if not touched or max(covered, default=0) < min(touched):
        return expected_revision
    return await _forget(core, expected_revision)


def _is_held_elsewhere(core: SessionCore) -> bool:
    """Whether a summary, a provider's copy or its notes have something of the log."""
    context = core.context
    noted = RequestState.of(context).noted_through
    return context.summary is not None or bool(states_of(context)) or bool(noted)


async def _forget(core: SessionCore, expected_revision: int, *, replies: bool = False) -> int:
    """Drop the summary and all providers' copies; returns the revision after that."""
    await forget_at_providers(core, replies=replies)
    changes = SessionChanges(context={"summary": None}, provider_state=without_copies(core.context))
    return (await core.update(changes, expected_revision=expected_revision)).revision
