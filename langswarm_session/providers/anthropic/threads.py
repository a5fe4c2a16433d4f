"""Anthropic's message threads: the server holds the conversation for minutes, the record for good.

A thread is a cache. It is continued where it is known to match the record, and recreated
from the record in every other case.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from pydantic_core import to_json

from langswarm_session._sanitize import one_line
from langswarm_session.errors import ProviderRequestError, SessionError
from langswarm_session.formats.anthropic import (
    Param,
    Writing,
    dropped_thinking,
    to_messages,
    usage,
)
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.providers.anthropic.changes import Arguments
from langswarm_session.providers.anthropic.messages import Messages, replied
from langswarm_session.providers.anthropic.requests import Draft
from langswarm_session.records import ProviderReply, ProviderRequest, StreamEvent
from langswarm_session.requests.budget import estimate

logger = logging.getLogger(__name__)

OWN_HOST = "api.anthropic.com"

BETA = "message-threads-2026-08-12"

HELD_SECONDS = 285.0
"""How long after its last use a thread is continued: the server keeps it for five minutes."""

UNSUPPORTED = "thread_unsupported_request"

FORGETS_BELOW = 0.75
"""An answer that counts less than this part of the thread's tokens was given without the thread."""

NEW_AT_MOST, OWN_AT_LEAST = 0.25, 0.5
"""A server that may ignore threads is tried only where what is new can be no more than this part of
the thread's tokens, and where at least this part of them are the conversation's: then a server that
sees only what is new, and some words of its own besides, counts fewer than `FORGETS_BELOW`."""


class _ForgetsError(SessionError):
    """The server answered from what was new alone: it does not know threads."""


class Threads(Messages):
    """Replies by Messages within a thread."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._knows_threads: bool | None = None

    async def send(self, request: ProviderRequest) -> ProviderReply:
        """Return the whole reply."""
        is_compacted = await self.compact_if_long(request)
        drafted = self.drafted(request)
        arguments = self._first(request, drafted)
        while True:
            try:
                replies = await self.replies(request, arguments)
            except SessionError as error:
                drafted, arguments = self._instead(error, request, arguments, drafted)
            else:
                return self._done(replies, arguments, drafted, request if is_compacted else None)

    async def stream(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """Yield the reply in pieces."""
        is_compacted = await self.compact_if_long(request)
        drafted = self.drafted(request)
        arguments = self._first(request, drafted)
        has_begun = False
        while True:
            try:
                async with aclosing(self.streamed(request, arguments)) as events:
                    async for event in events:
                        if isinstance(event, StreamEvent):
                            has_begun = True
                            yield event
                        else:
                            compacted = request if is_compacted else None
                            yield self._done(event, arguments, drafted, compacted)
            except SessionError as error:
                if has_begun:
                    raise
                drafted, arguments = self._instead(error, request, arguments, drafted)
            else:
                return

    # What is sent

    def _first(self, request: ProviderRequest, drafted: Draft) -> Arguments:
        """Return the first arguments: only what is new, where the thread can be continued."""
        known, fixed = request.context.provider_context, drafted.fixed
        if self._knows_threads is False or known.get("unsupported") == sorted(fixed):
            return drafted.whole()
        if not (
            request.in_step
            and request.changed is None
            and known.get("message_id")
            and known.get("fingerprint") == _fingerprint(fixed)
            and time.time() - known.get("at", 0) < HELD_SECONDS
            and _has_room(request)
        ):
            return _begun(drafted)
        clears = self._server.abilities(request.context.model).dialect.clear_at
        said = to_messages(request.new_messages, writing=Writing(clears=clears))
        new = [*drafted.ahead, *said, *drafted.latest]
        if not (self._is_trusted or _would_show(request, fixed, new)):
            return _begun(drafted)
        thread = {"type": "continue", "previous_message_id": known["message_id"]}
        kept = {key: value for key, value in fixed.items() if key not in ("system", "tools")}
        return {**kept, **_threading(fixed, thread), "messages": new}

    def _instead(
        self,
        error: SessionError,
        request: ProviderRequest,
        arguments: Arguments,
        drafted: Draft,
    ) -> tuple[Draft, Arguments]:
        """Return what to try again with: a new thread in place of one, or none in place of that.

        Raises:
            SessionError: The error, if it is not one of threads.
        """
        thread = arguments.get("thread")
        code = _error_code(error)
        if thread is None:
            if not self.learns(request, error):
                raise error
            drafted = self.drafted(request)
            return drafted, drafted.whole()
        if isinstance(error, _ForgetsError) or self._is_unknown(error):
            self._knows_threads = False
            logger.warning(
                "the server at %s does not know message threads, so the whole window is sent; "
                "name mode='messages' for it",
                self._sdk.address,
            )
        elif code == UNSUPPORTED:
            logger.info("session %r: this request goes without a thread", request.session_id)
        elif self.learns(request, error):
            drafted = self.drafted(request)
            return drafted, _begun(drafted)
        elif thread["type"] == "continue" and isinstance(error, ProviderRequestError):
            logger.info("session %r: a new thread is begun: %s",
                        request.session_id, one_line(error))  # fmt: skip
            return drafted, _begun(drafted)
        else:
            raise error
        return drafted, drafted.whole()

    def resumed(
        self, request: ProviderRequest, arguments: Arguments, message: Mapping[str, Any]
    ) -> Arguments:
        """See `Messages.resumed`."""
        if "thread" not in arguments:
            return super().resumed(request, arguments, message)
        if not self._is_trusted:
            return super().resumed(request, self.drafted(request).whole(), message)
        thread = {"type": "continue", "previous_message_id": message["id"]}
        kept = {key: value for key, value in arguments.items() if key not in ("system", "tools")}
        return {**kept, "thread": thread, "messages": []}

    def _done(
        self,
        replies: list[SessionMessage],
        arguments: Arguments,
        drafted: Draft,
        compacted: ProviderRequest | None,
    ) -> ProviderReply:
        """Return the reply, with where its thread stands."""
        reply = replied(replies, drafted, compacted)
        return replace(reply, provider_context=self._stand(replies, arguments, drafted.fixed))

    def _stand(
        self, replies: list[SessionMessage], arguments: Arguments, fixed: Arguments
    ) -> dict[str, Any]:
        """Where the thread stands after a reply."""
        last = replies[-1]
        is_lost = len(replies) > 1 and not self._is_trusted
        if "thread" not in arguments:
            return {"message_id": None, "unsupported": sorted(fixed)}
        if last.finish_reason == "refusal" or is_lost or any(map(dropped_thinking, replies)):
            return {"message_id": None}
        counted = last.usage
        seen = 0
        if counted is not None:
            seen = counted.input_tokens + counted.output_tokens - counted.reasoning_tokens
        return {
            "message_id": last.provider_message_id,
            "fingerprint": _fingerprint(fixed),
            "tokens": seen,
            "at": int(time.time()),
        }

    # Servers that do not know threads

    @property
    def _is_trusted(self) -> bool:
        if self._knows_threads is None and is_own(self._sdk.client.base_url):
            self._knows_threads = True
        return self._knows_threads is True

    def _is_unknown(self, error: SessionError) -> bool:
        """Return whether a server that may not know threads says so."""
        return (
            isinstance(error, ProviderRequestError)
            and not self._is_trusted
            and _error_code(error) is None
            and "thread" in str(error)
        )

    def look_at(
        self, message: Mapping[str, Any], request: ProviderRequest, arguments: Arguments
    ) -> None:
        """Raise _ForgetsError if an answer counts fewer tokens than the thread must have."""
        known = request.context.provider_context
        before = (arguments.get("thread") or {}).get("previous_message_id")
        if self._is_trusted or before is None or before != known.get("message_id"):
            return
        counted = usage(message.get("usage"))
        if counted is None or counted.input_tokens < FORGETS_BELOW * known["tokens"]:
            raise _ForgetsError("the server answered from what was new alone")
        self._knows_threads = True


def _begun(drafted: Draft) -> Arguments:
    """Return the arguments of a request with the whole window, under a new thread."""
    return {**drafted.whole(), **_threading(drafted.fixed, {"type": "create"})}


def is_own(base_url: Any) -> bool:
    """Return whether this is Anthropic's own address."""
    return getattr(base_url, "host", None) == OWN_HOST


def _threading(fixed: Arguments, thread: Mapping[str, Any]) -> Arguments:
    return {"thread": thread, "betas": [*(fixed.get("betas") or ()), BETA]}


def _fingerprint(fixed: Arguments) -> str:
    """Return what must be the same for a thread to be continued."""
    parts = {key: fixed.get(key) for key in ("model", "system", "tools")}
    return hashlib.sha256(to_json(parts, fallback=str)).hexdigest()[:16]


def _has_room(request: ProviderRequest) -> bool:
    """Return whether the thread and what is new are within the session's budget of tokens."""
    budget = request.context.max_input_tokens
    new = request.window[len(request.window) - request.new_count :]
    held: int = request.context.provider_context.get("tokens", 0)
    return budget is None or held + sum(map(estimate, new)) <= budget


def _would_show(request: ProviderRequest, fixed: Arguments, new: Sequence[Param]) -> bool:
    """Return whether the count of an answer would tell that a server ignores threads."""
    held: int = request.context.provider_context.get("tokens", 0)
    seen = request.window[: len(request.window) - request.new_count]
    texts = sum(len(each.text.encode()) for each in seen if each.role is not MessageRole.SYSTEM)
    frame = len(to_json([fixed.get("system"), fixed.get("tools")], fallback=str))
    own = (texts + frame) / 4
    return _most_tokens(new) <= NEW_AT_MOST * held and own >= OWN_AT_LEAST * held


def _most_tokens(new: Sequence[Param]) -> float:
    """More tokens than any tokenizer makes of messages: it makes no more than there are bytes."""
    written = to_json(new, fallback=str)
    is_text = b'"source":' not in written
    return len(written) if is_text else math.inf


def _error_code(error: BaseException) -> str | None:
    """Return the code of an error of threads."""
    body = getattr(error.__cause__, "body", None)
    for key in ("error", "details"):
        body = body.get(key) if isinstance(body, Mapping) else None
    code = body.get("error_code") if isinstance(body, Mapping) else None
    return None if code is None else str(code)
