"""What a framework's or provider's format cannot carry of a conversation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langswarm_session.errors import (
    InvalidInputError,
    ProviderAuthenticationError,
    UnknownProviderError,
)
from langswarm_session.formats.registry import MessageFormat, format_names, message_format
from langswarm_session.models import SessionMessage
from langswarm_session.providers.factory import ProviderSessionFactory
from langswarm_session.requests.normalize import RepairKind, normalize

if TYPE_CHECKING:
    from langswarm_session.interfaces import IProviderSession
    from langswarm_session.models import SessionContext
    from langswarm_session.providers.registry import Providers


@dataclass(frozen=True, slots=True)
class Loss:
    """What a target cannot carry of one message.

    Attributes:
        message_id: The message.
        seq: Its place in the log.
        lost: The parts, as paths: ``usage``, ``content[1]``, ``content[0].annotations``.
    """

    message_id: str
    seq: int | None
    lost: tuple[str, ...]


_NOT_COMPARED = ("id", "seq", "turn_id", "native", "timestamp", "content")
"""What a record gives a message, and no format is asked to carry; and what is compared apart."""

_ADDED = (RepairKind.USER_ADDED, RepairKind.TOOLS_DECLARED)
"""The repairs that take nothing away."""


def format_losses(target: MessageFormat, messages: Sequence[SessionMessage]) -> list[Loss]:
    """Return what a framework's format loses, for each message that loses something.

    A message is converted there and back, and the two are compared. A message that came in that
    format is restored exactly.

    Args:
        target: The framework's format.
        messages: The messages.
    """
    losses = []
    for message in messages:
        if message.native and target.name in message.native:
            continue
        lost = _lost(message, target.round_trip(message))
        if lost:
            losses.append(Loss(message.id, message.seq, tuple(lost)))
    return losses


def provider_losses(
    provider: IProviderSession, context: SessionContext, messages: Sequence[SessionMessage]
) -> list[Loss]:
    """Return what a provider's request would repair, for each message that is repaired.

    What is only added to a request is not a loss.
    """
    _, repairs = normalize(messages, provider.target(context, {}))
    seqs = {message.id: message.seq for message in messages}
    by_message: dict[str, list[str]] = {}
    for repair in repairs:
        if repair.kind in _ADDED:
            continue
        lost = f"{repair.kind.value}: {repair.detail}" if repair.detail else repair.kind.value
        by_message.setdefault(repair.message_id or "", []).append(lost)
    return [Loss(name, seqs.get(name), tuple(lost)) for name, lost in by_message.items()]


def losses(
    target: str,
    messages: Sequence[SessionMessage],
    context: SessionContext,
    providers: Providers,
) -> list[Loss]:
    """Return what a framework or provider cannot carry: see `BaseSession.fidelity`.

    Args:
        target: The name of a framework, which may be written as its extra is (``llama-index``), or
            of a provider.
        messages: The messages of the session.
        context: The session's context.
        providers: The manager's providers.
    """
    formats = format_names()
    if not isinstance(target, str) or not target:
        raise InvalidInputError(
            f"expected the name of a provider or one of {', '.join(formats)}, got {target!r}"
        )
    name = target.replace("-", "_")
    if name in formats:
        return format_losses(message_format(name), messages)
    provider = providers.made(target)
    if provider is not None:
        with suppress(ProviderAuthenticationError):  # a known one that was made without a key
            return provider_losses(provider, context, messages)
    if not ProviderSessionFactory.is_known(target):
        raise UnknownProviderError(
            f"there is no framework or provider {target!r}; expected the name of a provider or "
            f"one of {', '.join(formats)}",
            provider=target,
        )
    return provider_losses(providers.keyless(target), context, messages)


def _lost(before: SessionMessage, after: Sequence[SessionMessage]) -> list[str]:
    """The paths of what is not in the messages that came back."""
    if not after:
        return ["the whole message"]
    first = after[0]
    carried = (name for name in SessionMessage.model_fields if name not in _NOT_COMPARED)
    lost = []
    for name in carried:
        value = getattr(before, name)
        if value and value != getattr(first, name):
            lost.append(name)
    mine = [block.model_dump(exclude_none=True) for block in before.blocks]
    theirs = [block.model_dump(exclude_none=True) for each in after for block in each.blocks]
    return [*_lost_blocks(mine, theirs), *lost]


def _lost_blocks(
    mine: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]
) -> Iterable[str]:
    rest = list(theirs)
    for place, block in enumerate(mine):
        if block in rest:
            rest.remove(block)
            continue
        like = next((each for each in rest if each["type"] == block["type"]), None)
        if like is None:
            yield f"content[{place}]"
            continue
        rest.remove(like)
        for name, value in block.items():
            if like.get(name) != value:
                yield f"content[{place}].{name}"
