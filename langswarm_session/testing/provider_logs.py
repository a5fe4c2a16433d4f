"""Logs as they come to be, each with something in it that one provider or another refuses."""

from __future__ import annotations

from typing import Any

from langswarm_session.blocks import (
    AudioBlock,
    Block,
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
from langswarm_session.models import MessageRole, SessionMessage

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="  # noqa: E501
"""A picture of one pixel."""

PDF = "JVBERi0xLjQKMSAwIG9iajw8L1R5cGUvQ2F0YWxvZz4+ZW5kb2JqCnRyYWlsZXI8PC9Sb290IDEgMCBSPj4K"
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
MP4 = "AAAAGGZ0eXBpc29tAAAAAGlzb21pc28y"
SVG = "PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciLz4="


def message(role: str, *content: str | Block, **fields: Any) -> SessionMessage:
    """A message of one text, or of blocks."""
    if len(content) == 1 and isinstance(content[0], str):
        return SessionMessage(role=MessageRole(role), content=content[0], **fields)
    blocks = [TextBlock(text=each) if isinstance(each, str) else each for each in content]
    return SessionMessage(role=MessageRole(role), content=blocks, **fields)


def call(call_id: str | None, name: str = "look", **args: Any) -> ToolCallBlock:
    """A model's call of a tool."""
    return ToolCallBlock(id=call_id, name=name, args=args)


def result(call_id: str, *content: Block, **fields: Any) -> ToolResultBlock:
    """What the tool gave back."""
    given = list(content) if content else "found it"
    return ToolResultBlock(tool_call_id=call_id, content=given, name="look", **fields)


USER_BLOCKS: dict[str, Block] = {
    "text": TextBlock(text="a text", annotations=[{"kind": "note"}], extras={"anything": 1}),
    "image": ImageBlock(base64=PNG, mime_type="image/png"),
    "image as a data URL": ImageBlock(url=f"data:image/png;base64,{PNG}"),
    "image of a type that few take": ImageBlock(base64=SVG, mime_type="image/svg+xml"),
    "image of nothing": ImageBlock(),
    "audio": AudioBlock(base64=WAV, mime_type="audio/wav"),
    "video": VideoBlock(base64=MP4, mime_type="video/mp4"),
    "file": FileBlock(base64=PDF, mime_type="application/pdf", filename="a.pdf"),
    "file of text": FileBlock(text="plain", mime_type="text/plain", filename="a.txt"),
    "file that is no file": FileBlock(base64="not base64!", mime_type="application/pdf"),
    "of another format": OtherBlock(value={"type": "hologram", "data": [1, {"a": None}]}),
}
"""Blocks that a user's message may have."""

LOGS: dict[str, list[SessionMessage]] = {
    "a conversation": [message("user", "one"), message("assistant", "two")],
    "system messages": [
        message("system", "Be kind."),
        message("user", "one"),
        message("system", "Be brief."),
        message("assistant", "two"),
    ],
    "only a system message": [message("system", "Be kind.")],
    "an assistant that begins": [message("assistant", "Welcome!")],
    "the same speaker twice": [
        message("user", "one"),
        message("user", "two"),
        message("assistant", "three"),
        message("assistant", "four"),
    ],
    "speakers with names": [
        message("user", "one", name="Ann Lee <ann>"),
        message("assistant", "two", name="bot"),
    ],
    "nothing said": [
        message("user", "one"),
        message("assistant", ""),
        message("user", " \n", TextBlock(text="")),
        message("assistant", TextBlock(text=" ")),
    ],
    "all that users send": [message("user", *USER_BLOCKS.values()), message("assistant", "ok")],
    "all that users send, by an assistant": [
        message("user", "one"),
        message("assistant", *USER_BLOCKS.values()),
    ],
    "reasoning of another model": [
        message("user", "one"),
        message(
            "assistant",
            ReasoningBlock(reasoning="hm", signature="c2lnbmVk", id="rs_1"),
            ReasoningBlock(encrypted="bG9ja2Vk", id="rs_2", extras={"summary": []}),
            "two",
            provider="yet-another",
            model="m",
        ),
    ],
    "reasoning alone": [
        message("user", "one"),
        message("assistant", ReasoningBlock(reasoning="hm")),
    ],
    "a refusal": [message("user", "one"), message("assistant", RefusalBlock(refusal="No."))],
    "a call with its result": [
        message("user", "one"),
        message("assistant", "let me look", call("c1", at="it")),
        message("tool", result("c1")),
        message("assistant", "two"),
    ],
    "calls side by side": [
        message("user", "one"),
        message("assistant", call("c1"), call("c2", "listen", deep={"a": [1, None]})),
        message("tool", result("c2"), result("c1", is_error=True)),
        message("assistant", "two"),
    ],
    "calls side by side with results apart": [
        message("user", "one"),
        message("assistant", call("c1"), call("c2")),
        message("tool", result("c1")),
        message("tool", result("c2")),
        message("assistant", "two"),
    ],
    "calls one after the other": [
        message("user", "one"),
        message("assistant", call("c1")),
        message("tool", result("c1")),
        message("assistant", call("c2")),
        message("tool", result("c2")),
        message("assistant", "two"),
    ],
    "a result that is more than text": [
        message("user", "one"),
        message("assistant", call("c1")),
        message("tool", result("c1", TextBlock(text="see"), *USER_BLOCKS.values())),
    ],
    "a result of nothing": [
        message("user", "one"),
        message("assistant", call("c1")),
        message("tool", ToolResultBlock(tool_call_id="c1")),
    ],
    "a call without a result": [message("user", "one"), message("assistant", call("c1"))],
    "a call answered too late": [
        message("user", "one"),
        message("assistant", call("c1"), call("c2")),
        message("tool", result("c2")),
        message("user", "are you there?"),
        message("tool", result("c1")),
        message("assistant", "two"),
    ],
    "a result without a call": [message("tool", result("c0")), message("assistant", "two")],
    "a result that came twice": [
        message("user", "one"),
        message("assistant", call("c1")),
        message("tool", result("c1")),
        message("tool", result("c1")),
    ],
    "the same id twice": [
        message("user", "one"),
        message("assistant", call("c1")),
        message("tool", result("c1")),
        message("assistant", "two"),
        message("user", "three"),
        message("assistant", call("c1")),
        message("tool", result("c1")),
    ],
    "ids and names that few take": [
        message("user", "one"),
        message("assistant", call("é " * 60, "look up: straße")),
        message("tool", result("é " * 60)),
        message("assistant", call(None)),
        message("tool", result("")),
    ],
    "functions as they once were": [
        message("user", "one"),
        message("assistant", call(None)),
        message("function", "found it", name="look"),
        message("function", "found that too"),
    ],
}
"""What a record may hold before a turn."""

WHOLE_LOG = [each for log in LOGS.values() for each in log]
"""All of it, one after the other."""
