"""The chunks of a streamed completion, put together."""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic_core import to_json

from langswarm_session.formats.arguments import parsed
from langswarm_session.formats.media import without_none
from langswarm_session.formats.openai_chat import DETAILS, REASONING_FIELDS, thought_of

_OF_CALLS = ("id", "index", "type", "function", "custom")


class Piece(NamedTuple):
    """What a chunk adds to what a reader sees.

    Attributes:
        text: Of the reply.
        reasoning: Of the model's reasoning.
    """

    text: str = ""
    reasoning: str = ""


class ChunkAssembler:
    """Puts the chunks of a streamed completion together."""

    def __init__(self) -> None:
        self._content = _Content()
        self._texts: dict[str, list[str]] = {}
        self._lists: dict[str, list[Any]] = {}
        self._others: dict[str, Any] = {}
        self._sound: dict[str, Any] = {}
        self._calls = _Calls()
        self._legacy: dict[str, str] = {}
        self._completion: dict[str, Any] = {}
        self._choice: dict[str, Any] = {}

    @property
    def is_complete(self) -> bool:
        """Whether the model has said why it stopped."""
        return self._choice.get("finish_reason") is not None

    def add(self, chunk: Mapping[str, Any]) -> Piece:
        """Take a chunk in; returns what is new of its texts."""
        self._completion.update(without_none(id=chunk.get("id"), usage=chunk.get("usage")))
        pieces = [self._add_choice(choice) for choice in chunk.get("choices") or ()]
        return Piece(*map("".join, zip(*pieces, strict=True))) if pieces else Piece()

    def _add_choice(self, choice: Mapping[str, Any]) -> Piece:
        ended = {name: choice.get(name) for name in ("finish_reason", "error")}
        self._choice.update(without_none(**ended))
        text = reasoning = ""
        for name, value in (choice.get("delta") or {}).items():
            if value is None:
                continue
            piece = self._add(name, value)
            text += piece.text
            # Some servers give the same in two fields, for clients that know one of them.
            reasoning = reasoning or piece.reasoning
        return Piece(text, reasoning)

    def _add(self, name: str, value: Any) -> Piece:
        """Take in a field of a delta."""
        if name == "content":
            return self._content.add(value)
        if name == "refusal":
            self._texts.setdefault(name, []).append(value)
            return Piece(text=value)
        if name in REASONING_FIELDS and isinstance(value, str):
            self._texts.setdefault(name, []).append(value)
            return Piece(reasoning=value)
        if name == "audio":
            return self._add_sound(value)
        if name == "tool_calls":
            for call in value:
                self._calls.add(call)
        elif name == "function_call":
            for key in ("name", "arguments"):
                self._legacy[key] = self._legacy.get(key, "") + (value.get(key) or "")
        elif isinstance(value, list):
            self._lists.setdefault(name, []).extend(value)
        else:
            self._others[name] = value
        return Piece()

    def _add_sound(self, value: Mapping[str, Any]) -> Piece:
        data, transcript = value.get("data") or "", value.get("transcript") or ""
        self._sound.setdefault("data", []).append(data)
        self._sound.setdefault("transcript", []).append(transcript)
        self._sound.update({k: v for k, v in value.items() if k not in ("data", "transcript")})
        return Piece(text=transcript)

    def completion(self) -> dict[str, Any]:
        """The whole completion."""
        message: dict[str, Any] = {
            **self._others,
            **self._lists,
            **{name: "".join(texts) for name, texts in self._texts.items()},
            "content": self._content.whole(),
            "tool_calls": self._calls.whole(),
        }
        if DETAILS in self._lists:
            message[DETAILS] = _merged(self._lists[DETAILS])
        if self._sound:
            transcript = "".join(self._sound["transcript"])
            message["audio"] = {**self._sound, "transcript": transcript, "data": self._data()}
        if self._legacy:
            message["function_call"] = self._legacy
        return {**self._completion, "choices": [{**self._choice, "message": message}]}

    def _data(self) -> str:
        """The sound's data; each piece of it is encoded by itself."""
        pieces = map(binascii.a2b_base64, self._sound["data"])
        return binascii.b2a_base64(b"".join(pieces), newline=False).decode()


class _Content:
    """Content in pieces of text, or of chunks."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._chunks: list[dict[str, Any]] = []

    def add(self, value: Any) -> Piece:
        if isinstance(value, str):
            if self._chunks:
                return self._add_chunk({"type": "text", "text": value}) if value else Piece()
            self._texts.append(value)
            return Piece(text=value)
        pieces = [self._add_chunk(chunk) for chunk in value]
        return Piece(*map("".join, zip(*pieces, strict=True))) if pieces else Piece()

    def _add_chunk(self, chunk: Mapping[str, Any]) -> Piece:
        if not self._chunks and any(self._texts):
            self._chunks.append({"type": "text", "text": "".join(self._texts)})
        kind = chunk.get("type")
        last = self._chunks[-1] if self._chunks else {}
        if kind == "text":
            text = chunk.get("text") or ""
            if last.get("type") == kind:
                last["text"] += text
            else:
                self._chunks.append({**chunk, "text": text})
            return Piece(text=text)
        if kind == "thinking":
            thought = thought_of(chunk)
            before = thought_of(last) if last.get("type") == kind else None
            whole = [{"type": "text", "text": (before or "") + thought}]
            if before is None:
                self._chunks.append({})
            self._chunks[-1] = {**self._chunks[-1], **chunk, "thinking": whole}
            return Piece(reasoning=thought)
        self._chunks.append(dict(chunk))
        return Piece()

    def whole(self) -> str | list[dict[str, Any]]:
        return self._chunks or "".join(self._texts)


class _Calls:
    """Calls in pieces.

    OpenAI numbers them, and their pieces may alternate. Others give each the number 0 and an id
    (https://github.com/NousResearch/hermes-agent/pull/3468), or no id, so that only whole arguments
    tell that a call is over (https://github.com/huggingface/smolagents/pull/1958); or none.
    """

    def __init__(self) -> None:
        self._calls: list[dict[str, Any]] = []

    def add(self, delta: Mapping[str, Any]) -> None:
        given = delta.get("custom") or delta.get("function") or {}
        call = self._continued(delta, given)
        if call is None:
            call = {"index": delta.get("index"), "id": None, "name": "", "text": "", "more": {}}
            self._calls.append(call)
        call["id"] = call["id"] or delta.get("id")
        call["custom"] = call.get("custom") or delta.get("custom") is not None
        call["more"].update({k: v for k, v in delta.items() if k not in _OF_CALLS and v})
        name = given.get("name") or ""
        call["name"] += "" if name == call["name"] else name
        call["text"] += _text(given)

    def _continued(
        self, delta: Mapping[str, Any], given: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """The call that a piece goes on with; None if it begins one."""
        index, call_id = delta.get("index"), delta.get("id")
        numbered = [each for each in self._calls if each["index"] == index]
        if not numbered:
            return None
        last = numbered[-1]
        if call_id and last["id"]:
            return last if call_id == last["id"] else None
        # A name behind arguments that are whole is that of another call.
        is_over = bool(given.get("name")) and _is_whole(last["text"])
        return None if is_over else last

    def whole(self) -> list[dict[str, Any]]:
        # Those that are numbered may come in any order.
        numbered = all(isinstance(call["index"], int) for call in self._calls)
        calls = sorted(self._calls, key=lambda call: call["index"]) if numbered else self._calls
        return [_assembled(call) for call in calls]


def _text(given: Mapping[str, Any]) -> str:
    text = given.get("input") or given.get("arguments") or ""
    return text if isinstance(text, str) else to_json(text).decode()


def _is_whole(text: str) -> bool:
    return bool(text) and parsed(text) is not None


def _assembled(call: Mapping[str, Any]) -> dict[str, Any]:
    name, text = call["name"], call["text"]
    if call["custom"]:
        return {**call["more"], "id": call["id"], "custom": {"name": name, "input": text}}
    return {**call["more"], "id": call["id"], "function": {"name": name, "arguments": text}}


def _merged(details: Iterable[Any]) -> list[Any]:
    """OpenRouter's parts of reasoning, the pieces of each joined."""
    merged: list[Any] = []
    for detail in details:
        last = merged[-1] if merged else None
        if not (
            isinstance(detail, dict)
            and isinstance(last, dict)
            and all(detail.get(name) == last.get(name) for name in ("type", "index"))
            and detail.get("id") in (None, last.get("id"))
        ):
            merged.append(detail)
            continue
        joined = {
            name: (last.get(name) or "") + detail[name]
            for name in ("text", "summary", "data")
            if isinstance(detail.get(name), str)
        }
        merged[-1] = {**last, **without_none(**detail), **joined}
    return merged
