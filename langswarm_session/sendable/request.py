"""A request from messages, in three steps: their parts, calls with results, speakers in turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from langswarm_session.models import SessionMessage
from langswarm_session.sendable.entries import Call, Entry, Exchange, with_blocks
from langswarm_session.sendable.pairing import Pairing
from langswarm_session.sendable.parts import Parts
from langswarm_session.sendable.repairs import Repair, RepairKind, Report
from langswarm_session.sendable.speakers import with_users
from langswarm_session.sendable.target import Target


def request_of(
    messages: Iterable[SessionMessage], target: Target, open_calls: Sequence[str] | None
) -> tuple[list[SessionMessage], list[Repair]]:
    """See `langswarm_session.sendable.make_sendable`."""
    report = Report()
    parts = Parts(target, report)
    pairing = Pairing(target, report, parts)
    entries = [parts.entry(message) for message in messages]
    before = Exchange()
    before.calls += [Call(call, "", before) for call in open_calls or ()]
    pairing.pair(entries, before)
    sent = pairing.results(before)
    for entry in entries:
        sent += _message(entry, target, report)
        if entry.exchange is not None:
            sent += pairing.results(entry.exchange)
    if target.strict or not sent:
        sent = with_users(sent, target, report, goes_on=open_calls is not None)
    return sent, report.repairs


def _message(entry: Entry, target: Target, report: Report) -> list[SessionMessage]:
    """What is sent of a message beside its results, if anything."""
    if entry.blocks:
        return [with_blocks(entry.message, entry.role, entry.blocks)]
    if entry.results:
        return []
    if not target.strict:
        return [entry.message]
    report.add(RepairKind.MESSAGE_DROPPED, entry.message, "nothing in it can be sent")
    return []
