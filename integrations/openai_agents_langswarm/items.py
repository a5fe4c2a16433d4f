"""The Agents SDK's items (those of OpenAI's Responses API) as session messages, and back, exactly.

What a model gave in a row is one message, so that other doors and providers see calls next to each
other. Items that the neutral form could not give back are kept in ``native["openai_agents"]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import is_not
from typing import Any

from pydantic import ValidationError

from langswarm_session.blocks import Block, OtherBlock, TextBlock, ToolResultBlock
from langswarm_session.doors import collector_paused
from langswarm_session.errors import InvalidInputError
from langswarm_session.formats import openai_responses
from langswarm_session.formats.native import restored
from langswarm_session.formats.openai_items import Item
from langswarm_session.formats.registry import MessageFormat
from langswarm_session.models import MessageRole, SessionMessage

FORMAT = "openai_agents"
"""The key of the SDK's own part in `SessionMessage.native`."""

# What reading an item that is not as its type says runs into. (A ValidationError is a ValueError.)
_MALFORMED = (AttributeError, LookupError, TypeError, ValueError)


def from_openai_agents(items: Iterable[Mapping[str, Any]]) -> list[SessionMessage]:
    """Items as session messages, each with an id and a time of its own.

    Args:
        items: Input items, as the SDK hands them to its sessions.

    Returns:
        The messages; `to_openai_agents` gives equal items back.

    Raises:
        InvalidInputError: If one is not an item, or holds what cannot be stored.
    """
    given = [_plain(item) for item in items]
    return [_message(group) for group in _groups(given)]


def to_openai_agents(messages: Iterable[SessionMessage]) -> list[Item]:
    """Session messages as the SDK's items.

    Args:
        messages: Items that `from_openai_agents` was given come back equal; what else there is is
            converted, with what an item has no field for left out.
    """
    with collector_paused():
        return [item for message in messages for item in items_of(message)]


def items_of(message: SessionMessage) -> list[Item]:
    """Return the items of one message; none where it has nothing that an item can carry."""
    return restored(
        message,
        FORMAT,
        lambda kept: _as_they_were(message, kept["items"]),
        lambda: _made(message, with_ids=False),
    )


def _as_they_were(message: SessionMessage, items: Sequence[Item | None]) -> list[Item]:
    """Return the items that `from_openai_agents` was given."""
    if items == [None]:
        text = _text_item(message)
        if text is not None:
            return [text]
    whole = [item for item in items if item is not None]
    if len(whole) < len(items):
        made = _made(message, with_ids=True)
        if not whole or len(made) != len(items):
            return made
        whole = [ours if item is None else item for ours, item in zip(made, items, strict=True)]
    # Where a middleware has put something else there, that is what counts.
    if _says(whole, message):
        return [dict(item) for item in whole]
    return _made(message, with_ids=True)


def without_last_item(message: SessionMessage) -> SessionMessage | None:
    """Return the message without its last item; None if nothing is left."""
    left = from_openai_agents(items_of(message)[:-1])
    if not left:
        return None
    if len(left) == 1:
        return message.replaced(content=left[0].content, native=left[0].native)
    blocks = [block for each in left for block in each.blocks]
    return message.replaced(content=blocks, native=None)


def _plain(item: Mapping[str, Any]) -> Item:
    if not isinstance(item, Mapping):
        raise InvalidInputError(f"a {type(item).__name__} is not an item that can be stored")
    return dict(item)


def _groups(items: Sequence[Item]) -> list[list[Item]]:
    """Items that become one message each: what a model gave in a row, or a single other one."""
    groups: list[list[Item]] = []
    open_group = False
    for item in items:
        by_model = _is_output(item)
        if by_model and open_group:
            groups[-1].append(item)
        else:
            groups.append([item])
        open_group = by_model
    return groups


def _is_output(item: Item) -> bool:
    kind = item.get("type", "message")
    if kind == "message":
        return item.get("role") == "assistant"
    return not str(kind).endswith(_INPUTS)


def is_result(item: Item) -> bool:
    """Return whether an item is the result of a call that it names."""
    return "call_id" in item and str(item.get("type")).endswith("_output")


_INPUTS = ("_output", "_response", "item_reference", "compaction", "_results")
"""How the types of items end that answer a model or stand for something else."""


def _message(items: list[Item]) -> SessionMessage:
    try:
        neutral = _neutral(items)
        kept = _kept(items, neutral)
        # Validated, since it holds what the caller gave.
        return neutral if kept is None else neutral.replaced(native={FORMAT: {"items": kept}})
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise InvalidInputError(f"an item holds what cannot be stored: {reason}") from error
    except RecursionError:
        raise InvalidInputError(
            "an item holds data that is nested too deeply, or in itself"
        ) from None


def _neutral(items: Sequence[Item]) -> SessionMessage:
    """Return what of the items a session message has fields for."""
    by_model = _is_output(items[0])
    try:
        (message,) = openai_responses.from_items(items)
        if by_model is (message.role is MessageRole.ASSISTANT):
            return message
    except _MALFORMED:
        pass
    blocks: list[Block] = [OtherBlock(value=item) for item in items]
    role = MessageRole.ASSISTANT if by_model else MessageRole.USER
    return SessionMessage(role=role, content=blocks)


def _kept(items: Sequence[Item], neutral: SessionMessage) -> list[Item | None] | None:
    """Return the items, with None in the place of those that come back from the neutral form alone.

    Returns:
        None if that is all of them, without their ids having to be trusted.
    """
    plain = not any("id" in item for item in items)
    if plain and _same(_made(neutral, with_ids=False), items):
        return None
    made = _made(neutral, with_ids=True)
    if len(made) != len(items):
        return list(items)
    return [
        None if _same(ours, theirs) else theirs for ours, theirs in zip(made, items, strict=True)
    ]


def _same(ours: object, theirs: object) -> bool:
    """Return whether two JSON values are the same, types included (1 is not True)."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(
            _same(value, theirs[key]) for key, value in ours.items()
        )
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    return ours == theirs


def _says(items: Sequence[Item], message: SessionMessage) -> bool:
    """Return whether the items still say what the message does."""
    if message.role is MessageRole.ASSISTANT and all(map(_is_output, items)):
        try:
            if openai_responses.from_output(items) == message.content:
                return True
        except _MALFORMED:
            pass
    neutral = _neutral(items)
    return neutral.role is message.role and neutral.content == message.content


def _text_item(message: SessionMessage) -> Item | None:
    """Return the item for a model's message of one text, as `_made` does; None for any other.

    Half of most conversations are such messages: with this, 10,000 messages are converted in 21 ms
    in place of 39.
    """
    content = message.content
    if isinstance(content, str) or len(content) != 1 or message.role is not MessageRole.ASSISTANT:
        return None
    (block,) = content
    if type(block) is not TextBlock or block.annotations or block.extras:
        return None
    if block.id is None or not block.id.startswith("msg_"):
        return None
    part = {"type": "output_text", "text": block.text, "annotations": [], "logprobs": []}
    return {
        "type": "message",
        "role": "assistant",
        "id": block.id,
        "status": "completed",
        "content": [part],
    }


def _made(message: SessionMessage, *, with_ids: bool) -> list[Item]:
    """Return the items for the neutral form."""
    if message.role is MessageRole.SYSTEM:
        return [{"role": "system", "content": message.text}]
    if message.role is MessageRole.USER and isinstance(message.content, str):
        return [{"role": "user", "content": message.content}]
    before = message.blocks
    blocks = [block for block in map(_as_carried, before) if block is not None]
    if not with_ids:
        # Only who has such an item knows what it is.
        blocks = [block for block in blocks if not isinstance(block, OtherBlock)]
    if len(blocks) < len(before) or any(map(is_not, blocks, before)):
        message = message.model_copy(update={"content": blocks})
    made = openai_responses.to_items([message], with_ids=with_ids)
    for item in made if with_ids else ():
        if item.get("type") == "message" and "id" in item:
            for part in item["content"]:
                if part["type"] == "output_text":
                    part["logprobs"] = []
    return made


def _as_carried(block: Block) -> Block | None:
    """Return the block as far as an item can carry it."""
    if not isinstance(block, ToolResultBlock):
        return block if openai_responses.takes(block, in_result=False) else None
    if isinstance(block.content, str):
        return block
    content = [each for each in block.content if openai_responses.takes(each, in_result=True)]
    if len(content) == len(block.content):
        return block
    return block.model_copy(update={"content": content})


message_format = MessageFormat(FORMAT, to_openai_agents, from_openai_agents)
"""What the package's entry point names."""
