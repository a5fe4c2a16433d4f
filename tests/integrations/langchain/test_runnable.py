"""A chain with the memory of a session: what it takes and gives, and whose session it is."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import ConfigurableFieldSpec, RunnableConfig, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_langswarm import RunnableWithSession, SessionChatMessageHistory
from pydantic import BaseModel

from langswarm_session import (
    InvalidInputError,
    SessionManager,
    SessionNotFoundError,
    set_session_manager,
)
from langswarm_session._sync.bridge import run

Remember = Callable[..., RunnableWithSession]
Call = Callable[..., Any]
Log = Callable[..., list[tuple[str, str]]]

USAGE = UsageMetadata(input_tokens=1, output_tokens=2, total_tokens=3)

TWO_TURNS = [("human", "hi"), ("ai", "1:hi"), ("human", "again"), ("ai", "3:again")]


@pytest.fixture
def storage_kind() -> str:
    """One is enough here: what differs between the storages is tested elsewhere."""
    return "memory"


# What goes in


@pytest.mark.parametrize(
    "given",
    [
        lambda text: text,
        HumanMessage,
        lambda text: [HumanMessage(text)],
        lambda text: (HumanMessage(text),),
        lambda text: [("human", text)],
        lambda text: [{"role": "user", "content": text}],
        lambda text: ChatPromptValue(messages=[HumanMessage(text)]),
        lambda text: {"anything": text},
        lambda text: {"input": [HumanMessage(text)], "more": 1},
    ],
    ids=["str", "message", "list", "tuple", "tuples", "dicts", "prompt", "only key", "input"],
)
async def test_what_a_chain_of_messages_is_called_with(
    given: Callable[[str], Any],
    memory: RunnableWithSession,
    chain: Any,
    call: Call,
    config: RunnableConfig,
    log: Log,
) -> None:
    assert await call(memory, given("hi"), config) == AIMessage("1:hi")
    assert await call(memory, given("again"), config) == AIMessage("3:again")
    assert chain.seen == [["hi"], ["hi", "1:hi", "again"]]
    assert log() == TWO_TURNS


@pytest.mark.parametrize(
    "given",
    [
        lambda text: {"question": text, "more": 1},
        lambda text: {"question": HumanMessage(text)},
        lambda text: {"question": [HumanMessage(text)]},
        lambda text: text,
    ],
    ids=["str", "message", "list", "no dict"],
)
@pytest.mark.parametrize("history_key", [None, "history"])
@pytest.mark.parametrize("input_key", [None, "question"])
async def test_what_a_chain_of_dicts_is_called_with(
    given: Callable[[str], Any],
    input_key: str | None,
    history_key: str | None,
    remember: Remember,
    chain: Any,
    call: Call,
    config: RunnableConfig,
    log: Log,
) -> None:
    memory = remember(chain, input_messages_key=input_key, history_messages_key=history_key)
    if input_key is None and "more" in given("hi"):
        with pytest.raises(InvalidInputError, match="input_messages_key"):
            await call(memory, given("hi"), config)
        return
    await call(memory, given("hi"), config)
    assert await call(memory, given("again"), config) == AIMessage("3:again")
    assert chain.seen == [["hi"], ["hi", "1:hi", "again"]]
    assert log() == TWO_TURNS


def test_the_chain_is_given_the_rest_of_the_dict_as_it_was(
    remember: Remember, config: RunnableConfig
) -> None:
    seen: list[Any] = []
    memory = remember(
        lambda value: seen.append(value) or "ok",
        input_messages_key="question",
        history_messages_key="history",
    )
    value = {"question": ("hi", "there"), "language": "fi", "history": "replaced"}
    memory.invoke(value, config)
    assert seen == [{"question": ("hi", "there"), "language": "fi", "history": []}]
    assert value["history"] == "replaced", "the caller's own dict is left alone"


def test_the_chain_is_given_the_callers_own_messages(
    remember: Remember, config: RunnableConfig
) -> None:
    given: list[Any] = []
    message = HumanMessage("hi", id="1", additional_kwargs={"a": (1,)})
    remember(lambda messages: given.extend(messages) or "ok").invoke(message, config)
    assert given == [message]
    assert given[0] is message


def test_a_message_without_an_id_is_given_to_the_chain_with_the_records(
    remember: Remember, config: RunnableConfig, manager: SessionManager
) -> None:
    """A graph would give it another one with each call."""
    given: list[Any] = []
    message = HumanMessage("hi", additional_kwargs={"a": (1,)})
    chain = remember(lambda messages: given.append(list(messages)) or "ok")
    chain.invoke(message, config)
    chain.invoke("again", config)
    assert message.id is None
    stored = run(run(manager.get_session("chat")).get_messages())
    assert given[0] == [message.model_copy(update={"id": stored[0].id})]
    assert [each.id for each in given[1]] == [each.id for each in stored[:3]]


async def test_several_messages_may_come_at_once(
    memory: RunnableWithSession, call: Call, config: RunnableConfig, log: Log
) -> None:
    value = [SystemMessage("be brief"), HumanMessage("hi"), AIMessage("hm"), HumanMessage("so?")]
    assert await call(memory, value, config) == AIMessage("4:so?")
    assert [kind for kind, _ in log()] == ["system", "human", "ai", "human", "ai"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        [],
        (),
        {},
        {"a": 1, "b": 2},
        {"input": None},
        [5],
        [object()],
        {"only": {"a": "b"}},
        HumanMessage("hi", more=object()),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_is_no_message_is_refused(
    value: Any,
    memory: RunnableWithSession,
    chain: Any,
    call: Call,
    config: RunnableConfig,
    exists: Callable[[str], bool],
) -> None:
    with pytest.raises(InvalidInputError):
        await call(memory, value, config)
    assert chain.seen == []
    assert not exists("chat")


def test_a_missing_input_key_is_named(remember: Remember, config: RunnableConfig) -> None:
    memory = remember(str, input_messages_key="question")
    with pytest.raises(InvalidInputError, match=r"no 'question' among \['input', 'more'\]"):
        memory.invoke({"input": "hi", "more": 1}, config)


# What comes out


async def test_what_a_chain_gives(
    shape: Any,
    remember: Remember,
    new_chain: Callable[..., Any],
    call: Call,
    config: RunnableConfig,
    log: Log,
) -> None:
    memory = remember(new_chain(shape.give), **shape.keys)
    assert await call(memory, "hi", config) == shape.give("1:hi")
    assert await call(memory, "again", config) == shape.give("3:again")
    assert log() == TWO_TURNS


async def test_messages_that_were_passed_in_are_not_stored_again(
    remember: Remember, call: Call, config: RunnableConfig, log: Log
) -> None:
    memory = remember(lambda messages: [*messages, AIMessage(f"{len(messages)}")])
    await call(memory, "hi", config)
    output = await call(memory, "again", config)
    assert [message.text for message in output] == ["hi", "1", "again", "3"]
    assert log() == [("human", "hi"), ("ai", "1"), ("human", "again"), ("ai", "3")]


async def test_copies_of_messages_that_were_passed_in_are_not_stored_again(
    remember: Remember, call: Call, config: RunnableConfig, log: Log
) -> None:
    """A graph's state may hold copies with the same ids, shortened even."""
    number = itertools.count()

    def chain(messages: list[BaseMessage]) -> list[BaseMessage]:
        copies = [message.model_copy(update={"content": "cut"}) for message in messages]
        return [*copies, AIMessage(f"{len(messages)}", id=f"answer {next(number)}")]

    memory = remember(chain)
    await call(memory, HumanMessage("hi", id="question 1"), config)
    await call(memory, HumanMessage("again", id="question 2"), config)
    assert log() == [("human", "hi"), ("ai", "1"), ("human", "again"), ("ai", "3")]


async def test_what_a_chain_removes_is_no_message(
    remember: Remember, call: Call, config: RunnableConfig, log: Log
) -> None:
    memory = remember(lambda _: [RemoveMessage(id="1"), AIMessage("ok")])
    await call(memory, "hi", config)
    assert log() == [("human", "hi"), ("ai", "ok")]


def test_a_message_that_is_handed_back_is_no_answer(
    remember: Remember, config: RunnableConfig, log: Log
) -> None:
    assert remember(lambda messages: messages[-1]).invoke("hi", config).text == "hi"
    assert log() == [("human", "hi")]


@pytest.mark.parametrize("as_list", [False, True])
async def test_an_answer_whose_id_is_stored_is_stored_too(
    as_list: bool,
    remember: Remember,
    call: Call,
    config: RunnableConfig,
    manager: SessionManager,
    statuses: Callable[[], list[str]],
) -> None:
    for text in ("same", "same", "other"):
        answer = AIMessage(text, id="1", usage_metadata=USAGE)
        output = [answer] if as_list else answer
        assert await call(remember(lambda _, given=output: given), "hi", config) == output
    _, *messages = SessionChatMessageHistory("chat", manager, user_id="ann").messages
    assert messages[::2] == [
        AIMessage(text, id="1", usage_metadata=USAGE) for text in ("same", "same", "other")
    ]
    assert [message.text for message in messages[1::2]] == ["hi", "hi"]
    assert statuses() == ["complete"] * 3
    session = await manager.get_session("chat")
    ids = [message.id for message in await session.get_messages()]
    assert (ids[1], len({*ids})) == ("1", 6), "the record tells them apart"


async def test_a_chain_is_given_no_two_messages_with_one_id(
    remember: Remember, call: Call, config: RunnableConfig
) -> None:
    seen: list[str | None] = []

    def chain(messages: list[BaseMessage]) -> AIMessage:
        seen[:] = [message.id for message in messages if message.type == "ai"]
        return AIMessage("same", id="1")

    for _ in range(4):
        await call(remember(chain), "hi", config)
    assert (seen[0], len(seen), len({*seen})) == ("1", 3, 3)


async def test_what_an_agent_adds_is_new_whatever_its_id(
    remember: Remember, call: Call, config: RunnableConfig, log: Log
) -> None:
    def chain(messages: list[BaseMessage]) -> list[BaseMessage]:
        copies = [message.model_copy() for message in messages]
        return [*copies, AIMessage("same", id="answer")]

    for number in range(2):
        await call(remember(chain), HumanMessage("hi", id=f"question {number}"), config)
    assert log() == [("human", "hi"), ("ai", "same")] * 2


async def test_a_cached_answer_is_stored_each_time(
    manager: SessionManager, call: Call, log: Log
) -> None:
    model = FakeListChatModel(responses=["one", "two"], cache=InMemoryCache())
    prompt = ChatPromptTemplate.from_messages([("human", "{question}")])
    memory = RunnableWithSession(
        prompt | model, manager, input_messages_key="question", history_messages_key="history"
    )
    for session in ("ann's", "bob's", "bob's"):
        await call(memory, {"question": "hi"}, configured(session_id=session))
    assert log("ann's") == [("human", "hi"), ("ai", "one")]
    texts = [text for kind, text in log("bob's") if kind == "ai"]
    assert len(texts) == 2


class Place(BaseModel):
    name: str


@pytest.mark.parametrize(
    ("output", "kept"),
    [
        (None, "null"),
        (5, "5"),
        ({}, "{}"),
        ({"a": "x", "b": (1, 2)}, '{"a":"x","b":[1,2]}'),
        (["a"], '["a"]'),
        (Place(name="Åbo"), '{"name":"Åbo"}'),
        (AIMessage("a", more=object()), "a"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_an_answer_that_is_no_message_fails_the_call_and_is_kept(
    output: Any,
    kept: str,
    remember: Remember,
    memory: RunnableWithSession,
    call: Call,
    config: RunnableConfig,
    statuses: Callable[[], list[str]],
    log: Log,
) -> None:
    with pytest.raises(InvalidInputError):
        await call(remember(lambda _: output), "hi", config)
    assert statuses() == ["failed"]
    assert log() == [("human", "hi"), ("ai", kept)]
    assert memory.invoke("again", config) == AIMessage("3:again"), "the session is free"


def test_a_chain_that_parses_is_told_where_to_do_so(
    remember: Remember, config: RunnableConfig
) -> None:
    for output in (5, {"a": 1, "b": 2}):
        with pytest.raises(InvalidInputError, match=r"RunnableWithSession\(chain, ...\) \| parser"):
            remember(lambda _, given=output: given).invoke("hi", config)


async def test_an_answer_is_parsed_behind(
    remember: Remember, call: Call, config: RunnableConfig, log: Log
) -> None:
    memory = remember(lambda _: AIMessage('{"a": 1, "b": 2}')) | JsonOutputParser()
    assert await call(memory, "hi", config) == {"a": 1, "b": 2}
    assert log() == [("human", "hi"), ("ai", '{"a": 1, "b": 2}')]


def test_a_missing_output_key_is_named(remember: Remember, config: RunnableConfig) -> None:
    memory = remember(lambda _: {"b": "x"}, output_messages_key="a")
    with pytest.raises(InvalidInputError, match=r"no 'a' among \['b'\].*output_messages_key"):
        memory.invoke("hi", config)


# Whose session it is


def spec(name: str, **options: Any) -> ConfigurableFieldSpec:
    return ConfigurableFieldSpec(id=name, annotation=str, **options)


def configured(**values: Any) -> RunnableConfig:
    return {"configurable": values}


async def test_the_session_is_the_users(
    memory: RunnableWithSession, manager: SessionManager, config: RunnableConfig
) -> None:
    await memory.ainvoke("hi", config)
    session = await manager.get_session("chat", user_id="ann")
    assert session.context.provider == "langchain"
    with pytest.raises(SessionNotFoundError):
        await memory.ainvoke("hi", configured(session_id="chat", user_id="bob"))
    with pytest.raises(SessionNotFoundError):
        await memory.ainvoke("hi", configured(session_id="chat"))


async def test_without_a_user_it_is_the_default_ones(
    memory: RunnableWithSession, manager: SessionManager
) -> None:
    await memory.ainvoke("hi", configured(session_id="chat"))
    assert (await manager.get_session("chat")).user_id == "default"


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        ({}, "session_id"),
        ({"session_id": ""}, "session_id"),
        ({"session_id": "chat", "user_id": None}, "user_id"),
        ({"user_id": None}, "session_id, user_id"),
    ],
)
async def test_missing_keys_are_named(
    values: dict[str, Any], missing: str, memory: RunnableWithSession, call: Call
) -> None:
    with pytest.raises(InvalidInputError, match=rf"^{missing} missing; call with .*configurable"):
        await call(memory, "hi", configured(**values))


@pytest.mark.parametrize("session_id", [1.5, "a\nb", "x" * 600], ids=["float", "newline", "huge"])
def test_an_id_that_cannot_be_one_is_refused(session_id: Any, memory: RunnableWithSession) -> None:
    with pytest.raises(InvalidInputError, match="session_id"):
        memory.invoke("hi", configured(session_id=session_id))


@pytest.mark.parametrize(
    ("values", "session_id", "user_id"),
    [
        ({"user_id": "ann", "thread": "a/b"}, "ann/a%2Fb/1", "ann"),
        ({"user_id": "ann", "thread": "a", "part": "b/1"}, "ann/a/b%2F1", "ann"),
        ({"user_id": "ann/a", "thread": "b"}, "ann%2Fa/b/1", "ann/a"),
        ({"user_id": "ann", "thread": "ä ö", "part": 0}, "ann/%C3%A4%20%C3%B6/0", "ann"),
    ],
)
def test_own_keys_make_the_sessions_id(
    values: dict[str, Any],
    session_id: str,
    user_id: str,
    remember: Remember,
    chain: Any,
    manager: SessionManager,
    log: Log,
) -> None:
    keys = [spec("user_id"), spec("thread"), spec("part", default=1)]
    memory = remember(chain, history_factory_config=keys)
    memory.invoke("hi", configured(**values))
    assert log(session_id) == TWO_TURNS[:2]
    assert run(manager.get_session(session_id)).user_id == user_id


def test_missing_keys_of_ones_own_are_named(remember: Remember) -> None:
    memory = remember(str, history_factory_config=[spec("thread"), spec("part", default=1)])
    with pytest.raises(InvalidInputError, match=r"^thread missing.*'thread': .*'part': "):
        memory.invoke("hi", configured(session_id="chat"))


def test_a_session_id_among_own_keys_is_taken_as_it_is(
    remember: Remember, chain: Any, log: Log
) -> None:
    memory = remember(chain, history_factory_config=[spec("session_id"), spec("topic")])
    memory.invoke("hi", configured(session_id="a/b c", topic="x"))
    assert log("a/b c") == TWO_TURNS[:2]


def test_its_keys_and_the_chains_are_its_config_specs(
    memory: RunnableWithSession, manager: SessionManager
) -> None:
    assert [each.id for each in memory.config_specs] == ["session_id", "user_id"]
    outer = RunnableWithSession(memory, manager, history_factory_config=[spec("topic")])
    assert {each.id for each in outer.config_specs} == {"session_id", "user_id", "topic"}
    assert "configurable" in memory.config_schema().model_json_schema()["properties"]


@pytest.fixture
def shared(manager: SessionManager) -> Iterator[SessionManager]:
    set_session_manager(manager)
    yield manager
    set_session_manager(None)


def test_the_shared_manager_is_used_where_none_is_given(
    shared: SessionManager, chain: Any, config: RunnableConfig, log: Log
) -> None:
    assert RunnableWithSession(RunnableLambda(chain)).manager is shared
    RunnableWithSession(RunnableLambda(chain)).invoke("hi", config)
    assert log() == TWO_TURNS[:2]


def test_each_call_sees_no_more_than_the_window(
    memory: RunnableWithSession, chain: Any, manager: SessionManager, config: RunnableConfig
) -> None:
    run(manager.create_session("ann", "mock", "m", session_id="chat", max_messages=3))
    for text in ("a", "b", "c", "d"):
        memory.invoke(text, config)
    assert chain.seen[-1][-1] == "d"
    assert {"a", "b"}.isdisjoint(chain.seen[-1])


# As a Runnable among others


class Runs(BaseCallbackHandler):
    """Notes the names of runs as they begin, each with its parent's, and how they end."""

    def __init__(self) -> None:
        self.names: dict[Any, str] = {}
        self.seen: list[str] = []

    def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
        name = self.names[kwargs["run_id"]] = kwargs["name"]
        self.seen.append(f"{self.names.get(kwargs['parent_run_id'])} > {name}")

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        self.seen.append(f"{self.names[kwargs['run_id']]}: {error}")


async def test_a_run_named_after_it_is_traced(
    chain: Any, manager: SessionManager, call: Call, config: RunnableConfig
) -> None:
    memory = RunnableWithSession(RunnableLambda(chain, name="inner"), manager)
    runs = Runs()
    await call(memory, "hi", {**config, "callbacks": [runs]})
    assert runs.seen == ["None > RunnableWithSession", "RunnableWithSession > inner"]


async def test_events_name_it_and_what_is_in_it(
    chain: Any, manager: SessionManager, config: RunnableConfig
) -> None:
    memory = RunnableWithSession(RunnableLambda(chain, name="inner"), manager)
    events = [event async for event in memory.astream_events("hi", config)]
    assert [(event["event"], event["name"]) for event in events] == [
        ("on_chain_start", "RunnableWithSession"),
        ("on_chain_start", "inner"),
        ("on_chain_stream", "inner"),
        ("on_chain_stream", "RunnableWithSession"),
        ("on_chain_end", "inner"),
        ("on_chain_end", "RunnableWithSession"),
    ]


def test_a_failure_is_traced(remember: Remember, config: RunnableConfig) -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError("out of order")

    runs = Runs()
    with pytest.raises(RuntimeError):
        remember(fail).invoke("hi", {**config, "callbacks": [runs], "run_name": "mine"})
    assert runs.seen[-1] == "mine: out of order"


async def test_it_can_be_configured_bound_and_piped(
    memory: RunnableWithSession, call: Call, config: RunnableConfig, log: Log
) -> None:
    parsed = memory.with_config(config) | StrOutputParser()
    assert await call(parsed, "hi", {}) == "1:hi"
    whole = RunnableLambda(lambda value: value["text"]) | memory.bind() | StrOutputParser()
    assert await call(whole, {"text": "again"}, config) == "3:again"
    assert log() == TWO_TURNS


def test_arguments_reach_the_chain(remember: Remember, config: RunnableConfig) -> None:
    def chain(messages: list[BaseMessage], language: str = "en") -> str:
        return language

    memory = remember(chain)
    assert memory.invoke("hi", config, language="sv") == "sv"
    assert memory.bind(language="fi").invoke("hi", config) == "fi"
    assert list(memory.bind(language="fi").stream("hi", config)) == ["fi"]


def test_a_function_can_be_wrapped(manager: SessionManager, config: RunnableConfig) -> None:
    memory = RunnableWithSession(lambda messages: f"{len(messages)}", manager)
    assert memory.invoke("hi", config) == "1"


def test_a_prompt_with_a_placeholder_gets_the_history(
    manager: SessionManager, new_chain: Callable[..., Any], config: RunnableConfig, log: Log
) -> None:
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Use {language}."), MessagesPlaceholder("history"), ("human", "{question}")]
    )
    chain = new_chain(str)
    memory = RunnableWithSession(
        prompt | (lambda value: chain(value.to_messages())),
        manager,
        input_messages_key="question",
        history_messages_key="history",
    )
    memory.invoke({"question": "hi", "language": "fi"}, config)
    memory.invoke({"question": "again", "language": "sv"}, config)
    assert chain.seen[1] == ["Use sv.", "hi", "2:hi", "again"]
    assert log() == [("human", "hi"), ("ai", "2:hi"), ("human", "again"), ("ai", "4:again")]


def test_the_chains_sync_code_runs_in_the_callers_thread(
    remember: Remember, config: RunnableConfig
) -> None:
    threads: list[threading.Thread] = []
    memory = remember(lambda _: threads.append(threading.current_thread()) or "ok")
    memory.invoke("hi", config)
    list(memory.stream("hi", config))
    assert threads == [threading.current_thread()] * 2


async def test_the_chains_async_code_runs_in_the_callers_loop(
    remember: Remember, config: RunnableConfig
) -> None:
    threads: list[threading.Thread] = []

    async def chain(_: Any) -> str:
        threads.append(threading.current_thread())
        return "ok"

    memory = remember(chain)
    await memory.ainvoke("hi", config)
    assert [chunk async for chunk in memory.astream("hi", config)] == ["ok"]
    assert threads == [threading.current_thread()] * 2


# What it says of itself


@pytest.mark.parametrize("input_key", [None, "question"])
@pytest.mark.parametrize("history_key", [None, "history"])
@pytest.mark.filterwarnings("ignore:.*RunnableWithMessageHistory.*")
def test_the_input_schema_is_that_of_what_it_replaces(
    remember: Remember, input_key: str | None, history_key: str | None
) -> None:
    keys = {"input_messages_key": input_key, "history_messages_key": history_key}
    chain = ChatPromptTemplate.from_messages(
        [MessagesPlaceholder("history"), ("human", "{question} in {language}")]
    )
    replaced = RunnableWithMessageHistory(chain, InMemoryChatMessageHistory, **keys)  # type: ignore[arg-type]
    memory = remember(chain.invoke, **keys)
    given, expected = memory.get_input_jsonschema(), replaced.get_input_jsonschema()
    assert given.pop("title") != expected.pop("title")
    assert given == expected


@pytest.mark.filterwarnings("ignore:This API is in beta")
async def test_a_tool_is_made_of_it(
    remember: Remember, chain: Any, config: RunnableConfig, log: Log
) -> None:
    keys = {"input_messages_key": "question", "history_messages_key": "history"}
    tool = remember(chain, **keys).as_tool(name="ask", description="Asks.")
    assert list(tool.args) == ["question"]
    assert tool.invoke({"question": "hi"}, config).text == "1:hi"
    assert (await tool.ainvoke({"question": "again"}, config)).text == "3:again"
    assert log() == TWO_TURNS


@pytest.mark.parametrize("session_id", [7, 0, UUID(int=7)])
async def test_numbers_and_uuids_are_ids(
    memory: RunnableWithSession, manager: SessionManager, call: Call, session_id: Any
) -> None:
    config: RunnableConfig = {"configurable": {"session_id": session_id, "user_id": UUID(int=1)}}
    await call(memory, "hi", config)
    session = await manager.get_session(str(session_id), user_id=str(UUID(int=1)))
    assert session.metrics.message_count == 2
    history = SessionChatMessageHistory(session_id, manager, user_id=UUID(int=1))  # type: ignore[arg-type]
    assert len(await history.aget_messages()) == 2
