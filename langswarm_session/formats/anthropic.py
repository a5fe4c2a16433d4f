"""The messages and content blocks of Anthropic's Messages API.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langswarm_session._media import Media, inline, is_base64, web_url
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
from langswarm_session.formats.arguments import call_of, object_of_arguments
from langswarm_session.formats.usage import token_count
from langswarm_session.models import NOTES, RESULT_ROLES, MessageRole, SessionMessage, TokenUsage
from langswarm_session.requests.normalize import Repair, RepairKind
from langswarm_session.requests.normalize.target import has_fields

Param = dict[str, Any]
Report = Callable[[Repair], None]

NAME = "anthropic"
"""The provider whose blocks these are."""

_IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")

USER_BLOCKS: dict[str, dict[str, type]] = {
    "search_result": {"content": list, "source": str, "title": str},
    "document": {"source": dict},
    "container_upload": {"file_id": str},
}
"""Those of them a user may send, with the fields that the SDK's ``anthropic.types`` require."""

_KEPT_CITATION = "web_search_result_location"
"""The one citation that is always sent back: the API asks for it. The others count the documents of
the request they were made in, which a request with another beginning may not have."""

CONTAINER, TRANSFORMATIONS = "container", "input_transformations"
"""What is kept of a response beside its message, in the message's metadata."""

_ASSISTANT, _SYSTEM = MessageRole.ASSISTANT, MessageRole.SYSTEM

_OTHERS = ("search_result", "document", "container_upload", "compaction", "fallback")
"""Blocks of the API that have no form of their own here, beside those of tools that it runs."""

_THINKING = ("thinking", "redacted_thinking")

_FIELDS = {
    "text": ("type", "text", "citations"),
    "thinking": ("type", "thinking", "signature"),
    "redacted_thinking": ("type", "data"),
    "tool_use": ("type", "id", "name", "input"),
}
"""The fields of a block that have a place in its neutral form; the rest is kept in its extras."""

_CACHE = "cache_control"
"""A marker of the request that a block was once in. Each request has its own, and more than four
are refused: https://platform.claude.com/docs/en/build-with-claude/prompt-caching."""

_OF_USERS = ("citations", "context", "title")
"""The fields that a user's block may have beside its neutral form; another would be refused."""

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}


def takes(block: Block, in_result: bool) -> bool:
    """Return whether a block can be sent as a content block."""
    if isinstance(block, TextBlock):
        return bool(block.text.strip())
    if isinstance(block, ImageBlock | FileBlock):
        return _source(block) is not None
    if isinstance(block, ReasoningBlock):
        return bool(block.signature or block.encrypted) and not in_result
    if isinstance(block, OtherBlock):
        return _takes_other(block.value, block.kind, in_result)
    return isinstance(block, ToolCallBlock) and not in_result


def takes_back(*, unsigned: bool, empty_texts: bool) -> Callable[[Block], bool]:
    """Return what tells whether a block goes back in a reply of the model that gave it.

    Args:
        unsigned: Whether its thinking goes back without a signature, or with an empty one.
        empty_texts: Whether an empty text does.
    """

    def can_be_sent(block: Block) -> bool:
        if isinstance(block, TextBlock):
            return empty_texts or takes(block, False)  # noqa: FBT003
        if isinstance(block, ReasoningBlock):
            return unsigned or takes(block, False)  # noqa: FBT003
        if isinstance(block, OtherBlock) and _is_foreign(block.kind):
            return bool(block.kind) and "." not in block.kind and block.kind not in _FIELDS
        return isinstance(block, ToolCallBlock | OtherBlock) and takes(block, False)  # noqa: FBT003

    return can_be_sent


def _is_foreign(kind: str) -> bool:
    """Return whether a type is unknown; one with a dot is a managed agent's event."""
    return not (
        kind in _OTHERS or kind in USER_BLOCKS or _is_server_call(kind) or _is_server_result(kind)
    )


def _takes_other(value: Param, kind: str, in_result: bool) -> bool:
    """Return whether a block of the API's own can be sent; the halves of a pair need their ids."""
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
    """Return whether it is the call of a tool that Anthropic runs."""
    return kind.endswith("_tool_use")


def _is_server_result(kind: str) -> bool:
    return kind.endswith("_tool_result")


def needs_files_api(messages: Iterable[SessionMessage]) -> bool:
    """Return whether a file is named by its id, which is a beta of its own.

    See https://docs.claude.com/en/docs/build-with-claude/files: it names documents, images and
    container uploads.
    """
    return any(
        _names_file(block)
        for message in messages
        if not isinstance(message.content, str)
        for block in message.content
    )


def _names_file(block: Block) -> bool:
    if isinstance(block, ToolResultBlock) and not isinstance(block.content, str):
        return any(map(_names_file, block.content))
    if isinstance(block, OtherBlock):
        source = block.value.get("source")
        named = isinstance(source, Mapping) and source.get("type") == "file"
        return named or block.kind == "container_upload"
    return isinstance(block, ImageBlock | FileBlock) and bool(block.file_id)


def system(messages: Iterable[SessionMessage]) -> str:
    """Return what the system messages at the beginning say, which travels apart from the others."""
    said: list[str] = []
    for message in messages:
        if message.role is not _SYSTEM:
            break
        said.append(message.text)
    return "\n\n".join(text for text in said if text.strip())


@dataclass(frozen=True, slots=True)
class Writing:
    """What is done about messages while they are written, beside writing them.

    Attributes:
        allows: Whether the reasoning of a reply may be sent behind what was written so far.
        add: Told of everything that is written, in order.
        before_reply: Gives the messages that belong before a reply: before that of a number, or
            before the one that is asked for.
        before_user: Gives the messages that belong between a reply, by its number, and the user's
            that follows it.
        reads: Whether the model that is asked can read the thinking of a reply; where it cannot,
            the API leaves it out.
        clears: Whether a system message may say that it is for its turn only.
        cites: Whether the citations of a reply go back with it whose reasoning may be sent.
        thinks: Whether each reply must have thinking.
    """

    allows: Callable[[SessionMessage], bool] = lambda _: True
    add: Callable[[object], None] = lambda _: None
    before_reply: Callable[[int | None], Iterable[Param]] = lambda _: ()
    before_user: Callable[[int], Iterable[Param]] = lambda _: ()
    reads: Callable[[SessionMessage], bool] = lambda _: True
    clears: bool = False
    cites: bool = False
    thinks: bool = False


def to_messages(
    messages: Iterable[SessionMessage],
    report: Report | None = None,
    writing: Writing = Writing(),
) -> list[Param]:
    """Messages as user's and assistant's in turn; the first system messages are left to `system`.

    Args:
        messages: Messages that `takes` has been asked about, each tool's result behind its call.
        report: Is told what had to be left out on the way.
        writing: What is done beside.
    """
    writer = _Writer(list(messages), report, writing)
    return writer.written()


class _Writer:
    """Writes the messages of one request."""

    def __init__(
        self, messages: Sequence[SessionMessage], report: Report | None, writing: Writing
    ) -> None:
        self._messages = messages
        self._report = report
        self._writing = writing
        self._hosted = _Hosted(messages)
        self._sent: list[Param] = []
        self._reply_seq: int | None = None

    def written(self) -> list[Param]:
        """All of them."""
        for place, message in enumerate(self._messages):
            if message.role is _ASSISTANT:
                self._say_reply(message, place)
            elif message.role is not _SYSTEM:
                self._say_user(message)
            elif self._sent and message.text.strip():
                self._put(_system_message(message, clears=self._writing.clears))
        if self._sent and self._sent[-1]["role"] != "assistant":
            self._say_others(None)
        return self._sent

    def _say_reply(self, message: SessionMessage, place: int) -> None:
        if message.seq is not None and self._sent and self._sent[-1]["role"] != "assistant":
            self._say_others(message.seq)
        content = _reply(message, place, self._hosted, self._report, self._writing)
        if self._writing.thinks and not any(part["type"] in _THINKING for part in content):
            content.insert(0, {"type": "thinking", "thinking": ""})
        if content:
            self._say("assistant", content)

        self._reply_seq = message.seq

    def _say_user(self, message: SessionMessage) -> None:
        if self._reply_seq is not None:
            for other in self._writing.before_user(self._reply_seq):
                self._put(other)
            self._reply_seq = None
        self._say("user", _content(message))

    def _say_others(self, seq: int | None) -> None:
        for other in self._writing.before_reply(seq):
            self._put(other)

    def _say(self, role: str, content: list[Param]) -> None:
        if self._sent and self._sent[-1]["role"] == role:
            self._sent[-1]["content"] += content
            self._writing.add(content)
        else:
            self._put({"role": role, "content": content})

    def _put(self, said: Param) -> None:
        self._sent.append(said)
        self._writing.add(said)


TURN_CONTEXT = "turn_context"
"""The note on a message that says that it is for its turn only."""


def _system_message(message: SessionMessage, *, clears: bool) -> Param:
    said: Param = {"role": "system", "content": [{"type": "text", "text": message.text}]}
    notes = message.metadata.get(NOTES) if clears and message.metadata else None
    if isinstance(notes, Mapping) and notes.get(TURN_CONTEXT):
        said["clear_at"] = "next_user_message"
    return said


def _reply(
    message: SessionMessage,
    place: int,
    hosted: _Hosted,
    report: Report | None,
    writing: Writing,
) -> list[Param]:
    """Return the blocks of a reply, but for what cannot go back."""
    allowed = writing.allows(message)
    if isinstance(message.content, str):
        return _content(message)
    content: list[Param] = []
    if report is not None and allowed and _reasons(message) and not writing.reads(message):
        detail = f"made by {message.model}: the API leaves it out"
        report(Repair(kind=RepairKind.REASONING_DROPPED, message_id=message.id, detail=detail))
    for block in message.content:
        if isinstance(block, ReasoningBlock) and not allowed:
            kind, detail = RepairKind.REASONING_DROPPED, "made behind another beginning"
        elif isinstance(block, OtherBlock) and not hosted.is_whole(block.value, place):
            kind, detail = RepairKind.BLOCK_DROPPED, f"a {block.kind} without its other half"
        else:
            cites = writing.cites and allowed
            content.append(hosted.called(_param(block, cites=cites, is_reply=True)))
            continue
        if report is not None:
            report(Repair(kind=kind, message_id=message.id, detail=detail))
    return content


def _reasons(message: SessionMessage) -> bool:
    return any(isinstance(block, ReasoningBlock) for block in message.blocks)


class _Hosted:
    """The calls that Anthropic runs, and their results, which may come in a later reply.

    Such a call beside one of a caller's tool waits for that tool's result, and its own begins the
    next reply (https://platform.claude.com/docs/en/agents-and-tools/tool-use/server-tools). One
    that was broken off never gets a result, and the API refuses it.

    Args:
        messages: All that is sent.
    """

    def __init__(self, messages: Sequence[SessionMessage]) -> None:
        self._calls: dict[Any, int] = {}
        self._results: set[Any] = set()
        last = -1
        for place, message in enumerate(messages):
            if message.role is not _ASSISTANT:
                continue
            last = place
            for block in () if isinstance(message.content, str) else message.content:
                if isinstance(block, OtherBlock):
                    self._add(block.value, block.kind, place)
        self._pending = last if _waits(messages, last) else -1

    def _add(self, value: Param, kind: str, place: int) -> None:
        if _is_server_call(kind):
            self._calls.setdefault(value.get("id"), place)
        elif _is_server_result(kind) and value.get("tool_use_id") in self._calls:
            self._results.add(value["tool_use_id"])

    def is_whole(self, value: Param, place: int) -> bool:
        """Return whether a block does not belong to an incomplete pair."""
        kind = value.get("type") or ""
        if _is_server_call(kind):
            return value.get("id") in self._results or place == self._pending
        return not _is_server_result(kind) or value.get("tool_use_id") in self._results

    def called(self, param: Param) -> Param:
        """Return the block without its caller, where that is not sent."""
        caller = param.get("caller")
        made_by = caller.get("tool_id") if isinstance(caller, Mapping) else None
        if made_by is None or made_by in self._results or self._calls.get(made_by) == self._pending:
            return param
        return {name: value for name, value in param.items() if name != "caller"}


def _waits(messages: Sequence[SessionMessage], place: int) -> bool:
    """Return whether a reply calls tools, and nothing but their results stands behind it."""
    return (
        place >= 0
        and any(isinstance(block, ToolCallBlock) for block in messages[place].blocks)
        and all(each.role in (*RESULT_ROLES, _SYSTEM) for each in messages[place + 1 :])
    )


def container_of(messages: Sequence[SessionMessage]) -> str | None:
    """Return the container that must be named, as code in it waits for a tool's result.

    "container_id is required when there are pending tool uses generated by code execution":
    https://platform.claude.com/docs/en/agents-and-tools/tool-use/programmatic-tool-calling
    """
    places = [place for place, each in enumerate(messages) if each.role is _ASSISTANT]
    if not places or not _waits(messages, places[-1]):
        return None
    reply = messages[places[-1]]
    notes = reply.metadata.get(NOTES) if reply.metadata else None
    container = notes.get(CONTAINER) if isinstance(notes, Mapping) else None
    name = container.get("id") if isinstance(container, Mapping) else None
    return name if isinstance(name, str) else None


def _content(message: SessionMessage) -> list[Param]:
    """Return the blocks of a message that is not the model's own."""
    if isinstance(message.content, str):
        return [{"type": "text", "text": message.content}]
    return [_param(block) for block in message.content]


def _param(block: Block, *, cites: bool = False, is_reply: bool = False) -> Param:
    param = _neutral(block, cites)
    kept = (block.extras or {}).get(NAME)
    if isinstance(kept, Mapping):
        fields = (name for name in kept if name not in param and name != _CACHE)
        param.update((name, kept[name]) for name in fields if is_reply or name in _OF_USERS)
    if isinstance(block, OtherBlock):
        param.pop(_CACHE, None)
    return param


def _neutral(block: Block, cites: bool) -> Param:
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
        return _thinking(block)
    if isinstance(block, OtherBlock):
        return dict(block.value)
    text: Param = {"type": "text", "text": text_of([block])}
    cited = _citations(block, cites)
    return {**text, "citations": cited} if cited else text


def _thinking(block: ReasoningBlock) -> Param:
    if block.encrypted:
        return {"type": "redacted_thinking", "data": block.encrypted}
    thinking: Param = {"type": "thinking", "thinking": block.reasoning}
    return thinking if block.signature is None else {**thinking, "signature": block.signature}


def _citations(block: Block, every: bool) -> list[Param]:
    noted = block.annotations or [] if isinstance(block, TextBlock) else []
    kept = [each for each in noted if every or each.get("type") == _KEPT_CITATION]
    # The API gives a field more than it takes, ``file_id``, which is null where there is no file.
    return [{k: v for k, v in each.items() if v is not None or k != "file_id"} for each in kept]


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
    """Return a picture's or document's source; None if the API has none for it."""
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
    """Return a message that the model gave as a reply.

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
        provider_message_id=None if message.get("id") is None else str(message["id"]),
        usage=usage(message.get("usage")),
        finish_reason=_FINISH_REASONS.get(reason, reason),
        metadata=_noted(message),
    )


def _noted(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a response beside its message."""
    kept = {name: message[name] for name in (CONTAINER, TRANSFORMATIONS) if message.get(name)}
    return {NOTES: kept} if kept else {}


def dropped_thinking(message: SessionMessage) -> bool:
    """Return whether the API left out thinking because what came before it had changed."""
    notes = message.metadata.get(NOTES) if message.metadata else None
    listed = notes.get(TRANSFORMATIONS) if isinstance(notes, Mapping) else None
    return any(
        each.get("type") == "thinking_dropped" and each.get("reason") == "prefix_binding_mismatch"
        for each in listed or ()
        if isinstance(each, Mapping)
    )


def from_block(block: Mapping[str, Any]) -> Block:
    """Return a content block that the model gave."""
    kind = block.get("type")
    extras = _extras(block, kind)
    if kind == "text":
        cited = block.get("citations") or None
        return TextBlock(text=block.get("text") or "", annotations=cited, extras=extras)
    if kind == "thinking":
        thought = block.get("thinking") or ""
        return ReasoningBlock(reasoning=thought, signature=block.get("signature"), extras=extras)
    if kind == "redacted_thinking":
        return ReasoningBlock(encrypted=block.get("data"), extras=extras)
    if kind == "tool_use":
        arguments = block.get("input")
        name = block.get("name") or ""
        if isinstance(arguments, str):  # as in Chat Completions, where a gateway passes that on
            return call_of(block.get("id"), name, arguments, **(extras or {}))
        given = dict(arguments) if isinstance(arguments, Mapping) else {}
        return ToolCallBlock(id=block.get("id"), name=name, args=given, extras=extras)
    return OtherBlock(id=block.get("id"), value=dict(block))


def _extras(block: Mapping[str, Any], kind: object) -> dict[str, Any] | None:
    """Return the fields of a block that its neutral form has no place for: they go back with it."""
    known = _FIELDS.get(kind) if isinstance(kind, str) else None
    if known is None or len(block) <= len(known) - (kind == "text"):
        return None
    others = {name: value for name, value in block.items() if name not in known}
    kept = {name: value for name, value in others.items() if value is not None}
    return {NAME: kept} if kept else None


def usage(counted: Mapping[str, Any] | None) -> TokenUsage | None:
    """Token usage, with what was read from and written to the cache among the input."""
    if not counted or not isinstance(counted, Mapping):
        return None
    parts = [counted, *_compactions(counted)]
    read = _sum(parts, "cache_read_input_tokens")
    written = _sum(parts, "cache_creation_input_tokens")
    details = counted.get("output_tokens_details") or {}
    others = {"cache_creation_input_tokens": written, "server_tool_use": _of_server(counted)}
    return TokenUsage(
        input_tokens=_sum(parts, "input_tokens") + read + written,
        output_tokens=_sum(parts, "output_tokens"),
        cached_tokens=read,
        reasoning_tokens=details.get("thinking_tokens") or 0,
        details={name: value for name, value in others.items() if value} or None,
    )


def _compactions(counted: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Return what compacting took, which the figures of the whole leave out.

    https://platform.claude.com/docs/en/build-with-claude/compaction-on-demand#understanding-usage
    """
    for each in counted.get("iterations") or ():
        if isinstance(each, Mapping) and each.get("type") == "compaction":
            yield each


def _sum(parts: Iterable[Mapping[str, Any]], name: str) -> int:
    return sum(token_count(part.get(name)) for part in parts)


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
    noted = {k: v for each in replies for k, v in (each.metadata.get(NOTES) or {}).items()}
    metadata = {NOTES: noted} if noted else {}
    update = {"content": content, "usage": _summed(replies), "metadata": metadata}
    return last.model_copy(update=update)


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
