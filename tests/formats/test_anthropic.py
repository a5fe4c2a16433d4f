"""Anthropic's messages and blocks: pure translations."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from anthropic.types.beta import BetaMessageParam
from hypothesis import given, settings
from hypothesis import strategies as st
from provider_server.anthropic_rules import FILES_BETA, Context, check_request
from provider_server.anthropic_shape import shape_error

from langswarm_session.blocks import (
    AudioBlock,
    FileBlock,
    ImageBlock,
    OtherBlock,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    VideoBlock,
)
from langswarm_session.formats.anthropic import (
    Writing,
    container_of,
    dropped_thinking,
    from_block,
    from_message,
    joined,
    needs_files_api,
    system,
    takes,
    takes_back,
    to_messages,
    usage,
)
from langswarm_session.models import SessionMessage, TokenUsage
from langswarm_session.requests.normalize import Target, normalize
from langswarm_session.requests.normalize.target import SystemPlacement
from langswarm_session.testing.strategies import logs, texts

MODEL = "claude-test-1"
TARGET = Target(
    "anthropic",
    MODEL,
    strict=True,
    takes=takes,
    alternates=True,
    needs_user=True,
    system=SystemPlacement.AFTER_USER,
)
TOOL = {"name": "tool", "input_schema": {"type": "object"}}

said = texts().filter(str.strip)
ids = st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=12)


def user(*blocks: Any) -> SessionMessage:
    return SessionMessage(role="user", content=list(blocks))


def reply(*blocks: Any) -> SessionMessage:
    return SessionMessage(role="assistant", content=list(blocks), provider="anthropic", model=MODEL)


API_BLOCKS = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, said),
    st.builds(
        lambda text, signature: {"type": "thinking", "thinking": text, "signature": signature},
        texts(),
        said,
    ),
    st.builds(lambda data: {"type": "redacted_thinking", "data": data}, said),
    st.builds(
        lambda number, name, args: {"type": "tool_use", "id": number, "name": name, "input": args},
        ids,
        ids,
        st.dictionaries(texts(8), st.integers() | texts(8), max_size=3),
    ),
)


SEARCH_RESULT = {
    "type": "search_result",
    "source": "https://e.org",
    "title": "t",
    "content": [{"type": "text", "text": "found"}],
}


class TestReplies:
    @given(st.lists(API_BLOCKS, min_size=1, max_size=5))
    def test_go_back_as_they_came(self, content):
        message = from_message(
            {"id": "msg_1", "content": content, "stop_reason": "end_turn"}, MODEL
        )
        (sent,) = to_messages([message])
        assert sent == {"role": "assistant", "content": content}

    @given(st.lists(API_BLOCKS, max_size=4), st.lists(API_BLOCKS, max_size=4))
    def test_with_a_pause_are_one(self, one, two):
        usages = {"input_tokens": 3, "output_tokens": 2, "cache_creation_input_tokens": 1}
        parts = [
            from_message({"content": content, "stop_reason": reason, "usage": usages}, MODEL)
            for content, reason in ((one, "pause_turn"), (two, "end_turn"))
        ]
        whole = joined(parts)
        assert whole.blocks == [*parts[0].blocks, *parts[1].blocks]
        assert whole.finish_reason == "stop"
        assert (whole.usage.input_tokens, whole.usage.output_tokens) == (8, 4)
        assert whole.usage.details == {"cache_creation_input_tokens": 2}
        assert joined(parts[:1]) is parts[0]

    def test_that_nobody_counted_have_no_usage(self):
        parts = [from_message({"content": []}, MODEL)] * 2
        assert joined(parts).usage is None
        assert usage(None) is usage({}) is None

    @pytest.mark.parametrize(
        ("reason", "finish"),
        [
            ("end_turn", "stop"),
            ("stop_sequence", "stop"),
            ("tool_use", "tool_calls"),
            ("max_tokens", "length"),
            ("model_context_window_exceeded", "length"),
            ("pause_turn", "pause_turn"),
            ("refusal", "refusal"),
            (None, "stop"),
        ],
    )
    def test_say_why_they_ended(self, reason, finish):
        message = from_message({"content": [], "stop_reason": reason}, MODEL)
        assert message.finish_reason == finish
        assert bool(message.blocks) is (reason == "refusal")

    def test_say_why_they_refused(self):
        told = {"content": [], "stop_reason": "refusal", "stop_details": {"explanation": "no"}}
        assert from_message(told, MODEL).content == [RefusalBlock(refusal="no")]

    def test_of_servers_that_leave_things_out(self):
        assert from_message({}, MODEL).content == []
        assert from_block({"type": "text", "text": None}) == TextBlock(text="")
        assert from_block({"type": "tool_use", "input": None}) == ToolCallBlock(name="")
        assert from_block({"type": "new_in_2027"}) == OtherBlock(value={"type": "new_in_2027"})

    def test_usage_counts_what_was_cached_as_input(self):
        counted = usage(
            {
                "input_tokens": 5,
                "output_tokens": 7,
                "cache_read_input_tokens": 20,
                "cache_creation_input_tokens": 3,
                "output_tokens_details": {"thinking_tokens": 4},
                "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0},
            }
        )
        assert counted == TokenUsage(
            input_tokens=28,
            output_tokens=7,
            cached_tokens=20,
            reasoning_tokens=4,
            details={
                "cache_creation_input_tokens": 3,
                "server_tool_use": {"web_search_requests": 2},
            },
        )


CALLER = {"type": "code_execution_20250825", "tool_id": "srv_1"}
HOSTED = {"type": "server_tool_use", "id": "srv_1", "name": "code_execution", "input": {}}
FOUND = {"type": "code_execution_tool_result", "tool_use_id": "srv_1", "content": {}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "rows", "input": {}, "caller": CALLER}
DONE = SessionMessage(role="tool", content=[ToolResultBlock(tool_call_id="toolu_1", content="1")])


def came(*content: Any, reason: str = "tool_use", **rest: Any) -> SessionMessage:
    return from_message({"content": list(content), "stop_reason": reason, **rest}, MODEL)


class TestVerbatim:
    @pytest.mark.parametrize(
        "block",
        [
            CALL,
            {"type": "thinking", "thinking": "", "signature": "s"},
            {"type": "thinking", "thinking": "unsigned"},
            {"type": "thinking", "thinking": "unsigned", "signature": ""},
            {"type": "redacted_thinking", "data": "d", "more": 1},
            {"type": "text", "text": "", "new_field": {"a": [1]}},
            {"type": "mcp_tool_listing", "mcp_server_name": "s", "tools": []},
        ],
    )
    def test_fields_and_types_that_are_not_known_go_back(self, block):
        message = came(HOSTED, FOUND, block)
        (sent,) = to_messages([message])
        assert sent["content"][2] == block
        assert all(map(takes_back(unsigned=True, empty_texts=True), message.blocks))

    def test_unsigned_thinking_and_empty_texts_do_not_go_to_those_who_refuse_them(self):
        refuses = takes_back(unsigned=False, empty_texts=False)
        assert not refuses(ReasoningBlock(reasoning="unsigned"))
        assert not refuses(TextBlock(text=""))
        assert not refuses(OtherBlock(value={"type": "agent.tool_use"}))
        assert not refuses(OtherBlock(value={"type": "tool_use"}))
        assert not refuses(RefusalBlock(refusal="no"))

    def test_a_call_that_waits_for_a_result_of_the_callers_goes_back(self):
        paused = came(HOSTED, CALL, container={"id": "container_1", "expires_at": "x"})
        (said, _) = to_messages([paused, DONE])
        assert said["content"] == [HOSTED, CALL]
        assert container_of([paused, DONE]) == "container_1"
        after = came(FOUND, {"type": "text", "text": "3"}, reason="end_turn")
        whole = [paused, DONE, after, user(TextBlock(text="x"))]
        assert to_messages(whole)[0]["content"] == [HOSTED, CALL]
        assert to_messages(whole)[2]["content"][0] == FOUND
        assert container_of(whole) is None

    def test_a_call_that_never_got_its_result_does_not_nor_does_its_name_as_a_caller(self):
        paused, reports = came(HOSTED, CALL), []
        sent = to_messages([paused, DONE, user(TextBlock(text="never mind"))], reports.append)
        assert sent[0]["content"] == [{k: v for k, v in CALL.items() if k != "caller"}]
        assert [report.kind for report in reports] == ["block_dropped"]

    def test_citations_go_back_whole_where_what_they_count_is_still_there(self):
        cited = {"type": "char_location", "document_index": 0, "file_id": None, "cited_text": "c"}
        message = came({"type": "text", "text": "so", "citations": [cited]})
        (sent,) = to_messages([message], writing=Writing(cites=True))
        assert sent["content"][0]["citations"] == [
            {k: v for k, v in cited.items() if v is not None}
        ]
        (sent,) = to_messages([message])
        assert "citations" not in sent["content"][0]

    def test_reasoning_that_is_not_allowed_is_left_out_and_said_so(self):
        thought = {"type": "thinking", "thinking": "a", "signature": "s"}
        message, reports = came(thought, {"type": "text", "text": "b"}), []
        (sent,) = to_messages([message], reports.append, Writing(allows=lambda _: False))
        assert [block["type"] for block in sent["content"]] == ["text"]
        assert [report.kind for report in reports] == ["reasoning_dropped"]

    def test_a_reply_without_thinking_gets_an_empty_one_where_each_must_have_some(self):
        thought = {"type": "thinking", "thinking": "a"}
        log = [came(thought, CALL), DONE, came({"type": "text", "text": "b"})]
        sent = to_messages(log, writing=Writing(thinks=True))
        assert [message["content"][0] for message in sent[::2]] == [
            *(thought, {"type": "thinking", "thinking": ""})
        ]

    def test_what_the_api_did_to_the_request_is_kept(self):
        dropped = {"type": "thinking_dropped", "reason": "prefix_binding_mismatch", "path": "p"}
        other = {"type": "thinking_dropped", "reason": "model_binding_mismatch", "path": "p"}
        message = came(CALL, input_transformations=[dropped])
        assert message.metadata == {"langswarm": {"input_transformations": [dropped]}}
        assert dropped_thinking(message)
        assert not dropped_thinking(came(CALL, input_transformations=[other]))
        assert not dropped_thinking(came(CALL))

    def test_a_compaction_is_counted(self):
        spent = {"type": "compaction", "input_tokens": 144, "output_tokens": 276}
        counted = usage({"input_tokens": 0, "output_tokens": 0, "iterations": [spent]})
        assert (counted.input_tokens, counted.output_tokens) == (144, 276)


class TestRequests:
    @settings(max_examples=100)
    @given(logs(), st.booleans())
    def test_of_any_log_are_as_the_api_wants_them(self, log, own):
        """The shape is the SDK's, the rules are the stand-in server's."""
        # Nobody can make up the signature of a thought.
        log = [message.replaced(provider="anthropic") if own else message for message in log]
        log = [message.replaced(model="another") for message in log]
        normalized, _ = normalize(log, TARGET)
        messages = to_messages(normalized)
        assert shape_error(messages, list[BetaMessageParam]) is None
        check_request(Context(MODEL, messages, tools=[TOOL], betas={FILES_BETA}))

    def test_the_first_system_messages_travel_apart_and_later_ones_in_place(self):
        log = [
            SessionMessage(role="system", content="Be kind."),
            SessionMessage(role="system", content="Be brief."),
            user(TextBlock(text="one")),
            SessionMessage(role="system", content="Be wise."),
        ]
        assert system(log) == "Be kind.\n\nBe brief."
        sent = to_messages(log)
        assert [message["role"] for message in sent] == ["user", "system"]
        assert sent[1] == {"role": "system", "content": [{"type": "text", "text": "Be wise."}]}

    @pytest.mark.parametrize("clears", [True, False])
    def test_what_is_said_for_one_turn_is_said_so_where_that_is_taken(self, clears):
        notes = {"langswarm": {"turn_context": True}}
        log = [
            user(TextBlock(text="one")),
            SessionMessage(role="system", content="It is noon.", metadata=notes),
        ]
        said = to_messages(log, writing=Writing(clears=clears))[1]
        assert said.get("clear_at") == ("next_user_message" if clears else None)

    def test_messages_of_one_speaker_are_one(self):
        log = [user(TextBlock(text="a")), user(TextBlock(text="b")), reply(TextBlock(text="c"))]
        assert [len(message["content"]) for message in to_messages(log)] == [2, 1]

    def test_results(self):
        results = [
            ToolResultBlock(tool_call_id="1", content="so"),
            ToolResultBlock(tool_call_id="2", content=[TextBlock(text="x")], is_error=True),
        ]
        (message,) = to_messages([SessionMessage(role="tool", content=results)])
        assert message["content"] == [
            {"type": "tool_result", "tool_use_id": "1", "content": "so"},
            {
                "type": "tool_result",
                "tool_use_id": "2",
                "content": [{"type": "text", "text": "x"}],
                "is_error": True,
            },
        ]

    @pytest.mark.parametrize("kind", ["server_tool_use", "mcp_tool_use"])
    def test_calls_that_anthropic_broke_off_are_left_out(self, kind):
        call = OtherBlock(value={"type": kind, "id": "s1", "name": "web_search", "input": {}})
        found = OtherBlock(value={"type": "web_search_tool_result", "tool_use_id": "s1"})
        text = TextBlock(text="x")
        reports: list[Any] = []
        assert len(to_messages([reply(call, found, text)], reports.append)[0]["content"]) == 3
        assert reports == []
        for half in (call, found):
            (message,) = to_messages([reply(half, text)], reports.append)
            assert [block["type"] for block in message["content"]] == ["text"]
        assert [report.kind for report in reports] == ["block_dropped"] * 2
        assert to_messages([reply(call)]) == []

    def test_only_the_webs_citations_go_back(self):
        web = {"type": "web_search_result_location", "encrypted_index": "i"}
        other = {"type": "char_location", "document_index": 3}
        of_others = {"type": "url_citation", "url": "x"}
        texts = [
            TextBlock(text="x", annotations=[web, other]),
            TextBlock(text="y", annotations=[of_others]),
        ]
        (message,) = to_messages([reply(*texts)])
        assert [block.get("citations") for block in message["content"]] == [[web], None]


DATA = base64.b64encode(b"data").decode()


class TestMedia:
    @pytest.mark.parametrize(
        ("block", "source"),
        [
            (
                ImageBlock(base64=DATA, mime_type="image/gif"),
                {"type": "base64", "media_type": "image/gif", "data": DATA},
            ),
            (
                ImageBlock(base64=DATA, mime_type="image/jpg"),
                {"type": "base64", "media_type": "image/jpeg", "data": DATA},
            ),
            (ImageBlock(url="https://a.b/c"), {"type": "url", "url": "https://a.b/c"}),
            (ImageBlock(file_id="file_1"), {"type": "file", "file_id": "file_1"}),
            (FileBlock(file_id="file_1"), {"type": "file", "file_id": "file_1"}),
            (
                FileBlock(base64=DATA),
                {"type": "base64", "media_type": "application/pdf", "data": DATA},
            ),
            (
                FileBlock(text="words"),
                {"type": "text", "media_type": "text/plain", "data": "words"},
            ),
            (
                FileBlock(base64=DATA, mime_type="text/markdown"),
                {"type": "text", "media_type": "text/plain", "data": "data"},
            ),
        ],
    )
    def test_that_can_be_sent(self, block, source):
        assert takes(block, False)
        assert takes(block, True)
        (message,) = to_messages([user(block)])
        assert message["content"][0]["source"] == source
        assert shape_error(message, BetaMessageParam) is None

    @pytest.mark.parametrize(
        "block",
        [
            ImageBlock(),
            ImageBlock(base64="no base64"),
            ImageBlock(base64=DATA, mime_type="image/tiff"),
            ImageBlock(url="ftp://a.b/c"),
            ImageBlock(file_id="file-of-openai"),
            FileBlock(text=" "),
            FileBlock(base64=DATA, mime_type="application/zip"),
            FileBlock(base64=base64.b64encode(b"\xff\xfe").decode(), mime_type="text/plain"),
            FileBlock(base64=base64.b64encode(b" ").decode(), mime_type="text/plain"),
            FileBlock(base64="?", mime_type="text/plain"),
            AudioBlock(base64=DATA),
            VideoBlock(url="https://a.b/c"),
            RefusalBlock(refusal="no"),
            TextBlock(text=" \n"),
            ReasoningBlock(reasoning="unsigned"),
            OtherBlock(value={}),
            OtherBlock(value={"type": "image_url"}),
            OtherBlock(value={"type": "agent.tool_use"}),
            OtherBlock(value={"type": "tool_use"}),
        ],
    )
    def test_or_not(self, block):
        assert not takes(block, False)

    @pytest.mark.parametrize(
        ("block", "in_result"),
        [
            (ReasoningBlock(signature="s"), False),
            (ReasoningBlock(encrypted="e"), False),
            (ToolCallBlock(name="x"), False),
            (OtherBlock(value={"type": "server_tool_use", "id": "srv_1"}), False),
            (OtherBlock(value=SEARCH_RESULT), True),
        ],
    )
    def test_where(self, block, in_result):
        assert takes(block, False)
        assert takes(block, True) is in_result

    def test_that_need_the_files_api(self):
        named = ImageBlock(file_id="file_1")
        in_result = ToolResultBlock(tool_call_id="1", content=[named])
        assert needs_files_api([user(named)])
        assert needs_files_api([user(in_result)])
        document = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
        assert needs_files_api([user(OtherBlock(value=document))])
        upload = {"type": "container_upload", "file_id": "file_1"}
        assert needs_files_api([user(OtherBlock(value=upload))])
        text = {"type": "document", "source": {"type": "text", "data": "x"}}
        assert not needs_files_api([user(OtherBlock(value=text))])
        assert not needs_files_api([user(ToolResultBlock(tool_call_id="1", content="x"))])
        assert not needs_files_api([user(TextBlock(text="x"), ImageBlock(base64=DATA))])

    def test_a_title_has_a_limit(self):
        (message,) = to_messages([user(FileBlock(text="x", filename="n" * 300))])
        assert message["content"][0]["title"] == "n" * 255


@pytest.mark.parametrize(
    ("given", "args", "extras"),
    [('{"at": 1}', {"at": 1}, None), ("", {}, None), ("oops", {}, {"arguments": "oops"})],
)
def test_a_call_whose_arguments_are_text(given, args, extras):
    """A gateway may pass on what Chat Completions has; nothing of it is lost."""
    call = from_block({"type": "tool_use", "id": "t", "name": "look", "input": given})
    assert (call.args, call.extras) == (args, extras)


def test_a_reply_is_not_lost_over_its_bill():
    message = {"id": 5, "content": [], "usage": {"input_tokens": 1.5, "output_tokens": "x"}}
    reply = from_message(message, "m")
    assert (reply.provider_message_id, reply.usage.input_tokens) == ("5", 1)
    assert from_message({"content": [], "usage": [1]}, "m").usage is None


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_markers_of_other_requests_are_not_sent(role):
    """ "A maximum of 4 blocks with cache_control may be provided": the record may have more."""
    marker = {"cache_control": {"type": "ephemeral"}}
    blocks = [
        TextBlock(text="a", extras={"anthropic": {**marker, "role": "system"}}),
        OtherBlock(value={"type": "document", "source": {"type": "text"}, **marker}),
    ]
    (sent,) = to_messages([SessionMessage(role=role, content=blocks)])
    assert not any("cache_control" in part for part in sent["content"])
    assert ("role" in sent["content"][0]) is (role == "assistant")
    assert blocks[1].value["cache_control"]
