"""Conversations of many users behind a web service: ``uvicorn service:app``.

One manager serves all requests. Who asks is decided once, in `user_of`; from there on a request
sees that user's sessions and no others.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from langswarm_session import (
    BaseSession,
    IdempotencyConflictError,
    InvalidInputError,
    MessageRefusedError,
    ProviderRateLimitError,
    ProviderSessionError,
    SessionBusyError,
    SessionError,
    SessionExistsError,
    SessionInactiveError,
    SessionMessage,
    SessionNotFoundError,
    StreamEvent,
    TurnCancelledError,
    UserSessions,
    create_session_manager,
)

logger = logging.getLogger(__name__)

PROBLEMS: list[tuple[type[SessionError], int, str]] = [
    (InvalidInputError, 422, "this cannot be used as it is"),
    (SessionNotFoundError, 404, "there is no such session"),
    (SessionExistsError, 409, "there is such a session already"),
    (SessionInactiveError, 409, "the session is closed"),
    (IdempotencyConflictError, 409, "this Idempotency-Key was used for another message"),
    (SessionBusyError, 409, "the session is still answering; wait for it, or cancel it"),
    (TurnCancelledError, 409, "the answer was cancelled; what there was of it is kept"),
    (MessageRefusedError, 422, "the message is not allowed"),
    (ProviderRateLimitError, 503, "too many requests; try again later"),
    (ProviderSessionError, 502, "there is no answer now; try again later"),
    (SessionError, 500, "the conversation is safe; try again later"),
]
"""What a client is told of an error: the first that fits. The error's own text is for the log: it
speaks to whoever programs with the package."""


def user_of(request: Request) -> str:
    """Who asks. Put your own authentication here; this one believes a header."""
    user = request.headers.get("x-user")
    if not user:
        raise HTTPException(401, "say who you are in X-User")
    return user


def sessions_of(request: Request) -> UserSessions:
    """The sessions of who asks: no others exist in it."""
    sessions: UserSessions = request.app.state.manager.for_user(user_of(request))
    return sessions


async def create(request: Request) -> Response:
    """POST /sessions"""
    session = await sessions_of(request).create_session(
        os.environ.get("PROVIDER", "mock"), os.environ.get("MODEL", "recall")
    )
    return JSONResponse({"id": session.session_id}, 201)


async def index(request: Request) -> Response:
    """GET /sessions?cursor="""
    page = await sessions_of(request).list_sessions(20, cursor=request.query_params.get("cursor"))
    found = [{"id": each.session_id, "messages": each.metrics.message_count} for each in page]
    return JSONResponse({"sessions": found, "next": page.next_cursor})


async def messages(request: Request) -> Response:
    """GET /sessions/{id}/messages"""
    session = await sessions_of(request).get_session(request.path_params["id"])
    return JSONResponse([_shown(each) for each in await session.get_messages(100)])


async def delete(request: Request) -> Response:
    """DELETE /sessions/{id}"""
    await sessions_of(request).delete_session(request.path_params["id"])
    return Response(status_code=204)


async def send(request: Request) -> Response:
    """POST /sessions/{id}/messages {"text": ...}

    With ``Idempotency-Key`` a retry is given the stored reply. With ``Accept: text/event-stream``
    the reply comes as it is made; a client that goes away cancels the turn, and what had been made
    by then is kept.
    """
    session = await sessions_of(request).get_session(request.path_params["id"])
    text = await _text_of(request)
    key = request.headers.get("idempotency-key")
    if "text/event-stream" in request.headers.get("accept", ""):
        return StreamingResponse(_events(session, text, key), media_type="text/event-stream")
    # wait=0: a second message while the first is answered gets a 409, and not a long wait.
    reply = await session.send_message(text, idempotency_key=key, wait=0)
    return JSONResponse(_shown(reply))


async def cancel(request: Request) -> Response:
    """POST /sessions/{id}/cancel: the button that stops an answer, from whichever worker."""
    session = await sessions_of(request).get_session(request.path_params["id"])
    return JSONResponse({"cancelled": await session.cancel()})


async def _text_of(request: Request) -> str:
    """What is said in a request's body."""
    try:
        text = (await request.json())["text"]
    except (ValueError, LookupError, TypeError, RecursionError):  # the last: nested too deeply
        text = None
    if not isinstance(text, str):
        raise HTTPException(422, 'send JSON: {"text": "..."}')
    return text


async def _events(session: BaseSession, text: str, key: str | None) -> AsyncIterator[str]:
    """A reply as server-sent events."""
    try:
        stream = session.stream_message(text, idempotency_key=key, wait=0)
        async with aclosing(stream) as events:  # so that a client that has gone cancels the turn
            async for event in events:
                yield _event(event)
    except SessionError as error:  # the status was sent already
        yield f"event: error\ndata: {json.dumps(_problem(error)[0])}\n\n"


def _event(event: StreamEvent) -> str:
    if event.message is not None:
        return f"event: message\ndata: {json.dumps(_shown(event.message))}\n\n"
    return f"event: text\ndata: {json.dumps(event.text)}\n\n"


def _shown(message: SessionMessage) -> dict[str, Any]:
    return {"seq": message.seq, "role": message.role.value, "text": message.text}


def _problem(error: SessionError) -> tuple[dict[str, str], int]:
    status, words = next(
        (status, words) for kind, status, words in PROBLEMS if isinstance(error, kind)
    )
    logger.log(logging.ERROR if status >= 500 else logging.INFO, "%s", error, exc_info=error)
    return {"error": type(error).__name__, "detail": words}, status


async def failed(_: Request, error: Exception) -> Response:
    """Give any error of a session as JSON."""
    assert isinstance(error, SessionError)
    problem, status = _problem(error)
    retry = getattr(error, "retry_after", None)
    headers = {"retry-after": str(int(retry) + 1)} if retry is not None else None
    return JSONResponse(problem, status, headers)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Keep one manager for all requests of this process; answers that are open as it stops end."""
    config = {"db_path": os.environ.get("DB", "service.db")}
    providers = {"mock": {"piece_delay": 0.02}}  # slow enough to be seen; others as in the README
    async with create_session_manager("sqlite", config, providers) as manager:
        app.state.manager = manager
        yield


app = Starlette(
    routes=[
        Route("/sessions", create, methods=["POST"]),
        Route("/sessions", index, methods=["GET"]),
        Route("/sessions/{id}", delete, methods=["DELETE"]),
        Route("/sessions/{id}/messages", messages, methods=["GET"]),
        Route("/sessions/{id}/messages", send, methods=["POST"]),
        Route("/sessions/{id}/cancel", cancel, methods=["POST"]),
    ],
    exception_handlers={SessionError: failed},
    lifespan=lifespan,
)
