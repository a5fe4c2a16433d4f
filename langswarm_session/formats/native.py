"""Giving back what a framework kept of a message beside its neutral form."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from langswarm_session.models import SessionMessage

logger = logging.getLogger(__name__)

T = TypeVar("T")

MALFORMED = (AttributeError, LookupError, TypeError, ValueError, RecursionError)
"""What reading data that is not as its format says runs into."""


def restored(
    message: SessionMessage,
    name: str,
    restore: Callable[[Any], T],
    convert: Callable[[], T],
) -> T:
    """Return a message as a framework had it, or converted where nothing usable was kept.

    What was kept may come from an import or from a caller, and must not make a log unreadable.

    Args:
        message: The message.
        name: The format, the key in `SessionMessage.native`.
        restore: Makes the framework's message with what was kept.
        convert: Makes it from the neutral form alone.
    """
    kept = message.native.get(name) if message.native else None
    if kept is None:
        return convert()
    try:
        return restore(kept)
    except MALFORMED as error:
        logger.warning(
            "message %r: what %s kept of it cannot be restored (%s), so it is converted",
            message.id,
            name,
            type(error).__name__,
        )
        return convert()
