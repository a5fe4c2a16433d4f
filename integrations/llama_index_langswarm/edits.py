"""How a log is edited so that LlamaIndex sees what it asked for. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llama_index.core.base.llms.types import ChatMessage

from langswarm_session.models import SessionMessage
from llama_index_langswarm.messages import from_llama_index

STATUS = "llama_index_status"
"""The key of a message's metadata that marks one that was archived individually."""


class Entry(NamedTuple):
    """A message of the log, and what LlamaIndex sees of it."""

    message: SessionMessage
    chats: list[ChatMessage]
    archived: bool


class Edit(NamedTuple):
    """What is to be done to a log, and what the caller is told of it.

    Attributes:
        told: What the caller is told.
        remove: The sequence numbers of the messages to remove.
        change: Messages of the log with other values.
        add: Messages to add.
        archive: The sequence number up to which all is archived from then on.
    """

    told: Any = None
    remove: Sequence[int] = ()
    change: Sequence[SessionMessage] = ()
    add: Sequence[SessionMessage] = ()
    archive: int | None = None


def replaced(entries: list[Entry], chats: Sequence[ChatMessage], *, archive: bool = False) -> Edit:
    """Return the edit after which the log has other messages.

    One that was there before keeps its id, time and all else that LlamaIndex knows nothing of.
    """
    same = at = 0
    while same < len(entries):
        known = entries[same].chats
        if list(chats[at : at + len(known)]) != known:
            break
        same, at = same + 1, at + len(known)
    gone = entries[same:]
    pool: dict[Any, list[Entry]] = {}
    for entry in gone:
        if len(entry.chats) == 1:
            pool.setdefault(_hint(entry.chats[0]), []).append(entry)
    add = []
    for chat in chats[at:]:
        alike = pool.get(_hint(chat), [])
        moved = next((entry for entry in alike if entry.chats == [chat]), None)
        if moved is None:
            message, stays = from_llama_index(chat), archive
        else:
            alike.remove(moved)
            message, stays = moved.message, archive or moved.archived
        add.append(flagged(message) if stays else message)
    return Edit(remove=[entry.message.seq or 0 for entry in gone], add=add)


def without(entries: list[Entry], first: int, last: int) -> Edit:
    """Return the edit that removes the messages from one position to before another."""
    remove, change, told, at = [], [], [], 0
    for message, chats, _ in entries:
        left = [chat for n, chat in enumerate(chats, at) if not first <= n < last]
        told += [chat for n, chat in enumerate(chats, at) if first <= n < last]
        if not left:
            remove.append(message.seq or 0)
        elif len(left) < len(chats):  # of several results in one message
            blocks = [block for chat in left for block in from_llama_index(chat).blocks]
            change.append(message.replaced(content=blocks, native=None))
        at += len(chats)
    return Edit(told, remove, change)


def without_one(entries: list[Entry], idx: int) -> Edit:
    """Return the edit that removes the message at a position, counted as a list's, and tells it."""
    at = idx + size(entries) if idx < 0 else idx
    return without(entries, at, at + 1)


def without_all(entries: list[Entry]) -> Edit:
    """Return the edit that removes all messages, and tells them."""
    return without(entries, 0, size(entries))


def flagged(message: SessionMessage) -> SessionMessage:
    """Return the message, marked as archived."""
    return message.replaced(metadata={**message.metadata, STATUS: "archived"})


def size(entries: list[Entry]) -> int:
    """Return how many messages LlamaIndex sees."""
    return sum(len(entry.chats) for entry in entries)


def _hint(chat: ChatMessage) -> tuple[Any, ...]:
    """Return a hash of a message, equal for equal messages."""
    return chat.role, len(chat.blocks), chat.content
