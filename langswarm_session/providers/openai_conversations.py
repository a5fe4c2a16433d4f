"""OpenAI's Conversations API: the conversation is kept there, and only what is new travels.

A conversation is a copy of the record. It is checked against it, and mended or made anew, whenever
anything may have happened that the record does not know: a request whose answer was lost, a turn
that failed, another provider's turn. Nothing is sent twice unless it is known not to have arrived.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from langswarm_session.errors import (
    ProviderRateLimitError,
    ProviderSessionError,
    ProviderStreamError,
    SessionError,
)
from langswarm_session.formats.openai_responses import Item, from_items, to_items
from langswarm_session.models import SessionMessage
from langswarm_session.providers.openai_responses import FINISHED, Responses, reply_of_items
from langswarm_session.providers.sdk import Sdk, delay, plain
from langswarm_session.records import ProviderReply, ProviderRequest, StreamEvent

logger = logging.getLogger(__name__)

CHUNK = 20
"""How many items may be added at once."""

PAGE = 100
"""How many items may be listed at once."""

LOCK_WAIT = 60.0
"""How long to wait, in seconds, for a conversation that another request holds."""


@dataclass(slots=True)
class _Place:
    """Where a turn is to be added.

    Attributes:
        conversation: Its id.
        last_item: The newest item that is known to be in it.
        messages: What is to be sent.
    """

    conversation: str
    last_item: str | None
    messages: Sequence[SessionMessage]


@dataclass(slots=True)
class _Attempts:
    """How often one turn was tried, and what is known of it.

    Attributes:
        left: How often it may be tried again.
        uncertain: Whether a request may have arrived whose answer did not.
        until: When waiting for the conversation's lock ends.
    """

    left: int
    tried: int = 0
    uncertain: bool = False
    until: float = 0.0


class Conversations(Responses):
    """Replies by Responses with a conversation.

    Args:
        sdk: The client.
        max_retries: How often to try again what may be tried again.
    """

    def __init__(self, sdk: Sdk, max_retries: int) -> None:
        super().__init__(sdk, max_retries)
        self.lock_wait = LOCK_WAIT

    async def send(self, request: ProviderRequest) -> ProviderReply:
        """The whole reply."""
        model = request.context.model
        place = await self._place(request)
        attempts = self._attempts(request)
        while True:
            arguments = self._turn_arguments(request, place)
            try:
                with self._sdk.errors(model):
                    response = await self._once.responses.create(**arguments)
                message = self._reply(plain(self._sdk, response), model)
            except SessionError as error:
                place, landed = await self._after(error, request, place, attempts)
                if landed is None:
                    continue
                message = landed
            return await self._done(message, place, model)

    async def stream(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """The reply in pieces. One that breaks off is gone on with, if it was completed there."""
        model = request.context.model
        place = await self._place(request)
        attempts = self._attempts(request)
        while True:
            arguments = self._turn_arguments(request, place)
            shown, response_id = "", None
            message: SessionMessage | None = None
            try:
                with self._sdk.errors(model):
                    events = await self._once.responses.create(**arguments, stream=True)
                async with aclosing(self._events(events, model)) as pieces:
                    async for piece in pieces:
                        if isinstance(piece, StreamEvent):
                            shown += piece.text
                            yield piece
                        elif piece["type"] in FINISHED:
                            message = self._reply(piece["response"], model)
                        elif piece["type"] == "response.created":
                            response_id = piece["response"]["id"]
                if message is None:
                    raise _broken(self._sdk)
            except SessionError as error:
                if response_id is not None:
                    message = await self._finished_there(response_id, error, model)
                else:
                    place, message = await self._after(error, request, place, attempts)
                    if message is None:
                        continue
            if shown and not message.text.startswith(shown):
                raise _broken(self._sdk)
            if len(message.text) > len(shown):
                yield StreamEvent(text=message.text[len(shown) :])
            yield await self._done(message, place, model)
            return

    # One turn

    @property
    def _once(self) -> Any:
        """The client without retries of its own: it would send a turn a second time."""
        return self._sdk.client.with_options(max_retries=0)

    def _attempts(self, request: ProviderRequest) -> _Attempts:
        left = self._retries if request.retries is None else request.retries
        return _Attempts(left, until=time.monotonic() + self.lock_wait)

    def _turn_arguments(self, request: ProviderRequest, place: _Place) -> dict[str, Any]:
        arguments = self._arguments(request, place.messages)
        return {**arguments, "conversation": place.conversation}

    async def _after(
        self,
        error: SessionError,
        request: ProviderRequest,
        place: _Place,
        attempts: _Attempts,
    ) -> tuple[_Place, SessionMessage | None]:
        """What to do when a request failed.

        Returns:
            Where to try again, or the reply, if the request had arrived all the same.

        Raises:
            SessionError: If there is nothing more to be done.
        """
        if _is_lost(error):
            logger.warning(
                "session %r: OpenAI has lost the conversation %s; it is made anew from the record",
                request.session_id,
                place.conversation,
            )
            return await self._seeded(request), None
        if _is_locked(error):
            if time.monotonic() > attempts.until:
                raise error
            attempts.tried += 1
            await asyncio.sleep(delay(attempts.tried, error))
        elif not isinstance(error, ProviderSessionError) or not error.retriable:
            raise error
        else:
            attempts.uncertain |= not isinstance(error, ProviderRateLimitError)
            landed = await self._landed(place, attempts, request.context.model, error)
            if landed is not None:
                return place, landed
            if not attempts.left:
                raise error
            attempts.left -= 1
            attempts.tried += 1
            await asyncio.sleep(delay(attempts.tried, error))
        return place, await self._landed(place, attempts, request.context.model, error)

    async def _landed(
        self, place: _Place, attempts: _Attempts, model: str, error: SessionError
    ) -> SessionMessage | None:
        """The reply to a request that arrived though its answer did not."""
        if not attempts.uncertain:
            return None
        try:
            items = await self._items_after(place.conversation, place.last_item)
        except ProviderSessionError:
            raise error from None  # it is still not known, so nothing may be sent again
        reply = reply_of_items(items, model)
        if reply is not None:
            logger.info("the answer of OpenAI was lost, and found in its conversation")
        return reply

    async def _finished_there(
        self, response_id: str, error: SessionError, model: str
    ) -> SessionMessage:
        """The whole reply of a stream that broke off.

        Raises:
            SessionError: The error that it broke off with, if it was not completed.
        """
        if not isinstance(error, ProviderSessionError) or not error.retriable:
            raise error
        for attempt in range(self._retries + 1):
            try:
                with self._sdk.errors(model):
                    response = await self._sdk.client.responses.retrieve(response_id)
            except ProviderSessionError:
                raise error from error.__cause__
            found = plain(self._sdk, response)
            if found.get("status") in ("completed", "incomplete"):
                logger.info("a stream of OpenAI broke off, and its reply was found there")
                return self._reply(found, model)
            if found.get("status") not in ("in_progress", "queued"):
                break
            await asyncio.sleep(delay(attempt, error))
        raise error

    async def _done(
        self, message: SessionMessage, place: _Place, model: str
    ) -> ProviderReply:
        last = await self._last_item(place.conversation) if not message.blocks else None
        item = last or _item_id(message)
        context = {"last_item": item, "model": model}
        return ProviderReply([message], place.conversation, context)

    # The copy

    async def _place(self, request: ProviderRequest) -> _Place:
        """Where the turn goes: the conversation as the record knows it, mended or made anew."""
        context = request.context
        conversation, known = context.provider_session_id, context.provider_context
        if conversation is None:
            return await self._seeded(request)
        model = known.get("model", context.model)
        if known.get("seeding") or model != context.model:
            await self.delete(conversation)
            return await self._seeded(request)
        last_item = known.get("last_item")
        if request.in_step and last_item is not None:
            return _Place(conversation, last_item, request.new_messages)
        try:
            if last_item is None:
                last_item = await self._last_item(conversation)
            else:
                await self._drop_after(conversation, last_item)
        except ProviderSessionError as error:
            if not _is_lost(error):
                raise
            return await self._seeded(request)
        return _Place(conversation, last_item, request.new_messages)

    async def _seeded(self, request: ProviderRequest) -> _Place:
        """A new conversation with what the record has of it."""
        history, new = request.split()
        conversation = await self.create({"session_id": request.session_id})
        # From here on there is something to be deleted with the session, whatever happens.
        await request.save(conversation, {"seeding": True})
        items = to_items(history)
        done = 0
        while done < len(items):
            done = await self._add(conversation, items, done)
        last_item = await self._last_item(conversation) if items else None
        return _Place(conversation, last_item, new)

    async def _add(self, conversation: str, items: Sequence[Item], done: int) -> int:
        """Add the next chunk; returns how many items are there then.

        When an answer is lost, what is there tells how much of the chunk arrived.
        """
        for attempt in range(self._retries + 1):
            chunk = items[done : done + CHUNK]
            try:
                with self._sdk.errors():
                    await self._once.conversations.items.create(conversation, items=chunk)
            except ProviderSessionError as error:
                if not error.retriable or attempt == self._retries:
                    raise
                await asyncio.sleep(delay(attempt, error))
                done = len(await self._items_after(conversation, None))
                if done >= len(items):
                    return done
            else:
                return done + len(chunk)
        return done

    async def _drop_after(self, conversation: str, last_item: str) -> None:
        """Remove what was added behind the record's back: turns that failed here."""
        for item in await self._items_after(conversation, last_item):
            logger.info("an item of a turn that failed is removed from %s", conversation)
            await self._delete_item(conversation, item["id"])

    async def _items_after(self, conversation: str, last_item: str | None) -> list[Item]:
        """The items behind one, or all, oldest first."""
        after = {} if last_item is None else {"after": last_item}
        items: list[Item] = []
        with self._sdk.errors():
            pages = self._sdk.client.conversations.items.list(
                conversation, order="asc", limit=PAGE, **after
            )
            async for item in pages:
                items.append(plain(self._sdk, item))
        return items

    async def _last_item(self, conversation: str) -> str | None:
        with self._sdk.errors():
            page = await self._sdk.client.conversations.items.list(
                conversation, order="desc", limit=1
            )
        data = getattr(page, "data", None) or []
        return str(data[0].id) if data else None

    async def create(self, metadata: dict[str, str], **options: Any) -> str:
        """An empty conversation; returns its id."""
        with self._sdk.errors():
            made = await self._sdk.client.conversations.create(metadata=metadata, **options)
        return str(plain(self._sdk, made)["id"])

    async def retrieve(self, conversation: str) -> dict[str, Any]:
        """What OpenAI says of a conversation."""
        with self._sdk.errors():
            return plain(self._sdk, await self._sdk.client.conversations.retrieve(conversation))

    async def messages(self, conversation: str, limit: int | None) -> list[SessionMessage]:
        """The newest messages of a conversation, oldest first."""
        messages = from_items(await self._items_after(conversation, None))
        return messages if limit is None else messages[max(0, len(messages) - limit) :]

    async def delete(self, conversation: str) -> None:
        """Remove a conversation and its items; one that is gone already is fine."""
        try:
            for item in await self._items_after(conversation, None):
                await self._delete_item(conversation, item["id"])
            with self._sdk.errors():
                await self._sdk.client.conversations.delete(conversation)
        except ProviderSessionError as error:
            if not _is_lost(error):
                raise

    async def _delete_item(self, conversation: str, item: str) -> None:
        try:
            with self._sdk.errors():
                await self._sdk.client.conversations.items.delete(
                    item, conversation_id=conversation
                )
        except ProviderSessionError as error:
            if not _is_lost(error):
                raise


def _item_id(message: SessionMessage) -> str | None:
    """The id of a reply's last item."""
    block = message.blocks[-1]
    item = (block.extras or {}).get("item_id", block.id)
    return None if item is None else str(item)


def _broken(sdk: Sdk) -> ProviderStreamError:
    return ProviderStreamError(
        "the stream ended before the reply was complete; send the message again",
        provider=sdk.provider,
    )


def _status(error: SessionError) -> tuple[int | None, str]:
    cause = error.__cause__
    return getattr(cause, "status_code", None), str(getattr(cause, "code", "") or "")


def _is_lost(error: SessionError) -> bool:
    """Whether there is no such conversation, or no such item in it, any more."""
    return _status(error)[0] == 404


def _is_locked(error: SessionError) -> bool:
    """Whether another request holds the conversation."""
    return _status(error) == (400, "conversation_locked")
