"""All routes of the OpenAI side, under /openai/v1."""

from __future__ import annotations

from starlette.requests import Request
from starlette.routing import Route

from . import openai_chat, openai_conversations, openai_responses
from .openai_context import check_model
from .openai_errors import ApiError, endpoint
from .worlds import Json

MODELS = ("gpt-6-astra", "gpt-5.6", "novision-1", "notools-1", "noreason-1")
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def model_view(id_: str) -> Json:
    """A model as the vendor lists it."""
    return {"id": id_, "object": "model", "created": 1_780_000_000, "owned_by": "openai"}


async def list_models(request: Request) -> Json:
    """GET /models."""
    return {"object": "list", "data": [model_view(one) for one in MODELS]}


async def retrieve_model(request: Request) -> Json:
    """GET /models/{id}: every model is there, but for those called unknown."""
    id_ = request.path_params["model"]
    check_model(id_, tools=False, reasoning=None)
    return model_view(id_)


async def no_such_url(request: Request) -> Json:
    """Whatever else is asked for, such as the assistants that were shut down."""
    path = request.url.path.removeprefix("/openai")
    raise ApiError(f"Invalid URL ({request.method} {path})", status=404)


routes = [
    *openai_conversations.routes,
    *openai_responses.routes,
    *openai_chat.routes,
    Route("/models", endpoint(list_models), methods=["GET"]),
    Route("/models/{model}", endpoint(retrieve_model), methods=["GET"]),
    Route("/{path:path}", endpoint(no_such_url), methods=METHODS),
]
