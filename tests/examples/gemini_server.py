"""A small stand-in for Gemini's API, as strict as the vendor's; what a key has is apart from others."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import uvicorn
from google.genai import types
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Json = dict[str, Any]

SKIPPED = b"skip_thought_signature_validator"
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
_DATA = ("text", "inline_data", "file_data", "function_call", "function_response")
_MIME = re.compile(
    r"(image/(png|jpeg|webp|heic|heif)|audio/\w+|video/\w+|application/pdf|text/plain)"
)


class Refused(Exception):  # noqa: N818 - it is an answer
    """What the API answers in place of a reply."""

    def __init__(self, code: int, status: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.body = {"error": {"code": code, "message": message, "status": status}}


def refuse(message: str) -> None:
    raise Refused(400, "INVALID_ARGUMENT", message)


@dataclass
class GeminiWorld:
    """What one key has: the requests it made, and what the next ones get."""

    key: str
    requests: list[Json] = field(default_factory=list)
    replies: deque[list[Json]] = field(default_factory=deque)
    refusals: deque[Refused] = field(default_factory=deque)
    cut_at: deque[int] = field(default_factory=deque)


class GeminiServer:
    """The server in a thread, on loopback."""

    def __init__(self) -> None:
        self.worlds: dict[str, GeminiWorld] = {}
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen()
        route = Route("/{version}/models/{call}", self._answer, methods=["POST"])
        config = uvicorn.Config(
            Starlette(routes=[route]), log_config=None, lifespan="off", ws="none"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def world(self, key: str) -> GeminiWorld:
        return self.worlds.setdefault(key, GeminiWorld(key))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._answered(request)
        except Refused as refused:
            return JSONResponse(refused.body, refused.code)

    async def _answered(self, request: Request) -> Response:
        key = request.headers.get("x-goog-api-key", "")
        if key not in self.worlds:
            refuse(f"API key not valid. Please pass a valid API key, not {key}.")
        world = self.worlds[key]
        model, _, method = request.path_params["call"].partition(":")
        body = await request.json()
        world.requests.append(body)
        if world.refusals:
            raise world.refusals.popleft()
        if model.startswith("unknown"):
            raise Refused(404, "NOT_FOUND", f"models/{model} is not found for API version v1")
        contents = check(body, model)
        if method == "countTokens":
            return JSONResponse({"totalTokens": count(body["contents"])})
        parts = world.replies.popleft() if world.replies else reply(contents, body, model)
        if method == "generateContent":
            return JSONResponse(answer(parts, body, model))
        cut = world.cut_at.popleft() if world.cut_at else None
        pieces = list(stream(parts, body, model))
        return StreamingResponse(send(pieces, cut), media_type="text/event-stream")


async def send(pieces: list[Json], cut: int | None) -> AsyncIterator[str]:
    for place, piece in enumerate(pieces):
        if place == cut:
            raise ConnectionResetError("the test wants the connection to break here")
        yield f"data: {json.dumps(piece)}\r\n\r\n"


def check(body: Json, model: str) -> list[types.Content]:
    """The contents, if the request is one that the API takes."""
    try:
        contents = [types.Content.model_validate(each) for each in body.get("contents") or []]
        tools = [types.Tool.model_validate(each) for each in body.get("tools") or []]
        if "systemInstruction" in body:
            check_parts(types.Content.model_validate(body["systemInstruction"]), model)
        types.GenerateContentConfig.model_validate(body.get("generationConfig") or {})
    except ValidationError as error:
        refuse(f"Invalid JSON payload received. {error}")
    if not contents:
        refuse("GenerateContentRequest.contents: contents is not specified")
    names = [each.name or "" for tool in tools for each in tool.function_declarations or []]
    if len(set(names)) < len(names) or not all(map(_NAME.fullmatch, names)):
        refuse(f"Function declarations need names that are valid and their own: {names}")
    for place, content in enumerate(contents):
        if content.role != ("user", "model")[place % 2]:
            refuse(f"contents[{place}]: roles must alternate between user and model")
        check_parts(content, model)
    if contents[-1].role != "user":
        refuse("Please ensure that the last content is the user's")
    check_calls(contents)
    return contents


def check_parts(content: types.Content, model: str) -> None:
    if not content.parts:
        refuse("Unable to submit request because it must include at least one parts field")
    first = True
    for part in content.parts:
        given = [name for name in _DATA if getattr(part, name) is not None]
        if len(given) != 1:
            refuse(f"required oneof field 'data' must have one initialized field, not {given}")
        if part.text == "" and part.thought_signature is None:
            refuse("Unable to submit request because it must have a text parameter")
        data = part.inline_data
        if data and not (data.data and _MIME.fullmatch(data.mime_type or "")):
            refuse(f"Unsupported MIME type or no data: {data.mime_type}")
        if part.function_call is not None:
            if first and part.thought_signature is None:
                refuse("Function call is missing a thought_signature in functionCall parts.")
            first = False
        check_signature(part.thought_signature, model)


def check_signature(signature: bytes | None, model: str) -> None:
    if signature not in (None, SKIPPED) and not signature.startswith(f"sig:{model}:".encode()):
        refuse("Thought signature is not valid.")


def check_calls(contents: list[types.Content]) -> None:
    """The responses come in the content after the calls, in number, by name and before all else."""
    asked: list[tuple[str | None, str | None]] = []
    for content in contents:
        parts = content.parts or []
        given = [part.function_response for part in parts if part.function_response]
        if len(given) != len(asked) or {(g.id, g.name) for g in given} != set(asked):
            refuse(
                "Please ensure that the number of function response parts is equal to the number "
                "of function call parts of the function call turn."
            )
        if given and any(part.function_response is None for part in parts[: len(given)]):
            refuse("Function responses come first.")
        calls = [part.function_call for part in parts if part.function_call]
        if calls and content.role != "model":
            refuse("Function calls are the model's.")
        if not all(_NAME.fullmatch(call.name or "") for call in calls):
            refuse("Invalid function name.")
        asked = [(call.id, call.name) for call in calls]


def signature(model: str, about: str) -> str:
    return base64.b64encode(f"sig:{model}:{about}".encode()).decode()


def said(content: types.Content) -> str:
    texts = [part.text for part in content.parts or [] if part.text]
    results = [
        part.function_response.response for part in content.parts or [] if part.function_response
    ]
    return texts[-1] if texts else json.dumps(results[-1]) if results else "(no text)"


def reply(contents: list[types.Content], body: Json, model: str) -> list[Json]:
    """What the model says: what it sees, or the call that it is asked for."""
    text = said(contents[-1])
    tools = [types.Tool.model_validate(tool) for tool in body.get("tools") or []]
    known = [each.name for tool in tools for each in tool.function_declarations or []]
    config = types.GenerateContentConfig.model_validate(body.get("generationConfig") or {})
    asked = re.fullmatch(r"call (\S+) (.*)", text, re.DOTALL)
    thoughts: list[Json] = []
    if config.thinking_config and config.thinking_config.include_thoughts:
        thoughts = [{"text": "Hm, let me ", "thought": True}, {"text": "see.", "thought": True}]
    if asked and asked[1] in known:
        call = {"name": asked[1], "args": json.loads(asked[2])}
        signed = signature(model, "call")
        return [*thoughts, {"functionCall": call, "thoughtSignature": signed}]
    seen = {"text": f"I see {len(contents)} contents. The last says: {text}"}
    return [*thoughts, {**seen, "thoughtSignature": signature(model, "text")}]


def count(value: Any) -> int:
    return len(json.dumps(value)) // 4


def answer(parts: list[Json], body: Json, model: str, *, finished: bool = True) -> Json:
    candidate: Json = {"content": {"role": "model", "parts": parts}, "index": 0}
    thoughts = count([part for part in parts if part.get("thought")]) if finished else 0
    if finished:
        candidate["finishReason"] = "STOP"
    usage = {
        "promptTokenCount": count(body["contents"]),
        "candidatesTokenCount": count(parts),
        "thoughtsTokenCount": thoughts,
        "cachedContentTokenCount": count(body["contents"][:-1]),
        "totalTokenCount": count(body["contents"]) + count(parts),
    }
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": model,
        "responseId": "response-1",
    }


def stream(parts: list[Json], body: Json, model: str) -> Iterator[Json]:
    """The answer in pieces: texts by the word, signatures in a part of their own at the end."""
    for part in parts:
        signed = (
            {"thoughtSignature": part["thoughtSignature"]} if "thoughtSignature" in part else {}
        )
        if "text" not in part:
            yield answer([part], body, model, finished=False)
            continue
        thought = {"thought": True} if part.get("thought") else {}
        for word in re.findall(r"\S+\s*", part["text"]):
            yield answer([{"text": word, **thought}], body, model, finished=False)
        if signed:
            yield answer([{"text": "", **thought, **signed}], body, model, finished=False)
    whole = answer(parts, body, model)
    whole["candidates"][0]["content"] = {"role": "model", "parts": []}
    yield whole
