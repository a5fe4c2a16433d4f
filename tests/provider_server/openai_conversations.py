"""The conversations API: a list of items on the server, and its metadata."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from . import openai_shapes as shapes
from .openai_context import duplicate, resolve
from .openai_errors import ApiError, body_of, endpoint, not_found
from .openai_items import check_item, kind_of, shown, stored_form
from .openai_state import (
    conversation_of,
    conversation_view,
    drop_conversation,
    drop_item,
    keep_item,
    locked,
    new_conversation,
)
from .worlds import Json, World, world_of

MOST_ITEMS = 20


def asked_for(request: Request) -> tuple[World, Json]:
    """The world of a request, and the conversation in its path."""
    world = world_of(request)
    check_offered(world, request)
    return world, conversation_of(world, request.path_params["conversation_id"])


def check_offered(world: World, request: Request) -> None:
    """A compatible server (setting `compat`) has none of this."""
    if world.settings.get("compat"):
        raise ApiError(f"Invalid URL ({request.method} {request.url.path})", status=404)


def include_of(request: Request) -> list[str]:
    """The `include` of a query, however the array is written."""
    query = request.query_params
    return query.getlist("include") + query.getlist("include[]")


def checked_items(world: World, items: list[Any], conversation: Json | None) -> list[Json]:
    """The items as the server keeps them, after all checks on the chunk."""
    if len(items) > MOST_ITEMS:
        raise ApiError(
            f"Invalid 'items': array too long. Expected an array with maximum length "
            f"{MOST_ITEMS}, but got an array with length {len(items)} instead.",
            param="items",
            code="array_above_max_length",
        )
    for number, item in enumerate(items):
        check_item(item, f"items[{number}]")
    typed = [item | {"type": kind_of(item)} for item in items]
    kept = [stored_form(world, resolve(world, item)) for item in typed]
    seen = {item["id"] for item in conversation["items"]} if conversation else set()
    for item in kept:
        if item["id"] in seen:
            raise duplicate(item["id"])
        seen.add(item["id"])
    return kept


async def create(request: Request) -> Json:
    """POST /conversations."""
    world, body = world_of(request), await body_of(request)
    check_offered(world, request)
    shapes.check_request(shapes.CONVERSATION, body, ("items",))
    shapes.check_metadata(body.get("metadata"))
    items = checked_items(world, body.get("items") or [], None)
    conversation = new_conversation(world, body.get("metadata"))
    for item in items:
        keep_item(world, item, conversation)
    return conversation_view(conversation)


async def retrieve(request: Request) -> Json:
    """GET /conversations/{id}."""
    return conversation_view(asked_for(request)[1])


async def update(request: Request) -> Json:
    """POST /conversations/{id}: new metadata in place of the old."""
    conversation = asked_for(request)[1]
    body = await body_of(request)
    shapes.check_request(shapes.CONVERSATION_UPDATE, body)
    shapes.check_metadata(body.get("metadata"))
    conversation["metadata"] = dict(body.get("metadata") or {})
    return conversation_view(conversation)


async def delete(request: Request) -> Json:
    """DELETE /conversations/{id}: its items stay behind."""
    world, conversation = asked_for(request)
    drop_conversation(world, conversation["id"])
    return {"id": conversation["id"], "object": "conversation.deleted", "deleted": True}


def item_list(items: list[Json], include: list[str], *, more: bool = False) -> Json:
    """A page of items."""
    return {
        "object": "list",
        "data": [shown(item, include) for item in items],
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
        "has_more": more,
    }


async def create_items(request: Request) -> Json:
    """POST /conversations/{id}/items; a fault's `stored=K` keeps the first K items only."""
    world, conversation = asked_for(request)
    body = await body_of(request)
    shapes.check_request(shapes.ITEMS, body, ("items",))
    if not body["items"]:
        raise ApiError("Invalid 'items': empty array.", param="items", code="empty_array")
    if conversation["busy"]:
        raise locked()
    kept = checked_items(world, body["items"], conversation)
    fault = request.scope.get("fault")
    for item in kept[: fault.options.get("stored") if fault else None]:
        keep_item(world, item, conversation)
    return item_list(kept, include_of(request))


def page(request: Request, items: list[Json], newest_first: str = "desc") -> Json:
    """The page of these items (oldest first) that the query asks for."""
    query = request.query_params
    known = {"limit", "order", "after", "include", "include[]"}
    for key in query:
        if key not in known:
            raise ApiError(f"Unknown parameter: '{key}'.", param=key, code="unknown_parameter")
    limit, order = query.get("limit", "20"), query.get("order", newest_first)
    if not limit.isdecimal() or not 1 <= int(limit) <= 100:
        message = f"Invalid 'limit': expected an integer from 1 to 100, but got {limit} instead."
        raise ApiError(message, param="limit", code="invalid_value")
    if order not in {"asc", "desc"}:
        message = f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'."
        raise ApiError(message, param="order", code="invalid_value")
    ordered = items if order == "asc" else items[::-1]
    after = query.get("after")
    if after:
        ids = [item["id"] for item in ordered]
        if after not in ids:
            raise not_found("Item", after)
        ordered = ordered[ids.index(after) + 1 :]
    size = int(limit)
    return item_list(ordered[:size], include_of(request), more=len(ordered) > size)


async def list_items(request: Request) -> Json:
    """GET /conversations/{id}/items."""
    return page(request, asked_for(request)[1]["items"])


def item_of(request: Request) -> tuple[World, Json, Json]:
    """World, conversation and item of a request."""
    world, conversation = asked_for(request)
    id_ = request.path_params["item_id"]
    for item in conversation["items"]:
        if item["id"] == id_:
            return world, conversation, item
    raise not_found("Item", id_)


async def retrieve_item(request: Request) -> Json:
    """GET /conversations/{id}/items/{item}."""
    return shown(item_of(request)[2], include_of(request))


async def delete_item(request: Request) -> Json:
    """DELETE /conversations/{id}/items/{item}."""
    world, conversation, item = item_of(request)
    if conversation["busy"]:
        raise locked()
    drop_item(world, item["id"])
    return conversation_view(conversation)


ONE = "/conversations/{conversation_id}"
routes = [
    Route("/conversations", endpoint(create), methods=["POST"]),
    Route(ONE, endpoint(retrieve), methods=["GET"]),
    Route(ONE, endpoint(update), methods=["POST"]),
    Route(ONE, endpoint(delete), methods=["DELETE"]),
    Route(f"{ONE}/items", endpoint(create_items), methods=["POST"]),
    Route(f"{ONE}/items", endpoint(list_items), methods=["GET"]),
    Route(f"{ONE}/items/{{item_id}}", endpoint(retrieve_item), methods=["GET"]),
    Route(f"{ONE}/items/{{item_id}}", endpoint(delete_item), methods=["DELETE"]),
]
