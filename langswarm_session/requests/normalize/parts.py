"""What of a message can be sent: the blocks that the provider takes, in an order that it takes.

A reply of the provider's own model keeps its order. Anthropic: thinking between texts and calls
is right as it came, and refused otherwise
(https://platform.claude.com/docs/en/build-with-claude/preserved-thinking).
"""

from __future__ import annotations

from typing import Any

from langswarm_session.blocks import (
    Block,
    OtherBlock,
    ReasoningBlock,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from langswarm_session.models import RESULT_ROLES, MessageRole, SessionMessage
from langswarm_session.requests.normalize.entries import Entry
from langswarm_session.requests.normalize.paired import answer_key
from langswarm_session.requests.normalize.repairs import RepairKind, Report
from langswarm_session.requests.normalize.target import Target, has_fields
from langswarm_session.requests.normalize.words import MEDIA, call_in_words, in_words

_ASSISTANT, _SYSTEM, _USER = MessageRole.ASSISTANT, MessageRole.SYSTEM, MessageRole.USER


class Parts:
    """Finds what of the messages of one request can be sent.

    Args:
        target: What the provider accepts.
        report: Told of what is left out, converted or reordered.
    """

    def __init__(self, target: Target, report: Report) -> None:
        self._target = target
        self._report = report
        self._block_ids: set[str] = set()

    def entry(self, message: SessionMessage) -> Entry:
        """Return a message with what of it can be sent, its answers to calls apart."""
        is_result = message.role in RESULT_ROLES
        role = _USER if is_result else message.role
        entry = Entry(message, role, [])
        blocks = message.blocks
        if is_result and not any(isinstance(block, ToolResultBlock) for block in blocks):
            # As the legacy function role has it: it names the tool and no call.
            legacy = ToolResultBlock(tool_call_id="", name=message.name, content=message.content)
            entry.answers.append((legacy, False))
            return entry
        for block in blocks:
            if isinstance(block, ToolResultBlock):
                entry.answers.append((block, role is _ASSISTANT or bool(entry.blocks)))
                continue
            for part in self.of_block(block, message, role):
                if role is _USER and isinstance(part, OtherBlock) and self._answers(part):
                    entry.answers.append((part, bool(entry.blocks)))
                else:
                    entry.blocks.append(part)
        if self._target.strict:
            self._tidy(entry)
        return entry

    def _answers(self, block: OtherBlock) -> bool:
        return answer_key(block, self._target.paired_kinds) is not None

    def of_block(
        self, block: Block, message: SessionMessage, role: MessageRole, *, in_result: bool = False
    ) -> list[Block]:
        """Return what is sent of a block.

        Args:
            block: The block.
            message: The message that it is in.
            role: Who says it.
            in_result: Whether it is inside of a tool's result.
        """
        if not self._target.strict or self._can_be_sent(block, message, role, in_result):
            return self._once(block, message)
        if isinstance(block, TextBlock):
            self._report.add(RepairKind.BLOCK_DROPPED, message, "an empty text")
        elif isinstance(block, ToolCallBlock):
            if role is _ASSISTANT and not in_result:
                self._report.add(RepairKind.BLOCK_CONVERTED, message, "a call of a tool")
                return [TextBlock(text=call_in_words(block))]
            self._report.add(RepairKind.BLOCK_DROPPED, message, "a call that no model made")
        elif isinstance(block, ReasoningBlock):
            detail = "made by another model, or unproven"
            self._report.add(RepairKind.REASONING_DROPPED, message, detail)
        elif isinstance(block, OtherBlock):
            kind = block.kind or "a block"
            self._report.add(RepairKind.BLOCK_DROPPED, message, f"{kind[:80]} of another format")
        else:
            self._report.add(RepairKind.BLOCK_CONVERTED, message, block.type)
            return [TextBlock(text=in_words(block))]
        return []

    def _can_be_sent(
        self, block: Block, message: SessionMessage, role: MessageRole, in_result: bool
    ) -> bool:
        if isinstance(block, ToolCallBlock):
            return role is _ASSISTANT and not in_result and self._target.takes_calls
        takes_back = self._target.takes_back
        if takes_back and role is _ASSISTANT and not in_result and self._is_own(message):
            return takes_back(block)
        if isinstance(block, TextBlock):
            return bool(block.text) and self._target.takes(block, in_result)
        if isinstance(block, ReasoningBlock):
            right = role is _ASSISTANT and self._is_readable(message)
        elif isinstance(block, OtherBlock):
            if role is _USER and not in_result:
                return self._is_whole(block)
            right = role is _USER or (
                role is _ASSISTANT and self._is_own(message, same_model=False)
            )
        elif isinstance(block, MEDIA):
            right = role is _USER
        else:
            right = role is not _SYSTEM
        return right and self._target.takes(block, in_result)

    def _is_whole(self, block: OtherBlock) -> bool:
        """Return whether a user may send a block of the provider's, and its fields are there."""
        fields = self._target.user_blocks.get(block.kind)
        return fields is not None and has_fields(block.value, fields)

    def _is_own(self, message: SessionMessage, *, same_model: bool = True) -> bool:
        return message.provider == self._target.provider and (
            not same_model or message.model == self._target.model
        )

    def _is_readable(self, message: SessionMessage) -> bool:
        """Return whether the model reads the reasoning of who gave a message."""
        reads = self._target.reads
        return self._is_own(message) or (
            reads is not None
            and self._is_own(message, same_model=False)
            and message.model is not None
            and reads(message.model)
        )

    def _once(self, block: Block, message: SessionMessage) -> list[Block]:
        """Return the block, unless a provider's own one with its id is in the request already."""
        block_id: Any = None
        if isinstance(block, ReasoningBlock):
            block_id = block.id
        elif isinstance(block, OtherBlock):
            block_id = block.value.get("id")
        if self._target.strict and isinstance(block_id, str):
            if block_id in self._block_ids:
                detail = f"{block_id[:80]!r} comes twice"
                self._report.add(RepairKind.BLOCK_DROPPED, message, detail)
                return []
            self._block_ids.add(block_id)
        return [block]

    def _tidy(self, entry: Entry) -> None:
        """Leave out what only makes sense with something else in the message, or put it there."""
        if entry.role is _ASSISTANT:
            if self._target.alternates and not self._is_own(entry.message):
                self._calls_last(entry)
            if any(isinstance(block, ReasoningBlock) for block in entry.blocks):
                self._drop_idle_reasoning(entry)
        if all(isinstance(block, TextBlock) and block.text.isspace() for block in entry.blocks):
            if entry.answers and entry.blocks:
                self._report.add(RepairKind.BLOCK_DROPPED, entry.message, "an empty text")
            entry.blocks = []

    def _calls_last(self, entry: Entry) -> None:
        calls = [block for block in entry.blocks if isinstance(block, ToolCallBlock)]
        if not calls or len(calls) == len(entry.blocks):
            return
        ordered = [b for b in entry.blocks if not isinstance(b, ToolCallBlock)] + calls
        if any(a is not b for a, b in zip(ordered, entry.blocks, strict=True)):
            self._report.add(RepairKind.REORDERED, entry.message, "its calls come last")
            entry.blocks = ordered

    def _drop_idle_reasoning(self, entry: Entry) -> None:
        """Leave out reasoning that nothing came of: providers want what it led to."""
        end = len(entry.blocks)
        while end and isinstance(entry.blocks[end - 1], ReasoningBlock):
            end -= 1
            self._report.add(RepairKind.REASONING_DROPPED, entry.message, "nothing follows it")
        entry.blocks = entry.blocks[:end]
