"""The typed blocks a message's content is made of.

They take the shape of LangChain's standard content blocks where one exists
(https://docs.langchain.com/oss/python/langchain/messages#standard-content-blocks), so that
converting is plain; tool results and refusals are blocks of our own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

if TYPE_CHECKING:
    JsonObject = dict[str, Any]
else:
    # Checked when a message is built, so that what was accepted can be stored and comes back equal.
    JsonObject = dict[str, JsonValue]


class Model(BaseModel):
    """What all data models here share: immutable, strict about names, exact in JSON."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        ser_json_inf_nan="constants",
        defer_build=True,
        # What was refused may be a secret.
        hide_input_in_errors=True,
    )


class _Block(Model):
    """What every block may carry.

    Attributes:
        id: The provider's id of the block.
        extras: The provider's own data on the block.
    """

    id: str | None = None
    extras: JsonObject | None = None


class TextBlock(_Block):
    """Text, with the provider's annotations (citations and the like)."""

    type: Literal["text"] = "text"
    text: str
    annotations: list[JsonObject] | None = None


class ReasoningBlock(_Block):
    """A model's reasoning.

    Attributes:
        reasoning: What may be read of it; empty where the provider shows nothing.
        signature: Proof of origin (Anthropic), valid for the model that gave it.
        encrypted: The reasoning as a payload only the provider can read (OpenAI, Anthropic).
    """

    type: Literal["reasoning"] = "reasoning"
    reasoning: str = ""
    signature: str | None = None
    encrypted: str | None = None


class _MediaBlock(_Block):
    """Data by address, by value or by the provider's id of it.

    Attributes:
        url: Where the data is.
        base64: The data itself, base64-encoded.
        file_id: The provider's id of an uploaded file.
        mime_type: The media type, such as ``image/png``.
    """

    url: str | None = None
    base64: str | None = None
    file_id: str | None = None
    mime_type: str | None = None


class ImageBlock(_MediaBlock):
    """An image."""

    type: Literal["image"] = "image"


class AudioBlock(_MediaBlock):
    """Sound."""

    type: Literal["audio"] = "audio"


class VideoBlock(_MediaBlock):
    """A video."""

    type: Literal["video"] = "video"


class FileBlock(_MediaBlock):
    """Any other file, such as a PDF.

    Attributes:
        filename: The file's name.
        text: The content of a plain-text document that is given by value.
    """

    type: Literal["file"] = "file"
    filename: str | None = None
    text: str | None = None


class ToolCallBlock(_Block):
    """A model's request to call a tool.

    Attributes:
        id: What the result refers to.
        name: The tool's name.
        args: The arguments.
    """

    type: Literal["tool_call"] = "tool_call"
    name: str
    args: JsonObject = Field(default_factory=dict)


class ToolResultBlock(_Block):
    """What a tool gave back.

    Attributes:
        tool_call_id: The id of the call it answers.
        content: Text, or blocks where the tool gave more than text.
        name: The tool's name.
        is_error: Whether the tool failed.
    """

    type: Literal["tool_result"] = "tool_result"
    tool_call_id: str
    content: str | list[Block] = ""
    name: str | None = None
    is_error: bool = False


class RefusalBlock(_Block):
    """A model's refusal to answer."""

    type: Literal["refusal"] = "refusal"
    refusal: str


class OtherBlock(_Block):
    """What is none of the above, kept as it came.

    Attributes:
        value: The block in the format of where it came from.
    """

    type: Literal["non_standard"] = "non_standard"
    value: JsonObject

    @property
    def kind(self) -> str:
        """The type that the block has in its own format; empty if that is not a text."""
        kind = self.value.get("type")
        return kind if isinstance(kind, str) else ""


Block = Annotated[
    TextBlock
    | ReasoningBlock
    | ImageBlock
    | AudioBlock
    | VideoBlock
    | FileBlock
    | ToolCallBlock
    | ToolResultBlock
    | RefusalBlock
    | OtherBlock,
    Field(discriminator="type"),
]
"""Any block, told apart by its ``type``."""

blocks_adapter: TypeAdapter[list[Block]] = TypeAdapter(
    list[Block], config=ConfigDict(defer_build=True, ser_json_inf_nan="constants")
)
"""Validates and dumps a list of blocks."""


TURN_CONTEXT = "langswarm_turn_context"
"""The key of a text block's extras that marks it as context of its turn, which no user wrote."""


def turn_context_block(text: str) -> TextBlock:
    """Return a block with what the model is told beside a user's words, for one turn."""
    return TextBlock(text=text, extras={TURN_CONTEXT: True})


def is_turn_context(block: Block) -> bool:
    """Return whether a block is context of its turn, and not what somebody said."""
    return isinstance(block, TextBlock) and bool((block.extras or {}).get(TURN_CONTEXT))


def text_of(content: str | list[Block]) -> str:
    """Return the readable text of a message's content.

    Args:
        content: A string, or blocks.

    Returns:
        The text of text blocks and refusals, one after the other; what is not text is left out.
    """
    if isinstance(content, str):
        return content
    parts = []
    for block in content:
        if isinstance(block, TextBlock):
            parts.append(block.text)
        elif isinstance(block, RefusalBlock):
            parts.append(block.refusal)
        elif isinstance(block, ToolResultBlock):
            parts.append(text_of(block.content))
    return "".join(parts)
