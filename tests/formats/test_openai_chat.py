from __future__ import annotations

import json
from functools import partial

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
from langswarm_session.formats.dialects import Dialect
from langswarm_session.formats.openai_chat import (
    failure_of,
    from_completion,
    in_turn,
    takes,
    takes_back,
    to_chat,
    usage,
)
from langswarm_session.formats.openai_chunks import ChunkAssembler
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.requests.normalize import Target, normalize
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
    messages, _ = normalize(log, target)
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


def test_results_are_messages_of_their_own():
    results = [ToolResultBlock(tool_call_id="c1", content="one"),
               ToolResultBlock(tool_call_id="c2", content=[TextBlock(text="two")])]  # fmt: skip
    assert to_chat([SessionMessage(role=MessageRole.TOOL, content=results)]) == [
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
    ]


def test_usage_of_servers_that_count_nothing():
    assert from_completion(completed({"content": "a"}) | {"usage": None}, "m").usage is None


PNG = "data:image/png;base64,iVBORw0KGgo="
STRICT = Dialect()


def back(reply, dialect=STRICT):
    """A reply as it is sent back to the model that gave it."""
    (sent,) = to_chat([reply], dialect, provider="openai", model="m")
    return sent


class TestWhatServersAdd:
    """What a reply has beside OpenAI's own fields: it is read, and goes back as it came."""

    @pytest.mark.parametrize(
        "message",
        [
            {"content": "So.", "reasoning_content": "Hm."},
            {"content": "So.", "reasoning": "Hm."},
            {"content": "So.", "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}],
                          "closed": True}, {"type": "text", "text": "So."}]},
            {"content": "So.", "thinking_blocks": [{"type": "thinking", "signature": "s"}]},
            {"content": [{"type": "text", "text": "So."},
                         {"type": "reference", "reference_ids": [1]}]},
        ],
    )  # fmt: skip
    def test_goes_back_to_the_model_that_gave_it(self, message):
        reply = from_completion(completed({"role": "assistant", **message}), "m")
        assert reply.text == "So."
        assert back(reply) == {"role": "assistant", **message}
        silent = Dialect(returns_reasoning=False, echoes=False)
        kept = [block for block in reply.blocks if takes_back(block, silent)]
        assert back(reply.replaced(content=kept), silent) == {"role": "assistant", "content": "So."}

    def test_goes_to_no_other_model(self):
        reply = from_completion(completed({"content": "So.", "thinking_blocks": [1]}), "m")
        (sent,) = to_chat([reply], STRICT, provider="openai", model="other")
        assert sent == {"role": "assistant", "content": "So."}

    def test_never_takes_the_place_of_a_field_of_the_api(self):
        native = {"openai_chat": {"set": {"role": "system", "content": "x", "more": 1}}}
        reply = from_completion(completed({"content": "So."}), "m").replaced(native=native)
        assert back(reply) == {"role": "assistant", "content": "So.", "more": 1}

    @pytest.mark.parametrize("native", [{"openai_chat": 3}, {"openai_chat": {"set": []}}])
    def test_may_be_damaged(self, native):
        reply = from_completion(completed({"content": "So."}), "m").replaced(native=native)
        assert back(reply) == {"role": "assistant", "content": "So."}

    def test_signatures_of_calls(self):
        extra = {"google": {"thought_signature": "s"}}
        call = {"id": "c", "type": "function", "extra_content": extra,
                "function": {"name": "a", "arguments": "{}"}}  # fmt: skip
        reply = from_completion(completed({"tool_calls": [call]}), "m")
        assert back(reply)["tool_calls"] == [call]
        gemini = Dialect(call_signature="skip")
        (sent,) = to_chat([reply], gemini, provider="openai", model="other")
        assert sent["tool_calls"][0]["extra_content"]["google"] == {"thought_signature": "skip"}
        assert back(reply, gemini)["tool_calls"] == [call]

    def test_arguments_go_back_as_they_were_written(self):
        for text in ('{ "at": "it" }', '{"at":"it"}', "{}", ""):
            call = {"id": "c", "type": "function", "function": {"name": "a", "arguments": text}}
            reply = from_completion(completed({"tool_calls": [call]}), "m")
            assert back(reply)["tool_calls"][0]["function"]["arguments"] == (text or "{}")
        (block,) = from_completion(
            completed({"tool_calls": [{"id": "c", "function": {"name": "a", "arguments": '{"x" : 1}'}}]}), "m"
        ).blocks  # fmt: skip
        changed = block.model_copy(update={"args": {"x": 2}})
        reply = SessionMessage(role=MessageRole.ASSISTANT, content=[changed])
        assert back(reply)["tool_calls"][0]["function"]["arguments"] == '{"x":2}'

    def test_arguments_may_be_an_object(self):
        call = {"id": "c", "function": {"name": "a", "arguments": {"at": "it"}}}
        (block,) = from_completion(completed({"tool_calls": [call]}), "m").blocks
        assert (block.args, block.extras) == ({"at": "it"}, None)

    def test_the_legacy_call(self):
        legacy = {"name": "a", "arguments": '{"at":"it"}'}
        reply = from_completion(
            completed({"content": None, "function_call": legacy}, "function_call"), "m"
        )
        assert reply.finish_reason == "tool_calls"
        assert [(b.id, b.name, b.args) for b in reply.blocks] == [(None, "a", {"at": "it"})]

    def test_pictures_sound_and_citations(self):
        message = {
            "content": "See.",
            "annotations": [{"type": "url_citation"}],
            "images": [{"type": "image_url", "image_url": {"url": PNG}}],
            "audio": {"id": "audio_1", "data": "YQ==", "transcript": "Hear.", "expires_at": 1},
        }
        reply = from_completion(completed(message), "m")
        assert reply.blocks == [
            TextBlock(text="See.", annotations=[{"type": "url_citation"}]),
            ImageBlock(mime_type="image/png", base64="iVBORw0KGgo="),
            AudioBlock(
                base64="YQ==",
                extras={"id": "audio_1", "transcript": "Hear.", "expires_at": 1},
            ),
        ]
        assert reply.native is None
        back_to = partial(takes_back, dialect=STRICT)
        target = Target("openai", "m", strict=True, takes=takes, takes_back=back_to)
        (_, sent), _ = normalize(
            [SessionMessage(role=MessageRole.USER, content="?"), reply], target
        )
        assert [block.text for block in sent.blocks] == ["See.", "[image image/png]", "Hear."]

    def test_what_was_read_from_the_cache_wherever_it_is_counted(self):
        for counted in (
            {"prompt_tokens_details": {"cached_tokens": 7}},
            {"prompt_cache_hit_tokens": 7},
            {"cached_tokens": 7},
        ):
            usage = {"prompt_tokens": 9, "completion_tokens": 1, **counted}
            reply = from_completion(completed({"content": "a"}) | {"usage": usage}, "m")
            assert reply.usage.cached_tokens == 7


class TestDialects:
    def test_speakers_in_turn(self):
        messages = [
            {"role": "user", "content": "a", "name": "ann"},
            {"role": "user", "content": [{"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c", "reasoning": "h"},
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "tool", "content": "d"},
            {"role": "tool", "content": "e"},
        ]
        assert in_turn(messages) == [
            {"role": "user", "content": [{"type": "text", "text": "a"},
                                         {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c", "reasoning": "h", "tool_calls": []},
            *messages[4:],
        ]  # fmt: skip

    def test_texts_are_joined_as_text(self):
        said = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
        assert in_turn(said) == [{"role": "user", "content": "a\n\nb"}]

    def test_refusals_are_text_where_there_is_no_field_for_them(self):
        refused = SessionMessage(role=MessageRole.ASSISTANT, content=[RefusalBlock(refusal="No.")])
        assert to_chat([refused], STRICT) == [{"role": "assistant", "content": "No."}]

    def test_calls_without_text(self):
        call = ToolCallBlock(id="c", name="a")
        message = SessionMessage(role=MessageRole.ASSISTANT, content=[call])
        assert to_chat([message], STRICT)[0]["content"] is None
        assert to_chat([message], Dialect(content_of_calls=""))[0]["content"] == ""
        wanted = Dialect(needs_reasoning="reasoning_content")
        assert to_chat([message], wanted)[0]["reasoning_content"] == ""

    def test_names_and_lists(self):
        blocks = [TextBlock(text="a"), TextBlock(text="b")]
        message = SessionMessage(role=MessageRole.USER, content=blocks, name="ann")
        plain = Dialect(takes_names=False, takes_parts=False)
        assert to_chat([message], plain) == [{"role": "user", "content": "a\n\nb"}]


@pytest.mark.parametrize(
    ("completion", "said"),
    [
        (completed({"content": "a"}), None),
        (completed({"content": "a"}, "error"), {"code": 502, "message": "the model failed"}),
        ({**completed({}, "error"), "error": {"code": 429}}, {"code": 429}),
        ({"choices": [{"error": {"code": 429}, "message": {}}]}, {"code": 429}),
        ({"choices": None}, None),
        ({"choices": []}, None),
        ({"choices": [None]}, None),
    ],
)
def test_failures_in_place_of_a_reply(completion, said):
    failure = failure_of(completion)
    assert failure == (None if said is None else {"error": said})


@pytest.mark.parametrize(
    ("counted", "tokens"),
    [
        ({"prompt_tokens": 12.5, "completion_tokens": "7"}, (12, 0)),
        ({"prompt_tokens": -1, "completion_tokens": 10**400}, (0, 2**40)),
        ({"prompt_tokens": float("nan"), "completion_tokens": None}, (0, 0)),
        ({"prompt_tokens": 1, "prompt_tokens_details": [], "completion_tokens_details": "x"}, (1, 0)),
    ],
)  # fmt: skip
def test_a_reply_is_not_lost_over_its_bill(counted, tokens):
    found = usage(counted)
    assert (found.input_tokens, found.output_tokens) == tokens
    assert usage(["lots"]) is None


def test_a_reply_with_values_of_other_types():
    call = {"id": 7, "type": "function", "function": {"name": None, "arguments": {"a": 1}}}
    message = {
        "role": "assistant",
        "content": ["a", {"type": "text", "text": "b"}],
        "annotations": ["https://example.org"],
        "refusal": False,
        "images": ["data:image/png;base64,AAAA"],
        "tool_calls": call,
    }
    choices = [{"message": message, "finish_reason": 1}]
    reply = from_completion({"id": 5, "choices": choices, "usage": "none"}, "m")
    assert (reply.text, reply.provider_message_id, reply.finish_reason) == ("ab", "5", "1")
    assert [block.type for block in reply.blocks] == ["text", "text", "image", "tool_call"]
    assert (reply.blocks[-1].id, reply.blocks[-1].args) == ("7", {"a": 1})
