"""Tells when an agent's run is over, however it ends.

An agent's middleware is not told of an error in another middleware, of an interrupt, or of a stream
that is broken off. LangChain's callbacks are: these here hear of every run in the process, and do
something for those that were registered.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextvars import ContextVar
from typing import Any, Protocol
from uuid import UUID
from weakref import WeakValueDictionary

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers import BaseTracer
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from langchain_core.tracers.context import register_configure_hook

from langswarm_session.doors import run, settled


class Run(Protocol):
    """What wants to know of a run.

    Attributes:
        is_async: Whether the run was called with ``await``, and so can wait for `ended`.
    """

    is_async: bool

    @property
    def is_open(self) -> bool:
        """Whether there is anything to end."""

    def received(self, text: str) -> None:
        """Take a piece of text that the model streamed."""

    async def ended(self, error: BaseException | None) -> None:
        """Note that the run is over."""


_KEY = "map:key:"
"""What a RunnableParallel tags each of its runs with, before its key (`_invoke_step` in
langchain_core.runnables.base)."""

_parents: dict[UUID, UUID] = {}
"""The run around each run that goes on: around that of a node, that of its graph."""

_keys: dict[UUID, str] = {}
"""The key of each run that a RunnableParallel has, in that one."""

_inputs: dict[UUID, Any] = {}
"""What each run that goes on was called with."""

_runs: dict[UUID, dict[str, Run]] = {}
"""Who wants to know of a graph's run, by name."""

_awaited: set[UUID] = set()
"""Those of them that are async."""


class Tokens:
    """What models say in a run as a stream, which callbacks may show before the run gives anything.

    LangGraph's stream mode "messages" and ``astream_events`` do, whichever way a chain is called.
    """

    def __init__(self) -> None:
        self._texts: dict[UUID, list[str]] = {}

    @property
    def text(self) -> str:
        """What the model said that began last."""
        return "".join(next(reversed(self._texts.values()), ()))

    def received(self, run_id: UUID, text: str) -> None:
        """Take a piece of what a model's run said."""
        self._texts.setdefault(run_id, []).append(text)


_tokens: WeakValueDictionary[UUID, Tokens] = WeakValueDictionary()
"""Who wants to know what models say in a chain's run, for as long as it wants to."""


def tokens_of(run_manager: BaseRunManager) -> Tokens:
    """Return what models are going to say in a run; nothing where no callback shows it."""
    tokens = Tokens()
    if any(map(_shows_tokens, run_manager.handlers)):
        _tokens[run_manager.run_id] = tokens
    return tokens


def _shows_tokens(handler: BaseCallbackHandler) -> bool:
    """Return whether a callback handler may show tokens."""
    if isinstance(handler, _StreamingCallbackHandler):
        return True
    if isinstance(handler, _Watch | _AsyncWatch | BaseTracer) or handler.ignore_llm:
        return False
    defaults = (BaseCallbackHandler.on_llm_new_token, AsyncCallbackHandler.on_llm_new_token)
    return type(handler).on_llm_new_token not in defaults


def this_run() -> UUID:
    """Return the id of the graph's run whose node calls this."""
    config = var_child_runnable_config.get()
    assert config is not None, "it is called by a node"
    node: UUID = config["callbacks"].parent_run_id  # type: ignore[union-attr,assignment]
    return _parents[node]


def place_of(run_id: UUID, namespace: str) -> list[str]:
    """Return what tells a run from others that are asked the same, outermost first.

    Args:
        run_id: The run.
        namespace: The nodes of graphs around it, as LangGraph's ``checkpoint_ns`` has them: each
            with its task behind a colon, parted by bars.
    """
    keys = []
    run: UUID | None = run_id
    while run is not None:
        if run in _keys:
            keys.append(_keys[run])
        run = _parents.get(run)
    nodes = [node.partition(":")[0] for node in namespace.split("|") if node]
    return [*nodes, *reversed(keys)]


def input_of(run_id: UUID) -> Any:
    """Return what a graph's run was called with."""
    return _inputs.get(run_id)


def registered(run_id: UUID, name: str) -> Run | None:
    """Who was registered for a run under this name."""
    return _runs.get(run_id, {}).get(name)


def register(run_id: UUID, name: str, given: Run) -> Run:
    """Have somebody told of the run's end: the first one that comes with this name.

    Returns:
        That one.
    """
    if given.is_async:
        _awaited.add(run_id)
    return _runs.setdefault(run_id, {}).setdefault(name, given)


async def _end(run_id: UUID, error: BaseException | None) -> None:
    _awaited.discard(run_id)
    for each in _runs.pop(run_id, {}).values():
        if each.is_open:
            # Also in a cancel scope of anyio, which would cancel each wait for it.
            await settled(asyncio.ensure_future(each.ended(error)))


def _text_of(token: Any, chunk: Any) -> str:
    """Return the text of a token; of content in blocks, as Claude's with tools, it is in parts."""
    if isinstance(token, str):
        return token
    return str(getattr(getattr(chunk, "message", None), "text", ""))


class _Watch(BaseCallbackHandler):
    """Knows which run is inside which, and ends sync ones."""

    run_inline = True
    ignore_agent = ignore_chat_model = ignore_custom_event = True
    ignore_retriever = ignore_retry = True

    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        key = next((tag for tag in tags or () if tag.startswith(_KEY)), None)
        if key is not None:
            _keys[run_id] = key.removeprefix(_KEY)
        _inputs[run_id] = inputs
        if parent_run_id is not None:
            _parents[run_id] = parent_run_id

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._over(run_id, None)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._over(run_id, error)

    def on_llm_new_token(
        self,
        token: Any,
        *,
        run_id: UUID,
        chunk: Any = None,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        if parent_run_id is None or not (_runs or _tokens):
            return
        text = _text_of(token, chunk)
        if not text:
            return
        graph = _parents.get(parent_run_id)
        if graph in _runs:
            for each in _runs[graph].values():
                each.received(text)
        around: UUID | None = parent_run_id
        while _tokens and around is not None:
            if (tokens := _tokens.get(around)) is not None:
                tokens.received(run_id, text)
            around = _parents.get(around)

    def _over(self, run_id: UUID, error: BaseException | None) -> None:
        _keys.pop(run_id, None)
        _inputs.pop(run_id, None)
        _parents.pop(run_id, None)
        if run_id in _runs and run_id not in _awaited:
            if any(each.is_open for each in _runs[run_id].values()):
                run(_end(run_id, error))
            else:
                del _runs[run_id]


class _AsyncWatch(AsyncCallbackHandler):
    """Ends async runs, on their own loop."""

    run_inline = True
    ignore_agent = ignore_chat_model = ignore_custom_event = True
    ignore_llm = ignore_retriever = ignore_retry = True

    @property
    def ignore_chain(self) -> bool:
        """Whether there is nobody to tell: sync code pays for a loop each time that it is asked."""
        if _awaited:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop()
                return False
        return True

    async def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        if run_id in _awaited:
            await _end(run_id, None)

    async def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        if run_id in _awaited:
            await _end(run_id, error)


_watch, _async_watch = _Watch(), _AsyncWatch()
# A default is what every context has, so these are called wherever a run begins.
for _name, _handler in (("langswarm_watch", _watch), ("langswarm_async_watch", _async_watch)):
    register_configure_hook(ContextVar(_name, default=_handler), inheritable=True)
