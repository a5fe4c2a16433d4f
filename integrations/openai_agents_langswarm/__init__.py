"""The OpenAI Agents SDK's door to the conversation record.

`AgentSession` is a session of the SDK's; `to_openai_agents` and `from_openai_agents` convert its
items without a store.
"""

from typing import TYPE_CHECKING

from langswarm_session.lazy import lazy_names

if TYPE_CHECKING:
    from openai_agents_langswarm.items import from_openai_agents as from_openai_agents
    from openai_agents_langswarm.items import to_openai_agents as to_openai_agents
    from openai_agents_langswarm.session import AgentSession as AgentSession

_HOMES = {
    "AgentSession": "session",
    "from_openai_agents": "items",
    "to_openai_agents": "items",
    "message_format": "items",
}

_EXTRAS = {"agents": ("openai-agents", "openai-agents")}

__all__ = ["AgentSession", "from_openai_agents", "to_openai_agents"]

__getattr__, __dir__ = lazy_names(__name__, _HOMES, _EXTRAS)
