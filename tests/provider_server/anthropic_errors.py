"""The vendor's refusals."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .worlds import Json, world_of

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
MAX_BYTES = 32 * 1024 * 1024


class Refusal(Exception):  # noqa: N818 - the vendor's word for it is not ours
    """An answer other than 200."""

    def __init__(self, message: str, status: int = 400, details: Json | None = None) -> None:
        super().__init__(message)
        self.message, self.status, self.details = message, status, details


def new_request_id() -> str:
    """An id for the `request-id` header."""
    return f"req_{uuid.uuid4().hex[:24]}"


def error_body(refusal: Refusal, request_id: str) -> Json:
    """The error as the vendor writes it."""
    error: Json = {"type": TYPES[refusal.status], "message": refusal.message}
    if refusal.details:
        error["details"] = refusal.details
    return {"type": "error", "error": error, "request_id": request_id}


def answer(body: Any, status: int = 200, request_id: str | None = None) -> Response:
    """A JSON answer with the headers the vendor sends."""
    headers = {"request-id": request_id or new_request_id()}
    return JSONResponse(body, status, headers)


Handler = Callable[[Request], Awaitable[Response]]


def refusing(handler: Handler) -> Handler:
    """The handler, with its refusals made answers, and the checks each request undergoes."""

    @functools.wraps(handler)
    async def handle(request: Request) -> Response:
        if not request.headers.get("anthropic-version"):
            raise Refusal("anthropic-version: header is required")
        return await handler(request)

    return refusing_without_version(handle)


def refusing_without_version(handler: Handler) -> Handler:
    """The handler, with its refusals made answers."""

    @functools.wraps(handler)
    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            request_id = new_request_id()
            return answer(error_body(refusal, request_id), refusal.status, request_id)

    return handle


async def json_body(request: Request) -> Json:
    """The request's body, which must be a JSON object of no more than the vendor takes."""
    raw = await request.body()
    if len(raw) > world_of(request).settings.get("max_request_bytes", MAX_BYTES):
        raise Refusal("Request exceeds the maximum size", 413)
    try:
        body = await request.json()
    except ValueError:
        raise Refusal("The request body is not valid JSON") from None
    if not isinstance(body, dict):
        raise Refusal("Input should be an object")
    return body


def betas_of(request: Request) -> set[str]:
    """The betas that the request asks for."""
    values = request.headers.getlist("anthropic-beta")
    return {beta.strip() for value in values for beta in value.split(",") if beta.strip()}
