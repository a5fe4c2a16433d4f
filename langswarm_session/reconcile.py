"""Comparing a provider's own copy of a conversation with the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from langswarm_session.blocks import ToolCallBlock, ToolResultBlock
from langswarm_session.errors import InvalidInputError, SessionError
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.pipeline import in_session
from langswarm_session.provider_state import ProviderState, state_of, with_state
from langswarm_session.records import SessionChanges

if TYPE_CHECKING:
    from langswarm_session.session import BaseSession


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """How a provider's copy and the record differ.

    Attributes:
        only_local: Messages that the provider does not have. System messages are not counted:
            they travel with each request.
        only_remote: Messages that the record does not have.
        pulled: What of those was stored.
    """

    only_local: list[SessionMessage]
    only_remote: list[SessionMessage]
    pulled: list[SessionMessage]

    @property
    def is_equal(self) -> bool:
        """Whether both sides had the same messages."""
        return not (self.only_local or self.only_remote)


async def reconcile(session: BaseSession, *, pull: bool) -> Reconciliation:
    """See `BaseSession.reconcile`."""
    await session.refresh()
    context = session.context
    state = state_of(context, context.provider)
    if state.session_id is None:
        raise InvalidInputError(
            f"the provider {context.provider!r} has no copy of this conversation yet",
            session_id=session.session_id,
        )
    provider = session.manager._provider(context.provider, session.session_id)
    try:
        copy = await provider.get_messages(state.session_id)
    except SessionError as error:
        raise in_session(error, session.session_id) from error.__cause__
    local = [
        message
        for message in await session._storage.get_messages(
            session.session_id, answered_only=True
        )
        if message.role is not MessageRole.SYSTEM
    ]
    remote = [message for message in copy if message.role is not MessageRole.SYSTEM]
    only_local, only_remote = compare(local, remote)
    pulled: list[SessionMessage] = []
    if pull and only_remote:
        # The provider's id makes the message's, so that pulling twice stores nothing twice.
        named = [
            message.model_copy(update={"id": f"{context.provider}:{message.provider_message_id}"})
            if message.provider_message_id
            else message
            for message in only_remote
        ]
        pulled = await session.record(named)
        if not only_local:
            await _in_step(session, state, pulled)
    return Reconciliation(only_local, only_remote, pulled)


async def _in_step(
    session: BaseSession, state: ProviderState, pulled: Sequence[SessionMessage]
) -> None:
    """Note that the provider's copy has what was pulled from it."""
    answered = {b.tool_call_id for m in pulled for b in m.blocks if isinstance(b, ToolResultBlock)}
    made = [b.id for b in pulled[-1].blocks if isinstance(b, ToolCallBlock) and b.id]
    calls = [call for call in [*state.calls, *made] if call not in answered]
    after = ProviderState(state.session_id, state.context, pulled[-1].seq or state.seq, calls)
    changes = SessionChanges(
        provider_state=with_state(session.context, session.context.provider, after)
    )
    session._moved(await session._storage.update_session(session.session_id, changes))


def compare(
    local: Sequence[SessionMessage], remote: Sequence[SessionMessage]
) -> tuple[list[SessionMessage], list[SessionMessage]]:
    """What only the first, and what only the second of two conversations has, in order."""
    matcher = SequenceMatcher(
        None, [_key(each) for each in local], [_key(each) for each in remote], autojunk=False
    )
    only_local: list[SessionMessage] = []
    only_remote: list[SessionMessage] = []
    for kind, i, j, k, n in matcher.get_opcodes():
        if kind != "equal":
            only_local += local[i:j]
            only_remote += remote[k:n]
    return only_local, only_remote


def _key(message: SessionMessage) -> tuple[object, ...]:
    """What of a message both sides have alike."""
    role = message.role
    calls = tuple(
        (block.id, block.name) for block in message.blocks if isinstance(block, ToolCallBlock)
    )
    results = tuple(
        block.tool_call_id for block in message.blocks if isinstance(block, ToolResultBlock)
    )
    if role is MessageRole.FUNCTION or results:
        role = MessageRole.TOOL
    return role, message.text, calls, results
