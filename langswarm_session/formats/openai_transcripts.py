"""Conversations that were kept in OpenAI's formats: Chat Completions, and threads of Assistants.

A chat message is given back exactly as it came: where the neutral form alone could not do that,
what differs is kept beside it. Threads were shut down in August 2026; what was listed of them
before is in files, which `Threads` reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from langswarm_session._media import without_none
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
)
from langswarm_session.formats.arguments import call_of
from langswarm_session.formats.openai_chat import CUSTOM, NATIVE, ChatMessage, takes, to_chat
from langswarm_session.models import RESULT_ROLES, MessageRole, SessionMessage
from langswarm_session.requests.normalize.words import in_words

_ROLES = {
    "system": MessageRole.SYSTEM,
    "developer": MessageRole.SYSTEM,
    "user": MessageRole.USER,
    "assistant": MessageRole.ASSISTANT,
    "tool": MessageRole.TOOL,
    "function": MessageRole.FUNCTION,
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AUDIO_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"}


def from_chat(given: Mapping[str, Any], moment: datetime) -> SessionMessage:
    """Return a message of the chat format.

    Args:
        given: The message, as plain data.
        moment: What stands for its time, which the format does not have.

    Raises:
        ValueError: If it is none.
    """
    role = _ROLES.get(str(given.get("role"))) if isinstance(given, Mapping) else None
    if role is None:
        raise ValueError(f"a message has one of the roles {', '.join(_ROLES)}")
    message = SessionMessage(
        role=role,
        content=_content(role, given),
        timestamp=moment,
        name=given.get("name") if role not in RESULT_ROLES else None,
    )
    beside = _beside(message, given)
    return message if beside is None else message.replaced(native={NATIVE: beside})


def _content(role: MessageRole, given: Mapping[str, Any]) -> str | list[Block]:
    content = given.get("content")
    if role in RESULT_ROLES:
        result = ToolResultBlock(
            tool_call_id=str(given.get("tool_call_id") or ""),
            content=content if isinstance(content, str) else _parts(content),
            name=given.get("name"),
        )
        return [result]
    calls = [*_calls(given)]
    refusal = given.get("refusal")
    if isinstance(content, str) and not (calls or refusal):
        return content
    blocks = _parts(content)
    if refusal:
        blocks.append(RefusalBlock(refusal=refusal))
    return [*blocks, *calls]


def _parts(content: object) -> list[Block]:
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [TextBlock(text=content)]
    if not isinstance(content, list):
        raise ValueError("a message's content is a text or a list of parts")
    return [_part(part) for part in content]


def _part(part: Any) -> Block:
    """Return a part of a message; one that is not known is kept as it is."""
    if not isinstance(part, dict):
        raise ValueError("a part of a message's content is an object")
    kind = part.get("type")
    if kind == "text" and isinstance(part.get("text"), str):
        return TextBlock(text=part["text"])
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return RefusalBlock(refusal=part["refusal"])
    inner = part.get(str(kind))
    if isinstance(inner, dict):
        if kind == "image_url" and isinstance(inner.get("url"), str):
            return ImageBlock(**_source(inner["url"]))
        if kind == "input_audio" and isinstance(inner.get("data"), str):
            kind_of_audio = _AUDIO_TYPES.get(str(inner.get("format")))
            return AudioBlock(base64=inner["data"], mime_type=kind_of_audio)
        if kind == "file" and isinstance(inner.get("file_data"), str):
            return FileBlock(filename=inner.get("filename"), **_source(inner["file_data"]))
        if kind == "file" and isinstance(inner.get("file_id"), str):
            return FileBlock(file_id=inner["file_id"], filename=inner.get("filename"))
    return OtherBlock(value=part)


def _source(url: str) -> dict[str, str]:
    """Return the fields of a block for an address, or for the data in it."""
    head, comma, data = url.partition(",")
    if url.startswith("data:") and comma and head.endswith(";base64"):
        return {"mime_type": head[5:-7], "base64": data}
    return {"url": url}


def _calls(given: Mapping[str, Any]) -> Iterator[ToolCallBlock]:
    old = given.get("function_call")
    if isinstance(old, dict):
        yield call_of(None, _text(old, "name"), _text(old, "arguments"))
    for call in _listed(given, "tool_calls"):
        if not isinstance(call, dict):
            raise ValueError("a call of a tool is an object")
        custom, function = call.get("custom"), call.get("function")
        if isinstance(custom, dict):
            yield ToolCallBlock(
                id=call.get("id"),
                name=_text(custom, "name"),
                args={"input": custom.get("input") or ""},
                extras={"type": CUSTOM},
            )
        elif isinstance(function, dict):
            yield call_of(call.get("id"), _text(function, "name"), _text(function, "arguments"))
        else:
            raise ValueError("a call of a tool has a function")


def _text(given: Mapping[str, Any], name: str) -> str:
    """Return a text that may be missing.

    Raises:
        ValueError: If something else stands there.
    """
    value = given.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {type(value).__name__}")
    return value


def _listed(given: Mapping[str, Any], name: str) -> list[Any]:
    """Return a list that may be missing.

    Raises:
        ValueError: If something else stands there.
    """
    value = given.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list, not {type(value).__name__}")
    return value


def _beside(message: SessionMessage, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what restores the given message after converting it back; None for nothing."""
    converted, lost = _converted(message)
    if len(converted) != 1 or lost:
        return {"message": dict(given)}
    made = converted[0]
    nothing = object()
    other = {name: value for name, value in given.items() if made.get(name, nothing) != value}
    extra = [name for name in made if name not in given]
    return {"set": other, "without": extra} if other or extra else None


def to_transcript(message: SessionMessage) -> tuple[list[ChatMessage], list[str]]:
    """Return a message in the chat format, and what of it has no place there.

    Args:
        message: One that came in this format is given back exactly.

    Returns:
        Mostly one message; and the types of the blocks that were left out or put into words.
    """
    beside = (message.native or {}).get(NATIVE)
    converted, lost = _converted(message)
    exact: ChatMessage | None = None
    match beside:
        case {"message": dict(given)}:
            exact = given
        case {"set": dict(other), "without": list(extra)} if len(converted) == 1:
            made = {**converted[0], **other}
            exact = {name: made[name] for name in made if name not in extra}
    return ([exact], []) if exact is not None and _can_be_read(exact) else (converted, lost)


def _can_be_read(given: ChatMessage) -> bool:
    """Return whether `from_chat` takes a message: what was kept of one may come from anywhere."""
    try:
        from_chat(given, _EPOCH)
    except ValueError:
        return False
    return True


def _converted(message: SessionMessage) -> tuple[list[ChatMessage], list[str]]:
    if message.role in RESULT_ROLES and any(isinstance(b, ToolResultBlock) for b in message.blocks):
        lost: list[str] = [b.type for b in message.blocks if not isinstance(b, ToolResultBlock)]
        lost += [b.type for b in _inside(message.blocks) if not isinstance(b, TextBlock)]
        return to_chat([message.replaced(role=MessageRole.TOOL)]), lost
    if isinstance(message.content, str):
        return to_chat([message]), []
    kept, without = _kept(message.content)
    return (to_chat([message.replaced(content=kept)]) if kept else []), without


def _inside(blocks: Iterable[Block]) -> Iterator[Block]:
    for block in blocks:
        if isinstance(block, ToolResultBlock) and not isinstance(block.content, str):
            yield from block.content


def _kept(blocks: Sequence[Block]) -> tuple[list[Block], list[str]]:
    kept: list[Block] = []
    lost: list[str] = []
    for block in blocks:
        if takes(block, False):  # noqa: FBT003 - the format's own signature
            kept.append(block)
            continue
        lost.append(block.type)
        if not isinstance(block, ReasoningBlock):
            kept.append(TextBlock(text=in_words(block)))
    return kept, lost


class Threads:
    """Puts threads together from the messages that the Assistants API listed.

    Attributes:
        is_cut_off: Whether a listing said that more messages follow than were in it, last.
    """

    def __init__(self) -> None:
        self._messages: dict[str, list[Mapping[str, Any]]] = {}
        self.is_cut_off = False

    def add(self, given: Mapping[str, Any]) -> bool:
        """Take in a message, or a listing of them; returns whether it was one.

        Raises:
            ValueError: If it is one and cannot be used.
        """
        listed = given.get("messages", given.get("data"))
        if isinstance(listed, Mapping):
            return self.add(listed)
        if given.get("object") == "thread.message":
            thread = given.get("thread_id")
            if not isinstance(thread, str):
                raise ValueError("a thread's message needs a thread_id")
            _moment(given)
            self._messages.setdefault(thread, []).append(given)
            return True
        if not isinstance(listed, list) or not all(map(is_thread_message, listed)):
            return False
        self.is_cut_off = bool(given.get("has_more"))
        for each in listed:
            self.add(each)
        return True

    def by_thread(self) -> Iterator[tuple[str, list[SessionMessage]]]:
        """Return the threads by their ids, each with its messages, oldest first.

        Raises:
            ValueError: If a message is none.
        """
        for thread, listed in self._messages.items():
            # Newest first is how the API lists them unless it is asked for another order.
            newest_first = listed[0]["created_at"] >= listed[-1]["created_at"]
            in_order = sorted(listed[::-1] if newest_first else listed, key=_created)
            yield thread, [from_thread_message(each) for each in in_order]


def is_thread_message(given: object) -> bool:
    """Return whether this is a message of a thread."""
    return isinstance(given, Mapping) and given.get("object") == "thread.message"


def _created(given: Mapping[str, Any]) -> int:
    return int(given["created_at"])


def _moment(given: Mapping[str, Any]) -> datetime:
    """Return when a thread's message was made.

    Raises:
        ValueError: If ``created_at`` is not a number of seconds that has a date.
    """
    seconds = given.get("created_at")
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise ValueError("created_at must be a whole number of seconds since 1970")
    try:
        return _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        raise ValueError(f"created_at is no date: {str(seconds)[:20]}") from None


def from_thread_message(given: Mapping[str, Any]) -> SessionMessage:
    """Return a message of a thread, with what a session message has no field for beside it.

    Raises:
        ValueError: If it is none.
    """
    role = _ROLES.get(str(given.get("role")))
    if role is None:
        raise ValueError(f"a message has one of the roles {', '.join(_ROLES)}")
    content = given.get("content")
    parts = [content] if isinstance(content, str) else _listed(given, "content")
    blocks: list[Block] = [_thread_part(part) for part in parts]
    blocks += [
        FileBlock(file_id=attached["file_id"])
        for attached in _listed(given, "attachments")
        if isinstance(attached, dict) and isinstance(attached.get("file_id"), str)
    ]
    assistant = role is MessageRole.ASSISTANT
    return SessionMessage(
        **without_none(id=given.get("id")),
        role=role,
        content=blocks,
        timestamp=_moment(given),
        metadata=given.get("metadata") or {},
        provider="openai" if assistant else None,
        provider_message_id=given.get("id"),
        native={"openai_thread": dict(given)},
    )


def _thread_part(part: Any) -> Block:
    if isinstance(part, str):
        return TextBlock(text=part)
    if not isinstance(part, dict):
        raise ValueError("a part of a message's content is an object")
    kind = part.get("type")
    inner = part.get(str(kind))
    if kind == "text" and isinstance(inner, dict) and isinstance(inner.get("value"), str):
        return TextBlock(text=inner["value"], annotations=inner.get("annotations") or None)
    if kind == "image_file" and isinstance(inner, dict):
        return ImageBlock(file_id=inner.get("file_id"))
    return _part(part)
