"""Gemini's contents and parts: pure functions, no client. https://ai.google.dev/api/caching#Content"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any
from uuid import uuid4

from langswarm_session import (
    AudioBlock,
    Block,
    FileBlock,
    ImageBlock,
    MessageRole,
    OtherBlock,
    ReasoningBlock,
    RefusalBlock,
    SessionMessage,
    TextBlock,
    TokenUsage,
    Tool,
    ToolCallBlock,
    ToolResultBlock,
    VideoBlock,
)
from langswarm_session._media import Media, inline, is_base64
from langswarm_session.formats.arguments import object_of_arguments

Part = dict[str, Any]

PROVIDER = "google"
SIGNATURE = "thought_signature"
"""The key in a block's extras of the signature that came with a part (base64)."""

NOT_OURS = base64.b64encode(b"skip_thought_signature_validator").decode()
"""What Gemini wants in place of the signature of a call that it did not make:
https://ai.google.dev/gemini-api/docs/thought-signatures"""

MEDIA_TYPES = {
    "image": ("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"),
    "audio": ("audio/wav", "audio/mp3", "audio/mpeg", "audio/aac", "audio/ogg", "audio/flac"),
    "video": ("video/mp4", "video/mpeg", "video/mov", "video/webm"),
    "file": ("application/pdf", "text/plain"),
}

REASONS = {"STOP": "stop", "MAX_TOKENS": "length"}
REFUSALS = (
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY",
    "MODEL_ARMOR",
)  # fmt: skip


def takes(block: Block, in_result: bool) -> bool:
    """Whether a block can be sent."""
    if isinstance(block, ImageBlock | AudioBlock | VideoBlock | FileBlock):
        return not in_result and _data(block) is not None
    if isinstance(block, ReasoningBlock):
        return block.signature is not None and not in_result
    return isinstance(block, TextBlock | ToolCallBlock)


def to_contents(messages: Iterable[SessionMessage], model: str) -> list[dict[str, Any]]:
    """Messages as contents; what one side says in several messages is one content.

    Args:
        messages: What can be sent.
        model: Who is asked: a signature is of use to the model that gave it.
    """
    spoken = [each for each in messages if each.role is not MessageRole.SYSTEM]
    blocks = [block for each in spoken for block in each.blocks]
    # A result must have the name of its call, whatever the tool said of itself.
    names = {block.id: block.name for block in blocks if isinstance(block, ToolCallBlock)}
    return [
        {"role": role, "parts": [part for each in group for part in _parts(each, model, names)]}
        for role, group in groupby(spoken, key=_role)
    ]


def system(messages: Iterable[SessionMessage], *more: str | None) -> str | None:
    """The system instruction."""
    said = [each.text for each in messages if each.role is MessageRole.SYSTEM]
    return "\n\n".join(text for text in (*said, *more) if text) or None


def to_tools(tools: Iterable[Tool | Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Tools; those of Google's own are ``{"type": "google_search", ...}``."""
    functions, hosted = [], []
    for tool in tools:
        if isinstance(tool, Tool):
            parameters = {"parameters_json_schema": dict(tool.parameters)}
            functions.append({"name": tool.name, "description": tool.description, **parameters})
        else:
            hosted.append({tool["type"]: {k: v for k, v in tool.items() if k != "type"}})
    return [*([{"function_declarations": functions}] if functions else []), *hosted]


def _role(message: SessionMessage) -> str:
    return "model" if message.role is MessageRole.ASSISTANT else "user"


def _parts(message: SessionMessage, model: str, names: Mapping[str | None, str]) -> list[Part]:
    is_own = (message.provider, message.model) == (PROVIDER, model)
    parts: list[Part] = []
    is_first = True
    for block in message.blocks:
        part = _part(block, names)
        signature = (block.extras or {}).get(SIGNATURE) if is_own else None
        if isinstance(block, ToolCallBlock):
            # Of calls side by side only the first is signed.
            signature = signature or (NOT_OURS if is_first and not is_own else None)
            is_first = False
        parts.append(part if signature is None else {**part, SIGNATURE: signature})
    return parts


def _part(block: Block, names: Mapping[str | None, str]) -> Part:
    if isinstance(block, ToolCallBlock):
        arguments = object_of_arguments(block)
        return {"function_call": {"id": block.id, "name": block.name, "args": arguments}}
    if isinstance(block, ToolResultBlock):
        key = "error" if block.is_error else "result"
        text = SessionMessage(role=MessageRole.TOOL, content=block.content).text
        named = {"id": block.tool_call_id, "name": names.get(block.tool_call_id, block.name)}
        return {"function_response": {**named, "response": {key: text}}}
    if isinstance(block, ReasoningBlock):
        return {"text": block.reasoning, "thought": True, SIGNATURE: block.signature}
    if isinstance(block, ImageBlock | AudioBlock | VideoBlock | FileBlock):
        mime_type, data = _data(block) or ("", "")
        return {"inline_data": {"mime_type": mime_type, "data": data}}
    return {"text": block.text if isinstance(block, TextBlock) else ""}


def _data(block: Media) -> tuple[str, str] | None:
    """The media type and base64 text of what is given by value, if Gemini takes it."""
    given = inline(block)
    if given is None or given[0] not in MEDIA_TYPES[block.type] or not is_base64(given[1]):
        return None
    return given


def from_parts(parts: Sequence[Part]) -> list[Block]:
    """The blocks of an answer: the texts of pieces that follow each other are one."""
    blocks: list[Block] = []
    for part in parts:
        block = from_part(part)
        last = blocks[-1] if blocks else None
        if isinstance(last, TextBlock) and isinstance(block, TextBlock):
            extras = {**(last.extras or {}), **(block.extras or {})} or None
            blocks[-1] = TextBlock(text=last.text + block.text, extras=extras)
        elif isinstance(last, ReasoningBlock) and isinstance(block, ReasoningBlock):
            signature = block.signature or last.signature
            text = last.reasoning + block.reasoning
            blocks[-1] = ReasoningBlock(reasoning=text, signature=signature)
        else:
            blocks.append(block)
    return blocks


def from_part(part: Part) -> Block:
    """One part of an answer."""
    signature = part.get(SIGNATURE)
    extras = {SIGNATURE: signature} if signature else None
    if "function_call" in part:
        call = part["function_call"]
        args = call.get("args") or {}
        return ToolCallBlock(id=call["id"], name=call["name"], args=args, extras=extras)
    if part.get("thought"):
        return ReasoningBlock(reasoning=part.get("text") or "", signature=signature)
    if "text" in part:
        return TextBlock(text=part["text"], extras=extras)
    if "inline_data" in part:
        given = part["inline_data"]
        data = base64.b64encode(base64.urlsafe_b64decode(given["data"])).decode()
        return ImageBlock(base64=data, mime_type=given.get("mime_type"), extras=extras)
    return OtherBlock(value=part)


def from_answer(answer: Mapping[str, Any], parts: Sequence[Part], model: str) -> SessionMessage:
    """An answer, or the last piece of one, as a reply with these parts."""
    reason = _reason(answer)
    blocks = from_parts(parts)
    if reason in REFUSALS:
        blocks.append(RefusalBlock(refusal=f"(Blocked: {reason.lower()}.)"))
        reason = "refusal"
    elif any(isinstance(block, ToolCallBlock) for block in blocks):
        reason = "tool_calls"
    return SessionMessage(
        role=MessageRole.ASSISTANT,
        content=blocks,
        provider=PROVIDER,
        model=model,
        provider_message_id=answer.get("response_id"),
        usage=_usage(answer.get("usage_metadata") or {}),
        finish_reason=REASONS.get(reason, reason.lower()),
    )


def parts_of(answer: Mapping[str, Any]) -> list[Part]:
    """The parts of an answer, or of one piece of it; a call gets an id if it has none."""
    candidates = answer.get("candidates") or [{}]
    parts: list[Part] = (candidates[0].get("content") or {}).get("parts") or []
    for part in parts:
        if "function_call" in part:
            part["function_call"].setdefault("id", f"call_{uuid4().hex}")
    return parts


def is_finished(answer: Mapping[str, Any]) -> bool:
    """Whether it says why it ended."""
    return bool(_reason(answer))


def _reason(answer: Mapping[str, Any]) -> str:
    candidates = answer.get("candidates") or [{}]
    blocked = (answer.get("prompt_feedback") or {}).get("block_reason")
    return str(candidates[0].get("finish_reason") or blocked or "")


def _usage(counted: Mapping[str, Any]) -> TokenUsage:
    thoughts = counted.get("thoughts_token_count") or 0
    return TokenUsage(
        input_tokens=counted.get("prompt_token_count") or 0,
        output_tokens=(counted.get("candidates_token_count") or 0) + thoughts,
        cached_tokens=counted.get("cached_content_token_count") or 0,
        reasoning_tokens=thoughts,
    )
