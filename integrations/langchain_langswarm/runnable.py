"""A Runnable that gives a chain its memory: a turn of a session around each call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from langchain_core.messages import BaseMessage
from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableConfig
from langchain_core.runnables.base import coerce_to_runnable
from langchain_core.runnables.utils import get_unique_config_specs
from langchain_core.utils.pydantic import create_model_v2
from pydantic import BaseModel
from typing_extensions import override

from langchain_langswarm import watch
from langchain_langswarm.chain_turn import ChainTurn
from langchain_langswarm.fingerprints import fingerprint
from langchain_langswarm.messages import FORMAT
from langchain_langswarm.shapes import ChainShape, joined
from langchain_langswarm.system_messages import chat_models_of
from langswarm_session.doors import run, text_id
from langswarm_session.errors import InvalidInputError
from langswarm_session.manager import SessionManager
from langswarm_session.presets import get_session_manager
from langswarm_session.users import one_user, user_in

_END: Any = object()
"""What a stream that is over gives."""

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


class RunnableWithSession(Runnable[Any, Any]):
    """Gives a chain the memory of a session.

    Each call is a turn of the session: the new messages are stored before the chain runs, with the
    messages before them as its history, and its answer is stored before the call returns. A tool's
    call in the history that never got its result is answered in what the chain is given, not in
    the record. A call that fails, is cancelled or whose stream is broken off leaves a failed or
    cancelled turn with what there was of the answer, and a write that fails fails the call. Calls
    on one session run one after the other, each seeing those before it (of those that begin at
    once, whichever comes first to have the session); one inside another is refused.

    An answer is a text or messages. A chain that gives anything else (JSON, an object) raises
    InvalidInputError, and what it gave is kept as text in the failed turn: what parses an answer
    goes behind, ``RunnableWithSession(prompt | model, ...) | parser``.

    Called with ``config={"configurable": {"session_id": ..., "user_id": ...}}``. The user may be
    left out and is then ``default``. With an ``idempotency_key`` beside them, or a message whose
    id is stored, a repeated call is given the stored answer and the chain is not called: a string,
    a message, or a list of the answer's messages, as the first call was, and of a dict the one
    entry that has it.

    With ``"regenerate": True`` in the config the last message of the user is answered again: the
    log keeps both answers, and the new one counts (`BaseSession.regenerate`). With a key, one of
    its own, a repeated call is given that answer.

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
        name: What tells it from other chains that are asked the same message; what it is made of
            does when None.
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
        name: str | None = None,
    ) -> None:
        self.name = name
        self.runnable = coerce_to_runnable(runnable)
        self._fingerprint: str | None = None
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

    @override
    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """Return the schema of the input: the new messages, without the history.

        It is that of `RunnableWithMessageHistory.get_input_schema` in
        langchain_core.runnables.history, so that tools and servers made from either take the same.
        """
        name, module = f"{type(self).__name__}Input", type(self).__module__
        if self.input_messages_key is None:
            return create_model_v2(name, module_name=module, root=(Sequence[BaseMessage], ...))
        several = Sequence[BaseMessage]
        kind = several if self.history_messages_key is None else str | BaseMessage | several
        fields: dict[str, Any] = {self.input_messages_key: (kind, ...)}
        return create_model_v2(name, module_name=module, field_definitions=fields)

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Call the chain in a turn of the session."""
        return self._call_with_config(self._invoke, input, config, **kwargs)

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Call the chain in a turn of the session."""
        return await self._acall_with_config(self._ainvoke, input, config, **kwargs)

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

    # These hand LangChain's own generators out, so that closing one closes the turn.

    @override
    def transform(
        self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Stream the answer to an input that itself comes in pieces."""
        return self._transform_stream_with_config(input, self._stream, config, **kwargs)

    @override
    def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """Stream the answer to an input that itself comes in pieces."""
        return self._atransform_stream_with_config(input, self._astream, config, **kwargs)

    # The chain's sync code runs in the caller's thread; only the record's work is handed over.

    def _invoke(self, value: Any, run_manager: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        call = run(self._begin(value, run_manager, config))
        if call.replayed:
            return call.replay()
        try:
            output = self.runnable.invoke(call.input, _unshown(config, call), **kwargs)
            return run(call.complete(output))
        except BaseException as error:
            run(call.end_by(error))
            raise

    async def _ainvoke(
        self, value: Any, run_manager: Any, config: RunnableConfig, **kwargs: Any
    ) -> Any:
        call = await self._begin(value, run_manager, config)
        if call.replayed:
            return call.replay()
        try:
            with call.answering():
                output = await self.runnable.ainvoke(call.input, _unshown(config, call), **kwargs)
            return await call.complete(output)
        except BaseException as error:
            await call.end_by(error)
            raise

    def _stream(
        self, inputs: Iterator[Any], run_manager: Any, config: RunnableConfig, **kwargs: Any
    ) -> Iterator[Any]:
        call = run(self._begin(joined(list(inputs)), run_manager, config))
        if call.replayed:
            yield call.replay()
            return
        try:
            for chunk in self.runnable.stream(call.input, _unshown(config, call), **kwargs):
                call.received(chunk)
                if not call.holds_stream:
                    yield chunk
            output = run(call.complete_stream())
        except BaseException as error:
            run(call.end_by(error))
            raise
        if call.has_chunks and call.holds_stream:
            yield output

    async def _astream(
        self, inputs: AsyncIterator[Any], run_manager: Any, config: RunnableConfig, **kwargs: Any
    ) -> AsyncIterator[Any]:
        call = await self._begin(joined([value async for value in inputs]), run_manager, config)
        if call.replayed:
            yield call.replay()
            return
        stream = self.runnable.astream(call.input, _unshown(config, call), **kwargs)
        try:
            while True:
                with call.answering():
                    chunk = await anext(stream, _END)
                if chunk is _END:
                    break
                call.received(chunk)
                if not call.holds_stream:
                    yield chunk
            output = await call.complete_stream()
        except BaseException as error:
            await call.end_by(error)
            raise
        if call.has_chunks and call.holds_stream:
            yield output

    async def _begin(self, value: Any, run_manager: Any, config: RunnableConfig) -> ChainTurn:
        session_id, user_id, key = self._who(config)
        shape = ChainShape(
            self.input_messages_key, self.history_messages_key, self.output_messages_key
        )
        # What cannot be stored creates no session.
        tokens = watch.tokens_of(run_manager)
        call = ChainTurn(shape, value, key, chat_models_of(self.runnable), tokens)
        session = await self.manager.get_or_create_session(session_id, user_id, provider=FORMAT)
        again = bool(config.get("configurable", {}).get("regenerate"))
        is_known = call.has_id if again else call.repeatable
        answerer = self._answerer(run_manager, config) if is_known else None
        await call.begin(session, answerer, regenerate=again)
        return call

    def _answerer(self, run_manager: Any, config: RunnableConfig) -> str:
        """Return what tells this chain from others that are asked the same message."""
        namespace = str(config.get("configurable", {}).get("checkpoint_ns", ""))
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.runnable)
        own = self.name or self._fingerprint
        return "/".join([*watch.place_of(run_manager.run_id, namespace), own])

    def _who(self, config: RunnableConfig) -> tuple[str, str, str | None]:
        """Return the session's and user's ids and the idempotency key that the config gives."""
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
        user_id = one_user(config=user_in(values))
        return text_id(session_id), user_id, configurable.get("idempotency_key")


def _unshown(config: RunnableConfig, call: ChainTurn) -> RunnableConfig:
    """Return the chain's config; outer graphs do not stream its models where middleware holds.

    LangGraph streams in the mode "messages" what any model within a node says, but for those with
    the tag ``nostream`` (``TAG_NOSTREAM`` in langgraph.constants).
    """
    if not call.holds_stream:
        return config
    return {**config, "tags": [*(config.get("tags") or ()), "nostream"]}
