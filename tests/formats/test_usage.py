from __future__ import annotations

import pytest

from langswarm_session.formats.usage import token_count


@pytest.mark.parametrize(
    ("value", "count"),
    [(7, 7), (7.9, 7), (-1, 0), (float("nan"), 0), (10**400, 2**40), (None, 0), ("7", 0), ([], 0)],
)
def test_a_count_is_a_number_that_can_be_stored(value, count):
    assert token_count(value) == count
