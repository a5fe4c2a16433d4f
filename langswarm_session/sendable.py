"""What makes any part of a record a request that a provider accepts, and says what it changed.

A log may hold calls that were never answered, answers whose call was cut off, the reasoning of
another model, or pictures for a model that takes text. None of that is wrong in a record; every
provider refuses some of it. Pure: no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from langswarm_session.blocks import (
    AudioBlock,
    Block,
    FileBlock,
    ImageBlock,
    Model,
    OtherBlock,
    ReasoningBlock,
    RefusalBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
    VideoBlock,
    text_of,
)
from langswarm_session.models import MessageRole, SessionMessage

NO_RESULT = "No result: the call was broken off before it gave one."
"""What a call is answered with that never got its result."""

OPENING = "(The beginning of the conversation is left out.)"
"""The user's message where a conversation must begin with one and does not."""

CONTINUE = "Continue."
"""The user's message where a conversation must end with one and does not."""

_ASSISTANT, _SYSTEM, _USER = MessageRole.ASSISTANT, MessageRole.SYSTEM, MessageRole.USER
_RESULTS = (MessageRole.TOOL, MessageRole.FUNCTION)
_MEDIA = (ImageBlock, AudioBlock, VideoBlock, FileBlock)


class RepairKind(StrEnum):
    """What was changed of a request."""

    CALL_ANSWERED = "call_answered"
    """A call without a result was given one that says so."""
    RESULT_DROPPED = "result_dropped"
    """A result without its call, or a second one, was left out."""
    RESULT_MOVED = "result_moved"
    """A result that came later was put behind its call."""
    ID_CHANGED = "id_changed"
    """The id of a call could not be sent, or was that of another call before it."""
    NAME_CHANGED = "name_changed"
    """The name of a tool could not be sent."""
    REASONING_DROPPED = "reasoning_dropped"
    """Reasoning of another model, or without proof of its origin, was left out."""
    BLOCK_CONVERTED = "block_converted"
    """A block that the provider does not take was put into words."""
    BLOCK_DROPPED = "block_dropped"
    """A block that means nothing to the provider was left out."""
    MESSAGE_DROPPED = "message_dropped"
    """A message with nothing to be sent was left out."""
    MERGED = "merged"
    """A message was joined to the one before it, of the same speaker."""
    USER_ADDED = "user_added"
    """A user's message was added where the provider must have one."""
    TOOLS_DECLARED = "tools_declared"
    """Tools of past calls were declared, not to be called: the provider must know of them."""
    HISTORY_AS_TEXT = "history_as_text"
    """What came before was sent as a transcript: the provider takes only what users say."""


class Repair(Model):
    """One change that made a request one that the provider accepts. The record is as it was.

    Attributes:
        kind: What was changed.
        message_id: The message; None where it was not one.
        detail: What exactly.
    """

    kind: RepairKind
    message_id: str | None = None
    detail: str = ""


def takes_everything(block: Block, in_result: bool) -> bool:  # noqa: ARG001
    """What a provider takes that has no say in it."""
    return True


@dataclass(frozen=True, slots=True)
class Target:
    """What a provider and model accept.

    Attributes:
        provider: The provider's name.
        model: The model's name.
        strict: Whether anything is refused at all beyond unpaired calls and results.
        takes: Whether a block can be sent: of a user's or an assistant's message, or, with True
            as its second argument, inside of a tool's result.
        alternates: Whether user and assistant must take turns, the user first and last.
        needs_user: Whether the last message must not be the assistant's.
        call_id_length: How long a call's id may be.
    """

    provider: str = ""
    model: str = ""
    strict: bool = False
    takes: Callable[[Block, bool], bool] = takes_everything
    alternates: bool = False
    needs_user: bool = False
    call_id_length: int = 64


@dataclass(slots=True)
class _Call:
    """A call on its way to its result."""

    id: str
    name: str
    results: list[tuple[SessionMessage, ToolResultBlock]] = field(default_factory=list)


@dataclass(slots=True)
class _Entry:
    """A message with what of it can be sent, and, of an assistant's, its calls."""

    message: SessionMessage
    role: MessageRole
    blocks: list[Block]
    results: list[ToolResultBlock] = field(default_factory=list)
    calls: list[_Call] = field(default_factory=list)


def make_sendable(
    messages: Sequence[SessionMessage],
    target: Target,
    *,
    open_calls: Sequence[str] | None = None,
) -> tuple[list[SessionMessage], list[Repair]]:
    """Messages that a provider accepts.

    Args:
        messages: Oldest first; those of a record, cut anywhere.
        target: What the provider accepts.
        open_calls: With a list, the messages go on from what the provider holds already, and these
            are the ids of the calls there that have no result yet.

    Returns:
        The messages to send, each tool's result behind its call, and what was changed.
    """
    if _is_plain(messages, target, open_calls):
        return list(messages), []
    work = _Work(target)
    entries = [work.entry(message) for message in messages]
    before = [_Call(call, "") for call in open_calls or ()]
    work.pair(entries, before)
    sent = work.assemble(entries, before)
    if target.alternates or target.needs_user or not sent:
        sent = work.with_users(sent, goes_on=open_calls is not None)
    return sent, work.repairs


def _is_plain(
    messages: Sequence[SessionMessage], target: Target, open_calls: Sequence[str] | None
) -> bool:
    """Whether there is nothing to look at: texts of user and assistant, as most windows are."""
    if open_calls:
        return False
    last: MessageRole | None = None if open_calls is None else _ASSISTANT
    for message in messages:
        role = message.role
        if type(message.content) is not str or role in _RESULTS:
            return False
        if target.strict and (not message.content.strip() or message.name):
            return False
        if role is not _SYSTEM:
            if target.alternates and role is (last or _ASSISTANT):
                return False
            last = role
    return last is _USER or (last is not None and not target.alternates and not target.needs_user)


class _Work:
    """One request in the making."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.repairs: list[Repair] = []
        self._used: set[str] = set()

    def report(self, kind: RepairKind, message: SessionMessage | None, detail: str) -> None:
        message_id = None if message is None else message.id
        self.repairs.append(Repair(kind=kind, message_id=message_id, detail=detail))

    # What of a message can be sent

    def entry(self, message: SessionMessage) -> _Entry:
        role = message.role if message.role not in _RESULTS else _USER
        entry = _Entry(message, role, [])
        if message.role in _RESULTS and not any(
            isinstance(block, ToolResultBlock) for block in message.blocks
        ):
            self._result_without_call_id(entry)
            return entry
        for block in message.blocks:
            if isinstance(block, ToolResultBlock):
                entry.results.append(block)
            else:
                entry.blocks.extend(self._blocks(block, message, role))
        return entry

    def _result_without_call_id(self, entry: _Entry) -> None:
        """A result as the legacy function role has it: it names the tool and no call."""
        message = entry.message
        name = message.name or "a tool"
        entry.results.append(
            ToolResultBlock(tool_call_id="", name=message.name, content=message.content)
        )
        if not message.name:
            entry.results.clear()
            entry.blocks.append(TextBlock(text=f"[result of {name}] {message.text}"))
            self.report(RepairKind.BLOCK_CONVERTED, message, "a result that names no call")

    def _blocks(
        self, block: Block, message: SessionMessage, role: MessageRole, in_result: bool = False
    ) -> list[Block]:
        """What is sent of a block."""
        target = self.target
        if not target.strict:
            return [block]
        if isinstance(block, TextBlock):
            return [block] if block.text.strip() else []
        if isinstance(block, ToolCallBlock):
            if role is _ASSISTANT and not in_result:
                return [block]
            self.report(RepairKind.BLOCK_DROPPED, message, "a call that no model made")
            return []
        if isinstance(block, ReasoningBlock):
            if role is _ASSISTANT and self._is_own(message) and target.takes(block, in_result):
                return [block]
            self.report(RepairKind.REASONING_DROPPED, message, "made by another model, or unproven")
            return []
        if isinstance(block, OtherBlock):
            own = role is not _ASSISTANT or self._is_own(message, same_model=False)
            if own and target.takes(block, in_result):
                return [block]
            kind = block.value.get("type")
            self.report(RepairKind.BLOCK_DROPPED, message, f"{kind or 'a block'} of another format")
            return []
        if role is not _ASSISTANT or not isinstance(block, _MEDIA):
            if target.takes(block, in_result):
                return [block]
        self.report(RepairKind.BLOCK_CONVERTED, message, block.type)
        return [TextBlock(text=in_words(block))]

    def _is_own(self, message: SessionMessage, *, same_model: bool = True) -> bool:
        return message.provider == self.target.provider and (
            not same_model or message.model == self.target.model
        )

    # Calls and results

    def pair(self, entries: list[_Entry], before: list[_Call]) -> None:
        """Give each result to its call; leave out those that have none."""
        waiting = {call.id: call for call in before}
        self._used.update(waiting)
        latest: list[_Call] = list(before)
        for entry in entries:
            for block in entry.results:
                self._give(block, entry.message, waiting, latest)
            calls = [block for block in entry.blocks if isinstance(block, ToolCallBlock)]
            if calls and entry.role is _ASSISTANT:
                entry.blocks = [self._called(block, entry, waiting) for block in entry.blocks]
                latest = entry.calls
            elif entry.blocks and entry.role is not _SYSTEM:
                latest = []

    def _called(self, block: Block, entry: _Entry, waiting: dict[str, _Call]) -> Block:
        if not isinstance(block, ToolCallBlock):
            return block
        call = _Call(self._free_id(block, entry.message), self._good_name(block, entry.message))
        entry.calls.append(call)
        waiting[block.id or call.id] = call
        if (call.id, call.name) == (block.id, block.name):
            return block
        return block.model_copy(update={"id": call.id, "name": call.name})

    def _free_id(self, block: ToolCallBlock, message: SessionMessage) -> str:
        wanted = block.id or f"call_{len(self._used) + 1}"
        if block.id and not self.target.strict:
            return wanted
        room = self.target.call_id_length
        stem = call_id = re.sub(r"[^A-Za-z0-9_-]", "_", wanted)[:room]
        number = 1
        while call_id in self._used:
            number += 1
            call_id = f"{stem[: room - len(str(number)) - 1]}_{number}"
        self._used.add(call_id)
        if call_id != block.id:
            self.report(RepairKind.ID_CHANGED, message, f"{wanted[:80]!r} to {call_id!r}")
        return call_id

    def _good_name(self, block: ToolCallBlock, message: SessionMessage) -> str:
        if not self.target.strict:
            return block.name
        name = re.sub(r"[^A-Za-z0-9_-]", "_", block.name)[:64] or "tool"
        if name != block.name:
            self.report(RepairKind.NAME_CHANGED, message, f"{block.name[:80]!r} to {name!r}")
        return name

    def _give(
        self,
        block: ToolResultBlock,
        message: SessionMessage,
        waiting: dict[str, _Call],
        latest: list[_Call],
    ) -> None:
        call = waiting.get(block.tool_call_id)
        if call is None and not block.tool_call_id:
            call = next((c for c in latest if c.name == block.name and not c.results), None)
        if call is None or call.results:
            what = "a second result" if call is not None else "its call is not in the request"
            self.report(RepairKind.RESULT_DROPPED, message, what)
            return
        if call not in latest:
            self.report(RepairKind.RESULT_MOVED, message, f"behind the call {call.id!r}")
        content = block.content
        if not isinstance(content, str) and self.target.strict:
            content = [
                each
                for inner in content
                for each in self._blocks(inner, message, _USER, in_result=True)
            ]
        if call.id != block.tool_call_id or content is not block.content:
            block = block.model_copy(update={"tool_call_id": call.id, "content": content})
        call.results.append((message, block))

    # The request

    def assemble(self, entries: list[_Entry], before: list[_Call]) -> list[SessionMessage]:
        sent = self._results(before)
        for entry in entries:
            message = entry.message
            if entry.blocks:
                sent.append(_with(message, entry.role, entry.blocks))
            elif not entry.results:
                self.report(RepairKind.MESSAGE_DROPPED, message, "there is nothing in it to send")
            sent += self._results(entry.calls)
        return sent

    def _results(self, calls: list[_Call]) -> list[SessionMessage]:
        """The messages with the results of calls, those of one message kept together."""
        messages: dict[str, tuple[SessionMessage, list[Block]]] = {}
        missing: list[Block] = []
        for call in calls:
            for message, block in call.results:
                messages.setdefault(message.id, (message, []))[1].append(block)
            if not call.results:
                self.report(RepairKind.CALL_ANSWERED, None, f"the call {call.id!r}")
                missing.append(
                    ToolResultBlock(
                        tool_call_id=call.id,
                        name=call.name or None,
                        content=NO_RESULT,
                        is_error=True,
                    )
                )
        sent = [
            _with(message, MessageRole.TOOL, blocks) for message, blocks in messages.values()
        ]
        if missing:
            sent.append(SessionMessage(role=MessageRole.TOOL, content=missing))
        return sent

    def with_users(self, sent: list[SessionMessage], *, goes_on: bool) -> list[SessionMessage]:
        """User's messages where the provider must have them."""
        speakers = [message for message in sent if message.role is not _SYSTEM]
        if self.target.alternates:
            for one, next_one in zip(speakers, speakers[1:], strict=False):
                if one.role is next_one.role and one.role is not MessageRole.TOOL:
                    self.report(RepairKind.MERGED, next_one, f"to that of the same {one.role}")
            if speakers and speakers[0].role is _ASSISTANT and not goes_on:
                sent = [self._user(OPENING, "at the beginning"), *sent]
        if not speakers or (self._must_end_with_user and speakers[-1].role is _ASSISTANT):
            sent = [*sent, self._user(CONTINUE, "at the end")]
        return sent

    @property
    def _must_end_with_user(self) -> bool:
        return self.target.alternates or self.target.needs_user

    def _user(self, text: str, where: str) -> SessionMessage:
        self.report(RepairKind.USER_ADDED, None, where)
        return SessionMessage(role=_USER, content=text)


def in_words(block: Block) -> str:
    """What can be said of a block to a model that does not take it."""
    if isinstance(block, RefusalBlock):
        return block.refusal or "[refused]"
    if isinstance(block, FileBlock) and block.text:
        return f"[file {block.filename or ''}]\n{block.text}"
    if isinstance(block, _MEDIA):
        name = getattr(block, "filename", None) or block.url or block.mime_type or ""
        name = "" if name.startswith("data:") else f" {name[:200]}"
        return f"[{block.type}{name}]"
    return text_of([block]) or f"[{block.type}]"


def _with(message: SessionMessage, role: MessageRole, blocks: list[Block]) -> SessionMessage:
    """The message, as it is if it has these blocks already."""
    if message.role is role and blocks == message.blocks:
        return message
    return message.model_copy(update={"role": role, "content": blocks})


def describe_repairs(repairs: Iterable[Repair]) -> list[dict[str, str]]:
    """Repairs as JSON, for a message's metadata."""
    return [repair.model_dump(mode="json", exclude_none=True) for repair in repairs]
