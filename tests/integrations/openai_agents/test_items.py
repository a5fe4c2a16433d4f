"""The Agents SDK's items as session messages, and back."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai_agents_langswarm import from_openai_agents, to_openai_agents
from openai_agents_langswarm import items as door

from langswarm_session import (
    AudioBlock,
    InvalidInputError,
    OtherBlock,
    ReasoningBlock,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.testing import strategies

USER = {"role": "user", "content": "hi"}
ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "hello", "annotations": [], "logprobs": []}],
}
REASONING = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "hm"}],
    "encrypted_content": "x==",
    "status": None,
}
CALL = {
    "id": "fc_1",
    "type": "function_call",
    "call_id": "call_1",
    "name": "look",
    "arguments": '{"city":"Åbo"}',
    "status": "completed",
}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "sunny"}

ITEMS: dict[str, dict[str, Any]] = {
    "user": USER,
    "user with type": {"type": "message", **USER},
    "user with parts": {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "look"},
            {"type": "input_image", "image_url": "https://e.x/a.png", "detail": "low"},
            {"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "auto"},
            {"type": "input_file", "file_id": "file-1"},
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:x/y;base64,aGk="},
            {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
        ],
    },
    "user with one part": {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
    "user with nothing": {"role": "user", "content": ""},
    "user with no parts": {"role": "user", "content": []},
    "system": {"role": "system", "content": "be brief"},
    "developer": {"role": "developer", "content": "be brief"},
    "assistant as text": {"role": "assistant", "content": "hello"},
    "answer": ANSWER,
    "refusal": {**ANSWER, "content": [{"type": "refusal", "refusal": "no"}]},
    "answer with a phase": {**ANSWER, "phase": "commentary"},
    "answer with a made-up id": {**ANSWER, "id": "__fake_id__"},
    "answer with nothing": {**ANSWER, "content": []},
    "two parts": {**ANSWER, "content": ANSWER["content"] * 2},
    "cited": {
        **ANSWER,
        "content": [
            {"type": "output_text", "text": "x", "annotations": [{"type": "url_citation"}]}
        ],
    },
    "reasoning": REASONING,
    "empty reasoning": {"id": "rs_2", "type": "reasoning", "summary": []},
    "call": CALL,
    "call without id": {key: value for key, value in CALL.items() if key != "id"},
    "call that is no JSON": {**CALL, "arguments": '{"city":'},
    "call with a namespace": {**CALL, "namespace": "n", "caller": {"type": "direct"}},
    "result": RESULT,
    "result with more": {**RESULT, "id": "o_1", "status": "completed"},
    "result with parts": {
        **RESULT,
        "output": [
            {"type": "input_text", "text": "a"},
            {"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "auto"},
        ],
    },
    "custom call": {
        "type": "custom_tool_call", "id": "ct_1", "call_id": "c", "name": "sh", "input": "ls"
    },
    "custom result": {"type": "custom_tool_call_output", "call_id": "c", "output": "a.txt"},
    "web search": {
        "type": "web_search_call", "id": "ws_1", "status": "completed",
        "action": {"type": "search", "query": "x", "sources": None},
    },
    "file search": {
        "type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["x"],
        "results": [{"score": 0.5, "text": "y", "attributes": {"n": 1.0}}],
    },
    "computer call": {
        "type": "computer_call", "id": "cu_1", "call_id": "c", "status": "completed",
        "action": {"type": "click", "x": 1, "y": 2}, "pending_safety_checks": [],
    },
    "computer result": {
        "type": "computer_call_output", "call_id": "c",
        "output": {"type": "computer_screenshot", "image_url": "data:image/png;base64,aGk="},
    },
    "code": {
        "type": "code_interpreter_call", "id": "ci_1", "code": "1", "container_id": "c",
        "outputs": [], "status": "completed",
    },
    "picture": {"type": "image_generation_call", "id": "ig_1", "result": "aGk=", "status": "completed"},
    "mcp tools": {"type": "mcp_list_tools", "id": "m_1", "server_label": "s", "tools": []},
    "mcp request": {
        "type": "mcp_approval_request", "id": "m_2", "name": "f", "arguments": "{}", "server_label": "s"
    },
    "mcp response": {"type": "mcp_approval_response", "approval_request_id": "m_2", "approve": True},
    "mcp call": {"type": "mcp_call", "id": "m_3", "name": "f", "arguments": "{}", "server_label": "s"},
    "shell": {"type": "local_shell_call", "id": "l_1", "call_id": "c", "action": {}, "status": "completed"},
    "shell result": {"type": "local_shell_call_output", "id": "l_2", "output": "a.txt"},
    "reference": {"type": "item_reference", "id": "msg_1"},
    "compaction": {"type": "compaction", "id": "cmp_1", "encrypted_content": "x=="},
    "unknown": {"type": "something_new", "id": "x", "a": [None, 1.5, {"b": "é\0"}]},
    "odd": {"type": "function_call", "arguments": 5},
    "odder": {"a": 1},
    "nothing": {},
}  # fmt: skip


def stored(items: list[dict[str, Any]]) -> list[SessionMessage]:
    """The messages as a storage gives them back."""
    return [
        SessionMessage.model_validate_json(message.model_dump_json())
        for message in from_openai_agents(items)
    ]


@pytest.mark.parametrize("name", ITEMS)
def test_it_comes_back_as_it_went_in(name: str) -> None:
    item, before = ITEMS[name], copy.deepcopy(ITEMS[name])
    for items in ([item], [item, item], [USER, item, RESULT], [REASONING, item, CALL]):
        back = to_openai_agents(stored(items))
        assert back == items
        # Equal might still be another thing: 1 == 1.0 == True.
        assert json.dumps(back, sort_keys=True) == json.dumps(items, sort_keys=True)
    assert item == before


def test_all_of_them_at_once() -> None:
    items = list(ITEMS.values())
    back = to_openai_agents(stored(items))
    assert json.dumps(back, sort_keys=True) == json.dumps(items, sort_keys=True)


@pytest.mark.parametrize("name", ["user", "system", "result", "assistant as text"])
def test_what_is_plain_is_kept_once(name: str) -> None:
    items = [{"type": "message", **ITEMS[name]}] if name == "assistant as text" else [ITEMS[name]]
    (message,) = from_openai_agents(items)
    assert message.native is None
    assert to_openai_agents([message]) == items


def test_what_a_model_gave_in_a_row_is_one_message() -> None:
    second = {**CALL, "call_id": "call_2", "id": "fc_2"}
    messages = from_openai_agents(
        [USER, REASONING, CALL, second, RESULT, {**RESULT, "call_id": "call_2"}, ANSWER]
    )
    assert [m.role.value for m in messages] == ["user", "assistant", "tool", "tool", "assistant"]
    reasoning, *calls = messages[1].blocks
    assert isinstance(reasoning, ReasoningBlock)
    assert [(b.id, b.name, b.args) for b in calls if isinstance(b, ToolCallBlock)] == [
        ("call_1", "look", {"city": "Åbo"}),
        ("call_2", "look", {"city": "Åbo"}),
    ]
    assert messages[2].content == [ToolResultBlock(tool_call_id="call_1", content="sunny")]
    assert messages[4].text == "hello"


def test_what_answers_a_model_is_no_reply_of_its_own() -> None:
    for name in ("computer result", "shell result", "mcp response", "compaction", "reference"):
        (message,) = from_openai_agents([ITEMS[name]])
        assert message.role == "user"


def test_ids_are_new_each_time() -> None:
    first, second = from_openai_agents([ANSWER, USER])[0], from_openai_agents([ANSWER])[0]
    assert first.id != second.id


def test_what_a_middleware_put_there_counts() -> None:
    (answer,) = from_openai_agents([ANSWER])
    assert answer.native
    assert to_openai_agents([answer.replaced(content="***")]) == [
        {"type": "message", "role": "assistant", "content": "***"}
    ]
    (call,) = from_openai_agents([{**CALL, "namespace": "n"}])
    (block,) = call.blocks
    changed = block.model_copy(update={"args": {"city": "***"}})
    (item,) = to_openai_agents([call.replaced(content=[changed])])
    assert json.loads(item["arguments"]) == {"city": "***"}


def test_what_others_wrote_is_converted_without_their_ids() -> None:
    message = SessionMessage(
        role="assistant",
        content=[
            ReasoningBlock(reasoning="hm", signature="sig"),
            TextBlock(text="hello", id="msg_9"),
            OtherBlock(value={"type": "server_tool_call", "id": "s"}),
            AudioBlock(base64="aGk="),
            ToolCallBlock(id="c", name="f", args={"a": 1}, extras={"item_id": "fc_9"}),
        ],
    )
    results = [ToolResultBlock(tool_call_id=str(n), content=f"{n}") for n in range(2)]
    text, call, *outputs = to_openai_agents([message, SessionMessage(role="tool", content=results)])
    assert text == {"type": "message", "role": "assistant", "content": "hello"}
    assert json.loads(call.pop("arguments")) == {"a": 1}
    assert call == {"type": "function_call", "call_id": "c", "name": "f"}
    assert outputs == [
        {"type": "function_call_output", "call_id": "0", "output": "0"},
        {"type": "function_call_output", "call_id": "1", "output": "1"},
    ]


@pytest.mark.parametrize(
    "block",
    [
        TextBlock(text="a", id="msg_1"),
        TextBlock(text="a", id="msg_1", annotations=[]),
        TextBlock(text="a", id="msg_1", annotations=[{"type": "url_citation", "url": "x"}]),
        TextBlock(text="a", id="msg_1", extras={"phase": "commentary"}),
        TextBlock(text="", id="msg_1"),
        TextBlock(text="a", id="other"),
        TextBlock(text="a"),
    ],
)
def test_one_text_is_converted_as_all_else(
    block: TextBlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = SessionMessage(
        role="assistant", content=[block], native={door.FORMAT: {"items": [None]}}
    )
    converted = to_openai_agents([message])
    monkeypatch.setattr(door, "_text_item", lambda message: None)
    assert converted == to_openai_agents([message])


def deep() -> list[Any]:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    "bad",
    [
        "text",
        None,
        {"role": "user", "content": object()},
        {"a": {1, 2}},
        {"type": "x", "a": deep()},
    ],
    ids=["text", "None", "object", "set", "deep"],
)
def test_what_cannot_be_stored_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidInputError):
        from_openai_agents([USER, bad])


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(strategies.messages(), max_size=3))
def test_any_session_message_can_be_read(messages: list[SessionMessage]) -> None:
    items = to_openai_agents([message.replaced(native=None) for message in messages])
    assert to_openai_agents(from_openai_agents(items)) == items


def changed(item: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The item with some of its fields left out or other ones."""
    keys = st.sets(st.sampled_from(sorted(item))) if item else st.just(set())
    others = st.dictionaries(
        st.sampled_from(["id", "status", "content", "output", "role", "extra", "summary"]),
        strategies.json_values(),
        max_size=2,
    )
    return st.builds(
        lambda gone, other: {k: v for k, v in {**item, **other}.items() if k not in gone},
        keys,
        others,
    )


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.sampled_from(list(ITEMS.values()))
        | st.sampled_from(list(ITEMS.values())).flatmap(changed)
        | strategies.json_objects(),
        max_size=5,
    )
)
def test_any_items_come_back_as_they_went_in(items: list[dict[str, Any]]) -> None:
    back = to_openai_agents(stored(items))
    assert json.dumps(back, sort_keys=True) == json.dumps(items, sort_keys=True)
