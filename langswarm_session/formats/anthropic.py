"""The messages and content blocks of Anthropic's Messages API.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langswarm_session.blocks import (
    Block,
    FileBlock,
    ImageBlock,
    OtherBlock,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    text_of,
)
from langswarm_session.formats.media import Media, inline, is_base64, web_url
from langswarm_session.models import MessageRole, SessionMessage, TokenUsage

Param = dict[str, Any]

NAME = "anthropic"
"""The provider whose blocks these are."""

_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}


def takes(block: Block, in_result: bool) -> bool:
    """Whether a block can be sent as a content block."""
    if isinstance(block, TextBlock):
        return bool(block.text.strip())
    if isinstance(block, ImageBlock | FileBlock):
        return _source(block) is not None
    if isinstance(block, ReasoningBlock):
        return bool(block.signature or block.encrypted) and not in_result
    if isinstance(block, OtherBlock):
        return isinstance(block.value.get("type"), str) and not in_result
    return isinstance(block, ToolCallBlock) and not in_result


def needs_files_api(messages: Iterable[SessionMessage]) -> bool:
    """Whether a file is named by its id, which is a beta of its own."""
    return any(
        isinstance(block, ImageBlock | FileBlock) and bool(block.file_id)
        for message in messages
        for block in message.blocks
    )


def system(messages: Iterable[SessionMessage]) -> str:
    """What the system messages say, which travels apart from the others."""
    said = (message.text for message in messages if message.role is MessageRole.SYSTEM)
    return "\n\n".join(text for text in said if text.strip())


def to_messages(messages: Iterable[SessionMessage]) -> list[Param]:
    """Messages as user's and assistant's in turn; system messages are left to `system`.

    Args:
        messages: Messages that `takes` has been asked about, each tool's result behind its call.
    """
    sent: list[Param] = []
    for message in messages:
        if message.role is MessageRole.SYSTEM:
            continue
        role = "assistant" if message.role is MessageRole.ASSISTANT else "user"
        content = [_param(block) for block in message.blocks]
        if sent and sent[-1]["role"] == role:
            sent[-1]["content"].extend(content)
        else:
            sent.append({"role": role, "content": content})
    return sent


def _param(block: Block) -> Param:
    if isinstance(block, ImageBlock):
        return {"type": "image", "source": _source(block)}
    if isinstance(block, FileBlock):
        title = {"title": block.filename[:255]} if block.filename else {}
        return {"type": "document", "source": _source(block), **title}
    if isinstance(block, ToolCallBlock):
        return {"type": "tool_use", "id": block.id, "name": block.name, "input": block.args}
    if isinstance(block, ToolResultBlock):
        return _result(block)
    if isinstance(block, ReasoningBlock):
        if block.encrypted:
            return {"type": "redacted_thinking", "data": block.encrypted}
        return {"type": "thinking", "thinking": block.reasoning, "signature": block.signature}
    if isinstance(block, OtherBlock):
        return dict(block.value)
    return {"type": "text", "text": text_of([block])}


def _result(block: ToolResultBlock) -> Param:
    content: str | list[Param]
    if isinstance(block.content, str):
        content = block.content
    else:
        content = [_param(each) for each in block.content]
    result: Param = {"type": "tool_result", "tool_use_id": block.tool_call_id, "content": content}
    if block.is_error:
        result["is_error"] = True
    return result


def _source(block: Media) -> Param | None:
    """A picture's or document's source; None if the API has none for it."""
    if isinstance(block, FileBlock) and block.text:
        return {"type": "text", "media_type": "text/plain", "data": block.text}
    given = inline(block)
    if given is not None:
        kind, data = given
        known = _IMAGE_TYPES if isinstance(block, ImageBlock) else ("application/pdf",)
        if kind not in known or not is_base64(data):
            return None
        return {"type": "base64", "media_type": kind, "data": data}
    url = web_url(block)
    if url is not None:
        return {"type": "url", "url": url}
    if block.file_id and block.file_id.startswith("file_"):
        return {"type": "file", "file_id": block.file_id}
    return None


def from_message(message: Mapping[str, Any], model: str) -> SessionMessage:
    """A message that the model gave as a reply.

    Args:
        message: The message, as plain data.
        model: The model that was asked for.
    """
    blocks = [from_block(block) for block in message.get("content") or []]
    reason = message.get("stop_reason") or "stop"
    if reason == "refusal" and not any(isinstance(block, RefusalBlock) for block in blocks):
        details = message.get("stop_details") or {}
        blocks.append(RefusalBlock(refusal=details.get("explanation") or "The model refused."))
    return SessionMessage(
        role=MessageRole.ASSISTANT,
        content=blocks,
        provider=NAME,
        model=model,
        provider_message_id=message.get("id"),
        usage=usage(message.get("usage")),
        finish_reason=_FINISH_REASONS.get(reason, reason),
    )


def from_block(block: Mapping[str, Any]) -> Block:
    """A content block that the model gave."""
    kind = block.get("type")
    if kind == "text":
        return TextBlock(text=block["text"], annotations=block.get("citations") or None)
    if kind == "thinking":
        return ReasoningBlock(reasoning=block.get("thinking", ""), signature=block.get("signature"))
    if kind == "redacted_thinking":
        return ReasoningBlock(encrypted=block.get("data"))
    if kind == "tool_use":
        arguments = block.get("input")
        return ToolCallBlock(
            id=block["id"],
            name=block["name"],
            args=dict(arguments) if isinstance(arguments, Mapping) else {},
        )
    return OtherBlock(id=block.get("id"), value=dict(block))


def usage(counted: Mapping[str, Any] | None) -> TokenUsage | None:
    """Token usage, with what was read from and written to the cache among the input."""
    if not counted:
        return None
    read = counted.get("cache_read_input_tokens") or 0
    written = counted.get("cache_creation_input_tokens") or 0
    details = counted.get("output_tokens_details") or {}
    return TokenUsage(
        input_tokens=(counted.get("input_tokens") or 0) + read + written,
        output_tokens=counted.get("output_tokens") or 0,
        cached_tokens=read,
        reasoning_tokens=details.get("thinking_tokens") or 0,
        details={"cache_creation_input_tokens": written} if written else None,
    )


def joined(replies: Sequence[SessionMessage]) -> SessionMessage:
    """One reply from those that a model gave with pauses in between."""
    last = replies[-1]
    if len(replies) == 1:
        return last
    counts = [reply.usage for reply in replies if reply.usage is not None]
    return last.model_copy(
        update={
            "content": [block for reply in replies for block in reply.blocks],
            "usage": TokenUsage(
                input_tokens=sum(count.input_tokens for count in counts),
                output_tokens=sum(count.output_tokens for count in counts),
                cached_tokens=sum(count.cached_tokens for count in counts),
                reasoning_tokens=sum(count.reasoning_tokens for count in counts),
            ),
        }
    )
