from __future__ import annotations

import json

import pytest

from langswarm_session.formats.arguments import RAW, call_of
from langswarm_session.formats.nesting import MAX_NESTING, nests_too_deeply


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize("around", ["", "[" * 30])
def test_the_limit(around: str):
    end = "]" * len(around)
    assert not nests_too_deeply(f"{around}{nested(MAX_NESTING - len(around))}{end}".encode())
    assert nests_too_deeply(f"{around}{nested(MAX_NESTING + 1 - len(around))}{end}".encode())


def test_many_brackets_are_not_deep():
    assert not nests_too_deeply(json.dumps([[{}]] * 1_000).encode())


def test_text_that_is_no_json_is_refused():
    with pytest.raises(ValueError, match="expected"):
        nests_too_deeply(b"[" * 151 + b"x")


def test_arguments_that_are_too_deep_are_kept_as_text():
    assert call_of("c", "f", nested(MAX_NESTING)).args != {}
    too_deep = call_of("c", "f", nested(MAX_NESTING + 1))
    assert (too_deep.args, too_deep.extras) == ({}, {RAW: nested(MAX_NESTING + 1)})
