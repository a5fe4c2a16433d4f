"""Managed agents: sessions and their events (agents and environments: anthropic_agents.py)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

from anthropic.types.beta import session_create_params, session_update_params
from anthropic.types.beta.sessions import event_send_params
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import anthropic_agents
from .anthropic_agents import (
    check_metadata,
    check_shape,
    find_agent,
    find_environment,
    listed,
    managed,
    now,
    paged,
    patched,
    resolved_model,
    resolved_tools,
)
from .anthropic_api import EventStream
from .anthropic_errors import Refusal, answer, json_body, refusing
from .anthropic_session import Listener, Session, end, sessions
from .anthropic_stream import sse
from .worlds import Json, World, world_of

MAX_INITIAL = 50
NUMBERS = itertools.count()
SNAPSHOT = (
    *("id", "type", "name", "description", "model", "system", "tools", "mcp_servers"),
    *("skills", "multiagent", "execution_identity", "version"),
)


def _find(request: Request) -> Session:
    session_id = request.path_params["session_id"]
    session = sessions(world_of(request)).get(session_id)
    if session is None:
        raise Refusal(f"Session not found: {session_id}", 404)
    return session


def _open(session: Session) -> Session:
    """The session, which must still take events."""
    if session.data["archived_at"]:
        raise Refusal(f"Session {session.id} is archived")
    if session.status == "terminated":
        raise Refusal(f"Session {session.id} is terminated")
    return session


def _not_running(session: Session, what: str) -> Session:
    if session.status == "running":
        raise Refusal(f"Session {session.id} is running and cannot be {what}; interrupt it first")
    return session


def _snapshot(world: World, given: str | Json) -> Json:
    """The agent as it is at the session's creation."""
    if isinstance(given, str):
        given = {"type": "agent", "id": given}
    agent = find_agent(world, given["id"], given.get("version"))
    if find_agent(world, given["id"])["archived_at"]:
        raise Refusal(f"Agent {given['id']} is archived")
    snapshot = {key: agent[key] for key in SNAPSHOT}
    if given["type"] == "agent_with_overrides":
        own = {k: v for k, v in given.items() if k not in {"id", "type", "version"}}
        if "model" in own:
            own["model"] = resolved_model(own["model"])
        if "tools" in own:
            own["tools"] = resolved_tools(own["tools"])
        snapshot |= own
    return snapshot


@managed
async def create_session(request: Request) -> Response:
    """POST /sessions."""
    world, body = world_of(request), await json_body(request)
    check_shape(body, session_create_params.SessionCreateParams)
    agent = _snapshot(world, body["agent"])
    environment = find_environment(world, body["environment_id"])
    if environment["archived_at"]:
        code = {"error_code": "environment_archived"}
        raise Refusal(f"Environment {environment['id']} is archived", 400, code)
    check_metadata(body.get("metadata"))
    events = body.get("initial_events") or []
    if len(events) > MAX_INITIAL:
        raise Refusal(f"initial_events: at most {MAX_INITIAL} events are allowed")
    _check_contents(events, "initial_events")
    data = {
        "id": world.new_id("sesn_"),
        "type": "session",
        "agent": agent,
        "environment_id": environment["id"],
        "title": body.get("title"),
        "metadata": body.get("metadata") or {},
        "status": "idle",
        "budget": body.get("budget"),
        "resources": [],
        "outcome_evaluations": [],
        "vault_ids": body.get("vault_ids") or [],
        "deployment_id": None,
        "created_at": now(),
        "updated_at": now(),
        "archived_at": None,
    }
    session = Session(world, data)
    sessions(world)[session.id] = session
    for event in events:
        session.take(event)
    return answer(session.show())


@managed
async def get_session(request: Request) -> Response:
    """GET /sessions/{id}."""
    return answer(_find(request).show())


@managed
async def list_sessions(request: Request) -> Response:
    """GET /sessions."""
    query = request.query_params
    statuses = listed(query, "statuses")
    found = [
        session.data
        for session in sessions(world_of(request)).values()
        if (query.get("include_archived") == "true" or not session.data["archived_at"])
        and query.get("agent_id") in {None, session.data["agent"]["id"]}
        and (not statuses or session.status in statuses)
        and anthropic_agents.within(session.data, query, "created_at")
    ]
    if query.get("order") != "asc":
        found.reverse()
    page = paged(found, query, 20, 100)
    kept = sessions(world_of(request))
    shown = [kept[data["id"]].show() for data in page["data"]]
    return answer({"data": shown, "prev_page": None, "next_page": page["next_page"]})


@managed
async def update_session(request: Request) -> Response:
    """POST /sessions/{id}."""
    body = await json_body(request)
    check_shape(body, session_update_params.SessionUpdateParams)
    session = _open(_find(request))
    if "vault_ids" in body:
        raise Refusal("vault_ids: not yet supported")
    if body.get("budget") and not session.data["budget"]:
        raise Refusal("budget: a budget cannot be added (budget_create_only)")
    changed: Json = {key: body[key] for key in ("title", "budget") if key in body}
    if "metadata" in body:
        changed["metadata"] = patched(session.data["metadata"], body["metadata"])
    if "agent" in body:
        _not_running(session, "given another agent")
        own = dict(body["agent"])
        if "tools" in own:
            own["tools"] = resolved_tools(own["tools"])
        changed["agent"] = session.data["agent"] | own
    changed = {key: value for key, value in changed.items() if session.data[key] != value}
    if changed:
        session.data.update(changed, updated_at=now())
        told = {k: v for k, v in changed.items() if k != "metadata" or v}
        session.emit("session.updated", **told)
    return answer(session.show())


@managed
async def archive_session(request: Request) -> Response:
    """POST /sessions/{id}/archive."""
    session = _not_running(_find(request), "archived")
    session.data["archived_at"] = session.data["archived_at"] or now()
    session.close()
    return answer(session.show())


@managed
async def delete_session(request: Request) -> Response:
    """DELETE /sessions/{id}."""
    session = _not_running(_find(request), "deleted")
    session.emit("session.deleted")
    end(session)
    del sessions(world_of(request))[session.id]
    return answer({"id": session.id, "type": "session_deleted"})


def _check_contents(events: list[Json], where: str) -> None:
    """Refuse contents that say nothing."""
    for number, event in enumerate(events):
        at = f"{where}.{number}"
        content = event.get("content")
        if event["type"] in {"user.message", "system.message"} and not content:
            raise Refusal(f"{at}.content: must not be empty")
        for block in content or ():
            if block["type"] == "text" and not block["text"].strip():
                raise Refusal(f"{at}.content: text must be non-empty")


def _check_sent(session: Session, events: list[Json]) -> None:
    """Refuse the whole request if one of its events cannot be taken."""
    if not events:
        raise Refusal("events: at least one event is required")
    _check_contents(events, "events")
    waiting = dict(session.pending)
    for number, event in enumerate(events):
        kind, at = event["type"], f"events.{number}"
        if kind == "user.interrupt":
            waiting = {}
        elif kind == "system.message":
            _check_system_event(events, number, at)
        elif kind in {"user.message", "user.define_outcome"}:
            if waiting:
                raise Refusal(f"{at}: waiting on responses to events {list(waiting)}")
        else:
            _check_answer(session, event, waiting, at)


def _check_system_event(events: list[Json], number: int, at: str) -> None:
    before = events[number - 1]["type"] if number else ""
    follows = {"user.message", "user.tool_result", "user.custom_tool_result"}
    if number != len(events) - 1 or before not in follows:
        raise Refusal(f"{at}: system.message must be last, right after the event it accompanies")


def _check_answer(session: Session, event: Json, waiting: dict[str, Any], at: str) -> None:
    kind = event["type"]
    used = str(event.get("custom_tool_use_id") or event.get("tool_use_id"))
    if kind == "user.tool_result":
        raise Refusal(f"{at}: user.tool_result is only valid on self_hosted environments")
    if event.get("deny_message") and event["result"] != "deny":
        raise Refusal(f"{at}.deny_message: only allowed when result is 'deny'")
    wanted = "agent.custom_tool_use" if kind == "user.custom_tool_result" else "agent.tool_use"
    if waiting.get(used, {}).get("type") != wanted:
        raise Refusal(f"{at}: no pending {wanted} event with id {used}")
    del waiting[used]


@managed
async def send_events(request: Request) -> Response:
    """POST /sessions/{id}/events."""
    body = await json_body(request)
    check_shape(body, event_send_params.EventSendParams)
    session = _open(_find(request))
    _check_sent(session, body["events"])
    return answer({"data": [session.take(event) for event in body["events"]]})


@managed
async def list_events(request: Request) -> Response:
    """GET /sessions/{id}/events."""
    query = request.query_params
    kinds = listed(query, "types")
    found = [
        event
        for event in _find(request).events
        if (not kinds or event["type"] in kinds)
        and anthropic_agents.within(event, query, "processed_at")
    ]
    if query.get("order") == "desc":
        found.reverse()
    return answer(paged(found, query, 1000, 1000))


@managed
async def stream_events(request: Request) -> Response:
    """GET /sessions/{id}/events/stream."""
    session = _find(request)
    queue: Listener = asyncio.Queue()
    if session.world.settings.get("replays_events"):
        for event in session.events:
            if event["processed_at"]:
                queue.put_nowait(event)
    if session.data["archived_at"] or session.status == "terminated":
        queue.put_nowait(None)
    number = next(NUMBERS)
    session.listeners[number] = (queue, listed(request.query_params, "event_deltas"))

    async def told() -> AsyncIterator[bytes]:
        while (event := await queue.get()) is not None:
            yield sse(event)

    return EventStream(told(), lambda: session.listeners.pop(number, None) and None)


@refusing
async def not_found(request: Request) -> Response:
    """Whatever this server does not have."""
    raise Refusal(f"Not found: {request.method} {request.url.path}", 404)


SESSION = "/sessions/{session_id}"
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
routes = [
    *anthropic_agents.routes,
    Route("/sessions", create_session, methods=["POST"]),
    Route("/sessions", list_sessions),
    Route(SESSION, update_session, methods=["POST"]),
    Route(SESSION, get_session),
    Route(SESSION, delete_session, methods=["DELETE"]),
    Route(f"{SESSION}/archive", archive_session, methods=["POST"]),
    Route(f"{SESSION}/events", send_events, methods=["POST"]),
    Route(f"{SESSION}/events", list_events),
    Route(f"{SESSION}/events/stream", stream_events),
    Route("/{path:path}", not_found, methods=METHODS),
]
