"""The ends of turns that those who had them did not store."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from langswarm_session.errors import (
    SessionBusyError,
    SessionError,
    SessionNotFoundError,
    TurnLostError,
)
from langswarm_session.models import SessionMessage, TurnStatus
from langswarm_session.records import SessionRecord, SessionRef, TurnEnd
from langswarm_session.storage import owner
from langswarm_session.storage.rules import LOST_OWNER

if TYPE_CHECKING:
    from langswarm_session.interfaces import ISessionStorage

logger = logging.getLogger(__name__)


class LateEnds:
    """Ends turns in the storage for those who could not, or are dead.

    Args:
        storage: Where the sessions live.
    """

    def __init__(self, storage: ISessionStorage) -> None:
        self._storage = storage
        self._overdue: dict[SessionRef, TurnEnd] = {}

    def postpone(self, ref: SessionRef, end: TurnEnd) -> None:
        """Leave the end of a turn, which could not be stored, to the next turn of its session.

        Until then its lease holds, and other processes wait until that has run out.
        """
        self._overdue[ref] = end

    async def store(
        self, ref: SessionRef, end: TurnEnd, messages: Sequence[SessionMessage] = ()
    ) -> None:
        """End a turn that may have been ended, or may never have begun.

        Args:
            ref: The session.
            end: How it ends.
            messages: The part of the reply that was shown; left out if it cannot be stored.
        """
        try:
            await self._storage.end_turn(ref, end, messages)
        except (TurnLostError, SessionNotFoundError):
            logger.debug("session %r: there was no such turn to end", ref.session_id)
        except SessionError:
            if not messages:
                self.postpone(ref, end)
                raise
            logger.warning("session %r: the partial reply was lost", ref.session_id,
                           exc_info=True)  # fmt: skip
            await self.store(ref, end)
        except BaseException:
            self.postpone(ref, end)
            raise

    async def end_holder(self, ref: SessionRef, busy: SessionBusyError) -> bool:
        """End the turn that holds a session, if nobody continues it.

        Args:
            ref: The session.
            busy: The error that names the turn and its process.

        Returns:
            Whether it was ended.
        """
        end = await self._end_of(ref, busy)
        if end is not None:
            await self.store(ref, end)
        return end is not None

    async def end_expired(self, record: SessionRecord) -> bool:
        """End the turn of a session if nobody continues it, or its lease has run out.

        Args:
            record: The session as it is now, with a lease.

        Returns:
            Whether it was ended.
        """
        token, expires = record.turn_token, record.turn_expires
        busy = SessionBusyError("", holder=token, owner=record.turn_owner)
        end = await self._end_of(record.ref, busy)
        if end is None and token is not None and (expires or 0) <= time.time_ns() // 1000:
            end = TurnEnd(token, TurnStatus.FAILED, error=LOST_OWNER)
        if end is not None:
            await self.store(record.ref, end)
        return end is not None

    async def _end_of(self, ref: SessionRef, busy: SessionBusyError) -> TurnEnd | None:
        """Return how to end the turn that holds a session; None if it is still running."""
        overdue = self._overdue.pop(ref, None)
        if overdue is not None and overdue.token == busy.holder:
            return overdue
        if busy.holder is not None and await owner.has_ended(busy.owner):
            return TurnEnd(busy.holder, TurnStatus.FAILED, error=LOST_OWNER)
        return None
