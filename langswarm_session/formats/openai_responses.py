"""The items of OpenAI's Responses and Conversations APIs.

https://developers.openai.com/api/reference/resources/responses. A reply's items become one message,
its blocks in their order; a block keeps its item's id and whatever of the item has no field here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from langswarm_session._media import data_url, inline, is_base64, web_url, without_none
from langswarm_session.blocks import (
    Block,
    FileBlock,
    ImageBlock,
    JsonObject,
    OtherBlock,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    text_of,
)
from langswarm_session.formats.arguments import call_of, text_of_arguments
from langswarm_session.formats.native import MALFORMED
from langswarm_session.formats.openai_items import Item, as_input, can_be_input, is_good_id
from langswarm_session.models import NOTES, MessageRole, SessionMessage, TokenUsage

NAME = "openai"
"""The provider whose items these are."""

NATIVE = "openai_responses"
"""The key under which a reply keeps its items where its blocks could not give them back."""

CALL_ID_LENGTH = 64
"""How long a call's id may be."""

REASONING = "reasoning.encrypted_content"
IMAGES = "message.input_image.image_url"
"""What is to be asked for by name (``include``), or items come without it."""

_FINISH_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}

_DETAILS = ("low", "high", "auto", "original")
_PHASES = ("commentary", "final_answer")

_IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")


def takes(block: Block, in_result: bool) -> bool:
    """Return whether OpenAI takes a block as an item or as a part of one."""
    if isinstance(block, ReasoningBlock):
        return bool(block.encrypted and block.id)
    return _takes(block, in_result)


def takes_back(block: Block) -> bool:
    """Return whether OpenAI takes a block back in a reply that it gave.

    A compaction repeats what users said as items of its own.
    """
    if isinstance(block, OtherBlock) and block.kind == "message":
        return block.value.get("role") == "user" and bool(block.value.get("content"))
    return takes(block, in_result=False)


def takes_back_readable(block: Block) -> bool:
    """Return whether a compatible server takes a block back that it gave: readable reasoning too.

    Servers of open models give their reasoning as ``content`` and read it from there: vLLM in
    https://github.com/vllm-project/vllm/pull/28248.
    """
    if isinstance(block, ReasoningBlock) and block.id and _content(block):
        return True
    return takes_back(block)


def _takes(block: Block, in_result: bool) -> bool:
    if isinstance(block, TextBlock):
        return True
    if isinstance(block, ImageBlock):
        given = inline(block)
        if given is not None:
            return given[0] in _IMAGE_TYPES and is_base64(given[1])
        return bool(web_url(block) or _file_id(block))
    if isinstance(block, FileBlock):
        given = inline(block)
        return is_base64(given[1]) if given is not None else bool(web_url(block) or _file_id(block))
    if isinstance(block, OtherBlock):
        return not in_result and can_be_input(block.value)
    return isinstance(block, RefusalBlock | ToolCallBlock) and not in_result


def instructions(messages: Iterable[SessionMessage]) -> str:
    """Return what system messages say, for where it travels apart from the items."""
    said = (message.text for message in messages if is_system(message))
    return "\n\n".join(text for text in said if text)


def is_system(message: SessionMessage) -> bool:
    """Return whether a message is a system message."""
    return message.role is MessageRole.SYSTEM


def to_items(
    messages: Iterable[SessionMessage],
    *,
    with_ids: bool = False,
    known: Iterable[SessionMessage] = (),
) -> list[Item]:
    """Return messages as input items; see `ItemWriter`.

    Args:
        messages: Messages that `takes` has been asked about.
        with_ids: Whether the items go back to where their ids are known.
        known: Messages that may have made the calls which these answer.
    """
    writer = ItemWriter(with_ids=with_ids, known=known)
    return [item for message in messages for item in writer.write(message)]


class ItemWriter:
    """Writes messages as input items, in the order in which they are sent.

    System messages become what a developer says in their place.

    Args:
        with_ids: Whether the items go back to where their ids are known.
        known: Messages that may have made the calls which later ones answer.
        verbatim: Tells which replies go back exactly as they came, ids included.
    """

    def __init__(
        self,
        *,
        with_ids: bool = False,
        known: Iterable[SessionMessage] = (),
        verbatim: Callable[[SessionMessage], bool] | None = None,
    ) -> None:
        self._with_ids = with_ids
        self._verbatim = verbatim
        self._custom = {
            block.id or "" for message in known for block in message.blocks if _is_custom(block)
        }

    def write(self, message: SessionMessage) -> list[Item]:
        """Return the items for the next message, one that `takes` has been asked about."""
        if message.role is MessageRole.ASSISTANT:
            if self._verbatim is not None and self._verbatim(message):
                return _exactly(message, self._custom)
            return _output_items(message.blocks, self._with_ids, self._custom)
        if message.role is MessageRole.TOOL:
            results = (block for block in message.blocks if isinstance(block, ToolResultBlock))
            return [_result(block, self._custom) for block in results]
        if message.role is MessageRole.SYSTEM:
            return [developer_item(message.text)]
        return _user_items(message)


def developer_item(text: str) -> Item:
    """Return what the developer of a program says in the place where it is said."""
    return {"type": "message", "role": "developer", "content": text}


def _exactly(message: SessionMessage, custom: set[str]) -> list[Item]:
    """Return the items of a reply as they came, unless its content was changed since."""
    made = _output_items(message.blocks, with_ids=True, custom=custom)
    kept = (message.native or {}).get(NATIVE)
    if kept is None:
        return made
    try:
        output = kept["output"]
        same = from_output(output) == message.blocks
    except MALFORMED:
        return made
    return [as_input(item) for item in output] if same else made


def _user_items(message: SessionMessage) -> list[Item]:
    content = message.content
    if isinstance(content, str):
        return [{"type": "message", "role": "user", "content": content}]
    items: list[Item] = []
    parts = [_part(block) for block in content if not isinstance(block, OtherBlock)]
    if parts:
        items.append({"type": "message", "role": "user", "content": parts})
    return items + [as_input(block.value) for block in content if isinstance(block, OtherBlock)]


def _part(block: Block) -> Item:
    if isinstance(block, ImageBlock):
        detail = (block.extras or {}).get("detail")
        url = data_url(block) or web_url(block)
        file_id = None if url else _file_id(block)
        return {
            "type": "input_image",
            "detail": detail if detail in _DETAILS else "auto",
            **without_none(image_url=url, file_id=file_id),
        }
    if isinstance(block, FileBlock):
        data = data_url(block)
        if data is not None:
            return {"type": "input_file", "filename": block.filename or "file", "file_data": data}
        url = web_url(block)
        if url is not None:
            return {"type": "input_file", "file_url": url}
        return {"type": "input_file", "file_id": block.file_id}
    return {"type": "input_text", "text": text_of([block])}


def _file_id(block: ImageBlock | FileBlock) -> str | None:
    file_id = block.file_id
    return file_id if file_id and file_id.startswith("file-") else None


def _result(block: ToolResultBlock, custom: set[str]) -> Item:
    content = block.content
    output: str | list[Item]
    output = content if isinstance(content, str) else [_part(each) for each in content]
    kind = "custom_tool_call" if block.tool_call_id in custom else "function_call"
    return {"type": f"{kind}_output", "call_id": block.tool_call_id, "output": output}


def _output_items(blocks: Sequence[Block], with_ids: bool, custom: set[str]) -> list[Item]:
    """Return the items of an assistant's message."""
    items: list[Item] = []
    texts: list[Block] = []
    for place, block in enumerate(blocks):
        if isinstance(block, TextBlock | RefusalBlock):
            if texts and texts[-1].id != block.id:
                items.append(_message(texts, with_ids))
                texts = []
            texts.append(block)
            continue
        if texts:
            items.append(_message(texts, with_ids))
            texts = []
        if isinstance(block, ReasoningBlock):
            if any(not isinstance(after, ReasoningBlock) for after in blocks[place + 1 :]):
                items.append(_reasoning(block))
        elif isinstance(block, ToolCallBlock):
            items.append(_call(block, with_ids, custom))
        elif isinstance(block, OtherBlock):
            items.append(as_input(block.value))
    if texts:
        items.append(_message(texts, with_ids))
    return items


def _message(blocks: Sequence[Block], with_ids: bool) -> Item:
    first = blocks[0]
    phase = (first.extras or {}).get("phase")
    phase = phase if phase in _PHASES else None
    if not (with_ids and is_good_id("message", first.id)):
        # Without an id it is what a caller says that the model said.
        return {
            "type": "message",
            "role": "assistant",
            "content": text_of(list(blocks)),
            **without_none(phase=phase),
        }
    return {
        "type": "message",
        "role": "assistant",
        "id": first.id,
        "status": "completed",
        "content": [_output_part(block) for block in blocks],
        **without_none(phase=phase),
    }


def _output_part(block: Block) -> Item:
    if isinstance(block, RefusalBlock):
        return {"type": "refusal", "refusal": block.refusal}
    return {
        "type": "output_text",
        "text": text_of([block]),
        "annotations": (block.annotations or []) if isinstance(block, TextBlock) else [],
    }


def _reasoning(block: ReasoningBlock) -> Item:
    content = _content(block)
    summary = (block.extras or {}).get("summary")
    if summary is None:
        summary = [block.reasoning] if block.reasoning and not content else []
    item: Item = {
        "type": "reasoning",
        "id": block.id,
        "summary": [{"type": "summary_text", "text": text} for text in summary],
    }
    if content:
        item["content"] = [{"type": "reasoning_text", "text": text} for text in content]
    return item | without_none(encrypted_content=block.encrypted)


def _content(block: ReasoningBlock) -> list[str]:
    """Return the reasoning itself, as servers give it that do not hide it."""
    content = (block.extras or {}).get("content")
    if not isinstance(content, list):
        return []
    return [text for text in content if isinstance(text, str)]


def _call(block: ToolCallBlock, with_ids: bool, custom: set[str]) -> Item:
    kind = "custom_tool_call" if _is_custom(block) else "function_call"
    item_id = (block.extras or {}).get("item_id")
    known = {"id": item_id} if with_ids and is_good_id(kind, item_id) else {}
    if _is_custom(block):
        custom.add(block.id or "")
        return {
            "type": "custom_tool_call",
            "call_id": block.id,
            "name": block.name,
            "input": str(block.args.get("input", "")),
            **known,
        }
    return {
        "type": "function_call",
        "call_id": block.id,
        "name": block.name,
        "arguments": text_of_arguments(block),
        **known,
    }


def _is_custom(block: Block) -> bool:
    """Return whether a call gives its tool text in place of arguments."""
    extras = block.extras or {}
    return isinstance(block, ToolCallBlock) and extras.get("type") == "custom_tool_call"


def from_items(items: Iterable[Mapping[str, Any]]) -> list[SessionMessage]:
    """Items as messages: what a model gave in a row is one message, as are results in a row."""
    messages: list[SessionMessage] = []
    for kind, run in groupby(items, _speaker):
        if kind == "assistant":
            messages.append(_assistant(list(run)))
        elif kind == "tool":
            messages.append(_tool_message(list(run)))
        else:
            messages += [_input_message(item) for item in run]
    return messages


def _speaker(item: Mapping[str, Any]) -> str:
    kind = item.get("type", "message")
    if kind in ("function_call_output", "custom_tool_call_output"):
        return "tool"
    return "user" if kind == "message" and item.get("role") != "assistant" else "assistant"


def from_output(items: Iterable[Mapping[str, Any]]) -> list[Block]:
    """Return a reply's items as blocks."""
    return [block for item in items for block in _output_blocks(item)]


def from_response(response: Mapping[str, Any], model: str) -> SessionMessage:
    """Return a response as a reply.

    Args:
        response: The response, as plain data.
        model: The model that was asked for.
    """
    output = response.get("output") or []
    blocks = from_output(output)
    changes = response.get("input_transformations")
    return SessionMessage(
        role=MessageRole.ASSISTANT,
        content=blocks,
        metadata={NOTES: {"input_transformations": changes}} if changes else {},
        provider=NAME,
        model=model,
        provider_message_id=response.get("id"),
        usage=usage(response.get("usage")),
        finish_reason=finish_reason(response, blocks),
        native=_beside(output, blocks),
    )


def compaction_of(response: Mapping[str, Any], model: str) -> SessionMessage:
    """Return a compaction as a message: its items as they came.

    Args:
        response: What ``responses.compact`` gave, as plain data.
        model: The model that was asked for.
    """
    blocks: list[Block] = [
        OtherBlock(id=item.get("id"), value=dict(item)) for item in response["output"]
    ]
    return SessionMessage(
        role=MessageRole.ASSISTANT,
        content=blocks,
        provider=NAME,
        model=model,
        provider_message_id=response.get("id"),
        usage=usage(response.get("usage")),
        finish_reason="compaction",
    )


def _beside(output: Sequence[Mapping[str, Any]], blocks: Sequence[Block]) -> JsonObject | None:
    """Return what is kept beside a reply: its items, where its blocks could not give them back."""
    if _output_items(blocks, with_ids=True, custom=set()) == [as_input(item) for item in output]:
        return None
    return {NATIVE: {"output": [dict(item) for item in output]}}


def finish_reason(response: Mapping[str, Any], blocks: Sequence[Block]) -> str:
    """Why a response ended, in the words of `SessionMessage.finish_reason`."""
    if response.get("status") == "incomplete":
        reason = (response.get("incomplete_details") or {}).get("reason") or "incomplete"
        return _FINISH_REASONS.get(reason, reason)
    if any(isinstance(block, ToolCallBlock) for block in blocks):
        return "tool_calls"
    if any(isinstance(block, RefusalBlock) for block in blocks):
        return "refusal"
    return "stop"


def usage(counted: Mapping[str, Any] | None) -> TokenUsage | None:
    """Token usage; None where a server counts nothing."""
    if not counted:
        return None
    read = counted.get("input_tokens_details") or {}
    written = read.get("cache_write_tokens")
    return TokenUsage(
        input_tokens=counted.get("input_tokens") or 0,
        output_tokens=counted.get("output_tokens") or 0,
        cached_tokens=read.get("cached_tokens") or 0,
        reasoning_tokens=(counted.get("output_tokens_details") or {}).get("reasoning_tokens") or 0,
        details={"cache_write_tokens": written} if written else None,
    )


def _assistant(items: Sequence[Mapping[str, Any]]) -> SessionMessage:
    named = next((item for item in items if item.get("type") == "message"), items[-1])
    return SessionMessage(
        role=MessageRole.ASSISTANT,
        content=from_output(items),
        provider=NAME,
        provider_message_id=named.get("id"),
    )


def _output_blocks(item: Mapping[str, Any]) -> list[Block]:
    kind = item.get("type", "message")
    if kind == "message":
        return _text_blocks(item)
    if kind == "reasoning":
        return [_reasoning_block(item)]
    if kind == "function_call":
        return [_call_block(item)]
    if kind == "custom_tool_call":
        extras = {"type": kind, **without_none(item_id=item.get("id"))}
        arguments = {"input": item.get("input", "")}
        return [ToolCallBlock(id=item["call_id"], name=item["name"], args=arguments, extras=extras)]
    return [OtherBlock(id=item.get("id"), value=dict(item))]


def _text_blocks(item: Mapping[str, Any]) -> list[Block]:
    content = item.get("content") or []
    if isinstance(content, str):
        return [TextBlock(text=content)]
    extras = without_none(phase=item.get("phase")) or None
    blocks: list[Block] = []
    for part in content:
        if part.get("type") == "refusal":
            blocks.append(
                RefusalBlock(id=item.get("id"), refusal=part.get("refusal", ""), extras=extras)
            )
        else:
            blocks.append(
                TextBlock(
                    id=item.get("id"),
                    text=part.get("text", ""),
                    annotations=part.get("annotations") or None,
                    extras=extras,
                )
            )
    return blocks


def _reasoning_block(item: Mapping[str, Any]) -> ReasoningBlock:
    summary = [part.get("text", "") for part in item.get("summary") or []]
    content = [part.get("text", "") for part in item.get("content") or []]
    extras = without_none(
        summary=summary if len(summary) > 1 or (summary and content) else None,
        content=content or None,
    )
    return ReasoningBlock(
        id=item.get("id"),
        reasoning="\n\n".join(summary or content),
        encrypted=item.get("encrypted_content"),
        extras=extras or None,
    )


def _call_block(item: Mapping[str, Any]) -> ToolCallBlock:
    extras = without_none(item_id=item.get("id"))
    return call_of(item["call_id"], item["name"], item.get("arguments"), **extras)


def _input_message(item: Mapping[str, Any]) -> SessionMessage:
    role = MessageRole.SYSTEM if item.get("role") in ("system", "developer") else MessageRole.USER
    content = item.get("content") or ""
    blocks = content if isinstance(content, str) else [_input_block(part) for part in content]
    if isinstance(blocks, list) and all(isinstance(block, TextBlock) for block in blocks):
        blocks = text_of(blocks)
    return SessionMessage(role=role, content=blocks, provider_message_id=item.get("id"))


def _input_block(part: Mapping[str, Any]) -> Block:
    kind = part.get("type")
    if kind == "input_image":
        url = part.get("image_url")
        return ImageBlock(url=url, file_id=part.get("file_id"))
    if kind == "input_file":
        return FileBlock(
            url=part.get("file_data") or part.get("file_url"),
            file_id=part.get("file_id"),
            filename=part.get("filename"),
        )
    if "text" in part:
        return TextBlock(text=part["text"])
    return OtherBlock(value=dict(part))


def _tool_message(items: Sequence[Mapping[str, Any]]) -> SessionMessage:
    return SessionMessage(
        role=MessageRole.TOOL,
        content=[_result_block(item) for item in items],
        provider_message_id=items[0].get("id"),
    )


def _result_block(item: Mapping[str, Any]) -> ToolResultBlock:
    output = item.get("output") or ""
    content = output if isinstance(output, str) else [_input_block(part) for part in output]
    return ToolResultBlock(tool_call_id=item.get("call_id") or "", content=content)
