"""When work is done on its caller's own thread."""

from __future__ import annotations

from langswarm_session.storage.at_once import Crowd, Pace


def test_work_is_expected_to_be_quick_after_several_that_were() -> None:
    pace = Pace(limit=0.002)
    assert not pace.is_quick
    for _ in range(8):
        assert not pace.is_quick
        pace.note(0.0019)
    assert pace.is_quick
    pace.note(0.002)
    assert not pace.is_quick


def test_others_may_come_until_nobody_has_for_a_while() -> None:
    crowd = Crowd()
    for _ in range(64):
        assert crowd.may_come
        crowd.note(1)
    assert [crowd.may_come for _ in range(8)] == [False] * 7 + [True]
    crowd.note(1)
    assert not crowd.may_come


def test_one_that_comes_with_others_makes_all_wait_again() -> None:
    crowd = Crowd()
    for _ in range(100):
        crowd.note(1)
    crowd.note(2)
    assert crowd.may_come
    crowd.note(1)
    assert crowd.may_come
