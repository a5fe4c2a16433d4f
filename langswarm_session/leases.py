"""Keeps the leases of open turns from running out."""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from concurrent.futures import Future
from contextvars import Context
from threading import Lock
from typing import TYPE_CHECKING

from langswarm_session import blocking

if TYPE_CHECKING:
    from langswarm_session.interfaces import ISessionStorage
    from langswarm_session.turns import OpenTurn

logger = logging.getLogger(__name__)


class LeaseKeeper:
    """Renews the leases of this process's open turns, on the background loop, so that code which
    blocks the caller's loop does not lose them.

    Args:
        storage: Where the leases are.
        seconds: How long a lease holds.
    """

    def __init__(self, storage: ISessionStorage, seconds: float) -> None:
        self.seconds = seconds
        self._storage = storage
        # Weak, so that a turn that was dropped without an end is not kept alive by its lease.
        self._turns: weakref.WeakValueDictionary[str, OpenTurn] = weakref.WeakValueDictionary()
        self._task: Future[None] | None = None
        self._pid = 0
        self._lock = Lock()

    def add(self, turn: OpenTurn) -> None:
        """Renew this turn's lease from now on."""
        with self._lock:
            self._turns[turn.token] = turn
            if self._task is None or self._task.done() or self._pid != os.getpid():
                self._pid = os.getpid()  # a forked child has no such task
                # In a context of its own, which keeps nothing of the caller's.
                self._task = Context().run(
                    blocking.start, _renew(weakref.ref(self), self.seconds / 3)
                )

    def remove(self, token: str) -> None:
        """Renew it no more."""
        with self._lock:
            self._turns.pop(token, None)

    def close(self) -> None:
        """Renew nothing any more."""
        with self._lock:
            if self._task is not None:
                self._task.cancel()

    async def renew(self) -> bool:
        """Renew them all, once.

        Returns:
            Whether there are any; if not, the next turn that is added begins anew.
        """
        with self._lock:
            tokens = {token: turn.ref for token, turn in self._turns.items()}
            if not tokens:
                self._task = None
                return False
        try:
            held = await self._storage.renew_turns(tokens, self.seconds)
        except Exception:  # whatever a storage raises, the leases are worth another try
            logger.warning("leases could not be renewed; trying again", exc_info=True)
            return True
        for token in tokens.keys() - held:
            self.remove(token)
        return True


async def _renew(reference: weakref.ref[LeaseKeeper], pause: float) -> None:
    """Renew a keeper's leases for as long as it has any.

    Args:
        reference: The keeper. While this sleeps it does not keep it, and what it holds, alive.
        pause: How long to sleep between two renewals, in seconds.
    """
    while True:
        await asyncio.sleep(pause)
        keeper = reference()
        if keeper is None or not await keeper.renew():
            return
        del keeper
