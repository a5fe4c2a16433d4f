"""The events of Anthropic's managed-agent sessions.

https://platform.claude.com/docs/en/api/beta/sessions
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from langswarm_session.blocks import (
    Block,
    FileBlock,
    ImageBlock,
    OtherBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.formats import anthropic
from langswarm_session.formats.anthropic import NAME, to_messages, usage
from langswarm_session.formats.transcript import transcript
from langswarm_session.models import MessageRole, SessionMessage, TokenUsage

Event = dict[str, Any]

IDLE = "session.status_idle"

ENDED = (IDLE, "session.status_terminated", "session.deleted")
"""The events after which an agent waits for the user."""

SO_FAR = "(The conversation so far:)\n"
"""What a transcript begins with, by which it is known again."""

_GOES_ON, _GO_ON = "\n(It goes on with this:)", "\n(Go on from here.)"

_FINISH_REASONS = {
    "end_turn": "stop",
    "requires_action": "tool_calls",
    "budget_reached": "length",
}


def takes(block: Block, in_result: bool) -> bool:
    """Return whether a block can be sent in an event."""
    if isinstance(block, TextBlock | ImageBlock | FileBlock):
        return anthropic.takes(block, in_result)
    return isinstance(block, OtherBlock) and in_result and anthropic.takes(block, in_result)


def parted(
    history: Iterable[SessionMessage],
    new: Sequence[SessionMessage],
    open_calls: Collection[str],
) -> tuple[list[SessionMessage], list[SessionMessage]]:
    """Return what is to be told to a session, and what can be sent to it as it is.

    Args:
        history: What the session has not seen and is over.
        new: What it has not seen, the newest last.
        open_calls: The ids of the calls that it waits for: results of others cannot be sent.
    """
    replies = [i for i, each in enumerate(new) if each.role is MessageRole.ASSISTANT]
    told = [each for each in history if each.role is not MessageRole.SYSTEM]
    rest: list[SessionMessage] = []
    for place, message in enumerate(new):
        is_old = bool(replies) and place <= replies[-1]
        if message.role is MessageRole.SYSTEM or is_answer(message, open_calls):
            rest.append(message)
        elif is_old or message.role is MessageRole.TOOL:
            told.append(message)
        else:
            rest.append(message)
    return told, rest


def is_answer(message: SessionMessage, calls: Collection[str]) -> bool:
    """Return whether a message has the results of calls that the session waits for."""
    results = [block for block in message.blocks if isinstance(block, ToolResultBlock)]
    return bool(results) and all(block.tool_call_id in calls for block in results)


def in_words(told: Iterable[SessionMessage], *, goes_on: bool) -> SessionMessage:
    """Return a user's message that tells what was said before, for a session that was not there.

    Args:
        told: What was said.
        goes_on: Whether there is more of the user's behind it.
    """
    text = f"{SO_FAR}{transcript(told)}{_GOES_ON if goes_on else _GO_ON}"
    return SessionMessage(role=MessageRole.USER, content=text)


def to_events(messages: Iterable[SessionMessage]) -> list[Event]:
    """Return what a user, a tool and the system say, as events: results, then one message of each.

    What an assistant said cannot be sent.
    """
    results: list[Event] = []
    said: list[dict[str, Any]] = []
    system: list[str] = []
    for message in messages:
        if message.role is MessageRole.TOOL:
            results += [
                _result(each) for each in message.blocks if isinstance(each, ToolResultBlock)
            ]
        elif message.role is MessageRole.SYSTEM:
            system.append(message.text)
        elif message.role is not MessageRole.ASSISTANT:
            said += _params(message.content)
    events = results
    if said:
        events = [*events, {"type": "user.message", "content": said}]
    text = "\n\n".join(each for each in system if each.strip())
    if text:
        content = [{"type": "text", "text": text}]
        events = [*events, {"type": "system.message", "content": content}]
    return events


def _params(content: str | list[Block]) -> list[dict[str, Any]]:
    made = to_messages([SessionMessage(role=MessageRole.USER, content=content)])
    params: list[dict[str, Any]] = made[0]["content"] if made else []
    return [each for each in params if each["type"] != "text" or each["text"].strip()]


def _result(block: ToolResultBlock) -> Event:
    event: Event = {
        "type": "user.custom_tool_result",
        "custom_tool_use_id": block.tool_call_id,
        "content": _params(block.content),
    }
    return {**event, "is_error": True} if block.is_error else event


class Run:
    """What an agent does from one message to its idle state."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.error: Mapping[str, Any] | None = None
        self.end: Event | None = None
        self.last: Event = {}
        self._usages: list[TokenUsage] = []

    def add(self, event: Event) -> list[Block]:
        """Take an event in; returns the blocks that it brought."""
        kind = event["type"]
        self.last = event if event.get("id") else self.last
        blocks: list[Block] = []
        if kind == "agent.message":
            blocks = [
                TextBlock(id=event.get("id"), text=part["text"])
                for part in event.get("content") or []
                if part.get("type") == "text" and part.get("text")
            ]
        elif kind == "agent.custom_tool_use":
            blocks = [
                ToolCallBlock(id=event["id"], name=event["name"], args=event.get("input") or {})
            ]
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
        """Return what the agent said and called, as one message."""
        blocks = list(self.blocks)
        if self.stop == "refusal":
            blocks.append(RefusalBlock(refusal="The model refused."))
        return SessionMessage(
            role=MessageRole.ASSISTANT,
            content=blocks,
            provider=NAME,
            model=model or None,
            provider_message_id=self.last.get("id"),
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
            _put(messages, _from_user(event))
        else:
            run.add(event)
    if run.blocks:
        messages.append(run.reply(""))
    return messages


def _put(messages: list[SessionMessage], said: SessionMessage | None) -> None:
    """Add what was said; results that follow each other are one message."""
    if said is None:
        return
    if messages and messages[-1].role is said.role is MessageRole.TOOL:
        said = said.model_copy(update={"content": [*messages.pop().blocks, *said.blocks]})
    messages.append(said)


def _from_user(event: Event) -> SessionMessage | None:
    """Return what the user, a tool or the system said; None if it said nothing of its own."""
    parts = event.get("content") or []
    said = "".join(
        part.get("text", "")
        for part in parts
        if part.get("type") == "text" and not part.get("text", "").startswith(SO_FAR)
    )
    if event["type"] == "user.custom_tool_result":
        result = ToolResultBlock(
            tool_call_id=event["custom_tool_use_id"],
            content=said,
            is_error=bool(event.get("is_error")),
        )
        return SessionMessage(
            role=MessageRole.TOOL, content=[result], provider_message_id=event.get("id")
        )
    roles = {"user.message": MessageRole.USER, "system.message": MessageRole.SYSTEM}
    role = roles.get(event["type"])
    if role is None or not (said or _has_media(parts)):
        return None
    return SessionMessage(role=role, content=said, provider_message_id=event.get("id"))


def _has_media(parts: Iterable[Mapping[str, Any]]) -> bool:
    return any(part.get("type") != "text" for part in parts)
