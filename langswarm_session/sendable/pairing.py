"""Tools' calls and their results: each result behind its call, each call with a result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from langswarm_session.blocks import Block, TextBlock, ToolCallBlock, ToolResultBlock
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.sendable.call_names import CallNames
from langswarm_session.sendable.entries import Call, Entry, Exchange, are_same, with_blocks
from langswarm_session.sendable.parts import Parts
from langswarm_session.sendable.repairs import RepairKind, Report
from langswarm_session.sendable.target import Target

NO_RESULT = "No result: the call was broken off before it gave one."
"""What a call is answered with that never got its result."""

_ASSISTANT, _USER = MessageRole.ASSISTANT, MessageRole.USER


class Pairing:
    """Brings the calls and results of one request together.

    Args:
        target: What the provider accepts.
        report: Told of what is moved, renamed, left out or added.
        parts: Finds what of a result can be sent.
    """

    def __init__(self, target: Target, report: Report, parts: Parts) -> None:
        self._target = target
        self._report = report
        self._parts = parts
        self._names = CallNames(target, report)

    def pair(self, entries: Iterable[Entry], before: Exchange) -> None:
        """Give each result to its call; leave out those that have none.

        Args:
            entries: The messages, oldest first.
            before: The calls that the provider has and that have no result yet.
        """
        waiting = {call.id: [call] for call in before.calls}
        self._names.are_taken(waiting)
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
                    detail = f"behind the call {call.id!r}"
                    self._report.add(RepairKind.RESULT_MOVED, entry.message, detail)
                self._give(block, entry.message, call)
            if entry.blocks and entry.exchange is None:
                is_parted = True

    def _exchange(self, entry: Entry, waiting: dict[str, list[Call]]) -> Exchange | None:
        """The calls of an assistant's message, with ids and names that can be sent."""
        if not any(isinstance(block, ToolCallBlock) for block in entry.blocks):
            return None
        entry.exchange = exchange = Exchange()
        for place, block in enumerate(entry.blocks):
            if isinstance(block, ToolCallBlock):
                call = self._call(block, entry.message, exchange)
                known = waiting.get(block.id or call.id, [])
                # Of calls with one id, the newest message's are meant, in their order.
                same = [*(each for each in known if each.exchange is exchange), call]
                waiting[block.id or call.id] = same
                if (call.id, call.name) != (block.id, block.name):
                    update = {"id": call.id, "name": call.name}
                    entry.blocks[place] = block.model_copy(update=update)
        return exchange

    def _call(self, block: ToolCallBlock, message: SessionMessage, exchange: Exchange) -> Call:
        call_id = self._names.free_id(block, message)
        call = Call(call_id, self._names.good_name(block, message), exchange)
        exchange.calls.append(call)
        return call

    def _give(self, block: ToolResultBlock, message: SessionMessage, call: Call) -> None:
        """Keep a result with its call."""
        if not block.tool_call_id:
            detail = f"a result without one is that of the call {call.id!r}"
            self._report.add(RepairKind.ID_CHANGED, message, detail)
        content = self._content(block, message)
        name = block.name and (call.name or block.name)
        if (call.id, name) != (block.tool_call_id, block.name) or content is not block.content:
            update = {"tool_call_id": call.id, "name": name, "content": content}
            block = block.model_copy(update=update)
        call.is_answered = True
        call.exchange.results.append((message, block))

    def _content(self, block: ToolResultBlock, message: SessionMessage) -> str | list[Block]:
        content = block.content
        if isinstance(content, str) or not self._target.strict:
            return content
        blocks: list[Block] = []
        for inner in content:
            blocks += self._parts.of_block(inner, message, _USER, in_result=True)
        if not blocks:
            return ""
        return content if are_same(blocks, content) else blocks

    def _without_call(self, block: ToolResultBlock, entry: Entry) -> None:
        """Leave out a result that has no call, or put into words one that names none."""
        if block.tool_call_id:
            detail = "its call is not sent, or has one already"
            self._report.add(RepairKind.RESULT_DROPPED, entry.message, detail)
            return
        detail = "a result that names no call"
        self._report.add(RepairKind.BLOCK_CONVERTED, entry.message, detail)
        words = self._result_in_words(block, entry)
        # Where calls must come last, they still do.
        ordered = self._target.alternates and entry.exchange is not None
        calls = (i for i, each in enumerate(entry.blocks) if isinstance(each, ToolCallBlock))
        at = next(calls) if ordered else len(entry.blocks)
        entry.blocks[at:at] = words

    def _result_in_words(self, block: ToolResultBlock, entry: Entry) -> list[Block]:
        said = block.content if isinstance(block.content, str) else ""
        words: list[Block] = [TextBlock(text=f"[result of {block.name or 'a tool'}] {said}")]
        if not isinstance(block.content, str):
            for inner in block.content:
                words += self._inner_in_words(inner, entry)
        return words

    def _inner_in_words(self, block: Block, entry: Entry) -> list[Block]:
        """Return what is sent of a block of such a result, where it stands in the message itself.

        There a call would ask for a result, and a result for a call.
        """
        if isinstance(block, ToolResultBlock):
            return self._result_in_words(block, entry)
        if isinstance(block, ToolCallBlock):
            detail = "a call that no model made"
            self._report.add(RepairKind.BLOCK_DROPPED, entry.message, detail)
            return []
        return self._parts.of_block(block, entry.message, entry.role, in_result=True)

    def results(self, exchange: Exchange) -> list[SessionMessage]:
        """The messages with the results of calls, those of one message kept together."""
        messages: dict[str, tuple[SessionMessage, list[Block]]] = {}
        for message, block in exchange.results:
            messages.setdefault(message.id, (message, []))[1].append(block)
        sent = [
            with_blocks(message, MessageRole.TOOL, blocks) for message, blocks in messages.values()
        ]
        missing = [self._no_result(call) for call in exchange.calls if not call.is_answered]
        if missing:
            sent.append(SessionMessage(role=MessageRole.TOOL, content=missing))
        return sent

    def _no_result(self, call: Call) -> Block:
        self._report.add(RepairKind.CALL_ANSWERED, None, f"the call {call.id!r}")
        return ToolResultBlock(
            tool_call_id=call.id, name=call.name or None, content=NO_RESULT, is_error=True
        )


def _call_of(
    block: ToolResultBlock, waiting: Mapping[str, Sequence[Call]], newest: Exchange
) -> Call | None:
    """The call that a result answers; without an id the next that may be meant of the newest."""
    calls: Iterable[Call] = waiting.get(block.tool_call_id, ())
    if not block.tool_call_id:
        calls = [c for c in newest.calls if not (c.name and block.name) or c.name == block.name]
    return next((call for call in calls if not call.is_answered), None)
