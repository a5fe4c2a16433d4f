"""Keeps the leases of open turns from running out, and has somebody look after the turns."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import weakref
from concurrent.futures import Future
from contextvars import Context
from threading import Lock
from typing import TYPE_CHECKING

from langswarm_session._sync import bridge
from langswarm_session.turns.watch import LOOK_SECONDS

if TYPE_CHECKING:
    from langswarm_session.interfaces import ISessionStorage
    from langswarm_session.records import SessionRef
    from langswarm_session.turns.current import RunningTurn
    from langswarm_session.turns.watch import TurnWatch

logger = logging.getLogger(__name__)


class LeaseKeeper:
    """Renews the leases of this process's open turns, on the background loop, so that code which
    blocks the caller's loop does not lose them.

    Args:
        storage: Where the leases are.
        seconds: How long a lease holds.
        watch: Looks after the turns in between.
    """

    def __init__(
        self, storage: ISessionStorage, seconds: float, watch: TurnWatch | None = None
    ) -> None:
        self.seconds = seconds
        self._storage = storage
        self._watch = watch
        self._looking: asyncio.Task[None] | None = None
        self._due = 0.0
        # Weak, so that a turn that was dropped without an end is not kept alive by its lease.
        self._turns: weakref.WeakValueDictionary[str, RunningTurn] = weakref.WeakValueDictionary()
        self._beside: weakref.WeakSet[RunningTurn] = weakref.WeakSet()
        self._task: Future[None] | None = None
        self._pid = 0
        self._lock = Lock()

    def add(self, turn: RunningTurn) -> None:
        """Renew this turn's lease from now on."""
        with self._lock:
            self._turns[turn.token] = turn
            if self._task is None or self._task.done() or self._pid != os.getpid():
                self._pid = os.getpid()  # a forked child has no such task
                self._due = time.monotonic() + self.seconds / 3
                # In a context of its own, which keeps nothing of the caller's.
                pause = min(self.seconds / 3, LOOK_SECONDS)
                self._task = Context().run(bridge.start, _keep(weakref.ref(self), pause))

    def add_beside(self, turn: RunningTurn) -> None:
        """Know of a turn that has no lease yet, as another one of its session is open."""
        with self._lock:
            self._beside.add(turn)

    def turns(self) -> list[RunningTurn]:
        """Return the open turns of this process, those that have a lease first."""
        with self._lock:
            turns = dict.fromkeys([*self._turns.values(), *self._beside])
        return [turn for turn in turns if turn.is_ours]

    def turns_of(self, ref: SessionRef) -> list[RunningTurn]:
        """Return the open turns of a session in this process."""
        return [turn for turn in self.turns() if turn.ref == ref]

    def remove(self, token: str) -> None:
        """Renew it no more."""
        with self._lock:
            self._turns.pop(token, None)

    def close(self) -> None:
        """Renew nothing any more."""
        with self._lock:
            if self._task is not None:
                self._task.cancel()

    async def look(self) -> bool:
        """Look after the turns, and renew their leases if it is time to.

        Returns:
            Whether to go on; if not, the next turn that is added begins anew.
        """
        if time.monotonic() >= self._due:
            if not await self.renew():
                return False
            self._due = time.monotonic() + self.seconds / 3
        is_looking = self._looking is not None and not self._looking.done()
        if self._watch is not None and not is_looking and (turns := self.turns()):
            # A storage that takes long over it keeps no lease from being renewed.
            self._looking = asyncio.ensure_future(self._watch.look(turns))
        return True

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


async def _keep(reference: weakref.ref[LeaseKeeper], pause: float) -> None:
    """Let a keeper look after its turns for as long as it has any.

    Args:
        reference: The keeper. While this sleeps it does not keep it, and what it holds, alive.
        pause: How long to sleep between two looks, in seconds.
    """
    while True:
        await asyncio.sleep(pause)
        keeper = reference()
        if keeper is None or not await keeper.look():
            return
        del keeper
