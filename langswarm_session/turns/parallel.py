"""A turn beside another that is open: a second answer to the same message, from this process.

A session has one lease, and one turn at a time is written. So the messages of this one wait in
memory: they are stored in one go, as a turn of their own, once the other one has ended. Those of a
process that is killed before that are lost; the other turn is not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from langswarm_session.models import SessionMessage, TurnStatus, new_id
from langswarm_session.records import Appended, TurnEnd
from langswarm_session.storage import rules
from langswarm_session.turns.answerers import Asked, marked
from langswarm_session.turns.attempts import begin_late
from langswarm_session.turns.current import open_turns
from langswarm_session.turns.inputs import as_messages
from langswarm_session.turns.turn import OpenTurn

if TYPE_CHECKING:
    from langswarm_session.turns.core import SessionCore

logger = logging.getLogger(__name__)


class TurnBeside(OpenTurn):
    """A turn that answers a message whose own turn is still open.

    Its end waits until that one has ended. Within that one, as the tool or the subgraph of who
    answers there, it does not wait: then the end of that one stores it.

    Args:
        core: The session.
        lead: The turn that is open.
        messages: What is answered, which that turn has.
        asked: Who answers.

    Raises:
        MessageConflictError: If that turn has other messages with their ids.
    """

    def __init__(
        self,
        core: SessionCore,
        lead: OpenTurn,
        messages: Sequence[SessionMessage],
        asked: Asked,
    ) -> None:
        super().__init__(core, new_id(), keyed=True, answerer=asked.answerer)
        known = {message.id: message for message in lead.messages}
        rules.new_messages(self.session_id, messages, known)
        self.holds_queue = False
        self._lead = lead
        self._key = asked.key
        self._asked = [known[message.id] for message in messages]
        self._waiting: list[SessionMessage] = []
        self._is_late = False
        self.messages = list(self._asked)
        self.asked_seq = min(message.seq or 0 for message in self._asked)
        self._open = True
        core.locks.keeper.add_beside(self)
        self.enter()
        lead.after_end.append(self._stop_with_lead)

    def __del__(self) -> None:
        if self.is_ours:
            logger.warning("session %r: a turn was dropped before its end", self.session_id)

    async def add(self, messages: Sequence[SessionMessage]) -> list[SessionMessage]:
        """Keep more of the turn, after the middleware, until it can be stored."""
        self.check()
        messages = as_messages(messages, self.session_id)
        processed = await self._core.process(messages)
        added = marked(processed, self.answerer)
        self._waiting += added
        self.messages = [*self.messages, *added]
        return added

    async def _end(self, end: TurnEnd, messages: Sequence[SessionMessage]) -> Appended:
        if self._lead.is_open and self._lead in open_turns():
            self._lead.late.append(lambda: self._end_late(end, messages))
            self._is_late = True
            self._close()
            return Appended(self._core.record, list(messages))
        appended = await self._store(end, messages)
        own = {message.id for message in messages}
        steps = [message for message in appended.new_messages if message.id not in own]
        await self._core.stored(steps)
        rest = [message for message in appended.messages if message.id in own]
        return Appended(appended.record, rest, max(0, appended.added - len(steps)))

    async def _stop_with_lead(self) -> None:
        """End this turn if the other one was ended from outside: that was meant for both."""
        stop = self._lead.stopped_by
        if stop is not None:
            await self.stop(stop)

    async def _end_late(self, end: TurnEnd, messages: Sequence[SessionMessage]) -> None:
        """Store the turn as the one around it has ended."""
        appended = await self._store(end, messages)
        await self._core.stored(appended.new_messages)

    async def _store(self, end: TurnEnd, messages: Sequence[SessionMessage]) -> Appended:
        """Begin the turn in the storage, and end it with all there is."""
        # What the other turn gave as its own answer is stored there.
        known = {message.id for message in self._lead.messages}
        own = [message for message in (*self._waiting, *messages) if message.id not in known]
        if not own and end.status is TurnStatus.COMPLETE:
            self._close()
            return Appended(self._core.record, list(messages))
        if not self.id:
            try:
                has_begun = await begin_late(
                    self._core, self, self._asked, self._key, has_queue=self._is_late
                )
            except BaseException:
                self._close()
                raise
            if not has_begun:  # another process was quicker
                self._close()
                return Appended(self._core.record, own)
        self.messages = list(self._asked)
        appended = await super()._end(end, own)
        self._waiting.clear()
        return appended
