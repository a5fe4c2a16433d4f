"""LangChain messages as session messages, and back."""

from __future__ import annotations

import copy
import math
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
    convert_to_openai_messages,
    message_to_dict,
    messages_from_dict,
)
from langchain_langswarm import (
    SessionChatMessageHistory,
    from_langchain,
    from_langchain_messages,
    to_langchain,
    to_langchain_messages,
)
from langchain_langswarm.messages import with_new_id, with_unique_ids
from pydantic import BaseModel

from langswarm_session import (
    AudioBlock,
    FileBlock,
    ImageBlock,
    InvalidInputError,
    MessageRole,
    OtherBlock,
    ReasoningBlock,
    RefusalBlock,
    SessionManager,
    SessionMessage,
    TextBlock,
    TokenUsage,
    ToolCallBlock,
    ToolResultBlock,
    VideoBlock,
)
from langswarm_session.testing import strategies

CALL = {"name": "look", "args": {"city": "Åbo", "days": [1, 2.5, None]}, "id": "call_1"}
BAD_CALL = {"name": "look", "args": '{"city": ', "id": "call_2", "error": "not JSON"}
USAGE = {
    "input_tokens": 350,
    "output_tokens": 240,
    "total_tokens": 590,
    "input_token_details": {"audio": 10, "cache_creation": 200, "cache_read": 100},
    "output_token_details": {"audio": 10, "reasoning": 200},
}
V0_CONTENT = [
    "plain",
    {"type": "text", "text": "what is this?", "cache_control": {"type": "ephemeral"}},
    {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
    {"type": "image", "source_type": "url", "url": "https://example.com/a.png"},
    {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
    {"type": "file", "file": {"file_id": "file-1"}},
    {"type": "document", "source": {"type": "text", "data": "x", "media_type": "text/plain"}},
]
V1_CONTENT = [
    {"type": "text", "text": "see", "annotations": [{"type": "citation", "url": "https://x.y"}]},
    {"type": "image", "url": "https://example.com/a.png", "id": "img_1"},
    {"type": "audio", "base64": "aGk=", "mime_type": "audio/wav"},
    {"type": "video", "file_id": "file-1"},
    {"type": "file", "base64": "aGk=", "mime_type": "application/pdf", "extras": {"page": 1}},
    {"type": "text-plain", "text": "notes", "mime_type": "text/plain", "title": "a.txt"},
    {"type": "non_standard", "value": {"vendor": [1]}},
]
SERVER_CALLS = [
    {"type": "reasoning", "reasoning": "hm", "extras": {"signature": "sig=="}},
    {"type": "server_tool_call", "id": "srv_1", "name": "search", "args": {"q": "x"}},
    {"type": "server_tool_result", "tool_call_id": "srv_1", "status": "success", "output": [1]},
    {"type": "text", "text": "found"},
]
THINKING = [
    {"type": "thinking", "thinking": "hm", "signature": "sig=="},
    {"type": "redacted_thinking", "data": "xyz"},
    {"type": "text", "text": "done"},
    {"type": "tool_use", "id": "call_1", "name": "look", "input": CALL["args"]},
]

MESSAGES: dict[str, BaseMessage] = {
    "human": HumanMessage("hi"),
    "human with id and name": HumanMessage("hi", id="msg-1", name="Ann"),
    "human with a number as id": HumanMessage("hi", id=7),
    "human with an empty id": HumanMessage("hi", id=""),
    "human with an id of ours": HumanMessage("hi", id="0" * 32),
    "human with an odd id": HumanMessage("hi", id="a'\";\n\0\u2028é"),
    "human with an empty name": HumanMessage("hi", name=""),
    "human with nothing": HumanMessage(""),
    "human with no blocks": HumanMessage([]),
    "human with empty text": HumanMessage([""]),
    "human with NUL and emoji": HumanMessage("a\0b \U0001f469\u200d\U0001f680 e\u0301 \ufeff\r\n"),
    "human with strings": HumanMessage(["a", "b"]),
    "human with one text block": HumanMessage([{"type": "text", "text": "a"}]),
    "human v0": HumanMessage(V0_CONTENT),
    "human v1": HumanMessage(content_blocks=V1_CONTENT),
    "human with kwargs": HumanMessage("hi", additional_kwargs={"a": (1, b"2"), 3: None}),
    "human with more fields": HumanMessage("hi", example=True, tags=["a"], when=(1, 2)),
    "human with fields named like ours": HumanMessage("hi", id="1", **{"$tuple": 5}),
    "human with a field named like a property": HumanMessage(
        "hi", text="x", lc_attributes={"a": 1}
    ),
    "system": SystemMessage("be brief"),
    "system with blocks": SystemMessage([{"type": "text", "text": "be brief"}, "and kind"]),
    "ai": AIMessage("hello"),
    "ai with nothing": AIMessage(""),
    "ai with calls": AIMessage("", tool_calls=[CALL, {**CALL, "id": "call_3", "args": {}}]),
    "ai with text and a call": AIMessage("one moment", tool_calls=[CALL]),
    "ai with a call without id": AIMessage("", tool_calls=[{**CALL, "id": None}]),
    "ai with odd arguments": AIMessage("", tool_calls=[{**CALL, "args": {"a": (1, b"2")}}]),
    "ai with invalid calls": AIMessage("oh", tool_calls=[CALL], invalid_tool_calls=[BAD_CALL]),
    "ai with only invalid calls": AIMessage("", invalid_tool_calls=[BAD_CALL]),
    "ai with server calls": AIMessage(
        content_blocks=SERVER_CALLS, response_metadata={"output_version": "v1"}
    ),
    "ai v1 with a call": AIMessage(
        content_blocks=[{"type": "text", "text": "a"}, {"type": "tool_call", **CALL}]
    ),
    "ai thinking": AIMessage(
        THINKING, tool_calls=[CALL], response_metadata={"model_provider": "anthropic"}
    ),
    "ai thinking, provider unknown": AIMessage(THINKING, tool_calls=[CALL]),
    "ai of the responses API": AIMessage(
        [
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "hm"}],
            },
            {"type": "text", "text": "a", "id": "msg_1", "annotations": []},
            {"type": "function_call", "name": "look", "arguments": "{}", "call_id": "call_1"},
        ],
        tool_calls=[{**CALL, "args": {}}],
        response_metadata={"model_provider": "openai", "id": "resp_1"},
    ),
    "ai with usage": AIMessage("a", usage_metadata=USAGE),
    "ai with plain usage": AIMessage(
        "a", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    ),
    "ai with a total of its own": AIMessage(
        "a", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 9}
    ),
    "ai with negative usage": AIMessage(
        "a", usage_metadata={"input_tokens": -1, "output_tokens": 2, "total_tokens": 1}
    ),
    "ai with metadata": AIMessage(
        "a",
        id="lc_run--1",
        name="bot",
        response_metadata={"id": "resp_1", "finish_reason": "stop", "logprobs": None, "t": (1, 2)},
    ),
    "ai with raw calls and none parsed": AIMessage(
        "",
        additional_kwargs={
            "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ]
        },
    ),
    "ai with malformed blocks": AIMessage(
        [{"type": "text"}, {"type": "tool_call"}, {"type": "non_standard"}, {"no": "type"}]
    ),
    "tool": ToolMessage("21 degrees", tool_call_id="call_1"),
    "tool that failed": ToolMessage("no", tool_call_id="call_1", status="error", name="look"),
    "tool with blocks": ToolMessage(V1_CONTENT[:2], tool_call_id="call_1"),
    "tool with nothing": ToolMessage("", tool_call_id=""),
    "tool with an artifact": ToolMessage(
        "see",
        tool_call_id="call_1",
        artifact={
            "tuple": (1, (2,), []),
            "bytes": b"\0\xff",
            1: {None: True, (1, 2): "pair"},
            "$tuple": {"$bytes": "x"},
            "documents": [Document("text", id="d", metadata={"page": 1, "box": (0, 1)})],
        },
    ),
    "tool with a plain artifact": ToolMessage("see", tool_call_id="call_1", artifact=[1, "a"]),
    "function": FunctionMessage("21", name="look"),
    "function with an empty name": FunctionMessage("21", name="", id="f"),
    "chat as user": ChatMessage("hi", role="user"),
    "chat as assistant": ChatMessage("hi", role="assistant"),
    "chat as assistant with a call": ChatMessage([{"type": "tool_call", **CALL}], role="assistant"),
    "chat as system": ChatMessage("hi", role="system"),
    "chat as tool": ChatMessage("hi", role="tool"),
    "chat as function": ChatMessage("hi", role="function"),
    "chat as whoever": ChatMessage([{"type": "text", "text": "a"}, "b"], role="critic", id="c"),
}

CHUNKS = [
    HumanMessageChunk("hi", id="1"),
    SystemMessageChunk("hi", name="n"),
    AIMessageChunk("hi", usage_metadata=USAGE, response_metadata={"id": "r"}),
    AIMessageChunk("", chunk_position="last"),
    AIMessageChunk(
        "",
        tool_call_chunks=[
            {"name": "look", "args": '{"a": ', "id": "call_1", "index": 0},
        ],
    )
    + AIMessageChunk("", tool_call_chunks=[{"name": None, "args": "1}", "id": None, "index": 0}]),
    AIMessageChunk("", tool_call_chunks=[{"name": None, "args": "[", "id": "c", "index": 0}]),
    AIMessageChunk([{"type": "text", "text": "hi", "index": 0}]),
    ToolMessageChunk("hi", tool_call_id="call_1", artifact=(1,)),
    FunctionMessageChunk("hi", name="look"),
    ChatMessageChunk("hi", role="critic"),
]

each_message = pytest.mark.parametrize("message", MESSAGES.values(), ids=list(MESSAGES))


def through_json(message: BaseMessage) -> BaseMessage:
    text = from_langchain(message).model_dump_json()
    return to_langchain(SessionMessage.model_validate_json(text))


def exact(value: Any) -> Any:
    """A value with the types of all its parts: 1, 1.0 and True are equal, but not the same."""
    if isinstance(value, BaseMessage | Document):
        value = {**value.__dict__, **(value.__pydantic_extra__ or {})}
    if isinstance(value, dict):
        return sorted((repr(key), exact(inner)) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return type(value), [exact(inner) for inner in value]
    return repr(value)


def assert_same(back: BaseMessage, message: BaseMessage) -> None:
    assert type(back) is type(message)
    assert back == message
    assert exact(back) == exact(message)


# What comes back


@each_message
def test_every_message_comes_back_equal_through_json(message: BaseMessage) -> None:
    assert_same(through_json(message), message)


def test_every_message_comes_back_equal_through_the_storage(manager: SessionManager) -> None:
    history = SessionChatMessageHistory("chat", manager)
    history.add_messages(list(MESSAGES.values()))
    for back, message in zip(history.messages, MESSAGES.values(), strict=True):
        assert_same(back, message)


@each_message
def test_the_same_message_has_the_same_neutral_form_each_time(message: BaseMessage) -> None:
    one, other = from_langchain(message), from_langchain(copy.deepcopy(message))
    changed = {"id", "timestamp"} if not message.id else {"timestamp"}
    assert one.model_dump(exclude=changed) == other.model_dump(exclude=changed)


@each_message
def test_the_message_itself_is_left_alone(message: BaseMessage) -> None:
    before = copy.deepcopy(message)
    stored = from_langchain(message)
    to_langchain(stored).additional_kwargs["new"] = 1
    assert message == before
    assert to_langchain(stored) == before


@pytest.mark.parametrize("chunk", CHUNKS, ids=lambda chunk: type(chunk).__name__)
def test_a_chunk_becomes_the_whole_message(chunk: Any) -> None:
    back = through_json(chunk)
    assert type(back) is type(chunk).__mro__[1]
    for field in type(back).model_fields:
        if field != "type":
            assert getattr(back, field) == getattr(chunk, field)


def test_a_chunk_of_an_own_class_becomes_a_whole_message_too() -> None:
    class OwnChunk(AIMessageChunk):
        pass

    assert_same(through_json(OwnChunk("hi", id="1")), AIMessage("hi", id="1"))


def test_a_message_of_an_own_class_becomes_langchains() -> None:
    class OwnMessage(HumanMessage):
        mood: str = "good"

    assert_same(through_json(OwnMessage("hi")), HumanMessage("hi", mood="good"))


def test_calls_that_were_taken_away_stay_away() -> None:
    message = MESSAGES["ai with raw calls and none parsed"].model_copy(deep=True)
    assert isinstance(message, AIMessage)
    message.tool_calls = []
    back = through_json(message)
    assert back == message


def test_the_text_of_a_message_can_be_put_in_another(manager: SessionManager) -> None:
    text = HumanMessage("hi").text
    message = ToolMessage(text, tool_call_id=text, artifact={text: [text]}, name=text, id=text)
    history = SessionChatMessageHistory("chat", manager)
    history.add_messages([HumanMessage([text]), message])
    assert history.messages == [HumanMessage(["hi"]), message]


@each_message
def test_a_message_under_a_new_id_comes_back_as_it_was(message: BaseMessage) -> None:
    stored = from_langchain(message)
    renamed = with_new_id(stored)
    assert renamed.id not in (stored.id, message.id)
    assert_same(to_langchain(renamed), message)
    assert_same(to_langchain(with_new_id(renamed)), message)
    assert renamed.replaced(id="x", native=None) == stored.replaced(id="x", native=None)


def test_messages_of_one_id_are_told_apart() -> None:
    messages = [HumanMessage("hi"), *(AIMessage(text, id="1") for text in "abc"), HumanMessage("")]
    stored = from_langchain_messages(messages)
    stored[2:4] = map(with_new_id, stored[2:4])
    assert to_langchain_messages(stored) == messages
    made = with_unique_ids(stored)
    first, _, *others = (message.id for message in stored)
    assert [message.id for message in made] == [first, "1", *others]
    assert [message.content for message in made] == [message.content for message in messages]


# What was assigned is checked by nobody


def with_fields(message: BaseMessage, **fields: Any) -> BaseMessage:
    for name, value in fields.items():
        setattr(message, name, value)
    return message


USAGE_OF_NONE = {"input_tokens": None, "output_tokens": 1, "total_tokens": 2}
ASSIGNED: dict[str, BaseMessage] = {
    # As LangChain's own cache leaves an answer that it had.
    "usage without counts": with_fields(AIMessage("a", id="1"), usage_metadata={"total_cost": 0}),
    "usage of None": with_fields(AIMessage("a"), usage_metadata=USAGE_OF_NONE),
    "usage that is text": with_fields(AIMessage("a"), usage_metadata="none"),
    "details that are a list": with_fields(
        AIMessage("a"), usage_metadata={**USAGE_OF_NONE, "input_token_details": [1]}
    ),
    "calls with more keys": with_fields(
        AIMessage(""),
        tool_calls=[{**CALL, "type": "tool_call", "index": 0, "extras": {"a": (1,)}}],
    ),
    "invalid calls without keys": with_fields(AIMessage(""), invalid_tool_calls=[{"name": "f"}]),
    "an odd status": with_fields(ToolMessage("a", tool_call_id="1"), status="weird"),
    "an odd role": with_fields(ChatMessage("a", role="critic"), role=5),
    "odd blocks": with_fields(HumanMessage(""), content=[1, 2, None]),
    "a tuple of blocks": with_fields(HumanMessage(""), content=("a", "b")),
    "raw calls and none parsed": with_fields(
        AIMessage("", tool_calls=[CALL], additional_kwargs={"tool_calls": [1]}), tool_calls=[]
    ),
    "a document": ToolMessage(
        "a",
        tool_call_id="1",
        artifact=[Document("text").model_copy(update={"page_content": None, "metadata": 5})],
    ),
}


@pytest.mark.parametrize("message", ASSIGNED.values(), ids=list(ASSIGNED))
def test_what_was_assigned_comes_back_too(message: BaseMessage) -> None:
    assert_same(through_json(message), message)


def test_no_message_makes_a_log_unreadable(manager: SessionManager) -> None:
    history = SessionChatMessageHistory("chat", manager)
    history.add_messages(list(ASSIGNED.values()))
    assert history.messages == list(ASSIGNED.values())


@pytest.mark.parametrize(
    "kept",
    [{"content": {"a": 1}}, {"content": None, "name": 5}, {"additional_kwargs": [1], "x": 1}],
    ids=str,
)
def test_what_is_stored_is_readable_whatever_it_is(kept: dict[str, Any]) -> None:
    stored = SessionMessage(role="user", content="a", native={"langchain": kept})
    message = to_langchain(stored)
    assert {name: getattr(message, name) for name in kept} == kept


@pytest.mark.parametrize(
    "fields",
    [
        {"content": None},
        {"content": {"a": 1}},
        {"content": 5},
        {"additional_kwargs": None},
        {"response_metadata": None},
        {"tool_calls": None},
        {"invalid_tool_calls": None},
        {"name": 5},
        {"tool_calls": [{"name": "f"}]},
        {"tool_calls": [{**CALL, "args": "{}"}]},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [AIMessage, AIMessageChunk])
def test_what_was_assigned_is_refused_by_its_name(
    kind: type[BaseMessage], fields: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInputError):
        from_langchain(with_fields(kind(content="a"), **fields))


def test_an_infinite_number_comes_back() -> None:
    message = HumanMessage("hi", additional_kwargs={"limits": [math.inf, -math.inf]})
    assert_same(through_json(message), message)


texts = strategies.texts()
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(texts | st.integers(), inner, max_size=2)
    ),
    max_leaves=4,
)
plain_dicts = st.dictionaries(texts, plain, max_size=3)
sources = {"url": texts, "base64": texts, "file_id": texts, "mime_type": texts, "id": texts}
content_blocks = st.one_of(
    texts,
    st.builds(lambda kind, rest: {"type": kind, **rest}, texts | st.none(), plain_dicts),
    *(
        st.fixed_dictionaries({"type": st.just(kind), **needed}, optional=optional)
        for kind, needed, optional in [
            ("text", {"text": texts}, {"annotations": st.lists(plain_dicts, max_size=1)}),
            ("text", {}, {"id": texts, "extras": plain_dicts, "index": st.integers()}),
            ("reasoning", {}, {"reasoning": texts, "extras": plain_dicts}),
            ("tool_call", {"name": texts, "args": plain_dicts, "id": texts}, {"extras": plain}),
            ("non_standard", {}, {"value": plain}),
            ("text-plain", {"text": texts}, {"title": texts}),
            ("image_url", {"image_url": st.fixed_dictionaries({"url": texts})}, {}),
            ("thinking", {"thinking": texts}, {"signature": texts}),
            *((kind, {}, sources) for kind in ("image", "audio", "video", "file")),
        ]
    ),
)
contents = texts | st.lists(content_blocks, max_size=3)
common: dict[str, st.SearchStrategy[Any]] = {
    "id": st.none() | st.integers() | strategies.message_ids(),
    "name": st.none() | texts,
    "additional_kwargs": plain_dicts,
    "response_metadata": st.just({}) | plain_dicts,
}
counts = st.integers(0, 2**40)
usages = st.fixed_dictionaries(
    {"input_tokens": counts, "output_tokens": counts, "total_tokens": counts},
    optional={
        "input_token_details": st.fixed_dictionaries({}, optional={"cache_read": counts}),
        "output_token_details": st.fixed_dictionaries({}, optional={"reasoning": counts}),
    },
)
calls = st.fixed_dictionaries({"name": texts, "args": plain_dicts, "id": st.none() | texts})
bad_calls = st.fixed_dictionaries(
    {key: st.none() | texts for key in ("name", "args", "id", "error")}
)
named = {**common, "name": texts}
any_message: st.SearchStrategy[BaseMessage] = st.one_of(
    st.builds(HumanMessage, contents, **common),
    st.builds(SystemMessage, contents, **common),
    st.builds(
        AIMessage,
        contents,
        tool_calls=st.lists(calls, max_size=2),
        invalid_tool_calls=st.lists(bad_calls, max_size=1),
        usage_metadata=st.none() | usages,
        **common,
    ),
    st.builds(
        ToolMessage,
        contents,
        tool_call_id=texts,
        artifact=plain,
        status=st.sampled_from(["success", "error"]),
        **common,
    ),
    st.builds(FunctionMessage, contents, **named),
    st.builds(ChatMessage, contents, role=texts | st.sampled_from(MessageRole), **common),
    st.builds(lambda content, more: HumanMessage(content, **more), contents, plain_dicts).filter(
        lambda message: message.type == "human"
    ),
)


@settings(deadline=None)
@given(any_message)
def test_any_message_comes_back_equal_through_json(message: BaseMessage) -> None:
    assert_same(through_json(message), message)
    assert from_langchain(message).content == from_langchain(copy.deepcopy(message)).content


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=any_message)
def test_any_message_comes_back_equal_through_the_storage(
    manager: SessionManager, message: BaseMessage
) -> None:
    history = SessionChatMessageHistory(uuid.uuid4().hex, manager)
    history.add_message(message)
    (back,) = history.messages
    assert_same(back, message)


@given(st.lists(any_message, max_size=4))
def test_any_messages_come_back_equal_together(messages: list[BaseMessage]) -> None:
    for back, message in zip(
        to_langchain_messages(from_langchain_messages(messages)), messages, strict=True
    ):
        assert_same(back, message)


@given(strategies.texts(), st.none() | strategies.texts().filter(lambda text: 0 < len(text) < 512))
@pytest.mark.parametrize("kind", [HumanMessage, AIMessage, SystemMessage])
def test_a_text_is_made_as_its_class_makes_it(
    kind: type[BaseMessage], text: str, message_id: str | None
) -> None:
    made = to_langchain(from_langchain(kind(content=text, id=message_id)))
    own = kind(type=made.type, content=text, id=message_id)
    assert repr(made) == repr(own)
    assert made.__dict__ == own.__dict__
    assert made.__pydantic_fields_set__ == own.__pydantic_fields_set__
    assert made.__pydantic_extra__ == own.__pydantic_extra__
    assert made.__pydantic_private__ == own.__pydantic_private__
    made.additional_kwargs["mine"] = 1
    assert to_langchain(from_langchain(own)).additional_kwargs == {}, "nothing is shared"


# The neutral form


def test_roles_and_texts_are_neutral() -> None:
    roles = {name: from_langchain(message).role.value for name, message in MESSAGES.items()}
    for start, role in [
        ("human", "user"),
        ("system", "system"),
        ("ai", "assistant"),
        ("tool", "tool"),
        ("function", "function"),
        ("chat as system", "system"),
        ("chat as assistant", "assistant"),
        ("chat as user", "user"),
        ("chat as tool", "user"),
        ("chat as whoever", "user"),
    ]:
        assert {roles[name] for name in roles if name.startswith(start)} == {role}
    for name in ("human", "ai", "tool", "function", "system with blocks", "human with strings"):
        assert from_langchain(MESSAGES[name]).text == "".join(
            block["text"] for block in MESSAGES[name].content_blocks if block["type"] == "text"
        )


def test_a_plain_message_keeps_nothing_beside_the_neutral_form() -> None:
    for name in ("human with id and name", "human with an id of ours"):
        assert from_langchain(MESSAGES[name]).native is None
    without_id = from_langchain(MESSAGES["ai with text and a call"])
    assert without_id.native == {"langchain": {"id": None}}


def test_tool_calls_are_blocks() -> None:
    stored = from_langchain(MESSAGES["ai with text and a call"])
    assert stored.content == [
        TextBlock(text="one moment"),
        ToolCallBlock(id="call_1", name="look", args=CALL["args"]),
    ]


def test_a_call_with_broken_arguments_is_a_call() -> None:
    """As langchain-openai and langchain-anthropic send it."""
    broken = ToolCallBlock(id="call_2", name="look", extras={"arguments": '{"city": '})
    invalid = from_langchain(MESSAGES["ai with only invalid calls"])
    assert invalid.content == [broken]
    made = to_langchain(SessionMessage(role="assistant", content=[broken]))
    assert isinstance(made, AIMessage)
    assert made.invalid_tool_calls == [{**BAD_CALL, "error": None, "type": "invalid_tool_call"}]
    assert made.tool_calls == []


def test_a_call_with_broken_arguments_in_the_content_is_one_block() -> None:
    block = {"type": "invalid_tool_call", **BAD_CALL}
    message = AIMessage(content=[block], invalid_tool_calls=[BAD_CALL])
    assert [block.type for block in from_langchain(message).blocks] == ["tool_call"]
    assert to_langchain(from_langchain(message)) == message


def test_a_call_with_broken_arguments_of_another_kind_is_kept_as_it_is() -> None:
    message = with_fields(AIMessage(""), invalid_tool_calls=[{"name": "f", "args": {"a": 1}}])
    (block,) = from_langchain(message).blocks
    assert block == OtherBlock(value={"name": "f", "args": {"a": 1}})


@pytest.mark.parametrize(
    "name", ["ai thinking", "ai thinking, provider unknown", "ai v1 with a call"]
)
def test_a_call_that_is_also_in_the_content_is_one_block(name: str) -> None:
    blocks = from_langchain(MESSAGES[name]).blocks
    calls = [block for block in blocks if isinstance(block, ToolCallBlock)]
    assert calls == [ToolCallBlock(id="call_1", name="look", args=CALL["args"])]


def test_tool_results_are_blocks() -> None:
    stored = from_langchain(MESSAGES["tool that failed"])
    assert stored.content == [
        ToolResultBlock(tool_call_id="call_1", content="no", name="look", is_error=True)
    ]
    (result,) = from_langchain(MESSAGES["tool with blocks"]).blocks
    assert isinstance(result, ToolResultBlock)
    assert [block.type for block in result.content if not isinstance(block, str)] == [
        "text",
        "image",
    ]


def test_media_are_blocks() -> None:
    assert from_langchain(MESSAGES["human v1"]).content == [
        TextBlock(text="see", annotations=V1_CONTENT[0]["annotations"]),
        ImageBlock(url="https://example.com/a.png", id="img_1"),
        AudioBlock(base64="aGk=", mime_type="audio/wav"),
        VideoBlock(file_id="file-1"),
        FileBlock(base64="aGk=", mime_type="application/pdf", extras={"page": 1}),
        FileBlock(text="notes", mime_type="text/plain", filename="a.txt"),
        OtherBlock(value={"vendor": [1]}),
    ]
    kinds = [block.type for block in from_langchain(MESSAGES["human v0"]).blocks]
    assert kinds[:5] == ["text", "text", "image", "image", "image"]
    assert "audio" in kinds


def test_reasoning_is_a_block_with_its_signature() -> None:
    for name in ("ai with server calls", "ai thinking"):
        first = from_langchain(MESSAGES[name]).blocks[0]
        assert isinstance(first, ReasoningBlock)
        assert (first.reasoning, first.signature) == ("hm", "sig==")


def test_what_a_server_called_is_no_call_of_ours() -> None:
    kinds = [block.type for block in from_langchain(MESSAGES["ai with server calls"]).blocks]
    assert kinds == ["reasoning", "non_standard", "non_standard", "text"]


def test_usage_finish_reason_and_ids_are_neutral() -> None:
    usage = TokenUsage(input_tokens=350, output_tokens=240, cached_tokens=100, reasoning_tokens=200)
    assert from_langchain(MESSAGES["ai with usage"]).usage == usage
    stored = from_langchain(MESSAGES["ai with metadata"])
    assert (stored.id, stored.name) == ("lc_run--1", "bot")
    assert (stored.provider_message_id, stored.finish_reason) == ("resp_1", "stop")
    assert from_langchain(MESSAGES["ai with negative usage"]).usage == TokenUsage(output_tokens=2)


@pytest.mark.parametrize("name", ["model_name", "model"])
def test_the_model_is_neutral_and_who_runs_it_is_not(name: str) -> None:
    told = {name: "gpt-5.4", "model_provider": "openai", "stop_reason": "end_turn"}
    stored = from_langchain(AIMessage("a", response_metadata=told))
    assert (stored.model, stored.provider, stored.finish_reason) == ("gpt-5.4", None, "end_turn")
    assert from_langchain(AIMessage("a", response_metadata={name: 5})).model is None


def test_malformed_blocks_are_kept_as_they_are() -> None:
    blocks = from_langchain(MESSAGES["ai with malformed blocks"]).blocks
    assert [block.type for block in blocks] == ["non_standard"] * 4


# What cannot be stored


def endless() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    "thing",
    [
        RemoveMessage(id="1"),
        ToolMessage("a", tool_call_id="c", artifact=object()),
        ToolMessage("a", tool_call_id="c", artifact=endless()),
        HumanMessage("a", additional_kwargs={"set": {1}}),
        HumanMessage("a", more=object()),
        HumanMessage([{"type": "text", "text": object()}]),
        AIMessage("", tool_calls=[{**CALL, "args": {"now": object()}}]),
        AIMessage("a", response_metadata={"raw": ValueError()}),
        HumanMessage("a", id="x" * 513),
        "hi",
        ("human", "hi"),
        {"role": "user", "content": "hi"},
        None,
    ],
    ids=lambda thing: repr(thing)[:40],
)
def test_what_cannot_be_stored_is_refused(thing: Any) -> None:
    with pytest.raises(InvalidInputError):
        from_langchain(thing)


def test_a_message_of_an_unknown_type_is_refused() -> None:
    class Whisper(BaseMessage):
        type: str = "whisper"

    with pytest.raises(InvalidInputError, match="'whisper'"):
        from_langchain(Whisper("psst"))


# Messages that never were LangChain's

BLOCKS: list[tuple[Any, Any]] = [
    (TextBlock(text="a", id="t", annotations=[{"a": 1}]), "text"),
    (ReasoningBlock(reasoning="hm", signature="s", encrypted="e"), "reasoning"),
    (ImageBlock(url="u"), "image"),
    (AudioBlock(base64="aGk=", mime_type="audio/wav"), "audio"),
    (VideoBlock(file_id="f"), "video"),
    (FileBlock(file_id="f", filename="a.pdf"), "file"),
    (FileBlock(text="notes", filename="a.txt"), "text-plain"),
    (ToolCallBlock(id="c", name="look", args={"a": 1}), "tool_call"),
    (ToolResultBlock(tool_call_id="c", content="21"), "non_standard"),
    (RefusalBlock(refusal="no"), "text"),
    (OtherBlock(value={"vendor": 1}), "non_standard"),
]


@pytest.mark.parametrize(("block", "kind"), BLOCKS, ids=lambda value: getattr(value, "type", value))
def test_every_block_becomes_one_of_langchains(block: Any, kind: str) -> None:
    for role in (MessageRole.USER, MessageRole.SYSTEM, MessageRole.ASSISTANT):
        message = to_langchain(SessionMessage(role=role, content=[TextBlock(text="see"), block]))
        assert [each["type"] for each in message.content_blocks] == ["text", kind]


def test_reasoning_keeps_its_proofs_where_langchain_has_them() -> None:
    block = ReasoningBlock(reasoning="hm", signature="s", encrypted="e", extras={"x": 1})
    message = to_langchain(SessionMessage(role="assistant", content=[block]))
    assert message.content == [
        {
            "type": "reasoning",
            "reasoning": "hm",
            "extras": {"x": 1, "signature": "s", "encrypted_content": "e"},
        }
    ]


@settings(deadline=None)
@given(strategies.messages())
def test_any_message_becomes_one_that_langchain_accepts(stored: SessionMessage) -> None:
    message = to_langchain(stored.replaced(native=None))
    kinds = {"user": "human", "assistant": "ai"}
    assert message.type == kinds.get(stored.role, stored.role.value)
    assert message.id == stored.id
    assert messages_from_dict([message_to_dict(message)]) == [message]
    assert isinstance(message.content_blocks, list)
    assert_same(through_json(message), message)


def test_a_tool_exchange_of_ours_is_one_of_openais() -> None:
    exchange = [
        SessionMessage(role="system", content="be brief"),
        SessionMessage(role="user", content=[TextBlock(text="weather?")]),
        SessionMessage(
            role="assistant",
            content=[TextBlock(text="wait"), ToolCallBlock(id="c", name="look", args={"a": 1})],
        ),
        SessionMessage(
            role="tool", content=[ToolResultBlock(tool_call_id="c", content="21", name="look")]
        ),
        SessionMessage(role="assistant", content="21 degrees"),
    ]
    assert convert_to_openai_messages([to_langchain(message) for message in exchange]) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "weather?"},
        {
            "role": "assistant",
            "content": "wait",
            "tool_calls": [
                {
                    "type": "function",
                    "id": "c",
                    "function": {"name": "look", "arguments": '{"a": 1}'},
                }
            ],
        },
        {"role": "tool", "name": "look", "tool_call_id": "c", "content": "21"},
        {"role": "assistant", "content": "21 degrees"},
    ]


def test_usage_of_ours_is_langchains() -> None:
    usage = TokenUsage(input_tokens=3, output_tokens=2, cached_tokens=1, reasoning_tokens=1)
    message = to_langchain(SessionMessage(role="assistant", content="a", usage=usage))
    assert isinstance(message, AIMessage)
    assert message.usage_metadata == {
        "input_tokens": 3,
        "output_tokens": 2,
        "total_tokens": 5,
        "input_token_details": {"cache_read": 1},
        "output_token_details": {"reasoning": 1},
    }


@pytest.mark.parametrize("role", list(MessageRole))
@pytest.mark.parametrize("content", ["", "a", []], ids=repr)
def test_every_role_is_one_of_langchains(role: MessageRole, content: Any) -> None:
    message = to_langchain(SessionMessage(role=role, content=content, name="look"))
    assert message.content == (content or "")
    assert message.name == "look"


# Several results in one message

RESULTS = [
    ToolResultBlock(tool_call_id="a", content="one", name="look"),
    ToolResultBlock(tool_call_id="b", content=[ImageBlock(url="https://x/y.png")], is_error=True),
    ToolResultBlock(tool_call_id="c", content=""),
]


@pytest.mark.parametrize("role", [MessageRole.TOOL, MessageRole.USER, MessageRole.FUNCTION])
def test_each_result_of_a_message_is_a_message(role: MessageRole) -> None:
    made = to_langchain_messages([SessionMessage(id="m", role=role, content=RESULTS)])
    assert all(isinstance(message, ToolMessage) for message in made)
    assert [(m.id, m.tool_call_id, m.status) for m in made] == [
        ("m", "a", "success"),
        ("m:2", "b", "error"),
        ("m:3", "c", "success"),
    ]
    assert [m.content for m in made] == ["one", [{"type": "image", "url": "https://x/y.png"}], ""]
    assert made[0].name == "look"


def test_what_else_is_in_it_follows_as_a_users_message() -> None:
    message = SessionMessage(
        id="m", role=MessageRole.USER, content=[TextBlock(text="and?"), *RESULTS[:1]]
    )
    result, rest = to_langchain_messages([message])
    assert (result.type, result.id, result.content) == ("tool", "m", "one")
    assert (rest.type, rest.id, rest.content) == ("human", "m:2", "and?")


@given(st.lists(strategies.messages(), max_size=4, unique_by=lambda message: message.id))
def test_of_messages_none_is_lost_and_each_has_an_id(stored: list[SessionMessage]) -> None:
    made = to_langchain_messages(stored)
    assert made == to_langchain_messages(stored), "the ids are the same each time"
    assert {message.id for message in stored} <= {message.id for message in made}
    results = [
        block.tool_call_id
        for message in stored
        for block in message.blocks
        if isinstance(block, ToolResultBlock) and message.role.value in ("tool", "user", "function")
    ]
    assert [m.tool_call_id for m in made if isinstance(m, ToolMessage) and m.tool_call_id] == [
        result for result in results if result
    ]


def test_langchains_own_come_back_one_for_one() -> None:
    own = [
        HumanMessage("x", id="1"),
        ToolMessage("y", tool_call_id="c", id="2"),
        AIMessage("z", id="3"),
    ]
    assert to_langchain_messages(from_langchain(message) for message in own) == own


# Objects in the free-form fields


class Place(BaseModel):
    name: str
    at: tuple[float, float]


def test_what_structured_output_leaves_in_a_message_comes_back_as_data() -> None:
    place = Place(name="Åbo", at=(60.4, 22.3))
    message = AIMessage("x", id="1", additional_kwargs={"parsed": place, "refusal": None})
    stored = SessionMessage.model_validate_json(from_langchain(message).model_dump_json())
    back = to_langchain(stored)
    assert back.additional_kwargs == {
        "parsed": {"name": "Åbo", "at": [60.4, 22.3]},
        "refusal": None,
    }
    assert message.additional_kwargs["parsed"] is place, "the caller's message is left as it was"


def test_a_tools_artifact_comes_back_as_data() -> None:
    message = ToolMessage("x", tool_call_id="c", artifact=[Place(name="Åbo", at=(1, 2))])
    back = to_langchain(from_langchain(message))
    assert back.artifact == [{"name": "Åbo", "at": [1.0, 2.0]}]
