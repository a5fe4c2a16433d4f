"""Agents in graphs, and states whose messages have no ids."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Annotated, Any, Required
from uuid import UUID

import pytest
from langchain.agents import AgentState, create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableConfig, RunnableParallel
from langchain_core.tools import InjectedToolCallId, tool
from langchain_langswarm import RunnableWithSession, SessionMiddleware
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState
from langgraph.types import Command

from langswarm_session import InvalidInputError, SessionManager
from langswarm_session._sync.bridge import run

Log = Callable[..., list[tuple[str, str]]]

HAS_DELTA = find_spec("langgraph.channels.delta") is not None


@pytest.fixture
def storage_kind() -> str:
    """One is enough here: what differs between the storages is tested elsewhere."""
    return "memory"


@pytest.fixture
def config() -> RunnableConfig:
    return {"configurable": {"session_id": "chat", "thread_id": "thread"}}


def texts(messages: list[AnyMessage]) -> list[str]:
    return [str(message.text) for message in messages]


# Messages without ids


if HAS_DELTA:
    from langgraph.channels.delta import DeltaChannel
    from langgraph.graph.message import _messages_delta_reducer

    def add(state: list[Any], writes: list[Any]) -> list[Any]:
        """As deepagents' reducer, which LangGraph does not know for one of messages."""
        return list(_messages_delta_reducer(state, writes))

    class UnnamedState(AgentState[Any]):
        messages: Required[Annotated[list[AnyMessage], DeltaChannel(add)]]


needs_delta = pytest.mark.skipif(not HAS_DELTA, reason="this LangGraph has no DeltaChannel")


def make_unnamed(
    manager: SessionManager, answers: list[str], *middleware: AgentMiddleware, **options: Any
) -> Any:
    """An agent whose state gives messages no ids."""
    return create_agent(
        FakeListChatModel(responses=answers),
        middleware=[SessionMiddleware(manager), *middleware],
        state_schema=UnnamedState,
        **options,
    )


def make_plain(manager: SessionManager, answers: list[str], **options: Any) -> Any:
    middleware = [SessionMiddleware(manager)]
    return create_agent(FakeListChatModel(responses=answers), middleware=middleware, **options)


def ask(text: str) -> dict[str, Any]:
    return {"messages": [("user", text)]}


@needs_delta
@pytest.mark.parametrize("keeps_thread", [False, True])
def test_what_is_said_without_an_id_is_stored(
    manager: SessionManager, config: RunnableConfig, log: Log, keeps_thread: bool
) -> None:
    saver = InMemorySaver() if keeps_thread else None
    agent = make_unnamed(manager, ["one", "two", "three"], checkpointer=saver)
    for _ in range(3):
        result = agent.invoke(ask("hi"), config)
    expected = [("human", "hi"), ("ai", "one"), ("human", "hi"), ("ai", "two"),
                ("human", "hi"), ("ai", "three")]  # fmt: skip
    assert log() == expected
    assert [(message.type, message.text) for message in result["messages"]] == expected
    assert all(message.id for message in result["messages"])


@pytest.mark.parametrize("is_unnamed", [pytest.param(True, marks=needs_delta), False])
def test_a_checkpoint_that_is_replayed_stores_nothing_twice(
    manager: SessionManager, config: RunnableConfig, log: Log, is_unnamed: bool
) -> None:
    make = make_unnamed if is_unnamed else make_plain
    agent = make(manager, ["one", "two"], checkpointer=InMemorySaver())
    agent.invoke(ask("hi"), config)
    begun = next(
        state for state in agent.get_state_history(config) if "before_agent" in str(state.next)
    )
    assert (begun.values["messages"][0].id is None) is is_unnamed
    place = {**config["configurable"], **begun.config["configurable"]}
    result = agent.invoke(None, {"configurable": place})
    assert log() == [("human", "hi"), ("ai", "one")]
    assert texts(result["messages"]) == ["hi", "one"]


class Remind(AgentMiddleware):
    """Puts a message without an id into the state before the model is asked."""

    def before_model(self, state: Any, runtime: Any) -> dict[str, Any]:
        return {"messages": [HumanMessage("be brief")]}


@needs_delta
def test_what_another_middleware_adds_without_an_id_is_stored_once(
    manager: SessionManager, config: RunnableConfig, log: Log
) -> None:
    agent = make_unnamed(manager, ["one", "two"], Remind(), checkpointer=InMemorySaver())
    for _ in range(2):
        result = agent.invoke(ask("hi"), config)
    turn = [("human", "hi"), ("human", "be brief")]
    assert log() == [*turn, ("ai", "one"), *turn, ("ai", "two")]
    assert all(message.id for message in result["messages"])


# An agent in a graph


def in_a_graph(agent: Any, **options: Any) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("ask", agent)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    return graph.compile(**options)


@pytest.mark.parametrize("keeps_thread", [False, True])
def test_a_graph_is_handed_what_is_new(
    manager: SessionManager, config: RunnableConfig, log: Log, keeps_thread: bool
) -> None:
    agent = make_plain(manager, ["one", "two", "three"])
    agent.invoke(ask("before"), config)
    graph = in_a_graph(agent, checkpointer=InMemorySaver() if keeps_thread else None)
    first = graph.invoke(ask("a"), config)
    second = graph.invoke(ask("b"), config)
    assert texts(first["messages"]) == ["a", "two"]
    assert texts(second["messages"]) == [*(["a", "two"] if keeps_thread else []), "b", "three"]
    assert [text for _, text in log()] == ["before", "one", "a", "two", "b", "three"]


def test_a_graph_is_handed_a_repeated_answer(
    manager: SessionManager, config: RunnableConfig, log: Log
) -> None:
    graph = in_a_graph(make_plain(manager, ["one"]))
    for _ in range(2):
        result = graph.invoke({"messages": [HumanMessage("a", id="a")]}, config)
        assert texts(result["messages"]) == ["a", "one"]
    assert log() == [("human", "a"), ("ai", "one")]


# Several agents that are asked the same


class Meets(FakeListChatModel):
    """A model that answers once all of them are asked."""

    barrier: Any = None
    seen: list[list[str]] = []

    def _call(self, messages: list[Any], *args: Any, **kwargs: Any) -> str:
        self.seen.append(texts(messages))
        if self.barrier is not None:
            self.barrier.wait(20)
        return super()._call(messages, *args, **kwargs)

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self


def expert(manager: SessionManager, name: str, barrier: Any = None, **options: Any) -> Any:
    model = Meets(responses=[f"{name} 1", f"{name} 2"], barrier=barrier, seen=[])
    middleware = [SessionMiddleware(manager)]
    return model, create_agent(model, name=name, middleware=middleware, **options)


def fan_out(**agents: Any) -> Any:
    graph = StateGraph(MessagesState)
    for name, agent in agents.items():
        graph.add_node(name, agent)
        graph.add_edge(START, name)
        graph.add_edge(name, END)
    return graph.compile()


QUESTION = {"messages": [HumanMessage("may I?", id="q")]}


@pytest.fixture
def turns(manager: SessionManager) -> Callable[[], list[tuple[str, list[str]]]]:
    """The turns of the session: how each stands, and what it has."""

    async def read() -> list[tuple[str, list[str]]]:
        session = await manager.get_session("chat")
        said = await session.get_messages()
        return [
            (turn.status.value, [each.text for each in said if each.turn_id == turn.id])
            for turn in await session.get_turns()
        ]

    return lambda: run(read())


@pytest.mark.parametrize("is_async", [False, True])
async def test_parallel_agents_each_answer(
    manager: SessionManager, config: RunnableConfig, turns: Any, is_async: bool
) -> None:
    barrier = threading.Barrier(2)
    models, agents = zip(*(expert(manager, name, barrier) for name in ("law", "tax")), strict=True)
    graph = fan_out(law=agents[0], tax=agents[1])
    result = await graph.ainvoke(QUESTION, config) if is_async else graph.invoke(QUESTION, config)
    assert sorted(texts(result["messages"])) == ["law 1", "may I?", "tax 1"]
    first, second = turns()
    assert first[0] == second[0] == "complete"
    assert first[1][0] == "may I?"
    assert sorted([first[1][1], *second[1]]) == ["law 1", "tax 1"]
    for model in models:
        assert model.seen == [["may I?"]]
        model.barrier = None
    again = graph.invoke(QUESTION, config)
    assert sorted(texts(again["messages"])) == ["law 1", "may I?", "tax 1"]
    assert turns() == [first, second]


def test_one_agent_after_the_other_answers(
    manager: SessionManager, config: RunnableConfig, turns: Any
) -> None:
    experts = [expert(manager, name) for name in ("law", "tax")]
    for _ in range(2):
        for model, agent in experts:
            result = agent.invoke(QUESTION, config)
            assert texts(result["messages"]) == ["may I?", f"{agent.name} 1"]
            assert model.seen == [["may I?"]], "and not what others answered"
    assert turns() == [("complete", ["may I?", "law 1"]), ("complete", ["tax 1"])]
    model, agent = experts[0]
    agent.invoke(ask("and now?"), config)
    assert model.seen[1] == ["may I?", "law 1", "tax 1", "and now?"]


def test_the_same_agent_in_two_nodes_answers_in_both(
    manager: SessionManager, config: RunnableConfig, turns: Any
) -> None:
    _, agent = expert(manager, "expert")
    result = fan_out(law=agent, tax=agent).invoke(QUESTION, config)
    assert sorted(texts(result["messages"])) == ["expert 1", "expert 2", "may I?"]
    assert sorted(len(said) for _, said in turns()) == [1, 2]


def test_a_parallel_agent_that_fails_leaves_the_other_its_answer(
    manager: SessionManager, config: RunnableConfig, turns: Any
) -> None:
    barrier = threading.Barrier(2)
    _, law = expert(manager, "law", barrier)

    class Breaks(AgentMiddleware):
        def after_model(self, state: Any, runtime: Any) -> None:
            raise RuntimeError("out of paper")

    model = Meets(responses=["tax 1"], barrier=barrier, seen=[])
    tax = create_agent(model, name="tax", middleware=[SessionMiddleware(manager), Breaks()])
    with pytest.raises(RuntimeError, match="out of paper"):
        fan_out(law=law, tax=tax).invoke(QUESTION, config)
    found = {said[-1]: status for status, said in turns()}
    assert found["tax 1"] == "failed"
    assert sum(len(said) for _, said in turns()) in (2, 3)


def test_an_agent_within_the_turn_of_another_answers_the_same(
    manager: SessionManager, config: RunnableConfig, turns: Any
) -> None:
    """A chain with a session around a graph whose agents have the same."""
    _, law = expert(manager, "law")
    graph = fan_out(law=law)
    chain = RunnableWithSession(
        lambda messages, config: graph.invoke({"messages": messages}, config)["messages"][-1:],
        manager,
    )
    answer = chain.invoke(QUESTION["messages"], config)
    assert texts(answer) == ["law 1"]
    assert turns() == [("complete", ["may I?", "law 1"])], "it is one message"


def test_what_an_agent_within_the_turn_of_another_answers_is_kept(
    manager: SessionManager, config: RunnableConfig, turns: Any
) -> None:
    graph = fan_out(**{name: expert(manager, name)[1] for name in ("law", "tax")})
    chain = RunnableWithSession(
        lambda messages, config: graph.invoke({"messages": messages}, config) and "both say yes",
        manager,
    )
    for _ in range(2):
        assert chain.invoke(QUESTION["messages"], config) == "both say yes"
    first, *others = turns()
    assert first == ("complete", ["may I?", "both say yes"])
    assert sorted(others) == [("complete", ["law 1"]), ("complete", ["tax 1"])]


def test_chains_in_parallel_each_answer(
    manager: SessionManager, config: RunnableConfig, turns: Any
) -> None:
    barrier = threading.Barrier(2)
    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("asked")])
    both = RunnableParallel(
        {
            name: prompt
            | RunnableWithSession(Meets(responses=[name], barrier=barrier, seen=[]), manager)
            for name in ("law", "tax")
        }
    )
    for _ in range(2):
        answers = both.invoke({"asked": QUESTION["messages"]}, config)
        assert {name: answer.text for name, answer in answers.items()} == {
            "law": "law", "tax": "tax"
        }  # fmt: skip
    assert len(turns()) == 2


def test_chains_that_differ_each_answer(
    manager: SessionManager, config: RunnableConfig, turns: Any
) -> None:
    chains = [
        RunnableWithSession(
            ChatPromptTemplate.from_messages([("system", name), MessagesPlaceholder("h"),
                                              ("human", "{q}")])
            | FakeListChatModel(responses=[name, "again"]),
            manager, input_messages_key="q", history_messages_key="h",
        )
        for name in ("law", "tax")
    ]  # fmt: skip
    for _ in range(2):
        answers = [chain.invoke({"q": QUESTION["messages"]}, config) for chain in chains]
        assert texts(answers) == ["law", "tax"]
    assert len(turns()) == 2


def test_an_agent_that_hands_over_is_done(
    manager: SessionManager, config: RunnableConfig, turns: Any
) -> None:
    """As the handoff tools of langgraph-supervisor and langgraph-swarm do."""

    @tool
    def to_law(
        state: Annotated[Any, InjectedState], call: Annotated[str, InjectedToolCallId]
    ) -> Command[Any]:
        """Hand over."""
        result = ToolMessage("handed over", tool_call_id=call)
        update = {"messages": [*state["messages"], result]}
        return Command(goto="law", graph=Command.PARENT, update=update)

    class Hands(Meets):
        def _generate(self, messages: list[Any], *args: Any, **kwargs: Any) -> ChatResult:
            call = AIMessage("", tool_calls=[{"name": "to_law", "args": {}, "id": "c"}])
            return ChatResult(generations=[ChatGeneration(message=call)])

    clerk = create_agent(
        Hands(responses=[""], seen=[]), [to_law], name="clerk",
        middleware=[SessionMiddleware(manager)],
    )  # fmt: skip
    model, law = expert(manager, "law")
    graph = StateGraph(MessagesState)
    graph.add_node("clerk", clerk, destinations=("law",))
    graph.add_node("law", law)
    graph.add_edge(START, "clerk")
    result = graph.compile().invoke(QUESTION, config)
    assert texts(result["messages"]) == ["may I?", "", "handed over", "law 1"]
    assert model.seen == [["may I?", "", "handed over"]]
    assert turns() == [("complete", ["may I?", "", "handed over"]), ("complete", ["law 1"])]


# Another answer to the same


@pytest.mark.parametrize("keeps_thread", [False, True])
@pytest.mark.parametrize(
    "given", [QUESTION["messages"], [("user", "may I?")], []], ids=["id", "text", "nothing"]
)
def test_an_agent_answers_again(
    manager: SessionManager, config: RunnableConfig, log: Log, keeps_thread: bool, given: Any
) -> None:
    saver = InMemorySaver() if keeps_thread else None
    model, agent = expert(manager, "law", checkpointer=saver)
    agent.invoke(ask("before"), config)
    model.responses = ["no", "yes", "perhaps"]
    model.i = 0
    agent.invoke(QUESTION, config)
    again: RunnableConfig = {"configurable": {**config["configurable"], "regenerate": True,
                                              "idempotency_key": "again"}}  # fmt: skip
    for _ in range(2):
        result = agent.invoke({"messages": given}, again)
        assert texts(result["messages"]) == ["before", "law 1", "may I?", "yes"]
    assert [text for _, text in log()] == ["before", "law 1", "may I?", "no", "yes"]
    assert model.seen[2] == ["before", "law 1", "may I?"]
    agent.invoke(ask("and now?"), config)
    assert model.seen[3] == ["before", "law 1", "may I?", "yes", "and now?"]


def test_a_chain_answers_again(manager: SessionManager, config: RunnableConfig, log: Log) -> None:
    model = Meets(responses=["no", "yes", "perhaps"], seen=[])
    chain = RunnableWithSession(model, manager)
    chain.invoke("may I?", config)
    again: RunnableConfig = {"configurable": {**config["configurable"], "regenerate": True,
                                              "idempotency_key": "again"}}  # fmt: skip
    for _ in range(2):
        assert chain.invoke("may I?", again).text == "yes"
    assert model.seen == [["may I?"], ["may I?"]]
    assert [text for _, text in log()] == ["may I?", "no", "yes"]
    chain.invoke("and now?", config)
    assert model.seen[2] == ["may I?", "yes", "and now?"]
    with pytest.raises(InvalidInputError, match="no such message"):
        chain.invoke("something else", again)


def test_numbers_and_uuids_are_ids(manager: SessionManager) -> None:
    agent = make_plain(manager, ["one", "two"])
    for session_id in (7, UUID(int=7)):
        agent.invoke(ask("hi"), {"configurable": {"session_id": session_id, "user_id": 1}})
        assert run(manager.get_session(str(session_id), user_id="1")).metrics.message_count == 2
