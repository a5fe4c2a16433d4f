"""Where the system messages of a request go."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_langswarm import RunnableWithSession, SessionChatMessageHistory
from langchain_langswarm.system_messages import arranged, chat_models_of, joined, opened

from langswarm_session import SessionManager

IN_PLACE = {"mid_conversation_system_messages": True}


class Model(FakeListChatModel):
    """A model that says what it is."""

    responses: list[str] = ["yes"]
    kind: str = "fake"
    seen: list[list[BaseMessage]] = []

    @property
    def _llm_type(self) -> str:
        return self.kind

    def _call(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> str:
        self.seen.append(messages)
        return "yes"


def model(kind: str = "fake", profile: Any = None) -> Model:
    made = Model(kind=kind, seen=[])
    if profile is not None:
        object.__setattr__(made, "profile", profile)
    return made


def request(letters: str) -> list[BaseMessage]:
    """Messages: system, user, assistant, tool."""
    kinds: dict[str, Any] = {
        "s": SystemMessage,
        "u": HumanMessage,
        "a": AIMessage,
        "t": lambda content: ToolMessage(content, tool_call_id="c"),
    }
    return [kinds[letter](f"{letter}{place}") for place, letter in enumerate(letters)]


def texts(messages: list[BaseMessage]) -> list[str]:
    return [str(message.content) for message in messages]


@pytest.mark.parametrize("letters", ["u", "su", "uau", "suau"])
def test_what_any_model_takes_stays_as_it_is(letters: str) -> None:
    messages = request(letters)
    for known in ([], [model()], [model(profile=IN_PLACE)], [model("anthropic-chat", IN_PLACE)]):
        assert arranged(messages, known) == (messages, [])


@pytest.mark.parametrize("profile", [None, {}, {"mid_conversation_system_messages": False}, "odd"])
def test_where_a_model_does_not_say_they_are_one_at_the_start(profile: Any) -> None:
    sent, repairs = arranged(request("suasus"), [model(profile=profile)])
    assert texts(sent) == ["s0\n\ns3\n\ns5", "u1", "a2", "u4"]
    assert [repair.kind for repair in repairs] == ["reordered", "reordered"]
    assert arranged(request("us"), [])[0] == [SystemMessage("s1"), HumanMessage("u0")]


def test_where_one_of_several_models_does_not_say_they_are_at_the_start() -> None:
    models = [model(profile=IN_PLACE), model()]
    assert texts(arranged(request("uas"), models)[0]) == ["s2", "u0", "a1"]


def test_where_a_model_takes_them_in_place_they_stay() -> None:
    messages = request("suasusas")
    assert arranged(messages, [model(profile=IN_PLACE)]) == (messages, [])


@pytest.mark.parametrize(
    ("letters", "expected"),
    [
        ("suasu", "s0 u1 a2 u4 s3"),
        ("suasuau", "s0 u1 a2 u4 s3 a5 u6"),
        ("susa", "s0 u1 s2 a3"),
        ("ssusua", "s0 s1 u2 u4 s3 a5"),
        ("uastta", "u0 a1 t3 t4 s2 a5"),
        ("suas", "s0 s3 u1 a2"),
        ("uas", "s2 u0 a1"),
        ("us", "u0 s1"),
    ],
)
def test_claude_has_them_behind_the_user(letters: str, expected: str) -> None:
    """As `_previous_turn_allows_system` in langchain_anthropic.chat_models has it."""
    sent, _ = arranged(request(letters), [model("anthropic-chat", IN_PLACE)])
    assert " ".join(texts(sent)) == expected


def test_claudes_integration_takes_every_order() -> None:
    chat_models = pytest.importorskip("langchain_anthropic.chat_models")
    for profile in (None, IN_PLACE):
        known = [model("anthropic-chat", profile)]
        for letters in map("".join, itertools.product("sua", repeat=4)):
            sent, _ = arranged(request(f"{letters}u"), known)
            options = {"mid_conversation_system_messages": True} if profile else {}
            chat_models._format_messages(sent, model="claude", **options)


def test_a_user_begins_what_claude_is_sent() -> None:
    greeted = request("saua")
    sent, repairs = opened(greeted, [model("anthropic-chat")])
    assert [message.type for message in sent] == ["system", "human", "ai", "human", "ai"]
    assert [repair.kind for repair in repairs] == ["user_added"]
    assert opened(greeted, [model()]) == (greeted, [])
    assert opened(greeted, []) == (greeted, [])
    for messages in (request("sua"), request("s"), []):
        assert opened(messages, [model("anthropic-chat")]) == (messages, [])


def test_geminis_integration_keeps_every_one() -> None:
    """langchain-ai/langgraph#2441: two of them."""
    chat_models = pytest.importorskip("langchain_google_genai.chat_models")
    sent, _ = arranged(request("suasu"), [model("chat-google-generative-ai")])
    system, _ = chat_models._parse_chat_history(sent)
    assert [part.text for part in system.parts] == ["s0\n\ns3"]


def test_texts_and_blocks_are_joined() -> None:
    block = {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}
    made = joined([SystemMessage("a", id="1"), SystemMessage(""), SystemMessage([block])])
    assert made.id == "1"
    assert made.content == [{"type": "text", "text": "a"}, block]


def test_the_models_of_a_chain_are_found() -> None:
    first, second = model(), model()
    prompt = ChatPromptTemplate.from_messages([("human", "{q}")])
    chain = prompt | first.with_config(tags=["x"]).bind(stop="x") | RunnableLambda(str)
    assert chat_models_of(chain) == [first]
    assert chat_models_of(first.with_fallbacks([second])) == [first, second]
    assert chat_models_of(RunnableLambda(str)) == []


# In a chain and in an agent


@pytest.fixture
def storage_kind() -> str:
    """One is enough here: what differs between the storages is tested elsewhere."""
    return "memory"


@pytest.fixture
def noted(manager: SessionManager) -> None:
    """A conversation with a system message in the middle."""
    history = SessionChatMessageHistory("chat", manager, user_id="ann")
    history.add_messages(request("uasua"))


@pytest.mark.usefixtures("noted")
@pytest.mark.parametrize(
    ("profile", "expected"),
    [(None, "s2 u0 a1 u3 a4 now"), (IN_PLACE, "u0 a1 s2 u3 a4 now")],
)
def test_a_chain_of_messages(
    manager: SessionManager, config: RunnableConfig, profile: Any, expected: str
) -> None:
    chat = model(profile=profile)
    RunnableWithSession(chat, manager).invoke("now", config)
    assert " ".join(texts(chat.seen[0])) == expected


def test_a_chatbot_that_greets_first(manager: SessionManager, config: RunnableConfig) -> None:
    history = SessionChatMessageHistory("chat", manager, user_id="ann")
    history.add_messages([AIMessage("Hello!")])
    chat = model("anthropic-chat")
    chain = RunnableWithSession(chat, manager)
    for text in ("a", "b"):
        chain.invoke(text, config)
        assert [message.type for message in chat.seen[-1]][:2] == ["human", "ai"]
    assert texts(history.messages) == ["Hello!", "a", "yes", "b", "yes"]


@pytest.mark.usefixtures("noted")
def test_a_chain_with_a_prompt(manager: SessionManager, config: RunnableConfig) -> None:
    chat = model()
    prompt = ChatPromptTemplate.from_messages(
        [("system", "first"), MessagesPlaceholder("history"), ("human", "{q}")]
    )
    keys = {"input_messages_key": "q", "history_messages_key": "history"}
    RunnableWithSession(prompt | chat, manager, **keys).invoke({"q": "now"}, config)
    assert texts(chat.seen[0]) == ["first", "s2", "u0", "a1", "u3", "a4", "now"]


@pytest.mark.usefixtures("noted")
@pytest.mark.parametrize(
    ("profile", "expected"),
    [(None, ["first\n\ns2", "u0", "a1"]), (IN_PLACE, ["first", "u0", "a1", "s2"])],
)
def test_an_agent_with_a_prompt(
    manager: SessionManager, config: RunnableConfig, profile: Any, expected: list[str]
) -> None:
    agents = pytest.importorskip("langchain.agents")
    door = pytest.importorskip("langchain_langswarm").SessionMiddleware
    chat = model(profile=profile)
    agent = agents.create_agent(chat, system_prompt="first", middleware=[door(manager)])
    agent.invoke({"messages": [("user", "now")]}, config)
    assert texts(chat.seen[0]) == [*expected, "u3", "a4", "now"]
