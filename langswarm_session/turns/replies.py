"""How a turn gets its reply: from the session's provider, or from those that stand in for it."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langswarm_session._sanitize import one_line
from langswarm_session.blocks import ToolCallBlock
from langswarm_session.errors import (
    ContextLengthError,
    InvalidReasoningError,
    ProviderCapabilityError,
    ProviderSessionError,
    ProviderStreamError,
    RevisionConflictError,
    SessionError,
    TurnLostError,
    in_session,
)
from langswarm_session.interfaces import IProviderSession, ProviderCapability
from langswarm_session.models import (
    NOTES,
    Fallback,
    MessageRole,
    SessionBackend,
    SessionContext,
    SessionMessage,
)
from langswarm_session.records import (
    FallbackEvent,
    PrefixChange,
    PrefixChangeReason,
    ProviderReply,
    ProviderRequest,
    SessionChanges,
    StreamEvent,
)
from langswarm_session.requests.budget import estimate, within_budget
from langswarm_session.requests.normalize import describe_repairs
from langswarm_session.requests.provider_state import ProviderState, state_of, with_state
from langswarm_session.requests.window import begin, calls_needed, compaction_in, is_lasting
from langswarm_session.tools import as_tools
from langswarm_session.turns.circuit_breaker import failure_reason, is_outage

if TYPE_CHECKING:
    from langswarm_session.turns.core import SessionCore
    from langswarm_session.turns.turn import OpenTurn

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply and what to store with it.

    Attributes:
        messages: The reply's messages.
        provider_state: The state of all the session's providers, if that changed.
    """

    messages: list[SessionMessage]
    provider_state: Mapping[str, Any] | None


def check_tools(provider: IProviderSession, options: Mapping[str, Any], session_id: str) -> None:
    """Raises ProviderCapabilityError if there are tools, and the provider takes none."""
    if options.get("tools") and ProviderCapability.TOOLS not in provider.capabilities:
        raise ProviderCapabilityError(
            f"the provider {provider.name!r} takes no tools",
            session_id=session_id,
            provider=provider.name,
        )


def check_answerable(core: SessionCore, options: Mapping[str, Any]) -> None:
    """Raise what can be known to be wrong before anything is stored."""
    core.check_open()
    provider = core.provider()
    if options.get("tools"):
        as_tools(options["tools"])
    check_tools(provider, options, core.session_id)


@asynccontextmanager
async def _closing(
    events: AsyncGenerator[StreamEvent | ProviderReply, None],
) -> AsyncIterator[AsyncGenerator[StreamEvent | ProviderReply, None]]:
    """Close a provider's stream behind its reader, whatever its task groups make of that.

    A task group of anyio around a ``yield`` raises the generator's own `GeneratorExit` in a group
    (see "Avoiding cancel scope stack corruption" in anyio's documentation), which would reach the
    reader as an error of closing.
    """
    try:
        yield events
    finally:
        try:
            await events.aclose()
        except BaseExceptionGroup as group:
            _, errors = group.split(GeneratorExit)
            if errors is not None:
                raise errors from None


async def answer(core: SessionCore, turn: OpenTurn, options: Mapping[str, Any]) -> SessionMessage:
    """Have the provider answer a turn, and complete the turn with it.

    Args:
        core: The session.
        turn: The turn.
        options: The caller's keywords for the provider.

    Returns:
        The reply as it was stored.
    """
    if turn.replayed:
        return turn.reply
    async with turn:
        with turn.answering():
            reply = await Answering(core, turn, options).send()
        stored = await turn.complete(reply.messages, provider_state=reply.provider_state)
    return stored[-1]


class Answering:
    """Gets one turn's reply.

    Args:
        core: The session.
        turn: The turn, open.
        options: The caller's keywords for the provider.
    """

    def __init__(self, core: SessionCore, turn: OpenTurn, options: Mapping[str, Any]) -> None:
        self._core = core
        self._turn = turn
        turn.tells_change = False
        self._options = options
        self._breaker = core.shared.breaker
        context = core.context
        self._own = Fallback(provider=context.provider, model=context.model)
        self._last_choice = self._own
        self._asked = self._own
        self._fallback_event: FallbackEvent | None = None
        self._told: PrefixChange | None = None

    async def send(self) -> Answer:
        """The whole reply.

        Raises:
            ProviderSessionError: If nobody gives one; the error of the last one asked.
        """
        candidates = self._candidates()
        waiting = list(candidates)
        while True:
            candidate = waiting[0]
            request: ProviderRequest | None = None
            try:
                provider = self._provider(candidate)
                request = await self._request(provider, candidate, self._retries(candidate))
                reply = await provider.send_message(request)
                answer = self._answer(reply, request, candidate)
            except Exception as error:  # noqa: BLE001 - what a provider raises is translated
                await self._failed(error, request, waiting, candidates)
            else:
                await self._answered(candidate, request)
                return answer

    async def stream(self) -> AsyncGenerator[StreamEvent | Answer, None]:
        """The reply in pieces; the last thing yielded is the answer.

        Raises:
            ProviderSessionError: If nobody gives one, or one breaks off after its first piece.
        """
        candidates = self._candidates()
        waiting = list(candidates)
        while True:
            candidate, has_begun = waiting[0], False
            request: ProviderRequest | None = None
            try:
                provider = self._provider(candidate)
                request = await self._request(provider, candidate, self._retries(candidate))
                reply: ProviderReply | None = None
                async with _closing(provider.stream_message(request)) as events:
                    async for event in events:
                        if isinstance(event, ProviderReply):
                            reply = event
                        else:
                            has_begun = True
                            yield event
                answer = self._answer(reply, request, candidate)
            except Exception as error:  # noqa: BLE001 - what a provider raises is translated
                if has_begun:
                    waiting.clear()
                await self._failed(error, request, waiting, candidates)
            else:
                await self._answered(candidate, request)
                yield answer
                return

    async def _failed(
        self,
        error: Exception,
        request: ProviderRequest | None,
        waiting: list[Fallback],
        candidates: Sequence[Fallback],
    ) -> None:
        """Return if there is somebody to ask next, the first of those who wait.

        Args:
            error: Why the first of them gave no reply.
            request: What it was asked, if it came to that.
            waiting: Who may still be asked; empty once a reader has seen a part of a reply.
            candidates: Everybody who may answer.

        Raises:
            SessionError: The error, if nobody is left.
        """
        await self._tell_repairs(request)
        candidate = waiting[0] if waiting else self._asked
        failure = self._error(error, candidate)
        if waiting and request is not None and self._remedied(failure, request):
            return
        if len(waiting) < 2 or not self._can_take_over(failure, candidate):
            if isinstance(failure, ContextLengthError):
                self._turn.forget_beginning()  # the new message is too long, not what was before it
            raise failure from _cause(error, failure)
        self._take_over(candidate, candidates, failure)
        waiting.pop(0)

    def _remedied(self, failure: SessionError, request: ProviderRequest) -> bool:
        """Return whether the same provider can be asked another way, as the turn is set up for."""
        turn, context = self._turn, self._core.context
        state = turn.request_state(context)
        if isinstance(failure, InvalidReasoningError) and state.reasoning_after < turn.id - 1:
            logger.info("session %r: reasoning of earlier replies is left out: %s",
                        turn.session_id, one_line(failure))  # fmt: skip
            state = state.without_reasoning(turn.id - 1)
            turn.keep_request_state(state)
            turn.prefix_change = PrefixChangeReason.REASONING
            return True
        if isinstance(failure, InvalidReasoningError) and any(map(compaction_in, request.window)):
            # Encrypted as well, for the organization and the server that made it:
            # https://github.com/lidge-jun/opencodex/pull/2228. The messages are in the log.
            logger.info("session %r: its compaction is left out: %s",
                        turn.session_id, one_line(failure))  # fmt: skip
            turn.keep_request_state(state.without_compactions(turn.id - 1))
            turn.prefix_change = PrefixChangeReason.REASONING
            return True
        if isinstance(failure, ContextLengthError):
            start = _middle(request)
            if start is not None:
                logger.info("session %r: older messages are left out: %s",
                            turn.session_id, one_line(failure))  # fmt: skip
                turn.begin_requests_at(start, PrefixChangeReason.SIZE)
                return True
        return False

    # Who is asked

    def _candidates(self) -> list[Fallback]:
        """Who may answer, in order; those that are left alone for now are asked last."""
        everyone = [self._own, *self._core.context.fallback]
        self._last_choice = everyone[-1]
        rested = [each for each in everyone if self._breaker.open_reason(each) is None]
        if len(rested) in (0, len(everyone)):
            return everyone
        resting = [each for each in everyone if self._breaker.open_reason(each) is not None]
        self._last_choice = rested[-1]
        if rested[0] is not self._own:
            reason = self._breaker.open_reason(self._own) or ""
            self._note_fallback(rested[0], f"left alone after {reason}")
        return [*rested, *resting]

    def _provider(self, candidate: Fallback) -> IProviderSession:
        self._asked = candidate
        provider = self._core.provider(candidate.provider)
        check_tools(provider, self._options, self._core.session_id)
        return provider

    def _retries(self, candidate: Fallback) -> int | None:
        """How often a provider tries again: not at all where another one may take over."""
        return None if candidate is self._last_choice else 0

    def _can_take_over(self, failure: SessionError, candidate: Fallback) -> bool:
        """Whether the next one may be asked: after an outage, or one that cannot stand in."""
        if candidate is not self._own and isinstance(failure, ProviderCapabilityError):
            return True
        return is_outage(failure)

    def _take_over(
        self, failed: Fallback, candidates: Sequence[Fallback], error: SessionError
    ) -> None:
        if is_outage(error):
            self._breaker.record_failure(failed, error)
        following = candidates[candidates.index(failed) + 1]
        self._note_fallback(following, failure_reason(error))
        logger.warning(
            "session %r: %s answers in place of %s: %s",
            self._core.session_id,
            following.provider,
            failed.provider,
            one_line(failure_reason(error)),
        )

    def _note_fallback(self, candidate: Fallback, reason: str) -> None:
        own = self._own
        self._fallback_event = None
        if candidate is not own:
            model = candidate.model or own.model or ""
            self._fallback_event = FallbackEvent(
                own.provider, own.model or "", candidate.provider, model, reason
            )

    async def _answered(self, candidate: Fallback, request: ProviderRequest) -> None:
        self._breaker.record_success(candidate)
        await self._tell_repairs(request)
        if self._told is not None:
            await self._core.pipeline.prefix_changed(self._core.session, self._told)
        if self._fallback_event is not None:
            await self._core.pipeline.fell_back(self._core.session, self._fallback_event)

    # What it is asked, and what comes of it

    async def _request(
        self, provider: IProviderSession, candidate: Fallback, retries: int | None
    ) -> ProviderRequest:
        core, turn = self._core, self._turn
        context, state = self._context_for(candidate)

        async def save(native: str | None, native_context: Mapping[str, Any] | None) -> None:
            saved = ProviderState(native, dict(native_context or {}))
            await self._save(candidate.provider, saved)

        target = provider.target(context, self._options)
        history = await turn.history(context, target)
        refused = turn.request_state(context).compactions_refused
        history = [_without_compaction(each, refused) for each in history]
        new_count = len(turn.messages)
        messages = [*history, *turn.messages]
        if not state.is_empty:
            messages, new_count = _unseen_last(history, turn.messages, state.seq)
        sent = turn.request_state(context)
        request = ProviderRequest(
            session_id=core.session_id,
            context=context,
            messages=messages,
            new_count=new_count,
            options=self._options,
            target=target,
            turn_id=turn.id,
            in_step=not state.is_empty and turn.id == state.seq + 1 and not turn.resumed,
            retries=retries,
            save=save,
            notes=sent.notes.get(candidate.provider),
            reasoning_after=sent.reasoning_after,
        )
        window = await within_budget(request, provider)
        if window.start is None:
            return request
        turn.begin_requests_at(window.start, PrefixChangeReason.BUDGET)
        return request.with_window(window.messages)

    def _context_for(self, candidate: Fallback) -> tuple[SessionContext, ProviderState]:
        """The session's context as if a candidate were its provider, and that one's state."""
        context = self._core.context
        state = state_of(context, candidate.provider)
        if candidate is self._own:
            return context, state
        update: dict[str, Any] = {
            "provider": candidate.provider,
            "model": candidate.model or context.model,
        }
        if candidate.provider == self._own.provider:
            # Another model of the same provider answers without touching the conversation there.
            state = ProviderState()
            update["backend"] = SessionBackend.LOCAL_MEMORY
        return context.model_copy(update={**update, **state.to_context()}), state

    async def _save(self, provider: str, state: ProviderState) -> None:
        """Store a provider's state while the turn holds the session, and not later.

        Raises:
            TurnCancelledError, TurnLostError: If the turn has ended: the state may be that of a
                later turn by now.
        """
        core, turn = self._core, self._turn
        record = core.record
        if record.turn_token != turn.token:  # it may be what an earlier call saw
            record = await core.storage.get_session(core.ref)
        while record.turn_token == turn.token:
            changes = SessionChanges(
                provider_state=with_state(record.to_context(), provider, state)
            )
            try:
                await core.update(changes, expected_revision=record.revision)
            except RevisionConflictError:
                record = await core.storage.get_session(core.ref)
            else:
                return
        turn.check()
        raise TurnLostError(
            f"the turn had ended before the state of the provider {provider!r} was stored; it was "
            "left as it is",
            session_id=core.session_id,
        )

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
        self._told = self._change(request)
        messages = [self._noted(message, request) for message in reply.messages]
        self._keep_notes(reply, candidate)
        state = None
        if reply.provider_session_id is not None or reply.provider_context is not None:
            after = ProviderState(
                reply.provider_session_id,
                dict(reply.provider_context or {}),
                self._core.record.last_seq + len(messages),
                [block.id for block in messages[-1].blocks
                 if isinstance(block, ToolCallBlock) and block.id],
            )  # fmt: skip
            state = with_state(self._core.context, candidate.provider, after)
        return Answer(messages, state)

    def _keep_notes(self, reply: ProviderReply, candidate: Fallback) -> None:
        """Have what the provider says about its requests stored with the turn."""
        turn = self._turn
        state = turn.request_state(self._core.context).told()
        if reply.dropped_reasoning:
            state = state.without_reasoning(turn.id - 1)
        if reply.notes is not None:
            state = state.with_notes(candidate.provider, reply.notes)
        for seq, message in enumerate(reply.messages, self._core.record.last_seq + 1):
            if compaction_in(message) is not None:
                state = state.compacted(candidate.provider, seq)
        turn.keep_request_state(state)

    def _noted(self, message: SessionMessage, request: ProviderRequest) -> SessionMessage:
        """The message with who made it, and what was done so that it could be made."""
        if message.role is not MessageRole.ASSISTANT:
            return message
        context = request.context
        update: dict[str, Any] = {
            "provider": message.provider or context.provider,
            "model": message.model or context.model,
        }
        noted = message.metadata.get(NOTES)
        notes: dict[str, Any] = dict(noted) if isinstance(noted, dict) else {}
        if request.made_under is not None:
            notes |= request.made_under.to_notes()
        if self._told is not None:
            notes["prefix_change"] = self._told.model_dump(mode="json")
        if request.repairs:
            notes["repairs"] = describe_repairs(request.repairs)
        if self._fallback_event is not None:
            taken = self._fallback_event
            notes["fallback"] = {
                "provider": taken.provider,
                "model": taken.model,
                "reason": taken.reason,
            }
        if notes:
            update["metadata"] = {**message.metadata, NOTES: notes}
        return SessionMessage._trusted({**message.__dict__, **update})

    def _change(self, request: ProviderRequest) -> PrefixChange | None:
        """Return why the request does not begin with the whole of the one before, if so."""
        reason = self._turn.changed_prefix() or request.changed
        if reason is None:
            return None
        return PrefixChange(reason=reason, tokens=sum(map(estimate, request.window)))

    async def _tell_repairs(self, request: ProviderRequest | None) -> None:
        if request is not None and request.repairs:
            await self._core.pipeline.repaired(self._core.session, request.repairs)

    def _error(self, error: Exception, candidate: Fallback) -> SessionError:
        session_id = self._core.session_id
        if isinstance(error, SessionError):
            return in_session(error, session_id)
        return ProviderSessionError(
            f"the provider {candidate.provider!r} failed: {type(error).__name__}",
            session_id=session_id,
            provider=candidate.provider,
        )


def _cause(error: Exception, failure: SessionError) -> BaseException | None:
    return error.__cause__ if failure is error else error


def _without_compaction(message: SessionMessage, through: int) -> SessionMessage:
    """Return a message without the compaction in it, if it is one of those up to a number."""
    compacted = compaction_in(message) if (message.seq or through + 1) <= through else None
    if compacted is None:
        return message
    left = [block for block in message.blocks if block not in compacted.blocks]
    return message.replaced(content=left, native=None)


def _middle(request: ProviderRequest) -> int | None:
    """Return where requests begin that have half of the history; None if there is no half left."""
    new_at = len(request.window) - request.new_count
    history, new = request.window[:new_at], request.window[new_at:]
    places = [place for place, message in enumerate(history) if not is_lasting(message)]
    if not places:
        return None
    begun = begin(history, places[len(places) // 2] + 1, calls_needed(new))
    return begun.start if len(begun.messages) < len(history) else None


def _unseen_last(
    history: Sequence[SessionMessage], new: Sequence[SessionMessage], seq: int
) -> tuple[list[SessionMessage], int]:
    """The window with what a provider has not seen at its end, and how many that are."""
    unseen = [message for message in history if (message.seq or 0) > seq]
    seen = [message for message in history if (message.seq or 0) <= seq]
    last = [*unseen, *new]
    return [*seen, *last], len(last)
