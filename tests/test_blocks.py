from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from langswarm_session import (
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
from langswarm_session.blocks import blocks_adapter, text_of
from langswarm_session.testing import strategies

block_adapter: TypeAdapter[Block] = TypeAdapter(Block)

EXAMPLES: list[Block] = [
    TextBlock(text="a", annotations=[{"type": "citation", "url": None}]),
    ReasoningBlock(reasoning="b", signature="s", encrypted="e"),
    ImageBlock(url="https://example.org/a.png"),
    AudioBlock(base64="AAAA", mime_type="audio/wav"),
    VideoBlock(file_id="file_1"),
    FileBlock(filename="a.pdf", file_id="file_1", text="text"),
    ToolCallBlock(id="call_1", name="f", args={"x": [1, None]}),
    ToolResultBlock(tool_call_id="call_1", content=[TextBlock(text="c")], is_error=True),
    RefusalBlock(refusal="no"),
    OtherBlock(value={"type": "server_tool_use", "input": {}}, extras={"k": 1}),
]
TYPES = [
    "text",
    "reasoning",
    "image",
    "audio",
    "video",
    "file",
    "tool_call",
    "tool_result",
    "refusal",
    "non_standard",
]
each_example = pytest.mark.parametrize("block", EXAMPLES, ids=TYPES)


def test_the_examples_are_all_there_are() -> None:
    union = get_args(get_args(Block)[0])
    assert [type(block) for block in EXAMPLES] == list(union)
    assert [block.type for block in EXAMPLES] == TYPES


@given(st.lists(strategies.blocks(), max_size=5))
def test_blocks_survive_json(blocks: list[Block]) -> None:
    json = blocks_adapter.dump_json(blocks)
    read = blocks_adapter.validate_json(json)
    assert read == blocks
    assert [type(block) for block in read] == [type(block) for block in blocks]
    assert blocks_adapter.dump_json(read) == json


@given(st.lists(strategies.blocks(), max_size=5))
def test_blocks_survive_plain_data(blocks: list[Block]) -> None:
    for mode in ("json", "python"):
        assert (
            blocks_adapter.validate_python(blocks_adapter.dump_python(blocks, mode=mode)) == blocks
        )
    short = blocks_adapter.dump_python(blocks, mode="json", exclude_none=True)
    assert blocks_adapter.validate_python(short) == blocks


@each_example
def test_a_block_is_told_by_its_type(block: Block) -> None:
    data = block.model_dump()
    assert block_adapter.validate_python(data) == block
    assert data["type"] == block.type
    del data["type"]
    with pytest.raises(ValidationError, match="type"):
        block_adapter.validate_python(data)


@each_example
def test_a_block_is_frozen(block: Block) -> None:
    for field in type(block).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(block, field, None)


@each_example
def test_a_block_takes_no_unknown_field(block: Block) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        block_adapter.validate_python({**block.model_dump(), "unknown": 1})


@each_example
def test_a_block_has_its_own_type_only(block: Block) -> None:
    with pytest.raises(ValidationError):
        type(block).model_validate({**block.model_dump(), "type": "other"})


@each_example
def test_every_block_may_carry_the_providers_data(block: Block) -> None:
    data = {**block.model_dump(), "id": "id", "extras": {"k": [None]}}
    read = block_adapter.validate_python(data)
    assert (read.id, read.extras) == ("id", {"k": [None]})


@pytest.mark.parametrize(
    "data",
    [
        {"type": "text"},
        {"type": "text", "text": None},
        {"type": "text", "text": 5},
        {"type": "text", "text": "a", "annotations": ["no object"]},
        {"type": "tool_call"},
        {"type": "tool_call", "name": "f", "args": "not parsed"},
        {"type": "tool_call", "name": "f", "args": {"x": object()}},
        {"type": "tool_call", "name": "f", "args": {1: 2}},
        {"type": "tool_result"},
        {"type": "tool_result", "tool_call_id": "1", "content": None},
        {"type": "tool_result", "tool_call_id": "1", "content": [{"type": "unknown"}]},
        {"type": "refusal"},
        {"type": "non_standard"},
        {"type": "non_standard", "value": ["no object"]},
        {"type": "image", "base64": b"\xff"},
        {"type": "unknown"},
        {"type": None},
        {},
        "text",
        None,
    ],
)
def test_what_makes_no_block(data: Any) -> None:
    with pytest.raises(ValidationError):
        block_adapter.validate_python(data)


@pytest.mark.parametrize("number", [math.inf, -math.inf, -0.0, 5e-324, 1e308, 2**70])
def test_numbers_that_json_has_trouble_with(number: float) -> None:
    block = ToolCallBlock(name="f", args={"x": number})
    [read] = blocks_adapter.validate_json(blocks_adapter.dump_json([block]))
    assert isinstance(read, ToolCallBlock)
    assert (repr(read.args["x"]), type(read.args["x"])) == (repr(number), type(number))


def test_tool_results_nest() -> None:
    block: Block = TextBlock(text="deep")
    for n in range(20):
        block = ToolResultBlock(tool_call_id=str(n), content=[block])
    assert block_adapter.validate_json(block_adapter.dump_json(block)) == block
    assert text_of([block]) == "deep"


def test_what_was_given_is_not_shared() -> None:
    args = {"x": [1]}
    block = ToolCallBlock(name="f", args=args)
    args["x"].append(2)
    assert block.args == {"x": [1]}


def test_the_text_is_what_can_be_read() -> None:
    assert text_of("plain") == "plain"
    assert text_of([]) == ""
    assert text_of(EXAMPLES) == "acno"
