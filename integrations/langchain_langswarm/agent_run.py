"""One run of an agent on a session: what the agent knows, and what of it is stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextvars import ContextVar, copy_context
from dataclasses import replace
from typing import Any, TypeVar

from langchain.agents.middleware.types import ModelResponse
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    ToolMessage,
)
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command

from langchain_langswarm.messages import from_langchain, to_langchain, to_langchain_messages
from langswarm_session import window
from langswarm_session.models import MessageRole, SessionMessage, new_id
from langswarm_session.sendable import Target, describe_repairs, make_sendable
from langswarm_session.session import BaseSession
from langswarm_session.turns import OpenTurn

logger = logging.getLogger(__name__)

_SUMMARY = "Here is a summary of the conversation to date:\n\n"
"""What a summary begins with, of a LangChain that does not say so otherwise."""

M = TypeVar("M", bound=BaseMessage)


class AgentRun:
    """A run of an agent on a session, from its first hook to its end.

    What the state has behind the last message that the record knows is new, and so is whatever
    the agent adds. The turn begins with the first of it that is stored.

    Args:
        session: The session.
        known: The window: what of the record the agent is to know.
        state: The messages in the agent's state.
        key: The caller's idempotency key, of a run that begins.
        is_async: Whether the run was called with ``await``.

    Attributes:
        replayed: The turn, if it was complete already: then the agent has nothing to do.
    """

    def __init__(
        self,
        session: BaseSession,
        known: Sequence[SessionMessage],
        state: Sequence[BaseMessage],
        *,
        key: str | None,
        is_async: bool,
    ) -> None:
        self.is_async = is_async
        self.replayed: OpenTurn | None = None
        self._session = session
        self._key = key
        self._revision = session.revision
        self._seqs = {message.id: message.seq for message in known if message.seq is not None}
        parts = {message.id: to_langchain_messages([message]) for message in known}
        self._known = {made.id for part in parts.values() for made in part}
        self._old = _count_old(state, self._known)
        self._known |= {message.id for message in state[: self._old]}
        room = max(0, session.context.max_messages - (len(state) - self._old))
        self._history = [made for message in window.cut(known, room) for made in parts[message.id]]
        self._turn: OpenTurn | None = None
        self._own: set[str | None] = set()
        self._late: list[BaseMessage] = []
        self._changed: dict[str | None, BaseMessage] = {}
        self._variables: dict[ContextVar[Any], Any] = {}
        self._shown: list[str] | None = None
        self._lock = asyncio.Lock()

    # What the agent knows

    def merged(self, state: Sequence[BaseMessage]) -> list[BaseMessage] | None:
        """The state with what only the record has, in the record's order; None if nothing changes.

        What a summary in the state stands for stays out of it.
        """
        old, new = list(state[: self._old]), list(state[self._old :])
        places = {message.id: place for place, message in enumerate(self._history)}
        first = 0
        if any(map(is_summary, state)):
            kept = (places[message.id] for message in old if message.id in places)
            first = next(kept, len(self._history))
        merged: list[BaseMessage] = []
        for message in old:
            if message.id in places:
                place = places[message.id]
                merged += self._history[first:place]
                first = max(first, place + 1)
                # The state has the input as it came, the record as the middleware left it.
                if isinstance(message, HumanMessage):
                    message = self._history[place]  # noqa: PLW2901
            merged.append(message)
        merged += [*self._history[first:], *new]
        present = {message.id for message in merged}
        self._seqs = {name: seq for name, seq in self._seqs.items() if name in present}
        return None if merged == list(state) else merged

    async def asked(
        self, state: Sequence[BaseMessage], messages: Sequence[BaseMessage]
    ) -> list[BaseMessage]:
        """Store what is new in the state, before the model is asked.

        Returns:
            The messages for the model, with what the session's middleware made of them, and every
            call answered.
        """
        await self._keep_summary(state)
        stored = await self.keep(state)
        self._changed.update(
            (old.id, new) for old, new in zip(state, stored, strict=True) if old is not new
        )
        self._shown = []
        shown = [self._changed.get(message.id, message) for message in messages]
        if self._late:
            ours = (place for place, message in enumerate(shown) if message.id in self._own)
            at = next(ours, len(shown))
            shown[at:at] = self._late
        return self._sendable(shown)

    @property
    def holds_stream(self) -> bool:
        """Whether a middleware must see the whole reply before the reader sees any of it."""
        return self._turn is not None and self._turn.holds_stream

    def enter(self) -> None:
        """Let the record know that what follows in this context is inside of the turn."""
        for variable, value in self._variables.items():
            variable.set(value)

    # What is stored

    async def keep(self, messages: Sequence[M]) -> list[M]:
        """Store what is new among messages.

        Returns:
            The messages, those that the session's middleware changed as it left them.
        """
        keeping = self._keep(messages)
        # What has happened is stored even if the run is cancelled meanwhile; waiting for a turn to
        # begin is given up.
        return await (keeping if self._turn is None else asyncio.shield(keeping))

    async def _keep(self, messages: Sequence[M]) -> list[M]:
        async with self._lock:
            new = {message.id: message for message in messages if self._is_new(message)}
            if not new or self.replayed is not None:
                return list(messages)
            sent = [from_langchain(message) for message in new.values()]
            stored = await self._store(sent)
            self._known |= new.keys()
            self._own |= new.keys()
        changed = {
            given.id: _renamed(to_langchain(kept), given.id)
            for given, kept in zip(sent, stored, strict=True)
            if (given.role, given.content) != (kept.role, kept.content)
        }
        return [changed.get(message.id or "", message) for message in messages]  # type: ignore[misc]

    async def answered(self, response: ModelResponse[Any]) -> ModelResponse[Any]:
        """Store the model's answer."""
        kept = await self.keep([_with_id(message) for message in response.result])
        self._shown = None
        return replace(response, result=kept)

    async def returned(self, result: ToolMessage | Command[Any]) -> ToolMessage | Command[Any]:
        """Store a tool's result."""
        if isinstance(result, ToolMessage):
            return (await self.keep([_with_id(result)]))[0]
        update = result.update
        if not (isinstance(update, dict) and isinstance(update.get("messages"), list)):
            return result
        messages = update["messages"]
        if not all(isinstance(message, BaseMessage) for message in messages):
            return result  # stored once the state has made messages of them
        kept = await self.keep([_with_id(message) for message in messages])
        return replace(result, update={**update, "messages": kept})

    async def finish(self, state: Sequence[BaseMessage]) -> None:
        """Store what is left of the agent's messages, and end the turn."""
        await self.keep(state)
        if self._turn is not None:
            await self._turn.complete()

    def replay(self) -> ModelResponse[Any]:
        """The stored answer of a turn that was complete already."""
        assert self.replayed is not None
        answer = _renamed(to_langchain(self.replayed.reply), new_id())
        return ModelResponse(result=[answer])

    # How the run goes on

    def received(self, text: str) -> None:
        """Text of a model's answer that was streamed."""
        if self._shown is not None:
            self._shown.append(text)

    @property
    def is_open(self) -> bool:
        """Whether there is a turn to end, or one about to begin."""
        return self._lock.locked() or (self._turn is not None and self._turn.is_open)

    async def ended(self, error: BaseException | None) -> None:
        """End the turn, if the agent did not."""
        async with self._lock:
            turn = self._turn
            if turn is None:
                return
            if error is None or isinstance(error, GraphBubbleUp):
                await turn.cancel(reason="interrupted")
            elif isinstance(error, Exception):
                await turn.fail(error, self._partial("failed"))
            else:  # CancelledError, GeneratorExit, KeyboardInterrupt
                await turn.cancel(self._partial("cancelled"), type(error).__name__)

    def _partial(self, reason: str) -> list[SessionMessage]:
        """What was shown of an answer that is not there as a whole."""
        text = "".join(self._shown or ())
        role = MessageRole.ASSISTANT
        return [SessionMessage(role=role, content=text, finish_reason=reason)] if text else []

    def _is_new(self, message: BaseMessage) -> bool:
        return (
            # Without an id it is in no state, but was made up for one request.
            message.id is not None
            and message.id not in self._known
            and not isinstance(message, RemoveMessage)
            and not is_summary(message)
        )

    async def _store(self, sent: list[SessionMessage]) -> list[SessionMessage]:
        if self._turn is not None:
            return await self._turn.add(sent)
        before = copy_context()
        turn = await self._session.begin_turn(sent, idempotency_key=self._key)
        if turn.replayed:
            self.replayed = turn
            return sent
        self._turn = turn
        # Each of the agent's nodes has a context of its own.
        self._variables = {
            variable: value
            for variable, value in copy_context().items()
            if before.get(variable) is not value
        }
        if self._session.revision != self._revision + 1:  # somebody was quicker
            history = to_langchain_messages(await turn.history())
            self._late = [message for message in history if message.id not in self._known]
        # Some may have been stored before.
        stored = {message.id: message for message in turn.messages}
        same_length = len(turn.messages) == len(sent)
        return turn.messages if same_length else [stored.get(each.id, each) for each in sent]

    async def _keep_summary(self, state: Sequence[BaseMessage]) -> None:
        """Let a summary that another middleware made stand for what it covers from now on."""
        summary = next((each for each in state if is_summary(each)), None)
        present = {message.id for message in state}
        covered = [seq for name, seq in self._seqs.items() if name not in present]
        self._seqs = {name: seq for name, seq in self._seqs.items() if name in present}
        if summary is not None and covered:
            await self._session.set_summary(str(summary.text), max(covered))
            self._revision += 1

    def _sendable(self, messages: list[BaseMessage]) -> list[BaseMessage]:
        if _is_paired(messages):
            return messages
        converted = [from_langchain(message) for message in messages]
        own = {id(made): message for made, message in zip(converted, messages, strict=True)}
        sent, repairs = make_sendable(converted, Target())
        logger.info(
            "session %r: changed in the request: %s",
            self._session.session_id,
            describe_repairs(repairs),
        )
        return [
            message
            for each in sent
            for message in ([own[id(each)]] if id(each) in own else to_langchain_messages([each]))
        ]


async def load_window(session: BaseSession) -> list[SessionMessage]:
    """What of the record the session's next turn is to know."""
    context = session.context
    return await window.load(
        session.manager.storage,
        session.session_id,
        before=session.last_seq + 1,
        max_messages=context.max_messages,
        summary=context.summary,
    )


def is_summary(message: BaseMessage) -> bool:
    """Whether it is what LangChain's SummarizationMiddleware puts in place of others."""
    if not isinstance(message, HumanMessage):
        return False
    source = message.additional_kwargs.get("lc_source")
    return source == "summarization" or (
        source is None and isinstance(message.content, str) and message.content.startswith(_SUMMARY)
    )


def _count_old(state: Sequence[BaseMessage], known: set[str | None]) -> int:
    """How many messages there are up to the last one that the record knows."""
    return next(
        (place for place in range(len(state), 0, -1) if state[place - 1].id in known),
        0,
    )


def _is_paired(messages: Sequence[BaseMessage]) -> bool:
    """Whether each call's result follows it, and there is no other result."""
    waiting: set[str | None] = set()
    for message in messages:
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in waiting:
                return False
            waiting.discard(message.tool_call_id)
        elif waiting:
            return False
        elif isinstance(message, AIMessage):
            waiting = {call["id"] for call in message.tool_calls}
    return not waiting


def _with_id(message: M) -> M:
    """The message, as a copy with an id if it has none: equal ids tell what is stored."""
    return message if message.id is not None else _renamed(message, new_id())


def _renamed(message: M, message_id: str) -> M:
    return message.model_copy(update={"id": message_id})
