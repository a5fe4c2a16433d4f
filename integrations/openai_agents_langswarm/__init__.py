"""The OpenAI Agents SDK's door to the conversation record.

`AgentSession` is a session of the SDK's; `to_openai_agents` and `from_openai_agents` convert its
items without a store.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai_agents_langswarm.items import from_openai_agents as from_openai_agents
    from openai_agents_langswarm.items import to_openai_agents as to_openai_agents
    from openai_agents_langswarm.session import AgentSession as AgentSession

_HOMES = {
    "AgentSession": "session",
    "from_openai_agents": "items",
    "to_openai_agents": "items",
}

__all__ = ["AgentSession", "from_openai_agents", "to_openai_agents"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{home}")
    except ModuleNotFoundError as error:
        if error.name != "agents":
            raise
        from langswarm_session.errors import MissingDependencyError

        raise MissingDependencyError(
            'openai-agents is missing: pip install "langswarm-session[openai-agents]"'
        ) from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
