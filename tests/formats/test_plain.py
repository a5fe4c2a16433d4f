"""What a format's messages may hold, as JSON values, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langswarm_session import InvalidInputError
from langswarm_session.formats.plain import Kind, PlainValues
from langswarm_session.testing.strategies import texts


@dataclass(frozen=True)
class Place:
    name: str
    at: tuple[int, int]
    near: Any = None


PLACE = Kind(
    "$place",
    lambda value: type(value) is Place,
    lambda place: [place.name, place.at, place.near],
    lambda parts: Place(*parts),
)


def data_of(value: Any) -> Any:
    return {"decimal": str(value)} if isinstance(value, Decimal) else NotImplemented


VALUES = PlainValues([PLACE], data_of, takes="tuples, bytes or places")
EMPTY = PlainValues([], data_of, takes="tuples or bytes")

keys = texts() | st.integers() | st.booleans() | st.none() | st.binary(max_size=4)
scalars = keys | st.floats(allow_nan=False)
places = st.builds(Place, texts(), st.tuples(st.integers(), st.integers()), scalars)
values = st.recursive(
    scalars | places,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys | st.tuples(keys, keys), inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$dict", "$tuple", "$bytes", "$place", "$other", "$", "a"]),
            inner,
            max_size=2,
        )
        | st.builds(Place, texts(), st.tuples(st.integers(), st.integers()), inner)
    ),
    max_leaves=8,
)


@given(values)
def test_any_value_comes_back_the_same_through_json(value: Any) -> None:
    back = VALUES.decode(json.loads(json.dumps(VALUES.encode(value))))
    assert back == value
    assert repr(back) == repr(value), "1, 1.0 and True are equal, but not the same"


def test_of_other_objects_the_data_comes_back() -> None:
    assert VALUES.decode(VALUES.encode({"price": Decimal("1.50")})) == {
        "price": {"decimal": "1.50"}
    }


def test_what_has_nothing_to_be_kept_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError) as caught:
        VALUES.encode([{"a": (Fraction(1, 2),)}])
    assert "fractions.Fraction" in str(caught.value)
    assert "tuples, bytes or places" in str(caught.value)


def test_a_class_that_is_not_named_is_not_made() -> None:
    stored = VALUES.encode(Place("Oslo", (1, 2)))
    assert VALUES.decode(stored) == Place("Oslo", (1, 2))
    assert EMPTY.decode(stored) == {"$place": ["Oslo", (1, 2), None]}


@dataclass(frozen=True)
class Coin:
    value: int


def test_a_key_that_would_come_back_as_no_key_is_refused() -> None:
    coins = PlainValues([], lambda coin: {"value": coin.value}, takes="coins")
    for key in (Coin(1), (1, Coin(1))):
        with pytest.raises(InvalidInputError, match="cannot be stored"):
            coins.encode({key: "x"})
    assert coins.decode(coins.encode([Coin(1)])) == [{"value": 1}]
