"""One managed agent session: its events, its listeners, and the agent's run.

What the user sends waits in `queue` until the agent takes it up; then it gets its
`processed_at` and goes to the listeners. An interrupt is taken up at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from .anthropic_agents import TOOLSET, now
from .anthropic_context import blocks_of, input_tokens
from .anthropic_replies import make_reply
from .anthropic_rules import Context
from .anthropic_stream import pieces
from .worlds import Json, World, loses, state_view

BUILT_IN = {"bash", "edit", "read", "write", "glob", "grep", "web_fetch", "web_search"}
RUNS_AT_MOST = 50
Listener = asyncio.Queue[Json | None]


@dataclass
class Session:
    """A session and all that happened in it."""

    world: World
    data: Json
    events: list[Json] = field(default_factory=list)
    messages: list[Json] = field(default_factory=list)
    queue: deque[Json] = field(default_factory=deque)
    pending: dict[str, Json] = field(default_factory=dict)
    """What the agent waits for: the tool uses by their event ids."""
    results: list[Json] = field(default_factory=list)
    listeners: dict[int, tuple[Listener, list[str]]] = field(default_factory=dict)
    usage: Json = field(default_factory=dict)
    held: int = 0
    """The tokens of the context that the last run saw: what is cached for the next."""
    began: float = field(default_factory=time.monotonic)
    active: float = 0.0
    task: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        """The session's id."""
        return str(self.data["id"])

    @property
    def status(self) -> str:
        """The session's status."""
        return str(self.data["status"])

    def show(self) -> Json:
        """The session as the vendor gives it back."""
        stats = {"active_seconds": self.active, "duration_seconds": time.monotonic() - self.began}
        return self.data | {"usage": self._usage(), "stats": stats}

    def _usage(self) -> Json:
        created = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}
        usage = dict.fromkeys(("input_tokens", "output_tokens", "cache_read_input_tokens"), 0)
        return usage | self.usage | {"cache_creation": created, "active_seconds": self.active}

    # Events

    def emit(self, kind: str, **fields: Any) -> Json:
        """A new event, kept and told to the listeners."""
        event = {"type": kind, "id": self.world.new_id("sevt_"), "processed_at": now()} | fields
        self.keep(event)
        return event

    def keep(self, event: Json) -> None:
        """Keep an event that is processed, as the newest."""
        self.events = [one for one in self.events if one is not event]
        self.events.append(event)
        for queue, previews in self.listeners.values():
            for preview in _previews(event) if event["type"] in previews else ():
                queue.put_nowait(preview)
            queue.put_nowait(event)

    def close(self) -> None:
        """End every stream."""
        for queue, _ in self.listeners.values():
            queue.put_nowait(None)

    # What the user sends

    def take(self, given: Json) -> Json:
        """Take one event that the user sent; it must have been checked."""
        event = {"id": self.world.new_id("sevt_"), "processed_at": None} | given
        kind = event["type"]
        if kind == "user.define_outcome":
            event |= {"outcome_id": self.world.new_id("outc_"), "processed_at": now()}
        self.events.append(event)
        if kind == "user.interrupt":
            self._interrupt(event)
        elif kind in {"user.custom_tool_result", "user.tool_confirmation", "user.tool_result"}:
            self._process(event)
            self._resolve(event)
        else:
            self.queue.append(event)
        self._go()
        return dict(event)

    def _process(self, event: Json) -> None:
        event["processed_at"] = event["processed_at"] or now()
        self.keep(event)

    def _interrupt(self, event: Json) -> None:
        running = self.task is not None and not self.task.done()
        if running and self.task is not None:
            self.task.cancel()
            self.task = None
        waited = bool(self.pending)
        self.pending, self.results = {}, []
        self._process(event)
        if running or waited:
            self._span_end(None, is_error=True)
            self.idle({"type": "end_turn"})

    def _span_end(self, tokens: Json | None, *, is_error: bool) -> None:
        """Close the open model request, if one is open."""
        spans = [e for e in self.events if e["type"].startswith("span.model_request")]
        if not spans or spans[-1]["type"] != "span.model_request_start":
            return
        none = dict.fromkeys(("input_tokens", "output_tokens"), 0)
        none |= dict.fromkeys(("cache_creation_input_tokens", "cache_read_input_tokens"), 0)
        start = spans[-1]["id"]
        fields = {"model_request_start_id": start, "model_usage": tokens or none}
        self.emit("span.model_request_end", is_error=is_error, **fields)

    def _resolve(self, event: Json) -> None:
        """Note the answer to something that the agent waits for."""
        used = event.get("custom_tool_use_id") or event["tool_use_id"]
        self.pending.pop(used)
        content, failed = event.get("content") or [], bool(event.get("is_error"))
        if event["type"] == "user.tool_confirmation":
            denied = event["result"] == "deny"
            text = (event.get("deny_message") or "denied") if denied else "done"
            content, failed = [{"type": "text", "text": text}], denied
            self.emit("agent.tool_result", tool_use_id=used, content=content, is_error=denied)
        result = {"type": "tool_result", "tool_use_id": used, "content": content}
        self.results.append(result | {"is_error": failed})
        if self.pending:
            self.idle({"type": "requires_action", "event_ids": list(self.pending)})

    # The agent's run

    def _go(self) -> None:
        """Let the agent work, if it is not at it and there is something to do."""
        busy = self.task is not None and not self.task.done()
        if busy or self.pending or not (self.queue or self.results):
            return
        self.data["status"] = "running"
        self.task = asyncio.create_task(self._run())

    def idle(self, reason: Json, details: Json | None = None) -> None:
        """The agent waits for the user."""
        self.data["status"] = "idle"
        self.emit("session.status_idle", stop_reason=reason, stop_details=details)

    async def _run(self) -> None:
        began = time.monotonic()
        try:
            while self.status != "terminated" and (self.queue or self.results):
                self._take_up()
                self.data["status"] = "running"
                self.emit("session.status_running")
                await self._turn()
                if self.pending:
                    return
        except Exception as error:
            self._fail("terminal", f"the stand-in server's own mistake: {error!r}")
            self._terminate()
            raise
        finally:
            self.active += time.monotonic() - began

    def _take_up(self) -> None:
        """Give the agent what it has been sent."""
        if self.results:
            self.messages.append({"role": "user", "content": self.results})
            self.results = []
        while self.queue:
            event = self.queue.popleft()
            self._process(event)
            role = "system" if event["type"] == "system.message" else "user"
            content = event.get("content") or [{"type": "text", "text": event["description"]}]
            self.messages.append({"role": role, "content": content})

    async def _turn(self) -> None:
        """Ask the model until it ends its turn or waits for the user."""
        for _ in range(RUNS_AT_MOST):
            self.emit("span.model_request_start")
            await asyncio.sleep(float(self.world.settings.get("agent_delay", 0)))
            reply = make_reply(self.world, self._context())
            self._say(reply)
            if not self.results or self.pending:
                break
            self._take_up()
        if self.pending:
            self.idle({"type": "requires_action", "event_ids": list(self.pending)})
            return
        self._end_turn(reply)

    def _context(self) -> Context:
        agent = self.data["agent"]
        tools = [tool for tool in agent["tools"] if tool["type"] == "custom"]
        tools += [{"name": name} for name in self._built_in()]
        model, system = agent["model"]["id"], agent["system"]
        return Context(model, list(self.messages), system, tools, {"type": "adaptive"})

    def _built_in(self) -> set[str]:
        has = any(tool["type"] == TOOLSET for tool in self.data["agent"]["tools"])
        return BUILT_IN if has else set()

    def _count(self, reply: Json) -> Json:
        agent = self.data["agent"]
        total = input_tokens(agent["system"], agent["tools"], self.messages)
        read, self.held = min(self.held, total), total
        tokens: Json = {
            "input_tokens": total - read,
            "output_tokens": reply["output_tokens"],
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": 0,
        }
        tokens |= reply["usage"]
        for key in ("input_tokens", "output_tokens", "cache_read_input_tokens"):
            self.usage[key] = self.usage.get(key, 0) + tokens[key]
        return tokens

    def _say(self, reply: Json) -> None:
        """Make the reply's events."""
        tokens = self._count(reply)
        content = reply["content"]
        if any(b["type"] in {"thinking", "redacted_thinking"} for b in content):
            self.emit("agent.thinking")
        texts = [{"type": "text", "text": b["text"]} for b in content if b["type"] == "text"]
        if texts:
            self.emit("agent.message", content=texts)
        kept = [dict(block) for block in content]
        for block in kept:
            if block["type"] == "tool_use":
                self._use(block)
        self.messages.append({"role": "assistant", "content": kept})
        self._span_end(tokens, is_error=False)

    def _use(self, block: Json) -> None:
        """Make a tool call's event, and its result if the agent may run the tool itself."""
        fields = {"name": block["name"], "input": block["input"]}
        if not block["id"].startswith("toolu_0000"):
            fields["id"] = block["id"]
        if block["name"] not in self._built_in():
            event = self.emit("agent.custom_tool_use", **fields)
            self.pending[event["id"]] = event
        else:
            policy = self._policy(block["name"])
            permission = "ask" if policy == "always_ask" else "allow"
            evaluation = {"evaluation": {"type": policy}} if policy != "auto" else {}
            fields |= {"evaluated_permission": permission} | evaluation
            event = self.emit("agent.tool_use", **fields)
            if permission == "ask":
                self.pending[event["id"]] = event
            else:
                done = [{"type": "text", "text": "done"}]
                self.emit("agent.tool_result", tool_use_id=event["id"], content=done)
                result = {"type": "tool_result", "tool_use_id": event["id"], "content": done}
                self.results.append(result)
        block["id"] = event["id"]

    def _policy(self, name: str) -> str:
        """The permission policy of a built-in tool."""
        toolset = next(t for t in self.data["agent"]["tools"] if t["type"] == TOOLSET)
        for config in toolset["configs"]:
            if config.get("name") == name or config["type"] == name:
                return str(config["permission_policy"]["type"])
        return str(toolset["default_config"]["permission_policy"]["type"])

    def _end_turn(self, reply: Json) -> None:
        reason = reply["stop_reason"]
        if reason == "terminated":
            self._fail("terminal")
            self._terminate()
        elif reason == "retries_exhausted":
            self._fail("exhausted")
            self.idle({"type": reason})
        elif reason in {"refusal", "budget_reached"}:
            self.idle({"type": reason}, reply["stop_details"])
        else:
            self.idle({"type": "end_turn"})

    def _terminate(self) -> None:
        self.data["status"] = "terminated"
        self.emit("session.status_terminated")
        self.close()

    def _fail(self, status: str, message: str = "The model could not be asked.") -> None:
        error = {"type": "unknown_error", "message": message}
        self.emit("session.error", error=error | {"retry_status": {"type": status}})


def _previews(event: Json) -> list[Json]:
    """The events that announce an event, for a stream that asked for them."""
    start: Json = {"type": "event_start", "event": {"type": event["type"], "id": event["id"]}}
    deltas = [
        {
            "type": "event_delta",
            "event_id": event["id"],
            "delta": {
                "type": "content_delta",
                "index": index,
                "content": {"type": "text", "text": piece},
            },
        }
        for index, block in enumerate(blocks_of(event.get("content", [])))
        for piece in pieces(block["text"])
    ]
    return [start, *deltas]


def sessions(world: World) -> dict[str, Session]:
    """Every session."""
    kept: dict[str, Session] = world.anthropic.setdefault("sessions", {})
    return kept


def end(session: Session) -> None:
    """Let nothing more happen in a session."""
    if session.task is not None:
        session.task.cancel()
    session.close()


@loses("session")
def lose(world: World, session_id: str | None) -> int:
    """Forget a session without a word, or all of them."""
    found = [key for key in sessions(world) if session_id in {None, key}]
    for key in found:
        end(sessions(world).pop(key))
    return len(found)


@state_view
def view(world: World) -> Json:
    """The sessions, agents and environments, for `state()`."""
    shown = {
        key: session.show()
        | {
            "events": session.events,
            "messages": session.messages,
            "pending": list(session.pending),
            "queued": [event["id"] for event in session.queue],
            "streams": len(session.listeners),
        }
        for key, session in sessions(world).items()
    }
    return {
        "sessions": shown,
        "agents": {key: kept[-1] for key, kept in world.anthropic.get("agents", {}).items()},
        "environments": world.anthropic.get("environments", {}),
    }
