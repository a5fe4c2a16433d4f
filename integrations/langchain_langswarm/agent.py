"""An agent's middleware that gives it the memory of a session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from itertools import takewhile
from typing import Any

from langchain.agents.middleware import AgentMiddleware
from langchain.agents.middleware.types import ModelRequest, ModelResponse, ToolCallRequest
from langchain_core.messages import BaseMessage, SystemMessage, ToolMessage
from langgraph.config import get_config
from langgraph.types import Command, Overwrite
from typing_extensions import override

from langchain_langswarm import watch
from langchain_langswarm.agent_run import AgentRun
from langchain_langswarm.agent_state import (
    called_with,
    count_unnamed,
    given_of,
    said,
    with_ids,
)
from langchain_langswarm.messages import FORMAT
from langchain_langswarm.system_messages import chat_models_of, joined, takes_in_place
from langswarm_session.doors import Window, run, text_id
from langswarm_session.errors import InvalidInputError
from langswarm_session.manager import SessionManager
from langswarm_session.presets import get_session_manager
from langswarm_session.session import BaseSession
from langswarm_session.users import LEFT_OUT, LeftOut, check_user, one_user, user_in

ToolResult = ToolMessage | Command[Any]

_is_within: ContextVar[bool] = ContextVar("langswarm_is_within", default=False)
"""Whether a tool runs here: what is asked of the run around it is not asked of one within."""

_key_around: ContextVar[str | None] = ContextVar("langswarm_key_around", default=None)
"""The idempotency key of the run whose tool runs here."""


class SessionMiddleware(AgentMiddleware[Any, Any]):
    """Gives an agent of `create_agent` the memory of a session.

    A run of the agent is a turn of the session. It begins with the session's window before the new
    messages; those are stored before the model is first asked, each answer of the model and each
    result of a tool as soon as it is there. Whatever breaks the run off then, the turn ends as
    failed or cancelled with all that happened, and the next run goes on from there; a call that
    never got its result is answered in the request, not in the record. Runs on one session have
    their turns one after the other, each seeing those before it.

    Called with ``config={"configurable": {"session_id": ..., "user_id": ...}}``, or with both in
    the runtime context. With an ``idempotency_key`` in the config, or a message whose id is stored,
    a repeated call is given the stored messages (no ``structured_response``), and neither the model
    nor a tool is called. If it had failed it is tried again, from the last result of a tool on. A
    stored id with another text is refused. The key is not that of the agents within a tool.

    With ``"regenerate": True`` in the config the last message of the user, given again or not, is
    answered again: the log keeps both answers, and the new one counts (`BaseSession.regenerate`).
    With a key, one of its own, a repeated call is given that answer.

    Of several agents that are asked one message in a graph each answers it; they are told apart by
    their nodes and names. A repeated call is one of the same agent. Where they run at the same
    time, or one in another's turn, the turn of the first is open. Those of the others are stored
    behind it, each in one go as it ends: a process that is killed before that loses what it has of
    them.

    - With a checkpointer the thread is the conversation, and is given what only the record has. A
      run that is interrupted leaves a cancelled turn; the one that resumes it is another turn.
    - What is removed or changed in the thread alone (by a ``RemoveMessage``, ``update_state``, or
      going back to an earlier checkpoint) is as before with the next run: the record has it. It is
      to be removed or changed there as well, with `BaseSession.edit_messages`.
    - What is said is stored as the other middleware's ``before_model`` left it (PIIMiddleware's,
      say), in whatever order they are listed. Answers and results are stored as they were given;
      what of them is not to be in the record is for a middleware of the session. An artifact that
      cannot be stored stays in the state alone, and a warning says so.
    - A summary that SummarizationMiddleware makes stands for what it covers in the session's
      window from then on (`BaseSession.set_summary`); the log keeps all.
    - An agent that is a tool of another gets that one's config, and so its session, in which a
      turn goes on: it is refused, unless it has no such middleware or one with a ``scope``.

    Args:
        manager: Where the sessions live; the program's shared manager when None.
        session_id: The session where neither the config nor the runtime context names one.
        user_id: Whose it is. The config, the runtime context and this must name the same user, or
            leave it out; the user ``default`` where all do.
        scope: For an agent within another: its sessions' ids are the other's, a slash and this.
    """

    def __init__(
        self,
        manager: SessionManager | None = None,
        *,
        session_id: str | None = None,
        user_id: str | LeftOut = LEFT_OUT,
        scope: str | None = None,
    ) -> None:
        super().__init__()
        self.manager = get_session_manager() if manager is None else manager
        self.session_id = session_id
        self.user_id = user_id if user_id is LEFT_OUT else check_user(user_id)
        self.scope = scope

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.manager!r})"

    # LangChain's hooks, each for sync and for async runs. The record's work is handed over; the
    # model and the tools run where the caller runs them.

    @override
    def before_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Put the conversation so far before the new messages."""
        return run(self._begin(state["messages"], runtime.context, is_async=False))

    @override
    async def abefore_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Put the conversation so far before the new messages."""
        return await self._begin(state["messages"], runtime.context, is_async=True)

    @override
    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Store what is new, ask the model, and store its answer."""
        current, asked = run(self._asked(request, is_async=False))
        if current.replayed:
            return current.replay()
        current.check()
        return run(current.answered(handler(asked)))

    @override
    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Store what is new, ask the model, and store its answer."""
        current, asked = await self._asked(request, is_async=True)
        if current.replayed:
            return current.replay()
        with current.answering():
            response = await handler(asked)
        return await current.answered(response)

    @override
    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolResult]
    ) -> ToolResult:
        """Run a tool inside of the turn, and store its result."""
        context = request.runtime.context
        current = run(self._run(request.state["messages"], context, is_async=False))
        current.enter()
        _key_around.set(_key())
        _is_within.set(True)
        current.check()
        return run(current.returned(handler(request)))

    @override
    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolResult]]
    ) -> ToolResult:
        """Run a tool inside of the turn, and store its result."""
        context = request.runtime.context
        current = await self._run(request.state["messages"], context, is_async=True)
        current.enter()
        _key_around.set(_key())
        _is_within.set(True)
        with current.answering():
            result = await handler(request)
        return await current.returned(result)

    @override
    def after_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """End the turn."""
        return run(self._finish(state["messages"], runtime.context, is_async=False))

    @override
    async def aafter_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """End the turn."""
        return await self._finish(state["messages"], runtime.context, is_async=True)

    async def _begin(
        self, state: Sequence[BaseMessage], context: Any, *, is_async: bool
    ) -> dict[str, Any] | None:
        value = watch.input_of(watch.this_run())
        is_replay, called = value is None, called_with(value)
        newest = count_unnamed(state) if is_replay else sum(not each.id for each in called)
        session, window = await self._open(context)
        ids = {message.id for message in window.messages}
        named = with_ids(state, _scope(), newest=newest, known=ids, is_replay=is_replay)
        current = self._registered(
            session,
            window,
            named,
            given=said(named) if is_replay else given_of(named, called),
            key=_own_key(),
            is_async=is_async,
        )
        made = await current.begun(named)
        return _instead(None if made == list(state) else made)

    async def _asked(
        self, request: ModelRequest[Any], *, is_async: bool
    ) -> tuple[AgentRun, ModelRequest[Any]]:
        state = request.state["messages"]
        current = await self._run(state, request.runtime.context, is_async=is_async)
        named = with_ids(state, _scope())
        names = {id(old): new for old, new in zip(state, named, strict=True)}
        given = [names.get(id(message), message) for message in request.messages]
        models = chat_models_of(request.model)
        messages: list[Any] = await current.asked(named, given, models)
        system = request.system_message
        if system is not None and not takes_in_place(models):
            # Where one must be first there is only one.
            more = list(takewhile(lambda each: isinstance(each, SystemMessage), messages))
            if more:
                request = request.override(system_message=joined([system, *more]))
                messages = messages[len(more) :]
        if current.holds_stream:
            tags = [*(request.model.tags or ()), "nostream"]
            request = request.override(model=request.model.model_copy(update={"tags": tags}))
        return current, request.override(messages=messages)

    async def _finish(
        self, state: Sequence[BaseMessage], context: Any, *, is_async: bool
    ) -> dict[str, Any] | None:
        current = await self._run(state, context, is_async=is_async)
        made = await current.finish(with_ids(state, _scope()))
        return _instead(None if made == list(state) else made)

    async def _run(self, state: Sequence[BaseMessage], context: Any, *, is_async: bool) -> AgentRun:
        """Return the run in which a hook is called; a new one when that resumes."""
        current = watch.registered(watch.this_run(), self.name)
        if current is None:
            session, window = await self._open(context)
            return self._registered(session, window, with_ids(state, _scope()), is_async=is_async)
        assert isinstance(current, AgentRun)
        return current

    async def _open(self, context: Any) -> tuple[BaseSession, Window]:
        """Return the session and its window."""
        session_id, user_id = self._who(context)
        session = await self.manager.get_or_create_session(session_id, user_id, provider=FORMAT)
        return session, await session.read_window()

    def _registered(
        self,
        session: BaseSession,
        window: Window,
        state: Sequence[BaseMessage],
        *,
        is_async: bool,
        given: Sequence[BaseMessage] = (),
        key: str | None = None,
    ) -> AgentRun:
        """Return a new run; of several tools that resume together, the first one's is for all."""
        made = AgentRun(
            session,
            window,
            state,
            given=given,
            key=key,
            is_async=is_async,
            is_nested="|" in _namespace(),
            answerer=_answerer(),
            regenerate=not _is_within.get() and _is_asked_again(),
        )
        current = watch.register(watch.this_run(), self.name, made)
        assert isinstance(current, AgentRun)
        return current

    def _who(self, context: Any) -> tuple[str, str]:
        """Return the session's and the user's ids.

        Raises:
            InvalidInputError: If no session is named, or not one user.
        """
        configurable = get_config().get("configurable", {})
        named = (_named(source, "session_id") for source in (configurable, context, self))
        session_id = next((value for value in named if value not in (None, "")), None)
        if session_id is None:
            raise InvalidInputError(
                'no session: call the agent with config={"configurable": {"session_id": "..."}}, '
                "or name it in the runtime context or to SessionMiddleware"
            )
        session_id = text_id(session_id)
        if self.scope is not None:
            session_id = f"{session_id}/{self.scope}"
        user_id = one_user(
            config=user_in(configurable), context=user_in(context), SessionMiddleware=self.user_id
        )
        return session_id, user_id


def _key() -> str | None:
    """Return the idempotency key in the config."""
    key: str | None = get_config().get("configurable", {}).get("idempotency_key")
    return key


def _is_asked_again() -> bool:
    """Return whether the config asks for another answer."""
    return bool(get_config().get("configurable", {}).get("regenerate"))


def _own_key() -> str | None:
    """Return the key that is meant for this run and not for a run around it."""
    key = _key()
    return None if key == _key_around.get() else key


def _namespace() -> str:
    """Return what tells this step of a run from others: the nodes around it, with their tasks.

    It is made of the checkpoint, so that the same step of a replayed one has the same. Those of a
    graph in a node of another are parted by a bar (``NS_SEP`` in langgraph._internal._constants).
    """
    return str(get_config().get("configurable", {}).get("checkpoint_ns", ""))


def _answerer() -> str:
    """Return what tells this agent from others that are asked the same message.

    The nodes around it and its name, which `create_agent` puts into the metadata.
    """
    around, _, _ = _namespace().rpartition("|")
    place = watch.place_of(watch.this_run(), around)
    name = get_config().get("metadata", {}).get("lc_agent_name")
    if name and name not in place[-1:]:
        place.append(str(name))
    return "/".join(place)


def _scope() -> str:
    """Return what tells the thread from others, or the run where no thread is kept."""
    configurable = get_config().get("configurable", {})
    if configurable.get("__pregel_checkpointer") is None:
        return str(watch.this_run())
    return f"{configurable.get('thread_id')}/{_namespace().rpartition('|')[0]}"


def _instead(messages: list[BaseMessage] | None) -> dict[str, Any] | None:
    """Return an update of the state with messages in place of its own; None for none."""
    # In this form what is old is not streamed as if it were new.
    return None if messages is None else {"messages": Overwrite(messages)}


def _named(source: Any, name: str) -> Any:
    return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
