"""What a conversation of 100 turns sends, where the provider keeps it and where it does not."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report import Section
from langswarm_session import SessionManager

if TYPE_CHECKING:
    from benchmarks.bench import Bench

TURNS = 100
SIZE = 300
"""Characters of each message."""

AGENT = {"agent": {"name": "bench", "model": "claude-sonnet-5"}, "environment": {"name": "bench"}}

MODES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("openai", "gpt-5.4", "conversations", {}),
    ("openai", "gpt-5.4", "responses", {}),
    ("openai", "gpt-5.4", "chat", {}),
    ("anthropic", "claude-sonnet-5", "threads", {}),
    ("anthropic", "claude-sonnet-5", "messages", {}),
    ("anthropic", "claude-sonnet-5", "managed_agents", AGENT),
]


def run(bench: Bench) -> Section:  # noqa: ARG001 - every section is given it
    """Bytes of request bodies, counted by the stand-in server of the tests."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
    from provider_server.client import ProviderServer

    section = Section(
        f"A conversation of {TURNS} turns of {SIZE} + {SIZE} characters: what is sent (KiB)",
        ["all turns", "the last turn", "requests", "newest 100 only: all", "the last"],
    )
    native: dict[str, float] = {}
    with ProviderServer() as server:
        for provider, model, mode, options in MODES:
            whole, cut = (
                asyncio.run(_sent(server.world(), provider, model, mode, options, limit))
                for limit in (10 * TURNS, 100)
            )
            native[mode] = whole[0]
            section.row(f"{provider}, {mode}", whole[0], whole[1], whole[2], cut[0], cut[1])
    section.at_most(
        "conversations against responses", native["conversations"] / native["responses"], 0.05
    )
    section.at_most("threads against messages", native["threads"] / native["messages"], 0.05)
    return section


async def _sent(
    world: Any, provider: str, model: str, mode: str, options: dict[str, Any], max_messages: int
) -> tuple[float, float, int]:
    """KiB in all, KiB of the last turn, and the number of requests."""
    url = world.openai_url if provider == "openai" else world.anthropic_url
    given = {"api_key": world.key, "base_url": url, "mode": mode, **options}
    world.reply(*({"text": "a" * SIZE} for _ in range(TURNS)))
    async with SessionManager("memory", {provider: given}) as manager:
        session = await manager.create_session("u", provider, model, max_messages=max_messages)
        last = 0
        for _ in range(TURNS):
            before = len(world.requests())
            await session.send_message("q" * SIZE)
            last = before
    sizes = [request["bytes"] for request in world.requests()]
    return sum(sizes) / 1024, sum(sizes[last:]) / 1024, len(sizes)
