"""Sessions of Anthropic's managed agents: made, found, read, written to, stopped and removed."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncGenerator, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from weakref import WeakKeyDictionary

from langswarm_session.errors import ProviderSessionError
from langswarm_session.formats.anthropic_events import Event, from_events
from langswarm_session.models import SessionMessage, new_id
from langswarm_session.providers.sdk import RetryPolicy, Sdk, delay, opened, plain

PAGE = 100

LOOKED_AT = 20
"""How many of the newest sessions are searched for one that was made and not answered for."""

STOPPING = 6
"""How often a session that runs is told to stop before it is given up to remove it."""


class AgentSessions:
    """The API of sessions, for one agent and one environment.

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
        self.sdk = sdk
        self._retries = max_retries
        self._wanted = {"agents": agent, "environments": environment}
        self._ids: dict[str, str] = {}
        self._making: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            WeakKeyDictionary()
        )

    @property
    def _api(self) -> Any:
        return self.sdk.client.beta.sessions

    @property
    def _beta_once(self) -> Any:
        """The API without retries by the SDK, for what would be done twice by them."""
        return self.sdk.client.with_options(max_retries=0).beta

    # Sessions

    async def create(self, metadata: Mapping[str, str], **options: Any) -> str:
        """Create a session and return its id."""
        agent, environment = await self._id("agents"), await self._id("environments")
        marked = {**metadata, "request_id": new_id()}
        patience = RetryPolicy(self._retries)
        while True:
            try:
                with self.sdk.errors():
                    made = await self._beta_once.sessions.create(
                        agent=agent, environment_id=environment, metadata=marked, **options
                    )
                return _id_of(self.sdk, made)
            except ProviderSessionError as error:
                if not error.retriable:
                    raise
                for known in await self.list(LOOKED_AT):
                    if known.get("metadata") == marked:
                        return str(known["id"])
                if not await patience.waits(error):
                    raise

    async def retrieve(self, session: str) -> dict[str, Any]:
        """Return what Anthropic says of a session."""
        with self.sdk.errors():
            return plain(self.sdk, await self._api.retrieve(session))

    async def let_go(self, session: str, to_remove: builtins.list[str]) -> bool:
        """Return whether a session takes nothing more: it is gone, archived or ended.

        An archived session is left in place: somebody archived it on purpose.

        Args:
            session: The session.
            to_remove: One that has ended is added to these.
        """
        try:
            known = await self.retrieve(session)
        except ProviderSessionError as error:
            if getattr(error.__cause__, "status_code", None) == HTTPStatus.NOT_FOUND:
                return True
            raise
        if known.get("archived_at"):
            return True
        if known.get("status") != "terminated":
            return False
        to_remove.append(session)
        return True

    async def list(self, limit: int) -> builtins.list[dict[str, Any]]:
        """Return the newest sessions of the agent."""
        found: builtins.list[dict[str, Any]] = []
        agent = await self._id("agents")
        with self.sdk.errors():
            async for each in self._api.list(agent_id=agent, order="desc"):
                if len(found) == limit:
                    break
                found.append(plain(self.sdk, each))
        return found

    async def archive(self, session: str) -> None:
        """Archive a session."""
        with self.sdk.errors():
            await self._api.archive(session)

    async def interrupt(self, session: str) -> None:
        """Stop what the agent does."""
        with self.sdk.errors():
            await self._api.events.send(session, events=[{"type": "user.interrupt"}])

    async def delete(self, session: str) -> None:
        """Remove a session; one that runs is interrupted first, one that is gone is fine."""
        for attempt in range(STOPPING):
            try:
                with self.sdk.errors():
                    await self._api.delete(session)
            except ProviderSessionError as error:
                status = getattr(error.__cause__, "status_code", None)
                if status == HTTPStatus.NOT_FOUND:
                    return
                if status != HTTPStatus.BAD_REQUEST or attempt == STOPPING - 1:
                    raise
                await self.interrupt(session)
                if attempt:
                    await asyncio.sleep(delay(attempt, error))
            else:
                return

    # Events

    async def send(self, session: str, events: Sequence[Event]) -> Event:
        """Send events once; returns the last as Anthropic has it."""
        with self.sdk.errors():
            answer = plain(
                self.sdk, await self._beta_once.sessions.events.send(session, events=events)
            )
        if not answer.get("data"):
            raise self.sdk.no_answer("no events")
        return dict(answer["data"][-1])

    async def events(self, session: str) -> AsyncGenerator[Event, None]:
        """Events as they happen, from now on; old ones may be among them. The first is empty."""
        with self.sdk.errors():
            stream = await opened(self.sdk, await self._api.events.stream(session))
        try:
            yield {}
            with self.sdk.errors(streaming=True):
                async for event in stream:
                    yield plain(self.sdk, event)
        finally:
            await stream.close()

    async def events_after(self, session: str, last: str | None) -> builtins.list[Event]:
        """Return the events behind one, or all, oldest first: read from the newest back."""
        found: builtins.list[Event] = []
        with self.sdk.errors():
            async for each in self._api.events.list(session, order="desc", limit=PAGE):
                event = plain(self.sdk, each)
                if last is not None and event.get("id") == last:
                    break
                found.append(event)
        return found[::-1]

    async def messages(self, session: str, limit: int | None) -> builtins.list[SessionMessage]:
        """Return the newest messages of a session, oldest first."""
        messages = from_events(await self.events_after(session, None))
        return messages if limit is None else messages[max(0, len(messages) - limit) :]

    # Agents and environments

    async def _id(self, kind: str) -> str:
        """Return the id of the agent or environment of that name, creating it if there is none."""
        wanted = self._wanted[kind]
        if isinstance(wanted, str):
            return wanted
        lock = self._making.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with lock:
            if kind not in self._ids:
                self._ids[kind] = await self._found_or_made(kind, wanted)
        return self._ids[kind]

    async def _found_or_made(self, kind: str, wanted: Mapping[str, Any]) -> str:
        patience = RetryPolicy(self._retries)
        while True:
            found = await self._found(kind, wanted.get("name"))
            if found is not None:
                return found
            try:
                with self.sdk.errors(_model_of(wanted)):
                    made = await getattr(self._beta_once, kind).create(**wanted)
                return _id_of(self.sdk, made)
            except ProviderSessionError as error:
                if not await patience.waits(error):
                    raise

    async def _found(self, kind: str, name: Any) -> str | None:
        with self.sdk.errors():
            async for each in getattr(self.sdk.client.beta, kind).list():
                known = plain(self.sdk, each)
                if known.get("name") == name and not known.get("archived_at"):
                    return str(known["id"])
        return None


def _id_of(sdk: Sdk, answer: Any) -> str:
    made = plain(sdk, answer)
    if not made.get("id"):
        raise sdk.no_answer("no id")
    return str(made["id"])


def _model_of(wanted: Mapping[str, Any]) -> str:
    model = wanted.get("model", "")
    return str(model.get("id", "") if isinstance(model, Mapping) else model)
