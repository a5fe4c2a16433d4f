"""What the tests of LangChain's doors share: chains, ways to call them, and views of a session."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_langswarm import RunnableWithSession, SessionChatMessageHistory

from langswarm_session import (
    ISession,
    ISessionMiddleware,
    SessionManager,
    SessionMessage,
    SessionNotFoundError,
)
from langswarm_session._sync.bridge import run

if find_spec("langchain") is None:
    # What needs more than langchain-core.
    collect_ignore_glob = ["test_agent*.py", "test_endings.py"]

Call = Callable[[Runnable[Any, Any], Any, RunnableConfig], Awaitable[Any]]


class Chain:
    """A chain that answers with how many messages it was given and the last one's text.

    It takes a list of messages, or a dict with them in ``question`` or ``input`` and those before
    in ``history``. What it gives is the text, as ``give`` makes it.
    """

    def __init__(self, give: Callable[[str], Any] = AIMessage) -> None:
        self.give = give
        self.seen: list[list[str]] = []

    def __call__(self, value: Any) -> Any:
        messages = value
        if isinstance(value, dict):
            new = value.get("question", value.get("input"))
            new = [HumanMessage(new)] if isinstance(new, str) else new
            new = [new] if isinstance(new, BaseMessage) else new
            messages = [*value.get("history", []), *new]
        texts = [str(message.text) for message in messages]
        self.seen.append(texts)
        return self.give(f"{len(texts)}:{texts[-1]}")


@pytest.fixture
def new_chain() -> type[Chain]:
    return Chain


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest.fixture
def remember(manager: SessionManager) -> Callable[..., RunnableWithSession]:
    """Gives a function the memory of a session."""

    def remember(function: Callable[..., Any], **options: Any) -> RunnableWithSession:
        return RunnableWithSession(RunnableLambda(function), manager, **options)

    return remember


@pytest.fixture
def memory(chain: Chain, remember: Callable[..., RunnableWithSession]) -> RunnableWithSession:
    """The chain with the memory of a session."""
    return remember(chain)


@pytest.fixture
def config() -> RunnableConfig:
    return {"configurable": {"session_id": "chat", "user_id": "ann"}}


@pytest.fixture
def log(manager: SessionManager) -> Callable[..., list[tuple[str, str]]]:
    """Types and texts of a session's messages."""

    def log(session_id: str = "chat") -> list[tuple[str, str]]:
        try:
            owner = run(manager.get_session(session_id)).user_id
        except SessionNotFoundError:
            return []
        history = SessionChatMessageHistory(session_id, manager, user_id=owner)
        return [(message.type, str(message.text)) for message in history.messages]

    return log


@pytest.fixture
def statuses(manager: SessionManager) -> Callable[..., list[str]]:
    """How the turns of a session stand."""

    async def read(session_id: str) -> list[str]:
        session = await manager.get_session(session_id)
        return [turn.status.value for turn in await session.get_turns()]

    return lambda session_id="chat": run(read(session_id))


@pytest.fixture
def exists(manager: SessionManager) -> Callable[[str], bool]:
    """Whether there is such a session."""

    def exists(session_id: str) -> bool:
        try:
            run(manager.get_session(session_id))
        except SessionNotFoundError:
            return False
        return True

    return exists


# The ways to call a chain


def added_up(chunks: list[Any]) -> Any:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole


async def invoke(chain: Runnable[Any, Any], value: Any, config: RunnableConfig) -> Any:
    return chain.invoke(value, config)


async def ainvoke(chain: Runnable[Any, Any], value: Any, config: RunnableConfig) -> Any:
    return await chain.ainvoke(value, config)


async def stream(chain: Runnable[Any, Any], value: Any, config: RunnableConfig) -> Any:
    return added_up(list(chain.stream(value, config)))


async def astream(chain: Runnable[Any, Any], value: Any, config: RunnableConfig) -> Any:
    return added_up([chunk async for chunk in chain.astream(value, config)])


async def batch(chain: Runnable[Any, Any], value: Any, config: RunnableConfig) -> Any:
    (output,) = chain.batch([value], config)
    return output


async def abatch(chain: Runnable[Any, Any], value: Any, config: RunnableConfig) -> Any:
    (output,) = await chain.abatch([value], config)
    return output


async def astream_events(chain: Runnable[Any, Any], value: Any, config: RunnableConfig) -> Any:
    events = [event async for event in chain.astream_events(value, config)]
    return events[-1]["data"]["output"]


WAYS = [invoke, ainvoke, stream, astream, batch, abatch, astream_events]


@pytest.fixture
def ways() -> dict[str, Call]:
    """The ways to call a chain, by name."""
    return {way.__name__: way for way in WAYS}


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def call(request: pytest.FixtureRequest) -> Call:
    """Calls a chain in one of the ways there are, from a running loop, and gives its output."""
    return request.param


# The shapes of what a chain gives


class Shape(NamedTuple):
    """What a chain makes of a text, and where in that `RunnableWithSession` finds the answer."""

    give: Callable[[str], Any]
    keys: dict[str, str]


SHAPES = {
    "str": Shape(str, {}),
    "message": Shape(AIMessage, {}),
    "list": Shape(lambda text: [AIMessage(text)], {}),
    "tuple": Shape(lambda text: (AIMessage(text),), {}),
    "dict-of-str": Shape(lambda text: {"answer": text}, {}),
    "dict-of-message": Shape(lambda text: {"output": AIMessage(text), "more": 1}, {}),
    "dict-with-key": Shape(lambda text: {"b": 1, "a": text}, {"output_messages_key": "a"}),
    "dict-of-list": Shape(
        lambda text: {"b": 1, "a": [AIMessage(text)]}, {"output_messages_key": "a"}
    ),
}


@pytest.fixture(params=SHAPES.values(), ids=list(SHAPES))
def shape(request: pytest.FixtureRequest) -> Shape:
    return request.param


class Redact(ISessionMiddleware):
    """Puts ``***`` in place of the word ``secret``, wherever it goes."""

    holds_stream = True

    async def process_outgoing_message(
        self, session: ISession, message: SessionMessage
    ) -> SessionMessage:
        content = json.dumps(message.model_dump(mode="json")["content"])
        return message.replaced(content=json.loads(content.replace("secret", "***")))

    process_incoming_message = process_outgoing_message


@pytest.fixture
def redacting(manager: SessionManager) -> SessionManager:
    """The manager, with a middleware that redacts."""
    manager.add_global_middleware(Redact())
    return manager
