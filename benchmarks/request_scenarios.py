"""Whether a server that binds thinking to its prefix takes every request, and how each begins.

    python -m benchmarks.request_scenarios [TURNS]

Runs conversations of 60 turns in mode ``messages`` against the tests' stand-in server, whose model
thinks in each turn and refuses thinking behind another beginning
(https://platform.claude.com/docs/en/build-with-claude/preserved-thinking/prefix-checks). Counts the
refusals, and the requests that begin with the whole of the one before, compared part by part: the
system text, the tools and each message, without cache markers.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from provider_server.client import ProviderServer, ServerWorld

from langswarm_session import (
    BaseSession,
    MockProviderSession,
    SessionError,
    SessionManager,
    SummarizingMiddleware,
    Tool,
)

MODEL = "claude-opus-5-5"
THINKING = {"thinking": {"type": "adaptive"}, "max_tokens": 4000}

Step = Callable[[BaseSession, int], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """One conversation.

    Attributes:
        name: What happens in it.
        context: The session's limits.
        step: What is done before a turn.
        options: Keywords for the provider in a turn.
        summaries: Whether summaries are made.
    """

    name: str
    context: dict[str, Any] = field(default_factory=dict)
    step: Step | None = None
    options: Callable[[int], dict[str, Any]] = lambda _: {}
    summaries: bool = False


async def later_system(session: BaseSession, turn: int) -> None:
    """Add a system message in the middle."""
    if turn == 20:
        await session.add_system_message("Answer in one line.")


async def edit(session: BaseSession, turn: int) -> None:
    """Change what a user said long ago."""
    if turn == 30:
        message = (await session.read_messages(after=20, limit=1))[0]
        changed = message.replaced(content="said otherwise")
        await session.edit_messages(expected_revision=session.revision, change=[changed])


async def shorter(session: BaseSession, turn: int) -> None:
    """Lower the limit in the middle."""
    if turn == 30:
        await session.update_context(max_messages=20)


async def elsewhere(session: BaseSession, turn: int) -> None:
    """Let another model answer for one turn."""
    if turn in (30, 31):
        await session.switch_provider("anthropic", "claude-sonnet-5-5" if turn == 30 else MODEL)


def tools(turn: int) -> dict[str, Any]:
    """Offer another tool from the middle on."""
    return {"tools": [Tool("look"), Tool("find")] if turn >= 20 else [Tool("look")]}


SCENARIOS = [
    Scenario("plain"),
    Scenario("tools", options=lambda _: {"tools": [Tool("look")]}),
    Scenario("later system message", step=later_system),
    Scenario("a tool more", options=tools),
    Scenario("summaries", summaries=True),
    Scenario("edit", step=edit),
    Scenario("limit lowered", step=shorter),
    Scenario("max_messages=30", {"max_messages": 30}),
    Scenario("max_input_tokens=400", {"max_input_tokens": 400}),
    Scenario("turn_context", options=lambda turn: {"turn_context": f"It is day {turn}."}),
    Scenario("another model for a turn", step=elsewhere),
]


@dataclass
class Outcome:
    """What became of a conversation."""

    refused: int = 0
    answered: int = 0
    whole: int = 0
    requests: int = 0
    cached: float = 0.0
    reported: int = 0


async def run(world: ServerWorld, scenario: Scenario, turns: int) -> Outcome:
    """Run one conversation."""
    options = {
        "api_key": world.key,
        "base_url": world.anthropic_url,
        "mode": "messages",
        "dialect": "anthropic",
    }
    found = Outcome()
    async with SessionManager("memory", {"anthropic": options}) as manager:
        if scenario.summaries:
            writer = MockProviderSession(["what was said"] * turns)
            manager.add_global_middleware(SummarizingMiddleware(provider=writer))
        session = await manager.create_session("ann", "anthropic", MODEL, **scenario.context)
        await session.add_system_message("Be kind.")
        for turn in range(turns):
            if scenario.step is not None:
                await scenario.step(session, turn)
            try:
                reply = await session.send_message(
                    f"question {turn}", **THINKING, **scenario.options(turn)
                )
            except SessionError as error:
                found.refused += 1
                print(f"{scenario.name}, turn {turn}: {error}", file=sys.stderr)
            else:
                found.answered += 1
                found.reported += "prefix_change" in reply.metadata.get("langswarm", {})
        usage = session.metrics
        found.cached = usage.cached_tokens / max(1, usage.input_tokens)
    found.refused = max(found.refused, len(world.state()["refused"]))
    bodies = [parts(each["body"]) for each in world.requests("POST /v1/messages")]
    found.requests = len(bodies) - 1
    found.whole = sum(after[: len(before)] == before for before, after in pairwise(bodies))
    return found


def parts(body: dict[str, Any]) -> list[Any]:
    """Return the parts of a request, without cache markers."""
    messages = [
        (message["role"], block)
        for message in body["messages"]
        for block in _blocks(message["content"])
    ]
    return [_blocks(body.get("system", "")), _unmarked(body.get("tools", [])), *messages]


def _blocks(content: Any) -> list[Any]:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [_unmarked(block) for block in blocks]


def _unmarked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unmarked(each) for key, each in value.items() if key != "cache_control"}
    return [_unmarked(each) for each in value] if isinstance(value, list) else value


async def main(turns: int) -> int:
    """Print the table, and return how many requests were refused."""
    print(f"{turns} turns of {MODEL}, which binds its thinking\n")
    print("| | refused | begin with the whole one before | reported | found in the cache |")
    print("|---|---|---|---|---|")
    refused = 0
    with ProviderServer() as server:
        for scenario in SCENARIOS:
            found = await run(server.world(reasoning=True), scenario, turns)
            refused += found.refused
            whole = f"{found.whole} of {found.requests}"
            print(f"| {scenario.name} | {found.refused} | {whole} | {found.reported} "
                  f"| {found.cached:.0%} |")  # fmt: skip
    return refused


if __name__ == "__main__":
    sys.exit(min(1, asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 60))))
