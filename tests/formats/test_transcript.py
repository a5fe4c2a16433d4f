from __future__ import annotations

from langswarm_session import (
    ImageBlock,
    ReasoningBlock,
    RefusalBlock,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.formats.transcript import transcript


def test_has_a_line_for_each_message() -> None:
    messages = [
        SessionMessage(role="system", content="be kind"),
        SessionMessage(
            role="user", content=[TextBlock(text="see"), ImageBlock(url="https://e.org/a")]
        ),
        SessionMessage(
            role="assistant",
            content=[
                ReasoningBlock(reasoning="hm"),
                TextBlock(text="I look"),
                ToolCallBlock(id="c", name="look", args={"at": "it"}),
            ],
        ),
        SessionMessage(role="tool", content=[ToolResultBlock(tool_call_id="c", content="seen")]),
        SessionMessage(role="assistant", content=[RefusalBlock(refusal="no")]),
        SessionMessage(role="assistant", content=[ReasoningBlock(reasoning="hm")]),
        SessionMessage(role="user", content=" "),
    ]
    assert transcript(messages).splitlines() == [
        "user: see [image https://e.org/a]",
        "assistant: I look [calls look with {'at': 'it'}]",
        "tool: [result: seen]",
        "assistant: no",
    ]


def test_of_nothing_is_empty() -> None:
    assert transcript([]) == ""
