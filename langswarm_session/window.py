"""What of the record is sent: the newest messages, whole tool exchanges, every system message."""

from __future__ import annotations

from collections.abc import Sequence

from langswarm_session.interfaces import ISessionStorage
from langswarm_session.models import MessageRole, SessionMessage

_RESULTS = (MessageRole.TOOL, MessageRole.FUNCTION)


async def load(
    storage: ISessionStorage, session_id: str, *, before: int, max_messages: int
) -> list[SessionMessage]:
    """The window as it stood before a turn; reads no more than it holds.

    Args:
        before: The first sequence number of the turn.
        max_messages: How many messages to take, system messages aside.

    Raises:
        SessionNotFoundError: If there is no such session.
        SessionStorageError: If the storage fails.
    """
    newest = await storage.get_messages(
        session_id, limit=max_messages, before=before, answered_only=True
    )
    if len(newest) < max_messages:
        return newest
    first = newest[0].seq or 0
    system = await storage.get_messages(
        session_id, before=first, answered_only=True, system_only=True
    )
    return cut([*system, *newest], max_messages)


def cut(messages: Sequence[SessionMessage], max_messages: int) -> list[SessionMessage]:
    """The newest messages, and all system messages.

    A tool's result is only in the window when its call is: results at the very beginning, whose
    call was cut off, are left out.

    Args:
        messages: Oldest first.
        max_messages: How many to keep, system messages aside.
    """
    others = [message for message in messages if message.role is not MessageRole.SYSTEM]
    kept = others[max(0, len(others) - max_messages) :]
    first = next((i for i, message in enumerate(kept) if message.role not in _RESULTS), len(kept))
    keep = {id(message) for message in kept[first:]}
    return [
        message for message in messages if message.role is MessageRole.SYSTEM or id(message) in keep
    ]
