"""Agents that are called again: with the same message or key, after a failure, in an old thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import tool
from langchain_langswarm import SessionChatMessageHistory, SessionMiddleware
from langgraph.checkpoint.memory import InMemorySaver

from langswarm_session import (
    IdempotencyConflictError,
    ISession,
    ISessionMiddleware,
    MessageConflictError,
    MessageRefusedError,
    SessionBusyError,
    SessionManager,
    SessionMessage,
)

Log = Callable[..., list[tuple[str, str]]]
Statuses = Callable[..., list[str]]


class Scripted(BaseChatModel):
    """A model that gives what it is told to, one after the other; an exception it raises."""

    script: list[Any] = []
    seen: list[list[BaseMessage]] = []

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def texts(self) -> list[list[str]]:
        return [[str(message.text) for message in seen] for seen in self.seen]

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
        return self

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        self.seen.append(list(messages))
        answer = self.script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return AIMessage(answer) if isinstance(answer, str) else answer

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next(messages))])


CALL = AIMessage("", tool_calls=[{"name": "charge", "args": {}, "id": "c1"}])


@pytest.fixture
def model() -> Scripted:
    return Scripted(script=[], seen=[])


@pytest.fixture
def charges() -> list[str]:
    return []


@pytest.fixture(params=[None, InMemorySaver], ids=["no checkpointer", "checkpointer"])
def agent(
    request: pytest.FixtureRequest, manager: SessionManager, model: Scripted, charges: list[str]
) -> Any:
    @tool
    def charge() -> str:
        """Charge the card."""
        charges.append("100")
        return "charged"

    saver = request.param and request.param()
    return create_agent(
        model, [charge], middleware=[SessionMiddleware(manager)], checkpointer=saver
    )


@pytest.fixture
def threaded(manager: SessionManager, model: Scripted) -> Any:
    """An agent with a checkpointer."""
    return create_agent(
        model, middleware=[SessionMiddleware(manager)], checkpointer=InMemorySaver()
    )


Ask = Callable[..., Any]


@pytest.fixture(params=["invoke", "ainvoke"])
def ask(request: pytest.FixtureRequest, config: RunnableConfig) -> Ask:
    """Asks an agent something, with the id and the key that are given."""

    async def ask(
        agent: Any, text: str, *, message_id: str | None = None, key: str | None = None
    ) -> Any:
        configurable = {**config["configurable"], "thread_id": "t"}
        if key is not None:
            configurable["idempotency_key"] = key
        value = {"messages": [HumanMessage(text, id=message_id)]}
        if request.param == "invoke":
            return agent.invoke(value, {"configurable": configurable})
        return await agent.ainvoke(value, {"configurable": configurable})

    return ask


SAME = pytest.mark.parametrize(
    "same",
    [{"message_id": "q"}, {"key": "k"}, {"message_id": "q", "key": "k"}],
    ids=["id", "key", "both"],
)


def texts(output: Any) -> list[str]:
    return [str(message.text) for message in output["messages"]]


# Calls that were answered


@SAME
async def test_a_repeated_call_asks_neither_the_model_nor_a_tool(
    same: Any, ask: Ask, agent: Any, model: Scripted, charges: list[str], log: Log,
    statuses: Statuses, manager: SessionManager,
) -> None:  # fmt: skip
    model.script[:] = [CALL, "done", "later"]
    await ask(agent, "charge me", **same)
    for _ in range(2):
        output = await ask(agent, "charge me", **same)
        assert (
            output["messages"] == SessionChatMessageHistory("chat", manager, user_id="ann").messages
        )
    told = ["charge me", "", "charged", "done"]
    assert (texts(output), [text for _, text in log()], statuses()) == (told, told, ["complete"])
    assert (len(model.seen), len(charges)) == (2, 1)
    output = await ask(agent, "and now?")
    assert model.texts[-1] == [*told, "and now?"]
    assert texts(output) == [text for _, text in log()] == [*told, "and now?", "later"]


@SAME
async def test_it_is_given_its_own_answer_whatever_followed(
    same: Any, ask: Ask, agent: Any, model: Scripted, log: Log
) -> None:
    model.script[:] = ["A", "B", "C"]
    await ask(agent, "a", **same)
    await ask(agent, "b", key="another")
    output = await ask(agent, "a", **same)
    assert texts(output)[-1] == "A"
    assert sorted(texts(output)) == ["A", "B", "a", "b"]
    output = await ask(agent, "c")
    assert texts(output) == ["a", "A", "b", "B", "c", "C"]
    assert model.texts[-1] == ["a", "A", "b", "B", "c"]
    assert [text for _, text in log()] == texts(output)


async def test_a_turn_that_ended_with_a_tool_is_given_again_as_it_ended(
    ask: Ask, manager: SessionManager, model: Scripted, log: Log
) -> None:
    @tool(return_direct=True)
    def charge() -> str:
        """Charge the card."""
        return "charged"

    agent = create_agent(model, [charge], middleware=[SessionMiddleware(manager)])
    model.script[:] = [CALL]
    first = await ask(agent, "charge me", key="k")
    again = await ask(agent, "charge me", key="k")
    assert again == first
    assert [kind for kind, _ in log()] == ["human", "ai", "tool"]


async def test_a_changed_message_with_a_known_id_is_refused(
    ask: Ask, agent: Any, model: Scripted, log: Log
) -> None:
    model.script[:] = ["sunny", "well"]
    await ask(agent, "Paris?", message_id="q")
    with pytest.raises(MessageConflictError):
        await ask(agent, "Rome?", message_id="q")
    assert log() == [("human", "Paris?"), ("ai", "sunny")]
    assert len(model.seen) == 1
    await ask(agent, "and you?")
    assert model.texts[-1] == ["Paris?", "sunny", "and you?"]


async def test_a_key_for_another_message_is_refused(
    ask: Ask, agent: Any, model: Scripted, log: Log
) -> None:
    model.script[:] = ["sunny"]
    await ask(agent, "Paris?", key="k")
    with pytest.raises(IdempotencyConflictError):
        await ask(agent, "Rome?", key="k")
    assert log() == [("human", "Paris?"), ("ai", "sunny")]


@SAME
async def test_what_a_middleware_of_the_session_changed_is_no_other_message(
    same: Any, ask: Ask, agent: Any, redacting: SessionManager, model: Scripted, log: Log
) -> None:
    model.script[:] = ["a secret"]
    await ask(agent, "my secret", **same)
    output = await ask(agent, "my secret", **same)
    assert texts(output) == ["my ***", "a ***"]
    assert [text for _, text in log()] == ["my ***", "a ***"]


async def test_a_message_that_another_door_stored_is_answered(
    ask: Ask, agent: Any, manager: SessionManager, model: Scripted, log: Log
) -> None:
    history = SessionChatMessageHistory("chat", manager, user_id="ann")
    await history.aadd_messages([HumanMessage("hello", id="q")])
    model.script[:] = ["hi"]
    output = await ask(agent, "hello", message_id="q")
    assert texts(output) == ["hello", "hi"]
    assert log() == [("human", "hello"), ("ai", "hi")]


# Calls that failed


@SAME
async def test_a_call_that_failed_is_tried_again(
    same: Any, ask: Ask, agent: Any, model: Scripted, log: Log, statuses: Statuses
) -> None:
    model.script[:] = ["hi", ConnectionError(), ConnectionError(), "A", "B"]
    await ask(agent, "hello")
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await ask(agent, "a", **same)
    for _ in range(2):
        assert texts(await ask(agent, "a", **same)) == ["hello", "hi", "a", "A"]
    assert model.texts[1:] == [["hello", "hi", "a"]] * 3
    await ask(agent, "b", key="another")
    assert model.texts[-1] == [text for _, text in log()][:-1] == ["hello", "hi", "a", "A", "b"]
    assert statuses() == ["complete"] * 3


@SAME
async def test_what_a_tool_has_done_is_not_done_again(
    same: Any, ask: Ask, agent: Any, model: Scripted, charges: list[str], log: Log,
    statuses: Statuses,
) -> None:  # fmt: skip
    model.script[:] = [CALL, ConnectionError(), ConnectionError(), "done"]
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await ask(agent, "charge me", **same)
        assert [text for _, text in log()] == ["charge me", "", "charged"]
    told = ["charge me", "", "charged", "done"]
    for _ in range(2):
        assert texts(await ask(agent, "charge me", **same)) == told
    assert [text for _, text in log()] == told
    assert model.texts[1:] == [told[:-1]] * 3
    assert (len(charges), statuses()) == (1, ["complete"])


class Broken(Scripted):
    """A model that streams, and breaks off where it is told to."""

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for word in str(self._next(messages).text).split():
            if word == "break":
                raise ConnectionError
            chunk = ChatGenerationChunk(message=AIMessageChunk(word))
            if run_manager:
                run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk


@SAME
async def test_what_there_was_of_an_answer_is_not_in_the_next_request(
    same: Any, ask: Ask, manager: SessionManager, config: RunnableConfig, log: Log
) -> None:
    model = Broken(script=["part break", "whole"], seen=[])
    agent = create_agent(model, middleware=[SessionMiddleware(manager)])
    if "key" in same:
        config["configurable"]["idempotency_key"] = same["key"]
    value = {"messages": [HumanMessage("a", id=same.get("message_id"))]}
    with pytest.raises(ConnectionError):
        [_ async for _ in agent.astream(value, config, stream_mode="messages")]
    assert log() == [("human", "a"), ("ai", "part")]
    assert texts(await ask(agent, "a", **same)) == ["a", "whole"]
    assert model.texts == [["a"], ["a"]]
    assert log() == [("human", "a"), ("ai", "whole")]


# What a run before left in a thread


class Picky(ISessionMiddleware):
    """Refuses what is bad."""

    def __init__(self) -> None:
        self.offered: list[str] = []

    async def process_outgoing_message(
        self, session: ISession, message: SessionMessage
    ) -> SessionMessage:
        self.offered.append(message.text)
        if "bad" in message.text:
            raise MessageRefusedError("no")
        return message

    async def process_incoming_message(
        self, session: ISession, message: SessionMessage
    ) -> SessionMessage:
        return message


async def test_a_refused_message_does_not_stay_in_its_thread(
    ask: Ask, threaded: Any, manager: SessionManager, model: Scripted, log: Log,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    picky = Picky()
    manager.add_global_middleware(picky)
    model.script[:] = ["A", "B", "C"]
    await ask(threaded, "a")
    with pytest.raises(MessageRefusedError):
        await ask(threaded, "bad")
    assert texts(await ask(threaded, "b", key="k")) == ["a", "A", "b", "B"]
    assert "no" in caplog.text
    picky.offered.clear()
    assert texts(await ask(threaded, "b", key="k")) == ["a", "A", "b", "B"]
    assert texts(await ask(threaded, "c")) == ["a", "A", "b", "B", "c", "C"]
    assert picky.offered == ["b", "c"]
    assert "bad" not in str(model.texts)
    assert [text for _, text in log()] == ["a", "A", "b", "B", "c", "C"]


async def test_what_was_put_into_a_thread_by_hand_is_stored_before_the_next_question(
    ask: Ask, threaded: Any, model: Scripted, config: RunnableConfig, log: Log
) -> None:
    model.script[:] = ["A", "B"]
    await ask(threaded, "a")
    config["configurable"]["thread_id"] = "t"
    threaded.update_state(config, {"messages": [HumanMessage("by the way")]})
    for _ in range(2):
        output = await ask(threaded, "b", key="k")
        assert texts(output) == ["a", "A", "by the way", "b", "B"]
    assert [text for _, text in log()] == texts(output)
    assert model.texts[-1] == texts(output)[:-1]


async def test_a_question_that_found_the_session_busy_is_stored_once_when_it_is_asked_again(
    ask: Ask, make_manager: Callable[..., SessionManager], model: Scripted, config: RunnableConfig
) -> None:
    manager = make_manager(turn_wait=0)
    agent = create_agent(
        model, middleware=[SessionMiddleware(manager)], checkpointer=InMemorySaver()
    )
    model.script[:] = ["A", "B"]
    await ask(agent, "a")
    session = await make_manager().get_session("chat")
    turn = await session.begin_turn("elsewhere")
    with pytest.raises(SessionBusyError):
        await ask(agent, "b")
    await turn.cancel()
    told = ["a", "A", "elsewhere", "b", "B"]
    assert texts(await ask(agent, "b")) == told
    assert [message.text for message in await session.get_messages()] == told


# Ids that a model gives again


@pytest.mark.parametrize("second", ["A", "B"], ids=["the same", "another"])
async def test_an_answer_with_a_known_id_is_stored_under_another(
    second: str, ask: Ask, agent: Any, manager: SessionManager, model: Scripted,
    statuses: Statuses,
) -> None:  # fmt: skip
    model.script[:] = [AIMessage("A", id="fixed"), AIMessage(second, id="fixed"), "C"]
    await ask(agent, "a")
    output = await ask(agent, "b")
    assert texts(output) == ["a", "A", "b", second]
    assert output["messages"] == SessionChatMessageHistory("chat", manager, user_id="ann").messages
    assert statuses() == ["complete", "complete"]
    await ask(agent, "c")
    assert model.texts[-1] == ["a", "A", "b", second, "c"]
