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
    limit = max_messages
    while True:
        newest = await storage.get_messages(
            session_id, limit=limit, before=before, answered_only=True
        )
        if len(newest) < limit:
            return cut(newest, max_messages)
        others = sum(message.role is not MessageRole.SYSTEM for message in newest)
        if others >= max_messages:
            break
        limit += max_messages - others  # system messages take no room
    system = await storage.get_messages(
        session_id,
        before=newest[0].seq if newest else before,
        answered_only=True,
        system_only=True,
    )
    return cut([*system, *newest], max_messages)


def cut(messages: Sequence[SessionMessage], max_messages: int) -> list[SessionMessage]:
    """The newest messages, and all system messages.

    A tool's result is only in the window when its call is: results at the beginning, whose call
    was cut off, are left out as well.

    Args:
        messages: Oldest first.
        max_messages: How many to keep, system messages aside.
    """
    start = len(messages)
    room = max_messages
    while start and (room or messages[start - 1].role is MessageRole.SYSTEM):
        start -= 1
        room -= messages[start].role is not MessageRole.SYSTEM
    system = [message for message in messages[:start] if message.role is MessageRole.SYSTEM]
    while start < len(messages) and messages[start].role in (*_RESULTS, MessageRole.SYSTEM):
        if messages[start].role is MessageRole.SYSTEM:
            system.append(messages[start])
        start += 1
    return [*system, *messages[start:]]
