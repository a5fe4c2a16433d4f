"""OpenAI's conversations as a session's own: kept there, so that only what is new travels.

A conversation is a copy of the record. It is checked against it, and mended or made again, whenever
anything may have happened that the record does not know: a request whose answer was lost, a turn
that failed, another provider's turn. Nothing is sent twice unless it is known not to have arrived.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from langswarm_session._sanitize import one_line
from langswarm_session.blocks import ToolCallBlock
from langswarm_session.errors import (
    ContextLengthError,
    ProviderRateLimitError,
    ProviderRequestError,
    ProviderSessionError,
    ProviderStreamError,
)
from langswarm_session.formats.openai_items import Item
from langswarm_session.formats.openai_responses import (
    REASONING,
    from_response,
    is_system,
)
from langswarm_session.models import SessionMessage
from langswarm_session.providers.openai.copies import Copies, is_lost
from langswarm_session.providers.openai.input import RequestInput
from langswarm_session.providers.openai.responses import (
    FINISHED,
    Responses,
    dropped_reasoning,
)
from langswarm_session.providers.sdk import RetryPolicy, Sdk, delay, plain, refusal_of
from langswarm_session.records import ProviderReply, ProviderRequest, StreamEvent
from langswarm_session.requests.provider_state import LEFT_BEHIND

logger = logging.getLogger(__name__)

STALE = {"stale": True}
"""The context of a conversation that is not what the record has: it is to be made again."""

_KEPT = ("stop", "tool_calls", "length", "refusal")
"""How replies end that are known to be kept in the conversation."""


@dataclass(slots=True)
class _Turn:
    """A turn, where it is to be added, and what is known of it.

    Attributes:
        request: What is to be answered.
        patience: How often it may be tried again.
        input: The whole window as it would be sent where nothing is kept.
        conversation: The conversation's id.
        last_item: The newest item that is known to be in it.
        messages: What is to be sent.
        unsure: Whether a request may still arrive, or have arrived, that the record does not know.
        was_unsure: Whether that was so in the turn before.
        is_new: Whether the conversation was made in this turn.
        is_given: Whether it was made by somebody else, who may have put into it what the record
            does not know: then nothing is removed from it.
        response_id: The response that is being given, once its id is known.
        left_behind: Earlier conversations of the session that could not be removed.
    """

    request: ProviderRequest
    patience: RetryPolicy
    input: RequestInput
    conversation: str = ""
    last_item: str | None = None
    messages: Sequence[SessionMessage] = ()
    unsure: bool = False
    was_unsure: bool = False
    is_new: bool = False
    is_given: bool = False
    response_id: str | None = None
    left_behind: list[str] = field(default_factory=list)

    @property
    def model(self) -> str:
        return self.request.context.model


@dataclass(slots=True)
class _Shown:
    """What a reader has of a stream."""

    anything: bool = False
    text: str = ""
    calls: set[str | None] = field(default_factory=set)

    def add(self, event: StreamEvent) -> StreamEvent:
        self.anything = True
        self.text += event.text
        if event.block is not None:
            self.calls.add(event.block.id)
        return event

    def is_of(self, message: SessionMessage) -> bool:
        return message.text.startswith(self.text)

    def rest(self, message: SessionMessage) -> list[StreamEvent]:
        """Return what is still to be shown of a message."""
        text = message.text[len(self.text) :]
        calls = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
        return [
            *([StreamEvent(text=text)] if text else []),
            *(StreamEvent(block=call) for call in calls if call.id not in self.calls),
        ]


class Conversations(Responses):
    """Replies by Responses with a conversation.

    Args:
        sdk: The client.
        max_retries: How often to try again what may be tried again.
        is_vendor: Tells whether the server is OpenAI's.
    """

    def __init__(self, sdk: Sdk, max_retries: int, is_vendor: Callable[[], bool]) -> None:
        super().__init__(sdk, max_retries, is_vendor)
        self.copies = Copies(sdk, max_retries)

    async def send(self, request: ProviderRequest) -> ProviderReply:
        """Return the whole reply."""
        turn = await self._begun(request)
        message: SessionMessage | None = None
        while message is None:
            try:
                response = await self._create(turn)
                message = self._reply(plain(self._sdk, response), turn.model)
            except ProviderSessionError as error:
                message = await self._recovered(turn, error)
        return await self._done(turn, message)

    async def stream(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """Yield the reply in pieces. One that breaks off continues, if it was completed there."""
        turn = await self._begun(request)
        shown = _Shown()
        message: SessionMessage | None = None
        while message is None:
            self._leave(turn)
            try:
                async with aclosing(self._pieces(turn)) as pieces:
                    async for event in pieces:
                        if isinstance(event, StreamEvent):
                            yield shown.add(event)
                        elif event["type"] in FINISHED:
                            message = self._reply(event["response"], turn.model)
                if message is None:
                    raise self._broken()
            except ProviderSessionError as error:
                turn.unsure = True
                if message is None:
                    message = await self._found(turn, error, shown)
            except (GeneratorExit, asyncio.CancelledError):
                self._leave(turn)
                raise
        for event in shown.rest(message):
            yield event
        yield await self._done(turn, message)

    async def _pieces(self, turn: _Turn) -> AsyncGenerator[StreamEvent | dict[str, Any], None]:
        """Yield the events of one stream, and note which response it is of."""
        async with aclosing(
            self._events(await self._create(turn, stream=True), turn.model)
        ) as events:
            async for event in events:
                if not isinstance(event, StreamEvent) and event["type"] == "response.created":
                    turn.response_id = event["response"].get("id")
                yield event

    def _leave(self, turn: _Turn) -> None:
        """Note the response of a stream that was broken off, so that it can be removed."""
        if turn.response_id is not None:
            self.copies.leave(turn.conversation, turn.response_id)
            turn.response_id = None

    # One request, and what to do when it fails

    async def _create(self, turn: _Turn, **options: Any) -> Any:
        """Ask once; the SDK's own retries would send a turn a second time."""
        arguments = self._arguments(turn.request, turn.input, self._items(turn))
        arguments |= {**options, "conversation": turn.conversation}
        while True:
            try:
                with self._sdk.errors(turn.model):
                    return await self._sdk.once.responses.create(**arguments)
            except ProviderRequestError as error:
                if not self._learned(turn.request, error, arguments):
                    raise

    def _items(self, turn: _Turn) -> list[Item]:
        """Return what is new in the conversation."""
        return turn.input.items_of(turn.messages)

    async def _recovered(self, turn: _Turn, error: ProviderSessionError) -> SessionMessage | None:
        """Return the reply, if the request has arrived all the same; None to try again.

        Raises:
            ProviderSessionError: The error, if there is nothing more to be done.
        """
        if not turn.is_new and _needs_another(error, turn):
            logger.warning(
                "session %r: OpenAI's conversation %s is not what it was (%s); it is made again",
                turn.request.session_id,
                turn.conversation,
                one_line(error),
            )
            await self._remade(turn)
            return None
        if error.retriable and not isinstance(error, ProviderRateLimitError):
            turn.unsure = True
        goes_on = await turn.patience.waits(error)
        message = await self._landed(turn, error)
        if message is None and not goes_on:
            raise error
        return message

    async def _landed(self, turn: _Turn, error: ProviderSessionError) -> SessionMessage | None:
        """Return the reply to a request that has arrived though its answer has not."""
        if not turn.unsure:
            return None
        try:
            output = await self._settled(turn)
        except ProviderSessionError:
            raise error from error.__cause__  # nothing is known, so nothing may be sent again
        if not output:
            return None
        logger.info("session %r: a lost answer was found at OpenAI", turn.request.session_id)
        response = {"id": turn.response_id or output[-1].get("id"), "output": output}
        cut = any(item.get("status") == "incomplete" for item in output)
        return from_response(response | ({"status": "incomplete"} if cut else {}), turn.model)

    async def _found(
        self,
        turn: _Turn,
        error: ProviderSessionError,
        shown: _Shown,
    ) -> SessionMessage | None:
        """Return the reply of a stream that broke off; None to try again."""
        message = None
        if turn.response_id is not None:
            message = await self._finished(turn, error, turn.response_id)
        if message is None:
            if shown.anything:
                turn.patience.end()  # what a reader has seen cannot be taken back
            message = await self._recovered(turn, error)
        if message is not None and not shown.is_of(message):
            raise error
        return message

    async def _finished(
        self, turn: _Turn, error: ProviderSessionError, response_id: str
    ) -> SessionMessage | None:
        """Return the whole reply of a response that may have finished meanwhile."""
        retrieve = partial(self._sdk.once.responses.retrieve, response_id)
        for attempt in range(self._retries + 1):
            try:
                found = await self.copies.including(retrieve, [REASONING])
            except ProviderSessionError:
                return None
            if found.get("status") in ("completed", "incomplete"):
                logger.info("session %r: a stream of OpenAI broke off, and its reply was found",
                            turn.request.session_id)  # fmt: skip
                return self._reply(found, turn.model)
            if found.get("status") not in ("in_progress", "queued"):
                return None
            await asyncio.sleep(delay(attempt, error))
        return None

    def _broken(self) -> ProviderStreamError:
        return ProviderStreamError(
            "the stream ended before the reply was complete; send the message again",
            provider=self._sdk.provider,
        )

    # The conversation before and after a turn

    async def _begun(self, request: ProviderRequest) -> _Turn:
        """Return the turn in the conversation as the record knows it, mended or made again."""
        patience = RetryPolicy(self._retries if request.retries is None else request.retries)
        context = request.context
        conversation, known = context.provider_session_id, context.provider_context
        is_given = conversation is not None and bool(known.get("given", not known))
        turn = _Turn(request, patience, self._input(request, in_place=not is_given))
        turn.left_behind = list(known.get(LEFT_BEHIND, ()))
        if conversation is None:
            await self._remade(turn)
            return turn
        turn.conversation, turn.last_item = conversation, known.get("last_item")
        turn.messages = request.new_messages
        turn.is_given = is_given
        if known.get("stale") or (not turn.is_given and _is_outdated(request, known)):
            await self._remade(turn)
            return turn
        turn.unsure, turn.was_unsure = not request.in_step, bool(known.get("unsure"))
        if turn.last_item is None or turn.unsure or turn.was_unsure:
            try:
                await self._mended(turn)
            except ProviderSessionError as error:
                if not is_lost(error):
                    logger.warning(
                        "session %r: OpenAI's conversation %s cannot be mended (%s); it is made "
                        "again",
                        request.session_id,
                        turn.conversation,
                        one_line(error),
                    )
                await self._remade(turn)
        return turn

    async def _mended(self, turn: _Turn) -> None:
        """Remove what a turn that failed has left behind."""
        if turn.is_given or turn.last_item is None:
            turn.last_item = await self.copies.last_item(turn.conversation)
        else:
            strays = await self.copies.items_after(turn.conversation, turn.last_item)
            await self.copies.delete_items(turn.conversation, strays)
        await self.copies.delete_left(turn.conversation)

    async def _remade(self, turn: _Turn) -> None:
        """Return a new conversation with what the record has of it, in place of the old one."""
        if turn.conversation and not turn.is_given:
            turn.left_behind.append(turn.conversation)
        if turn.is_given:
            turn.input = self._input(turn.request)
        before = len(turn.request.split()[0])
        history, turn.messages = turn.input.messages[:before], turn.input.messages[before:]
        turn.conversation = await self.copies.create({"session_id": turn.request.session_id})
        # From here on there is something to be deleted with the session, whatever happens.
        await turn.request.save(turn.conversation, {**STALE, **_left_behind(turn.left_behind)})
        turn.left_behind = await self._left(turn)
        turn.is_new, turn.is_given, turn.unsure = True, False, False
        turn.last_item = await self.copies.fill(turn.conversation, turn.input.items_of(history))

    async def _left(self, turn: _Turn) -> list[str]:
        """Remove earlier conversations; return those that cannot be removed.

        A turn does not fail for them: a key may lack the permission, and a server the method. They
        are tried again whenever the conversation is made again, and when the session is deleted.
        """
        left = []
        for conversation in turn.left_behind:
            try:
                await self.copies.delete(conversation)
            except ProviderSessionError as error:
                left.append(conversation)
                logger.warning("session %r: %s keeps the conversation %s: %s",
                               turn.request.session_id, self._sdk.provider, conversation,
                               one_line(error))  # fmt: skip
        return left

    async def _settled(self, turn: _Turn) -> list[Item] | None:
        """Return the turn's output in the conversation, or None, and remove the rest."""
        items = await self.copies.items_after(turn.conversation, turn.last_item, REASONING)
        strays, output = _parted(items, self._items(turn))
        if not turn.is_given:
            await self.copies.delete_items(turn.conversation, strays)
        return output or None

    async def _done(self, turn: _Turn, message: SessionMessage) -> ProviderReply:
        last_item = _item_id(message)
        is_kept = last_item is not None and message.finish_reason in _KEPT
        if turn.unsure or turn.was_unsure or not is_kept:
            try:
                output = await self._settled(turn)
            except ProviderSessionError as error:
                logger.warning("session %r: OpenAI's copy is made again in the next turn: %s",
                               turn.request.session_id, one_line(error))  # fmt: skip
                output = None
            last_item = output[-1]["id"] if output else None
        context: dict[str, Any] = {
            "last_item": last_item,
            "model": turn.model,
            **_beginning(turn.request),
        }
        if turn.unsure:
            context["unsure"] = True  # a request that was given up may arrive even now
        if turn.is_given:
            context["given"] = True
        elif last_item is None:
            context = dict(STALE)
        context |= _left_behind(turn.left_behind)
        return ProviderReply(
            [message],
            turn.conversation,
            context,
            notes=turn.input.updates.notes,
            dropped_reasoning=dropped_reasoning(message),
        )


def _left_behind(conversations: Sequence[str]) -> dict[str, Any]:
    return {LEFT_BEHIND: list(conversations)} if conversations else {}


def _beginning(request: ProviderRequest) -> dict[str, Any]:
    """Return what tells whether a copy is that of a window.

    A window that begins further on is one that had outgrown its limits, in messages or in tokens:
    so these hold for the copy as well, which is all that the model is given.
    """
    first = next((message.id for message in request.window if not is_system(message)), None)
    return {"start": first, "reasoning_after": request.reasoning_after}


def _is_outdated(request: ProviderRequest, known: Mapping[str, Any]) -> bool:
    """Return whether a copy is another model's, or not that of the window."""
    if known.get("model", request.context.model) != request.context.model:
        return True
    return any(known.get(name) != value for name, value in _beginning(request).items())


def _needs_another(error: ProviderSessionError, turn: _Turn) -> bool:
    """Return whether a conversation is lost, too long, or does not fit the new items.

    One that was given is left as it is where only the items may be wrong.
    """
    if is_lost(error, turn.conversation) or isinstance(error, ContextLengthError):
        return True
    refusal = refusal_of(error)
    is_input = (refusal.status, refusal.param) == (400, "input")
    return isinstance(error, ProviderRequestError) and is_input and not turn.is_given


def _parted(items: Sequence[Item], sent: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Return what is in the way, and a turn's output, of the items behind a turn's beginning."""
    wanted = [_gist(item) for item in sent]
    for start in range(len(items) - len(sent), -1, -1):
        end = start + len(sent)
        output = list(items[end:])
        if (
            [_gist(item) for item in items[start:end]] == wanted
            and output
            and not any(item.get("role") in ("user", "system", "developer") for item in output)
        ):
            return list(items[:start]), output
    return list(items), []


def _gist(item: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what of an item is the same however it is written."""
    content = item.get("content", item.get("output")) or ""
    if not isinstance(content, str):
        content = "".join(part.get("text") or part.get("refusal") or "" for part in content)
    return item.get("type"), item.get("role"), item.get("call_id"), content


def _item_id(message: SessionMessage) -> str | None:
    """Return the id of a reply's last item."""
    if not message.blocks:
        return None
    block = message.blocks[-1]
    item = (block.extras or {}).get("item_id", block.id)
    return None if item is None else str(item)
