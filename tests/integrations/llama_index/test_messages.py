"""LlamaIndex messages as session messages, and back."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core.base.llms import types
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index_langswarm import (
    from_llama_index,
    from_llama_index_messages,
    to_llama_index,
    to_llama_index_messages,
)
from llama_index_langswarm.messages import size_of
from pydantic import BaseModel

from langswarm_session import (
    FileBlock,
    ImageBlock,
    InvalidInputError,
    OtherBlock,
    ReasoningBlock,
    RefusalBlock,
    SessionMessage,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.testing import strategies

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
CALL = types.ToolCallBlock(tool_call_id="call_1", tool_name="look", tool_kwargs={"city": "Åbo"})
THINKING = types.ThinkingBlock(
    content="hm", num_tokens=3, additional_information={"signature": "sig==", "type": "thinking"}
)
FORMER_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "look", "arguments": '{"city": "Åbo"}'},
}


def message(*blocks: Any, role: str = "user", **kwargs: Any) -> ChatMessage:
    return ChatMessage(role=role, blocks=list(blocks), additional_kwargs=kwargs)


MESSAGES: dict[str, ChatMessage] = {
    "user": ChatMessage("hi"),
    "nothing": ChatMessage(),
    "empty text": ChatMessage(""),
    "two texts": message(types.TextBlock(text="a"), types.TextBlock(text="b")),
    "odd text": ChatMessage("a\0b \U0001f469\u200d\U0001f680 \r\n\u2028"),
    "developer": ChatMessage("be brief", role="developer"),
    "system": ChatMessage("be brief", role="system"),
    "chatbot": ChatMessage("hello", role="chatbot"),
    "model": ChatMessage("hello", role="model"),
    "assistant": ChatMessage("hello", role="assistant"),
    "kwargs": ChatMessage("hi", additional_kwargs={"a": (1, b"2"), "b": {3: None}, "$c": []}),
    "picture by value": message(types.ImageBlock(image=PNG, detail="low")),
    "picture by address": message(types.ImageBlock(url="https://example.com/a.png")),
    "picture as data": message(types.ImageBlock(url="data:image/png;base64,aGk=")),
    "picture by path": message(types.ImageBlock(path=Path(__file__))),
    "sound": message(types.AudioBlock(audio=b"RIFF\0\0\0\0WAVEfmt ", format="wav")),
    "sound by address": message(types.AudioBlock(url="https://example.com/a.mp3")),
    "video": message(types.VideoBlock(video=b"hi", fps=3, detail="high", video_mimetype="x/y")),
    "document": message(types.DocumentBlock(data=b"%PDF-1.4 x", title="a.pdf")),
    "document by address": message(types.DocumentBlock(url="https://example.com/a.pdf")),
    "document by path": message(types.DocumentBlock(path="somewhere/a.pdf")),
    "cache point": message(
        types.TextBlock(text="a"),
        types.CachePoint(cache_control=types.CacheControl(type="ephemeral", ttl="1h")),
    ),
    "citable": message(
        types.CitableBlock(
            title="t", source="s", content=[types.TextBlock(text="x"), types.ImageBlock(image=PNG)]
        )
    ),
    "citation": message(
        types.CitationBlock(
            cited_content="x", source="s", title="t", additional_location_info={"page": 3}
        ),
        role="assistant",
    ),
    "thinking": message(THINKING, types.TextBlock(text="done"), role="assistant"),
    "empty thinking": message(types.ThinkingBlock(content=""), role="assistant"),
    "encrypted thinking": message(
        types.ThinkingBlock(
            additional_information={"id": "rs_1", "encrypted_content": "x", "summary": [1]}
        ),
        role="assistant",
    ),
    "call": message(CALL, role="assistant"),
    "text and calls": message(types.TextBlock(text="one moment"), CALL, CALL, role="assistant"),
    "call with text as arguments": message(
        types.ToolCallBlock(tool_call_id="c", tool_name="f", tool_kwargs='{"a": 1}'),
        types.ToolCallBlock(tool_call_id=None, tool_name="f", tool_kwargs='{"a": '),
        role="assistant",
    ),
    "former calls": ChatMessage("", role="assistant", additional_kwargs={"tool_calls": [FORMER_CALL]}),
    "former calls and text": ChatMessage(
        "look", role="assistant", additional_kwargs={"tool_calls": [FORMER_CALL, FORMER_CALL]}
    ),
    "former calls alone": message(role="assistant", tool_calls=[FORMER_CALL]),
    "odd former calls": ChatMessage("", role="assistant", additional_kwargs={"tool_calls": [{}, 1]}),
    "result": ChatMessage("sunny", role="tool", additional_kwargs={"tool_call_id": "call_1"}),
    "result with name": ChatMessage(
        "sunny", role="tool", additional_kwargs={"tool_call_id": "call_1", "name": "look", "x": 1}
    ),
    "result without id": ChatMessage("sunny", role="tool"),
    "result with a picture": message(
        types.TextBlock(text="here"), types.ImageBlock(image=PNG), role="tool", tool_call_id="c"
    ),
    "empty result": message(role="tool", tool_call_id="c"),
    "function": ChatMessage("sunny", role="function", additional_kwargs={"name": "look"}),
}  # fmt: skip


@pytest.mark.parametrize("name", MESSAGES)
def test_it_comes_back_equal(name: str) -> None:
    given, before = MESSAGES[name], copy.deepcopy(MESSAGES[name])
    stored = SessionMessage.model_validate_json(from_llama_index(given).model_dump_json())
    back = to_llama_index(stored)
    assert back == given == before
    assert type(back) is ChatMessage
    assert back.model_dump_json() == given.model_dump_json()
    assert [type(block) for block in back.blocks] == [type(block) for block in given.blocks]


PLAIN = ["user", "empty text", "system", "assistant", "call", "text and calls", "result",
         "picture by value", "picture by address", "two texts", "nothing"]  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_what_has_fields_is_kept_once(name: str) -> None:
    assert from_llama_index(MESSAGES[name]).native is None


def test_its_neutral_form() -> None:
    neutral = from_llama_index(MESSAGES["thinking"])
    assert neutral.content == [
        ReasoningBlock(reasoning="hm", signature="sig=="),
        TextBlock(text="done"),
    ]
    for name in ("call", "former calls", "former calls alone"):
        assert from_llama_index(MESSAGES[name]).content == [
            ToolCallBlock(id="call_1", name="look", args={"city": "Åbo"})
        ]
    assert from_llama_index(MESSAGES["former calls and text"]).text == "look"
    assert from_llama_index(MESSAGES["result with name"]).content == [
        ToolResultBlock(tool_call_id="call_1", content="sunny", name="look")
    ]
    (image,) = from_llama_index(MESSAGES["picture by value"]).blocks
    assert isinstance(image, ImageBlock)
    assert (image.mime_type, image.extras) == ("image/png", {"detail": "low"})
    assert from_llama_index(MESSAGES["developer"]).role == "system"
    (other,) = from_llama_index(MESSAGES["citable"]).blocks
    assert isinstance(other, OtherBlock)


def test_an_open_file_is_read_and_left_as_it_was() -> None:
    file = io.BytesIO(PNG)
    file.seek(3)
    given = ChatMessage.model_construct(
        role=MessageRole.USER,
        blocks=[types.ImageBlock.model_construct(image=file)],
        additional_kwargs={},
    )
    back = to_llama_index(from_llama_index(given))
    assert back.blocks[0].resolve_image().read() == PNG
    assert file.tell() == 3


def test_an_object_with_fields_becomes_a_dict() -> None:
    class Call(BaseModel):
        name: str

    given = ChatMessage("", role="assistant", additional_kwargs={"raw": Call(name="f")})
    back = to_llama_index(from_llama_index(given))
    assert back.additional_kwargs == {"raw": {"name": "f"}}, "as LlamaIndex's own stores do"


def test_pictures_in_kwargs_are_not_doubled() -> None:
    from llama_index.core.schema import ImageDocument

    given = ChatMessage("look", additional_kwargs={"images": [ImageDocument(image="aGk=")]})
    assert len(given.blocks) == 2
    back = to_llama_index(from_llama_index(given))
    assert back.blocks == given.blocks


def deep() -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for _ in range(5000):
        nested = {"a": nested}
    return nested


def with_fields(made: Any, **fields: Any) -> Any:
    """What was made, with fields assigned, which nobody checks."""
    for name, value in fields.items():
        setattr(made, name, value)
    return made


ASSIGNED = {
    **{
        f"{role} as text": ChatMessage.model_construct(
            role=role, blocks=[types.TextBlock(text="a")], additional_kwargs={}
        )
        for role in ("user", "assistant", "system", "developer", "chatbot", "model", "tool")
    },
    "no information": message(
        with_fields(types.ThinkingBlock(content="hm"), additional_information=None),
        role="assistant",
    ),
    "no kwargs": with_fields(ChatMessage("hi"), additional_kwargs=None),
    "no arguments": message(
        with_fields(types.ToolCallBlock(tool_name="f"), tool_kwargs=None), role="assistant"
    ),
}


def test_broken_arguments_are_kept_in_the_neutral_form() -> None:
    call = types.ToolCallBlock(tool_call_id="c", tool_name="f", tool_kwargs='{"a": ')
    stored = from_llama_index(message(call, role="assistant"))
    (block,) = stored.blocks
    assert block == ToolCallBlock(id="c", name="f", extras={"arguments": '{"a": '})
    again = to_llama_index(SessionMessage(role="assistant", content=[block]))
    assert again.blocks == [call]


@pytest.mark.parametrize("message", ASSIGNED.values(), ids=list(ASSIGNED))
def test_what_was_assigned_comes_back_too(message: ChatMessage) -> None:
    stored = SessionMessage.model_validate_json(from_llama_index(message).model_dump_json())
    assert to_llama_index(stored) == message


@pytest.mark.parametrize(
    "bad",
    [
        with_fields(ChatMessage("hi"), role="weird"),
        with_fields(ChatMessage("hi"), role=None),
        with_fields(ChatMessage("hi"), blocks=None),
        with_fields(ChatMessage("hi"), blocks=["hi"]),
        with_fields(ChatMessage("hi", role="assistant"), additional_kwargs=[1]),
        message(with_fields(types.ThinkingBlock(), additional_information=[1])),
    ],
    ids=["role", "no role", "no blocks", "text", "kwargs", "information"],
)
def test_what_is_not_as_its_class_says_is_refused(bad: ChatMessage) -> None:
    with pytest.raises(InvalidInputError):
        from_llama_index(bad)


@pytest.mark.parametrize(
    "bad",
    [
        "text",
        None,
        ChatMessage("hi", additional_kwargs={"a": object()}),
        ChatMessage("hi", additional_kwargs=deep()),
        ChatMessage.model_construct(
            role=MessageRole.USER, blocks=[types.LogProb()], additional_kwargs={}
        ),
        message(types.ToolCallBlock(tool_name="f", tool_kwargs={"a": {1, 2}}), role="assistant"),
    ],
    ids=["text", "None", "object", "deep", "block", "set"],
)
def test_what_cannot_be_stored_is_refused(bad: Any) -> None:
    with pytest.raises(InvalidInputError):
        from_llama_index(bad)


def test_stored_data_chooses_no_class() -> None:
    other = {"$class": "ChatMessage", "text": "x"}
    message = SessionMessage(role="user", content=[OtherBlock(value=other)])
    assert to_llama_index(message).blocks == []


def test_what_a_middleware_put_there_counts() -> None:
    for name in ("thinking", "former calls and text", "result without id"):
        stored = from_llama_index(MESSAGES[name])
        assert stored.native
        redacted = stored.replaced(content="***")
        assert to_llama_index(redacted).content == "***"
    stored = from_llama_index(MESSAGES["thinking"])
    content = [stored.blocks[0], TextBlock(text="***")]
    back = to_llama_index(stored.replaced(content=content))
    assert back.blocks == [THINKING, types.TextBlock(text="***")]


def test_several_results_are_several_messages() -> None:
    results = [ToolResultBlock(tool_call_id=str(n), content=f"r{n}") for n in range(3)]
    message = SessionMessage(role="tool", content=results)
    made = to_llama_index_messages([message])
    assert to_llama_index(message) == made[0]
    assert [(m.role, m.content, m.additional_kwargs) for m in made] == [
        ("tool", f"r{n}", {"tool_call_id": str(n)}) for n in range(3)
    ]
    mixed = to_llama_index_messages(
        [SessionMessage(role="user", content=[*results, TextBlock(text="so?")])]
    )
    assert [m.role.value for m in mixed] == ["tool", "tool", "tool", "user"]


def test_what_others_wrote_is_converted() -> None:
    chat = to_llama_index(
        SessionMessage(
            role="assistant",
            content=[
                RefusalBlock(refusal="no"),
                OtherBlock(value={"type": "web_search_call"}),
                ImageBlock(file_id="file-1"),
                ImageBlock(url="not an address"),
                FileBlock(text="notes", filename="a.txt", mime_type="text/plain"),
            ],
        )
    )
    assert chat.content == "no"
    assert [type(block).__name__ for block in chat.blocks] == [
        "TextBlock",
        "ImageBlock",
        "DocumentBlock",
    ]
    assert chat.blocks[2].resolve_document().read() == b"notes"


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.messages())
def test_any_session_message_can_be_read(message: SessionMessage) -> None:
    made = to_llama_index_messages([message.replaced(native=None)])
    assert len(made) == size_of(message) > 0
    for chat in made:
        assert to_llama_index(from_llama_index(chat)) == chat


TEXTS = strategies.texts(20)
OPTIONAL = st.none() | TEXTS
BLOCKS = st.one_of(
    st.builds(types.TextBlock, text=TEXTS),
    st.builds(types.ImageBlock, image=st.none() | st.binary(max_size=8), detail=OPTIONAL,
              image_mimetype=OPTIONAL, url=st.sampled_from([None, "https://a.b/c.png", "x:y"])),
    st.builds(types.AudioBlock, audio=st.none() | st.binary(max_size=8), format=OPTIONAL),
    st.builds(types.VideoBlock, video=st.none() | st.binary(max_size=8), fps=st.none() | st.integers(0, 9)),
    st.builds(types.DocumentBlock, data=st.binary(max_size=8), title=OPTIONAL, url=OPTIONAL,
              document_mimetype=TEXTS.filter(bool)),
    st.builds(types.ThinkingBlock, content=OPTIONAL, num_tokens=st.none() | st.integers(0, 9),
              additional_information=strategies.json_objects()),
    st.builds(types.ToolCallBlock, tool_call_id=OPTIONAL, tool_name=TEXTS,
              tool_kwargs=strategies.json_objects() | TEXTS),
)  # fmt: skip
KWARGS = st.fixed_dictionaries(
    {},
    optional={"tool_call_id": OPTIONAL, "name": OPTIONAL, "tool_calls": strategies.json_values()},
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(
    role=st.sampled_from(MessageRole),
    blocks=st.lists(BLOCKS, max_size=3),
    known=KWARGS,
    more=strategies.json_objects().filter(lambda more: "images" not in more),
)
def test_any_message_comes_back_equal(
    role: MessageRole, blocks: list[Any], known: dict[str, Any], more: dict[str, Any]
) -> None:
    given = ChatMessage(role=role, blocks=blocks, additional_kwargs={**more, **known})
    stored = SessionMessage.model_validate_json(from_llama_index(given).model_dump_json())
    assert to_llama_index(stored) == given


@given(
    st.lists(
        st.builds(
            ChatMessage, role=st.sampled_from(MessageRole), blocks=st.lists(BLOCKS, max_size=2)
        ),
        max_size=3,
    )
)
def test_any_messages_come_back_equal_together(chats: list[ChatMessage]) -> None:
    assert to_llama_index_messages(from_llama_index_messages(chats)) == chats
