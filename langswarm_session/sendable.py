"""What makes any part of a record a request that a provider accepts, and says what it changed.

A log may hold calls that were never answered, answers whose call was cut off, the reasoning of
another model, or pictures for a model that takes text. None of that is wrong in a record; every
provider refuses some of it. Pure: no I/O.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

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
_ODD = re.compile(r"[^A-Za-z0-9_-]")


class RepairKind(StrEnum):
    """What was changed of a request."""

    CALL_ANSWERED = "call_answered"
    """A call without a result was given one that says so."""
    RESULT_DROPPED = "result_dropped"
    """A result without its call, or a second one, was left out."""
    RESULT_MOVED = "result_moved"
    """A result that stood elsewhere was put behind its call."""
    ID_CHANGED = "id_changed"
    """A call had no id that can be sent, or that of another; or a result named no call."""
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
    REORDERED = "reordered"
    """The calls of a message were put behind the rest of it."""
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
        user_blocks: The types of blocks of the provider's own format that a user may send.
        alternates: Whether user and assistant must take turns, the user first and last, and what
            the assistant says must come in order: its reasoning, the rest, its calls.
        needs_user: Whether the last message must not be the assistant's.
        call_id_length: How long a call's id may be.
        any_call_id: Whether it may have other characters than letters, digits, ``_`` and ``-``.
    """

    provider: str = ""
    model: str = ""
    strict: bool = False
    takes: Callable[[Block, bool], bool] = takes_everything
    user_blocks: frozenset[str] = frozenset()
    alternates: bool = False
    needs_user: bool = False
    call_id_length: int = 40
    any_call_id: bool = False


@dataclass(slots=True)
class _Exchange:
    """The calls of one message, and their results in the order in which they came."""

    calls: list[_Call] = field(default_factory=list)
    results: list[tuple[SessionMessage, ToolResultBlock]] = field(default_factory=list)


@dataclass(slots=True)
class _Call:
    """A call on its way to its result."""

    id: str
    name: str
    exchange: _Exchange
    is_answered: bool = False


@dataclass(slots=True)
class _Entry:
    """A message with what of it can be sent, its results apart.

    Attributes:
        results: Each with whether it must be moved: something to be sent is before it, or it is in
            a message of the assistant.
    """

    message: SessionMessage
    role: MessageRole
    blocks: list[Block]
    results: list[tuple[ToolResultBlock, bool]] = field(default_factory=list)
    exchange: _Exchange | None = None


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
    before = _Exchange()
    before.calls += [_Call(call, "", before) for call in open_calls or ()]
    work.pair(entries, before)
    sent = work.assemble(entries, before)
    if target.strict or not sent:
        sent = work.with_users(sent, goes_on=open_calls is not None)
    return sent, work.repairs


def _is_plain(
    messages: Sequence[SessionMessage], target: Target, open_calls: Sequence[str] | None
) -> bool:
    """Whether there is nothing to look at: texts of user and assistant, as most windows are."""
    if open_calls:
        return False
    strict, alternates = target.strict, target.alternates
    last: MessageRole | None = _ASSISTANT if alternates else None
    for message in messages:
        role, content = message.role, message.content
        if type(content) is not str or role in _RESULTS:
            return False
        if strict and (not content or content.isspace()):
            return False
        if role is not _SYSTEM:
            if alternates and role is last:
                return False
            last = role
    return (
        not strict
        or last is _USER
        or (last is not None and not alternates and not target.needs_user)
    )


class _Work:
    """One request in the making."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.repairs: list[Repair] = []
        self._call_ids: set[str] = set()
        self._block_ids: set[str] = set()

    def report(self, kind: RepairKind, message: SessionMessage | None, detail: str) -> None:
        message_id = None if message is None else message.id
        self.repairs.append(Repair(kind=kind, message_id=message_id, detail=detail))

    # What of a message can be sent

    def entry(self, message: SessionMessage) -> _Entry:
        is_result = message.role in _RESULTS
        role = _USER if is_result else message.role
        entry = _Entry(message, role, [])
        blocks = message.blocks
        if is_result and not any(isinstance(block, ToolResultBlock) for block in blocks):
            # As the legacy function role has it: it names the tool and no call.
            legacy = ToolResultBlock(tool_call_id="", name=message.name, content=message.content)
            entry.results.append((legacy, False))
            return entry
        for block in blocks:
            if isinstance(block, ToolResultBlock):
                entry.results.append((block, role is _ASSISTANT or bool(entry.blocks)))
            else:
                entry.blocks += self._blocks(block, message, role)
        if self.target.strict:
            self._tidy(entry)
        return entry

    def _blocks(
        self, block: Block, message: SessionMessage, role: MessageRole, in_result: bool = False
    ) -> list[Block]:
        """What is sent of a block."""
        if not self.target.strict or self._can_be_sent(block, message, role, in_result):
            return self._once(block, message)
        if isinstance(block, TextBlock):
            self.report(RepairKind.BLOCK_DROPPED, message, "an empty text")
        elif isinstance(block, ToolCallBlock):
            self.report(RepairKind.BLOCK_DROPPED, message, "a call that no model made")
        elif isinstance(block, ReasoningBlock):
            self.report(RepairKind.REASONING_DROPPED, message, "made by another model, or unproven")
        elif isinstance(block, OtherBlock):
            kind = block.value.get("type") or "a block"
            self.report(RepairKind.BLOCK_DROPPED, message, f"{kind} of another format")
        else:
            self.report(RepairKind.BLOCK_CONVERTED, message, block.type)
            return [TextBlock(text=in_words(block))]
        return []

    def _can_be_sent(
        self, block: Block, message: SessionMessage, role: MessageRole, in_result: bool
    ) -> bool:
        if isinstance(block, TextBlock):
            return bool(block.text) and self.target.takes(block, in_result)
        if isinstance(block, ToolCallBlock):
            return role is _ASSISTANT and not in_result
        if isinstance(block, ReasoningBlock):
            right = role is _ASSISTANT and self._is_own(message)
        elif isinstance(block, OtherBlock):
            if role is _USER and not in_result:
                return block.value.get("type") in self.target.user_blocks
            right = role is _USER or (
                role is _ASSISTANT and self._is_own(message, same_model=False)
            )
        elif isinstance(block, _MEDIA):
            right = role is _USER
        else:
            right = role is not _SYSTEM
        return right and self.target.takes(block, in_result)

    def _is_own(self, message: SessionMessage, *, same_model: bool = True) -> bool:
        return message.provider == self.target.provider and (
            not same_model or message.model == self.target.model
        )

    def _once(self, block: Block, message: SessionMessage) -> list[Block]:
        """The block, unless a provider's own one with its id is in the request already."""
        block_id: Any = None
        if isinstance(block, ReasoningBlock):
            block_id = block.id
        elif isinstance(block, OtherBlock):
            block_id = block.value.get("id")
        if self.target.strict and isinstance(block_id, str):
            if block_id in self._block_ids:
                self.report(RepairKind.BLOCK_DROPPED, message, f"{block_id[:80]!r} comes twice")
                return []
            self._block_ids.add(block_id)
        return [block]

    def _tidy(self, entry: _Entry) -> None:
        """Leave out what only makes sense with something else in the message, or put it there."""
        if entry.role is _ASSISTANT:
            if self.target.alternates:
                self._order(entry)
            if any(isinstance(block, ReasoningBlock) for block in entry.blocks):
                self._drop_idle_reasoning(entry)
        if all(isinstance(block, TextBlock) and block.text.isspace() for block in entry.blocks):
            if entry.results and entry.blocks:
                self.report(RepairKind.BLOCK_DROPPED, entry.message, "an empty text")
            entry.blocks = []

    def _order(self, entry: _Entry) -> None:
        """An assistant's reasoning first, its calls last."""
        calls = [block for block in entry.blocks if isinstance(block, ToolCallBlock)]
        if calls and len(calls) < len(entry.blocks):
            ordered = [b for b in entry.blocks if not isinstance(b, ToolCallBlock)] + calls
            if any(a is not b for a, b in zip(ordered, entry.blocks, strict=True)):
                self.report(RepairKind.REORDERED, entry.message, "its calls come last")
                entry.blocks = ordered
        kept: list[Block] = []
        for block in entry.blocks:
            # Between uses of a provider's own tools a model may think again.
            if isinstance(block, ReasoningBlock) and kept and isinstance(kept[-1], TextBlock):
                self.report(RepairKind.REASONING_DROPPED, entry.message, "behind a text")
            else:
                kept.append(block)
        entry.blocks = kept

    def _drop_idle_reasoning(self, entry: _Entry) -> None:
        """Leave out reasoning that nothing came of: providers want what it led to."""
        end = len(entry.blocks)
        while end and isinstance(entry.blocks[end - 1], ReasoningBlock):
            end -= 1
            self.report(RepairKind.REASONING_DROPPED, entry.message, "nothing follows it")
        entry.blocks = entry.blocks[:end]

    # Calls and results

    def pair(self, entries: list[_Entry], before: _Exchange) -> None:
        """Give each result to its call; leave out those that have none."""
        waiting = {call.id: [call] for call in before.calls}
        self._call_ids.update(waiting)
        newest, is_parted = before, False
        for entry in entries:
            if entry.role is _ASSISTANT:
                exchange = self._exchange(entry, waiting)
                if exchange is not None:
                    newest, is_parted = exchange, False
            for block, is_late in entry.results:
                call = _call_of(block, waiting, newest)
                if call is None:
                    self._without_call(block, entry)
                    continue
                if is_late or is_parted or call.exchange is not newest:
                    self.report(
                        RepairKind.RESULT_MOVED, entry.message, f"behind the call {call.id!r}"
                    )
                self._give(block, entry.message, call)
            if entry.blocks and entry.exchange is None:
                is_parted = True

    def _exchange(self, entry: _Entry, waiting: dict[str, list[_Call]]) -> _Exchange | None:
        """The calls of an assistant's message, with ids and names that can be sent."""
        if not any(isinstance(block, ToolCallBlock) for block in entry.blocks):
            return None
        entry.exchange = exchange = _Exchange()
        for place, block in enumerate(entry.blocks):
            if isinstance(block, ToolCallBlock):
                call = _Call(
                    self._free_id(block, entry.message),
                    self._good_name(block, entry.message),
                    exchange,
                )
                exchange.calls.append(call)
                same = waiting.get(block.id or call.id, [])
                # Of calls with one id, the newest message's are meant, in their order.
                same = [*(each for each in same if each.exchange is exchange), call]
                waiting[block.id or call.id] = same
                if (call.id, call.name) != (block.id, block.name):
                    update = {"id": call.id, "name": call.name}
                    entry.blocks[place] = block.model_copy(update=update)
        return exchange

    def _free_id(self, block: ToolCallBlock, message: SessionMessage) -> str:
        wanted = block.id or f"call_{message.id}"
        if block.id and not self.target.strict:
            self._call_ids.add(block.id)
            return block.id
        room = self.target.call_id_length
        if not block.id or not self.target.any_call_id:
            wanted = _ODD.sub("_", wanted)
        stem = call_id = wanted[:room]
        number = 1
        while call_id in self._call_ids:
            number += 1
            call_id = f"{stem[: room - len(str(number)) - 1]}_{number}"
        self._call_ids.add(call_id)
        if call_id != block.id:
            was = repr(block.id[:80]) if block.id else "none"
            self.report(RepairKind.ID_CHANGED, message, f"{was} to {call_id!r}")
        return call_id

    def _good_name(self, block: ToolCallBlock, message: SessionMessage) -> str:
        if not self.target.strict:
            return block.name
        name = _ODD.sub("_", block.name)[:64] or "tool"
        if name != block.name:
            self.report(RepairKind.NAME_CHANGED, message, f"{block.name[:80]!r} to {name!r}")
        return name

    def _give(self, block: ToolResultBlock, message: SessionMessage, call: _Call) -> None:
        """Keep a result with its call."""
        if not block.tool_call_id:
            detail = f"a result without one is that of the call {call.id!r}"
            self.report(RepairKind.ID_CHANGED, message, detail)
        content = self._result_content(block, message)
        name = block.name and (call.name or block.name)
        if (call.id, name) != (block.tool_call_id, block.name) or content is not block.content:
            update = {"tool_call_id": call.id, "name": name, "content": content}
            block = block.model_copy(update=update)
        call.is_answered = True
        call.exchange.results.append((message, block))

    def _result_content(self, block: ToolResultBlock, message: SessionMessage) -> str | list[Block]:
        content = block.content
        if isinstance(content, str) or not self.target.strict:
            return content
        blocks: list[Block] = []
        for inner in content:
            blocks += self._blocks(inner, message, _USER, in_result=True)
        if not blocks:
            return ""
        return content if _are_same(blocks, content) else blocks

    def _without_call(self, block: ToolResultBlock, entry: _Entry) -> None:
        """Leave out a result that has no call, or put into words one that names none."""
        message = entry.message
        if block.tool_call_id:
            self.report(
                RepairKind.RESULT_DROPPED, message, "its call is not sent, or has one already"
            )
            return
        self.report(RepairKind.BLOCK_CONVERTED, message, "a result that names no call")
        said = block.content if isinstance(block.content, str) else ""
        words: list[Block] = [TextBlock(text=f"[result of {block.name or 'a tool'}] {said}")]
        if not isinstance(block.content, str):
            for inner in block.content:
                words += self._blocks(inner, message, entry.role, in_result=True)
        # Where calls must come last, they still do.
        ordered = self.target.alternates and entry.exchange is not None
        calls = (i for i, each in enumerate(entry.blocks) if isinstance(each, ToolCallBlock))
        at = next(calls) if ordered else len(entry.blocks)
        entry.blocks[at:at] = words

    # The request

    def assemble(self, entries: list[_Entry], before: _Exchange) -> list[SessionMessage]:
        sent = self._results(before)
        for entry in entries:
            message = entry.message
            if entry.blocks:
                sent.append(_with(message, entry.role, entry.blocks))
            elif not entry.results:
                if self.target.strict:
                    self.report(RepairKind.MESSAGE_DROPPED, message, "nothing in it can be sent")
                else:
                    sent.append(message)
            if entry.exchange is not None:
                sent += self._results(entry.exchange)
        return sent

    def _results(self, exchange: _Exchange) -> list[SessionMessage]:
        """The messages with the results of calls, those of one message kept together."""
        messages: dict[str, tuple[SessionMessage, list[Block]]] = {}
        for message, block in exchange.results:
            messages.setdefault(message.id, (message, []))[1].append(block)
        sent = [_with(message, MessageRole.TOOL, blocks) for message, blocks in messages.values()]
        missing: list[Block] = []
        for call in exchange.calls:
            if not call.is_answered:
                self.report(RepairKind.CALL_ANSWERED, None, f"the call {call.id!r}")
                name = call.name or None
                missing.append(
                    ToolResultBlock(
                        tool_call_id=call.id, name=name, content=NO_RESULT, is_error=True
                    )
                )
        if missing:
            sent.append(SessionMessage(role=MessageRole.TOOL, content=missing))
        return sent

    def with_users(self, messages: list[SessionMessage], *, goes_on: bool) -> list[SessionMessage]:
        """User's messages where the provider must have them."""
        sent: list[SessionMessage] = []
        last: SessionMessage | None = None
        for message in messages:
            if message.role is not _SYSTEM:
                if self.target.alternates:
                    sent += self._between(last, message, goes_on)
                last = message
            sent.append(message)
        must_end = self.target.alternates or self.target.needs_user
        if last is None or (must_end and last.role is _ASSISTANT):
            sent.append(self._user(CONTINUE, "at the end"))
        return sent

    def _between(
        self, last: SessionMessage | None, message: SessionMessage, goes_on: bool
    ) -> list[SessionMessage]:
        """What is put between two messages whose speakers must alternate."""
        if message.role is _ASSISTANT:
            if last is None:
                text = CONTINUE if goes_on else OPENING
                return [self._user(text, "at the beginning")]
            if last.role is _ASSISTANT:
                if isinstance(message.blocks[0], ReasoningBlock):
                    return [self._user(CONTINUE, "before the assistant reasons again")]
                self.report(RepairKind.MERGED, message, "to the assistant's before it")
        elif last is not None and last.role is message.role is _USER:
            self.report(RepairKind.MERGED, message, "to the user's before it")
        return []

    def _user(self, text: str, where: str) -> SessionMessage:
        self.report(RepairKind.USER_ADDED, None, where)
        return SessionMessage(role=_USER, content=text)


def _call_of(
    block: ToolResultBlock, waiting: Mapping[str, Sequence[_Call]], newest: _Exchange
) -> _Call | None:
    """The call that a result answers; without an id the next that may be meant of the newest."""
    calls: Iterable[_Call] = waiting.get(block.tool_call_id, ())
    if not block.tool_call_id:
        calls = [c for c in newest.calls if not (c.name and block.name) or c.name == block.name]
    return next((call for call in calls if not call.is_answered), None)


def in_words(block: Block) -> str:
    """What can be said of a block to a model that does not take it. Never empty."""
    if isinstance(block, RefusalBlock):
        return block.refusal if block.refusal.strip() else "[refused]"
    if isinstance(block, FileBlock) and block.text:
        return f"[file {block.filename or ''}]\n{block.text}"
    if isinstance(block, _MEDIA):
        name = getattr(block, "filename", None) or block.url or block.mime_type or ""
        name = "" if not name or name.startswith("data:") else f" {name[:200]}"
        return f"[{block.type}{name}]"
    text = text_of([block])
    return text if text.strip() else f"[{block.type}]"


def _with(message: SessionMessage, role: MessageRole, blocks: list[Block]) -> SessionMessage:
    """The message, as it is if it has these blocks already."""
    if message.role is role and _are_same(blocks, message.content):
        return message
    return message.model_copy(update={"role": role, "content": blocks})


def _are_same(blocks: Sequence[Block], content: str | Sequence[Block]) -> bool:
    """Whether blocks are a content as it came."""
    if isinstance(content, str):
        return len(blocks) == 1 and isinstance(blocks[0], TextBlock) and blocks[0].text == content
    return len(blocks) == len(content) and all(map(operator.is_, blocks, content))


def describe_repairs(repairs: Iterable[Repair]) -> list[dict[str, str]]:
    """Repairs as JSON, for a message's metadata."""
    return [repair.model_dump(mode="json", exclude_none=True) for repair in repairs]
