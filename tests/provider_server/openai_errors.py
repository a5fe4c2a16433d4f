"""Errors as OpenAI answers them, and the wrapper that turns them into responses."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .worlds import Json


class ApiError(Exception):
    """A refusal: status, message, the parameter it is about, and the vendor's code."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status = status
        error = {"message": message, "type": kind, "param": param, "code": code}
        self.body: Json = {"error": error}


def not_found(what: str, id_: str) -> ApiError:
    """The 404 for an object that is not there."""
    code = "conversation_not_found" if what == "Conversation" else None
    return ApiError(f"{what} with id '{id_}' not found.", status=404, code=code)


def too_long(at: str, limit: int, length: int) -> ApiError:
    """The 400 for a string above its maximum length."""
    return ApiError(
        f"Invalid '{at}': string too long. Expected a string with maximum length {limit}, "
        f"but got a string with length {length} instead.",
        param=at,
        code="string_above_max_length",
    )


def no_match(at: str, pattern: str) -> ApiError:
    """The 400 for a string that does not match its pattern."""
    return ApiError(
        f"Invalid '{at}': string does not match pattern. Expected a string that matches the "
        f"pattern '{pattern}'.",
        param=at,
        code="invalid_value",
    )


async def body_of(request: Request) -> Json:
    """The body, which must be a JSON object."""
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError:
        raise ApiError("We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict):
        raise ApiError("The body of the request must be a JSON object.")
    return body


Endpoint = Callable[[Request], Awaitable[Any]]


def endpoint(handler: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """A handler that may raise `ApiError` and may return a plain dict."""

    async def handle(request: Request) -> Response:
        headers = {"x-request-id": "req_standin", "openai-version": "2020-10-01"}
        try:
            answer = await handler(request)
        except ApiError as error:
            return JSONResponse(error.body, error.status, headers)
        if isinstance(answer, Response):
            return answer
        return JSONResponse(answer, 200, headers)

    return handle
