"""The events of Anthropic's managed-agent sessions.

https://platform.claude.com/docs/en/api/beta/sessions
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from langswarm_session.blocks import (
    Block,
    OtherBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.formats.anthropic import NAME, to_messages, usage
from langswarm_session.models import MessageRole, SessionMessage, TokenUsage

Event = dict[str, Any]

IDLE = "session.status_idle"

ENDED = (IDLE, "session.status_terminated", "session.deleted")
"""The events after which an agent does nothing more by itself."""

_FINISH_REASONS = {
    "end_turn": "stop",
    "requires_action": "tool_calls",
    "budget_reached": "length",
}


def to_events(messages: Iterable[SessionMessage]) -> list[Event]:
    """What a user, a tool and the system say, as events: results, then one message of each.

    What an assistant said cannot be sent.
    """
    results: list[Event] = []
    said: list[dict[str, Any]] = []
    system: list[str] = []
    for message in messages:
        if message.role is MessageRole.TOOL:
            results += [_result(each) for each in message.blocks if isinstance(each, ToolResultBlock)]
        elif message.role is MessageRole.SYSTEM:
            system.append(message.text)
        elif message.role is not MessageRole.ASSISTANT:
            said += to_messages([message])[0]["content"]
    events = results
    if said:
        events = [*events, {"type": "user.message", "content": said}]
    text = "\n\n".join(each for each in system if each.strip())
    if text:
        content = [{"type": "text", "text": text}]
        events = [*events, {"type": "system.message", "content": content}]
    return events


def _result(block: ToolResultBlock) -> Event:
    content = to_messages([SessionMessage(role=MessageRole.USER, content=block.content)])
    event: Event = {
        "type": "user.custom_tool_result",
        "custom_tool_use_id": block.tool_call_id,
        "content": content[0]["content"] if content else [],
    }
    return {**event, "is_error": True} if block.is_error else event


class Run:
    """What an agent does from one message to its idle state."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.error: Mapping[str, Any] | None = None
        self.end: Event | None = None
        self.last_event: str | None = None
        self._usages: list[TokenUsage] = []

    def add(self, event: Event) -> list[Block]:
        """Take an event in; returns the blocks that it brought."""
        kind = event["type"]
        self.last_event = event.get("id") or self.last_event
        blocks: list[Block] = []
        if kind == "agent.message":
            blocks = [
                TextBlock(id=event.get("id"), text=part["text"])
                for part in event.get("content") or []
                if part.get("type") == "text"
            ]
        elif kind == "agent.custom_tool_use":
            blocks = [ToolCallBlock(id=event["id"], name=event["name"], args=event["input"])]
        elif kind in ENDED:
            self.end = event
        elif kind == "session.error":
            self.error = event.get("error")
        elif kind == "span.model_request_end":
            counted = usage(event.get("model_usage"))
            self._usages += [counted] if counted is not None else []
        elif kind.startswith("agent.") and kind != "agent.thinking":
            blocks = [OtherBlock(id=event.get("id"), value=event)]
        self.blocks += blocks
        return blocks

    @property
    def stop(self) -> str:
        """Why the agent stopped, in the API's words."""
        if self.end is None or self.end["type"] != IDLE:
            return "" if self.end is None else str(self.end["type"])
        return str((self.end.get("stop_reason") or {}).get("type") or "end_turn")

    @property
    def waits_for(self) -> list[str]:
        """The ids of the events that the agent waits for an answer to."""
        reason = (self.end or {}).get("stop_reason") or {}
        return list(reason.get("event_ids") or [])

    def reply(self, model: str) -> SessionMessage:
        """What the agent said and called, as one message."""
        blocks = list(self.blocks)
        if self.stop == "refusal":
            blocks.append(RefusalBlock(refusal="The model refused."))
        return SessionMessage(
            role=MessageRole.ASSISTANT,
            content=blocks,
            provider=NAME,
            model=model,
            provider_message_id=self.last_event,
            usage=self._usage(),
            finish_reason=_FINISH_REASONS.get(self.stop, self.stop),
        )

    def _usage(self) -> TokenUsage | None:
        if not self._usages:
            return None
        return TokenUsage(
            input_tokens=sum(each.input_tokens for each in self._usages),
            output_tokens=sum(each.output_tokens for each in self._usages),
            cached_tokens=sum(each.cached_tokens for each in self._usages),
        )


def from_events(events: Iterable[Event]) -> list[SessionMessage]:
    """Events as messages: what an agent did in a row is one message."""
    messages: list[SessionMessage] = []
    run = Run()
    for event in events:
        kind = event["type"]
        if kind.startswith("user.") or kind == "system.message":
            if run.blocks:
                messages.append(run.reply(""))
            run = Run()
            made = _from_user(event)
            messages += [made] if made is not None else []
        else:
            run.add(event)
    if run.blocks:
        messages.append(run.reply(""))
    return messages


def _from_user(event: Event) -> SessionMessage | None:
    parts = event.get("content") or []
    text = "".join(part.get("text", "") for part in parts if part.get("type") == "text")
    if event["type"] == "user.custom_tool_result":
        result = ToolResultBlock(
            tool_call_id=event["custom_tool_use_id"],
            content=text,
            is_error=bool(event.get("is_error")),
        )
        return SessionMessage(
            role=MessageRole.TOOL, content=[result], provider_message_id=event.get("id")
        )
    roles = {"user.message": MessageRole.USER, "system.message": MessageRole.SYSTEM}
    role = roles.get(event["type"])
    if role is None:
        return None
    return SessionMessage(role=role, content=text, provider_message_id=event.get("id"))
