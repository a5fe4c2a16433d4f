"""Routes for the tests, under `/_control/{key}/...`: script replies, faults, look at the state."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .faults import KINDS, Fault
from .worlds import LOSERS, STATE_VIEWS, Json, World, world_for


def _world(request: Request) -> World:
    return world_for(request.path_params["key"])


def _wrong(message: str) -> Response:
    return JSONResponse({"error": message}, 400)


async def list_requests(request: Request) -> Response:
    """What was asked, in order; `path` may be "/v1/x" or "POST /v1/x", with wildcards."""
    kept = _world(request).requests
    path = request.query_params.get("path")
    if path:
        on = Fault(path if " " in path or path == "*" else f"* {path}", "status")
        kept = [one for one in kept if on.matches(one["method"], one["path"])]
    return JSONResponse(kept)


async def add_replies(request: Request) -> Response:
    """Script replies."""
    _world(request).replies.extend(await request.json())
    return JSONResponse({})


async def add_fault(request: Request) -> Response:
    """Plan a fault."""
    fault = Fault(**await request.json())
    if fault.kind not in KINDS:
        return _wrong(f"no such fault: {fault.kind}; there are {sorted(KINDS)}")
    if fault.kind in {"status", "status_after"} and "status" not in fault.options:
        return _wrong(f"the fault {fault.kind} needs status=")
    _world(request).faults.append(fault)
    return JSONResponse({})


async def change_settings(request: Request) -> Response:
    """Set settings; None takes one away."""
    settings = _world(request).settings
    settings.update(await request.json())
    for name in [name for name, value in settings.items() if value is None]:
        del settings[name]
    return JSONResponse(settings)


def state_of(world: World) -> Json:
    """All that the world shows."""
    state: Json = {
        "refused": world.refused,
        "settings": world.settings,
        "replies_left": list(world.replies),
        "faults_left": [asdict(fault) for fault in world.faults if fault.times != 0],
    }
    for view in STATE_VIEWS:
        state |= view(world)
    return state


async def show_state(request: Request) -> Response:
    """The state of both APIs."""
    return JSONResponse(state_of(_world(request)))


async def lose(request: Request) -> Response:
    """Forget a thing, or all things of a kind, as the vendor does on expiry."""
    body: dict[str, Any] = await request.json()
    loser = LOSERS.get(body["what"])
    if loser is None:
        return _wrong(f"nothing to lose called {body['what']}; there are {sorted(LOSERS)}")
    return JSONResponse({"lost": loser(_world(request), body.get("id"))})


routes = [
    Route("/{key}/requests", list_requests),
    Route("/{key}/replies", add_replies, methods=["POST"]),
    Route("/{key}/faults", add_fault, methods=["POST"]),
    Route("/{key}/settings", change_settings, methods=["POST"]),
    Route("/{key}/state", show_state),
    Route("/{key}/lose", lose, methods=["POST"]),
]
