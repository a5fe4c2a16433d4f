"""The input of a request to OpenAI's Responses API, and what its reply is made under."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile

from langswarm_session.blocks import OtherBlock, ReasoningBlock
from langswarm_session.formats.openai_items import Item
from langswarm_session.formats.openai_responses import ItemWriter, instructions, is_system
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.providers.openai.models import (
    binds_reasoning,
    has_instructions_of_turns,
    takes_updates,
)
from langswarm_session.providers.openai.updates import Updates, updates_of
from langswarm_session.records import PrefixChangeReason, ProviderRequest
from langswarm_session.requests.normalize import Repair, RepairKind
from langswarm_session.requests.prefix import Prefix
from langswarm_session.requests.tool_changes import Definition
from langswarm_session.requests.window import COMPACTION, is_compaction


class RequestInput:
    """What of a session's window a request to OpenAI has, in the form in which it is sent.

    Args:
        request: The request.
        tools: Its tools, as they are sent.
        in_place: Whether system messages stay where they were said. Elsewhere than at OpenAI all
            of them are put together, as most models' templates have one place for them.

    Attributes:
        tools: The tools that are declared.
        updates: What of tools and settings changed since the first request.
        instructions: The system text that travels apart from the items; empty for none.
        messages: The messages of the request, without reasoning that is not valid any more.
        items: All items, as they are sent where the server keeps nothing.
    """

    def __init__(
        self, request: ProviderRequest, tools: Sequence[Definition], *, in_place: bool
    ) -> None:
        self._request = request
        model = request.context.model
        takes = in_place and takes_updates(model)
        self.updates = updates_of(request, tools) if takes else Updates(tuple(tools))
        self.tools = self.updates.tools
        self._per_turn = in_place and has_instructions_of_turns(model)
        self._apart = self._kept_apart(in_place=in_place)
        given = request.options.get("instructions")
        text = instructions(self._apart)
        self.instructions = "\n\n".join(part for part in (text, given) if part)
        # Where the caller's are for one turn, they come last, and are no part of the beginning.
        self._lasting = text if self._per_turn else self.instructions
        self._stored = {message.id: message for message in request.window}
        self.messages: list[SessionMessage] = []
        self.items: list[Item] = []
        self._build()

    def items_of(self, messages: Sequence[SessionMessage]) -> list[Item]:
        """Return the items for some of the messages, for a server that gives them their ids."""
        numbers = [message.seq for message in messages if message.seq is not None]
        updates = self.updates.between(min(numbers, default=0), max(numbers, default=-1))
        writer = ItemWriter(known=self._request.window)
        items: list[Item] = []
        done = 0
        for message in messages:
            due = _due(updates, done, message)
            done += len(due)
            items += [*due, *self._written(writer, message)]
        return [*items, *updates.due(done, None)]

    def _kept_apart(self, *, in_place: bool) -> list[SessionMessage]:
        """Return the system messages that are no items."""
        messages = self._request.messages
        if not in_place:
            return [message for message in self._request.window if is_system(message)]
        return [] if self._per_turn else list(takewhile(is_system, messages))

    def _written(self, writer: ItemWriter, message: SessionMessage) -> list[Item]:
        if self._is_apart(message):
            return []
        return [_without_user_id(item) for item in writer.write(message)]

    def _is_apart(self, message: SessionMessage) -> bool:
        return is_system(message) and any(message.id == apart.id for apart in self._apart)

    def _prefix(self) -> Prefix:
        model = self._request.context.model
        return Prefix(
            self._request,
            system=[self._lasting, self.updates.settings],
            tools=self.tools,
            binds=binds_reasoning(model),
        )

    def _build(self) -> None:
        """Write the items, and follow what each reply was made under."""
        writer = ItemWriter(known=self._request.window, verbatim=_own_replies(self._request))
        prefix, is_compacted, done = self._prefix(), False, 0
        for given in self._request.messages:
            is_compacted = is_compacted and given.role is not MessageRole.ASSISTANT
            due = _due(self.updates, done, given)
            done += len(due)
            self._add(due, prefix)
            message = self._valid(given, prefix)
            self.messages.append(message)
            items = self._written(writer, message)
            if _has_compaction(message):
                prefix, is_compacted = self._prefix(), True
                items = self._compacted(items, is_whole=is_compaction(message))
            self._add(items, prefix)
        self._add(self.updates.due(done, None), prefix)
        prefix.end()
        if is_compacted:
            self._request.changed = PrefixChangeReason.SUMMARY

    def _valid(self, message: SessionMessage, prefix: Prefix) -> SessionMessage:
        """Return a message, without its reasoning if that is not valid any more."""
        if message.role is not MessageRole.ASSISTANT:
            return message
        if _has_compaction(message) and (message.seq or 0) > self._request.reasoning_after:
            return message  # reasoning behind a compaction stays valid
        is_valid = prefix.allows(self._stored.get(message.id, message))
        return message if is_valid else self._without_reasoning(message)

    def _add(self, items: Iterable[Item], prefix: Prefix) -> None:
        for item in items:
            prefix.add(item)
            self.items.append(item)

    def _compacted(self, items: list[Item], *, is_whole: bool) -> list[Item]:
        """Return a reply's items from its compaction on, and leave out what was before.

        It stands for that, but for what developers said:
        https://developers.openai.com/api/docs/guides/compaction

        Args:
            items: The reply's items.
            is_whole: Whether all of them are the compaction.
        """
        places = [n for n, item in enumerate(items) if item.get("type") == COMPACTION]
        kept = [item for item in self.items if _is_of_developer(item)]
        self.items = []
        return [*kept, *(items if is_whole else items[places[-1] :])]

    def _without_reasoning(self, message: SessionMessage) -> SessionMessage:
        left = [block for block in message.blocks if not isinstance(block, ReasoningBlock)]
        if len(left) == len(message.blocks):
            return message
        detail = "what came before it has changed"
        kind = RepairKind.REASONING_DROPPED
        self._request.report(Repair(kind=kind, message_id=message.id, detail=detail))
        return message.model_copy(update={"content": left})


def _due(updates: Updates, done: int, message: SessionMessage) -> list[Item]:
    """Return the updates that belong before a message: before a reply, and nowhere else."""
    if message.role is not MessageRole.ASSISTANT or message.seq is None:
        return []
    return list(updates.due(done, message.seq))


def _has_compaction(message: SessionMessage) -> bool:
    return message.role is MessageRole.ASSISTANT and any(
        isinstance(block, OtherBlock) and block.kind == COMPACTION for block in message.blocks
    )


def _without_user_id(item: Item) -> Item:
    """Return an item without the id that a compaction gives what users said.

    Of the messages that may be sent, only a model's have one
    (``openai/types/responses/response_input_item_param.py``).
    """
    if item.get("type") != "message" or item.get("role") != "user":
        return item
    return {name: value for name, value in item.items() if name != "id"}


def _is_of_developer(item: Item) -> bool:
    return item.get("role") == "developer" or item.get("type") == "configuration_update"


def _own_replies(request: ProviderRequest) -> Callable[[SessionMessage], bool]:
    """Return what tells the replies that go back exactly as they came, ids included.

    A reply whose reasoning is left out goes back without ids: OpenAI refuses an item whose id
    belongs to reasoning that is not there, as in https://github.com/openai/codex/issues/20774.
    """
    stored = {message.id: message for message in request.window}
    source = (request.target.provider, request.target.model)

    def is_own(message: SessionMessage) -> bool:
        before = stored.get(message.id)
        if before is None or (message.provider, message.model) != source:
            return False
        return before is message or _thoughts(before) == _thoughts(message)

    return is_own


def _thoughts(message: SessionMessage) -> int:
    return sum(isinstance(block, ReasoningBlock) for block in message.blocks)
