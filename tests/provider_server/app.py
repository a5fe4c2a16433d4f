"""The application: both vendors' APIs behind the faults, and the control routes."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount

from . import anthropic_api, control, managed_agents, openai_api
from .faults import Faults

app = Starlette(
    routes=[
        Mount("/openai/v1", routes=openai_api.routes),
        Mount("/anthropic/v1", routes=[*anthropic_api.routes, *managed_agents.routes]),
        Mount("/anthropic/vertex", routes=anthropic_api.vertex_routes),
        Mount("/_control", routes=control.routes),
    ],
    middleware=[Middleware(Faults)],
)
