"""When work is done on its caller's own thread."""

from __future__ import annotations

from langswarm_session.storage.inline import Contention, LatencyGate


def test_work_is_expected_to_be_quick_after_several_that_were() -> None:
    pace = LatencyGate(limit=0.002)
    assert not pace.is_open
    for _ in range(8):
        assert not pace.is_open
        pace.record(0.0019)
    assert pace.is_open
    pace.record(0.002)
    assert not pace.is_open


def test_others_may_come_until_nobody_has_for_a_while() -> None:
    crowd = Contention()
    for _ in range(64):
        assert crowd.is_likely
        crowd.record(1)
    assert [crowd.is_likely for _ in range(8)] == [False] * 7 + [True]
    crowd.record(1)
    assert not crowd.is_likely


def test_one_that_comes_with_others_makes_all_wait_again() -> None:
    crowd = Contention()
    for _ in range(100):
        crowd.record(1)
    crowd.record(2)
    assert crowd.is_likely
    crowd.record(1)
    assert crowd.is_likely
