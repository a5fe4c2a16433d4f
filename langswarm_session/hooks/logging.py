"""Logs what happens to sessions."""

from __future__ import annotations

import logging

from langswarm_session._sanitize import one_line
from langswarm_session.interfaces import ISession, ISessionLifecycleHook
from langswarm_session.models import SessionMessage


class LoggingHook(ISessionLifecycleHook):
    """Logs what happens to sessions; never what a message says.

    Sessions are logged at level INFO, messages at DEBUG, turns that end early at WARNING.

    Args:
        logger_name: The logger to use.
    """

    def __init__(self, logger_name: str = "session_hook") -> None:
        self.logger = logging.getLogger(logger_name)

    async def on_session_created(self, session: ISession) -> None:
        """Log it."""
        self.logger.info("session %s: created", one_line(session.session_id))

    async def on_message_sent(self, session: ISession, message: SessionMessage) -> None:
        """Log it."""
        self.logger.debug(
            "session %s: sent message %s (%s)",
            one_line(session.session_id),
            one_line(message.id),
            message.role.value,
        )

    async def on_message_received(self, session: ISession, message: SessionMessage) -> None:
        """Log it."""
        self.logger.debug(
            "session %s: received message %s", one_line(session.session_id), one_line(message.id)
        )

    async def on_session_archived(self, session: ISession) -> None:
        """Log it."""
        self.logger.info("session %s: archived", one_line(session.session_id))

    async def on_session_deleted(self, session: ISession) -> None:
        """Log it."""
        self.logger.info("session %s: deleted", one_line(session.session_id))

    async def on_error(self, session: ISession, error: BaseException) -> None:
        """Log the kind of error; its text may quote a message."""
        self.logger.warning("session %s: %s", one_line(session.session_id), type(error).__name__)
