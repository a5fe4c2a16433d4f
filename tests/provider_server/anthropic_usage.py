"""Usage: the tokens that the model is given, split into new ones, cached ones and those being cached.

The cache works as https://platform.claude.com/docs/en/build-with-claude/prompt-caching says: each
breakpoint writes what stands before it; a request reads the longest beginning that was written,
looked for at its breakpoints and up to twenty blocks before each; tools, then system, then messages.
The automatic one (top-level `cache_control`) is at the last block that is not for one turn only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .anthropic_context import blocks_of, characters, digest, explicit_breakpoints, input_tokens
from .anthropic_context import without_cache_control as plain
from .anthropic_rules import Context
from .anthropic_threads import Position
from .worlds import Json, World, count_tokens, tokens_of

LOOKBACK = 20


@dataclass
class Part:
    """A part of the prompt: a tool, a block of the system text, a block of a message."""

    value: Any
    characters: int
    mark: Json | None = None
    turn_scoped: bool = False


def usage_of(
    world: World,
    context: Context,
    given: list[Json],
    automatic: Json | None,
    before: Position | None,
    reply: Json,
) -> Json:
    """The usage of one reply; a script's own values win."""
    total = input_tokens(context.system, context.tools, given)
    ttl = "5m"
    if before is not None:
        read, created = min(before.tokens, total), 0
    else:
        read, created, ttl = _cached(world, context, given, automatic)
    usage: Json = {
        "input_tokens": total - read - created,
        "cache_creation_input_tokens": created,
        "cache_read_input_tokens": read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": created if ttl == "5m" else 0,
            "ephemeral_1h_input_tokens": created if ttl == "1h" else 0,
        },
        "output_tokens": reply["output_tokens"],
        "output_tokens_details": {"thinking_tokens": reply["thinking_tokens"]},
        "service_tier": "standard",
        "server_tool_use": None,
        "inference_geo": "not_available",
    }
    count_tokens(world, total, read, created)
    usage |= reply["usage"]
    return usage


def _parts(context: Context, given: list[Json]) -> list[Part]:
    """The prompt's parts, in the order in which they are hashed."""
    parts = [Part(plain(tool), _size(plain(tool)), tool.get("cache_control"))
             for tool in context.tools]  # fmt: skip
    if context.system:
        parts += [_part("system", block) for block in blocks_of(context.system)]
    for message in given:
        scoped = message.get("clear_at") == "next_user_message"
        rest = {key: value for key, value in message.items() if key != "content"}
        for block in blocks_of(message.get("content")):
            part = _part(rest, block)
            part.turn_scoped = scoped
            parts.append(part)
    return parts


def _size(tool: Json) -> int:
    """A tool's characters, as `frame_characters` counts them."""
    return len(json.dumps(tool, separators=(",", ":")))


def _part(where: Any, block: Json) -> Part:
    mark = next(explicit_breakpoints(block), None)
    return Part([where, plain(block)], characters(plain(block)), mark)


def _cached(
    world: World, context: Context, given: list[Json], automatic: Json | None
) -> tuple[int, int, str]:
    """The tokens read from the cache and those put into it, and for how long."""
    parts = _parts(context, given)
    marks = [index for index, part in enumerate(parts) if part.mark]
    lasting = [index for index, part in enumerate(parts) if not part.turn_scoped]
    if automatic and lasting:
        marks = sorted({*marks, lasting[-1]})
    if not marks:
        return 0, 0, "5m"
    cache: set[str] = world.anthropic.setdefault("cache", set())
    names, sizes = _prefixes(context.model, parts)
    looked = sorted({at for mark in marks for at in range(max(0, mark - LOOKBACK), mark + 1)})
    read = next((sizes[at] for at in reversed(looked) if names[at] in cache), 0)
    cache.update(names[mark] for mark in marks)
    mark = parts[marks[-1]].mark or automatic or {}
    return read, max(0, sizes[marks[-1]] - read), mark.get("ttl") or "5m"


def _prefixes(model: str, parts: list[Part]) -> tuple[list[str], list[int]]:
    """The name and the tokens of each beginning of the prompt that ends with a part."""
    names, sizes, name, count = [], [], digest(model), 0
    for part in parts:
        name, count = digest(name, part.value), count + part.characters
        names.append(name)
        sizes.append(tokens_of(count))
    return names, sizes
