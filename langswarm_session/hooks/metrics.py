"""Counts what happens to sessions."""

from __future__ import annotations

from collections import Counter

from langswarm_session.interfaces import ISession, ISessionLifecycleHook
from langswarm_session.models import SessionMessage

_COUNTS = ("created", "archived", "deleted", "messages_sent", "messages_received", "errors")


class MetricsHook(ISessionLifecycleHook):
    """Counts, in this process, what happens to the sessions it observes."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter(dict.fromkeys(_COUNTS, 0))

    def get_metrics(self) -> dict[str, int]:
        """The counts since this hook was made.

        Returns:
            ``created``, ``archived`` and ``deleted`` sessions, ``messages_sent`` and
            ``messages_received``, and the ``errors``: turns that failed or were cancelled.
        """
        return dict(self._counts)

    async def on_session_created(self, session: ISession) -> None:
        """Count it."""
        self._counts["created"] += 1

    async def on_message_sent(self, session: ISession, message: SessionMessage) -> None:
        """Count it."""
        self._counts["messages_sent"] += 1

    async def on_message_received(self, session: ISession, message: SessionMessage) -> None:
        """Count it."""
        self._counts["messages_received"] += 1

    async def on_session_archived(self, session: ISession) -> None:
        """Count it."""
        self._counts["archived"] += 1

    async def on_session_deleted(self, session: ISession) -> None:
        """Count it."""
        self._counts["deleted"] += 1

    async def on_error(self, session: ISession, error: BaseException) -> None:
        """Count it."""
        self._counts["errors"] += 1
