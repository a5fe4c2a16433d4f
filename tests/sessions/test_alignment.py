from __future__ import annotations

import random
import subprocess
import sys
from difflib import SequenceMatcher
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langswarm_session.sessions import alignment
from langswarm_session.sessions.alignment import common

words = st.lists(st.sampled_from("abcde"), max_size=30)


def is_common(one, other, pairs) -> bool:
    rises = all(a < c and b < d for (a, b), (c, d) in pairwise(pairs))
    return rises and all(one[a] == other[b] for a, b in pairs)


@given(words, words)
def test_pairs_are_equal_and_rise(one, other):
    pairs = common(one, other)
    assert is_common(one, other, pairs)
    # Gaps of this size are solved exactly.
    blocks = SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    assert len(pairs) >= sum(block.size for block in blocks)


@given(one=words, other=words)
def test_so_they_do_where_gaps_are_divided(one, other):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment, "_CELLS", 4)
        assert is_common(one, other, common(one, other))


@pytest.mark.parametrize("seed", range(5))
def test_what_was_added_and_removed_is_found_in_a_long_log(seed):
    generator = random.Random(seed)
    one = [generator.choice(["ok", "yes", f"text {n}"]) for n in range(3_000)]
    removed = set(generator.sample(range(3_000), 100))
    other = [each for place, each in enumerate(one) if place not in removed]
    for n in range(100):
        other.insert(generator.randrange(len(other)), f"new {n}")
    assert len(common(one, other)) == 2_900


LOGS = """
from langswarm_session.sessions.alignment import common
n = 60_000
ok = [["ok" if i % 3 else f"{name}{i}" for i in range(n)] for name in "xy"]
halves = [i // 2 for i in range(n)]
for one, other in (
    ok, (["a"] * n, ["a"] * (n - 7) + ["b"]), (list(range(n)), list(range(n))[::-1]),
    (halves, halves[::-1]), ([i % 7 for i in range(n)], [(i * i) % 7 for i in range(n)]),
    ([i & i >> 3 & 1 for i in range(n)], [i & i >> 5 & 1 for i in range(n)]),
):
    common(one, other)
"""


def test_no_logs_take_quadratic_time():
    """Seconds for all of these; what was there before took hours for the first one."""
    subprocess.run([sys.executable, "-c", LOGS], check=True, timeout=100)
