"""What two sequences have in common, in order, in at most n log n steps.

A longest common subsequence takes quadratic time (`difflib.SequenceMatcher` up to cubic), which a
long log of short messages reaches. This is a patience diff (Bram Cohen's; see
https://bramcohen.livejournal.com/73318.html): what stands once on either side is an anchor, the
longest run of anchors that is in order stays, and what lies between two of them is treated alike.
Where no element is an anchor, two, four or eight in a row may be. Small gaps are solved exactly.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from itertools import pairwise

Pair = tuple[int, int]
"""Places in the one and in the other sequence."""

_CELLS = 65_536
"""Up to this product of their lengths two gaps are compared exactly."""

_WIDTHS = (1, 2, 4, 8)

_DEPTH = 16
"""How often what lies between anchors is divided again."""


def common(one: Sequence[Hashable], other: Sequence[Hashable]) -> list[Pair]:
    """Return the places of equal elements, rising in both sequences."""
    found: list[Pair] = []
    gaps = [(0, len(one), 0, len(other), 0)]
    while gaps:
        i, j, k, n, depth = gaps.pop()
        while i < j and k < n and one[i] == other[k]:
            found.append((i, k))
            i, k = i + 1, k + 1
        while i < j and k < n and one[j - 1] == other[n - 1]:
            j, n = j - 1, n - 1
            found.append((j, n))
        if i == j or k == n:
            continue
        if (j - i) * (n - k) <= _CELLS:
            found += [(i + a, k + b) for a, b in _exact(one[i:j], other[k:n])]
            continue
        anchors = [(i + a, k + b) for a, b in _anchors(one[i:j], other[k:n])]
        found += anchors
        if depth < _DEPTH:
            bounds = [(i - 1, k - 1), *anchors, (j, n)]
            gaps += [(a + 1, c, b + 1, d, depth + 1) for (a, b), (c, d) in pairwise(bounds)]
    return sorted(found)


def _anchors(one: Sequence[Hashable], other: Sequence[Hashable]) -> list[Pair]:
    """Return pairs in order: of what stands once on either side, or else of equal occurrences."""
    for width in _WIDTHS:
        pairs = _single(_runs(one, width), _runs(other, width))
        if pairs:
            return _rising(pairs)
    forward = _rising(list(_occurrences(one, other)))
    backward = _occurrences(one[::-1], other[::-1])
    turned = _rising([(len(one) - 1 - a, len(other) - 1 - b) for a, b in backward][::-1])
    return max(forward, turned, key=len)


def _runs(elements: Sequence[Hashable], width: int) -> Sequence[Hashable]:
    """Return the runs of so many elements, each at the place of its first one."""
    if width == 1:
        return elements
    return list(zip(*(elements[start:] for start in range(width)), strict=False))


def _single(one: Sequence[Hashable], other: Sequence[Hashable]) -> list[Pair]:
    """Return the places of what stands once in both."""
    places = _once(other)
    return sorted((a, places[each]) for each, a in _once(one).items() if each in places)


def _once(elements: Sequence[Hashable]) -> dict[Hashable, int]:
    """Return the places of the elements that stand once."""
    counts = Counter(elements)
    return {each: place for place, each in enumerate(elements) if counts[each] == 1}


def _occurrences(one: Sequence[Hashable], other: Sequence[Hashable]) -> Iterator[Pair]:
    """Pair the first with the first of equal elements, the second with the second..."""
    places: dict[Hashable, list[int]] = defaultdict(list)
    for place in range(len(other) - 1, -1, -1):
        places[other[place]].append(place)
    for place, element in enumerate(one):
        if places.get(element):
            yield place, places[element].pop()


def _rising(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the longest run of pairs, sorted by their first place, that rises in the second."""
    ends: list[int] = []  # of the runs of each length, the smallest last place
    at: list[int] = []
    before: list[int | None] = []
    for number, (_, place) in enumerate(pairs):
        length = bisect_left(ends, place)
        before.append(at[length - 1] if length else None)
        ends[length : length + 1] = [place]
        at[length : length + 1] = [number]
    run: list[Pair] = []
    number_or_none = at[-1] if at else None
    while number_or_none is not None:
        run.append(pairs[number_or_none])
        number_or_none = before[number_or_none]
    return run[::-1]


def _exact(one: Sequence[Hashable], other: Sequence[Hashable]) -> Iterator[Pair]:
    """Yield a longest common subsequence."""
    longest = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for a in range(len(one) - 1, -1, -1):
        row, below = longest[a], longest[a + 1]
        for b in range(len(other) - 1, -1, -1):
            same = one[a] == other[b]
            row[b] = below[b + 1] + 1 if same else max(below[b], row[b + 1])
    a = b = 0
    while a < len(one) and b < len(other):
        if one[a] == other[b]:
            yield a, b
            a, b = a + 1, b + 1
        elif longest[a + 1][b] >= longest[a][b + 1]:
            a += 1
        else:
            b += 1
