"""What the tests of the Agents SDK's door share."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from langswarm_session import SessionManager

if TYPE_CHECKING:
    from openai_agents_langswarm import AgentSession

if find_spec("agents") is None:
    collect_ignore_glob = ["test_*.py"]  # each door is tested where its framework is


@pytest.fixture(autouse=True)
def no_tracing() -> None:
    """Nothing is sent anywhere."""
    from agents import set_tracing_disabled

    set_tracing_disabled(True)


@pytest.fixture
def chat(open_chat: Callable[..., AgentSession]) -> AgentSession:
    return open_chat()


@pytest.fixture
def open_chat(manager: SessionManager) -> Callable[..., AgentSession]:
    """Opens the same session again."""
    from openai_agents_langswarm import AgentSession

    return lambda **options: AgentSession("chat", manager, **options)
