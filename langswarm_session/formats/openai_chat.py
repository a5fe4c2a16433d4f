"""The messages of OpenAI's Chat Completions API, which most compatible servers speak.

https://developers.openai.com/api/reference/resources/chat
"""

from __future__ import annotations

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
from langswarm_session.formats.arguments import call_of, text_of_arguments
from langswarm_session.formats.media import data_url, inline, is_base64, web_url, without_none
from langswarm_session.models import MessageRole, SessionMessage, TokenUsage

ChatMessage = dict[str, Any]

CUSTOM = "custom_tool_call"
"""The type, in its extras, of a call that gives its tool text; the same in both formats."""

CALL_ID_LENGTH = 40
"""How long a call's id may be."""

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
        sent["tool_calls"] = [_call(call) for call in calls]
    return sent


def _call(call: ToolCallBlock) -> dict[str, Any]:
    if (call.extras or {}).get("type") == CUSTOM:
        custom = {"name": call.name, "input": str(call.args.get("input", ""))}
        return {"id": call.id, "type": "custom", "custom": custom}
    function = {"name": call.name, "arguments": text_of_arguments(call)}
    return {"id": call.id, "type": "function", "function": function}


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
    blocks += [_call_block(call) for call in message.get("tool_calls") or []]
    reason = choice.get("finish_reason") or "stop"
    if any(isinstance(block, RefusalBlock) for block in blocks):
        reason = "refusal"
    elif reason == "stop" and any(isinstance(block, ToolCallBlock) for block in blocks):
        reason = "tool_calls"  # some servers say so only by the calls
    return SessionMessage(
        role=MessageRole.ASSISTANT,
        content=blocks,
        provider=provider,
        model=model,
        provider_message_id=completion.get("id"),
        usage=usage(completion.get("usage")),
        finish_reason=reason,
    )


def _call_block(call: Mapping[str, Any]) -> ToolCallBlock:
    custom = call.get("custom")
    if custom:
        arguments = {"input": custom.get("input") or ""}
        return ToolCallBlock(
            id=call.get("id"), name=custom["name"], args=arguments, extras={"type": CUSTOM}
        )
    function = call["function"]
    return call_of(call.get("id"), function["name"], function.get("arguments"))


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
        self._content: list[str] = []
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
        return "".join(self._add_choice(choice) for choice in chunk.get("choices") or [])

    def _add_choice(self, choice: Mapping[str, Any]) -> str:
        delta = choice.get("delta") or {}
        content, refusal = delta.get("content") or "", delta.get("refusal") or ""
        self._content.append(content)
        self._refusal.append(refusal)
        for call in delta.get("tool_calls") or []:
            self._add_call(call)
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        return content + refusal

    def _add_call(self, delta: Mapping[str, Any]) -> None:
        # Some servers send each call whole, and without an index.
        index = delta.get("index")
        call = self._calls.setdefault(
            len(self._calls) if index is None else index, {"id": None, "name": "", "text": ""}
        )
        call["id"] = call["id"] or delta.get("id")
        call["custom"] = call.get("custom") or delta.get("custom") is not None
        given = delta.get("custom") or delta.get("function") or {}
        call["name"] += given.get("name") or ""
        call["text"] += given.get("input") or given.get("arguments") or ""

    def completion(self) -> dict[str, Any]:
        """The whole completion."""
        message = {
            "content": "".join(self._content),
            "refusal": "".join(self._refusal),
            "tool_calls": [_assembled(call) for _, call in sorted(self._calls.items())],
        }
        return {
            **self._completion,
            "choices": [{"message": message, "finish_reason": self._finish_reason}],
        }


def _assembled(call: Mapping[str, Any]) -> dict[str, Any]:
    name, text = call["name"], call["text"]
    if call["custom"]:
        return {"id": call["id"], "custom": {"name": name, "input": text}}
    return {"id": call["id"], "function": {"name": name, "arguments": text}}
