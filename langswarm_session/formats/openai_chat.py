"""The messages of OpenAI's Chat Completions API, which most compatible servers speak.

https://developers.openai.com/api/reference/resources/chat. What servers have beside that API is
read as well, and goes back to the model that gave it, as far as its dialect takes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from langswarm_session._media import data_url, inline, is_base64, web_url, without_none
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
    text_of,
)
from langswarm_session.formats.arguments import call_of, parsed, text_of_arguments
from langswarm_session.formats.dialects import OPENAI, Dialect
from langswarm_session.formats.usage import token_count
from langswarm_session.models import MessageRole, SessionMessage, TokenUsage

ChatMessage = dict[str, Any]

NATIVE = "openai_chat"
"""The key under which a message keeps what only the chat format has."""

CUSTOM = "custom_tool_call"
"""The type, in its extras, of a call that gives its tool text; the same in both formats."""

CALL_ID_LENGTH = 40
"""How long a call's id may be."""

REASONING_FIELDS = ("reasoning_content", "reasoning", "reasoning_text")
"""Where a message has its reasoning as text: the first in DeepSeek's format, which many follow; the
second at OpenRouter, Groq, Ollama and vLLM; the third at GitHub Copilot
(https://github.com/BerriAI/litellm/issues/35021)."""

DETAILS = "reasoning_details"
"""Where a message of OpenRouter has it in parts, some of them encrypted or signed."""

_FIELD, _CHUNK, _WRITTEN, _MORE = "field", "chunk", "written", "fields"
"""In the extras of a block: the field that reasoning came in, what a chunk of content had beside
its text, a call's arguments as they were written, and its fields that the API does not have."""

_KNOWN = (
    "role",
    "content",
    "refusal",
    "annotations",
    "audio",
    "images",
    "tool_calls",
    "function_call",
    DETAILS,
    *REASONING_FIELDS,
)
"""The fields of a reply that have a form of their own here."""

_KNOWN_OF_CALLS = ("id", "type", "index", "function", "custom")

_IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_AUDIO_FORMATS = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
_NAME = re.compile(r"[\s<|\\/>]+")

_PARAGRAPH = "\n\n"
"""What stands between texts that are joined."""


def takes(block: Block, in_result: bool) -> bool:
    """Return whether a block can be sent as a message or as a part of one."""
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


def takes_in(block: Block, in_result: bool, *, dialect: Dialect) -> bool:
    """Return whether a block can be sent in a dialect."""
    if isinstance(block, ImageBlock):
        refused = not dialect.takes_images
    elif isinstance(block, AudioBlock):
        refused = not dialect.takes_audio
    else:
        refused = isinstance(block, FileBlock) and not dialect.takes_files
    return not refused and takes(block, in_result)


def takes_back(block: Block, dialect: Dialect) -> bool:
    """Return whether a block goes back to the model that gave it."""
    extras = block.extras or {}
    if isinstance(block, ReasoningBlock):
        return dialect.returns_reasoning and _FIELD in extras
    if isinstance(block, OtherBlock):
        return dialect.returns_reasoning and _CHUNK in extras
    return isinstance(block, RefusalBlock) or (isinstance(block, TextBlock) and bool(block.text))


def to_chat(
    messages: Iterable[SessionMessage],
    dialect: Dialect = OPENAI,
    *,
    provider: str = "",
    model: str = "",
) -> list[ChatMessage]:
    """Messages as a request's messages; each tool's result is one of its own.

    Args:
        messages: Messages that `takes` and `takes_back` have been asked about.
        dialect: How the server speaks.
        provider: The name of who is asked.
        model: The model that is asked: what only its own replies have goes back to it.
    """
    sent: list[ChatMessage] = []
    for message in messages:
        if message.role is MessageRole.ASSISTANT:
            is_own = bool(model) and (message.provider, message.model) == (provider, model)
            sent.append(_assistant(message, dialect, is_own=is_own))
        elif message.role is MessageRole.TOOL:
            sent += [_result(each) for each in message.blocks if isinstance(each, ToolResultBlock)]
        elif message.role is MessageRole.SYSTEM:
            if message.text:
                sent.append({"role": "system", "content": message.text})
        else:
            sent.append(_user(message, dialect))
    return sent


def in_turn(messages: Iterable[ChatMessage]) -> list[ChatMessage]:
    """Messages with those of one speaker in a row joined."""
    sent: list[ChatMessage] = []
    for message in messages:
        last = sent[-1] if sent else None
        if last is not None and last["role"] == message["role"] in ("user", "assistant"):
            sent[-1] = {**last, **message, **_joined(last, message)}
            if last.get("name") != message.get("name"):
                sent[-1].pop("name", None)
        else:
            sent.append(message)
    return sent


def _joined(one: ChatMessage, two: ChatMessage) -> ChatMessage:
    """Return the texts of two messages as those of one."""
    joined: ChatMessage = {}
    for name in ("content", "refusal", *REASONING_FIELDS):
        values = [each[name] for each in (one, two) if each.get(name)]
        if not values:
            continue
        if all(isinstance(value, str) for value in values):
            joined[name] = _PARAGRAPH.join(values)
        else:
            joined[name] = [part for value in values for part in _as_parts(value)]
    return joined


def _as_parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _user(message: SessionMessage, dialect: Dialect) -> ChatMessage:
    name = _NAME.sub("_", message.name)[:64] if message.name and dialect.takes_names else None
    return {
        "role": "user",
        "content": _content(message.content, dialect),
        **without_none(name=name),
    }


def _content(content: str | list[Block], dialect: Dialect) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    parts = [_part(block) for block in content]
    if not dialect.takes_parts and all(part["type"] == "text" for part in parts):
        return _PARAGRAPH.join(part["text"] for part in parts)
    return parts


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


def _assistant(message: SessionMessage, dialect: Dialect, *, is_own: bool) -> ChatMessage:
    blocks = message.blocks
    calls = [block for block in blocks if isinstance(block, ToolCallBlock)]
    refusal = "".join(b.refusal for b in blocks if isinstance(b, RefusalBlock))
    content = _spoken(blocks)
    if refusal and not dialect.takes_refusals and isinstance(content, str):
        content, refusal = content + refusal, ""
    sent: ChatMessage = {"role": "assistant", "content": content}
    if not content and (calls or refusal):
        sent["content"] = dialect.content_of_calls
    sent |= without_none(refusal=refusal or None)
    sent |= _reasoning(blocks)
    if is_own and dialect.echoes:
        sent = {**_kept(message), **sent}
    if calls:
        sent["tool_calls"] = [_call(call, with_more=is_own) for call in calls]
        _complete(sent, dialect, is_own=is_own)
    return sent


def _spoken(blocks: Sequence[Block]) -> str | list[dict[str, Any]]:
    """Return a reply's content: text, or the chunks that it came in."""
    if not any(_CHUNK in (block.extras or {}) for block in blocks):
        return "".join(block.text for block in blocks if isinstance(block, TextBlock))
    chunks: list[dict[str, Any]] = []
    for block in blocks:
        more = (block.extras or {}).get(_CHUNK)
        if isinstance(block, ReasoningBlock) and isinstance(more, Mapping):
            thought = [{"type": "text", "text": block.reasoning}]
            chunks.append({"type": "thinking", "thinking": thought, **more})
        elif isinstance(block, OtherBlock) and more is not None:
            chunks.append(dict(block.value))
        elif isinstance(block, TextBlock | RefusalBlock):
            chunks.append({"type": "text", "text": text_of([block])})
    return chunks


def _reasoning(blocks: Iterable[Block]) -> ChatMessage:
    """Return a reply's reasoning, in the fields that it came in."""
    sent: ChatMessage = {}
    for block in blocks:
        extras = block.extras or {}
        if not isinstance(block, ReasoningBlock) or _CHUNK in extras:
            continue
        field = extras.get(_FIELD)
        if field == DETAILS:
            sent.setdefault(DETAILS, []).extend(extras.get(DETAILS) or ())
        elif field in REASONING_FIELDS:
            sent[field] = sent.get(field, "") + block.reasoning
    return sent


def _complete(sent: ChatMessage, dialect: Dialect, *, is_own: bool) -> None:
    """Put in what a server misses in a message with calls that another model made."""
    field = dialect.needs_reasoning
    if field is not None and not any(name in sent for name in (*REASONING_FIELDS, DETAILS)):
        sent[field] = ""
    calls = sent["tool_calls"]
    if dialect.call_signature is not None and not is_own:
        # "In parallel function calls only the first has a signature":
        # https://ai.google.dev/gemini-api/docs/thought-signatures
        calls[0]["extra_content"] = {"google": {"thought_signature": dialect.call_signature}}


def _kept(message: SessionMessage) -> ChatMessage:
    """Return the fields that a server gave a message beside those of the API."""
    kept = (message.native or {}).get(NATIVE)
    fields = kept.get("set") if isinstance(kept, Mapping) else None
    if not isinstance(fields, Mapping):
        return {}
    return {name: value for name, value in fields.items() if name not in _KNOWN}


def _call(call: ToolCallBlock, *, with_more: bool) -> dict[str, Any]:
    extras = call.extras or {}
    more = extras.get(_MORE)
    fields = dict(more) if with_more and isinstance(more, Mapping) else {}
    if extras.get("type") == CUSTOM:
        custom = {"name": call.name, "input": str(call.args.get("input", ""))}
        return {**fields, "id": call.id, "type": "custom", "custom": custom}
    function = {"name": call.name, "arguments": _arguments(call)}
    return {**fields, "id": call.id, "type": "function", "function": function}


def _arguments(call: ToolCallBlock) -> str:
    """Return a call's arguments, as the model wrote them if they are still the same."""
    written = (call.extras or {}).get(_WRITTEN)
    is_same = isinstance(written, str) and parsed(written) == call.args
    return str(written) if is_same else text_of_arguments(call)


def _result(block: ToolResultBlock) -> ChatMessage:
    text = block.content if isinstance(block.content, str) else text_of(block.content)
    return {"role": "tool", "tool_call_id": block.tool_call_id, "content": text}


def failure_of(completion: Mapping[str, Any]) -> object | None:
    """Return what a completion says of a failure in place of a reply; None if it is one.

    OpenRouter ends with the reason ``error`` what failed after it had begun:
    https://openrouter.ai/docs/api/reference/errors-and-debugging.
    """
    choices = completion.get("choices") or [{}]
    choice = choices[0] if isinstance(choices[0], Mapping) else {}
    if choice.get("error"):
        return {"error": choice["error"]}
    if choice.get("finish_reason") == "error":
        return {"error": completion.get("error") or {"code": 502, "message": "the model failed"}}
    return None


def from_completion(
    completion: Mapping[str, Any], model: str, provider: str = "openai"
) -> SessionMessage:
    """Return a completion as a reply.

    Args:
        completion: The completion, as plain data.
        model: The model that was asked for.
        provider: The name of who was asked.
    """
    choice = completion["choices"][0]
    message = choice["message"]
    blocks = [*_reasoning_blocks(message), *_spoken_blocks(message)]
    refusal = message.get("refusal")
    if refusal and isinstance(refusal, str):
        blocks.append(RefusalBlock(refusal=refusal))
    blocks += _media_blocks(message)
    blocks += _call_blocks(message)
    more = {name: value for name, value in message.items() if name not in _KNOWN and value}
    return SessionMessage(
        role=MessageRole.ASSISTANT,
        content=blocks,
        provider=provider,
        model=model,
        provider_message_id=_id(completion.get("id")),
        usage=usage(completion.get("usage")),
        finish_reason=_finish_reason(str(choice.get("finish_reason") or "stop"), blocks),
        native={NATIVE: {"set": more, "without": []}} if more else None,
    )


def _id(value: object) -> str | None:
    """Return an id, which some servers give as a number."""
    return None if value is None or value == "" else str(value)


def _finish_reason(reason: str, blocks: Sequence[Block]) -> str:
    if any(isinstance(block, RefusalBlock) for block in blocks):
        return "refusal"
    # Some servers say so only by the calls; `function_call` is the legacy form.
    has_calls = any(isinstance(block, ToolCallBlock) for block in blocks)
    return "tool_calls" if has_calls and reason in ("stop", "function_call") else reason


def _reasoning_blocks(message: Mapping[str, Any]) -> Iterator[ReasoningBlock]:
    """Return a reply's reasoning. What several fields say alike is one block."""
    text, field = next(
        ((message[name], name) for name in REASONING_FIELDS if message.get(name)), ("", "")
    )
    details = message.get(DETAILS)
    if details and isinstance(details, list):
        extras = {_FIELD: DETAILS, DETAILS: details}
        yield ReasoningBlock(reasoning=str(text) or _text_of_details(details), extras=extras)
    elif text:
        yield ReasoningBlock(reasoning=str(text), extras={_FIELD: field})


def _text_of_details(details: Iterable[Any]) -> str:
    """Return what may be read of OpenRouter's parts of reasoning."""
    parts = [each for each in details if isinstance(each, Mapping)]
    return "".join(str(part.get("text") or part.get("summary") or "") for part in parts)


def _spoken_blocks(message: Mapping[str, Any]) -> Iterator[Block]:
    content = message.get("content")
    noted = as_list(message.get("annotations")) or None
    if isinstance(content, str):
        if content:
            yield TextBlock(text=content, annotations=noted)
    elif content is not None:
        for chunk in as_chunks(content):
            yield _chunk_block(chunk)


def as_list(value: object) -> list[dict[str, Any]]:
    """Return the objects of a list, or of what a server gives in its place."""
    values = value if isinstance(value, list) else [value]
    return [dict(each) for each in values if isinstance(each, Mapping)]


def as_chunks(content: object) -> list[dict[str, Any]]:
    """Return content other than a string as chunks: one chunk, or a list of chunks or texts."""
    values = content if isinstance(content, list) else [content]
    return [_as_chunk(each) for each in values if each is not None]


def _as_chunk(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {"type": "text", "text": str(value)}


def _chunk_block(chunk: Mapping[str, Any]) -> Block:
    """Return a chunk of a content that is a list, as Mistral's reasoning models give it.

    https://docs.mistral.ai/studio-api/conversations/reasoning
    """
    kind = chunk.get("type")
    if kind == "text":
        return TextBlock(text=str(chunk.get("text") or ""))
    if kind == "thinking":
        more = {name: value for name, value in chunk.items() if name not in ("type", "thinking")}
        text = thought_of(chunk)
        return ReasoningBlock(reasoning=text, extras={_FIELD: "content", _CHUNK: more})
    if kind == "image_url":
        return _image(chunk)
    return OtherBlock(value=dict(chunk), extras={_CHUNK: {}})


def thought_of(chunk: Mapping[str, Any]) -> str:
    """Return the text of a chunk of thinking: itself, or that of its parts."""
    inner = chunk.get("thinking")
    if isinstance(inner, list):
        return "".join(str(each.get("text") or "") for each in inner if isinstance(each, Mapping))
    return str(inner or "")


def _image(part: Mapping[str, Any] | str) -> ImageBlock:
    inner = part.get("image_url") if isinstance(part, Mapping) else part
    url = inner.get("url") if isinstance(inner, Mapping) else inner
    head, comma, data = str(url or "").partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        return ImageBlock(mime_type=head[5:-7], base64=data)
    return ImageBlock(url=str(url or ""))


def _media_blocks(message: Mapping[str, Any]) -> Iterator[Block]:
    """Pictures (OpenRouter) and sound (OpenAI) of a reply.

    https://openrouter.ai/docs/features/multimodal/image-generation,
    https://developers.openai.com/api/docs/guides/audio
    """
    for part in message.get("images") or ():
        yield _image(part)
    sound = message.get("audio")
    if sound:
        more = {name: value for name, value in sound.items() if name != "data"}
        yield AudioBlock(base64=sound.get("data"), extras=more or None)


def _call_blocks(message: Mapping[str, Any]) -> Iterator[ToolCallBlock]:
    legacy = message.get("function_call")
    if legacy and not message.get("tool_calls"):
        yield _function(None, legacy, {})
    for call in as_list(message.get("tool_calls")):
        more = {name: call[name] for name in call if name not in _KNOWN_OF_CALLS and call[name]}
        extras: dict[str, Any] = {_MORE: more} if more else {}
        custom = call.get("custom")
        if custom:
            arguments = {"input": custom.get("input") or ""}
            extras["type"] = CUSTOM
            yield ToolCallBlock(
                id=_id(call.get("id")), name=custom["name"], args=arguments, extras=extras
            )
        else:
            yield _function(_id(call.get("id")), call["function"], extras)


def _function(
    call_id: str | None, function: Mapping[str, Any], extras: dict[str, Any]
) -> ToolCallBlock:
    """Return the call of a function, whose arguments some servers give as an object."""
    given = function.get("arguments")
    text = given if isinstance(given, str) or given is None else to_json(given).decode()
    call = call_of(call_id, function.get("name") or "", text, **extras)
    if not text or text_of_arguments(call) == text or parsed(text) is None:
        return call
    return call.model_copy(update={"extras": {**(call.extras or {}), _WRITTEN: text}})


def usage(counted: Mapping[str, Any] | None) -> TokenUsage | None:
    """Token usage; None where a server counts nothing."""
    if not counted or not isinstance(counted, Mapping):
        return None
    read = _details(counted, "prompt_tokens_details")
    # DeepSeek and Kimi count what was read from the cache beside the details.
    cached = (read.get("cached_tokens"), *map(counted.get, ("prompt_cache_hit_tokens", "cached_tokens")))  # fmt: skip  # noqa: E501
    written = token_count(read.get("cache_write_tokens"))
    reasoning = _details(counted, "completion_tokens_details").get("reasoning_tokens")
    return TokenUsage(
        input_tokens=token_count(counted.get("prompt_tokens")),
        output_tokens=token_count(counted.get("completion_tokens")),
        cached_tokens=next((count for count in map(token_count, cached) if count), 0),
        reasoning_tokens=token_count(reasoning),
        details={"cache_write_tokens": written} if written else None,
    )


def _details(counted: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    details = counted.get(name)
    return details if isinstance(details, Mapping) else {}
