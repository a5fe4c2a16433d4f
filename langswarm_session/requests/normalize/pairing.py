"""Calls and what answers them: each answer behind its call, each call with an answer.

A call that had none when a reply was made over it stays without: what comes later is put into
words where it came.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from langswarm_session.blocks import (
    Block,
    OtherBlock,
    ReasoningBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.requests.normalize.call_names import CallNames
from langswarm_session.requests.normalize.entries import (
    Answer,
    Call,
    Entry,
    Exchange,
    are_same,
    with_blocks,
)
from langswarm_session.requests.normalize.paired import Key, answer_key, call_key
from langswarm_session.requests.normalize.parts import Parts
from langswarm_session.requests.normalize.repairs import RepairKind, Report
from langswarm_session.requests.normalize.target import Target
from langswarm_session.requests.normalize.words import other_in_words

NO_RESULT = "No result: the call was broken off before it gave one."
"""What a call is answered with that never got its result."""

_ASSISTANT, _TOOL, _USER = MessageRole.ASSISTANT, MessageRole.TOOL, MessageRole.USER


class Pairing:
    """Brings the calls and answers of one request together.

    Args:
        target: What the provider accepts.
        report: Told of what is moved, renamed, left out or added.
        parts: Finds what of a result can be sent.
        open_calls: The ids of the calls that the provider holds and that have no result yet; None
            where it holds nothing.
    """

    def __init__(
        self, target: Target, report: Report, parts: Parts, open_calls: Sequence[str] | None
    ) -> None:
        self._target = target
        self._report = report
        self._parts = parts
        self._names = CallNames(target, report)
        self._goes_on = open_calls is not None
        self._before = before = Exchange()
        before.calls += [Call(("", each), each, "", before) for each in open_calls or ()]
        self._waiting: dict[Key, list[Call]] = {call.key: [call] for call in before.calls}
        self._names.are_taken(call.id for call in before.calls)
        self._newest = before
        self._late: dict[Key, str] = {}

    def paired(self, entries: Sequence[Entry]) -> list[SessionMessage]:
        """Return the messages of an exchange, each answer behind its call.

        Args:
            entries: What was said up to where a reply was asked for, oldest first.
        """
        self._give_answers(entries)
        sent = self._answers(self._before)
        self._before = Exchange()
        for entry in entries:
            if entry.exchange is not None:
                self._say_unanswered(entry, entry.exchange)
            sent += self._message(entry)
            if entry.exchange is not None:
                sent += self._answers(entry.exchange)
        self._end()
        return sent

    def _end(self) -> None:
        """Take no more answers to the calls that there were."""
        for key, calls in self._waiting.items():
            for call in calls:
                if not call.is_answered:
                    self._late[key] = call.name
        self._waiting = {}
        self._newest = Exchange()

    def _give_answers(self, entries: Iterable[Entry]) -> None:
        is_parted = False
        for entry in entries:
            if entry.role is _ASSISTANT and self._make_calls(entry):
                is_parted = False
            for block, is_late in entry.answers:
                call = self._call_of(block)
                if call is None:
                    self._without_call(block, entry)
                    continue
                if is_late or is_parted or call.exchange is not self._newest:
                    detail = f"behind the call {call.id!r}"
                    self._report.add(RepairKind.RESULT_MOVED, entry.message, detail)
                self._give(block, entry.message, call)
            if entry.blocks and entry.exchange is None:
                is_parted = True

    # Calls

    def _make_calls(self, entry: Entry) -> bool:
        """Find the calls of an assistant's message, with ids and names that can be sent."""
        exchange = Exchange()
        for place, block in enumerate(entry.blocks):
            call: Call | None = None
            if isinstance(block, ToolCallBlock):
                call = self._function_call(block, entry.message, exchange)
                if (call.id, call.name) != (block.id, block.name):
                    update = {"id": call.id, "name": call.name}
                    entry.blocks[place] = block.model_copy(update=update)
            elif isinstance(block, OtherBlock):
                key = call_key(block, self._target.paired_kinds)
                if key is not None:
                    call = Call(key, key[1], block.kind, exchange, block)
            if call is not None:
                self._await_answer(call)
        if exchange.calls:
            self._newest = entry.exchange = exchange
        return bool(exchange.calls)

    def _function_call(
        self, block: ToolCallBlock, message: SessionMessage, exchange: Exchange
    ) -> Call:
        call_id = self._names.free_id(block, message)
        name = self._names.good_name(block, message)
        return Call(("", block.id or call_id), call_id, name, exchange)

    def _await_answer(self, call: Call) -> None:
        """Add a call to its exchange and to those that wait for their answers."""
        call.exchange.calls.append(call)
        known = self._waiting.get(call.key, [])
        # Of calls with one id, the newest message's are meant, in their order.
        same = [each for each in known if each.exchange is call.exchange]
        self._waiting[call.key] = [*same, call]

    def _say_unanswered(self, entry: Entry, exchange: Exchange) -> None:
        """Put calls of the provider's own format into words that nothing answers.

        What they led to may not be sent without them: OpenAI refuses a reasoning item "without its
        required following item".
        """
        lost = [call for call in exchange.calls if call.block and not call.is_answered]
        for call in lost:
            exchange.calls.remove(call)
            place = next(i for i, block in enumerate(entry.blocks) if block is call.block)
            detail = f"the {call.name} {call.id!r}, which nothing answers"
            self._report.add(RepairKind.BLOCK_CONVERTED, entry.message, detail)
            entry.blocks[place] = TextBlock(text=_unanswered_in_words(call.block))
            while place and isinstance(entry.blocks[place - 1], ReasoningBlock):
                place -= 1
                del entry.blocks[place]
                self._report.add(RepairKind.REASONING_DROPPED, entry.message, detail)

    # Answers

    def _call_of(self, block: Answer) -> Call | None:
        """Return the call that a block answers; without an id, the next unanswered recent one."""
        key = answer_key(block, self._target.paired_kinds)
        calls: Iterable[Call]
        if key is not None:
            calls = self._waiting.get(key, ())
        else:
            name = block.name if isinstance(block, ToolResultBlock) else None
            functions = [call for call in self._newest.calls if call.block is None]
            calls = [c for c in functions if not (c.name and name) or c.name == name]
        return next((call for call in calls if not call.is_answered), None)

    def _give(self, block: Answer, message: SessionMessage, call: Call) -> None:
        """Keep an answer with its call."""
        call.is_answered = True
        if isinstance(block, ToolResultBlock):
            block = self._result(block, message, call)
        call.exchange.answers.append((message, block))

    def _result(self, block: ToolResultBlock, message: SessionMessage, call: Call) -> Answer:
        if not block.tool_call_id:
            detail = f"a result without one is that of the call {call.id!r}"
            self._report.add(RepairKind.ID_CHANGED, message, detail)
        content = self._content(block, message)
        name = block.name and (call.name or block.name)
        if (call.id, name) == (block.tool_call_id, block.name) and content is block.content:
            return block
        update = {"tool_call_id": call.id, "name": name, "content": content}
        return block.model_copy(update=update)

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

    def _without_call(self, block: Answer, entry: Entry) -> None:
        """Leave out an answer without a call; put into words one that is late or names none."""
        key = answer_key(block, self._target.paired_kinds)
        if isinstance(block, OtherBlock) and self._goes_on:
            entry.blocks.append(block)  # its call may be held by the provider
            return
        if key is not None and key not in self._late and self._target.takes_calls:
            detail = "its call is not sent, or has one already"
            self._report.add(RepairKind.RESULT_DROPPED, entry.message, detail)
            return
        name = self._late.pop(key, "") if key is not None else ""
        detail = "a result that names no call" if key is None else "a result without its call"
        self._report.add(RepairKind.BLOCK_CONVERTED, entry.message, detail)
        words = self._answer_in_words(block, entry, name)
        # Where calls must come last, they still do.
        ordered = self._target.alternates and entry.exchange is not None
        calls = (i for i, each in enumerate(entry.blocks) if isinstance(each, ToolCallBlock))
        at = next(calls, len(entry.blocks)) if ordered else len(entry.blocks)
        entry.blocks[at:at] = words

    def _answer_in_words(self, block: Answer, entry: Entry, name: str = "") -> list[Block]:
        if isinstance(block, OtherBlock):
            return [TextBlock(text=other_in_words(block))]
        said = block.content if isinstance(block.content, str) else ""
        text = f"[result of {block.name or name or 'a tool'}] {said}"
        words: list[Block] = [TextBlock(text=text)]
        if not isinstance(block.content, str):
            for inner in block.content:
                words += self._inner_in_words(inner, entry)
        return words

    def _inner_in_words(self, block: Block, entry: Entry) -> list[Block]:
        """Return what is sent of a block of such a result, where it stands in the message itself.

        There a call would ask for a result, and a result for a call.
        """
        if isinstance(block, ToolResultBlock):
            return self._answer_in_words(block, entry)
        if isinstance(block, ToolCallBlock):
            detail = "a call that no model made"
            self._report.add(RepairKind.BLOCK_DROPPED, entry.message, detail)
            return []
        return self._parts.of_block(block, entry.message, entry.role, in_result=True)

    # What is sent

    def _message(self, entry: Entry) -> list[SessionMessage]:
        """Return what is sent of a message beside its answers to calls, if anything."""
        if entry.blocks:
            return [with_blocks(entry.message, entry.role, entry.blocks)]
        if entry.answers:
            return []
        if not self._target.strict:
            return [entry.message]
        self._report.add(RepairKind.MESSAGE_DROPPED, entry.message, "nothing in it can be sent")
        return []

    def _answers(self, exchange: Exchange) -> list[SessionMessage]:
        """Return the messages with the answers to calls, grouped by message and kind."""
        messages: dict[tuple[str, MessageRole], tuple[SessionMessage, list[Block]]] = {}
        for message, block in exchange.answers:
            role = _TOOL if isinstance(block, ToolResultBlock) else _USER
            messages.setdefault((message.id, role), (message, []))[1].append(block)
        sent = [
            with_blocks(message, role, blocks) for (_, role), (message, blocks) in messages.items()
        ]
        missing = [self._no_result(call) for call in exchange.calls if not call.is_answered]
        if missing:
            sent.append(SessionMessage(role=_TOOL, content=missing))
        return sent

    def _no_result(self, call: Call) -> Block:
        self._report.add(RepairKind.CALL_ANSWERED, None, f"the call {call.id!r}")
        return ToolResultBlock(
            tool_call_id=call.id, name=call.name or None, content=NO_RESULT, is_error=True
        )


def _unanswered_in_words(block: OtherBlock | None) -> str:
    return f"{other_in_words(block)} (not answered)" if block is not None else ""
