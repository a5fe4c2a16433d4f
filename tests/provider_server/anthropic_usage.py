"""Usage: the whole context's tokens, split into new ones, cached ones and those being cached."""

from __future__ import annotations

from .anthropic_context import digest, explicit_breakpoints, input_tokens, normal
from .anthropic_context import without_cache_control as plain
from .anthropic_rules import Context
from .anthropic_threads import Position
from .worlds import Json, World


def usage_of(
    world: World, context: Context, automatic: Json | None, before: Position | None, reply: Json
) -> Json:
    """The usage of one reply; a script's own values win."""
    total = input_tokens(context.system, context.tools, context.messages)
    if before is not None:
        read, created = min(before.tokens, total), 0
    else:
        read, created = _cached(world, context, automatic)
    usage: Json = {
        "input_tokens": total - read - created,
        "cache_creation_input_tokens": created,
        "cache_read_input_tokens": read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": created,
            "ephemeral_1h_input_tokens": 0,
        },
        "output_tokens": reply["output_tokens"],
        "output_tokens_details": {"thinking_tokens": reply["thinking_tokens"]},
        "service_tier": "standard",
        "server_tool_use": None,
        "inference_geo": "not_available",
    }
    usage |= reply["usage"]
    return usage


def _cached(world: World, context: Context, automatic: Json | None) -> tuple[int, int]:
    """The tokens read from the cache and those put into it."""
    marks = _marks(context, automatic)
    if not marks:
        return 0, 0
    cache: dict[str, int] = world.anthropic.setdefault("cache", {})
    messages = [normal(message) for message in context.messages]
    names = _names(context, messages)
    found = (cache[names[count]] for count in range(marks[-1], -1, -1) if names[count] in cache)
    read = next(found, 0)
    for count in marks:
        tokens = input_tokens(context.system, context.tools, messages[:count])
        cache[names[count]] = tokens
    return read, max(0, tokens - read)


def _marks(context: Context, automatic: Json | None) -> list[int]:
    """Up to how many messages each breakpoint reaches, in order; 0 is system and tools alone."""
    marks = {
        index + 1
        for index, message in enumerate(context.messages)
        if any(explicit_breakpoints(message))
    }
    if any(explicit_breakpoints([context.system, context.tools])):
        marks.add(0)
    if automatic:
        marks.add(len(context.messages))
    return sorted(marks)


def _names(context: Context, messages: list[Json]) -> list[str]:
    """The name of each beginning of the conversation, the one without messages first."""
    names = [digest(context.model, plain(context.system), plain(context.tools))]
    for message in messages:
        names.append(digest(names[-1], message))
    return names
