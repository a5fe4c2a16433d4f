from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langswarm_session.blocks import (
    FileBlock,
    ImageBlock,
    OtherBlock,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.formats.openai_items import as_input
from langswarm_session.formats.openai_responses import (
    ItemWriter,
    finish_reason,
    from_items,
    from_output,
    from_response,
    instructions,
    takes,
    takes_back,
    takes_back_readable,
    to_items,
    usage,
)
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.requests.normalize import Target, normalize
from langswarm_session.testing import strategies

TEXTS = st.text("abc é\U0001f469", min_size=1, max_size=8)
ARGUMENTS = st.dictionaries(TEXTS, TEXTS | st.integers() | st.none(), max_size=2)


def assistant(*blocks, **fields):
    return SessionMessage(
        role=MessageRole.ASSISTANT, content=list(blocks), provider="openai", model="m", **fields
    )


@st.composite
def conversations(draw):
    """Conversations as OpenAI gives them: each call answered, each item with an id."""
    messages = []

    def add(role, content):
        messages.append(SessionMessage(id=f"m{len(messages)}", role=role, content=content))

    for turn in range(draw(st.integers(1, 4))):
        add(MessageRole.USER, draw(TEXTS))
        calls = [
            ToolCallBlock(
                id=f"call_{turn}_{n}",
                name=draw(st.sampled_from(["a", "b"])),
                args=draw(ARGUMENTS),
                extras={"item_id": f"fc_{turn}_{n}"},
            )
            for n in range(draw(st.integers(0, 2)))
        ]
        text = TextBlock(id=f"msg_{turn}", text=draw(TEXTS))
        refusal = RefusalBlock(id=f"msg_{turn}r", refusal=draw(TEXTS))
        reasoning = ReasoningBlock(id=f"rs_{turn}", reasoning=draw(TEXTS), encrypted="x")
        thoughts = draw(st.sampled_from([[], [reasoning]]))
        spoken = draw(st.sampled_from([[text], [refusal], [text, refusal]]))
        add(MessageRole.ASSISTANT, [*thoughts, *spoken, *calls])
        if calls:
            results = [ToolResultBlock(tool_call_id=c.id, content=draw(TEXTS)) for c in calls]
            add(MessageRole.TOOL, results)
            add(MessageRole.ASSISTANT, [TextBlock(id=f"msg_{turn}b", text=draw(TEXTS))])
    return messages


@given(conversations())
@settings(max_examples=60)
def test_a_conversation_comes_back_as_it_was(messages):
    back = from_items(to_items(messages, with_ids=True))
    assert [(m.role, m.text, m.blocks) for m in back] == [
        (m.role, m.text, m.blocks) for m in messages
    ]


@given(conversations())
@settings(max_examples=40)
def test_without_ids_what_was_said_and_done_comes_back(messages):
    back = from_items(to_items(messages))

    def gist(message):
        calls = [(b.id, b.name, b.args) for b in message.blocks if isinstance(b, ToolCallBlock)]
        results = [b for b in message.blocks if isinstance(b, ToolResultBlock)]
        return message.role, message.text, calls, results

    assert [gist(m) for m in back] == [gist(m) for m in messages]


@given(strategies.logs(max_size=5), st.booleans())
@settings(max_examples=100)
def test_whatever_a_log_holds_is_json_with_each_call_answered(log, with_ids):
    target = Target(provider="openai", model="m", strict=True, takes=takes)
    messages, _ = normalize(log, target)
    items = json.loads(json.dumps(to_items(messages, with_ids=with_ids), allow_nan=False))
    calls = [item["call_id"] for item in items if item["type"].endswith("_call")]
    answered = [item["call_id"] for item in items if item["type"].endswith("_output")]
    assert sorted(calls) == sorted(answered)
    for item in items:
        if item["type"] == "function_call":
            assert isinstance(json.loads(item["arguments"]), dict)
    from_items(items)


def test_system_messages_are_what_a_developer_says():
    messages = [
        SessionMessage(role=MessageRole.SYSTEM, content="Be brief."),
        SessionMessage(role=MessageRole.USER, content="Hi"),
        SessionMessage(role=MessageRole.SYSTEM, content="Be kind."),
    ]
    assert instructions(messages) == "Be brief.\n\nBe kind."
    assert [(item["role"], item["content"]) for item in to_items(messages)] == [
        ("developer", "Be brief."),
        ("user", "Hi"),
        ("developer", "Be kind."),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
UNKNOWN = st.dictionaries(st.sampled_from(["caller", "namespace", "new_field"]), JSON, max_size=2)


@st.composite
def outputs(draw):
    """Replies as OpenAI gives them, also with fields and types that nobody knows yet."""
    items = []
    for n in range(draw(st.integers(1, 5))):
        part = {"type": "output_text", "text": draw(TEXTS), "annotations": [], "logprobs": []}
        text = {"type": "summary_text", "text": draw(TEXTS)}
        call = {"call_id": f"call_{n}", "name": "a", "status": "completed", "created_by": "x"}
        items.append(
            draw(
                st.sampled_from(
                    [
                        {"type": "message", "role": "assistant", "status": "completed",
                         "content": draw(st.lists(st.just(part), max_size=2))},
                        {"type": "reasoning", "summary": draw(st.lists(st.just(text), max_size=2)),
                         "content": None, "encrypted_content": draw(TEXTS)},
                        {"type": "function_call", "arguments": draw(st.sampled_from(
                            ["{}", '{"a": 1}', '{"b":[1.0]}', "nothing"])), **call},
                        {"type": "custom_tool_call", "input": draw(TEXTS), **call},
                        {"type": "web_search_call", "status": "completed", "action": draw(UNKNOWN)},
                        {"type": "something_new", "of": draw(JSON)},
                    ]
                )
            )
            | {"id": f"item_{n}"}
            | draw(UNKNOWN)
        )  # fmt: skip
    return items


@given(outputs())
@settings(max_examples=200)
def test_a_reply_goes_back_exactly_as_it_came(output):
    reply = from_response({"id": "resp_1", "output": json.loads(json.dumps(output))}, "m")
    writer = ItemWriter(verbatim=lambda message: True)
    assert writer.write(reply) == [as_input(item) for item in output]


def test_a_reply_that_was_changed_since_goes_back_as_it_is_now():
    item = {"type": "message", "role": "assistant", "id": "msg_1", "new_field": 1}
    part = {"type": "output_text", "text": "My key is 123.", "annotations": []}
    reply = from_response({"id": "resp_1", "output": [item | {"content": [part]}]}, "m")
    assert reply.native is not None
    (block,) = reply.blocks
    changed = reply.replaced(content=[block.model_copy(update={"text": "My key is ***."})])
    (sent,) = ItemWriter(verbatim=lambda message: True).write(changed)
    assert sent["content"][0]["text"] == "My key is ***."
    assert "new_field" not in sent


@pytest.mark.parametrize("kept", [None, 1, {"output": 1}, {"output": [1]}, {"output": [{}]}, {}])
def test_what_was_kept_of_a_reply_may_be_anything(kept):
    reply = assistant(TextBlock(id="msg_1", text="So."), native={"openai_responses": kept})
    (sent,) = ItemWriter(verbatim=lambda message: True).write(reply)
    assert (sent["id"], sent["content"][0]["text"]) == ("msg_1", "So.")


def test_what_only_servers_say_is_not_sent_back():
    call = {"type": "shell_call", "id": "sh_1", "call_id": "c", "action": {"commands": ["ls"]}}
    (message,) = from_items([call | {"status": "completed", "created_by": "x", "caller": None}])
    assert to_items([message]) == [call]
    picture = {"type": "image_generation_call", "id": "ig_1", "status": "failed", "result": None}
    (message,) = from_items([picture])
    assert to_items([message]) == [picture]


@pytest.mark.parametrize(
    ("item", "good"),
    [
        ({"type": "function_call", "name": "a", "arguments": "{}", "id": "fc_1"}, True),
        ({"type": "function_call", "name": "a", "arguments": "{}", "id": "call_1"}, False),
        ({"type": "function_call", "name": "a", "arguments": "{}", "id": ""}, False),
        ({"type": "function_call", "name": "a", "arguments": "{}", "id": "fc_" + "x" * 99}, False),
        ({"type": "custom_tool_call", "name": "a", "input": "", "id": "fc_1"}, False),
        ({"type": "custom_tool_call", "name": "a", "input": "", "id": "ctc_1"}, True),
    ],
)
def test_ids_of_other_servers_stay_here(item, good):
    """https://github.com/can1357/oh-my-pi/issues/977"""
    reply = from_response({"id": "resp_1", "output": [item | {"call_id": "c"}]}, "m")
    (sent,) = ItemWriter(verbatim=lambda message: True).write(reply)
    assert sent == {k: v for k, v in item.items() if k != "id" or good} | {"call_id": "c"}
    assert reply.native is None


def test_reasoning_that_can_be_read():
    item = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Hm."}],
    }
    thought = from_output([item])[0]
    assert thought.reasoning == "Hm."
    assert takes_back_readable(thought)
    assert not takes_back(thought)
    assert not takes(thought, False)
    assert to_items([assistant(thought, TextBlock(text="So."))])[0] == item


def test_reasoning_goes_only_with_what_came_after_it():
    thought = ReasoningBlock(id="rs_1", encrypted="x", reasoning="Hm.")
    assert to_items([assistant(thought)]) == []
    assert [item["type"] for item in to_items([assistant(thought, TextBlock(text="So."))])] == [
        "reasoning",
        "message",
    ]


def test_a_summary_in_parts_goes_back_in_parts():
    item = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": text} for text in ("One.", "Two.")],
        "encrypted_content": "x",
    }
    (message,) = from_items([item, {"type": "message", "role": "assistant", "content": "So."}])
    assert message.blocks[0].reasoning == "One.\n\nTwo."
    assert to_items([message])[0] == item


def test_a_custom_call_may_be_known_from_before():
    call = ToolCallBlock(
        id="c", name="sql", args={"input": "x"}, extras={"type": "custom_tool_call"}
    )
    result = SessionMessage(role=MessageRole.TOOL, content=[ToolResultBlock(tool_call_id="c")])
    assert to_items([result])[0]["type"] == "function_call_output"
    assert to_items([result], known=[assistant(call)])[0]["type"] == "custom_tool_call_output"


def test_items_of_hosted_tools_are_kept_as_they_came():
    item = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"x": [1]}}
    (message,) = from_items([item])
    assert message.blocks == [OtherBlock(id="ws_1", value=item)]
    assert to_items([message]) == [item]


def test_annotations_are_kept():
    note = {"type": "url_citation", "url": "https://example.org", "title": "E"}
    part = {"type": "output_text", "text": "See.", "annotations": [note]}
    item = {"type": "message", "role": "assistant", "id": "msg_1", "content": [part]}
    (message,) = from_items([item])
    assert message.blocks[0].annotations == [note]
    assert to_items([message], with_ids=True) == [item | {"status": "completed"}]


def test_parts_of_what_a_user_said():
    item = {
        "type": "message",
        "role": "user",
        "content": [
            {"type": "input_text", "text": "Look."},
            {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "auto"},
            {"type": "input_image", "file_id": "file-1", "detail": "auto"},
            {"type": "input_file", "file_id": "file-2"},
            {"type": "input_file", "file_url": "https://example.org/a.pdf"},
            {"type": "input_file", "filename": "a", "file_data": "data:text/plain;base64,YQ=="},
        ],
    }
    (message,) = from_items([item])
    assert all(takes(block, False) for block in message.blocks)
    assert to_items([message]) == [item]


def test_what_is_taken():
    assert takes(ImageBlock(base64="YQ==", mime_type="image/png"), False)
    assert not takes(ImageBlock(base64="YQ==", mime_type="image/tiff"), False)
    assert not takes(ImageBlock(base64="not base64", mime_type="image/png"), False)
    assert not takes(ImageBlock(url="file:///etc/passwd"), False)
    assert not takes(ImageBlock(file_id="of another provider"), False)
    assert takes(FileBlock(base64="YQ=="), False)
    assert not takes(FileBlock(text="plain"), False)
    assert not takes(ReasoningBlock(reasoning="unproven"), False)
    assert takes(OtherBlock(value={"type": "web_search_call", "id": "ws"}), False)
    assert not takes(OtherBlock(value={"type": "web_search_call", "id": "ws"}), True)
    assert not takes(OtherBlock(value={"anything": 1}), False)
    assert not takes(RefusalBlock(refusal="no"), True)


def test_finish_reasons():
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    assert finish_reason(cut, []) == "length"
    assert finish_reason({"status": "incomplete"}, []) == "incomplete"
    assert finish_reason({}, [ToolCallBlock(name="a")]) == "tool_calls"
    assert finish_reason({}, [RefusalBlock(refusal="no")]) == "refusal"
    assert finish_reason({}, [TextBlock(text="a")]) == "stop"


def test_usage_of_servers_that_count_little_or_nothing():
    assert usage(None) is None
    written = {"cached_tokens": 1, "cache_write_tokens": 2}
    assert usage({"input_tokens_details": written}).details == {"cache_write_tokens": 2}
    counted = usage({"input_tokens": 3, "output_tokens": None, "input_tokens_details": None})
    assert (counted.input_tokens, counted.output_tokens, counted.cached_tokens) == (3, 0, 0)


def test_an_empty_response():
    reply = from_response({"id": "resp_1", "output": []}, "m")
    assert (reply.content, reply.finish_reason, reply.model) == ([], "stop", "m")
