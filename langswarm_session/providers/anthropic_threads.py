"""Anthropic's message threads: the server holds the conversation for minutes, the record for good.

A thread is a cache. It is gone on with where it is known to stand as the record does, and made anew
from the record in every other case.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from pydantic_core import to_json

from langswarm_session.errors import SessionError
from langswarm_session.formats.anthropic import to_messages, usage
from langswarm_session.models import SessionMessage
from langswarm_session.providers.anthropic_messages import Arguments, Messages
from langswarm_session.records import ProviderReply, ProviderRequest, StreamEvent
from langswarm_session.tokens import estimate

logger = logging.getLogger(__name__)

OWN_URL = "https://api.anthropic.com"

BETA = "message-threads-2026-08-12"

HELD_SECONDS = 285.0
"""How long after its last use a thread is gone on with: the server keeps it for five minutes."""

REPLAYED = (
    "thread_not_found",
    "thread_already_continued",
    "thread_continue_in_flight",
    "thread_fingerprint_mismatch",
)
"""The errors after which the whole window is sent under a new thread."""

UNSUPPORTED = "thread_unsupported_request"

CLEARLY_SHORTER = 3
"""A server is tested only where the whole window has this many times the tokens of what is new, so
that the count of an answer tells which of the two the model saw."""


class _ForgetsError(Exception):
    """The server answered from what was new alone: it does not know threads."""


class Threads(Messages):
    """Replies by Messages within a thread."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._knows_threads: bool | None = None

    async def send(self, request: ProviderRequest) -> ProviderReply:
        """The whole reply."""
        fixed = self.fixed(request)
        arguments = self._threaded(request, fixed)
        while True:
            try:
                message = await self.replied(request, arguments)
                if message.usage is not None:
                    self._check(message.usage.input_tokens, request, arguments)
            except (SessionError, _ForgetsError) as error:
                arguments = self._after(error, request, arguments, fixed)
            else:
                return self._done(message, arguments, fixed)

    async def stream(
        self, request: ProviderRequest
    ) -> AsyncGenerator[StreamEvent | ProviderReply, None]:
        """The reply in pieces."""
        fixed = self.fixed(request)
        arguments = self._threaded(request, fixed)
        while True:
            try:
                async for event in self.streamed(request, arguments):
                    if isinstance(event, StreamEvent):
                        yield event
                    else:
                        yield self._done(event, arguments, fixed)
            except (SessionError, _ForgetsError) as error:
                # These come before anything was shown; after that, it raises.
                arguments = self._after(error, request, arguments, fixed)
            else:
                return

    def on_start(
        self, message: Mapping[str, Any], request: ProviderRequest, arguments: Arguments
    ) -> None:
        """Look at the count before the first word is shown."""
        counted = usage(message.get("usage"))
        if counted is not None:
            self._check(counted.input_tokens, request, arguments)

    # Going on with a thread

    def _threaded(self, request: ProviderRequest, fixed: Arguments) -> Arguments:
        """The arguments of a request: with what is new, where the thread can be gone on with."""
        if self._knows_threads is False:
            return self._whole(request, fixed)
        known = request.context.provider_context
        if (
            request.in_step
            and known.get("message_id")
            and known.get("fingerprint") == _fingerprint(fixed)
            and time.time() - known.get("at", 0) < HELD_SECONDS
            and self._may_go_on(request)
        ):
            thread = {"type": "continue", "previous_message_id": known["message_id"]}
            kept = {key: value for key, value in fixed.items() if key not in ("system", "tools")}
            messages = to_messages(request.new_messages)
            return {**kept, **_threading(fixed, thread), "messages": messages}
        return self._begun(request, fixed)

    def _begun(self, request: ProviderRequest, fixed: Arguments) -> Arguments:
        """The arguments of a request with the whole window, under a new thread."""
        messages = to_messages(request.messages)
        return {**fixed, **_threading(fixed, {"type": "create"}), "messages": messages}

    def _whole(self, request: ProviderRequest, fixed: Arguments) -> Arguments:
        """The arguments of a request with the whole window, without a thread."""
        return {**fixed, "messages": to_messages(request.messages)}

    def _after(
        self,
        error: Exception,
        request: ProviderRequest,
        arguments: Arguments,
        fixed: Arguments,
    ) -> Arguments:
        """The arguments to try again with.

        Raises:
            SessionError: The error, if it is not one of threads.
        """
        if isinstance(error, _ForgetsError):
            self._knows_threads = False
            logger.warning(
                "the server at %s ignores message threads, so the whole window is sent; name "
                "mode='messages' for it",
                self._sdk.client.base_url,
            )
            return self._whole(request, fixed)
        code = _error_code(error)
        thread = arguments.get("thread")
        if thread is not None and thread["type"] == "continue" and code in REPLAYED:
            logger.info("session %r: %s; a new thread is begun", request.session_id, code)
            return self._begun(request, fixed)
        if thread is not None and code == UNSUPPORTED:
            logger.info("session %r: this request goes without a thread", request.session_id)
            return self._whole(request, fixed)
        raise error

    def _done(
        self, message: SessionMessage, arguments: Arguments, fixed: Arguments
    ) -> ProviderReply:
        """The reply, with where its thread stands."""
        if "thread" not in arguments or message.finish_reason == "refusal":
            return ProviderReply([message], provider_context={"message_id": None})
        counted = message.usage
        seen = 0
        if counted is not None:
            seen = counted.input_tokens + counted.output_tokens - counted.reasoning_tokens
        return ProviderReply(
            [message],
            provider_context={
                "message_id": message.provider_message_id,
                "fingerprint": _fingerprint(fixed),
                "tokens": seen,
                "at": int(time.time()),
            },
        )

    # Servers that ignore threads

    @property
    def _is_trusted(self) -> bool:
        if self._knows_threads is None and str(self._sdk.client.base_url).startswith(OWN_URL):
            self._knows_threads = True
        return self._knows_threads is True

    def _may_go_on(self, request: ProviderRequest) -> bool:
        """Whether the server is known to hold threads, or its answer would show if it does not."""
        if self._is_trusted:
            return True
        whole, new = (sum(map(estimate, each)) for each in (request.window, request.new_messages))
        has_count = bool(request.context.provider_context.get("tokens"))
        return has_count and whole >= CLEARLY_SHORTER * new

    def _check(self, counted: int, request: ProviderRequest, arguments: Arguments) -> None:
        """Raises _ForgetsError if an answer counts fewer tokens than the thread must have."""
        thread = arguments.get("thread")
        if self._is_trusted or thread is None or thread["type"] != "continue":
            return
        expected = request.context.provider_context.get("tokens")
        if expected is None:  # a pause within the turn
            return
        if counted < 0.75 * expected:
            raise _ForgetsError
        self._knows_threads = True


def _threading(fixed: Arguments, thread: Mapping[str, Any]) -> Arguments:
    return {"thread": thread, "betas": [*fixed.get("betas", ()), BETA]}


def _fingerprint(fixed: Arguments) -> str:
    """What must be the same for a thread to be gone on with."""
    parts = {key: fixed.get(key) for key in ("model", "system", "tools")}
    return hashlib.sha256(to_json(parts, fallback=str)).hexdigest()[:16]


def _error_code(error: Exception) -> str | None:
    """The code of an error of threads."""
    body = getattr(error.__cause__, "body", None)
    for key in ("error", "details"):
        body = body.get(key) if isinstance(body, Mapping) else None
    return str(body.get("error_code")) if isinstance(body, Mapping) else None
