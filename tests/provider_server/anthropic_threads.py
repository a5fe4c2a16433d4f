"""Message threads: what the server holds of a conversation, by the id of its last reply.

A position is made by a reply that was finished, can be continued once, and goes with its thread
when that has not been used for `thread_ttl` seconds. A refused turn is held like any other.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from .anthropic_context import input_tokens
from .anthropic_errors import Refusal
from .worlds import Json, World, loses, state_view

BETA = "message-threads-2026-08-12"
CREATE_ONLY = ("system", "tools")
TTL = 300.0


@dataclass
class Thread:
    """One thread, and when it was last used."""

    id: str
    system: Any
    tools: list[Json]
    fixed: Json
    used: float = field(default_factory=time.monotonic)


@dataclass
class Position:
    """A place in a thread from which it can be continued."""

    thread: Thread
    message_id: str
    messages: list[Json]
    model: str
    stop_reason: str
    continued_by: str | None = None
    in_flight: bool = False

    @property
    def tokens(self) -> int:
        """What the server holds, in tokens."""
        return input_tokens(self.thread.system, self.thread.tools, self.messages)


def positions(world: World) -> dict[str, Position]:
    """Every position of a world by its message id, the expired ones too."""
    kept: dict[str, Position] = world.anthropic.setdefault("positions", {})
    return kept


def alive(world: World, position: Position) -> bool:
    """Whether the server still holds it."""
    ttl = float(world.settings.get("thread_ttl", TTL))
    return time.monotonic() - position.thread.used < ttl


def _refused(code: str, message: str, status: int = 400, **more: Any) -> Refusal:
    return Refusal(message, status, {"error_code": code} | more)


def check_supported(world: World, body: Json) -> None:
    """Refuse what setting `thread_unsupported` names and the request uses."""
    named = world.settings.get("thread_unsupported", [])
    always = {"hipaa", "inference_hooks"}
    unsupported = [name for name in named if name in always or body.get(name) is not None]
    if unsupported:
        raise _refused(
            "thread_unsupported_request",
            f"thread: not supported together with: {', '.join(unsupported)}",
            unsupported=unsupported,
        )


def find(world: World, message_id: str) -> Position:
    """The position to continue from."""
    position = positions(world).get(message_id)
    if position is None or not alive(world, position):
        raise _refused(
            "thread_not_found",
            f"No usable Thread state was found for `previous_message_id`: {message_id}",
            404,
        )
    if position.continued_by is not None:
        raise _refused(
            "thread_already_continued",
            f"The response {message_id} has already been continued.",
        )
    if position.in_flight:
        raise _refused(
            "thread_continue_in_flight", f"Another request is still continuing from {message_id}."
        )
    return position


def check_fixed(world: World, position: Position, body: Json) -> None:
    """Refuse fields that the thread was created with: others, or the same once more."""
    thread = position.thread
    kept = {"system": thread.system, "tools": thread.tools}
    given = [name for name in CREATE_ONLY if name in body]
    other = [name for name in given if (body[name] or None) != (kept[name] or None)]
    fixed = world.settings.get("thread_fixed", [])
    other += [name for name in fixed if body.get(name) != thread.fixed.get(name)]
    if other:
        raise _refused(
            "thread_fingerprint_mismatch",
            f"These fields differ from the Thread's own: {', '.join(other)}",
        )
    if given:
        raise Refusal(f"{given[0]}: may not be given with `thread.type` `continue`")


def store(
    world: World, thread: Thread, before: Position | None, messages: list[Json], reply: Json
) -> None:
    """Keep a finished turn under its reply's id."""
    kept = [*messages, {"role": "assistant", "content": reply["content"]}]
    if before is not None:
        before.continued_by = reply["id"]
        if before.stop_reason == "pause_turn" and len(messages) == len(before.messages):
            kept = _resumed(messages, reply)
    thread.used = time.monotonic()
    positions(world)[reply["id"]] = Position(
        thread, reply["id"], kept, reply["model"], reply["stop_reason"]
    )


def _resumed(messages: list[Json], reply: Json) -> list[Json]:
    """The paused reply and what it went on to say, as one message."""
    paused = messages[-1]
    whole = paused | {"content": [*paused["content"], *reply["content"]]}
    return [*messages[:-1], whole]


@loses("thread")
def lose(world: World, message_id: str | None) -> int:
    """Forget a whole thread by any of its message ids or its own, or all threads."""
    kept = positions(world)
    found = [
        key
        for key, position in kept.items()
        if message_id in {None, position.thread.id}
        or (message_id in kept and kept[message_id].thread is position.thread)
    ]
    gone = {kept[key].thread.id for key in found}
    for key in found:
        del kept[key]
    return len(gone)


@state_view
def view(world: World) -> Json:
    """The threads, for `state()`."""
    return {
        "threads": {
            key: {
                "thread": position.thread.id,
                "model": position.model,
                "system": position.thread.system,
                "tools": position.thread.tools,
                "messages": position.messages,
                "tokens": position.tokens,
                "stop_reason": position.stop_reason,
                "continued_by": position.continued_by,
                "in_flight": position.in_flight,
                "alive": alive(world, position),
            }
            for key, position in positions(world).items()
        }
    }
