"""What changes in the middle of a conversation with Anthropic: its tools, and the effort.

Each change stands where it was made, so that what was sent before stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from langswarm_session.blocks import ToolCallBlock, ToolResultBlock
from langswarm_session.formats.anthropic import Param
from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.providers.anthropic.dialects import Abilities, ToolChanges
from langswarm_session.providers.claude_models import MEDIUM_EFFORT
from langswarm_session.records import MadeUnder, ProviderRequest
from langswarm_session.requests.normalize import Repair, RepairKind
from langswarm_session.requests.tool_changes import (
    NOTE,
    Definition,
    ToolChange,
    ToolLedger,
    name_of,
)
from langswarm_session.tools import Tool, as_tools, to_anthropic

INLINE_BETA = "inline-tools-2026-09-15"
REFERENCE_BETA = "mid-conversation-tool-changes-2026-07-01"

EFFORT_NOTE = "effort"
"""The key of the notes under which the changes of effort are kept."""

Arguments = dict[str, Any]


class Tools:
    """The tools of one request.

    Args:
        request: The request.
        given: What the caller gave as tools.
        able: What the server takes for the model.

    Attributes:
        ledger: The conversation's tools, with those of this request.
        latest: The changes that are new with this request, as written so far.
        noted: What is to be noted of them.
    """

    def __init__(self, request: ProviderRequest, given: Any, able: Abilities) -> None:
        self._request = request
        self._way = able.dialect.tool_changes
        wanted = [to_anthropic(tool) for tool in as_tools(given)] if given else []
        known = _known(request, has_tools=bool(wanted))
        start = _first(request.window)
        self._old = 0 if known is None else len(known.changes)
        self.ledger = self._changed(known, wanted, start)
        self._is_offered = bool(wanted)
        self.latest: list[Param] = []
        is_new = self.ledger is not known and bool(wanted or request.notes.get(NOTE))
        self.noted: dict[str, Any] = self.ledger.to_notes() if is_new else {}
        if self._way is ToolChanges.NONE and self.ledger.changes:
            # Changes that another model was told of: this one is given their outcome, which is not
            # noted, as the other's requests go on as they were.
            self.ledger = replace(
                self.ledger, declared=tuple(self.ledger.offered.values()), changes=()
            )

    def _changed(
        self, known: ToolLedger | None, wanted: Sequence[Definition], start: int
    ) -> ToolLedger:
        if known is None:
            return ToolLedger(start, tuple(wanted))
        after = max((message.seq or 0 for message in self._request.window), default=0)
        changed = known.with_tools(wanted, after)
        if changed is known or self._can_be_said(known, changed.changes[-1]):
            return changed
        if self._way is ToolChanges.NONE and known.changes:
            return changed  # said to the model that was told of the others
        if not wanted:  # they stay declared, and are not to be called
            return known
        return ToolLedger(start, tuple(wanted))

    def _can_be_said(self, known: ToolLedger, change: ToolChange) -> bool:
        """Return whether a change can stand in the messages."""
        if self._way is ToolChanges.INLINE:
            return all(known.is_known(each) or _is_inline(each) for each in change.added)
        if self._way is ToolChanges.NONE or not known.declared:
            return False
        names = {name_of(each) for each in known.declared}
        names.update(name_of(each) for old in known.changes for each in old.added)
        return all(known.is_known(each) or name_of(each) not in names for each in change.added)

    def declare(self, fixed: Arguments, betas: list[str]) -> None:
        """Set the list of tools, and whether they may be called."""
        ledger = self.ledger
        declared: list[Param] = [dict(each) for each in ledger.declared]
        if self._way is ToolChanges.REFERENCE:
            declared += [
                {**each, "defer_loading": True}
                for change in ledger.changes
                for each in change.added
                if each not in ledger.declared
            ]
        missing = _missing(self._request.messages, ledger, has_any=bool(declared))
        declared += [to_anthropic(Tool(name)) for name in missing]
        if declared:
            fixed["tools"] = declared
        if ledger.changes:
            betas.append(INLINE_BETA if self._way is ToolChanges.INLINE else REFERENCE_BETA)
        if declared and not self._is_offered and not ledger.changes:
            # The API refuses calls of tools that it is not told of.
            fixed["tool_choice"] = {"type": "none"}
            names = ", ".join(name_of(each) for each in declared)
            self._request.report(Repair(kind=RepairKind.TOOLS_DECLARED, detail=names))

    def bound(self, fixed: Arguments) -> list[Param]:
        """Return the tools that thinking is bound to: without markers, and those that wait."""
        return [
            {name: value for name, value in tool.items() if name != "cache_control"}
            for tool in fixed.get("tools", ())
            if not tool.get("defer_loading")
        ]

    def written(self, index: int, change: ToolChange) -> Param:
        """Return a change of tools as the system message that it travels in."""
        content = [{"type": "tool_removal", "tool": _named(name)} for name in change.removed]
        content += [
            {"type": "tool_addition", "tool": self._added(each, index)} for each in change.added
        ]
        said: Param = {"role": "system", "content": content}
        if index >= self._old:
            self.latest.append(said)
        return said

    def _added(self, definition: Definition, index: int) -> Param:
        if self._way is ToolChanges.REFERENCE or self.ledger.is_known(definition, index):
            return _named(name_of(definition))
        return {"type": "tool_definition", "definition": dict(definition)}


def _named(name: str) -> Param:
    return {"type": "tool_reference", "name": name}


def _is_inline(definition: Definition) -> bool:
    """Return whether a tool may be defined in a message: one of the caller's own.

    "Some tool types (the computer use tool among them) can't be defined in a message yet"
    (`mid-conversation-system-messages#define-tools-in-a-message-beta`), and an ``mcp_toolset``
    needs another beta.
    """
    return "input_schema" in definition


def _known(request: ProviderRequest, *, has_tools: bool) -> ToolLedger | None:
    """Return the ledger of a continued conversation; None where its tools are declared now."""
    start = _first(request.window)
    if NOTE in request.notes:
        return ToolLedger.from_notes(request.notes, start)
    if has_tools and any(MadeUnder.of(message) is not None for message in request.window):
        return ToolLedger(start)  # it began without tools
    return None


def _first(window: Iterable[SessionMessage]) -> int:
    """Return the number of the first message that is sent, system messages aside."""
    others = (message.seq or 0 for message in window if message.role is not MessageRole.SYSTEM)
    return next(others, 0)


def _missing(messages: Sequence[SessionMessage], ledger: ToolLedger, *, has_any: bool) -> list[str]:
    """Return the names of tools that are called in messages and that nothing tells of.

    Any name where there are results only, and no tools.
    """
    blocks = [
        block
        for message in messages
        if not isinstance(message.content, str)
        for block in message.content
    ]
    known = {name_of(each) for each in ledger.declared}
    known.update(name_of(each) for change in ledger.changes for each in change.added)
    called = dict.fromkeys(block.name for block in blocks if isinstance(block, ToolCallBlock))
    names = [name for name in called if name not in known]
    if not called and not has_any and any(isinstance(block, ToolResultBlock) for block in blocks):
        return ["tool"]
    return names if not (known or has_any) else []


class Effort:
    """The effort of one request: what the first one named, and the changes behind replies.

    Another effort at the top would miss the cache of all that was sent:
    https://platform.claude.com/docs/en/build-with-claude/effort#change-effort-mid-conversation

    Args:
        request: The request.
        fixed: Its keywords, where the effort is set that the conversation began with.
        able: What the server takes for the model.

    Attributes:
        changes: Each with the number of the reply that it stands behind.
        latest: The change that is new with this request, as it was written.
        noted: What is to be noted of them.
    """

    def __init__(self, request: ProviderRequest, fixed: Arguments, able: Abilities) -> None:
        self.changes: list[Sequence[Any]] = []
        self.latest: list[Param] = []
        self.noted: dict[str, Any] = {}
        self._known = 0
        if able.model is None or not (able.model.family and able.dialect.effort_messages):
            return
        asked = (fixed.get("output_config") or {}).get("effort")
        usual = "medium" if able.model.does(MEDIUM_EFFORT) else "high"
        _set_effort(fixed, self._first(request, asked, usual))

    def _first(self, request: ProviderRequest, asked: str | None, usual: str) -> str | None:
        """Return the effort that the conversation began with, once it is noted how it goes on."""
        start, replies = _first(request.window), _replies(request.window)
        kept = request.notes.get(EFFORT_NOTE)
        if kept is None and asked is None:
            return None
        first: str | None = None if kept is None and replies else asked
        is_new = True
        if kept is not None and kept["start"] == start:
            is_new, first, self.changes = False, kept["first"], list(kept["changes"])
        self._known = len(self.changes)
        current = self.changes[-1][1] if self.changes else first or usual
        if replies and (asked or usual) != current:
            self.changes.append((replies[-1], asked or usual))
        if is_new or len(self.changes) > self._known:
            self.noted = {EFFORT_NOTE: {"start": start, "first": first, "changes": self.changes}}
        return first

    def before_user(self, seq: int) -> Iterable[Param]:
        """Return the changes behind a reply."""
        for number, (after, effort) in enumerate(self.changes):
            if after == seq:
                said: Param = {"role": "system", "content": [], "output_config": {"effort": effort}}
                if number >= self._known:
                    self.latest.append(said)
                yield said


def _set_effort(fixed: Arguments, effort: str | None) -> None:
    config = {k: v for k, v in (fixed.pop("output_config", None) or {}).items() if k != "effort"}
    if effort is not None:
        config["effort"] = effort
    if config:
        fixed["output_config"] = config


def _replies(window: Iterable[SessionMessage]) -> list[int]:
    """Return the numbers of the replies in a window."""
    assistant = MessageRole.ASSISTANT
    return [message.seq for message in window if message.role is assistant and message.seq]
