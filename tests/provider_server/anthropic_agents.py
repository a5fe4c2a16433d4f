"""Agents and environments of the managed agents API, and what its handlers share."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from operator import ge, gt, le, lt
from typing import Any

from anthropic.types.beta import (
    agent_create_params,
    agent_update_params,
    environment_create_params,
    environment_update_params,
)
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .anthropic_errors import Handler, Refusal, answer, betas_of, json_body, refusing
from .anthropic_rules import TOOL_NAME, check_model
from .anthropic_shape import shape_error
from .worlds import Json, World, world_of

BETA = "managed-agents-2026-04-01"
TOOLSET = "agent_toolset_20260401"
PACKAGES = ("apt", "cargo", "gem", "go", "npm", "pip")


def now() -> str:
    """The time as the vendor writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def managed(handler: Handler) -> Handler:
    """A handler that wants the beta's header."""

    async def handle(request: Request) -> Response:
        if BETA not in betas_of(request):
            raise Refusal(f"anthropic-beta: this endpoint requires `{BETA}`")
        return await handler(request)

    return refusing(handle)


def check_shape(body: Json, kind: Any) -> None:
    """Refuse a body without the SDK's shape."""
    wrong = shape_error(body, kind)
    if wrong is not None:
        raise Refusal(wrong)


def check_metadata(metadata: Json | None) -> None:
    """Refuse metadata beyond the vendor's limits."""
    if metadata is None:
        return
    if len(metadata) > 16:
        raise Refusal("metadata: at most 16 pairs are allowed")
    for key, value in metadata.items():
        if len(key) > 64:
            raise Refusal(f"metadata.{key[:64]}: keys have at most 64 characters")
        if value is not None and len(value) > 512:
            raise Refusal(f"metadata.{key}: values have at most 512 characters")


def patched(metadata: Json, patch: Json | None) -> Json:
    """Metadata after a patch, in which null takes a key away."""
    merged = {k: v for k, v in (metadata | (patch or {})).items() if v is not None}
    check_metadata(merged)
    return merged


def listed(query: QueryParams, name: str) -> list[str]:
    """The values of a query parameter that takes several."""
    values = query.getlist(f"{name}[]") + query.getlist(name)
    return [one for value in values for one in value.split(",") if one]


def paged(items: Sequence[Json], query: QueryParams, default: int, most: int) -> Json:
    """One page: {"data", "next_page"}."""
    try:
        limit = int(query.get("limit", default))
        cursor = query.get("page")
        start = int(base64.urlsafe_b64decode(cursor).removeprefix(b"page:")) if cursor else 0
    except ValueError:
        raise Refusal("page or limit: not valid") from None
    if not 1 <= limit <= most:
        raise Refusal(f"limit: Input should be between 1 and {most}")
    end = start + limit
    more = base64.urlsafe_b64encode(f"page:{end}".encode()).decode() if end < len(items) else None
    return {"data": list(items[start:end]), "next_page": more}


def within(item: Json, query: QueryParams, key: str) -> bool:
    """Whether an item's time is within the query's created_at bounds."""
    at = item.get(key)
    for name, fits in (("gt", gt), ("gte", ge), ("lt", lt), ("lte", le)):
        bound = query.get(f"created_at[{name}]") or query.get(f"created_at_{name}")
        if bound and (at is None or not fits(_time(at), _time(bound))):
            return False
    return True


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text.replace("Z", "+00:00").replace(" ", "+"))
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def agents(world: World) -> dict[str, list[Json]]:
    """Every agent's versions, the newest last."""
    kept: dict[str, list[Json]] = world.anthropic.setdefault("agents", {})
    return kept


def environments(world: World) -> dict[str, Json]:
    """Every environment."""
    kept: dict[str, Json] = world.anthropic.setdefault("environments", {})
    return kept


def find_agent(world: World, agent_id: str, version: int | None = None) -> Json:
    """An agent's newest version, or the one asked for."""
    versions = agents(world).get(agent_id)
    if versions is None:
        raise Refusal(f"Agent not found: {agent_id}", 404)
    if version is None:
        return versions[-1]
    if not 1 <= version <= len(versions):
        raise Refusal(f"Agent version not found: {agent_id} version {version}", 404)
    return versions[version - 1]


def find_environment(world: World, environment_id: str) -> Json:
    """An environment."""
    found = environments(world).get(environment_id)
    if found is None:
        code = {"error_code": "environment_not_found"}
        raise Refusal(f"Environment not found: {environment_id}", 404, code)
    return found


def _tool(tool: Json) -> Json:
    """A tool as the vendor gives it back."""
    if tool["type"] == "custom":
        return tool
    default = tool.get("default_config") or {}
    policy = default.get("permission_policy") or {"type": "always_allow"}
    whole = {"enabled": default.get("enabled", True), "permission_policy": policy}
    configs = []
    for given in tool.get("configs") or ():
        config = {"type": given.get("type", given.get("name"))} | whole | given
        configs.append({key: value for key, value in config.items() if value is not None})
    return tool | {"configs": configs, "default_config": whole}


def resolved_tools(tools: list[Json] | None) -> list[Json]:
    """Tools checked and made whole."""
    tools = tools or []
    if len(tools) > 256:
        raise Refusal("tools: at most 256 tools are allowed")
    names = [tool["name"] for tool in tools if tool["type"] == "custom"]
    for name in names:
        if not TOOL_NAME.fullmatch(name):
            raise Refusal("tools: a name should match '^[a-zA-Z0-9_-]{1,128}$'")
    if len(set(names)) != len(names):
        raise Refusal("tools: tool names must be unique")
    return [_tool(tool) for tool in tools]


def resolved_model(model: str | Json) -> Json:
    """A model with its configuration."""
    config: Json = {"id": model} if isinstance(model, str) else dict(model)
    check_model(config["id"])
    effort = config.get("effort") or "high"
    config["effort"] = {"type": effort} if isinstance(effort, str) else effort
    return {"speed": "standard", "inference_geo": None} | config


def _agent(body: Json, agent_id: str, created: str, version: int) -> Json:
    if not body["name"].strip():
        raise Refusal("name: must be non-empty")
    check_metadata(body.get("metadata"))
    return {
        "id": agent_id,
        "type": "agent",
        "name": body["name"],
        "description": body.get("description") or None,
        "model": resolved_model(body["model"]),
        "system": body.get("system") or None,
        "tools": resolved_tools(body.get("tools")),
        "mcp_servers": body.get("mcp_servers") or [],
        "skills": body.get("skills") or [],
        "multiagent": body.get("multiagent"),
        "execution_identity": body.get("execution_identity") or {"type": "service_account"},
        "metadata": body.get("metadata") or {},
        "version": version,
        "created_at": created,
        "updated_at": now(),
        "archived_at": None,
    }


@managed
async def create_agent(request: Request) -> Response:
    """POST /agents."""
    world, body = world_of(request), await json_body(request)
    check_shape(body, agent_create_params.AgentCreateParams)
    agent = _agent(body, "", now(), 1)
    agent["id"] = world.new_id("agent_")
    agents(world)[agent["id"]] = [agent]
    return answer(agent)


@managed
async def update_agent(request: Request) -> Response:
    """POST /agents/{id}."""
    world, body = world_of(request), await json_body(request)
    check_shape(body, agent_update_params.AgentUpdateParams)
    agent = find_agent(world, request.path_params["agent_id"])
    if agent["archived_at"]:
        raise Refusal("An archived agent cannot be updated")
    if body.pop("version", agent["version"]) != agent["version"]:
        raise Refusal(f"version: the agent is at version {agent['version']}", 409)
    if "metadata" in body:
        body["metadata"] = patched(agent["metadata"], body["metadata"])
    changed = _agent(agent | body, agent["id"], agent["created_at"], agent["version"] + 1)
    same = {"version", "updated_at"}
    if all(changed[key] == agent[key] for key in agent if key not in same):
        return answer(agent)
    agents(world)[agent["id"]].append(changed)
    return answer(changed)


@managed
async def get_agent(request: Request) -> Response:
    """GET /agents/{id}."""
    version = request.query_params.get("version")
    number = int(version) if version else None
    return answer(find_agent(world_of(request), request.path_params["agent_id"], number))


@managed
async def list_versions(request: Request) -> Response:
    """GET /agents/{id}/versions."""
    agent = find_agent(world_of(request), request.path_params["agent_id"])
    versions = agents(world_of(request))[agent["id"]]
    return answer(paged(versions[::-1], request.query_params, 20, 100))


@managed
async def list_agents(request: Request) -> Response:
    """GET /agents."""
    query = request.query_params
    archived = query.get("include_archived") == "true"
    found = [versions[-1] for versions in agents(world_of(request)).values()]
    found = [
        a for a in found if (archived or not a["archived_at"]) and within(a, query, "created_at")
    ]
    return answer(paged(found[::-1], query, 20, 100))


@managed
async def archive_agent(request: Request) -> Response:
    """POST /agents/{id}/archive."""
    agent = find_agent(world_of(request), request.path_params["agent_id"])
    agent["archived_at"] = agent["archived_at"] or now()
    return answer(agent)


def _config(config: Json | None) -> Json:
    if config and config["type"] == "self_hosted":
        return config
    config = config or {}
    packages = {name: [] for name in PACKAGES} | (config.get("packages") or {})
    networking = {"type": "unrestricted"} | (config.get("networking") or {})
    if networking["type"] == "limited":
        lists = {"allow_mcp_servers": False, "allow_package_managers": False, "allowed_hosts": []}
        networking = lists | networking
    return {"type": "cloud", "networking": networking, "packages": packages | {"type": "packages"}}


@managed
async def create_environment(request: Request) -> Response:
    """POST /environments."""
    world, body = world_of(request), await json_body(request)
    check_shape(body, environment_create_params.EnvironmentCreateParams)
    if not body["name"].strip():
        raise Refusal("name: must be non-empty")
    if body.get("scope") == "account":
        raise Refusal("scope: 'account' is not supported for API organizations")
    check_metadata(body.get("metadata"))
    environment = {
        "id": world.new_id("env_"),
        "type": "environment",
        "name": body["name"],
        "description": body.get("description"),
        "config": _config(body.get("config")),
        "metadata": body.get("metadata") or {},
        "scope": "organization",
        "created_at": now(),
        "updated_at": now(),
        "archived_at": None,
    }
    environments(world)[environment["id"]] = environment
    return answer(environment)


def _environment(request: Request) -> Json:
    return find_environment(world_of(request), request.path_params["environment_id"])


@managed
async def update_environment(request: Request) -> Response:
    """POST /environments/{id}."""
    body = await json_body(request)
    check_shape(body, environment_update_params.EnvironmentUpdateParams)
    environment = _environment(request)
    if "metadata" in body:
        body["metadata"] = patched(environment["metadata"], body["metadata"])
    if body.get("config"):
        body["config"] = _config(environment["config"] | body["config"])
    kept = {k: v for k, v in body.items() if v is not None or k == "description"}
    environment.update(kept, updated_at=now())
    return answer(environment)


@managed
async def get_environment(request: Request) -> Response:
    """GET /environments/{id}."""
    return answer(_environment(request))


@managed
async def list_environments(request: Request) -> Response:
    """GET /environments."""
    query = request.query_params
    archived = query.get("include_archived") == "true"
    found = [
        e for e in environments(world_of(request)).values() if archived or not e["archived_at"]
    ]
    return answer(paged(found[::-1], query, 20, 100))


@managed
async def archive_environment(request: Request) -> Response:
    """POST /environments/{id}/archive."""
    environment = _environment(request)
    environment["archived_at"] = environment["archived_at"] or now()
    return answer(environment)


@managed
async def delete_environment(request: Request) -> Response:
    """DELETE /environments/{id}."""
    environment = _environment(request)
    del environments(world_of(request))[environment["id"]]
    return answer({"id": environment["id"], "type": "environment_deleted"})


routes = [
    Route("/agents", create_agent, methods=["POST"]),
    Route("/agents", list_agents),
    Route("/agents/{agent_id}", update_agent, methods=["POST"]),
    Route("/agents/{agent_id}", get_agent),
    Route("/agents/{agent_id}/versions", list_versions),
    Route("/agents/{agent_id}/archive", archive_agent, methods=["POST"]),
    Route("/environments", create_environment, methods=["POST"]),
    Route("/environments", list_environments),
    Route("/environments/{environment_id}", update_environment, methods=["POST"]),
    Route("/environments/{environment_id}", get_environment),
    Route("/environments/{environment_id}", delete_environment, methods=["DELETE"]),
    Route("/environments/{environment_id}/archive", archive_environment, methods=["POST"]),
]
