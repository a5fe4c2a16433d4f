"""The chunks of a streamed completion, put together."""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pydantic_core import to_json

from langswarm_session._media import without_none
from langswarm_session.formats.arguments import parsed
from langswarm_session.formats.openai_chat import (
    DETAILS,
    REASONING_FIELDS,
    as_chunks,
    as_list,
    thought_of,
)
from langswarm_session.formats.surrogates import well_formed_data

THINKING_BLOCKS = "thinking_blocks"
"""Where a message of litellm has the thinking of Claude, signed."""

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
        choices = [each for each in chunk.get("choices") or () if isinstance(each, Mapping)]
        pieces = [self._add_choice(choice) for choice in choices if self._is_first(choice)]
        return Piece(*map("".join, zip(*pieces, strict=True))) if pieces else Piece()

    def _is_first(self, choice: Mapping[str, Any]) -> bool:
        """Return whether it is the choice that came first: a turn has one reply."""
        index = choice.get("index") or 0
        return bool(self._choice.setdefault("index", index) == index)

    def _add_choice(self, choice: Mapping[str, Any]) -> Piece:
        ended = {name: choice.get(name) for name in ("finish_reason", "error")}
        self._choice.update(without_none(**ended))
        text = reasoning = ""
        for name, value in _delta(choice).items():
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
        if name == "refusal" and isinstance(value, str):
            self._texts.setdefault(name, []).append(value)
            return Piece(text=value)
        if name in REASONING_FIELDS and isinstance(value, str):
            self._texts.setdefault(name, []).append(value)
            return Piece(reasoning=value)
        if name == "audio":
            return self._add_sound(value)
        self._add_silent(name, value)
        return Piece()

    def _add_silent(self, name: str, value: Any) -> None:
        """Take in a field that shows a reader nothing yet."""
        if name == "tool_calls":
            for call in as_list(value):
                self._calls.add(call)
        elif name == "function_call":
            for call in as_list(value):
                self._add_legacy(call)
        elif isinstance(value, list):
            self._lists.setdefault(name, []).extend(value)
        elif isinstance(value, str) and self._others.get(name, value) != value:
            # What is said again whole is a label, as `role` is.
            self._others[name] = f"{self._others[name]}{value}"
        else:
            self._others[name] = value

    def _add_legacy(self, call: Mapping[str, Any]) -> None:
        for key, piece in (("name", call.get("name") or ""), ("arguments", _text(call))):
            self._legacy[key] = self._legacy.get(key, "") + piece

    def _add_sound(self, value: Mapping[str, Any]) -> Piece:
        data, transcript = value.get("data") or "", value.get("transcript") or ""
        self._sound.setdefault("data", []).append(data)
        self._sound.setdefault("transcript", []).append(transcript)
        self._sound.update({k: v for k, v in value.items() if k not in ("data", "transcript")})
        return Piece(text=transcript)

    def completion(self) -> dict[str, Any]:
        """Return the whole completion."""
        message: dict[str, Any] = {
            **self._others,
            **self._lists,
            **{name: "".join(texts) for name, texts in self._texts.items()},
            "content": self._content.whole(),
            "tool_calls": self._calls.whole(),
        }
        if DETAILS in self._lists:
            message[DETAILS] = _merged(self._lists[DETAILS])
        if THINKING_BLOCKS in self._lists:
            message[THINKING_BLOCKS] = _thoughts(self._lists[THINKING_BLOCKS])
        if self._sound:
            transcript = "".join(self._sound["transcript"])
            message["audio"] = {**self._sound, "transcript": transcript, "data": self._data()}
        if self._legacy:
            message["function_call"] = self._legacy
        whole = {**self._completion, "choices": [{**self._choice, "message": message}]}
        return dict(well_formed_data(whole))

    def _data(self) -> str:
        """Return the sound's data, whether its pieces were encoded separately or cut afterwards."""
        try:
            pieces = [*map(binascii.a2b_base64, self._sound["data"])]
        except binascii.Error:
            return "".join(self._sound["data"])
        return binascii.b2a_base64(b"".join(pieces), newline=False).decode()


def _delta(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a choice adds; the whole message where a server sends that in one piece."""
    delta = choice.get("delta") if "delta" in choice else choice.get("message")
    return delta if isinstance(delta, Mapping) else {}


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
        pieces = [self._add_chunk(chunk) for chunk in as_chunks(value)]
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
        """Return the call that a piece continues; None if it begins one."""
        index, call_id = delta.get("index"), delta.get("id")
        numbered = [each for each in self._calls if each["index"] == index]
        if not numbered:
            return None
        last = numbered[-1]
        if call_id and last["id"] and (given.get("name") or call_id == last["id"]):
            return last if call_id == last["id"] else None
        # Some give each piece an id of its own, but only the first has the name:
        # https://github.com/poolsideai/pool/issues/9.
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


def _thoughts(blocks: Iterable[Any]) -> list[Any]:
    """Blocks of thinking from litellm, whole: it gives one for each piece of the stream.

    Only the last of a thought has its signature, and may have the whole text again:
    https://github.com/BerriAI/litellm/issues/29428,
    https://github.com/open-webui/open-webui/pull/29860.
    """
    thoughts: list[Any] = []
    is_open = False
    for block in blocks:
        is_thought = isinstance(block, Mapping) and block.get("type") == "thinking"
        if is_thought and is_open:
            last = thoughts[-1]
            before, text = str(last.get("thinking") or ""), str(block.get("thinking") or "")
            is_whole = bool(block.get("signature")) and text.startswith(before)
            thoughts[-1] = {**last, **block, "thinking": text if is_whole else before + text}
        else:
            thoughts.append(block)
        is_open = is_thought and not thoughts[-1].get("signature")
    return thoughts


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
