"""One run of an agent on a session: what the agent knows, and what of it is stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from langchain.agents.middleware.types import ModelResponse
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    RemoveMessage,
    ToolMessage,
)
from langgraph.errors import GraphBubbleUp, ParentCommand
from langgraph.types import Command

from langchain_langswarm.agent_state import (
    M,
    answers_of_others,
    by_question,
    count_before,
    count_old,
    from_record,
    is_summary,
    merged,
    renamed,
    said,
    unstorable_artifact,
    up_to_question,
    with_paired_calls,
    with_turn,
    without_artifact,
)
from langchain_langswarm.messages import (
    from_langchain,
    to_langchain,
)
from langchain_langswarm.system_messages import arranged, opened
from langswarm_session.doors import OpenTurn, Window, cut, estimate, one_line
from langswarm_session.errors import MessageRefusedError
from langswarm_session.models import RESULT_ROLES, MessageRole, SessionMessage, new_id
from langswarm_session.requests.normalize import describe_repairs
from langswarm_session.session import BaseSession

logger = logging.getLogger(__name__)


class AgentRun:
    """A run of an agent on a session, from its first hook to its end.

    What the agent was called with behind the last message that the record knows is new, and so is
    whatever the agent adds. The turn begins with the first of it that is stored, and with what the
    user says, new or not: the record tells whether that was answered already.

    Args:
        session: The session.
        found: The window: what of the record the agent is to know.
        state: The messages in the agent's state.
        given: Those of them that the agent was called with; none in a run that is resumed.
        key: The caller's idempotency key, of a run that begins.
        is_async: Whether the run was called with ``await``.
        is_nested: Whether it is called by a node of another graph.
        answerer: What tells the agent from others that are asked the same.
        regenerate: Whether to answer again what is answered already.

    Attributes:
        replayed: The turn, if it was complete already: then the agent has nothing to do.
    """

    def __init__(
        self,
        session: BaseSession,
        found: Window,
        state: Sequence[BaseMessage],
        *,
        given: Sequence[BaseMessage],
        key: str | None,
        is_async: bool,
        is_nested: bool = False,
        answerer: str = "",
        regenerate: bool = False,
    ) -> None:
        self.is_async = is_async
        self._is_nested = is_nested
        self._inserted: set[str | None] = set()
        self.replayed: OpenTurn | None = None
        self._session = session
        self._key = key
        self._answerer = answerer
        self._regenerate = regenerate
        self._replaced: set[str | None] = set()
        self._revision = session.revision
        known = self._window = found.messages
        self._seqs = {message.id: message.seq for message in known if message.seq is not None}
        parts = {message.id: from_record([message]) for message in known}
        self._recorded = {made.id for part in parts.values() for made in part}
        last = count_old(state, self._recorded)
        self._old = count_before(state, given, last)
        self._left = state[last : self._old]
        # What the user says is offered to the record as it is now, known or not.
        self._offered = said(given) or (_last_said(known) if regenerate else [])
        offered = {message.id: message for message in self._offered}
        self._known = self._recorded | {message.id for message in state[: self._old]}
        self._known -= offered.keys()
        if regenerate:
            shown = up_to_question(known, self._offered)
            kept = {message.id for message in shown}
            self._replaced = {
                made.id for name, part in parts.items() if name not in kept for made in part
            }
        else:
            others = answers_of_others(known, offered.keys(), answerer)
            shown = [message for message in known if message.id not in others]
        sent = cut(shown, session.context.max_messages, len(state) - self._old)
        self._begins = found if sent.start is None else sent
        history = [made for message in sent.messages for made in parts[message.id]]
        self._history = [offered.get(message.id, message) for message in history]
        self._turn: OpenTurn | None = None
        self._gone: set[str | None] = set()
        self._own: set[str | None] = set()
        self._late: list[BaseMessage] = []
        self._changed: dict[str | None, BaseMessage] = {}
        self._shown: list[str] = []
        self._is_asked = False
        self._lock = asyncio.Lock()

    # What the agent knows

    async def begun(self, state: Sequence[BaseMessage]) -> list[BaseMessage]:
        """Take what a run before left in the thread into the record, and the record into the state.

        Returns:
            The state with what only the record has.
        """
        given_up = await self._take_over(self._left)
        old = [message for message in state[: self._old] if message.id not in given_up]
        made = merged(old, state[self._old :], self._history)
        if self._regenerate and self._offered:  # without the answer that there is
            made = [message for message in made if message.id not in self._replaced]
            ids = [message.id for message in made]
            made = made[: ids.index(self._offered[-1].id) + 1]
        present = {message.id for message in made}
        self._seqs = {name: seq for name, seq in self._seqs.items() if name in present}
        self._inserted = present - {message.id for message in state}
        return made

    async def asked(
        self,
        state: Sequence[BaseMessage],
        messages: Sequence[BaseMessage],
        models: Sequence[BaseChatModel],
    ) -> list[BaseMessage]:
        """Store what is new in the state, before the model is asked.

        Args:
            state: The state.
            messages: Those of it, and others, that the model is to be sent.
            models: The model.

        Returns:
            The messages for the model, with what the session's middleware made of them, and every
            call answered.
        """
        await self._keep_summary(state)
        stored = await self.keep(state)
        self._changed.update(
            (old.id, new) for old, new in zip(state, stored, strict=True) if old is not new
        )
        self._begin_answer()
        shown = [self._changed.get(message.id, message) for message in messages]
        if self._late:
            ours = (place for place, message in enumerate(shown) if message.id in self._own)
            at = next(ours, len(shown))
            shown[at:at] = self._late
        shown = self._in_order(shown)
        paired, repairs = with_paired_calls(shown)
        placed, moved = arranged(paired, models)
        request, added = opened(placed, models)
        repairs = [*repairs, *moved, *added]
        if repairs:
            changes = describe_repairs(repairs)
            logger.info("session %r: changed in the request: %s", self._session.session_id, changes)
        return request

    @property
    def holds_stream(self) -> bool:
        """Whether a middleware must see the whole reply before the reader sees any of it."""
        return self._turn is not None and self._turn.holds_stream

    def enter(self) -> None:
        """Let the record know that what follows in this context is inside of the turn."""
        if self._turn is not None:
            self._turn.enter()

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
            sent = [self._stored_form(message) for message in new.values()]
            stored = await self._store(sent)
            self._known |= new.keys()
            self._own |= new.keys()
        changed = {
            message.id: _as_stored(message, kept)
            for message, given, kept in zip(new.values(), sent, stored, strict=True)
            if not given.says_same(kept)
        }
        return [changed.get(message.id, message) for message in messages]

    async def answered(self, response: ModelResponse[Any]) -> ModelResponse[Any]:
        """Store the model's answer."""
        if self._turn is None:
            self._key = None  # of what was said, which began no turn: not of an answer
        kept = await self.keep([self._as_new(message) for message in response.result])
        self._end_answer()
        return replace(response, result=kept)

    async def returned(self, result: ToolMessage | Command[Any]) -> ToolMessage | Command[Any]:
        """Store a tool's result."""
        if isinstance(result, ToolMessage):
            return (await self.keep([self._as_new(result)]))[0]
        update = result.update
        if not (isinstance(update, dict) and isinstance(update.get("messages"), list)):
            return result
        messages = update["messages"]
        if not all(isinstance(message, BaseMessage) for message in messages):
            return result  # stored once the state has made messages of them
        named = [each if each.id is not None else renamed(each, new_id()) for each in messages]
        kept = await self.keep(named)
        return replace(result, update={**update, "messages": kept})

    async def finish(self, state: Sequence[BaseMessage]) -> list[BaseMessage]:
        """Store what is left of the agent's messages, and end the turn.

        Returns:
            The state with the turn as it is stored. A graph around the agent's is not handed the
            history: its state would have that behind the question.
        """
        await self.keep(state)
        if self._turn is not None:
            await self._turn.complete()
        made = self._in_order(state)
        if not self._is_nested:
            return made
        turn = self.replayed or self._turn
        own = set() if turn is None else {made.id for made in from_record(turn.messages)}
        left_out = self._inserted - own
        return [message for message in made if message.id not in left_out]

    def replay(self) -> ModelResponse[Any]:
        """Return the stored answer of a turn that was complete already."""
        assert self.replayed is not None
        stored = to_langchain(self.replayed.reply)
        # The agent is to be done, and what has a known id is not streamed.
        if not isinstance(stored, AIMessage) or stored.tool_calls:
            stored = AIMessage(stored.content)
        answer = renamed(stored, new_id())
        self._gone.add(answer.id)
        return ModelResponse(result=[answer])

    # How the run goes on

    def answering(self) -> AbstractContextManager[None]:
        """Return a block in which the model or a tool runs; it ends when the turn is ended.

        Raises:
            TurnCancelledError, TurnLostError: If the turn was ended from outside.
        """
        return nullcontext() if self._turn is None else self._turn.answering()

    def check(self) -> None:
        """Raise if the turn was ended from outside: where nothing can be interrupted.

        Raises:
            TurnCancelledError, TurnLostError: Why.
        """
        if self._turn is not None:
            self._turn.check()

    def received(self, text: str) -> None:
        """Take a piece of text that the model streamed."""
        if self._is_asked:
            self._shown.append(text)

    def _begin_answer(self) -> None:
        self._end_answer()
        self._is_asked = True

    def _end_answer(self) -> None:
        self._is_asked = False
        self._shown.clear()

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
            if isinstance(error, ParentCommand) and not turn.is_stopped:
                await turn.complete()  # it handed over to another agent of the graph
            elif error is None or isinstance(error, GraphBubbleUp):
                await turn.cancel(reason="interrupted")
            else:
                await turn.end_by(error, _partial(self._shown))

    async def _take_over(self, left: Sequence[BaseMessage]) -> set[str | None]:
        """Store what the thread has and the record has not: a turn for each question.

        Returns:
            The ids of what the thread gives up: what a middleware of the session refuses, and what
            was never answered and is asked again now.
        """
        if not left:
            return set()
        session = self._session
        newest = await session.get_messages(session.context.max_messages)
        stored = {message.id for message in newest}
        given_up: set[str | None] = set()
        new = (each for each in left if each.id not in stored and not is_summary(each))
        for turn in by_question(new):
            if len(turn) == 1 and any(turn[0].content == now.content for now in self._offered):
                given_up.add(turn[0].id)
                continue
            before = session.revision
            try:
                await session.record([self._stored_form(message) for message in turn])
                self._revision += session.revision != before
            except MessageRefusedError as error:
                given_up |= {message.id for message in turn}
                logger.warning("%s; its thread has it no more", one_line(error))
        return given_up

    def _in_order(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        """Messages with the turn as the record has it, if that has some under other ids."""
        turn = self.replayed or self._turn
        if turn is None or not self._gone:
            return list(messages)
        return with_turn(messages, from_record(turn.messages), self._gone)

    def _stored_form(self, message: BaseMessage) -> SessionMessage:
        """Return a message as it is stored: a result without an artifact that cannot be."""
        reason = unstorable_artifact(message)
        if reason is None:
            return from_langchain(message)
        logger.warning(
            "session %r: the result of the tool %r is stored without its artifact: %s",
            self._session.session_id,
            message.name,
            reason,
        )
        return from_langchain(without_artifact(message))

    def _as_new(self, message: M) -> M:
        """Return the message, as a copy with an id of its own if it has none, or a known one's."""
        if message.id is None or message.id in self._known:
            return renamed(message, new_id())
        return message

    def _is_new(self, message: BaseMessage) -> bool:
        return (
            message.id not in self._known
            and not isinstance(message, RemoveMessage)
            and not is_summary(message)
        )

    async def _store(self, sent: list[SessionMessage]) -> list[SessionMessage]:
        if self._turn is not None:
            return await self._turn.add(sent)
        turn = await self._session.begin_turn(
            sent,
            idempotency_key=self._key,
            answerer=self._answerer,
            regenerate=self._regenerate,
        )
        if turn.replayed and turn.reply.role is MessageRole.USER:
            return sent  # another door stored it, unanswered: the turn begins with the answer
        stored = {message.id: message for message in turn.messages}
        # With a key what was stored before has other ids.
        self._gone.update({message.id for message in sent} - stored.keys() - self._recorded)
        if turn.replayed:
            self.replayed = turn
            return sent
        self._turn = turn
        start, reason = self._begins.start, self._begins.reason
        if start is not None and reason is not None:
            turn.begin_requests_at(start, reason)
            turn.window_tokens = sum(map(estimate, self._begins.messages))
        shown = self._shown
        turn.shown = lambda: _partial(shown)  # not this, which has the turn
        if self._session.revision != self._revision + 1:  # somebody was quicker
            history = from_record(await turn.history())
            self._late = [message for message in history if message.id not in self._known]
        await self._put_back(turn, stored)
        # Some may have been stored before.
        same_length = len(stored) == len(sent)
        return [*stored.values()] if same_length else [stored.get(each.id, each) for each in sent]

    async def _put_back(self, turn: OpenTurn, begun: Collection[str]) -> None:
        """Store again what tools have done in a turn that is tried again.

        It begins again, without what there was of a reply; but nothing is to be done twice.

        Args:
            turn: The turn.
            begun: The ids of what it began with.
        """
        reply = [each for each in self._window if each.turn_id == turn.id and each.id not in begun]
        results = [place for place, each in enumerate(reply, 1) if each.role in RESULT_ROLES]
        done = reply[: max(results, default=0)]
        if done:
            await turn.add(done)
        self._gone |= {message.id for message in reply[len(done) :]}

    async def _keep_summary(self, state: Sequence[BaseMessage]) -> None:
        """Let a summary that another middleware made stand for what it covers from now on."""
        summary = next((each for each in state if is_summary(each)), None)
        present = {message.id for message in state}
        covered = [seq for name, seq in self._seqs.items() if name not in present]
        self._seqs = {name: seq for name, seq in self._seqs.items() if name in present}
        if summary is not None and covered:
            await self._session.set_summary(str(summary.text), max(covered))
            self._revision += 1


def _last_said(window: Sequence[SessionMessage]) -> list[BaseMessage]:
    """Return what a user said last."""
    users = [message for message in window if message.role is MessageRole.USER]
    return from_record(users[-1:])


def _partial(shown: Sequence[str]) -> list[SessionMessage]:
    """Return what was shown of an answer that is not there as a whole."""
    text = "".join(shown)
    return [SessionMessage(role=MessageRole.ASSISTANT, content=text)] if text else []


def _as_stored(message: M, stored: SessionMessage) -> M:
    """Return a message as the middleware left it, with what was only kept out of the record."""
    update: dict[str, Any] = {"id": message.id}
    if unstorable_artifact(message) is not None:
        update["artifact"] = message.artifact  # type: ignore[attr-defined]
    return to_langchain(stored).model_copy(update=update)  # type: ignore[return-value]
