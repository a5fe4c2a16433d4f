"""Anthropic's managed agents: the agent runs there, in a session that it keeps.

The API takes what users, tools and the system say; it takes nothing that an assistant said, and
nothing can be removed from a session. So a session is continued while it matches the record,
and recreated otherwise, with what was said before as a transcript.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any

from langswarm_session._sanitize import one_line
from langswarm_session.blocks import OtherBlock, TextBlock
from langswarm_session.errors import (
    ProviderCapabilityError,
    ProviderRequestError,
    ProviderSessionError,
    ProviderStreamError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SessionError,
)
from langswarm_session.formats.anthropic_events import (
    ENDED,
    Event,
    Run,
    in_words,
    is_answer,
    parted,
    to_events,
)
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.providers.anthropic.agent_sessions import AgentSessions
from langswarm_session.providers.sdk import RetryPolicy
from langswarm_session.records import ProviderReply, ProviderRequest, StreamEvent
from langswarm_session.requests.normalize import Repair, RepairKind
from langswarm_session.requests.provider_state import LEFT_BEHIND

logger = logging.getLogger(__name__)

_USER = MessageRole.USER


class Agents:
    """Replies by an agent.

    Args:
        sessions: The sessions of the agent.
        max_retries: How often to try again what may be tried again.
    """

    def __init__(self, sessions: AgentSessions, max_retries: int) -> None:
        self.sessions = sessions
        self._retries = max_retries

    async def send(self, request: ProviderRequest) -> ProviderReply:
        """Return the whole reply."""
        async with aclosing(self.stream(request)) as events:
            async for event in events:
                if isinstance(event, ProviderReply):
                    return event
        raise AssertionError("a stream ends with its reply")  # pragma: no cover

    async def stream(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """Yield what the agent says. A reader that stops interrupts the agent."""
        if request.options:
            raise ProviderCapabilityError(
                f"managed agents take no {', '.join(request.options)}: the agent's own definition "
                "says what it is and which tools it has",
                provider=self.sessions.sdk.provider,
            )
        turn = _Turn(self.sessions, self._retries, request)
        async with aclosing(turn.events()) as events:
            async for event in events:
                for block in turn.run.add(event):
                    if isinstance(block, TextBlock):
                        yield StreamEvent(text=block.text)
                    elif not isinstance(block, OtherBlock):
                        yield StreamEvent(block=block)
        await turn.check()
        yield turn.reply()


class _Turn:
    """One turn of an agent.

    Attributes:
        session: The session that it runs in, once there is one.
        run: What the agent did.
    """

    def __init__(self, sessions: AgentSessions, retries: int, request: ProviderRequest) -> None:
        self.session = ""
        self.run = Run()
        self._sessions = sessions
        self._retries = retries
        self._request = request
        self._left_behind: list[str] = []
        self._last: str | None = None
        self._since = datetime.min.replace(tzinfo=UTC)

    async def events(self) -> AsyncGenerator[Event, None]:
        """Send what is new, then tell what the agent does until it is idle."""
        try:
            sent = await self._begun()
            self.run.last = sent
            async with aclosing(self._follow(sent)) as events:
                async for event in events:
                    yield event
        except (asyncio.CancelledError, GeneratorExit):
            if self.session:
                await asyncio.shield(self._stop())
            raise

    async def _stop(self) -> None:
        with suppress(SessionError):
            await self._sessions.interrupt(self.session)

    def reply(self) -> ProviderReply:
        """Return the reply, with where the session stands."""
        last = self.run.last
        state = self._known(last_event=last.get("id"), at=last.get("processed_at"))
        message = self.run.reply(self._request.context.model)
        return ProviderReply([message], self.session, state)

    # What is sent, and where

    async def _begun(self) -> Event:
        """Send what is new to the session that stands as the record does, or to a new one."""
        request = self._request
        known = request.context.provider_session_id
        self._left_behind = list(request.context.provider_context.get(LEFT_BEHIND, ()))
        if known is not None and not await self._stands(known):
            self._left_behind.append(known)
            known = None
        if known is None:
            return await self._anew()
        self.session = known
        state = request.context.provider_context
        self._last, self._since = state.get("last_event"), _moment(state.get("at"))
        request.window = _answers_first(request)
        events = self._worded([], request.new_messages, request.context.provider_calls)
        try:
            return await self._sent(events)
        except ProviderRequestError:
            if not await self._sessions.let_go(known, self._left_behind):
                raise
        return await self._anew()

    async def _anew(self) -> Event:
        """Send everything to a new session."""
        request = self._request
        history, new = request.split()
        said = [each for each in history if each.role is MessageRole.SYSTEM]
        self._last, self._since = None, _moment(None)
        self.session = ""
        self.session = await self._sessions.create({"session_id": request.session_id})
        await request.save(self.session, self._known(last_event=None))
        await self._remove_left_behind()
        if history:
            logger.info("session %r: the agent's session is recreated", request.session_id)
        return await self._sent(self._worded(history, [*said, *new], ()))

    def _known(self, **values: Any) -> dict[str, Any]:
        """Return what to remember of the session, with those that could not be removed."""
        return values | ({LEFT_BEHIND: self._left_behind} if self._left_behind else {})

    async def _remove_left_behind(self) -> None:
        """Remove earlier sessions. A turn does not fail for one that cannot be removed."""
        left = []
        for session in self._left_behind:
            try:
                await self._sessions.delete(session)
            except SessionError as error:
                left.append(session)
                logger.warning("session %r: the agent's session %s is left behind: %s",
                               self._request.session_id, session, one_line(error))  # fmt: skip
        self._left_behind = left

    async def _stands(self, session: str) -> bool:
        """Return whether a session is as the record knows it."""
        request = self._request
        if request.in_step:
            return True
        state = request.context.provider_context
        if state.get("in_doubt"):
            return False
        try:
            later = await self._sessions.events_after(session, state.get("last_event"))
        except ProviderRequestError:
            return False
        return not any(event["type"].startswith("user.") for event in later)

    def _worded(
        self,
        history: Sequence[SessionMessage],
        new: Sequence[SessionMessage],
        open_calls: Collection[str],
    ) -> list[Event]:
        """Return the events to send, with what cannot be sent as it is put into words."""
        told, rest = parted(history, new, open_calls)
        if told:
            detail = f"{len(told)} messages as a transcript"
            self._request.report(Repair(kind=RepairKind.HISTORY_AS_TEXT, detail=detail))
            rest = [in_words(told, goes_on=any(each.role is _USER for each in rest)), *rest]
        return to_events(rest)

    async def _sent(self, events: Sequence[Event]) -> Event:
        """Send events; returns the last. Nothing is sent again that has arrived."""
        retries = self._request.retries
        patience = RetryPolicy(self._retries if retries is None else retries)
        while True:
            try:
                return await self._sessions.send(self.session, events)
            except asyncio.CancelledError:
                await asyncio.shield(self._doubt())
                raise
            except ProviderSessionError as error:
                if not error.retriable:
                    raise
                arrived = await self._arrived(str(events[-1]["type"]))
                if arrived is not None:
                    return arrived
                if isinstance(error, ProviderTimeoutError):  # it may yet arrive
                    await self._doubt()
                    raise
                if not await patience.waits(error):
                    raise

    async def _arrived(self, kind: str) -> Event | None:
        """Return the newest event of a kind, if one came since this turn began."""
        try:
            later = await self._sessions.events_after(self.session, self._last)
        except ProviderSessionError:
            await self._doubt()
            raise
        arrived = [event for event in later if event["type"] == kind]
        return arrived[-1] if arrived else None

    async def _doubt(self) -> None:
        """Note that the session may have more than is known, so that it is not continued."""
        await self._request.save(self.session, self._known(last_event=self._last, in_doubt=True))

    # What comes back

    async def _follow(self, sent: Event) -> AsyncGenerator[Event, None]:
        """Return the events behind the one that was sent, until the agent is idle, each once."""
        seen = {sent["id"]}
        since = max(self._since, _moment(sent.get("processed_at")))
        patience = RetryPolicy(self._retries + 1)
        while True:
            error: ProviderSessionError = ProviderStreamError(
                "the agent's events ended before it was idle; read them with reconcile()",
                provider=self._sessions.sdk.provider,
            )
            try:
                async with aclosing(self._events(sent, seen)) as events:
                    async for event, is_new in events:
                        if event["id"] in seen or not (is_new or _moment_of(event) > since):
                            continue
                        seen.add(event["id"])
                        patience = RetryPolicy(self._retries + 1)
                        yield event
                        if event["type"] in ENDED:
                            return
            except ProviderSessionError as failure:
                error = failure
            if not await patience.waits(error):
                raise error

    async def _events(
        self, sent: Event, seen: set[str]
    ) -> AsyncGenerator[tuple[Event, bool], None]:
        """Events, and whether they are known to be new: a stream may play old ones again.

        Args:
            sent: The event that was sent last.
            seen: The ids of the events that are known; those of earlier turns are added.
        """
        async with aclosing(self._sessions.events(self.session)) as events:
            async for event in events:
                if not event:
                    # What happened before the stream was opened need not be in it.
                    for earlier in await self._behind(sent, seen):
                        yield earlier, True
                elif event.get("id"):
                    yield event, False

    async def _behind(self, sent: Event, seen: set[str]) -> Sequence[Event]:
        """Return the events behind the one that was sent.

        Where that has no time, as a server may leave it out, the ones before it cannot be told by
        their times when they are played again: a session's first may be an idle state of its
        creation. So they are read.
        """
        if sent.get("processed_at") is not None:
            return await self._sessions.events_after(self.session, sent["id"])
        events = await self._sessions.events_after(self.session, None)
        ids = [event.get("id") for event in events]
        place = ids.index(sent["id"]) + 1 if sent["id"] in ids else len(ids)
        seen.update(each for each in ids[:place] if each)
        return events[place:]

    async def check(self) -> None:
        """Raise what an agent's end has in place of a reply."""
        run, provider = self.run, self._sessions.sdk.provider
        said = str((run.error or {}).get("message") or run.stop)
        calls = {block.id for block in run.blocks if block.type == "tool_call"}
        if run.stop == "requires_action" and not set(run.waits_for) <= calls:
            await self._stop()
            raise ProviderCapabilityError(
                "the agent waits for a tool to be confirmed, which is not done here: give the "
                "tool the permission policy always_allow",
                provider=provider,
            )
        if run.stop == "retries_exhausted":
            raise ProviderUnavailableError(f"the agent's model failed: {said}", provider=provider)
        if run.stop.startswith("session."):
            raise ProviderSessionError(f"the agent's session has ended: {said}", provider=provider)
        if not run.blocks and run.stop != "refusal":
            raise ProviderSessionError(f"the agent said nothing: {said}", provider=provider)


def _answers_first(request: ProviderRequest) -> list[SessionMessage]:
    """Return the window with the results that the session waits for before all else that is new.

    The session has not seen what was said meanwhile, so its calls are still open.
    """
    waiting, at = request.context.provider_calls, len(request.window) - request.new_count
    new = request.window[at:]
    answers = [message for message in new if is_answer(message, waiting)]
    others = [message for message in new if message not in answers]
    return [*request.window[:at], *answers, *others]


def _moment(text: str | None) -> datetime:
    """Return a point in time as events have it; the beginning of time for none."""
    return datetime.min.replace(tzinfo=UTC) if text is None else datetime.fromisoformat(text)


def _moment_of(event: Event) -> datetime:
    """When an event was processed; one that was not yet is newer than all that were."""
    at = event.get("processed_at")
    return datetime.max.replace(tzinfo=UTC) if at is None else _moment(at)
