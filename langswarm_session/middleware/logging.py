"""Logs that messages pass, never what they say."""

from __future__ import annotations

import logging

from langswarm_session._sanitize import one_line
from langswarm_session.interfaces import ISession, ISessionMiddleware
from langswarm_session.models import SessionMessage


class LoggingMiddleware(ISessionMiddleware):
    """Logs each message's direction, role, id and size, at level DEBUG; never its content.

    Args:
        logger_name: The logger to use.
    """

    def __init__(self, logger_name: str = "session_middleware") -> None:
        self.logger = logging.getLogger(logger_name)

    async def process_outgoing_message(
        self, session: ISession, message: SessionMessage
    ) -> SessionMessage:
        """Log a message to the provider."""
        self._log("outgoing", session, message)
        return message

    async def process_incoming_message(
        self, session: ISession, message: SessionMessage
    ) -> SessionMessage:
        """Log a reply."""
        self._log("incoming", session, message)
        return message

    def _log(self, direction: str, session: ISession, message: SessionMessage) -> None:
        if self.logger.isEnabledFor(logging.DEBUG):
            self.logger.debug(
                "session %s: %s %s message %s, %d characters",
                one_line(session.session_id),
                direction,
                message.role.value,
                one_line(message.id),
                len(message.text),
            )
