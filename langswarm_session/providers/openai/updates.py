"""Changed tools and settings as items of the input, so that requests begin as those before did.

OpenAI renders tools, effort and output format before everything else; changed there, nothing that
follows is found in the cache, and reasoning of newer models is dropped. Instead each change stays
where it was made:
https://developers.openai.com/api/docs/guides/keep-prefix-unchanged
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langswarm_session.formats.openai_items import Item
from langswarm_session.records import ProviderRequest
from langswarm_session.requests.tool_changes import Definition, ToolLedger, name_of
from langswarm_session.requests.window import is_lasting

SETTINGS = "settings"
"""The key of the provider's notes for effort and output format."""

Settings = dict[str, Any]
"""What a ``configuration_update`` can set: ``reasoning.effort`` and ``text.format``."""


@dataclass(frozen=True, slots=True)
class Updates:
    """What a conversation's requests began with, and what changed since.

    Attributes:
        tools: The tools that are declared: those of the first request, in their order.
        settings: The settings of the first request.
        items: What changed: behind which message, by its number, and the item that says so.
        removed: Whether some of the tools may not be called any more.
        offered: The tools that may be called.
        notes: What to note for the next request; None if that is as it was.
    """

    tools: tuple[Definition, ...] = ()
    settings: Settings | None = None
    items: tuple[tuple[int, Item], ...] = ()
    removed: bool = False
    offered: tuple[Definition, ...] = ()
    notes: Mapping[str, Any] | None = None

    def between(self, first: int, last: int) -> Updates:
        """Return those that stand behind one of some messages."""
        return replace(self, items=tuple(u for u in self.items if first <= u[0] <= last))

    def due(self, done: int, seq: int | None) -> Iterator[Item]:
        """Yield what belongs before a reply.

        Args:
            done: How many there were before.
            seq: The reply's number; None for the reply that is asked for.
        """
        for after, item in self.items[done:]:
            if seq is not None and after >= seq:
                return
            yield item


def updates_of(request: ProviderRequest, tools: Sequence[Definition]) -> Updates:
    """Return what changed up to a request.

    Args:
        request: The request.
        tools: The tools that its caller offers.
    """
    places = [m.seq for m in request.window if m.seq is not None and not is_lasting(m)]
    start, newest = (places[0], places[-1]) if places else (0, 0)
    ledger = _ledger(request, tools, start, newest)
    known = {name_of(tool): tool for tool in ledger.declared}
    items: list[tuple[int, Item]] = []
    for change in ledger.changes:
        added = [dict(tool) for tool in change.added if name_of(tool) not in known]
        known.update((name_of(tool), tool) for tool in added)
        if added:
            item = {"type": "additional_tools", "role": "developer", "tools": added}
            items.append((change.after, item))
    base, changes = _settings(request, start, newest)
    items += [(after, {"type": "configuration_update", **change}) for after, change in changes]
    notes = {
        **(ledger.to_notes() if known else {}),
        **({SETTINGS: {"start": start, "base": base, "changes": changes}} if base else {}),
    }
    merged = {**request.notes, **notes}
    return Updates(
        tools=ledger.declared,
        settings=base,
        items=tuple(sorted(items, key=lambda update: update[0])),
        removed=len(ledger.offered) < len(known),
        offered=tuple(ledger.offered.values()),
        notes=merged if merged != request.notes else None,
    )


def _ledger(
    request: ProviderRequest, tools: Sequence[Definition], start: int, newest: int
) -> ToolLedger:
    """Return the tools that were declared with how they changed.

    A tool that is defined otherwise under its name cannot be added: then all are declared again.
    """
    fresh = ToolLedger(start, tuple(tools))
    ledger = ToolLedger.from_notes(request.notes, start)
    if ledger is None:
        return fresh
    known = {name_of(tool): tool for tool in ledger.declared}
    for change in ledger.changes:
        known.update((name_of(tool), tool) for tool in change.added)
    if any(known.get(name_of(tool), tool) != tool for tool in tools):
        return fresh
    return ledger.with_tools(tools, newest)


def _settings(
    request: ProviderRequest, start: int, newest: int
) -> tuple[Settings | None, list[list[Any]]]:
    """Return the settings of the first request, and what changed: behind which message, to what.

    What a caller leaves out is the vendor's default, which no update names: so leaving out what
    was set before, or setting what was left out, begins again.
    """
    wanted = settings_of(request.options)
    kept = request.notes.get(SETTINGS)
    if not isinstance(kept, Mapping) or kept.get("start") != start:
        return wanted or None, []
    base, changes = dict(kept["base"]), [list(change) for change in kept["changes"]]
    current = base
    for _, change in changes:
        current = {**current, **change}
    if current.keys() != wanted.keys():
        return wanted or None, []
    changed = {name: value for name, value in wanted.items() if current[name] != value}
    return base, [*changes, [newest, changed]] if changed else changes


def settings_of(options: Mapping[str, Any]) -> Settings:
    """Return those of a caller's options that can be updated."""
    settings: Settings = {}
    for name, key in (("reasoning", "effort"), ("text", "format")):
        given = options.get(name)
        if isinstance(given, Mapping) and given.get(key) is not None:
            settings[name] = {key: given[key]}
    return settings


def allowed(updates: Updates, choice: object) -> object:
    """Return the ``tool_choice`` that keeps a model from calling what is not offered any more.

    Args:
        updates: What changed.
        choice: The caller's; None for none.
    """
    if not updates.removed or not (choice is None or choice in ("auto", "required")):
        return choice
    if not updates.offered:
        return "none"
    tools = [_reference(tool) for tool in updates.offered]
    return {"type": "allowed_tools", "mode": choice or "auto", "tools": tools}


def _reference(tool: Definition) -> Item:
    """Return what names a tool: https://developers.openai.com/api/docs/guides/function-calling"""
    named = ("type", "name", "server_label")
    return {field: tool[field] for field in named if field in tool}
