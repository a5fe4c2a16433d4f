"""The session's middleware beside a checkpointer and LangChain's own middleware."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    PIIMiddleware,
    SummarizationMiddleware,
    before_agent,
)
from langchain.agents.structured_output import ToolStrategy
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import tool
from langchain_langswarm import SessionChatMessageHistory, SessionMiddleware
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command
from pydantic import BaseModel

from langswarm_session import SessionManager

Log = Callable[..., list[tuple[str, str]]]
Statuses = Callable[..., list[str]]


class Looker(BaseChatModel):
    """A model that calls the tool where it is told to ``look at`` something, and else answers."""

    seen: list[list[BaseMessage]] = []
    offered: list[str] = []

    @property
    def _llm_type(self) -> str:
        return "looker"

    @property
    def texts(self) -> list[list[str]]:
        return [[str(message.text) for message in seen] for seen in self.seen]

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
        self.offered[:] = [tool.name for tool in tools]
        return self

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self.seen.append(list(messages))
        last = str(messages[-1].text)
        answer = AIMessage(f"about {last}")
        if isinstance(messages[-1], HumanMessage) and last.startswith("look at "):
            call = {"name": self.offered[-1], "args": {"at": last[8:]}, "id": f"c{len(self.seen)}"}
            answer = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=answer)])


class Summarizer(Looker):
    """A model that sums up."""

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self.seen.append(list(messages))
        message = AIMessage(f"summary {len(self.seen)}")
        return ChatResult(generations=[ChatGeneration(message=message)])


def look(at: str) -> str:
    """Look at something."""
    return f"saw {at}"


@pytest.fixture
def model() -> Looker:
    return Looker(seen=[], offered=[])


@pytest.fixture(params=["invoke", "ainvoke"])
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Runs an agent with a text, or with what resumes it."""

    async def ask(agent: Any, value: Any, config: Any) -> Any:
        value = {"messages": [("human", value)]} if isinstance(value, str) else value
        if request.param == "invoke":
            return agent.invoke(value, config)
        return await agent.ainvoke(value, config)

    return ask


@pytest.fixture
def threaded(config: RunnableConfig) -> RunnableConfig:
    """A config with the thread of a checkpointer."""
    return {"configurable": {**config["configurable"], "thread_id": "t"}}


def texts(output: Any) -> list[str]:
    return [str(message.text) for message in output["messages"]]


# A checkpointer


async def test_with_a_checkpointer_nothing_comes_twice(
    ask: Any, manager: SessionManager, model: Looker, threaded: RunnableConfig, log: Log
) -> None:
    agent = create_agent(
        model, [look], middleware=[SessionMiddleware(manager)], checkpointer=InMemorySaver()
    )
    await ask(agent, "look at sea", threaded)
    await ask(agent, "b", threaded)
    output = await ask(agent, "c", threaded)
    told = ["look at sea", "", "saw sea", "about saw sea", "b", "about b", "c", "about c"]
    assert texts(output) == told
    assert [text for _, text in log()] == told
    assert model.texts[-1] == told[:-1]


async def test_a_thread_is_given_what_others_said_meanwhile(
    ask: Any, manager: SessionManager, model: Looker, threaded: RunnableConfig, log: Log
) -> None:
    agent = create_agent(
        model, middleware=[SessionMiddleware(manager)], checkpointer=InMemorySaver()
    )
    session = await manager.create_session("ann", "mock", "echo", session_id="chat")
    await session.send_message("before")
    await ask(agent, "a", threaded)
    await session.send_message("between")
    output = await ask(agent, "b", threaded)
    told = ["before", "You said: before", "a", "about a", "between", "You said: between", "b"]
    assert model.texts[-1] == told
    assert texts(output) == [*told, "about b"]
    assert [text for _, text in log()] == [*told, "about b"]


async def test_a_thread_from_before_the_session_is_taken_into_it(
    ask: Any, manager: SessionManager, model: Looker, threaded: RunnableConfig, log: Log
) -> None:
    saver = InMemorySaver()
    await ask(create_agent(model, [look], checkpointer=saver), "look at sea", threaded)
    agent = create_agent(model, [look], middleware=[SessionMiddleware(manager)], checkpointer=saver)
    await ask(agent, "b", threaded)
    assert [text for _, text in log()] == [
        "look at sea", "", "saw sea", "about saw sea", "b", "about b"
    ]  # fmt: skip


async def test_another_thread_goes_on_with_the_session(
    ask: Any, manager: SessionManager, model: Looker, threaded: RunnableConfig
) -> None:
    agent = create_agent(
        model, middleware=[SessionMiddleware(manager)], checkpointer=InMemorySaver()
    )
    await ask(agent, "a", threaded)
    threaded["configurable"]["thread_id"] = "u"
    await ask(agent, "b", threaded)
    assert model.texts[-1] == ["a", "about a", "b"]


async def test_what_the_record_left_out_stays_out_of_a_threads_requests(
    ask: Any, redacting: SessionManager, model: Looker, threaded: RunnableConfig
) -> None:
    agent = create_agent(
        model, middleware=[SessionMiddleware(redacting)], checkpointer=InMemorySaver()
    )
    await ask(agent, "a secret", threaded)
    await ask(agent, "b", threaded)
    assert model.texts == [["a ***"], ["a ***", "about a ***", "b"]]


async def test_a_thread_has_results_once_that_came_in_another_order_than_they_were_called(
    manager: SessionManager, model: Looker, threaded: RunnableConfig, log: Log
) -> None:
    quick_is_back = asyncio.Event()

    class Results(AgentMiddleware[Any, Any]):
        """Holds the first call's result back until the second's is stored."""

        async def awrap_tool_call(self, request: Any, handler: Any) -> Any:
            if request.tool_call["name"] == "slow":
                await quick_is_back.wait()
            result = await handler(request)
            quick_is_back.set()
            return result

    @tool
    async def slow() -> str:
        """Take long."""
        return "slow"

    @tool
    async def quick() -> str:
        """Take no time."""
        return "quick"

    class Both(Looker):
        def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
            if messages[-1].text != "both":
                return super()._generate(messages)
            calls = [{"name": name, "args": {}, "id": name} for name in ("slow", "quick")]
            answer = AIMessage("", tool_calls=calls)
            return ChatResult(generations=[ChatGeneration(message=answer)])

    both = Both(seen=[], offered=[])
    agent = create_agent(
        both,
        [slow, quick],
        middleware=[Results(), SessionMiddleware(manager)],
        checkpointer=InMemorySaver(),
    )
    await agent.ainvoke({"messages": "both"}, threaded)
    for text in "bc":
        output = await agent.ainvoke({"messages": text}, threaded)
    told = [text for _, text in log()]
    assert told == ["both", "", "quick", "slow", "about quick", "b", "about b", "c", "about c"]
    assert texts(output) == told
    assert both.texts[-1] == told[:-1]


@pytest.mark.parametrize("saver", [None, InMemorySaver], ids=["no checkpointer", "checkpointer"])
async def test_agents_that_are_nodes_of_one_graph_share_the_session(
    saver: Any, ask: Any, manager: SessionManager, threaded: RunnableConfig, log: Log
) -> None:
    graph = StateGraph(MessagesState)
    models = [Looker(seen=[], offered=[]) for _ in "ab"]
    for name, model in zip("ab", models, strict=True):
        graph.add_node(name, create_agent(model, middleware=[SessionMiddleware(manager)]))
    graph.add_edge(START, "a")
    graph.add_edge("a", "b")
    whole = graph.compile(checkpointer=saver and saver())
    told: list[str] = []
    for text in ("one", "two", "three"):
        await ask(whole, text, threaded)
        told += [text, f"about {text}", f"about about {text}"]
        assert [text for _, text in log()] == told
        assert models[1].texts[-1] == told[:-1]


async def test_a_key_is_that_of_the_first_of_a_graphs_agents(
    ask: Any, manager: SessionManager, model: Looker, config: RunnableConfig, log: Log
) -> None:
    graph = StateGraph(MessagesState)
    for name in "ab":
        graph.add_node(name, create_agent(model, middleware=[SessionMiddleware(manager)]))
    graph.add_edge(START, "a")
    graph.add_edge("a", "b")
    config["configurable"]["idempotency_key"] = "k"
    await ask(graph.compile(), "one", config)
    assert [text for _, text in log()] == ["one", "about one", "about about one"]


# SummarizationMiddleware


def summarizing(
    manager: SessionManager, summarizer: Looker, trigger: int = 5, keep: int = 2
) -> list[Any]:
    return [
        SessionMiddleware(manager),
        SummarizationMiddleware(summarizer, trigger=("messages", trigger), keep=("messages", keep)),
    ]


async def test_a_summary_is_made_of_the_session_and_stays_with_it(
    ask: Any, manager: SessionManager, model: Looker, config: RunnableConfig, log: Log
) -> None:
    summarizer = Summarizer(seen=[], offered=[])
    agent = create_agent(model, middleware=summarizing(manager, summarizer))
    for text in "abc":
        await ask(agent, text, config)
    assert len(summarizer.seen) == 1
    assert model.texts[2][1:] == ["about b", "c"]
    assert model.texts[2][0].endswith("summary 1")
    await ask(agent, "d", config)
    assert len(summarizer.seen) == 2, "the summary and what came since are five again"
    assert "summary 1" in summarizer.texts[1][0]
    assert model.texts[3][0].endswith("summary 2")
    assert model.texts[3][1:] == ["about c", "d"]
    told = [text for letter in "abcd" for text in (letter, f"about {letter}")]
    assert [text for _, text in log()] == told, "the log keeps all, and no summary"


@pytest.mark.parametrize("keep", [1, 2])
async def test_a_threads_summary_is_not_undone_by_the_record(
    keep: int, ask: Any, manager: SessionManager, model: Looker, threaded: RunnableConfig, log: Log
) -> None:
    summarizer = Summarizer(seen=[], offered=[])
    agent = create_agent(
        model,
        middleware=summarizing(manager, summarizer, 7, keep),
        checkpointer=InMemorySaver(),
    )
    for text in "abcd":
        await ask(agent, text, threaded)
    assert model.texts[3][0].endswith("summary 1")
    assert model.texts[3][1:] == ["about c", "d"][-keep:]
    for text in "ef":
        await ask(agent, text, threaded)
    assert model.texts[4][1:] == [*["about c", "d"][-keep:], "about d", "e"]
    for seen in model.texts[3:]:
        assert sum("summary" in text for text in seen) == 1
        assert "a" not in seen
        assert len(seen) == len(set(seen))
    assert [text for _, text in log()] == [
        text for letter in "abcdef" for text in (letter, f"about {letter}")
    ]


async def test_another_session_takes_a_thread_over_without_its_summary(
    ask: Any, manager: SessionManager, model: Looker, threaded: RunnableConfig, log: Log
) -> None:
    summarizer = Summarizer(seen=[], offered=[])
    agent = create_agent(
        model, middleware=summarizing(manager, summarizer), checkpointer=InMemorySaver()
    )
    for text in "abc":
        await ask(agent, text, threaded)
    threaded["configurable"]["session_id"] = "other"
    await ask(agent, "d", threaded)
    assert [text for _, text in log("other")] == ["about b", "c", "about c", "d", "about d"]


# HumanInTheLoopMiddleware


@pytest.fixture
def asking(manager: SessionManager, model: Looker) -> Any:
    """An agent that asks before it looks."""
    return create_agent(
        model,
        [look],
        middleware=[SessionMiddleware(manager), HumanInTheLoopMiddleware({"look": True})],
        checkpointer=InMemorySaver(),
    )


def decide(kind: str, **more: Any) -> Command[Any]:
    return Command(resume={"decisions": [{"type": kind, **more}]})


async def test_a_run_that_waits_for_a_human_has_ended_its_turn(
    ask: Any, asking: Any, threaded: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    output = await ask(asking, "look at sea", threaded)
    assert "__interrupt__" in output
    assert (log(), statuses()) == ([("human", "look at sea"), ("ai", "")], ["cancelled"])


async def test_an_approved_call_goes_on(
    ask: Any, asking: Any, model: Looker, threaded: RunnableConfig, log: Log, statuses: Statuses
) -> None:
    await ask(asking, "look at sea", threaded)
    output = await ask(asking, decide("approve"), threaded)
    told = ["look at sea", "", "saw sea", "about saw sea"]
    assert texts(output) == told
    assert [text for _, text in log()] == told
    assert model.texts[-1] == told[:-1]
    assert statuses() == ["cancelled", "complete"]
    await ask(asking, "b", threaded)
    assert model.texts[-1] == [*told, "b"]


async def test_a_rejection_is_stored(
    ask: Any, asking: Any, model: Looker, threaded: RunnableConfig, log: Log
) -> None:
    await ask(asking, "look at sea", threaded)
    await ask(asking, decide("reject", message="not now"), threaded)
    assert [kind for kind, _ in log()] == ["human", "ai", "tool", "ai"]
    assert "not now" in log()[2][1]
    assert "not now" in model.texts[-1][-1]


async def test_an_edited_call_runs_as_edited(
    ask: Any, asking: Any, threaded: RunnableConfig, log: Log
) -> None:
    await ask(asking, "look at sea", threaded)
    action = {"name": "look", "args": {"at": "sky"}}
    await ask(asking, decide("edit", edited_action=action), threaded)
    assert [kind for kind, _ in log()] == ["human", "ai", "tool", "ai"]
    assert "saw sky" in log()[2][1]


async def test_a_decision_that_never_comes_leaves_a_call_that_is_answered_in_the_request(
    ask: Any, asking: Any, model: Looker, threaded: RunnableConfig, log: Log
) -> None:
    await ask(asking, "look at sea", threaded)
    threaded["configurable"]["thread_id"] = "another"
    await ask(asking, "b", threaded)
    kinds = [message.type for message in model.seen[-1]]
    assert kinds == ["human", "ai", "tool", "human"]
    assert "No result" in model.texts[-1][2]
    assert [text for _, text in log()] == ["look at sea", "", "b", "about b"]


# PIIMiddleware and others

MAIL = "write to ann@example.com"
HIDDEN = "write to [REDACTED_EMAIL]"


@pytest.mark.parametrize("place", [0, 1], ids=["before", "behind"])
@pytest.mark.parametrize("saver", [None, InMemorySaver], ids=["no checkpointer", "checkpointer"])
async def test_what_the_pii_middleware_hides_is_in_no_request_and_not_in_the_record(
    place: int, saver: Any, ask: Any, manager: SessionManager, model: Looker,
    threaded: RunnableConfig, log: Log,
) -> None:  # fmt: skip
    middleware: list[Any] = [SessionMiddleware(manager)]
    middleware.insert(place, PIIMiddleware("email"))
    agent = create_agent(model, middleware=middleware, checkpointer=saver and saver())
    await ask(agent, MAIL, threaded)
    await ask(agent, "b", threaded)
    assert model.texts == [[HIDDEN], [HIDDEN, f"about {HIDDEN}", "b"]]
    assert [text for _, text in log()] == [HIDDEN, f"about {HIDDEN}", "b", "about b"]


@pytest.mark.parametrize("place", [0, 1], ids=["before", "behind"])
async def test_what_the_pii_middleware_blocks_is_not_stored_and_holds_nothing_up(
    place: int, ask: Any, manager: SessionManager, model: Looker, config: RunnableConfig, log: Log
) -> None:
    middleware: list[Any] = [SessionMiddleware(manager)]
    middleware.insert(place, PIIMiddleware("email", strategy="block"))
    agent = create_agent(model, middleware=middleware)
    with pytest.raises(Exception, match="email"):
        await ask(agent, MAIL, config)
    assert log() == []
    await ask(agent, "b", config)
    assert log() == [("human", "b"), ("ai", "about b")]


async def test_what_another_middleware_answers_is_stored(
    ask: Any, manager: SessionManager, model: Looker, config: RunnableConfig, log: Log,
    statuses: Statuses,
) -> None:  # fmt: skip
    limit = ModelCallLimitMiddleware(run_limit=1, exit_behavior="end")
    agent = create_agent(model, [look], middleware=[SessionMiddleware(manager), limit])
    await ask(agent, "look at sea", config)
    assert [kind for kind, _ in log()] == ["human", "ai", "tool", "ai"]
    assert "limit" in log()[-1][1]
    assert statuses() == ["complete"]


class Sight(BaseModel):
    """What was seen."""

    at: str


async def test_a_structured_answer_is_stored_with_its_result(
    ask: Any, manager: SessionManager, model: Looker, config: RunnableConfig, log: Log
) -> None:
    agent = create_agent(
        model, [look], middleware=[SessionMiddleware(manager)], response_format=ToolStrategy(Sight)
    )
    output = await ask(agent, "look at sea", config)
    assert output["structured_response"] == Sight(at="sea")
    assert [kind for kind, _ in log()] == ["human", "ai", "tool"]
    await ask(agent, "look at sky", config)
    assert [message.type for message in model.seen[-1]] == ["human", "ai", "tool", "human"]


async def test_all_of_them_together(
    ask: Any, manager: SessionManager, model: Looker, threaded: RunnableConfig, log: Log
) -> None:
    summarizer = Summarizer(seen=[], offered=[])
    agent = create_agent(
        model,
        [look],
        middleware=[
            *summarizing(manager, summarizer),
            PIIMiddleware("email"),
            HumanInTheLoopMiddleware({"look": True}),
        ],
        checkpointer=InMemorySaver(),
    )
    for text in (MAIL, "b", "look at sea"):
        await ask(agent, text, threaded)
    await ask(agent, decide("approve"), threaded)
    await ask(agent, "c", threaded)
    told = [HIDDEN, f"about {HIDDEN}", "b", "about b", "look at sea", "", "saw sea"]
    assert [text for _, text in log()] == [*told, "about saw sea", "c", "about c"]
    for seen in model.seen:
        ids = [message.id for message in seen]
        assert len(ids) == len(set(ids))
    assert "ann@" not in str(model.texts)


async def test_the_history_door_sees_the_same(
    ask: Any, manager: SessionManager, model: Looker, config: RunnableConfig
) -> None:
    agent = create_agent(model, [look], middleware=[SessionMiddleware(manager)])
    output = await ask(agent, "look at sea", config)
    assert (
        await SessionChatMessageHistory("chat", manager, user_id="ann").aget_messages()
        == output["messages"]
    )


# Middleware that adds messages


@pytest.mark.parametrize("comes_first", [True, False])
async def test_what_a_middleware_adds_behind_the_question_does_not_change_the_order(
    ask: Any, manager: SessionManager, model: Looker, config: RunnableConfig, log: Log,
    comes_first: bool,
) -> None:  # fmt: skip
    @before_agent
    def add_context(state: Any, runtime: Any) -> dict[str, Any]:
        return {"messages": [HumanMessage("It is Monday.")]}

    both = [add_context, SessionMiddleware(manager)]
    agent = create_agent(model, middleware=both if comes_first else both[::-1])
    for question in ("a", "b"):
        await ask(agent, question, config)
    answer = "about It is Monday."
    assert model.texts[-1] == ["a", "It is Monday.", answer, "b", "It is Monday."]
    assert [text for _, text in log()] == [*model.texts[-1], answer]
