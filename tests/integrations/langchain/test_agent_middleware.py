"""Agents with the memory of a session, as their middleware."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.tools import InjectedToolCallId, tool
from langchain_langswarm import RunnableWithSession, SessionChatMessageHistory, SessionMiddleware
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from langswarm_session import (
    InvalidInputError,
    ISession,
    ISessionMiddleware,
    MessageRefusedError,
    NestedTurnError,
    SessionBusyError,
    SessionManager,
    SessionMessage,
    SessionNotFoundError,
)
from langswarm_session._sync.bridge import run
from langswarm_session.blocks import ToolCallBlock, ToolResultBlock

Log = Callable[..., list[tuple[str, str]]]
Statuses = Callable[..., list[str]]

BOBS = SessionMessage(role="user", content="for bob only")
TALK = [
    ("human", "sea"),
    ("ai", ""),
    ("tool", "saw sea"),
    ("ai", "I saw sea"),
    ("human", "sky"),
    ("ai", ""),
    ("tool", "saw sky"),
    ("ai", "I saw sky"),
]


class Caller(BaseChatModel):
    """A model that calls the tool for each question, and then says, word by word, what came back."""

    seen: list[list[BaseMessage]] = []
    uses: str = "look"

    @property
    def _llm_type(self) -> str:
        return "caller"

    @property
    def texts(self) -> list[list[tuple[str, str]]]:
        return [[(message.type, str(message.text)) for message in seen] for seen in self.seen]

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
        return self

    def _answer(self, messages: list[BaseMessage]) -> AIMessage:
        self.seen.append(messages)
        last = messages[-1]
        if not isinstance(last, HumanMessage):
            return AIMessage(f"I {last.text}")
        call = {"name": self.uses, "args": {"at": last.text}, "id": f"c{len(messages)}"}
        return AIMessage("", tool_calls=[call])

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages))])

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        answer = self._answer(messages)
        for word in answer.text.split(" "):
            space = "" if word in ("I", "") else " "
            chunk = ChatGenerationChunk(message=AIMessageChunk(space + word))
            if run_manager:
                run_manager.on_llm_new_token(space + word, chunk=chunk)
            yield chunk
        if answer.tool_calls:
            made = AIMessageChunk("", tool_calls=answer.tool_calls)
            yield ChatGenerationChunk(message=made)


def look(at: str) -> str:
    """Look at something."""
    return f"saw {at}"


@pytest.fixture
def model() -> Caller:
    return Caller(seen=[])


@pytest.fixture
def agent(manager: SessionManager, model: Caller) -> Any:
    return create_agent(model, [look], middleware=[SessionMiddleware(manager)])


@pytest.fixture
def stored(manager: SessionManager) -> Callable[..., list[BaseMessage]]:
    """The messages of a session."""
    return lambda session_id="chat": (
        SessionChatMessageHistory(session_id, manager, user_id="ann").messages
    )


async def ask(way: str, agent: Any, text: str, config: RunnableConfig) -> list[Any]:
    """Runs the agent in one of the ways there are: an async one begins with an ``a``."""
    value = {"messages": [("human", text)]}
    name, _, mode = way.partition(" ")
    options = {"stream_mode": mode} if mode else {}
    if name == "events":
        return [event async for event in agent.astream_events(value, config)]
    if name == "invoke":
        return [agent.invoke(value, config)]
    if name == "ainvoke":
        return [await agent.ainvoke(value, config)]
    if name == "stream":
        return list(agent.stream(value, config, **options))
    return [chunk async for chunk in agent.astream(value, config, **options)]


WAYS = ["invoke", "ainvoke", "events"] + [
    f"{name} {mode}" for name in ("stream", "astream") for mode in ("updates", "values", "messages")
]


@pytest.mark.parametrize("way", WAYS)
async def test_each_step_is_stored_once_and_in_order_and_the_next_run_knows_them(
    way: str, agent: Any, model: Caller, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    await ask(way, agent, "sea", config)
    await ask(way, agent, "sky", config)
    assert log() == TALK
    assert model.texts == [TALK[:1], TALK[:3], TALK[:5], TALK[:7]]
    assert statuses() == ["complete", "complete"]


def test_its_output_is_the_whole_conversation_as_it_is_stored(
    agent: Any, config: RunnableConfig, stored: Callable[[], list[BaseMessage]]
) -> None:
    agent.invoke({"messages": "sea"}, config)
    output = agent.invoke({"messages": "sky"}, config)["messages"]
    assert [(message.type, message.text) for message in output] == TALK
    assert output == stored()
    assert len({message.id for message in output}) == len(output)


@pytest.mark.parametrize("way", ["stream messages", "astream messages"])
async def test_what_is_old_is_not_streamed_again(
    way: str, agent: Any, config: RunnableConfig
) -> None:
    await ask(way, agent, "sea", config)
    chunks = [chunk for chunk, _ in await ask(way, agent, "sky", config)]
    assert "".join(chunk.text for chunk in chunks if chunk.type != "tool") == "I saw sky"
    assert [chunk.text for chunk in chunks if chunk.type == "tool"] == ["saw sky"]


def test_its_state_has_nothing_but_messages(agent: Any, config: RunnableConfig) -> None:
    chunks = agent.stream({"messages": "sea"}, config, stream_mode="values")
    assert {name for chunk in chunks for name in chunk} == {"messages"}


def test_the_callers_message_is_left_as_it_was(agent: Any, config: RunnableConfig) -> None:
    agent.invoke({"messages": "sea"}, config)
    given = HumanMessage("sky", id="mine")
    agent.invoke({"messages": [given]}, config)
    assert given == HumanMessage("sky", id="mine")


def test_messages_that_were_stored_before_are_not_stored_again(
    agent: Any, config: RunnableConfig, log: Log
) -> None:
    output = agent.invoke({"messages": "sea"}, config)["messages"]
    agent.invoke({"messages": [*output, HumanMessage("sky")]}, config)
    assert log() == TALK


# Whose session


@dataclasses.dataclass
class Context:
    session_id: str
    user_id: Any


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize(
    ("options", "context"),
    [
        ({"configurable": {"session_id": "chat", "user_id": "ann"}}, None),
        ({}, Context("chat", "ann")),
        ({}, {"session_id": "chat", "user_id": "ann"}),
        ({"configurable": {"session_id": "chat"}}, {"session_id": "other", "user_id": "ann"}),
        ({"configurable": {"user_id": "ann", "session_id": ""}}, Context("chat", "ann")),
    ],
    ids=["config", "context", "context dict", "the config first", "some of both"],
)
async def test_the_session_and_the_user_come_from_the_config_or_the_context(
    way: str, options: Any, context: Any, manager: SessionManager, model: Caller
) -> None:
    agent = create_agent(model, [look], middleware=[SessionMiddleware(manager, session_id="x")])
    if way == "invoke":
        agent.invoke({"messages": "sea"}, options, context=context)
    else:
        await agent.ainvoke({"messages": "sea"}, options, context=context)
    session = await manager.get_session("chat")
    assert (session.user_id, session.metrics.message_count) == ("ann", 4)
    assert len(await manager.list_sessions()) == 1


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize(
    ("configured", "context", "own"),
    [
        ({"user_id": None}, None, {}),
        ({"user_id": ""}, None, {}),
        ({"user_id": "bob"}, None, {"user_id": "ann"}),
        ({"user_id": "bob"}, Context("chat", "ann"), {}),
        ({"user_id": "bob"}, {"user_id": "ann"}, {}),
        ({}, {"user_id": "bob"}, {"user_id": "ann"}),
        ({}, {"user_id": None}, {}),
        ({}, Context("chat", ""), {}),
        ({"user_id": "ann"}, Context("chat", None), {"user_id": "ann"}),
    ],
)
async def test_a_user_who_is_not_clear_is_refused(
    way: str, configured: Any, context: Any, own: Any, manager: SessionManager, model: Caller
) -> None:
    """Nobody is shown the conversation of whoever is named second, or of everybody."""
    await (await manager.create_session("bob", "mock", "echo", session_id="chat")).record(BOBS)
    agent = create_agent(model, [look], middleware=[SessionMiddleware(manager, **own)])
    options: Any = {"configurable": {"session_id": "chat", **configured}}
    with pytest.raises(InvalidInputError, match="user_id"):
        if way == "invoke":
            agent.invoke({"messages": "sea"}, options, context=context)
        else:
            await agent.ainvoke({"messages": "sea"}, options, context=context)
    assert model.seen == []


@pytest.mark.parametrize("user_id", [None, "", " ", "a\0b", True, []])
def test_a_middleware_is_made_for_a_user_who_can_be_one(
    user_id: Any, manager: SessionManager
) -> None:
    with pytest.raises(InvalidInputError, match="user_id"):
        SessionMiddleware(manager, user_id=user_id)


async def test_left_out_everywhere_it_is_the_default_users(
    manager: SessionManager, model: Caller
) -> None:
    await (await manager.create_session("bob", "mock", "echo", session_id="chat")).record(BOBS)
    agent = create_agent(model, [look], middleware=[SessionMiddleware(manager)])
    with pytest.raises(SessionNotFoundError):
        await agent.ainvoke({"messages": "x"}, {"configurable": {"session_id": "chat"}})
    await agent.ainvoke({"messages": "sea"}, {"configurable": {"session_id": "mine"}})
    assert (await manager.get_session("mine")).user_id == "default"


async def test_else_they_are_those_the_middleware_was_given(
    manager: SessionManager, model: Caller
) -> None:
    middleware = SessionMiddleware(manager, session_id="chat", user_id="ann")
    create_agent(model, [look], middleware=[middleware]).invoke({"messages": "sea"})
    assert (await manager.get_session("chat")).user_id == "ann"


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_without_a_session_it_says_how_to_name_one(
    way: str, agent: Any, model: Caller
) -> None:
    with pytest.raises(InvalidInputError, match="session_id"):
        await ask(way, agent, "sea", {"configurable": {"user_id": "ann"}})
    assert model.seen == []


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_another_users_session_is_refused(
    way: str, agent: Any, model: Caller, config: RunnableConfig, log: Log
) -> None:
    await ask(way, agent, "sea", config)
    config["configurable"]["user_id"] = "bob"
    with pytest.raises(SessionNotFoundError):
        await ask(way, agent, "sky", config)
    assert log() == TALK[:4]
    assert len(model.seen) == 2


# Runs at once, and within each other


async def test_runs_on_one_session_come_one_after_the_other(
    agent: Any, model: Caller, config: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    await asyncio.gather(*(ask("ainvoke", agent, text, config) for text in ("sea", "sky", "sun")))
    assert statuses() == ["complete"] * 3
    told = log()
    turns = [told[place : place + 4] for place in (0, 4, 8)]
    for human, call, result, answer in turns:
        assert [human[0], call[0], result, answer[1]] == [
            "human", "ai", ("tool", f"saw {human[1]}"), f"I saw {human[1]}"
        ]  # fmt: skip
    assert model.texts[-1] == told[:-1], "the last one was shown all before it"


def test_runs_from_threads_come_one_after_the_other(
    agent: Any, config: RunnableConfig, log: Log
) -> None:
    agent.batch([{"messages": text} for text in ("sea", "sky", "sun")], config)
    assert len(log()) == 12
    assert [kind for kind, _ in log()] == ["human", "ai", "tool", "ai"] * 3


def test_ten_threads_and_two_loops(manager: SessionManager, log: Log, statuses: Statuses) -> None:
    agent = create_agent(Caller(seen=[]), [look], middleware=[SessionMiddleware(manager)])
    config: RunnableConfig = {"configurable": {"session_id": "chat"}}
    barrier = threading.Barrier(12)

    def thread(number: int) -> None:
        barrier.wait(30)
        agent.invoke({"messages": [("human", f"t{number}")]}, config)

    async def loop(name: str) -> None:
        barrier.wait(30)
        await asyncio.gather(*(ask("ainvoke", agent, f"{name}{n}", config) for n in range(3)))

    with ThreadPoolExecutor(12) as pool:
        done = [pool.submit(thread, number) for number in range(10)]
        done += [pool.submit(asyncio.run, loop(name)) for name in "ab"]
        for each in done:
            each.result()
    told = log()
    assert statuses() == ["complete"] * 16
    for place in range(0, len(told), 4):
        asked = told[place][1]
        assert told[place : place + 4] == [
            ("human", asked), ("ai", ""), ("tool", f"saw {asked}"), ("ai", f"I saw {asked}")
        ]  # fmt: skip
    assert len({text for kind, text in told if kind == "human"}) == 16


async def test_a_second_run_may_be_told_that_the_session_is_busy(
    make_manager: Callable[..., SessionManager], model: Caller, config: RunnableConfig, log: Log
) -> None:
    inside, go = asyncio.Event(), asyncio.Event()

    @tool("look")
    async def wait(at: str) -> str:
        """Look at something."""
        inside.set()
        await go.wait()
        return f"saw {at}"

    manager = make_manager(turn_wait=0)
    agent = create_agent(model, [wait], middleware=[SessionMiddleware(manager)])
    first = asyncio.create_task(ask("ainvoke", agent, "sea", config))
    await inside.wait()
    with pytest.raises(SessionBusyError):
        await ask("ainvoke", agent, "sky", config)
    go.set()
    await first
    history = SessionChatMessageHistory("chat", manager, user_id="ann")
    assert [message.text for message in await history.aget_messages()] == [
        "sea", "", "saw sea", "I saw sea"
    ]  # fmt: skip


def nested(
    manager: SessionManager,
    model: Caller,
    *middleware: Any,
    config: Any = None,
    outer: Caller | None = None,
) -> Any:
    """An agent with a tool that asks another agent, in both ways."""
    inner = create_agent(model.model_copy(update={"uses": "look"}), [look], middleware=middleware)

    def sync(at: str) -> str:
        return str(inner.invoke({"messages": f"deep {at}"}, config)["messages"][-1].text)

    @tool("delegate")
    def delegate(at: str) -> str:
        """Let another agent look."""
        return sync(at)

    async def adelegate(at: str) -> str:
        output = await inner.ainvoke({"messages": f"deep {at}"}, config)
        return str(output["messages"][-1].text)

    delegate.coroutine = adelegate
    outer = outer or model.model_copy(update={"uses": "delegate"})
    return create_agent(outer, [delegate], middleware=[SessionMiddleware(manager)])


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_an_agent_within_another_with_the_same_session_is_refused(
    way: str, manager: SessionManager, model: Caller, config: RunnableConfig, statuses: Statuses,
    log: Log,
) -> None:  # fmt: skip
    agent = nested(manager, model, SessionMiddleware(manager))
    with pytest.raises(NestedTurnError):
        await ask(way, agent, "sea", config)
    assert (log(), statuses()) == (TALK[:2], ["failed"])


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_an_agent_within_another_may_have_a_session_of_its_own(
    way: str, manager: SessionManager, model: Caller, config: RunnableConfig, log: Log
) -> None:
    agent = nested(manager, model, SessionMiddleware(manager, scope="scout"))
    await ask(way, agent, "sea", config)
    await ask(way, agent, "sky", config)
    assert [text for _, text in log()] == [
        "sea", "", "I saw deep sea", "I I saw deep sea",
        "sky", "", "I saw deep sky", "I I saw deep sky",
    ]  # fmt: skip
    assert [text for _, text in log("chat/scout")] == [
        "deep sea", "", "saw deep sea", "I saw deep sea",
        "deep sky", "", "saw deep sky", "I saw deep sky",
    ]  # fmt: skip


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_the_key_of_a_run_is_not_that_of_the_runs_within_it(
    way: str, manager: SessionManager, model: Caller, config: RunnableConfig, log: Log
) -> None:
    class Twice(Caller):
        def _answer(self, messages: list[BaseMessage]) -> AIMessage:
            self.seen.append(messages)
            if len(self.seen) > 3:
                return AIMessage("enough")
            call = {"name": "delegate", "args": {"at": f"{(len(self.seen) + 1) // 2}"}, "id": "c"}
            return AIMessage("", tool_calls=[{**call, "id": f"c{len(self.seen)}"}])

    outer = nested(manager, model, SessionMiddleware(manager, scope="scout"), outer=Twice(seen=[]))
    config["configurable"]["idempotency_key"] = "k"
    for _ in range(2):
        (output,) = await ask(way, outer, "sea", config)
    assert output["messages"][-1].text == "enough"
    questions = [text for kind, text in log("chat/scout") if kind == "human"]
    assert questions == ["deep 1", "deep 1", "deep 2"]


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_a_run_within_another_may_have_a_key_of_its_own(
    way: str, manager: SessionManager, model: Caller, config: RunnableConfig, log: Log
) -> None:
    # It names its session, as an old LangGraph hands none down beside a config of its own.
    inner = SessionMiddleware(manager, session_id="chat", scope="scout")
    outer = nested(manager, model, inner, config={"configurable": {"idempotency_key": "mine"}})
    config["configurable"]["idempotency_key"] = "k"
    await ask(way, outer, "sea", config)
    config["configurable"]["idempotency_key"] = "l"
    await ask(way, outer, "sea", config)
    assert len(log()) == 8
    assert len(log("chat/scout")) == 4


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_an_agent_within_another_may_have_no_memory(
    way: str, manager: SessionManager, model: Caller, config: RunnableConfig, log: Log
) -> None:
    await ask(way, nested(manager, model), "sea", config)
    assert [text for _, text in log()] == ["sea", "", "I saw deep sea", "I I saw deep sea"]


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_a_tool_may_store_something_in_the_session_it_runs_in(
    way: str, manager: SessionManager, model: Caller, config: RunnableConfig, log: Log,
    statuses: Statuses,
) -> None:  # fmt: skip
    @tool("look")
    async def note(at: str) -> str:
        """Look at something."""
        session = await manager.get_session("chat")
        await session.record(SessionMessage(role="system", content=f"noted {at}"))
        return f"saw {at}"

    note.func = lambda at: run(note.coroutine(at))
    agent = create_agent(model, [note], middleware=[SessionMiddleware(manager)])
    await ask(way, agent, "sea", config)
    assert log() == [*TALK[:2], ("system", "noted sea"), *TALK[2:4]]
    assert statuses() == ["complete"]


# The session's own middleware


class Refuse(ISessionMiddleware):
    async def process_outgoing_message(
        self, session: ISession, message: SessionMessage
    ) -> SessionMessage:
        raise MessageRefusedError("no")

    process_incoming_message = process_outgoing_message


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_middleware_changes_is_what_everybody_sees(
    way: str, redacting: SessionManager, model: Caller, config: RunnableConfig, log: Log
) -> None:
    agent = create_agent(model, [look], middleware=[SessionMiddleware(redacting)])
    chunks = await ask(way, agent, "a secret", config)
    await ask(way, agent, "sky", config)
    assert "secret" not in str(model.texts)
    assert "secret" not in str(log())
    assert log()[:4] == [
        ("human", "a ***"),
        ("ai", ""),
        ("tool", "saw a ***"),
        ("ai", "I saw a ***"),
    ]
    if way.endswith(("updates", "messages")):
        assert "secret" not in str(chunks), "the reader sees it after the middleware"


class Teller(Caller):
    """A model that tells."""

    def _answer(self, messages: list[BaseMessage]) -> AIMessage:
        return AIMessage("I tell a secret")


@pytest.mark.parametrize("way", ["stream messages", "astream messages"])
async def test_an_answer_that_a_middleware_must_see_first_is_not_streamed_before(
    way: str, redacting: SessionManager, config: RunnableConfig, log: Log
) -> None:
    agent = create_agent(Teller(), middleware=[SessionMiddleware(redacting)])
    chunks = await ask(way, agent, "sea", config)
    assert [chunk.text for chunk, _ in chunks] == ["I tell a ***"]
    assert log() == [("human", "sea"), ("ai", "I tell a ***")]


async def test_a_refused_message_is_not_stored_and_no_model_is_asked(
    agent: Any, manager: SessionManager, model: Caller, config: RunnableConfig
) -> None:
    manager.add_global_middleware(Refuse())
    with pytest.raises(MessageRefusedError):
        agent.invoke({"messages": "sea"}, config)
    with pytest.raises(MessageRefusedError):
        await agent.ainvoke({"messages": "sea"}, config)
    assert model.seen == []
    assert (await manager.get_session("chat")).metrics.message_count == 0


# Repeated calls, and other doors


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_a_repeated_key_gives_the_stored_answer(
    way: str, agent: Any, model: Caller, config: RunnableConfig, log: Log
) -> None:
    config["configurable"]["idempotency_key"] = "k"
    await ask(way, agent, "sea", config)
    (again,) = await ask(way, agent, "sea", config)
    assert again["messages"][-1].text == "I saw sea"
    assert len(model.seen) == 2
    assert log() == TALK[:4]


async def test_it_goes_on_from_what_other_doors_wrote(
    agent: Any, manager: SessionManager, model: Caller, config: RunnableConfig
) -> None:
    session = await manager.create_session("ann", "mock", "echo", session_id="chat")
    await session.send_message("hello")
    calls = [ToolCallBlock(id=name, name="look", args={}) for name in "ab"]
    results = [ToolResultBlock(tool_call_id=name, content=f"saw {name}") for name in "ab"]
    await session.record(
        [
            SessionMessage(role="user", content="both"),
            SessionMessage(role="assistant", content=calls),
            SessionMessage(id="results", role="tool", content=results),
        ]
    )
    await agent.ainvoke({"messages": "sea"}, config)
    assert [message.text for message in model.seen[0]] == [
        "hello", "You said: hello", "both", "", "saw a", "saw b", "sea"
    ]  # fmt: skip
    assert [m.tool_call_id for m in model.seen[0] if m.type == "tool"] == ["a", "b"]
    await agent.ainvoke({"messages": "sky"}, config)
    assert (await session.get_messages())[4].id == "results"
    assert len(await session.get_messages()) == 5 + 4 + 4


@pytest.mark.parametrize("saver", [None, InMemorySaver], ids=["no checkpointer", "checkpointer"])
async def test_messages_that_came_without_an_id_are_not_stored_again(
    saver: Any, manager: SessionManager, model: Caller, config: RunnableConfig, log: Log
) -> None:
    history = SessionChatMessageHistory("chat", manager, user_id="ann")
    chain = RunnableWithSession(RunnableLambda(lambda messages: "yo"), manager)
    agent = create_agent(
        model, [look], middleware=[SessionMiddleware(manager)], checkpointer=saver and saver()
    )
    config["configurable"]["thread_id"] = "t"
    await history.aadd_messages([HumanMessage("hi"), AIMessage("yo")])
    await agent.ainvoke({"messages": "sea"}, config)
    await chain.ainvoke("hey", config)
    output = await agent.ainvoke({"messages": "sky"}, config)
    told = [("human", "hi"), ("ai", "yo"), *TALK[:4], ("human", "hey"), ("ai", "yo"), *TALK[4:]]
    assert log() == told
    assert [(message.type, message.text) for message in output["messages"]] == told
    assert model.texts[-1] == told[:-1]


async def test_nor_are_those_that_came_while_the_run_waited_for_its_turn(
    manager: SessionManager, model: Caller, config: RunnableConfig, log: Log
) -> None:
    class Chatty(AgentMiddleware[Any, Any]):
        """Lets somebody else write between the beginning of a run and its turn."""

        async def abefore_model(self, state: Any, runtime: Any) -> None:
            if len(state["messages"]) == 2:
                await history.aadd_messages([HumanMessage("hi"), AIMessage("yo")])

    history = SessionChatMessageHistory("chat", manager, user_id="ann")
    await history.aadd_messages([AIMessage("welcome")])
    agent = create_agent(model, [look], middleware=[SessionMiddleware(manager), Chatty()])
    await agent.ainvoke({"messages": "sea"}, config)
    told = [("ai", "welcome"), ("human", "hi"), ("ai", "yo"), *TALK[:4]]
    assert log() == told
    assert model.texts[-1] == told[:-1]


async def test_the_window_is_what_the_session_says(
    agent: Any, manager: SessionManager, model: Caller, config: RunnableConfig
) -> None:
    session = await manager.create_session("ann", "mock", "echo", session_id="chat", max_messages=3)
    for text in ("one", "two", "three"):
        await session.send_message(text)
    agent.invoke({"messages": "sea"}, config)
    assert [message.text for message in model.seen[0]] == [
        "three", "You said: three", "sea"
    ]  # fmt: skip


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_a_tools_command_is_stored_as_well(
    way: str, manager: SessionManager, model: Caller, config: RunnableConfig, log: Log
) -> None:
    @tool("look")
    def update(at: str, call: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Look at something."""
        return Command(update={"messages": [ToolMessage(f"saw {at}", tool_call_id=call)]})

    agent = create_agent(model, [update], middleware=[SessionMiddleware(manager)])
    await ask(way, agent, "sea", config)
    assert log() == TALK[:4]
