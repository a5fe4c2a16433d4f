"""Anthropic's managed agents: the agent runs there, in a session that it keeps.

The API takes what users, tools and the system say; it takes nothing that an assistant said, and
nothing can be removed from a session. So a session is gone on with while it is what the record is,
and made anew otherwise, with what was said before as a transcript.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from typing import Any

from langswarm_session.blocks import OtherBlock, TextBlock
from langswarm_session.errors import (
    ProviderCapabilityError,
    ProviderSessionError,
    ProviderStreamError,
    ProviderUnavailableError,
    SessionError,
)
from langswarm_session.formats.anthropic_events import (
    ENDED,
    Event,
    Run,
    from_events,
    to_events,
)
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.providers.sdk import Sdk, delay, plain
from langswarm_session.records import ProviderReply, ProviderRequest, StreamEvent
from langswarm_session.sendable import Repair, RepairKind
from langswarm_session.transcript import transcript

logger = logging.getLogger(__name__)

PAGE = 100


class Agents:
    """Replies by an agent.

    Args:
        sdk: The client.
        max_retries: How often to try again what may be tried again.
        agent: The agent's id, or what to make it from.
        environment: The environment's id, or what to make it from.
    """

    def __init__(
        self,
        sdk: Sdk,
        max_retries: int,
        agent: str | Mapping[str, Any],
        environment: str | Mapping[str, Any],
    ) -> None:
        self._sdk = sdk
        self._retries = max_retries
        self._wanted: dict[str, str | Mapping[str, Any]] = {
            "agents": agent,
            "environments": environment,
        }
        self._ids: dict[str, str] = {}

    async def send(self, request: ProviderRequest) -> ProviderReply:
        """The whole reply."""
        async with aclosing(self.stream(request)) as events:
            async for event in events:
                if isinstance(event, ProviderReply):
                    return event
        raise AssertionError("a stream ends with its reply")  # pragma: no cover

    async def stream(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """What the agent says, message by message. A reader who stops interrupts the agent."""
        if request.options:
            raise ProviderCapabilityError(
                f"managed agents take no {', '.join(request.options)}: the agent's own definition "
                "says what it is and which tools it has",
                provider=self._sdk.provider,
            )
        session, events = await self._place(request)
        run = Run()
        try:
            sent = await self._sent(session, events, request)
            run.last_event = sent["id"]
            async with aclosing(self._follow(session, sent)) as following:
                async for event in following:
                    for block in run.add(event):
                        if isinstance(block, TextBlock):
                            yield StreamEvent(text=block.text)
                        elif not isinstance(block, OtherBlock):
                            yield StreamEvent(block=block)
        except (asyncio.CancelledError, GeneratorExit):
            with suppress(SessionError):
                await asyncio.shield(self.interrupt(session))
            raise
        await self._check(session, run)
        state = {"last_event": run.last_event}
        yield ProviderReply([run.reply(request.context.model)], session, state)

    # One turn

    async def _place(self, request: ProviderRequest) -> tuple[str, list[Event]]:
        """The session to go on with, or a new one, and the events to send to it."""
        context = request.context
        session = context.provider_session_id
        if session is not None and not await self._stands(session, request):
            await self.delete(session)
            session = None
        if session is None:
            history, new = request.split()
            session = await self.create({"session_id": request.session_id})
            await request.save(session, {"last_event": None})
            new = [*(each for each in history if each.role is MessageRole.SYSTEM), *new]
        else:
            history, new = [], request.new_messages
        return session, to_events(self._with_transcript(history, new, request))

    async def _stands(self, session: str, request: ProviderRequest) -> bool:
        """Whether a session is as the record knows it."""
        if request.in_step:
            return True
        try:
            later = await self._events_after(session, request.context.provider_context["last_event"])
        except (KeyError, ProviderSessionError):
            return False
        return not any(event["type"].startswith("user.") for event in later)

    def _with_transcript(
        self,
        history: Sequence[SessionMessage],
        new: Sequence[SessionMessage],
        request: ProviderRequest,
    ) -> list[SessionMessage]:
        """What is to be sent, with what cannot be sent as it is put into words."""
        last_reply = max(
            (i for i, each in enumerate(new) if each.role is MessageRole.ASSISTANT), default=-1
        )
        told = [
            each
            for each in (*history, *new[: last_reply + 1])
            if each.role is not MessageRole.SYSTEM
        ]
        rest = [
            each
            for i, each in enumerate(new)
            if i > last_reply or each.role is MessageRole.SYSTEM
        ]
        if not told:
            return rest
        request.report(
            Repair(kind=RepairKind.HISTORY_AS_TEXT, detail=f"{len(told)} messages as a transcript")
        )
        text = f"(The conversation so far:)\n{transcript(told)}\n(It goes on with this:)"
        words = SessionMessage(role=MessageRole.USER, content=text)
        # Results of calls that are in the transcript only have nothing to answer there.
        return [words, *(each for each in rest if each.role is not MessageRole.TOOL)]

    async def _sent(
        self, session: str, events: Sequence[Event], request: ProviderRequest
    ) -> Event:
        """Send events; returns the last. Nothing is sent again that has arrived."""
        before = request.context.provider_context.get("last_event")
        retries = self._retries if request.retries is None else request.retries
        for attempt in range(retries + 1):
            try:
                with self._sdk.errors():
                    client = self._sdk.client.with_options(max_retries=0)
                    answer = await client.beta.sessions.events.send(session, events=events)
                data = plain(self._sdk, answer).get("data")
                if not data:
                    raise self._sdk.no_answer("no events")
                return dict(data[-1])
            except ProviderSessionError as error:
                if not error.retriable:
                    raise
                arrived = [
                    event
                    for event in await self._events_after(session, before)
                    if event["type"] == events[-1]["type"]
                ]
                if arrived:
                    return arrived[-1]
                if attempt == retries:
                    raise
                await asyncio.sleep(delay(attempt, error))
        raise AssertionError("the last attempt returns or raises")  # pragma: no cover

    async def _follow(self, session: str, sent: Event) -> AsyncGenerator[Event, None]:
        """The events behind the one that was sent, until the agent is idle, each once."""
        seen: set[str] = {sent["id"]}
        since = _at(sent)
        for attempt in range(self._retries + 2):
            try:
                with self._sdk.errors(streaming=True):
                    stream = await self._sdk.client.beta.sessions.events.stream(session)
                try:
                    # What happened before the stream was opened is not in it.
                    for event in await self._events_after(session, sent["id"]):
                        if _is_new(event, seen):
                            yield event
                            if _is_end(event):
                                return
                    with self._sdk.errors(streaming=True):
                        async for each in stream:
                            event = plain(self._sdk, each)
                            # A stream may play old events again.
                            if _at(event) > since and _is_new(event, seen):
                                yield event
                                if _is_end(event):
                                    return
                finally:
                    await stream.close()
            except ProviderSessionError as error:
                if not error.retriable or attempt > self._retries:
                    raise
                await asyncio.sleep(delay(attempt, error))
        raise ProviderStreamError(
            "the agent's events ended before it was idle; read them with reconcile()",
            provider=self._sdk.provider,
        )

    async def _check(self, session: str, run: Run) -> None:
        """Raises what an agent's end has in place of a reply."""
        said = str((run.error or {}).get("message") or run.stop)
        calls = {block.id for block in run.blocks if block.type == "tool_call"}
        if run.stop == "requires_action" and not set(run.waits_for) <= calls:
            await self.interrupt(session)
            raise ProviderCapabilityError(
                "the agent waits for a tool to be confirmed, which is not done here: give the "
                "tool the permission policy always_allow",
                provider=self._sdk.provider,
            )
        if run.stop == "retries_exhausted":
            raise ProviderUnavailableError(
                f"the agent's model failed: {said}", provider=self._sdk.provider
            )
        if run.stop.startswith("session."):
            raise ProviderSessionError(
                f"the agent's session has ended: {said}", provider=self._sdk.provider
            )
        if not run.blocks and run.stop != "refusal":
            raise ProviderSessionError(
                f"the agent said nothing: {said}", provider=self._sdk.provider
            )

    # Sessions

    async def create(self, metadata: dict[str, str], **options: Any) -> str:
        """A session; returns its id."""
        agent = await self._id("agents")
        environment = await self._id("environments")
        with self._sdk.errors():
            made = await self._sdk.client.beta.sessions.create(
                agent=agent, environment_id=environment, metadata=metadata, **options
            )
        return str(plain(self._sdk, made)["id"])

    async def _id(self, kind: str) -> str:
        """The id of the agent or environment; one of that name is used again, or else made."""
        wanted = self._wanted[kind]
        if isinstance(wanted, str):
            return wanted
        if kind not in self._ids:
            resource = getattr(self._sdk.client.beta, kind)
            with self._sdk.errors(str(wanted.get("model", ""))):
                async for each in resource.list():
                    known = plain(self._sdk, each)
                    if known.get("name") == wanted.get("name") and not known.get("archived_at"):
                        self._ids[kind] = str(known["id"])
                        break
                else:
                    made = await resource.create(**wanted)
                    self._ids[kind] = str(plain(self._sdk, made)["id"])
        return self._ids[kind]

    async def retrieve(self, session: str) -> dict[str, Any]:
        """What Anthropic says of a session."""
        with self._sdk.errors():
            return plain(self._sdk, await self._sdk.client.beta.sessions.retrieve(session))

    async def list(self, limit: int) -> list[dict[str, Any]]:
        """The newest sessions of the agent."""
        found: list[dict[str, Any]] = []
        agent = await self._id("agents")
        with self._sdk.errors():
            async for each in self._sdk.client.beta.sessions.list(agent_id=agent, order="desc"):
                if len(found) == limit:
                    break
                found.append(plain(self._sdk, each))
        return found

    async def archive(self, session: str) -> None:
        """Archive a session."""
        with self._sdk.errors():
            await self._sdk.client.beta.sessions.archive(session)

    async def interrupt(self, session: str) -> None:
        """Stop what the agent does."""
        with self._sdk.errors():
            await self._sdk.client.beta.sessions.events.send(
                session, events=[{"type": "user.interrupt"}]
            )

    async def delete(self, session: str) -> None:
        """Remove a session; one that runs is interrupted first, one that is gone is fine."""
        for attempt in range(self._retries + 1):
            try:
                with self._sdk.errors():
                    await self._sdk.client.beta.sessions.delete(session)
            except ProviderSessionError as error:
                status = getattr(error.__cause__, "status_code", None)
                if status == 404:
                    return
                if status != 400 or attempt == self._retries:
                    raise
                await self.interrupt(session)
                await asyncio.sleep(delay(attempt, error))
            else:
                return

    async def messages(self, session: str, limit: int | None) -> list[SessionMessage]:
        """The newest messages of a session, oldest first."""
        messages = from_events(await self._events_after(session, None))
        return messages if limit is None else messages[max(0, len(messages) - limit) :]

    async def _events_after(self, session: str, last: str | None) -> list[Event]:
        """The events behind one, or all, oldest first: read from the newest back."""
        found: list[Event] = []
        with self._sdk.errors():
            pages = self._sdk.client.beta.sessions.events.list(session, order="desc", limit=PAGE)
            async for each in pages:
                event = plain(self._sdk, each)
                if last is not None and event.get("id") == last:
                    break
                found.append(event)
        return found[::-1]


def _is_new(event: Event, seen: set[str]) -> bool:
    event_id = event.get("id")
    if event_id is None or event_id in seen:
        return False
    seen.add(event_id)
    return True


def _is_end(event: Event) -> bool:
    return event["type"] in ENDED


def _at(event: Event) -> datetime:
    """When an event was processed; the beginning of time for one that was not yet."""
    at = event.get("processed_at")
    return datetime.min.replace(tzinfo=UTC) if at is None else datetime.fromisoformat(at)
