"""Comparing a provider's own copy of a conversation with the record."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from langswarm_session.blocks import (
    AudioBlock,
    Block,
    FileBlock,
    ImageBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    text_of,
)
from langswarm_session.errors import InvalidInputError, SessionError, in_session
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.records import SessionChanges
from langswarm_session.requests.normalize import Target, normalize
from langswarm_session.requests.provider_state import ProviderState, state_of, with_state
from langswarm_session.sessions.alignment import common
from langswarm_session.turns.recording import record

if TYPE_CHECKING:
    from langswarm_session.turns.core import SessionCore


Part = tuple[object, ...]

_NO_TEXT = object()


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


async def reconcile(core: SessionCore, *, pull: bool) -> Reconciliation:
    """See `BaseSession.reconcile`."""
    await core.refresh()
    context = core.context
    state = state_of(context, context.provider)
    if state.session_id is None:
        raise InvalidInputError(
            f"the provider {context.provider!r} has no copy of this conversation yet",
            session_id=core.session_id,
        )
    provider = core.provider()
    try:
        copy = await provider.get_messages(state.session_id)
    except SessionError as error:
        raise in_session(error, core.session_id) from error.__cause__
    log = await core.storage.get_messages(core.ref, answered_only=True)
    target = provider.target(context, {})
    only_local, only_remote = await asyncio.to_thread(compare, log, copy, target)
    pulled: list[SessionMessage] = []
    if pull and only_remote:
        # The provider's id makes the message's, so that pulling twice stores nothing twice.
        named = [
            message.model_copy(update={"id": f"{context.provider}:{message.provider_message_id}"})
            if message.provider_message_id
            else message
            for message in only_remote
        ]
        pulled = await record(core, named, wait=core.locks.turn_wait)
        # Where the record has more, what was pulled comes behind that, but not in the copy.
        known = provider.outdated(state.context) if only_local else provider.pulled(state.context)
        if known is not None:
            await _in_step(core, state, known, pulled)
    return Reconciliation(only_local, only_remote, pulled)


async def _in_step(
    core: SessionCore,
    state: ProviderState,
    provider_context: Mapping[str, Any],
    pulled: Sequence[SessionMessage],
) -> None:
    """Note that the provider's copy has what was pulled from it, or will be made again."""
    answered = {b.tool_call_id for m in pulled for b in m.blocks if isinstance(b, ToolResultBlock)}
    made = [b.id for b in pulled[-1].blocks if isinstance(b, ToolCallBlock) and b.id]
    calls = [call for call in [*state.calls, *made] if call not in answered]
    after = ProviderState(state.session_id, provider_context, pulled[-1].seq or state.seq, calls)
    changes = SessionChanges(provider_state=with_state(core.context, core.context.provider, after))
    await core.update(changes)


def compare(
    log: Sequence[SessionMessage], copy: Sequence[SessionMessage], target: Target
) -> tuple[list[SessionMessage], list[SessionMessage]]:
    """What only a log, and what only a provider's copy of it has, in order.

    The log is compared as it would be sent: what was changed on the way is no difference. System
    messages travel with each request and are in no copy.

    Args:
        log: The record's messages.
        copy: The provider's.
        target: What the provider accepts.
    """
    known = {message.id: message for message in log}
    local = _parts(normalize(log, target)[0])
    remote = _parts(copy)
    pairs = common([part for part, _ in local], [part for part, _ in remote])
    here, there = {i for i, _ in pairs}, {k for _, k in pairs}
    only_local = {
        message.id: known[message.id]
        for place, (_, message) in enumerate(local)
        if place not in here and message.id in known
    }
    only_remote = {
        message.id: message for place, (_, message) in enumerate(remote) if place not in there
    }
    return list(only_local.values()), list(only_remote.values())


def _parts(messages: Sequence[SessionMessage]) -> list[tuple[Part, SessionMessage]]:
    """What both sides have alike, however each of them cuts it into messages."""
    parts: list[tuple[Part, SessionMessage]] = []
    for message in messages:
        if message.role is not MessageRole.SYSTEM:
            parts += [(part, message) for part in _parts_of(message)]
    return parts


def _parts_of(message: SessionMessage) -> list[Part]:
    parts: list[Part] = []
    for block_id, run in groupby(message.blocks, key=_text_id):
        blocks = list(run)
        if block_id is not _NO_TEXT:
            text = text_of(blocks)
            parts += [("text", message.role.value, text)] if text else []
        for block in blocks:
            if isinstance(block, ToolCallBlock):
                parts.append(("call", block.id, block.name))
            elif isinstance(block, ToolResultBlock):
                parts.append(("result", block.tool_call_id))
            elif isinstance(block, ImageBlock | FileBlock | AudioBlock):
                parts.append((block.type, message.role.value))
    return parts


def _text_id(block: Block) -> object:
    """What texts have in common that belong together."""
    return block.id if isinstance(block, TextBlock | RefusalBlock) else _NO_TEXT
