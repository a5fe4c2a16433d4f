"""The models that this server has."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from .anthropic_errors import Refusal, answer, refusing
from .anthropic_rules import check_model
from .anthropic_table import claude
from .worlds import Json, world_of

NAMES = ["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-novision-1"]
LINES = ("haiku", "sonnet", "opus")
MAX_INPUT = 200_000
MAX_OUTPUT = 64_000


def _supported(yes: bool) -> Json:
    return {"supported": yes}


def capabilities(name: str) -> Json:
    """What a model can do, told by its name."""
    yes, no = _supported(True), _supported(False)
    row, thinks = claude(name), _supported("nothinking" not in name)
    thinking = {"adaptive": thinks, "enabled": thinks if row.budget else no}
    thinking |= {"disabled": _supported(row.silenced), "between_tools": no}
    efforts = dict.fromkeys(("low", "medium", "high", "max", "xhigh"), yes)
    return {
        "batch": no,
        "citations": yes,
        "code_execution": no,
        "context_management": no,
        "effort": yes | efforts,
        "image_input": _supported("novision" not in name),
        "pdf_input": yes,
        "server_tools": no | {"code_execution": no, "web_search": no},
        "structured_outputs": yes,
        "thinking": thinks | {"types": thinking},
    }


def model_info(name: str) -> Json:
    """A model as the vendor describes it."""
    return {
        "type": "model",
        "id": name,
        "display_name": name.replace("-", " ").title(),
        "created_at": "2026-09-01T00:00:00Z",
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "line": next((line for line in LINES if line in name), None),
        "max_input_tokens": MAX_INPUT,
        "max_tokens": MAX_OUTPUT,
        "capabilities": capabilities(name),
    }


@refusing
async def list_models(request: Request) -> Response:
    """GET /models."""
    names: list[str] = world_of(request).settings.get("models", NAMES)
    query = request.query_params
    limit = int(query.get("limit", 20))
    if not 1 <= limit <= 1000:
        raise Refusal("limit: Input should be between 1 and 1000")
    start, end = 0, len(names)
    if query.get("after_id") in names:
        start = names.index(query["after_id"]) + 1
    if query.get("before_id") in names:
        end = names.index(query["before_id"])
        start = max(start, end - limit)
    page = names[start:end][:limit]
    more = start > 0 if "before_id" in query else start + limit < end
    body = {"data": [model_info(name) for name in page], "has_more": more}
    ends = (
        {"first_id": page[0], "last_id": page[-1]} if page else {"first_id": None, "last_id": None}
    )
    return answer(body | ends)


@refusing
async def get_model(request: Request) -> Response:
    """GET /models/{id}."""
    name = request.path_params["model_id"]
    check_model(name)
    return answer(model_info(name))
