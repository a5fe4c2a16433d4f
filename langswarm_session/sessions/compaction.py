"""Compactions that a provider makes of a whole conversation.

- https://platform.claude.com/docs/en/build-with-claude/compaction
- https://developers.openai.com/api/docs/guides/compaction
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langswarm_session.errors import ProviderSessionError, in_session
from langswarm_session.models import NOTES, SessionMessage
from langswarm_session.records import ProviderRequest, SessionChanges
from langswarm_session.requests.provider_state import ProviderState, state_of, states_of, stored
from langswarm_session.requests.state import RequestState
from langswarm_session.requests.window import COMPACTION
from langswarm_session.turns.reading import read_window
from langswarm_session.turns.recording import record

if TYPE_CHECKING:
    from langswarm_session.interfaces import IProviderSession
    from langswarm_session.records import ProviderReply
    from langswarm_session.turns.core import SessionCore


async def compact(core: SessionCore) -> SessionMessage:
    """See `BaseSession.compact`."""
    await core.refresh()
    revision, context = core.record.revision, core.context
    provider = core.provider()
    state = RequestState.of(context)
    target = provider.target(context, {})
    current = await read_window(core, target)
    request = ProviderRequest(
        core.session_id,
        context.model_copy(update=ProviderState().to_context()),
        current.messages,
        new_count=0,
        target=target,
        turn_id=core.record.last_seq + 1,
        notes=state.notes.get(provider.name),
        reasoning_after=state.reasoning_after,
    )
    try:
        reply = await provider.compact(request)
        message = _only(reply, context.provider, context.model)
        copy = state_of(context, context.provider)
        if copy.session_id is not None and provider.outdated(copy.context) is None:
            await provider.delete_provider_session(copy.session_id)
    except ProviderSessionError as error:
        raise in_session(error, core.session_id) from error.__cause__
    wait = core.locks.turn_wait
    (kept,) = await record(core, [message], expected_revision=revision, wait=wait)
    await _begin_there(core, kept, reply, provider)
    return kept


def _only(reply: ProviderReply, provider: str, model: str) -> SessionMessage:
    """Return the reply's one message, marked as being nothing but a compaction."""
    if len(reply.messages) != 1:
        raise ProviderSessionError(
            f"expected one message with a compaction, got {len(reply.messages)}", provider=provider
        )
    (message,) = reply.messages
    noted = message.metadata.get(NOTES)
    notes = {**(noted if isinstance(noted, dict) else {}), COMPACTION: True}
    return message.replaced(
        provider=message.provider or provider,
        model=message.model or model,
        metadata={**message.metadata, NOTES: notes},
    )


async def _begin_there(
    core: SessionCore,
    message: SessionMessage,
    reply: ProviderReply,
    provider: IProviderSession,
) -> None:
    """Have requests to the provider begin with a stored compaction.

    A copy that it keeps has what the compaction stands for, so it is replaced in the next turn.
    """
    context = core.context
    name = message.provider or context.provider
    state = RequestState.of(context).compacted(name, message.seq or 0)
    if reply.notes is not None:
        state = state.with_notes(name, reply.notes)
    copy, after = state_of(context, name), ProviderState()
    outdated = provider.outdated(copy.context)
    if copy.session_id is not None and outdated is not None:
        after = ProviderState(copy.session_id, outdated, message.seq or 0)
    copies = {**states_of(context), name: after}
    changes = SessionChanges(provider_state=stored(copies, context.provider, state.to_context()))
    await core.update(changes, expected_revision=core.record.revision)
