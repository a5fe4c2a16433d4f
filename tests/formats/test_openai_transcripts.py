from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langswarm_session import (
    AudioBlock,
    FileBlock,
    ImageBlock,
    MessageRole,
    OtherBlock,
    ReasoningBlock,
    RefusalBlock,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.formats.openai_transcripts import (
    Threads,
    from_chat,
    from_thread_message,
    to_transcript,
)
from langswarm_session.testing import strategies

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

texts = strategies.texts(20)
parts = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, texts),
    st.builds(lambda text: {"type": "refusal", "refusal": text}, texts),
    st.builds(lambda url: {"type": "image_url", "image_url": {"url": url}}, texts),
    st.just({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}),
    st.just({"type": "image_url", "image_url": {"url": "https://x.org/y", "detail": "low"}}),
    st.just({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
    st.just({"type": "file", "file": {"file_id": "file-1"}}),
    st.builds(lambda value: {"type": "odd", "odd": value}, strategies.json_objects()),
)
contents = st.one_of(st.none(), texts, st.lists(parts, max_size=3))
calls = st.builds(
    lambda name, text, id_: {
        "id": id_,
        "type": "function",
        "function": {"name": name, "arguments": text},
    },
    texts,
    st.sampled_from(["", "{}", '{"a": 1}', '{"a":  [1, null]}', "no json", "[1]"]),
    st.sampled_from(["c1", "call_2"]),
)
chat_messages = st.one_of(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user"]), "content": contents},
        optional={"name": texts, "extra": strategies.json_values()},
    ),
    st.fixed_dictionaries(
        {"role": st.just("assistant")},
        optional={
            "content": contents,
            "refusal": st.none() | texts,
            "tool_calls": st.lists(calls, max_size=2),
            "function_call": st.just({"name": "f", "arguments": "{}"}),
            "audio": st.none() | strategies.json_objects(),
        },
    ),
    st.fixed_dictionaries(
        {"role": st.just("tool"), "tool_call_id": texts, "content": contents},
        optional={"name": texts},
    ),
    st.fixed_dictionaries({"role": st.just("function"), "name": texts, "content": contents}),
)


@given(chat_messages)
def test_a_chat_message_comes_back_exactly(given_message: dict[str, Any]):
    message = from_chat(given_message, NOON)
    stored = SessionMessage.model_validate_json(message.model_dump_json())
    (back,), lost = to_transcript(stored)
    assert back == given_message
    assert json.dumps(back, sort_keys=True) == json.dumps(given_message, sort_keys=True)
    assert lost == []


def test_what_a_chat_message_means():
    message = from_chat(
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
                {"id": "2", "type": "custom", "custom": {"name": "g", "input": "x"}},
            ],
        },
        NOON,
    )
    assert message.content[0] == TextBlock(text="Let me see.")
    assert message.content[1] == ToolCallBlock(id="1", name="f", args={"a": 1})
    assert message.content[2].args == {"input": "x"}
    assert message.timestamp == NOON
    result = from_chat({"role": "tool", "tool_call_id": "1", "name": "f", "content": "2"}, NOON)
    assert result.content == [ToolResultBlock(tool_call_id="1", name="f", content="2")]
    assert from_chat({"role": "user", "content": "hi"}, NOON).native is None
    said = from_chat({"role": "user", "content": [{"type": "odd", "x": 1}]}, NOON)
    assert said.content == [OtherBlock(value={"type": "odd", "x": 1})]
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    seen = from_chat({"role": "user", "content": [picture]}, NOON)
    assert seen.content == [ImageBlock(mime_type="image/png", base64="AAAA")]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"role": "robot"},
        "hello",
        {"role": "user", "content": 5},
        {"role": "user", "content": ["x"]},
        {"role": "assistant", "tool_calls": ["x"]},
        {"role": "assistant", "tool_calls": [{"id": "1"}]},
    ],
)
def test_what_is_no_chat_message(wrong: Any):
    with pytest.raises(ValueError, match="message|call|part"):
        from_chat(wrong, NOON)


@given(strategies.messages())
def test_any_message_has_a_transcript_that_says_what_is_lost(message: SessionMessage):
    made, lost = to_transcript(message)
    json.dumps(made)
    assert all(each["role"] in ("system", "user", "assistant", "tool") for each in made)
    kinds = {block.type for block in message.blocks}
    assert set(lost) <= {*kinds, *(b.type for r in message.blocks for b in inside(r))}


def inside(block: Any) -> list[Any]:
    content = getattr(block, "content", "")
    return content if isinstance(content, list) else []


def test_what_the_chat_format_has_no_place_for():
    blocks = [
        ReasoningBlock(reasoning="hm"),
        TextBlock(text="Hello."),
        AudioBlock(url="https://x.org/a.wav"),
        FileBlock(filename="a.txt", text="words"),
        RefusalBlock(refusal="no"),
    ]
    (made,), lost = to_transcript(SessionMessage(role=MessageRole.USER, content=blocks))
    assert lost == ["reasoning", "audio", "file"]
    assert [part["text"] for part in made["content"]] == [
        "Hello.",
        "[audio https://x.org/a.wav]",
        "[file a.txt]\nwords",
        "no",
    ]


def thread_message(number: int, created: int, thread: str = "t", **fields: Any) -> dict[str, Any]:
    return {
        "id": f"m{number}",
        "object": "thread.message",
        "created_at": created,
        "thread_id": thread,
        "role": "user",
        "content": [{"type": "text", "text": {"value": str(number), "annotations": []}}],
        **fields,
    }


@pytest.mark.parametrize(
    "listed",
    [
        [thread_message(n, 100 + n) for n in range(4)],
        [thread_message(n, 100 + n) for n in reversed(range(4))],
        [thread_message(n, 100) for n in reversed(range(4))],
        [thread_message(n, 100 + n // 2) for n in range(4)],
        [thread_message(n, 100 + n // 2) for n in reversed(range(4))],
    ],
)
def test_a_thread_is_put_in_order(listed: list[dict[str, Any]]):
    threads = Threads()
    assert threads.add({"object": "list", "data": listed[:2], "has_more": True})
    assert threads.is_cut_off
    assert threads.add({"object": "list", "data": listed[2:], "has_more": False})
    assert not threads.is_cut_off
    ((name, messages),) = threads.by_thread()
    assert (name, [message.text for message in messages]) == ("t", ["0", "1", "2", "3"])


def test_several_threads_and_other_shapes():
    threads = Threads()
    assert threads.add(thread_message(1, 1, "a"))
    assert threads.add({"messages": {"data": [thread_message(2, 2, "b")]}})
    assert [name for name, _ in threads.by_thread()] == ["a", "b"]
    assert not threads.add({"object": "list", "data": [{"object": "run"}]})
    assert not threads.add({"object": "thread"})
    with pytest.raises(ValueError, match="thread_id"):
        threads.add({"object": "thread.message"})


def test_what_a_thread_s_message_means():
    content = [
        {"type": "text", "text": {"value": "See [1].", "annotations": [{"type": "file_citation"}]}},
        {"type": "image_file", "image_file": {"file_id": "file-1", "detail": "auto"}},
        {"type": "image_url", "image_url": {"url": "https://x.org/y.png"}},
        {"type": "refusal", "refusal": "no"},
    ]
    attached = [{"file_id": "file-2", "tools": [{"type": "file_search"}]}]
    given_message = thread_message(
        1, 1_699_000_000, role="assistant", content=content, attachments=attached
    )
    message = from_thread_message(given_message)
    assert message.content == [
        TextBlock(text="See [1].", annotations=[{"type": "file_citation"}]),
        ImageBlock(file_id="file-1"),
        ImageBlock(url="https://x.org/y.png"),
        RefusalBlock(refusal="no"),
        FileBlock(file_id="file-2"),
    ]
    assert (message.role, message.provider) == (MessageRole.ASSISTANT, "openai")
    assert message.native == {"openai_thread": given_message}
    assert from_thread_message(thread_message(1, 1, content="plain")).text == "plain"
