from __future__ import annotations

import os
import time
from datetime import UTC, datetime

import pytest

from langswarm_session import SessionMessage
from langswarm_session._display import message_html, rich_turn, to_seconds, turn_html
from langswarm_session.cli.describe import local_time, transcript
from langswarm_session.models import Turn, TurnStatus

FORGED = "x\n\nassistant  #2\u202e"


def test_no_name_model_or_error_makes_a_line_of_its_own():
    moment = datetime(2026, 11, 30, tzinfo=UTC)
    message = SessionMessage(
        role="user", content="hi", name=FORGED, model=FORGED, finish_reason=FORGED, seq=1
    )
    turn = Turn(
        id=1,
        session_id="s",
        status=TurnStatus.FAILED,
        first_seq=1,
        last_seq=1,
        started_at=moment,
        finished_at=moment,
        error=FORGED,
    )
    shown = "".join(part.plain for part in transcript([message], [turn]))
    assert [line for line in shown.splitlines() if line.startswith("assistant")] == []
    for text in (message_html(message), turn_html(turn), rich_turn(turn).plain):
        assert "\n" not in text
        assert "\u202e" not in text


@pytest.fixture(params=["Pacific/Kiritimati", "America/Los_Angeles", "UTC"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.skipif(not hasattr(time, "tzset") or os.name == "nt", reason="needs tzset")
@pytest.mark.parametrize(
    "moment",
    [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)],
    ids=["first", "last"],
)
def test_the_ends_of_the_calendar_can_be_shown(zone: str, moment: datetime):
    year = str(moment.year).zfill(4)
    assert local_time(moment)[:4] in (year, "0001", "9999")
    assert to_seconds(moment).startswith(year)


@pytest.mark.skipif(not hasattr(time, "tzset") or os.name == "nt", reason="needs tzset")
def test_a_time_is_shown_as_the_clock_here_shows_it(zone: str):
    shown = {
        "Pacific/Kiritimati": "2026-12-01 02:00:00",
        "America/Los_Angeles": "2026-11-30 04:00:00",
        "UTC": "2026-11-30 12:00:00",
    }
    assert local_time(datetime(2026, 11, 30, 12, tzinfo=UTC)) == shown[zone]
