"""A Runnable that gives a chain its memory: a turn of a session around each call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableConfig
from langchain_core.runnables.utils import get_unique_config_specs
from langchain_langswarm.messages import FORMAT, from_langchain, to_langchain

from langswarm_session.blocking import run
from langswarm_session.errors import InvalidInputError
from langswarm_session.manager import SessionManager
from langswarm_session.models import SessionMessage
from langswarm_session.presets import get_session_manager
from langswarm_session.turns import OpenTurn

T = TypeVar("T")

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
    """

    turn: OpenTurn
    input: Any
    passed: list[BaseMessage]


class RunnableWithSession(Runnable[Any, Any]):
    """Gives a chain the memory of a session.

    Each call is a turn of the session: the new messages are stored before the chain runs, with the
    messages before them as its history, and its answer is stored before the call returns. A call
    that fails, is cancelled or whose stream is broken off leaves a failed or cancelled turn with
    what there was of the answer, and a write that fails fails the call. Calls on one session run
    one after the other, each seeing those before it; one inside another is refused.

    Called with ``config={"configurable": {"session_id": ..., "user_id": ...}}``. The user may be
    left out and is then ``default``; ``idempotency_key`` may be added.

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
        from langchain_core.runnables.base import coerce_to_runnable

        self.runnable = coerce_to_runnable(runnable)
        self.manager = get_session_manager() if manager is None else manager
        self.input_messages_key = input_messages_key
        self.history_messages_key = history_messages_key
        self.output_messages_key = output_messages_key
        self.history_factory_config = list(history_factory_config or _SPECS)

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """The keys of ``configurable`` that this and the wrapped runnable take."""
        return get_unique_config_specs([*self.runnable.config_specs, *self.history_factory_config])

    @property
    def InputType(self) -> Any:
        """What the wrapped runnable takes."""
        return self.runnable.InputType

    @property
    def OutputType(self) -> Any:
        """What the wrapped runnable gives."""
        return self.runnable.OutputType

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Call the chain in a turn of the session."""
        return self._call_with_config(self._invoke, input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Call the chain in a turn of the session."""
        return await self._acall_with_config(self._ainvoke, input, config, **kwargs)

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Stream the chain's answer, in a turn of the session."""
        yield from self.transform(iter([input]), config, **kwargs)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Stream the chain's answer, in a turn of the session."""

        async def inputs() -> AsyncIterator[Any]:
            yield input

        async for chunk in self.atransform(inputs(), config, **kwargs):
            yield chunk

    def transform(
        self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Stream the answer to an input that itself comes in pieces."""
        yield from self._transform_stream_with_config(input, self._stream, config, **kwargs)

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Stream the answer to an input that itself comes in pieces."""
        async for chunk in self._atransform_stream_with_config(
            input, self._astream, config, **kwargs
        ):
            yield chunk

    # The chain's sync code runs in the caller's thread; only the record's work is handed over.

    def _invoke(self, value: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        call = run(self._begin(value, config))
        if call.turn.replayed:
            return self._replay(call.turn)
        try:
            output = self.runnable.invoke(call.input, config, **kwargs)
            return run(self._complete(call, output))
        except BaseException as error:
            run(self._end_early(call, error))
            raise

    async def _ainvoke(self, value: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        call = await self._begin(value, config)
        if call.turn.replayed:
            return self._replay(call.turn)
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
            yield self._replay(call.turn)
            return
        chunks: list[Any] = []
        try:
            for chunk in self.runnable.stream(call.input, config, **kwargs):
                chunks.append(chunk)
                if not call.turn.holds_stream:
                    yield chunk
            output = run(self._complete(call, _joined(chunks)))
        except BaseException as error:
            run(self._end_early(call, error, chunks))
            raise
        if call.turn.holds_stream:
            yield output

    async def _astream(
        self, inputs: AsyncIterator[Any], config: RunnableConfig, **kwargs: Any
    ) -> AsyncIterator[Any]:
        call = await self._begin(_joined([value async for value in inputs]), config)
        if call.turn.replayed:
            yield self._replay(call.turn)
            return
        chunks: list[Any] = []
        try:
            async for chunk in self.runnable.astream(call.input, config, **kwargs):
                chunks.append(chunk)
                if not call.turn.holds_stream:
                    yield chunk
            output = await self._complete(call, _joined(chunks))
        except BaseException as error:
            await self._end_early(call, error, chunks)
            raise
        if call.turn.holds_stream:
            yield output

    async def _begin(self, value: Any, config: RunnableConfig) -> _Call:
        session_id, user_id, key = self._who(config)
        given = _messages(self._new_part(value))
        session = await self.manager.get_or_create_session(session_id, user_id, provider=FORMAT)
        sent = [from_langchain(message) for message in given]
        turn = await session.begin_turn(sent, idempotency_key=key)
        if turn.replayed:
            return _Call(turn, None, [])
        try:
            history = [to_langchain(message) for message in await turn.history()]
            new = [
                message if _same([old], [stored]) else to_langchain(stored)
                for message, old, stored in zip(given, sent, turn.messages, strict=False)
            ]
            return _Call(turn, self._inner_input(value, history, new), [*history, *new])
        except BaseException as error:
            await turn.fail(error)
            raise

    async def _complete(self, call: _Call, output: Any) -> Any:
        sent = [from_langchain(message) for message in self._answer(call, output)]
        if call.turn.keyed:
            # What a retry with the same key is to be given.
            sent = [each.replaced(native={**(each.native or {}), _SHAPE: _shape(output)})
                    for each in sent]  # fmt: skip
        stored = await call.turn.complete(sent)
        return output if _same(sent, stored) else self._shaped(output, stored)

    async def _end_early(
        self, call: _Call, error: BaseException, chunks: Sequence[Any] = ()
    ) -> None:
        if not call.turn.is_open:
            return
        failed = isinstance(error, Exception)
        partial = []
        if chunks:
            reason = "failed" if failed else "cancelled"
            partial = [
                each.replaced(finish_reason=reason)
                for each in map(from_langchain, self._answer(call, _joined(list(chunks))))
            ]
        if failed:
            await call.turn.fail(error, partial)
        else:  # CancelledError, GeneratorExit, KeyboardInterrupt
            await call.turn.cancel(partial, type(error).__name__)

    def _who(self, config: RunnableConfig) -> tuple[str, str | None, str | None]:
        """The session's and user's ids and the idempotency key that the config gives."""
        configurable = config.get("configurable", {})
        values: dict[str, Any] = {}
        for spec in self.history_factory_config:
            value = configurable.get(spec.id, spec.default)
            if value is None or value == "":
                example = {each.id: "..." for each in self.history_factory_config}
                raise InvalidInputError(
                    f"{spec.id!r} is missing; call with config={{'configurable': {example}}}"
                )
            values[spec.id] = value
        session_id = values.get("session_id")
        if session_id is None:
            session_id = "/".join(quote(str(value), safe="") for value in values.values())
        return session_id, values.get("user_id"), configurable.get("idempotency_key")

    def _new_part(self, value: Any) -> Any:
        """The part of the input that has the new messages."""
        if not isinstance(value, dict):
            return value
        return value[_key(value, self.input_messages_key, "input")]

    def _inner_input(self, value: Any, history: list[BaseMessage], new: list[BaseMessage]) -> Any:
        """What the wrapped runnable is given."""
        if self.history_messages_key is not None:
            given = self._new_part(value)
            changed: Any = new
            if isinstance(given, str):
                changed = new[0].text if len(new) == 1 else new
            elif isinstance(given, BaseMessage) and len(new) == 1:
                changed = new[0]
            inner = dict(value) if isinstance(value, dict) else {}
            inner[_key(inner, self.input_messages_key, "input")] = changed
            inner[self.history_messages_key] = history
            return inner
        messages = [*history, *new]
        if self.input_messages_key is not None:
            return {**value, self.input_messages_key: messages}
        return messages

    def _answer(self, call: _Call, output: Any) -> list[BaseMessage]:
        """The messages that the chain added: an agent gives those it was passed as well."""
        part = output
        if isinstance(output, dict):
            part = output[_key(output, self.output_messages_key, "output")]
        if isinstance(part, str):
            return [AIMessage(content=part)]
        passed_ids = {message.id for message in call.passed if message.id is not None}
        return [
            message
            for message in _messages(part)
            if message.id not in passed_ids and not any(message is old for old in call.passed)
        ]

    def _shaped(self, output: Any, stored: Sequence[SessionMessage]) -> Any:
        """The stored answer, which a middleware has changed, in the shape of the chain's output."""
        if isinstance(output, dict):
            key = _key(output, self.output_messages_key, "output")
            return {**output, key: self._shaped(output[key], stored)}
        if isinstance(output, str):
            return stored[-1].text
        messages = [to_langchain(message) for message in stored]
        return messages[-1] if isinstance(output, BaseMessage) else messages

    def _replay(self, turn: OpenTurn) -> Any:
        """The answer of a turn that was complete already, in the shape it had."""
        marked = [each for each in turn.messages if _SHAPE in (each.native or {})]
        answer = marked or [turn.reply]
        shape = (answer[-1].native or {}).get(_SHAPE, "message")
        made: Any = [to_langchain(message) for message in answer]
        inner = shape.removeprefix("dict:")
        if inner == "text":
            made = answer[-1].text
        elif inner == "message":
            made = made[-1]
        if shape == inner:
            return made
        return {self.output_messages_key or "output": made}


_SHAPE = "langchain_output"
"""Where in ``native`` an answer says how the chain gave it."""


def _shape(output: Any) -> str:
    if isinstance(output, dict):
        part = next(iter(output.values())) if len(output) == 1 else output.get("output")
        return f"dict:{_shape(part)}"
    if isinstance(output, str):
        return "text"
    return "message" if isinstance(output, BaseMessage) else "list"


def _key(value: dict[str, Any], named: str | None, usual: str) -> str:
    """The key of the messages: the one named, or the only one, or the usual one.

    Raises:
        InvalidInputError: If the dict has no such key.
    """
    key = named or (next(iter(value)) if len(value) == 1 else usual)
    if value and key not in value:
        raise InvalidInputError(
            f"there is no {key!r} among {sorted(value)}; say where the messages are with "
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


def _joined(chunks: list[Any]) -> Any:
    """The pieces of a stream, added up as LangChain does."""
    if not chunks:
        return ""
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
