"""A request from messages: their parts, calls with answers, speakers in turn.

It grows as the log does. What was said up to a reply is normalized as it was for that reply,
and no later message changes it: a provider compares the beginning of a request with those before
(https://platform.claude.com/docs/en/build-with-claude/preserved-thinking,
https://developers.openai.com/api/docs/guides/prompt-caching).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from langswarm_session.models import MessageRole, SessionMessage
from langswarm_session.requests.normalize.pairing import Pairing
from langswarm_session.requests.normalize.parts import Parts
from langswarm_session.requests.normalize.repairs import Repair, Report
from langswarm_session.requests.normalize.speakers import Speakers
from langswarm_session.requests.normalize.target import Target

_ASSISTANT, _SYSTEM = MessageRole.ASSISTANT, MessageRole.SYSTEM


def request_of(
    messages: Iterable[SessionMessage], target: Target, open_calls: Sequence[str] | None
) -> tuple[list[SessionMessage], list[Repair]]:
    """See `langswarm_session.requests.normalize.normalize`."""
    report = Report()
    parts = Parts(target, report)
    pairing = Pairing(target, report, parts, open_calls)
    speakers = Speakers(target, report, goes_on=open_calls is not None)
    # What goes on from a conversation that the provider holds was in no request before.
    parts_of_log = exchanges(messages) if open_calls is None else [list(messages)]
    for exchange in parts_of_log:
        for message in pairing.paired([parts.entry(message) for message in exchange]):
            speakers.add(message)
        speakers.hand_over()
    return speakers.said(), report.repairs


def exchanges(messages: Iterable[SessionMessage]) -> Iterator[list[SessionMessage]]:
    """Yield the log in parts, each of them ending where a reply was asked for, or with the log.

    A part begins with the assistant's messages, but for the first. There is at least one.
    """
    part: list[SessionMessage] = []
    is_asked = False
    for message in messages:
        if message.role is _ASSISTANT and is_asked:
            yield part
            part, is_asked = [], False
        part.append(message)
        is_asked = is_asked or message.role not in (_ASSISTANT, _SYSTEM)
    yield part
