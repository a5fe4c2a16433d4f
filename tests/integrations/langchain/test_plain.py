"""Python values as JSON values, and back."""

from __future__ import annotations

import datetime
import enum
import json
import math
from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_langswarm.plain import decode, encode
from pydantic import BaseModel

from langswarm_session import InvalidInputError
from langswarm_session.testing.strategies import texts


class Colour(enum.StrEnum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 3


class Point(NamedTuple):
    x: int
    y: int


class Model(BaseModel):
    size: int = 1


keys = texts() | st.integers() | st.booleans() | st.none() | st.binary(max_size=4)
scalars = keys | st.floats(allow_nan=False)
documents = st.builds(
    Document, page_content=texts(), id=st.none() | texts(), metadata=st.dictionaries(texts(), keys)
)
values = st.recursive(
    scalars | documents,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys | st.tuples(keys, keys), inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$dict", "$tuple", "$bytes", "$document", "$", "a"]), inner, max_size=2
        )
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(values)
def test_any_value_comes_back_the_same_through_json(value: Any) -> None:
    back = decode(json.loads(json.dumps(encode(value))))
    assert back == value
    assert repr(back) == repr(value), "1, 1.0 and True are equal, but not the same"


@pytest.mark.parametrize("value", [None, True, 0, -(10**40), -0.0, math.inf, "", "\0", [], {}])
def test_what_json_has_is_left_as_it_is(value: Any) -> None:
    assert repr(encode(value)) == repr(value)
    assert repr(decode(value)) == repr(value)


@pytest.mark.parametrize(
    "look_alike",
    [{"$tuple": 5}, {"$bytes": None}, {"$dict": [1]}, {"$document": "x"}, {"$tuple": [], "a": 1}],
    ids=str,
)
def test_a_dict_that_looks_like_our_own_notation_comes_back(look_alike: Any) -> None:
    assert decode(encode(look_alike)) == look_alike
    assert decode(encode([{"deep": look_alike}])) == [{"deep": look_alike}]


def test_what_was_encoded_twice_is_decoded_twice() -> None:
    value = {"a": (1, b"2")}
    assert decode(decode(encode(encode(value)))) == value


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        bytearray(b"x"),
        1j,
        datetime.datetime.now(datetime.UTC),
        ValueError("x"),
        print,
        type("Moody", (str,), {"__eq__": lambda *_: False, "__hash__": str.__hash__})("x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_could_not_be_given_back_is_refused(value: Any) -> None:
    for holder in (value, [value], (value,), {"key": value}, {1: value}):
        with pytest.raises(InvalidInputError, match=type(value).__qualname__):
            encode(holder)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (HumanMessage("x").text, "x"),
        (Colour.RED, "red"),
        (Size.BIG, 3),
        (type("Real", (float,), {})(1.5), 1.5),
        (OrderedDict(a=(Colour.RED,)), {"a": ("red",)}),
        (Point(1, 2), (1, 2)),
        (type("Listed", (list,), {})([1]), [1]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_of_a_subclass_the_equal_plain_value_is_kept(value: Any, plain: Any) -> None:
    back = decode(json.loads(json.dumps(encode(value))))
    assert back == value
    assert repr(back) == repr(plain)


def test_a_refusal_says_what_can_be_stored() -> None:
    with pytest.raises(InvalidInputError, match=r"builtins\.set .*JSON values.*tuples, bytes"):
        encode(set())


class Inner(BaseModel):
    when: datetime.date
    size: tuple[int, int] = (1, 2)


class Outer(BaseModel):
    inner: Inner
    more: dict[str, Any] = {}


def test_of_a_pydantic_object_the_data_is_kept() -> None:
    value = Outer(inner=Inner(when=datetime.date(2026, 1, 2)), more={"a": None})
    data = {"inner": {"when": "2026-01-02", "size": [1, 2]}, "more": {"a": None}}
    assert decode(json.loads(json.dumps(encode({"parsed": [value]})))) == {"parsed": [data]}
    assert encode(Model()) == Model().model_dump()


def test_a_pydantic_object_that_is_not_json_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="Outer"):
        encode(Outer(inner=Inner(when=datetime.date(2026, 1, 2)), more={"a": object()}))


def test_of_another_kind_of_document_the_data_is_kept() -> None:
    document = type("Subclass", (Document,), {})(page_content="x")
    assert decode(encode(document)) == document.model_dump(mode="json")
