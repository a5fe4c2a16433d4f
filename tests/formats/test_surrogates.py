from __future__ import annotations

import pytest

from langswarm_session.formats.surrogates import TextPieces, well_formed, well_formed_data


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x00b", "a\x00b"),
        ("\ud83d\ude00", "\U0001f600"),
        ("a\ud83d", "a\ufffd"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
    ],
)
def test_halves_are_joined_or_replaced(text, expected):
    """https://github.com/anthropics/claude-code/issues/60394."""
    assert well_formed(text) == expected
    data = {text: [1, {"a": text}]}
    assert well_formed_data(data) == {expected: [1, {"a": expected}]}


def test_data_that_is_well_formed_is_the_same():
    data = {"a": ["\U0001f600", None]}
    assert well_formed_data(data) is data


def test_pieces_that_cut_a_character_in_two():
    pieces = TextPieces()
    assert [pieces.passed(each) for each in ("a\ud83d", "", "\ude00b", "\ude00")] == [
        "a", "", "\U0001f600b", "\ufffd"
    ]  # fmt: skip
