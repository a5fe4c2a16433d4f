"""The messages and content blocks of Anthropic's Messages API.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from langswarm_session.formats.arguments import object_of_arguments
from langswarm_session.formats.media import Media, inline, is_base64, web_url
from langswarm_session.models import MessageRole, SessionMessage, TokenUsage
from langswarm_session.sendable import Repair, RepairKind
from langswarm_session.sendable.target import has_fields

Param = dict[str, Any]
Report = Callable[[Repair], None]

NAME = "anthropic"
"""The provider whose blocks these are."""

_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")

_OTHERS = ("search_result", "document", "container_upload", "compaction", "fallback")
"""Blocks of the API that have no form of their own here, beside those of tools that it runs."""

USER_BLOCKS: dict[str, dict[str, type]] = {
    "search_result": {"content": list, "source": str, "title": str},
    "document": {"source": dict},
    "container_upload": {"file_id": str},
}
"""Those of them a user may send, with the fields that the SDK's ``anthropic.types`` require."""

_KEPT_CITATION = "web_search_result_location"
"""The one citation that is sent back: the API asks for it. The others count the documents of the
request they were made in, which a later request may not have."""

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
        return _takes_other(block.value, block.kind, in_result)
    return isinstance(block, ToolCallBlock) and not in_result


def _takes_other(value: Param, kind: str, in_result: bool) -> bool:
    """Whether a block of the API's own can be sent; the halves of a pair need their ids."""
    if kind in USER_BLOCKS:
        whole = has_fields(value, USER_BLOCKS[kind])
        return whole and (kind == "search_result" or not in_result)
    if in_result:
        return False
    if _is_server_call(kind):
        return isinstance(value.get("id"), str)
    if _is_server_result(kind):
        return isinstance(value.get("tool_use_id"), str)
    return kind in _OTHERS


def _is_server_call(kind: str) -> bool:
    """Whether it is the call of a tool that Anthropic runs."""
    return kind.endswith("_tool_use")


def _is_server_result(kind: str) -> bool:
    return kind.endswith("_tool_result")


def needs_files_api(messages: Iterable[SessionMessage]) -> bool:
    """Whether a file is named by its id, which is a beta of its own.

    See https://docs.claude.com/en/docs/build-with-claude/files: it names documents, images and
    container uploads.
    """
    return any(_names_file(block) for message in messages for block in message.blocks)


def _names_file(block: Block) -> bool:
    if isinstance(block, ToolResultBlock) and not isinstance(block.content, str):
        return any(map(_names_file, block.content))
    if isinstance(block, OtherBlock):
        source = block.value.get("source")
        named = isinstance(source, Mapping) and source.get("type") == "file"
        return named or block.kind == "container_upload"
    return isinstance(block, ImageBlock | FileBlock) and bool(block.file_id)


def system(messages: Iterable[SessionMessage]) -> str:
    """What the system messages say, which travels apart from the others."""
    said = (message.text for message in messages if message.role is MessageRole.SYSTEM)
    return "\n\n".join(text for text in said if text.strip())


def to_messages(messages: Iterable[SessionMessage], report: Report | None = None) -> list[Param]:
    """Messages as user's and assistant's in turn; system messages are left to `system`.

    Args:
        messages: Messages that `takes` has been asked about, each tool's result behind its call.
        report: Is told what had to be left out on the way.
    """
    sent: list[Param] = []
    for message in messages:
        if message.role is MessageRole.SYSTEM:
            continue
        role = "assistant" if message.role is MessageRole.ASSISTANT else "user"
        content = [_param(block) for block in message.blocks]
        if role == "assistant":
            content = _whole(content, message, report)
        if sent and sent[-1]["role"] == role:
            sent[-1]["content"] += content
        elif content:
            sent.append({"role": role, "content": content})
    return sent


def _whole(content: list[Param], message: SessionMessage, report: Report | None) -> list[Param]:
    """The blocks without calls that Anthropic broke off, and results that lost their call."""
    called = {block.get("id") for block in content if _is_server_call(block["type"])}
    answered = {block.get("tool_use_id") for block in content if _is_server_result(block["type"])}
    kept = []
    for block in content:
        kind = block["type"]
        if (_is_server_call(kind) and block.get("id") not in answered) or (
            _is_server_result(kind) and block.get("tool_use_id") not in called
        ):
            if report is not None:
                detail = f"a {kind} without its other half"
                dropped = RepairKind.BLOCK_DROPPED
                report(Repair(kind=dropped, message_id=message.id, detail=detail))
        else:
            kept.append(block)
    return kept


def _param(block: Block) -> Param:
    if isinstance(block, ImageBlock):
        return {"type": "image", "source": _source(block)}
    if isinstance(block, FileBlock):
        title = {"title": block.filename[:255]} if block.filename else {}
        return {"type": "document", "source": _source(block), **title}
    if isinstance(block, ToolCallBlock):
        arguments = object_of_arguments(block)
        return {"type": "tool_use", "id": block.id, "name": block.name, "input": arguments}
    if isinstance(block, ToolResultBlock):
        return _result(block)
    if isinstance(block, ReasoningBlock):
        if block.encrypted:
            return {"type": "redacted_thinking", "data": block.encrypted}
        return {"type": "thinking", "thinking": block.reasoning, "signature": block.signature}
    if isinstance(block, OtherBlock):
        return dict(block.value)
    text: Param = {"type": "text", "text": text_of([block])}
    cited = _citations(block)
    return {**text, "citations": cited} if cited else text


def _citations(block: Block) -> list[Param]:
    noted = block.annotations or [] if isinstance(block, TextBlock) else []
    return [dict(each) for each in noted if each.get("type") == _KEPT_CITATION]


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
    if isinstance(block, FileBlock) and block.text and block.text.strip():
        return _text_source(block.text)
    given = inline(block)
    if given is not None:
        return _inline_source(block, *given)
    url = web_url(block)
    if url is not None:
        return {"type": "url", "url": url}
    if block.file_id and block.file_id.startswith("file_"):
        return {"type": "file", "file_id": block.file_id}
    return None


def _inline_source(block: Media, kind: str, data: str) -> Param | None:
    kind = "image/jpeg" if kind == "image/jpg" else kind
    if isinstance(block, FileBlock) and kind.startswith("text/"):
        text = _decoded(data)
        return None if text is None or not text.strip() else _text_source(text)
    known = _IMAGE_TYPES if isinstance(block, ImageBlock) else ("application/pdf",)
    if kind not in known or not is_base64(data):
        return None
    return {"type": "base64", "media_type": kind, "data": data}


def _text_source(text: str) -> Param:
    return {"type": "text", "media_type": "text/plain", "data": text}


def _decoded(data: str) -> str | None:
    try:
        return binascii.a2b_base64(data.encode("ascii"), strict_mode=True).decode()
    except (binascii.Error, ValueError):
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
        return TextBlock(text=block.get("text") or "", annotations=block.get("citations") or None)
    if kind == "thinking":
        thought = block.get("thinking") or ""
        return ReasoningBlock(reasoning=thought, signature=block.get("signature"))
    if kind == "redacted_thinking":
        return ReasoningBlock(encrypted=block.get("data"))
    if kind == "tool_use":
        arguments = block.get("input")
        return ToolCallBlock(
            id=block.get("id"),
            name=block.get("name") or "",
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
    others = {"cache_creation_input_tokens": written, "server_tool_use": _of_server(counted)}
    return TokenUsage(
        input_tokens=(counted.get("input_tokens") or 0) + read + written,
        output_tokens=counted.get("output_tokens") or 0,
        cached_tokens=read,
        reasoning_tokens=details.get("thinking_tokens") or 0,
        details={name: value for name, value in others.items() if value} or None,
    )


def _of_server(counted: Mapping[str, Any]) -> dict[str, Any]:
    """How often the tools ran that Anthropic runs."""
    uses = counted.get("server_tool_use") or {}
    return {name: count for name, count in uses.items() if count}


def joined(replies: Sequence[SessionMessage]) -> SessionMessage:
    """One reply from those that a model gave with pauses in between."""
    last = replies[-1]
    if len(replies) == 1:
        return last
    content = [block for reply in replies for block in reply.blocks]
    return last.model_copy(update={"content": content, "usage": _summed(replies)})


def _summed(replies: Iterable[SessionMessage]) -> TokenUsage | None:
    counts = [reply.usage for reply in replies if reply.usage is not None]
    if not counts:
        return None
    details: dict[str, Any] = {}
    for count in counts:
        for name, value in (count.details or {}).items():
            details[name] = details.get(name, 0) + value if isinstance(value, int) else value
    return TokenUsage(
        input_tokens=sum(count.input_tokens for count in counts),
        output_tokens=sum(count.output_tokens for count in counts),
        cached_tokens=sum(count.cached_tokens for count in counts),
        reasoning_tokens=sum(count.reasoning_tokens for count in counts),
        details=details or None,
    )
