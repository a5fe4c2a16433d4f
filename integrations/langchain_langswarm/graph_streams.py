"""The messages in what a LangGraph graph streams, in each of its stream modes. Pure: no I/O.

A single mode gives its data alone. Several modes give pairs of mode and data, ``subgraphs=True``
puts the namespace before, and ``version="v2"`` gives dicts (`StreamPart` in langgraph.types). The
data of the mode "messages" is a pair of a message, or a piece of one, and metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessageChunk, BaseMessage, convert_to_messages

_PART_KEYS = {"type", "ns", "data"}

_TOOLS = "tools:"
"""How the namespace of a tool that is run by a ToolNode begins: by that node's name."""


class GraphPart(NamedTuple):
    """A piece of a graph's stream.

    Attributes:
        mode: The stream mode; None if it may be "updates" or "values".
        namespace: The graphs' nodes around it; empty for the graph itself.
        data: What the mode gives.
    """

    mode: str | None
    namespace: tuple[str, ...]
    data: Any


def graph_parts(chunks: Sequence[Any]) -> list[GraphPart]:
    """Return the pieces of a graph's stream; nothing if they are those of another chain.

    Nor are they returned if the data comes alone, in the modes "updates" and "values": those are
    dicts as other chains give them.
    """
    parts = [_part(chunk) for chunk in chunks]
    return [part for part in parts if part is not None] if all(parts) else []


def _part(chunk: Any) -> GraphPart | None:
    if isinstance(chunk, Mapping) and chunk.keys() >= _PART_KEYS:
        return GraphPart(chunk["type"], tuple(chunk["ns"]), chunk["data"])
    if not isinstance(chunk, tuple):
        return None
    match chunk:
        case (BaseMessage(), Mapping()):
            return GraphPart("messages", (), chunk)
        case (str() as mode, data):
            return GraphPart(mode, (), data)
        case (tuple() as namespace, str() as mode, data):
            return GraphPart(mode, namespace, data)
        case (tuple() as namespace, (BaseMessage(), Mapping()) as data):
            return GraphPart("messages", namespace, data)
        case (tuple() as namespace, data):
            return GraphPart(None, namespace, data)
    return None


def messages_in(parts: Sequence[GraphPart], key: str) -> list[list[BaseMessage]]:
    """Return lists of messages that a graph's state had, or that were added to it.

    Args:
        parts: The pieces of the graph's stream.
        key: Where its state has the messages.
    """
    own = [part for part in parts if not part.namespace and isinstance(part.data, Mapping)]
    for values in (part.data for part in reversed(own) if part.mode in ("values", None)):
        if key in values:
            return [_messages(values[key])]
    updates = [part.data for part in own if part.mode in ("updates", None)]
    return list(updated(updates, key)) or [_pieced_together(parts)]


def updated(updates: Sequence[Any], key: str) -> Iterator[list[BaseMessage]]:
    """Yield the messages with which each node updated a graph's state.

    Args:
        updates: What a graph streams in the mode "updates", and anything else.
        key: Where the state has the messages.
    """
    for update in updates:
        for change in update.values() if isinstance(update, Mapping) else ():
            # A node that is run several times gives a list.
            for each in change if isinstance(change, list) else [change]:
                if isinstance(each, Mapping) and key in each:
                    yield _messages(each[key])


def _messages(value: Any) -> list[BaseMessage]:
    value = getattr(value, "value", value)  # of langgraph.types.Overwrite
    return convert_to_messages(value if isinstance(value, list | tuple) else [value])


def _pieced_together(parts: Sequence[GraphPart]) -> list[BaseMessage]:
    """Return what was streamed as messages, each whole, in the order in which they began."""
    made: list[BaseMessage] = []
    growing: dict[str, int] = {}
    for message, metadata in (part.data for part in parts if part.mode == "messages"):
        node = str(metadata.get("langgraph_checkpoint_ns", ""))
        if any(around.startswith(_TOOLS) for around in node.split("|")[:-1]):
            continue  # of an agent within a tool: its result is the tool's
        place = growing.get(node)
        if not isinstance(message, AIMessageChunk):
            growing.pop(node, None)
            made.append(message)
        elif place is not None and _continues(made[place], message):
            made[place] = _joined(made[place], message)
        else:
            growing[node] = len(made)
            made.append(message)
    return made


def _joined(begun: BaseMessage, chunk: AIMessageChunk) -> BaseMessage:
    assert isinstance(begun, AIMessageChunk), "only pieces grow"
    return begun + chunk


def _continues(begun: BaseMessage, chunk: AIMessageChunk) -> bool:
    """Return whether a piece belongs to a message; the last one may have another id."""
    return begun.id == chunk.id or getattr(chunk, "chunk_position", None) == "last"
