"""Importing the door, with and without the OpenAI Agents SDK."""

from __future__ import annotations

import openai_agents_langswarm
from door_imports import DoorImportTests, python


class TestImport(DoorImportTests):
    door = openai_agents_langswarm
    names = ["AgentSession", "from_openai_agents", "to_openai_agents"]
    needs = ["AgentSession"]
    framework = "agents"
    extra = "openai-agents"
    inner = ("agents.memory", "AgentSession")


def test_the_converters_need_no_framework() -> None:
    code = """
from openai_agents_langswarm import from_openai_agents, to_openai_agents
print(to_openai_agents(from_openai_agents([{"role": "user", "content": "hi"}])))
"""
    assert python(code, "agents", "openai").strip() == "[{'role': 'user', 'content': 'hi'}]"
