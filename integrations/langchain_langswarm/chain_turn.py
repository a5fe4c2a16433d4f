"""One call of a chain as a turn of a session."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage

from langchain_langswarm.agent_state import with_paired_calls
from langchain_langswarm.messages import (
    from_langchain_messages,
    to_langchain,
    with_new_id,
    with_unique_ids,
)
from langchain_langswarm.shapes import (
    ChainShape,
    as_described,
    messages_of,
    shaped,
    text_of,
)
from langchain_langswarm.system_messages import arranged, opened
from langchain_langswarm.watch import Tokens
from langswarm_session.blocks import ToolCallBlock
from langswarm_session.doors import Interruptible, OpenTurn
from langswarm_session.errors import InvalidInputError
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.requests.normalize import describe_repairs
from langswarm_session.session import BaseSession

logger = logging.getLogger(__name__)

_SHAPE = "langchain_output"
"""Where in its metadata an answer says how the chain gave it."""


class ChainTurn:
    """A call of a chain, from its input to its end.

    Args:
        shape: How the chain takes its messages and gives its answer.
        value: The caller's input.
        key: The caller's idempotency key.
        models: The chat models that the chain is known to ask.
        tokens: What models say in the chain's run where a callback shows it.

    Attributes:
        input: What the chain is given, once the turn has begun.

    Raises:
        InvalidInputError: If there is no message in the input, or one that cannot be stored.
    """

    def __init__(
        self,
        shape: ChainShape,
        value: Any,
        key: str | None,
        models: Sequence[BaseChatModel] = (),
        tokens: Tokens | None = None,
    ) -> None:
        self.input: Any = None
        self._shape = shape
        self._value = value
        self._key = key
        self._models = models
        self._tokens = tokens or Tokens()
        self._part = shape.input_part(value)
        self._given = messages_of(self._part)
        if not self._given:
            raise InvalidInputError("there is no message in the input")
        self._sent = from_langchain_messages(self._given)
        # Known again, a repeated call is given the answer in the shape that it has now.
        self._repeatable = key is not None or any(message.id for message in self._given)
        self._passed: Sequence[BaseMessage] = ()
        self._unfit: Sequence[Any] = ()
        self._chunks: list[Any] = []
        self._turn: OpenTurn

    @property
    def has_id(self) -> bool:
        """Whether the record may know what the chain is asked."""
        return any(message.id for message in self._given)

    @property
    def repeatable(self) -> bool:
        """Whether a call with the same input may be known to be the same."""
        return self._repeatable

    async def begin(
        self, session: BaseSession, answerer: str | None, *, regenerate: bool = False
    ) -> None:
        """Store what is new, and put the history to it.

        Args:
            session: The session.
            answerer: What tells the chain from others that are asked the same.
            regenerate: Whether to answer again what is answered already.

        Raises:
            SessionError: Whatever `BaseSession.begin_turn` raises.
        """
        self._turn = await session.begin_turn(
            self._sent, idempotency_key=self._key, answerer=answerer, regenerate=regenerate
        )
        if self.replayed:
            return
        self._turn.rename = with_new_id
        try:
            history = with_unique_ids(await self._turn.history())
            self._pass_on(history)
            self._turn.shown = self._shown()
        except BaseException as error:
            await self.end_by(error)
            raise

    @property
    def replayed(self) -> bool:
        """Whether the turn was complete already: then the chain is not to be called."""
        return self._turn.replayed

    @property
    def holds_stream(self) -> bool:
        """Whether a middleware must see the whole answer before the reader sees any of it."""
        return self._turn.holds_stream

    def replay(self) -> Any:
        """Return the answer of a turn that was complete already, in the shape it had."""
        answer = [message for message in self._turn.messages if _SHAPE in message.metadata]
        described = answer[0].metadata[_SHAPE] if answer else {"key": None, "kind": "message"}
        made = [to_langchain(message) for message in answer or [self._turn.reply]]
        return as_described(described, made)

    async def complete(self, output: Any) -> Any:
        """Store the answer, and end the turn.

        Returns:
            The output, with what a middleware made of the answer.

        Raises:
            InvalidInputError: If there is no message in the output, or one that cannot be stored.
            SessionError: Whatever else `OpenTurn.complete` raises.
        """
        try:
            answer = self._shape.answer(output, self._passed)
            sent = from_langchain_messages(answer)
        except InvalidInputError:
            self._unfit = [output]
            raise
        if self._repeatable:
            marked = {_SHAPE: self._shape.describe(output)}
            sent = [each.replaced(metadata={**each.metadata, **marked}) for each in sent]
        stored = await self._turn.complete(sent)
        if _same(sent, stored):
            return output
        changed = [to_langchain(message) for message in stored]
        return self._shape.with_answer(output, answer, changed)

    def answering(self) -> Interruptible:
        """Return a block in which the chain runs; it ends when the turn is ended.

        Raises:
            TurnCancelledError, TurnLostError: If the turn was ended from outside.
        """
        return self._turn.answering()

    def received(self, chunk: Any) -> None:
        """Take a piece of a stream; a sync chain is broken off here if the turn was ended.

        Raises:
            TurnCancelledError, TurnLostError: If the turn was ended from outside.
        """
        self._chunks.append(chunk)
        self._turn.check()

    @property
    def has_chunks(self) -> bool:
        """Whether there were any pieces."""
        return bool(self._chunks)

    async def complete_stream(self) -> Any:
        """`complete` with what the pieces of a stream add up to."""
        return await self.complete(self._shape.whole(self._chunks, self._passed))

    async def end_by(self, error: BaseException) -> None:
        """End the turn by what broke it off, with what there is of the answer."""
        if self._turn.is_open:
            await self._turn.end_by(error, self._partial())

    def _pass_on(self, history: list[BaseMessage]) -> None:
        part, stored = self._part, self._turn.messages
        if _same(self._sent, stored):
            new = [_named(*each) for each in zip(self._given, stored, strict=True)]
            if _is_messages(part):
                part = shaped(part, new)
        else:  # changed by a middleware, or stored before
            new = with_unique_ids(stored)
            part = shaped(part, new)
        passed, repairs = with_paired_calls([*history, *new])
        if self._shape.history_key is not None:  # what is new goes apart, as it came
            given = {id(message) for message in new}
            history = [message for message in passed if id(message) not in given]
            history, moved = arranged(history, self._models)
            history, added = opened(history, self._models)
            passed = [*history, *new]
        else:
            passed, moved = arranged(passed, self._models)
            passed, added = opened(passed, self._models)
        repairs = [*repairs, *moved, *added]
        if repairs:
            changes = describe_repairs(repairs)
            logger.info("session %r: changed in the request: %s", self._turn.session_id, changes)
        self._passed = passed
        self.input = self._shape.with_history(self._value, part, history, passed)

    def _shown(self) -> Callable[[], list[SessionMessage]]:
        """Return what gives the pieces so far, without a reference to this and so to the turn."""
        shape, chunks, passed, tokens = self._shape, self._chunks, self._passed, self._tokens
        session_id = self._turn.session_id
        return lambda: _with_tokens(_partial(shape, list(chunks), passed, session_id), tokens)

    def _partial(self) -> list[SessionMessage]:
        """Return what there is of the answer."""
        chunks = self._unfit or self._chunks
        partial = _partial(self._shape, chunks, self._passed, self._turn.session_id)
        return _with_tokens(partial, self._tokens)


def _with_tokens(partial: list[SessionMessage], tokens: Tokens) -> list[SessionMessage]:
    """Return what there is of an answer, with what a callback has shown of it beyond that."""
    text = tokens.text
    if not text or any(each.text == text for each in partial):
        return partial
    shown = SessionMessage(role=MessageRole.ASSISTANT, content=text)
    last = partial[-1] if partial else None
    if (
        last is None
        or last.role is not MessageRole.ASSISTANT
        or any(isinstance(block, ToolCallBlock) for block in last.blocks)
    ):
        return [*partial, shown]
    is_more = isinstance(last.content, str) and text.startswith(last.content)
    return [*partial[:-1], shown] if is_more else partial


def _partial(
    shape: ChainShape, chunks: Sequence[Any], passed: Sequence[BaseMessage], session_id: str
) -> list[SessionMessage]:
    """Return what pieces of an answer add up to; nothing where that cannot be stored."""
    if not chunks:
        return []
    try:
        return _message_or_text(shape, shape.whole(chunks, passed), passed)
    except Exception:  # nothing may keep the turn from its end
        logger.warning(
            "session %r: the partial answer cannot be stored as a message",
            session_id,
            exc_info=True,
        )
        return []


def _message_or_text(
    shape: ChainShape, output: Any, passed: Sequence[BaseMessage]
) -> list[SessionMessage]:
    """Return a chain's output, as text where it cannot be stored as a message."""
    try:
        return from_langchain_messages(shape.answer(output, passed))
    except InvalidInputError:
        return [SessionMessage(role=MessageRole.ASSISTANT, content=text_of(output))]


def _named(message: BaseMessage, stored: SessionMessage) -> BaseMessage:
    """Return the message, or a copy with the record's id if it has none."""
    return message if message.id else message.model_copy(update={"id": stored.id})


def _is_messages(part: Any) -> bool:
    """Return whether it is a message, or a list of messages."""
    parts = part if isinstance(part, list) else [part]
    return all(isinstance(each, BaseMessage) for each in parts)


def _same(given: Sequence[SessionMessage], stored: Sequence[SessionMessage]) -> bool:
    """Return whether messages are what they were before the middleware saw them."""
    return len(given) == len(stored) and all(map(SessionMessage.says_same, given, stored))
