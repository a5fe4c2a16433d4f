"""The state of one API key: what was asked, what is to be answered, what each API keeps.

Everything runs on one event loop, so nothing here is locked. Each API's modules register what
they show of a world (`state_view`) and what they can lose (`loses`). Refusals need no recording
by the handlers: the middleware (faults.py) keeps each 4xx answer under `World.refused`.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import HTTPConnection

Json = dict[str, Any]


@dataclass
class World:
    """All that the server knows of one API key."""

    key: str
    requests: list[Json] = field(default_factory=list)
    replies: deque[Json] = field(default_factory=deque)
    settings: Json = field(default_factory=dict)
    openai: Json = field(default_factory=dict)
    anthropic: Json = field(default_factory=dict)
    faults: list[Any] = field(default_factory=list)
    refused: list[Json] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    tokens: Counter[str] = field(default_factory=Counter)

    def new_id(self, prefix: str) -> str:
        """An id that no other thing in this world has, e.g. `conv_000000000001...`."""
        self.counters[prefix] = self.counters.get(prefix, 0) + 1
        return f"{prefix}{self.counters[prefix]:024d}"


WORLDS: dict[str, World] = {}
StateView = Callable[[World], Json]
Loser = Callable[[World, str | None], int]
STATE_VIEWS: list[StateView] = []
LOSERS: dict[str, Loser] = {}


def world_for(key: str) -> World:
    """The world of this key, made when it is first asked for."""
    if key not in WORLDS:
        WORLDS[key] = World(key)
    return WORLDS[key]


def key_of(connection: HTTPConnection) -> str | None:
    """The API key of a request, from either vendor's header."""
    key = connection.headers.get("x-api-key")
    bearer = connection.headers.get("authorization", "")
    if not key and bearer.lower().startswith("bearer "):
        key = bearer[7:].strip()
    return key or None


def world_of(connection: HTTPConnection) -> World:
    """The world a request belongs to."""
    return world_for(key_of(connection) or "")


def next_reply(world: World) -> Json | None:
    """The next scripted reply, taken off the world; None when nothing is scripted."""
    return world.replies.popleft() if world.replies else None


def state_view(view: StateView) -> StateView:
    """Register a function whose dict goes into `ServerWorld.state()`."""
    STATE_VIEWS.append(view)
    return view


def loses(what: str) -> Callable[[Loser], Loser]:
    """Register how a thing is forgotten: (world, id or None for all) -> how many were."""

    def register(loser: Loser) -> Loser:
        LOSERS[what] = loser
        return loser

    return register


def count_tokens(world: World, given: int, read: int, written: int) -> None:
    """Add to what the world's requests have cost: tokens given, found in a cache, written to one."""
    world.tokens["requests"] += 1
    for key, count in (("given", given), ("read", read), ("written", written)):
        world.tokens[key] += count


@state_view
def tokens_view(world: World) -> Json:
    """The sums, for `state()`."""
    return {"tokens": dict(world.tokens)}


# What both APIs' unscripted replies are made with.

CALL = re.compile(r"\s*call\s+(\S+)\s+(\{.*\})\s*", re.DOTALL)


def said(count: int, text: str) -> str:
    """The reply without a script: how many messages the model saw, and the last of them."""
    return f"I see {count} messages. The last says: {text}"


def asked_call(text: str) -> tuple[str, Json] | None:
    """Name and arguments when the text is `call NAME {json}`."""
    match = CALL.fullmatch(text)
    if match is None:
        return None
    try:
        arguments = json.loads(match.group(2))
    except ValueError:
        return None
    return match.group(1), arguments


def tokens_of(characters: int) -> int:
    """Characters / 4, rounded up."""
    return math.ceil(characters / 4)


async def thinking(world: World) -> None:
    """The model at work: setting `model_seconds`, held inside the handler (locks stay taken)."""
    seconds = world.settings.get("model_seconds", 0)
    if seconds:
        await asyncio.sleep(seconds)
