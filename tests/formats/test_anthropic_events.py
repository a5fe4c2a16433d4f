"""The events of managed agents: pure translations."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic.types.beta.sessions.event_send_params import EventSendParams
from hypothesis import given, settings
from hypothesis import strategies as st
from provider_server.anthropic_shape import shape_error

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
from langswarm_session.formats.anthropic_events import (
    SO_FAR,
    Run,
    from_events,
    in_words,
    takes,
    to_events,
)
from langswarm_session.models import SessionMessage
from langswarm_session.requests.normalize import Target, normalize
from langswarm_session.testing.strategies import logs, texts

TARGET = Target("anthropic", "claude-test-1", strict=True, takes=takes, needs_user=True)

said = texts().filter(str.strip).filter(lambda text: not text.startswith(SO_FAR))


def message(role: str, *blocks: Any) -> SessionMessage:
    return SessionMessage(role=role, content=list(blocks))


def as_kept(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"id": f"sevt_{i}", **event} for i, event in enumerate(events)]


class TestSending:
    @settings(max_examples=60)
    @given(logs())
    def test_any_log_has_the_sdks_shape(self, log):
        normalized, _ = normalize(log, TARGET)
        events = to_events(normalized)
        assert shape_error({"events": events}, EventSendParams) is None
        kinds = [event["type"] for event in events]
        order = ["user.custom_tool_result", "user.message", "system.message"]
        assert kinds == sorted(kinds, key=order.index)
        assert kinds.count("user.message") <= 1
        assert kinds.count("system.message") <= 1
        for event in events:
            assert event["content"] or event["type"] == "user.custom_tool_result"
            for block in event["content"]:
                assert block["type"] != "text" or block["text"].strip()

    @given(said, st.lists(st.tuples(said, st.booleans()), max_size=3))
    def test_what_was_sent_can_be_read_back(self, text, results):
        blocks = [
            ToolResultBlock(tool_call_id=f"sevt_{i}", content=content, is_error=failed)
            for i, (content, failed) in enumerate(results)
        ]
        sent = [
            *([message("tool", *blocks)] if blocks else []),
            message("user", TextBlock(text=text)),
        ]
        back = from_events(as_kept(to_events(sent)))
        assert [each.role for each in back] == [each.role for each in sent]
        assert back[-1].text == text
        assert back[0].blocks == blocks or not blocks

    def test_a_system_message_comes_last(self):
        log = [
            SessionMessage(role="system", content="Be kind."),
            SessionMessage(role="user", content="one"),
            SessionMessage(role="system", content=" "),
            SessionMessage(role="assistant", content="left out"),
        ]
        assert [event["type"] for event in to_events(log)] == ["user.message", "system.message"]

    def test_a_transcript_is_not_read_back(self):
        log = [
            SessionMessage(role="user", content="one"),
            SessionMessage(role="assistant", content="two"),
        ]
        words = in_words(log, goes_on=True)
        assert words.text.splitlines()[1:-1] == ["user: one", "assistant: two"]
        new = SessionMessage(role="user", content="three")
        assert [m.text for m in from_events(as_kept(to_events([words, new])))] == ["three"]
        assert from_events(as_kept(to_events([in_words(log, goes_on=False)]))) == []

    @pytest.mark.parametrize(
        ("block", "in_message", "in_result"),
        [
            (TextBlock(text="x"), True, True),
            (TextBlock(text=" "), False, False),
            (ImageBlock(base64="aGk="), True, True),
            (FileBlock(text="x"), True, True),
            (ReasoningBlock(signature="s"), False, False),
            (ToolCallBlock(name="x"), False, False),
            (OtherBlock(value={"type": "search_result"}), False, False),
            (
                OtherBlock(
                    value={"type": "search_result", "source": "s", "title": "t", "content": []}
                ),
                False,
                True,
            ),
            (OtherBlock(value={"type": "container_upload"}), False, False),
        ],
    )
    def test_what_it_takes(self, block, in_message, in_result):
        assert (takes(block, False), takes(block, True)) == (in_message, in_result)


def event(kind: str, number: int = 1, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "id": f"sevt_{number}", **fields}


def agent_said(*parts: str) -> dict[str, Any]:
    return event("agent.message", content=[{"type": "text", "text": part} for part in parts])


class TestRuns:
    def test_are_one_reply(self):
        run = Run()
        call = event("agent.custom_tool_use", 7, name="add", input={"a": 1})
        own = event("agent.tool_use", 8, name="bash", input={})
        counted = {"input_tokens": 2, "output_tokens": 3, "cache_read_input_tokens": 5}
        end = event(
            "session.status_idle",
            9,
            stop_reason={"type": "requires_action", "event_ids": ["sevt_7"]},
        )
        brought = [
            len(run.add(each))
            for each in (
                event("session.status_running"),
                event("agent.thinking"),
                agent_said("one", "", "two"),
                own,
                call,
                event("span.model_request_end", model_usage=counted),
                event("span.model_request_end", model_usage=counted),
                end,
            )
        ]
        assert brought == [0, 0, 2, 1, 1, 0, 0, 0]
        reply = run.reply("claude-test-1")
        assert reply.text == "onetwo"
        assert reply.blocks[-1] == ToolCallBlock(id="sevt_7", name="add", args={"a": 1})
        assert reply.blocks[-2].value["type"] == "agent.tool_use"
        assert (reply.usage.input_tokens, reply.usage.cached_tokens) == (14, 10)
        assert (run.stop, run.waits_for) == ("requires_action", ["sevt_7"])
        assert reply.finish_reason == "tool_calls"
        assert reply.provider_message_id == "sevt_9"

    @pytest.mark.parametrize(
        ("stop", "finish"),
        [
            ({"type": "end_turn"}, "stop"),
            (None, "stop"),
            ({"type": "budget_reached"}, "length"),
            ({"type": "refusal"}, "refusal"),
            ({"type": "retries_exhausted"}, "retries_exhausted"),
        ],
    )
    def test_say_why_they_ended(self, stop, finish):
        run = Run()
        run.add(event("session.status_idle", stop_reason=stop))
        reply = run.reply("")
        assert (reply.finish_reason, reply.model) == (finish, None)
        assert any(isinstance(b, RefusalBlock) for b in reply.blocks) is (finish == "refusal")

    def test_that_did_not_end(self):
        run = Run()
        assert (run.stop, run.waits_for, run.reply("").usage) == ("", [], None)
        run.add(event("session.status_terminated"))
        assert run.stop == "session.status_terminated"

    def test_keep_their_error(self):
        run = Run()
        run.add(event("session.error", error={"message": "no"}))
        assert run.error == {"message": "no"}


def test_a_session_is_read_as_messages():
    text = [{"type": "text", "text": "one"}]
    events = [
        event("user.message", content=text),
        event("system.message", content=text),
        agent_said("a"),
        agent_said("b"),
        event("session.status_idle"),
        event("user.interrupt"),
        event("user.message", content=[{"type": "image", "source": {}}]),
        event("user.custom_tool_result", custom_tool_use_id="1", content=text, is_error=True),
        event("user.custom_tool_result", custom_tool_use_id="2"),
        agent_said("c"),
    ]
    read = from_events(events)
    assert [(each.role.value, each.text) for each in read] == [
        ("user", "one"),
        ("system", "one"),
        ("assistant", "ab"),
        ("user", ""),
        ("tool", "one"),
        ("assistant", "c"),
    ]
    assert [(block.tool_call_id, block.is_error) for block in read[4].blocks] == [
        ("1", True),
        ("2", False),
    ]
