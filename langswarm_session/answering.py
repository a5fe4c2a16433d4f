"""How a turn gets its reply: from the session's provider, or from those that stand in for it."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langswarm_session.blocks import ToolCallBlock
from langswarm_session.errors import (
    ProviderCapabilityError,
    ProviderRateLimitError,
    ProviderSessionError,
    ProviderStreamError,
    SessionError,
)
from langswarm_session.interfaces import IProviderSession, ProviderCapability
from langswarm_session.models import Fallback, MessageRole, SessionMessage
from langswarm_session.pipeline import in_session
from langswarm_session.provider_state import ProviderState, state_of, with_state
from langswarm_session.records import (
    ProviderReply,
    ProviderRequest,
    SessionChanges,
    StreamEvent,
    Takeover,
)
from langswarm_session.sendable import describe_repairs
from langswarm_session.tokens import within_budget

if TYPE_CHECKING:
    from langswarm_session.session import BaseSession
    from langswarm_session.turns import OpenTurn

logger = logging.getLogger(__name__)

NOTES = "langswarm"
"""The key of a reply's metadata under which repairs and a takeover are kept."""

REST_SECONDS = 30.0
"""How long a provider that failed is left alone where others can answer and it named no time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply and what to store with it.

    Attributes:
        messages: The reply's messages.
        provider_state: The state of all the session's providers, if that changed.
    """

    messages: list[SessionMessage]
    provider_state: Mapping[str, Any] | None


class Outages:
    """Which providers are left alone for a while, because they failed and others can answer."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[float, str]] = {}

    def began(self, provider: str, error: ProviderSessionError) -> None:
        """The provider failed: leave it alone for as long as it says, or for a while."""
        seconds = REST_SECONDS
        if isinstance(error, ProviderRateLimitError) and error.retry_after is not None:
            seconds = error.retry_after
        self._until[provider] = (time.monotonic() + seconds, _reason(error))

    def ended(self, provider: str) -> None:
        """The provider answered."""
        self._until.pop(provider, None)

    def reason(self, provider: str) -> str | None:
        """Why the provider is left alone; None if it is not."""
        until, reason = self._until.get(provider, (0.0, ""))
        return reason if time.monotonic() < until else None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]


class Answering:
    """Gets one turn's reply.

    Args:
        session: The session.
        turn: The turn, open.
        options: The caller's keywords for the provider.
    """

    def __init__(self, session: BaseSession, turn: OpenTurn, options: Mapping[str, Any]) -> None:
        self._session = session
        self._turn = turn
        self._options = options
        self._outages = session.manager._outages
        context = session.context
        self._own = Fallback(provider=context.provider, model=context.model)
        self._takeover: Takeover | None = None

    async def send(self) -> Answer:
        """The whole reply.

        Raises:
            ProviderSessionError: If nobody gives one; the error of the last one asked.
        """
        candidates = self._candidates()
        for candidate in candidates:
            is_last = candidate is candidates[-1]
            request: ProviderRequest | None = None
            try:
                provider = self._provider(candidate)
                request = await self._request(provider, candidate, is_last)
                reply = await provider.send_message(request)
                answer = self._answer(reply, request, candidate)
            except Exception as error:
                await self._tell_repairs(request)
                failure = self._error(error, candidate)
                if is_last or not self._can_take_over(failure):
                    raise failure from _cause(error, failure)
                await self._take_over(candidate, candidates, failure)
            else:
                await self._tell_repairs(request)
                self._outages.ended(candidate.provider)
                return answer
        raise AssertionError("there is always somebody to ask")  # pragma: no cover

    async def stream(self) -> AsyncGenerator[StreamEvent | Answer, None]:
        """The reply in pieces; the last thing yielded is the answer.

        Raises:
            ProviderSessionError: If nobody gives one, or one breaks off after its first piece.
        """
        candidates = self._candidates()
        for candidate in candidates:
            is_last, has_begun = candidate is candidates[-1], False
            request: ProviderRequest | None = None
            try:
                provider = self._provider(candidate)
                request = await self._request(provider, candidate, is_last)
                reply: ProviderReply | None = None
                async with aclosing(provider.stream_message(request)) as events:
                    async for event in events:
                        if isinstance(event, ProviderReply):
                            reply = event
                        else:
                            has_begun = True
                            yield event
                answer = self._answer(reply, request, candidate)
            except Exception as error:
                await self._tell_repairs(request)
                failure = self._error(error, candidate)
                if is_last or has_begun or not self._can_take_over(failure):
                    raise failure from _cause(error, failure)
                await self._take_over(candidate, candidates, failure)
            else:
                await self._tell_repairs(request)
                self._outages.ended(candidate.provider)
                yield answer
                return

    # Who is asked

    def _candidates(self) -> list[Fallback]:
        """Who may answer, in order; those that are left alone for now are not among them."""
        everyone = [self._own, *self._session.context.fallback]
        awake = [each for each in everyone if self._outages.reason(each.provider) is None]
        if not awake or len(everyone) == 1:
            return everyone
        if awake[0] is not self._own:
            reason = self._outages.reason(self._own.provider) or ""
            self._takeover = self._takeover_by(awake[0], f"left alone after {reason}")
        return awake

    def _provider(self, candidate: Fallback) -> IProviderSession:
        session = self._session
        provider = session.manager._provider(candidate.provider, session.session_id)
        if self._options.get("tools") and ProviderCapability.TOOLS not in provider.capabilities:
            raise ProviderCapabilityError(
                f"the provider {provider.name!r} takes no tools",
                session_id=session.session_id,
                provider=provider.name,
            )
        return provider

    def _can_take_over(self, failure: SessionError) -> bool:
        return isinstance(failure, ProviderSessionError) and failure.retriable

    async def _take_over(
        self, failed: Fallback, candidates: Sequence[Fallback], error: SessionError
    ) -> None:
        assert isinstance(error, ProviderSessionError)
        self._outages.began(failed.provider, error)
        following = candidates[candidates.index(failed) + 1]
        self._takeover = self._takeover_by(following, _reason(error))
        logger.warning(
            "session %r: %s answers in place of %s: %s",
            self._session.session_id,
            following.provider,
            failed.provider,
            _reason(error),
        )

    def _takeover_by(self, candidate: Fallback, reason: str) -> Takeover:
        own = self._own
        model = candidate.model or own.model or ""
        return Takeover(own.provider, own.model or "", candidate.provider, model, reason)

    # What it is asked, and what comes of it

    async def _request(
        self, provider: IProviderSession, candidate: Fallback, is_last: bool
    ) -> ProviderRequest:
        session, turn = self._session, self._turn
        state = state_of(session.context, candidate.provider)
        context = session.context.model_copy(
            update={
                "provider": candidate.provider,
                "model": candidate.model or session.context.model,
                **state.to_context(),
            }
        )

        async def save(native: str | None, native_context: Mapping[str, Any] | None) -> None:
            saved = ProviderState(native, dict(native_context or {}))
            await self._save(candidate.provider, saved)

        history = await turn.history()
        new_count = len(turn.messages)
        messages = [*history, *turn.messages]
        if not state.is_empty:
            messages, new_count = _unseen_last(history, turn.messages, state.seq)
        request = ProviderRequest(
            session_id=session.session_id,
            context=context,
            messages=messages,
            new_count=new_count,
            options=self._options,
            target=provider.target(context, self._options),
            turn_id=turn.id,
            in_step=not state.is_empty and turn.id == state.seq + 1 and not turn.resumed,
            retries=None if is_last else 0,
            save=save,
        )
        return await within_budget(request, provider)

    async def _save(self, provider: str, state: ProviderState) -> None:
        session = self._session
        changes = SessionChanges(provider_state=with_state(session.context, provider, state))
        record = await session._storage.update_session(session.session_id, changes)
        session._moved(record)

    def _answer(
        self, reply: ProviderReply | None, request: ProviderRequest, candidate: Fallback
    ) -> Answer:
        if reply is None:
            raise ProviderStreamError(
                "the stream ended before the reply was complete; send the message again",
                provider=candidate.provider,
            )
        if not reply.messages:
            raise ProviderSessionError(
                f"the provider {candidate.provider!r} gave no message", provider=candidate.provider
            )
        messages = [self._noted(message, request) for message in reply.messages]
        state = None
        if reply.provider_session_id is not None or reply.provider_context is not None:
            session = self._session
            after = ProviderState(
                reply.provider_session_id,
                dict(reply.provider_context or {}),
                session._record.last_seq + len(messages),
                [block.id for block in messages[-1].blocks
                 if isinstance(block, ToolCallBlock) and block.id],
            )  # fmt: skip
            state = with_state(session.context, candidate.provider, after)
        return Answer(messages, state)

    def _noted(self, message: SessionMessage, request: ProviderRequest) -> SessionMessage:
        """The message with who made it, and what was done so that it could be made."""
        if message.role is not MessageRole.ASSISTANT:
            return message
        context = request.context
        update: dict[str, Any] = {
            "provider": message.provider or context.provider,
            "model": message.model or context.model,
        }
        notes: dict[str, Any] = {}
        if request.repairs:
            notes["repairs"] = describe_repairs(request.repairs)
        if self._takeover is not None:
            taken = self._takeover
            notes["fallback"] = {
                "provider": taken.provider,
                "model": taken.model,
                "reason": taken.reason,
            }
        if notes:
            update["metadata"] = {**message.metadata, NOTES: notes}
        return message.model_copy(update=update)

    async def _tell_repairs(self, request: ProviderRequest | None) -> None:
        session = self._session
        if request is not None and request.repairs:
            await session._pipeline.repaired(session, request.repairs)
        if self._takeover is not None and request is not None:
            if self._takeover.by_provider == request.context.provider:
                await session._pipeline.taken_over(session, self._takeover)

    def _error(self, error: Exception, candidate: Fallback) -> SessionError:
        session_id = self._session.session_id
        if isinstance(error, SessionError):
            return in_session(error, session_id)
        return ProviderSessionError(
            f"the provider {candidate.provider!r} failed: {type(error).__name__}",
            session_id=session_id,
            provider=candidate.provider,
        )


def _cause(error: Exception, failure: SessionError) -> BaseException | None:
    return error.__cause__ if failure is error else error


def _unseen_last(
    history: Sequence[SessionMessage], new: Sequence[SessionMessage], seq: int
) -> tuple[list[SessionMessage], int]:
    """The window with what a provider has not seen at its end, and how many that are."""
    unseen = [message for message in history if (message.seq or 0) > seq]
    seen = [message for message in history if (message.seq or 0) <= seq]
    last = [*unseen, *new]
    return [*seen, *last], len(last)
