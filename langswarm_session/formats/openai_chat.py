"""The messages of OpenAI's Chat Completions API, which most compatible servers speak.

https://developers.openai.com/api/reference/resources/chat
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from langswarm_session.blocks import (
    AudioBlock,
    Block,
    FileBlock,
    ImageBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    text_of,
)
from langswarm_session.formats.media import data_url, inline, is_base64, web_url, without_none
from langswarm_session.models import MessageRole, SessionMessage, TokenUsage

ChatMessage = dict[str, Any]

_IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_AUDIO_FORMATS = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
_NAME = re.compile(r"[\s<|\\/>]+")


def takes(block: Block, in_result: bool) -> bool:
    """Whether a block can be sent as a message or as a part of one."""
    if isinstance(block, TextBlock):
        return True
    if in_result:
        return False
    if isinstance(block, ImageBlock | FileBlock | AudioBlock):
        given = inline(block)
        if given is not None:
            return is_base64(given[1]) and (
                (isinstance(block, ImageBlock) and given[0] in _IMAGE_TYPES)
                or (isinstance(block, AudioBlock) and given[0] in _AUDIO_FORMATS)
                or isinstance(block, FileBlock)
            )
        if isinstance(block, ImageBlock):
            return web_url(block) is not None
        return isinstance(block, FileBlock) and (block.file_id or "").startswith("file-")
    return isinstance(block, RefusalBlock | ToolCallBlock)


def to_chat(messages: Iterable[SessionMessage]) -> list[ChatMessage]:
    """Messages as a request's messages; each tool's result is one of its own."""
    sent: list[ChatMessage] = []
    for message in messages:
        if message.role is MessageRole.ASSISTANT:
            sent.append(_assistant(message))
        elif message.role is MessageRole.TOOL:
            sent += [_result(each) for each in message.blocks if isinstance(each, ToolResultBlock)]
        elif message.role is MessageRole.SYSTEM:
            if message.text:
                sent.append({"role": "system", "content": message.text})
        else:
            sent.append(_user(message))
    return sent


def _user(message: SessionMessage) -> ChatMessage:
    content = message.content
    name = _NAME.sub("_", message.name)[:64] if message.name else None
    return {
        "role": "user",
        "content": content if isinstance(content, str) else [_part(block) for block in content],
        **without_none(name=name),
    }


def _part(block: Block) -> dict[str, Any]:
    if isinstance(block, ImageBlock):
        return {"type": "image_url", "image_url": {"url": data_url(block) or web_url(block)}}
    if isinstance(block, AudioBlock):
        kind, data = inline(block) or ("", "")
        return {
            "type": "input_audio",
            "input_audio": {"data": data, "format": _AUDIO_FORMATS[kind]},
        }
    if isinstance(block, FileBlock):
        data_or_none = data_url(block)
        file = (
            {"file_id": block.file_id}
            if data_or_none is None
            else {"filename": block.filename or "file", "file_data": data_or_none}
        )
        return {"type": "file", "file": file}
    return {"type": "text", "text": text_of([block])}


def _assistant(message: SessionMessage) -> ChatMessage:
    calls = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    text = "".join(block.text for block in message.blocks if isinstance(block, TextBlock))
    refusal = "".join(b.refusal for b in message.blocks if isinstance(b, RefusalBlock))
    sent: ChatMessage = {"role": "assistant"}
    if text or not (calls or refusal):
        sent["content"] = text
    if refusal:
        sent["refusal"] = refusal
    if calls:
        sent["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call)},
            }
            for call in calls
        ]
    return sent


def _arguments(call: ToolCallBlock) -> str:
    raw = (call.extras or {}).get("arguments")
    return json.dumps(call.args) if raw is None else str(raw)


def _result(block: ToolResultBlock) -> ChatMessage:
    text = block.content if isinstance(block.content, str) else text_of(block.content)
    return {"role": "tool", "tool_call_id": block.tool_call_id, "content": text}


def from_completion(
    completion: Mapping[str, Any], model: str, provider: str = "openai"
) -> SessionMessage:
    """A completion as a reply.

    Args:
        completion: The completion, as plain data.
        model: The model that was asked for.
        provider: The name of who was asked.
    """
    choice = completion["choices"][0]
    message = choice["message"]
    blocks: list[Block] = []
    if message.get("content"):
        blocks.append(TextBlock(text=message["content"]))
    if message.get("refusal"):
        blocks.append(RefusalBlock(refusal=message["refusal"]))
    blocks += [
        call_block(call.get("id"), call["function"]["name"], call["function"].get("arguments"))
        for call in message.get("tool_calls") or []
        if call.get("function")
    ]
    reason = choice.get("finish_reason") or "stop"
    if any(isinstance(block, RefusalBlock) for block in blocks):
        reason = "refusal"
    return SessionMessage(
        role=MessageRole.ASSISTANT,
        content=blocks,
        provider=provider,
        model=model,
        provider_message_id=completion.get("id"),
        usage=usage(completion.get("usage")),
        finish_reason=reason,
    )


def call_block(call_id: str | None, name: str, arguments: str | None) -> ToolCallBlock:
    """A call whose arguments are JSON text, or what a model took for it."""
    try:
        parsed = json.loads(arguments) if arguments else {}
    except ValueError:
        parsed = None
    if isinstance(parsed, dict):
        return ToolCallBlock(id=call_id, name=name, args=parsed)
    return ToolCallBlock(id=call_id, name=name, extras={"arguments": arguments or ""})


def usage(counted: Mapping[str, Any] | None) -> TokenUsage | None:
    """Token usage; None where a server counts nothing."""
    if not counted:
        return None
    return TokenUsage(
        input_tokens=counted.get("prompt_tokens") or 0,
        output_tokens=counted.get("completion_tokens") or 0,
        cached_tokens=(counted.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        reasoning_tokens=(counted.get("completion_tokens_details") or {}).get("reasoning_tokens")
        or 0,
    )


class ChunkAssembler:
    """Puts the chunks of a streamed completion together."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._completion: dict[str, Any] = {}
        self._finish_reason: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the model has said why it stopped."""
        return self._finish_reason is not None

    def add(self, chunk: Mapping[str, Any]) -> str:
        """Take a chunk in; returns its new text."""
        self._completion.update(without_none(id=chunk.get("id"), usage=chunk.get("usage")))
        text = ""
        for choice in chunk.get("choices") or []:
            delta = choice.get("delta") or {}
            text += delta.get("content") or ""
            self._refusal.append(delta.get("refusal") or "")
            for call in delta.get("tool_calls") or []:
                self._add_call(call)
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
        self._text.append(text)
        return text

    def _add_call(self, delta: Mapping[str, Any]) -> None:
        index = delta.get("index", len(self._calls))
        call = self._calls.setdefault(index, {"id": None, "name": "", "arguments": ""})
        function = delta.get("function") or {}
        call["id"] = call["id"] or delta.get("id")
        call["name"] += function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""

    def completion(self) -> dict[str, Any]:
        """The whole completion."""
        message = {
            "content": "".join(self._text),
            "refusal": "".join(self._refusal),
            "tool_calls": [
                {"id": c["id"], "function": {"name": c["name"], "arguments": c["arguments"]}}
                for _, c in sorted(self._calls.items())
            ],
        }
        return {
            **self._completion,
            "choices": [{"message": message, "finish_reason": self._finish_reason}],
        }
