"""The ids and names of calls, as a provider takes them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256

from langswarm_session.blocks import ToolCallBlock
from langswarm_session.models import SessionMessage
from langswarm_session.requests.normalize.repairs import RepairKind, Report
from langswarm_session.requests.normalize.target import Target

_ODD = re.compile(r"[^A-Za-z0-9_-]")


class CallNames:
    """Gives each call of one request an id of its own, and a name, that can be sent.

    Args:
        target: What the provider accepts.
        report: Told of what is changed.
    """

    def __init__(self, target: Target, report: Report) -> None:
        self._target = target
        self._report = report
        self._ids: set[str] = set()

    def are_taken(self, ids: Iterable[str]) -> None:
        """Note that the provider has calls with these ids already."""
        self._ids.update(ids)

    def free_id(self, block: ToolCallBlock, message: SessionMessage) -> str:
        """Return an id that no other call of the request has: its own, where it can be sent."""
        if block.id and not self._target.strict:
            call_id = block.id
        elif self._target.call_id_exact is not None:
            call_id = self._exact(block.id or f"call_{message.id}", self._target.call_id_exact)
        else:
            call_id = self._unused(self._sayable(block, message))
        self._ids.add(call_id)
        if call_id != block.id:
            was = repr(block.id[:80]) if block.id else "none"
            self._report.add(RepairKind.ID_CHANGED, message, f"{was} to {call_id!r}")
        return call_id

    def _sayable(self, block: ToolCallBlock, message: SessionMessage) -> str:
        target = self._target
        wanted = block.id or f"call_{message.id}"
        is_own = (message.provider, message.model) == (target.provider, target.model)
        if not block.id or not (target.any_call_id or (target.keeps_call_ids and is_own)):
            wanted = _ODD.sub("_", wanted)
        return wanted[: self._target.call_id_length]

    def _exact(self, wanted: str, length: int) -> str:
        """Return an id of a given length, always the same for the same call."""
        if len(wanted) == length and wanted.isascii() and wanted.isalnum():
            call_id = wanted
        else:
            call_id = _digest(wanted, length)
        number = 1
        while call_id in self._ids:
            number += 1
            call_id = _digest(f"{wanted} {number}", length)
        return call_id

    def _unused(self, stem: str) -> str:
        call_id, number = stem, 1
        while call_id in self._ids:
            number += 1
            room = self._target.call_id_length - len(str(number)) - 1
            call_id = f"{stem[:room]}_{number}"
        return call_id

    def good_name(self, block: ToolCallBlock, message: SessionMessage) -> str:
        """Return the tool's name, with nothing in it that a provider refuses."""
        if not self._target.strict:
            return block.name
        name = _ODD.sub("_", block.name)[:64] or "tool"
        if name != block.name:
            self._report.add(RepairKind.NAME_CHANGED, message, f"{block.name[:80]!r} to {name!r}")
        return name


def _digest(text: str, length: int) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
