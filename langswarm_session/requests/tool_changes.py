"""The tools of a conversation: those declared with its first request, and later changes to them.

Vendors render tools before everything else, so an edited list invalidates the prompt cache, and the
thinking of models that bind it. A change therefore travels where it was made, and the declared list
stays as it was first sent, in its order and its bytes:
https://platform.claude.com/docs/en/build-with-claude/mid-conversation-system-messages#mid-conversation-tool-changes
and https://developers.openai.com/api/docs/guides/prompt-caching (``additional_tools``).

Pure: a ledger is read from a provider's notes of earlier turns, and its new state goes back there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Definition = Mapping[str, Any]
"""A tool as the provider's API has it, ready to be sent."""

NOTE = "tools"
"""The key of a provider's notes under which its ledger is kept."""

_NAMES = ("name", "mcp_server_name", "server_label", "type")
"""The fields that may tell one tool of a request from another, the most telling first."""


def name_of(definition: Definition) -> str:
    """Return what a tool is known by: its name, its server's, or its type where it has neither."""
    named = (definition.get(field) for field in _NAMES)
    return next((value for value in named if isinstance(value, str) and value), "")


@dataclass(frozen=True, slots=True)
class ToolChange:
    """Tools that were added or removed at one place of a conversation.

    Attributes:
        after: The number of the message that it stands behind: before the reply to that message.
        added: The definitions of the tools that are offered from there on. One with the name of a
            tool that is known already replaces that tool, or offers it again.
        removed: The names of the tools that are not offered any more.
    """

    after: int
    added: tuple[Definition, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolLedger:
    """The tools that a conversation began with, and how they changed.

    Attributes:
        start: The number of the message that the requests begin with. When that moves, the
            request is a new one anyway, and the tools are declared as they are by then.
        declared: What goes in the request's list of tools, as it was first sent.
        changes: What changed since, oldest first.
    """

    start: int
    declared: tuple[Definition, ...] = ()
    changes: tuple[ToolChange, ...] = ()

    @classmethod
    def from_notes(cls, notes: Mapping[str, Any], start: int) -> ToolLedger | None:
        """Return the ledger of the requests that begin at a message; None if there is none yet.

        Args:
            notes: The provider's notes of earlier turns.
            start: Where this request begins.
        """
        kept = notes.get(NOTE)
        if not isinstance(kept, Mapping) or kept.get("start") != start:
            return None
        changes = (
            ToolChange(each["after"], tuple(each["added"]), tuple(each["removed"]))
            for each in kept["changes"]
        )
        return cls(start, tuple(kept["declared"]), tuple(changes))

    def to_notes(self) -> dict[str, Any]:
        """Return the ledger as JSON, to be merged into the provider's notes."""
        changes = [
            {
                "after": change.after,
                "added": [dict(each) for each in change.added],
                "removed": list(change.removed),
            }
            for change in self.changes
        ]
        declared = [dict(each) for each in self.declared]
        return {NOTE: {"start": self.start, "declared": declared, "changes": changes}}

    @property
    def offered(self) -> dict[str, Definition]:
        """The tools that are offered now, by name."""
        offered = {name_of(each): each for each in self.declared}
        for change in self.changes:
            for name in change.removed:
                offered.pop(name, None)
            offered.update((name_of(each), each) for each in change.added)
        return offered

    def is_known(self, definition: Definition, before: int | None = None) -> bool:
        """Return whether exactly this tool was declared or added, so that its name alone will do.

        Args:
            definition: The tool.
            before: Only what was added before this change, by its index; None for all.
        """
        known = {name_of(each): each for each in self.declared}
        for change in self.changes[:before]:
            known.update((name_of(each), each) for each in change.added)
        return known.get(name_of(definition)) == definition

    def with_tools(self, wanted: Sequence[Definition], after: int) -> ToolLedger:
        """Return the ledger once these tools, and no others, are offered behind a message.

        Their order does not matter: the declared one is kept.

        Args:
            wanted: The tools that the caller offers now.
            after: The number of the newest message of the request.
        """
        offered, names = self.offered, {name_of(each) for each in wanted}
        removed = tuple(name for name in offered if name not in names)
        added = tuple(each for each in wanted if offered.get(name_of(each)) != each)
        if not (added or removed):
            return self
        return replace(self, changes=(*self.changes, ToolChange(after, added, removed)))


class Changes:
    """Hands out a ledger's changes while the messages of a request are written, oldest first.

    Args:
        ledger: The ledger.
        write: Makes the provider's form of a change, given its index in the ledger.
    """

    def __init__(self, ledger: ToolLedger, write: Callable[[int, ToolChange], Any]) -> None:
        self._ledger = ledger
        self._write = write
        self._next = 0

    def before(self, seq: int | None) -> Iterator[Any]:
        """Yield what belongs before a reply: the changes behind messages with smaller numbers.

        Args:
            seq: The reply's number; None for the reply that is asked for, and so for all that is
                left.
        """
        changes = self._ledger.changes
        while self._next < len(changes) and (seq is None or changes[self._next].after < seq):
            index, self._next = self._next, self._next + 1
            yield self._write(index, changes[index])
