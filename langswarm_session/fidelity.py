"""What a framework's or provider's format cannot carry of a conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from langswarm_session.errors import (
    InvalidInputError,
    ProviderAuthenticationError,
    UnknownProviderError,
)
from langswarm_session.models import SessionMessage
from langswarm_session.providers.factory import ProviderSessionFactory
from langswarm_session.requests.normalize import RepairKind, make_sendable

if TYPE_CHECKING:
    from langswarm_session.interfaces import IProviderSession
    from langswarm_session.models import SessionContext
    from langswarm_session.providers.registry import Providers
    from langswarm_session.session import BaseSession


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


def _through_langchain(message: SessionMessage) -> list[SessionMessage]:
    from langchain_langswarm import from_langchain_messages, to_langchain_messages

    return from_langchain_messages(to_langchain_messages([message]))


def _through_llama_index(message: SessionMessage) -> list[SessionMessage]:
    from llama_index_langswarm import from_llama_index_messages, to_llama_index_messages

    return from_llama_index_messages(to_llama_index_messages([message]))


def _through_openai_agents(message: SessionMessage) -> list[SessionMessage]:
    from openai_agents_langswarm import from_openai_agents, to_openai_agents

    return from_openai_agents(to_openai_agents([message]))


# Each imports its door when it is asked about it, and not before.
_DOORS: dict[str, Callable[[SessionMessage], list[SessionMessage]]] = {
    "langchain": _through_langchain,
    "llama_index": _through_llama_index,
    "openai_agents": _through_openai_agents,
}

_NOT_COMPARED = ("id", "seq", "turn_id", "native", "timestamp", "content")
"""What a record gives a message, and no format is asked to carry; and what is compared apart."""

_ADDED = (RepairKind.USER_ADDED, RepairKind.TOOLS_DECLARED)
"""The repairs that take nothing away."""


def door_losses(target: str, messages: Sequence[SessionMessage]) -> list[Loss]:
    """What a framework's format loses, message by message; those that lose nothing are left out.

    A message is converted there and back, and the two are compared. One that came in that format
    is given back exactly.

    Args:
        target: ``langchain``, ``llama_index`` or ``openai_agents``.
        messages: The messages.

    Raises:
        MissingDependencyError: If the framework is not installed.
    """
    through = _DOORS[target]
    losses = []
    for message in messages:
        if message.native and target in message.native:
            continue
        lost = _lost(message, through(message))
        if lost:
            losses.append(Loss(message.id, message.seq, tuple(lost)))
    return losses


def provider_losses(
    provider: IProviderSession, context: SessionContext, messages: Sequence[SessionMessage]
) -> list[Loss]:
    """What a provider is not sent as it is in the log: the repairs, message by message.

    What is only added to a request is no loss.
    """
    _, repairs = make_sendable(messages, provider.target(context, {}))
    places = {message.id: message.seq for message in messages}
    by_message: dict[str, list[str]] = {}
    for repair in repairs:
        if repair.kind in _ADDED:
            continue
        said = f"{repair.kind.value}: {repair.detail}" if repair.detail else repair.kind.value
        by_message.setdefault(repair.message_id or "", []).append(said)
    return [Loss(each, places.get(each), tuple(lost)) for each, lost in by_message.items()]


async def losses(session: BaseSession, target: str) -> list[Loss]:
    """See `BaseSession.fidelity`."""
    target = check_target(target)
    messages = await session.get_messages()
    if is_door(target):
        return door_losses(target, messages)
    providers = session.manager._providers
    found = partial(provider_losses, context=session.context, messages=messages)
    try:
        return found(providers.made(target) or _keyless(providers, target))
    except ProviderAuthenticationError:  # a known one that was made without a key
        return found(_keyless(providers, target))


def _keyless(providers: Providers, target: str) -> IProviderSession:
    if not ProviderSessionFactory.is_known(target):
        raise UnknownProviderError(
            f"there is no framework or provider {target!r}: what can be asked about is {TARGETS}",
            provider=target,
        )
    return providers.keyless(target)


def check_target(target: str) -> str:
    """A target's name; a framework may be written as its extra is (``llama-index``).

    Raises:
        InvalidInputError: If it is no name at all.
    """
    if not isinstance(target, str) or not target:
        raise InvalidInputError(f"a target is {TARGETS}, not {target!r}")
    door = target.replace("-", "_")
    return door if door in _DOORS else target


def is_door(target: str) -> bool:
    """Whether a target is a framework; others are providers' names."""
    return target in _DOORS


TARGETS = f"one of {', '.join(_DOORS)}, or a provider's name"
"""What can be asked about, in words."""


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
