"""What providers keep of a conversation, and its removal there."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from langswarm_session.errors import SessionError, in_session
from langswarm_session.records import SessionChanges
from langswarm_session.requests.provider_state import ProviderState, states_of, with_state
from langswarm_session.turns.reading import iter_messages

if TYPE_CHECKING:
    from langswarm_session.interfaces import IProviderSession
    from langswarm_session.turns.core import SessionCore

logger = logging.getLogger(__name__)


async def forget_at_providers(core: SessionCore, *, replies: bool = False) -> list[tuple[str, str]]:
    """Remove what providers keep of a conversation.

    Args:
        core: The session.
        replies: Whether the replies that they keep besides are removed as well, one by one.

    Returns:
        What they cannot remove: each provider with its id of a reply.

    Raises:
        ProviderSessionError: If one of them could not.
    """
    left: list[tuple[str, str]] = []
    states, own = states_of(core.context), core.context.provider
    for name in {**states, own: None}:
        state = states.get(name)
        if state is None and name not in core.shared.providers.names:
            continue  # it is a door's name, or this program has no such provider
        provider = core.provider(name)
        try:
            if replies and provider.keeps_replies and core.context.backend.is_native:
                ids = await _replies_of(core, name)
                left += [(name, reply) for reply in await provider.delete_replies(ids)]
            if state is not None:
                await _remove(core, name, state, provider)
        except SessionError as error:
            raise in_session(error, core.session_id) from error.__cause__
    for name, reply in left:
        logger.warning("session %r: %s keeps the reply %s, and cannot remove it",
                       core.session_id, name, reply)  # fmt: skip
    return left


async def _remove(
    core: SessionCore, name: str, state: ProviderState, provider: IProviderSession
) -> None:
    """Remove a provider's copies; one of which only a part is left is not used again."""
    try:
        for copy in state.copies:
            await provider.delete_provider_session(copy)
    except (SessionError, asyncio.CancelledError):
        outdated = provider.outdated(state.context)
        if outdated is not None:
            after = replace(state, context=outdated)
            changes = SessionChanges(provider_state=with_state(core.context, name, after))
            await core.update(changes)
        raise


async def _replies_of(core: SessionCore, provider: str) -> list[str]:
    """Return a provider's ids of the replies that it gave in a session."""
    return [
        message.provider_message_id
        async for message in iter_messages(core)
        if message.provider == provider and message.provider_message_id
    ]
