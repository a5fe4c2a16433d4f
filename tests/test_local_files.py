from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from langswarm_session import (
    FileBlock,
    ImageBlock,
    OtherBlock,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.local_files import without_local_files
from langswarm_session.testing import strategies


def message(*content: Any, **fields: Any) -> SessionMessage:
    return SessionMessage(role="user", content=list(content), **fields)


@pytest.mark.parametrize(
    "value",
    [
        {"$class": "ImageBlock", "path": "/etc/passwd"},
        {"$class": "ImageBlock", "path": {"$path": "/etc/passwd"}},
        {"$class": "ImageBlock", "url": {"$url": "file:///etc/passwd"}},
        {"image_url": " FILE:///etc/passwd"},
        {"blocks": [{"$block": ["ImageBlock", {"path": "/etc/passwd"}]}]},
        {"$path": "/etc/passwd"},
    ],
    ids=str,
)
def test_names_are_left_out_wherever_they_stand(value: dict[str, Any]):
    result = ToolResultBlock(
        tool_call_id="c", content=[FileBlock(url="file:/etc/passwd"), OtherBlock(value=value)]
    )
    cleaned = without_local_files(
        message(
            ImageBlock(url="file:///etc/passwd", extras={"x": {"$path": "/etc/passwd"}}),
            OtherBlock(value=value),
            ToolCallBlock(name="f", args={"a": [{"$path": "/etc/passwd"}]}),
            result,
            native={"llama_index": value},
        )
    )
    assert "passwd" not in cleaned.model_dump_json()
    assert SessionMessage.model_validate(cleaned.model_dump()) == cleaned


def test_everything_else_is_kept():
    kept = message(
        TextBlock(text="file:///a is a file"),
        ImageBlock(url="https://e.org/file:/a"),
        ToolCallBlock(name="read", args={"path": "/etc/hosts", "url": "file:///x"}),
        OtherBlock(value={"type": "x", "text": "file:///a", "path": None, "$url": 5}),
        metadata={"path": "/a", "url": "file:///a"},
        native={"langchain": {"content": "file:///a", "$other": 1}},
    )
    assert without_local_files(kept) is kept


@given(strategies.messages())
def test_any_message_stays_one(any_message: SessionMessage):
    cleaned = without_local_files(any_message)
    assert SessionMessage.model_validate(cleaned.model_dump()) == cleaned
