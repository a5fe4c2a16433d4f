"""Paths of local files in messages from elsewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest

from langswarm_session import (
    FileBlock,
    ImageBlock,
    SessionManager,
    SessionMessage,
    TextBlock,
    ToolResultBlock,
    export_session,
    import_session,
)
from langswarm_session.blocks import OtherBlock
from langswarm_session.transfer.local_paths import without_local_paths

IMAGE = ImageBlock(url="https://x/y.png")


def message(*content: Any, **fields: Any) -> SessionMessage:
    return SessionMessage(role="user", content=list(content), **fields)


@pytest.mark.parametrize(
    "part",
    [
        {"blocks": [{"path": {"$path": "/etc/passwd"}, "url": None}]},
        {"blocks": [{"path": "/etc/passwd"}]},
        {"blocks": [{"url": {"$url": "file:///etc/passwd"}}]},
        {"additional_kwargs": {"images": [{"$block": ["ImageBlock", {"path": "/etc/passwd"}]}]}},
        {"additional_kwargs": {"a": {"$path": "/etc/passwd"}}},
    ],
)
def test_what_llama_index_keeps_goes_with_a_path(part: Any) -> None:
    given = message(IMAGE, native={"llama_index": part, "langchain": {"path": "x"}})
    assert without_local_paths(given).native == {"langchain": {"path": "x"}}
    alone = message(IMAGE, native={"llama_index": part})
    assert without_local_paths(alone) == alone.replaced(native=None)


@pytest.mark.parametrize("url", ["file:///etc/passwd", " FILE:/etc/passwd", "file:x"])
def test_addresses_of_files_go(url: str) -> None:
    result = ToolResultBlock(tool_call_id="1", content=[ImageBlock(url=url), TextBlock(text="t")])
    given = message(FileBlock(url=url, filename="a"), IMAGE, result)
    file, image, other = without_local_paths(given).blocks
    assert (file, image) == (FileBlock(filename="a"), IMAGE)
    assert isinstance(other, ToolResultBlock)
    assert other.content == [ImageBlock(), TextBlock(text="t")]


def test_blocks_of_llama_index_lose_their_paths() -> None:
    inner = ["ImageBlock", {"path": {"$path": "/etc/passwd"}, "image": None}]
    citable = {"$class": "CitableBlock", "title": "t", "content": [{"$block": inner}]}
    given = message(OtherBlock(value=citable), OtherBlock(value={"$class": "X", "path": "/a"}))
    first, second = without_local_paths(given).blocks
    assert first == OtherBlock(
        value={**citable, "content": [{"$block": ["ImageBlock", {"path": None, "image": None}]}]}
    )
    assert second == OtherBlock(value={"$class": "X", "path": None})


def test_all_else_stays_as_it_is() -> None:
    for given in (
        SessionMessage(role="user", content="file:///etc/passwd"),
        message(IMAGE, ToolResultBlock(tool_call_id="1", content="file:///x")),
        message(OtherBlock(value={"type": "apply_patch_call", "path": "a.py"})),
        message(IMAGE, native={"llama_index": {"blocks": [{"path": None, "detail": "low"}]}}),
    ):
        assert without_local_paths(given) is given


async def test_an_import_drops_and_reports_them(manager: SessionManager) -> None:
    session = await manager.create_session("ann", "mock", "m", session_id="a")
    native = {"llama_index": {"blocks": [{"path": {"$path": "/etc/passwd"}}]}}
    await session.record([message(IMAGE), message(IMAGE, native=native)])
    lines = [json.dumps(line) async for line in export_session(session)]
    await manager.delete_session("a")
    imported = await import_session(manager, lines)
    assert any("local files" in note for note in imported.notes)
    stored = await (await manager.get_session("a")).get_messages()
    assert [(each.content, each.native) for each in stored] == [([IMAGE], None)] * 2
