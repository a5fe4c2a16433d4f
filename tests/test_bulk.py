from __future__ import annotations

import gc
from contextlib import ExitStack

import pytest
from pydantic import BaseModel, ConfigDict

from langswarm_session import _bulk as bulk
from langswarm_session._bulk import collector_paused, unchecked


class Point(BaseModel):
    model_config = ConfigDict(extra="allow")
    x: int = 0
    tags: list[str] = []


class Strict(BaseModel):
    x: int


class TestUnchecked:
    def test_it_is_what_the_class_makes(self):
        made = unchecked(Point, {"x": 1, "tags": ["a"]}, {"x", "tags"}, {})
        checked = Point(x=1, tags=["a"])
        assert made == checked
        assert repr(made) == repr(checked)
        assert made.model_dump_json(exclude_unset=True) == checked.model_dump_json(
            exclude_unset=True
        )
        assert made.__pydantic_extra__ == checked.__pydantic_extra__
        assert made.__pydantic_private__ == checked.__pydantic_private__
        assert made.model_copy(update={"x": 2}, deep=True).x == 2

    def test_a_class_that_takes_nothing_else(self):
        made, checked = unchecked(Strict, {"x": 1}, {"x"}), Strict(x=1)
        assert made == checked
        assert made.__pydantic_extra__ is checked.__pydantic_extra__ is None

    def test_nothing_is_checked(self):
        assert unchecked(Strict, {"x": "no number"}, {"x"}).x == "no number"


class TestCollectorPaused:
    def test_blocks_may_be_inside_of_each_other(self):
        with collector_paused():
            with collector_paused():
                assert not gc.isenabled()
            assert not gc.isenabled()
        assert gc.isenabled()

    def test_it_goes_on_after_an_error(self):
        with pytest.raises(ValueError, match="x"), collector_paused():
            raise ValueError("x")
        assert gc.isenabled()

    def test_blocks_that_overlap_do_not_keep_it_from_its_work_for_ever(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(bulk, "LONGEST_PAUSE", 0.0)
        first, second = ExitStack(), ExitStack()
        first.enter_context(collector_paused())
        second.enter_context(collector_paused())
        assert not gc.isenabled()
        first.close()
        assert gc.isenabled()
        with collector_paused():
            second.close()
            assert not gc.isenabled()
        assert gc.isenabled()

    def test_one_that_was_switched_off_stays_so(self):
        gc.disable()
        try:
            with collector_paused():
                assert not gc.isenabled()
            assert not gc.isenabled()
        finally:
            gc.enable()
