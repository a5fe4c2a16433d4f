from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langswarm_session.blocks import (
    AudioBlock,
    FileBlock,
    ImageBlock,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.formats.openai_chat import from_completion, takes, to_chat
from langswarm_session.formats.openai_chunks import ChunkAssembler
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.sendable import Target, make_sendable
from langswarm_session.testing import strategies

TEXTS = st.text("abc é\U0001f469", max_size=8)
ARGUMENTS = st.dictionaries(TEXTS, TEXTS | st.integers() | st.none(), max_size=2)
CUSTOM = {"type": "custom_tool_call"}


@st.composite
def replies(draw):
    """Messages as a model may give them."""
    calls = [
        draw(
            st.builds(ToolCallBlock, id=st.just(f"call_{n}"), name=st.just("a"), args=ARGUMENTS)
            | st.builds(
                ToolCallBlock,
                id=st.just(f"call_{n}"),
                name=st.just("b"),
                args=st.builds(dict, input=TEXTS),
                extras=st.just(CUSTOM),
            )
        )
        for n in range(draw(st.integers(0, 3)))
    ]
    text, refusal = draw(TEXTS), draw(TEXTS)
    spoken = ([TextBlock(text=text)] if text else []) + (
        [RefusalBlock(refusal=refusal)] if refusal else []
    )
    return SessionMessage(id="m", role=MessageRole.ASSISTANT, content=[*spoken, *calls])


def completed(message, reason="stop"):
    return {"id": "chatcmpl-1", "choices": [{"message": message, "finish_reason": reason}]}


@given(replies())
@settings(max_examples=60)
def test_a_reply_comes_back_as_it_was(reply):
    (sent,) = to_chat([reply])
    assert from_completion(completed(sent), "m").blocks == reply.blocks


@given(replies(), st.integers(1, 5))
@settings(max_examples=60)
def test_a_stream_gives_what_the_whole_gives(reply, size):
    (sent,) = to_chat([reply])
    whole, shown = ChunkAssembler(), ""
    for delta in deltas(sent, size):
        assert not whole.is_complete
        shown += whole.add({"id": "chatcmpl-1", "choices": [{"delta": delta}]}).text
    whole.add({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    assert whole.is_complete
    message = from_completion(whole.completion(), "m")
    assert message.blocks == reply.blocks
    assert shown == message.text


def deltas(message, size):
    """A message in pieces."""

    def pieces(text):
        return [text[at : at + size] for at in range(0, len(text), size)]

    for key in ("content", "refusal"):
        yield from ({key: piece} for piece in pieces(message.get(key) or ""))
    for index, call in enumerate(message.get("tool_calls") or []):
        kind = call["type"]
        key = "input" if kind == "custom" else "arguments"
        yield {"tool_calls": [call | {"index": index, kind: call[kind] | {key: ""}}]}
        for piece in pieces(call[kind][key]):
            yield {"tool_calls": [{"index": index, kind: {key: piece}}]}


@given(strategies.logs(max_size=5))
@settings(max_examples=100)
def test_whatever_a_log_holds_is_json_with_each_call_answered(log):
    target = Target(provider="openai", model="m", strict=True, takes=takes, call_id_length=40)
    messages, _ = make_sendable(log, target)
    sent = json.loads(json.dumps(to_chat(messages), allow_nan=False))
    waiting = []
    for message in sent:
        if message["role"] == "tool":
            waiting.remove(message["tool_call_id"])
        else:
            assert not waiting
            waiting = [call["id"] for call in message.get("tool_calls", ())]
            assert all(len(call) <= 40 for call in waiting)
    assert not waiting


def test_roles():
    messages = [
        SessionMessage(role=MessageRole.SYSTEM, content="Be brief."),
        SessionMessage(role=MessageRole.SYSTEM, content=""),
        SessionMessage(role=MessageRole.USER, content="Hi", name="Anna Lena <a>"),
        SessionMessage(role=MessageRole.ASSISTANT, content=""),
    ]
    assert to_chat(messages) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi", "name": "Anna_Lena_a_"},
        {"role": "assistant", "content": ""},
    ]


def test_parts_of_what_a_user_said():
    blocks = [
        TextBlock(text="Look."),
        ImageBlock(url="https://example.org/a.png"),
        ImageBlock(base64="YQ==", mime_type="image/jpeg"),
        AudioBlock(base64="YQ==", mime_type="audio/mpeg"),
        FileBlock(base64="YQ==", filename="a.pdf"),
        FileBlock(file_id="file-1"),
    ]
    assert all(takes(block, False) for block in blocks)
    (sent,) = to_chat([SessionMessage(role=MessageRole.USER, content=blocks)])
    assert sent["content"] == [
        {"type": "text", "text": "Look."},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,YQ=="}},
        {"type": "input_audio", "input_audio": {"data": "YQ==", "format": "mp3"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,YQ=="}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ]  # fmt: skip


@pytest.mark.parametrize(
    "block",
    [
        ImageBlock(file_id="file-1"),
        ImageBlock(base64="YQ==", mime_type="image/tiff"),
        AudioBlock(url="https://example.org/a.mp3"),
        AudioBlock(base64="YQ==", mime_type="audio/flac"),
        FileBlock(url="https://example.org/a.pdf"),
        ReasoningBlock(reasoning="hm", encrypted="x", id="rs_1"),
    ],
)
def test_what_is_not_taken(block):
    assert not takes(block, False)


def test_only_text_is_taken_inside_a_result():
    assert takes(TextBlock(text="a"), True)
    assert not takes(ImageBlock(url="https://example.org/a.png"), True)


def test_arguments_that_are_no_json_are_kept_and_sent_as_json():
    call = {"id": "c", "type": "function", "function": {"name": "a", "arguments": '{"x": '}}
    message = from_completion(completed({"tool_calls": [call]}, "tool_calls"), "m")
    assert message.blocks[0].args == {}
    (sent,) = to_chat([message])
    assert json.loads(sent["tool_calls"][0]["function"]["arguments"]) == {"arguments": '{"x": '}


@pytest.mark.parametrize("text", ["[1]", '{"a": NaN}', '{"a": "\\ud800"}', "null", "{}{}"])
def test_arguments_that_are_no_object(text):
    call = {"id": "c", "type": "function", "function": {"name": "a", "arguments": text}}
    (block,) = from_completion(completed({"tool_calls": [call]}), "m").blocks
    assert (block.args, block.extras) == ({}, {"arguments": text})


def test_finish_reasons():
    call = {"id": "c", "function": {"name": "a", "arguments": ""}}
    assert from_completion(completed({"content": "a"}, None), "m").finish_reason == "stop"
    assert from_completion(completed({"content": "a"}, "length"), "m").finish_reason == "length"
    assert from_completion(completed({"refusal": "no"}), "m").finish_reason == "refusal"
    assert from_completion(completed({"tool_calls": [call]}), "m").finish_reason == "tool_calls"


def test_servers_that_send_calls_whole_and_without_an_index():
    whole = ChunkAssembler()
    calls = [{"id": f"c{n}", "function": {"name": "a", "arguments": "{}"}} for n in range(2)]
    whole.add({"choices": [{"delta": {"tool_calls": calls}, "finish_reason": "tool_calls"}]})
    message = from_completion(whole.completion(), "m")
    assert [block.id for block in message.blocks] == ["c0", "c1"]


def test_results_are_messages_of_their_own():
    results = [ToolResultBlock(tool_call_id="c1", content="one"),
               ToolResultBlock(tool_call_id="c2", content=[TextBlock(text="two")])]  # fmt: skip
    assert to_chat([SessionMessage(role=MessageRole.TOOL, content=results)]) == [
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
    ]


def test_usage_of_servers_that_count_nothing():
    assert from_completion(completed({"content": "a"}) | {"usage": None}, "m").usage is None
