"""Conversations as OpenAI's Conversations API keeps them: copies of a record, item by item."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from langswarm_session._sanitize import one_line
from langswarm_session.errors import (
    ProviderRequestError,
    ProviderSessionError,
    ProviderUnavailableError,
    SessionError,
)
from langswarm_session.formats.openai_items import Item
from langswarm_session.formats.openai_responses import IMAGES, REASONING, from_items
from langswarm_session.models import SessionMessage
from langswarm_session.providers.sdk import ABSENT, RetryPolicy, Sdk, plain, refusal_of

CHUNK = 20
"""How many items one request may add."""

AT_A_TIME = 8
"""How many responses are deleted concurrently."""

PAGE = 100
"""How many items one request may list."""

logger = logging.getLogger(__name__)


class Copies:
    """What can be done with conversations besides going on with them.

    Args:
        sdk: The client.
        max_retries: How often to try again what may be tried again.
    """

    def __init__(self, sdk: Sdk, max_retries: int) -> None:
        self._sdk = sdk
        self._retries = max_retries
        self._shows_all = False
        self._left: dict[str, list[str]] = {}

    async def create(self, metadata: dict[str, str], **options: Any) -> str:
        """Create an empty conversation and return its id.

        One whose answer was lost stays behind, empty: OpenAI lists no conversations.
        """
        resource = self._sdk.once.conversations
        made = await self._asked(partial(resource.create, metadata=metadata, **options))
        return str(made["id"])

    async def retrieve(self, conversation: str) -> dict[str, Any]:
        """Return what OpenAI says of a conversation."""
        return await self._asked(partial(self._sdk.once.conversations.retrieve, conversation))

    async def fill(self, conversation: str, items: Sequence[Item]) -> str | None:
        """Add items to a new conversation; returns the id of the last.

        Nothing is added twice: when an answer is lost, what is there tells how much has arrived.

        Raises:
            ProviderSessionError: If not all of them, or more, are there in the end.
        """
        done, unsure = 0, False
        patience = RetryPolicy(self._retries)
        last: str | None = None
        while done < len(items):
            chunk = items[done : done + CHUNK]
            try:
                last = await self._add(conversation, chunk)
                done, patience = done + len(chunk), RetryPolicy(self._retries)
            except ProviderSessionError as error:
                if not await patience.waits(error):
                    raise
                unsure = True
                done = len(await self.items_after(conversation, None))
        if unsure:
            there = await self.items_after(conversation, None)
            if len(there) != len(items):
                raise ProviderUnavailableError(
                    f"{self._sdk.provider} did not take the conversation whole; send the message "
                    "again",
                    provider=self._sdk.provider,
                )
            last = str(there[-1]["id"])
        return last

    async def _add(self, conversation: str, chunk: Sequence[Item]) -> str:
        with self._sdk.errors():
            answer = await self._sdk.once.conversations.items.create(conversation, items=chunk)
            return str(plain(self._sdk, answer)["data"][-1]["id"])

    async def items_after(self, conversation: str, item: str | None, *include: str) -> list[Item]:
        """Return the items behind one, or all, oldest first, with the named details."""
        found: list[Item] = []
        after = item
        while True:
            page = await self._page(conversation, after, include)
            found += page["data"]
            if not (page.get("has_more") and page["data"]):
                return found
            after = str(page["data"][-1]["id"])

    async def _page(
        self, conversation: str, after: str | None, include: Sequence[str]
    ) -> dict[str, Any]:
        resource = self._sdk.once.conversations.items
        options: dict[str, Any] = {"order": "asc", "limit": PAGE}
        if after is not None:
            options["after"] = after
        page = await self.including(partial(resource.list, conversation, **options), include)
        if not isinstance(page.get("data"), list):
            raise self._sdk.no_answer("no list")
        return page

    async def including(
        self, call: Callable[..., Awaitable[Any]], include: Sequence[str]
    ) -> dict[str, Any]:
        """Return the answer to a request, with what is asked for by name where that is possible.

        A server that refuses to be asked is not asked again: vLLM's gateway refuses ``include``
        for items.
        """
        if include and not self._shows_all:
            try:
                return await self._asked(partial(call, include=list(include)))
            except ProviderRequestError as error:
                if refusal_of(error).status not in (400, 422):
                    raise
                answer = await self._asked(call)
                self._shows_all = True
                logger.info("%s takes no include here: %s", self._sdk.provider, one_line(error))
                return answer
        return await self._asked(call)

    async def last_item(self, conversation: str) -> str | None:
        """Return the id of the newest item."""
        resource = self._sdk.once.conversations.items
        page = await self._asked(partial(resource.list, conversation, order="desc", limit=1))
        return str(page["data"][0]["id"]) if page.get("data") else None

    async def messages(self, conversation: str, limit: int | None) -> list[SessionMessage]:
        """Return the newest messages of a conversation, oldest first."""
        messages = from_items(await self.items_after(conversation, None, REASONING, IMAGES))
        return messages if limit is None else messages[max(0, len(messages) - limit) :]

    async def delete_items(self, conversation: str, items: Sequence[Item]) -> None:
        """Remove items; those that are gone already are fine."""
        resource = self._sdk.once.conversations.items
        for item in items:
            await self._deleted(partial(resource.delete, item["id"], conversation_id=conversation))

    async def delete(self, conversation: str) -> None:
        """Remove a conversation with its items; one that is gone already is fine."""
        await self.delete_left(conversation)
        try:
            items = await self.items_after(conversation, None)
        except ProviderSessionError as error:
            if is_lost(error):
                return
            raise
        await self.delete_items(conversation, items)
        await self._deleted(partial(self._sdk.once.conversations.delete, conversation))

    async def delete_responses(self, ids: Sequence[str]) -> list[str]:
        """Remove responses, which outlive their conversation; returns those that stay.

        Those that are gone already are fine.
        """
        slots = asyncio.Semaphore(AT_A_TIME)

        async def is_left(response: str) -> bool:
            async with slots:
                try:
                    await self._deleted(partial(self._sdk.once.responses.delete, response))
                except ProviderSessionError as error:
                    if refusal_of(error).status not in ABSENT:
                        raise
                    return True
            return False

        # A reply that was found by its items has the id of one of them.
        responses = [id_ for id_ in ids if id_.startswith("resp")]
        left = await asyncio.gather(*map(is_left, responses))
        return [id_ for id_, stays in zip(responses, left, strict=True) if stays]

    def leave(self, conversation: str, response: str) -> None:
        """Note a response that the record will not have, as its stream was broken off.

        It is removed with the next turn or the conversation, unless the process ends before.
        """
        self._left.setdefault(conversation, []).append(response)

    async def delete_left(self, conversation: str) -> None:
        """Remove the responses that `leave` noted; one that cannot be removed stays."""
        for response in self._left.pop(conversation, ()):
            try:
                await self.delete_responses([response])
            except ProviderSessionError as error:
                logger.warning("%s keeps the response %s: %s",
                               self._sdk.provider, response, one_line(error))  # fmt: skip

    async def _deleted(self, delete: Callable[[], Awaitable[Any]]) -> None:
        try:
            await self._asked(delete)
        except ProviderSessionError as error:
            if not is_lost(error):
                raise

    async def _asked(self, call: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
        """Return the answer to a request that may be made twice, as plain data."""

        async def answered() -> dict[str, Any]:
            answer = await call()
            # The SDK gives nothing for a response that was deleted.
            return {} if answer is None else plain(self._sdk, answer)

        answer: dict[str, Any] = await self._sdk.patiently(answered, self._retries)
        return answer


def is_lost(error: SessionError, conversation: str = "") -> bool:
    """Return whether there is no such conversation, or no such item in it, any more.

    Args:
        error: What came in place of an answer.
        conversation: The conversation: in a stream that has begun only the message tells.
    """
    if not isinstance(error, ProviderRequestError):
        return False
    said = str(error).lower()
    named = bool(conversation) and conversation.lower() in said and "not found" in said
    return named or refusal_of(error).status == 404
