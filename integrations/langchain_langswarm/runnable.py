"""A Runnable that gives a chain its memory: a turn of a session around each call."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    convert_to_messages,
)
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableConfig
from langchain_core.runnables.base import coerce_to_runnable
from langchain_core.runnables.utils import get_unique_config_specs
from typing_extensions import override

from langchain_langswarm.messages import FORMAT, from_langchain, to_langchain, to_langchain_messages
from langswarm_session.blocking import run
from langswarm_session.errors import InvalidInputError
from langswarm_session.manager import SessionManager
from langswarm_session.models import SessionMessage
from langswarm_session.presets import get_session_manager
from langswarm_session.turns import OpenTurn

logger = logging.getLogger(__name__)

_SPECS = [
    ConfigurableFieldSpec(
        id="session_id", annotation=str, name="Session ID", description="The session.",
        default="", is_shared=True,
    ),
    ConfigurableFieldSpec(
        id="user_id", annotation=str, name="User ID", description="Whose session it is.",
        default="default", is_shared=True,
    ),
]  # fmt: skip


class _Call(NamedTuple):
    """A call under way.

    Attributes:
        turn: Its turn.
        input: What the wrapped runnable is given.
        passed: The messages in that input.
        repeatable: Whether the same call would be known again, and is given this answer then.
    """

    turn: OpenTurn
    input: Any = None
    passed: Sequence[BaseMessage] = ()
    repeatable: bool = False


class RunnableWithSession(Runnable[Any, Any]):
    """Gives a chain the memory of a session.

    Each call is a turn of the session: the new messages are stored before the chain runs, with the
    messages before them as its history, and its answer is stored before the call returns. A call
    that fails, is cancelled or whose stream is broken off leaves a failed or cancelled turn with
    what there was of the answer, and a write that fails fails the call. Calls on one session run
    one after the other, each seeing those before it; one inside another is refused.

    Called with ``config={"configurable": {"session_id": ..., "user_id": ...}}``. The user may be
    left out and is then ``default``. With an ``idempotency_key`` beside them, or a message whose
    id is stored, a repeated call is given the stored answer and the chain is not called: a string,
    a message, or a list of the answer's messages, as the first call was, and of a dict the one
    entry that has it.

    Args:
        runnable: The chain. It takes and gives a string, a message, a list of messages, or a dict.
        manager: Where the sessions live; the program's shared manager when None.
        input_messages_key: In a dict input, where the new messages are.
        history_messages_key: In a dict input, where the chain expects the messages before; without
            it they come together with the new ones.
        output_messages_key: In a dict output, where the answer is.
        history_factory_config: The keys of ``configurable`` that tell sessions apart, in place of
            ``session_id`` and ``user_id``. With ``user_id`` among them that is the user. With
            ``session_id`` among them that is the session, else its id is made of all the values,
            joined by slashes.
    """

    def __init__(
        self,
        runnable: Runnable[Any, Any] | Callable[..., Any],
        manager: SessionManager | None = None,
        *,
        input_messages_key: str | None = None,
        history_messages_key: str | None = None,
        output_messages_key: str | None = None,
        history_factory_config: Sequence[ConfigurableFieldSpec] | None = None,
    ) -> None:
        self.runnable = coerce_to_runnable(runnable)
        self.manager = get_session_manager() if manager is None else manager
        self.input_messages_key = input_messages_key
        self.history_messages_key = history_messages_key
        self.output_messages_key = output_messages_key
        self.history_factory_config = list(history_factory_config or _SPECS)

    @property
    @override
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """The keys of ``configurable`` that this and the wrapped runnable take."""
        return get_unique_config_specs([*self.runnable.config_specs, *self.history_factory_config])

    @property
    @override
    def InputType(self) -> Any:
        """What the wrapped runnable takes."""
        return self.runnable.InputType

    @property
    @override
    def OutputType(self) -> Any:
        """What the wrapped runnable gives."""
        return self.runnable.OutputType

    # LangChain passes the config by name, which the types of its helpers do not say.

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Call the chain in a turn of the session."""
        return self._call_with_config(self._invoke, input, config, **kwargs)  # type: ignore[arg-type]

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Call the chain in a turn of the session."""
        return await self._acall_with_config(self._ainvoke, input, config, **kwargs)  # type: ignore[arg-type]

    @override
    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Stream the chain's answer, in a turn of the session."""
        return self.transform(iter([input]), config, **kwargs)

    @override
    def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Stream the chain's answer, in a turn of the session."""

        async def inputs() -> AsyncIterator[Any]:
            yield input

        return self.atransform(inputs(), config, **kwargs)

    # These hand LangChain's own generators out, so that whoever closes one closes the turn.

    @override
    def transform(
        self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Stream the answer to an input that itself comes in pieces."""
        return self._transform_stream_with_config(input, self._stream, config, **kwargs)  # type: ignore[arg-type]

    @override
    def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Stream the answer to an input that itself comes in pieces."""
        return self._atransform_stream_with_config(input, self._astream, config, **kwargs)  # type: ignore[arg-type]

    # The chain's sync code runs in the caller's thread; only the record's work is handed over.

    def _invoke(self, value: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        call = run(self._begin(value, config))
        if call.turn.replayed:
            return _replay(call.turn)
        try:
            output = self.runnable.invoke(call.input, config, **kwargs)
            return run(self._complete(call, output))
        except BaseException as error:
            run(self._end_early(call, error))
            raise

    async def _ainvoke(self, value: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        call = await self._begin(value, config)
        if call.turn.replayed:
            return _replay(call.turn)
        try:
            output = await self.runnable.ainvoke(call.input, config, **kwargs)
            return await self._complete(call, output)
        except BaseException as error:
            await self._end_early(call, error)
            raise

    def _stream(
        self, inputs: Iterator[Any], config: RunnableConfig, **kwargs: Any
    ) -> Iterator[Any]:
        call = run(self._begin(_joined(list(inputs)), config))
        if call.turn.replayed:
            yield _replay(call.turn)
            return
        chunks: list[Any] = []
        try:
            for chunk in self.runnable.stream(call.input, config, **kwargs):
                chunks.append(chunk)
                if not call.turn.holds_stream:
                    yield chunk
            output = run(self._complete(call, self._whole(chunks)))
        except BaseException as error:
            run(self._end_early(call, error, chunks))
            raise
        if chunks and call.turn.holds_stream:
            yield output

    async def _astream(
        self, inputs: AsyncIterator[Any], config: RunnableConfig, **kwargs: Any
    ) -> AsyncIterator[Any]:
        call = await self._begin(_joined([value async for value in inputs]), config)
        if call.turn.replayed:
            yield _replay(call.turn)
            return
        chunks: list[Any] = []
        try:
            async for chunk in self.runnable.astream(call.input, config, **kwargs):
                chunks.append(chunk)
                if not call.turn.holds_stream:
                    yield chunk
            output = await self._complete(call, self._whole(chunks))
        except BaseException as error:
            await self._end_early(call, error, chunks)
            raise
        if chunks and call.turn.holds_stream:
            yield output

    async def _begin(self, value: Any, config: RunnableConfig) -> _Call:
        session_id, user_id, key = self._who(config)
        part = value[self._input_key(value)] if isinstance(value, dict) else value
        given = _messages(part)
        if not given:
            raise InvalidInputError("there is no message in the input")
        sent = [from_langchain(message) for message in given]
        session = await self.manager.get_or_create_session(session_id, user_id, provider=FORMAT)
        turn = await session.begin_turn(sent, idempotency_key=key)
        if turn.replayed:
            return _Call(turn)
        try:
            history = to_langchain_messages(await turn.history())
            new = given
            if not _same(sent, turn.messages):  # changed by a middleware, or stored before
                new = to_langchain_messages(turn.messages)
                part = _shaped(part, new)
            passed = [*history, *new]
            repeatable = key is not None or any(message.id for message in given)
            return _Call(turn, self._inner_input(value, part, history, passed), passed, repeatable)
        except BaseException as error:
            await self._end_early(_Call(turn), error)
            raise

    async def _complete(self, call: _Call, output: Any) -> Any:
        answer = self._answer(call, output)
        sent = [from_langchain(message) for message in answer]
        if call.repeatable:
            shape = self._shape(output)
            sent = [
                message.replaced(metadata={**message.metadata, _SHAPE: shape}) for message in sent
            ]
        stored = await call.turn.complete(sent)
        if _same(sent, stored):
            return output
        # A middleware changed the answer.
        part = self._output_part(output)
        changed = [to_langchain(message) for message in stored]
        if isinstance(part, list | tuple):
            own = {id(message) for message in answer}
            changed = [*(message for message in part if id(message) not in own), *changed]
        return self._with_part(output, _shaped(part, changed))

    async def _end_early(
        self, call: _Call, error: BaseException, chunks: Sequence[Any] = ()
    ) -> None:
        turn = call.turn
        if not turn.is_open:
            return
        failed = isinstance(error, Exception)
        partial: list[SessionMessage] = []
        if chunks:
            reason = "failed" if failed else "cancelled"
            try:
                answer = self._answer(call, self._whole(chunks))
                partial = [
                    from_langchain(message).replaced(finish_reason=reason) for message in answer
                ]
            except Exception:  # nothing may keep the turn from its end
                logger.warning(
                    "session %r: what there was of the answer is no message that can be stored",
                    turn.session_id,
                    exc_info=True,
                )
        if failed:
            await turn.fail(error, partial)
        else:  # CancelledError, GeneratorExit, KeyboardInterrupt
            await turn.cancel(partial, type(error).__name__)

    def _who(self, config: RunnableConfig) -> tuple[str, str | None, str | None]:
        """The session's and user's ids and the idempotency key that the config gives."""
        configurable = config.get("configurable", {})
        values = {
            spec.id: configurable.get(spec.id, spec.default) for spec in self.history_factory_config
        }
        missing = sorted(name for name, value in values.items() if value is None or value == "")
        if missing:
            example = {"configurable": dict.fromkeys(values, "...")}
            raise InvalidInputError(f"{', '.join(missing)} missing; call with config={example}")
        session_id = values.get("session_id")
        if session_id is None:
            session_id = "/".join(quote(str(value), safe="") for value in values.values())
        return session_id, values.get("user_id"), configurable.get("idempotency_key")

    def _input_key(self, value: Any) -> str:
        """Where in a dict input the new messages are."""
        if isinstance(value, dict):
            return _key(value, self.input_messages_key, "input")
        return self.input_messages_key or "input"

    def _inner_input(
        self, value: Any, part: Any, history: list[BaseMessage], passed: list[BaseMessage]
    ) -> Any:
        """What the wrapped runnable is given."""
        inner = dict(value) if isinstance(value, dict) else {}
        if self.history_messages_key is not None:
            inner[self._input_key(value)] = part
            inner[self.history_messages_key] = history
            return inner
        if self.input_messages_key is not None:
            inner[self.input_messages_key] = passed
            return inner
        return passed

    def _output_part(self, output: Any) -> Any:
        """The part of the output that has the answer."""
        if isinstance(output, dict):
            return output[_key(output, self.output_messages_key, "output")]
        return output

    def _with_part(self, output: Any, part: Any) -> Any:
        """The output with another answer in it."""
        if isinstance(output, dict):
            return {**output, _key(output, self.output_messages_key, "output"): part}
        return part

    def _answer(self, call: _Call, output: Any) -> list[BaseMessage]:
        """The messages that the chain added: an agent gives those it was passed as well."""
        part = self._output_part(output)
        if isinstance(part, str):
            return [AIMessage(content=part)]
        objects = {id(message) for message in call.passed}
        if not isinstance(part, list | tuple):
            return [message for message in _messages(part) if id(message) not in objects]
        if not all(isinstance(message, BaseMessage) for message in part):
            raise InvalidInputError(
                "the chain's answer is a list, and not of messages; say where they are with "
                "output_messages_key, and stream a graph with stream_mode 'updates' or 'values'"
            )
        ids = {message.id for message in call.passed if message.id is not None}
        return [
            message
            for message in part
            if id(message) not in objects
            and message.id not in ids
            and not isinstance(message, RemoveMessage)
        ]

    def _whole(self, chunks: Sequence[Any]) -> Any:
        """What the pieces of a stream add up to."""
        key = self.output_messages_key
        if key is not None and not any(
            isinstance(chunk, dict) and key in chunk for chunk in chunks
        ):
            # A graph streams what each of its nodes added, unless it is asked for the whole values.
            added = [
                message
                for chunk in chunks
                if isinstance(chunk, dict)
                for update in chunk.values()
                if isinstance(update, dict) and key in update
                for message in _messages(update[key])
            ]
            if added:
                return {key: added}
        return _joined(chunks)

    def _shape(self, output: Any) -> dict[str, Any]:
        """How the chain gave its answer, for a repeated call."""
        key = None
        if isinstance(output, dict):
            key = _key(output, self.output_messages_key, "output")
            output = output[key]
        kind = "message" if isinstance(output, BaseMessage) else "list"
        return {"key": key, "kind": "text" if isinstance(output, str) else kind}


_SHAPE = "langchain_output"
"""Where in its metadata an answer says how the chain gave it."""


def _replay(turn: OpenTurn) -> Any:
    """The answer of a turn that was complete already, in the shape it had."""
    answer = [message for message in turn.messages if _SHAPE in message.metadata]
    shape = answer[0].metadata[_SHAPE] if answer else {"key": None, "kind": "message"}
    made: Any = [to_langchain(message) for message in answer or [turn.reply]]
    if shape["kind"] != "list":
        made = _shaped("" if shape["kind"] == "text" else made[-1], made)
    return made if shape["key"] is None else {shape["key"]: made}


def _shaped(part: Any, messages: list[BaseMessage]) -> Any:
    """Messages in the shape that others had: a string, a message or a list."""
    if isinstance(part, str):
        return str(messages[-1].text)
    return messages[-1] if isinstance(part, BaseMessage) else messages


def _key(value: dict[str, Any], named: str | None, usual: str) -> str:
    """The key of the messages: the one named, or the only one, or the usual one.

    Raises:
        InvalidInputError: If the dict has no such key.
    """
    key = named or (next(iter(value)) if len(value) == 1 else usual)
    if key not in value:
        raise InvalidInputError(
            f"there is no {key!r} among {sorted(map(str, value))}; say where the messages are with "
            "input_messages_key and output_messages_key"
        )
    return key


def _messages(value: Any) -> list[BaseMessage]:
    """What a chain takes or gives, as messages.

    Raises:
        InvalidInputError: If it is none of what `RunnableWithSession` takes.
    """
    if isinstance(value, str):
        return [HumanMessage(content=value)]
    if isinstance(value, BaseMessage):
        return [value]
    if isinstance(value, PromptValue):
        return value.to_messages()
    if isinstance(value, list | tuple):
        try:
            return convert_to_messages(value)
        except (ValueError, NotImplementedError) as error:
            raise InvalidInputError(f"these are not messages: {error}") from error
    raise InvalidInputError(
        f"expected a string, a message or a list of messages, not {type(value).__name__}"
    )


def _joined(chunks: Sequence[Any]) -> Any:
    """The pieces of a stream, added up as LangChain does."""
    if not chunks:
        return []
    whole = chunks[0]
    for chunk in chunks[1:]:
        try:
            whole = whole + chunk
        except TypeError:
            whole = chunk
    return whole


def _same(given: Sequence[SessionMessage], stored: Sequence[SessionMessage]) -> bool:
    """Whether messages are what they were before the middleware saw them."""
    return [(m.role, m.content) for m in given] == [(m.role, m.content) for m in stored]
