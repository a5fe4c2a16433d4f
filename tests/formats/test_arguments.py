from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from langswarm_session import ToolCallBlock
from langswarm_session.formats.arguments import object_of_arguments, text_of_arguments

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def test_numbers_that_are_none_in_json_are_null():
    call = ToolCallBlock(id="1", name="look", args={"a": math.nan, "b": [math.inf, 1.5]})
    assert object_of_arguments(call) == {"a": None, "b": [None, 1.5]}


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=3))
def test_the_object_is_the_text(args):
    call = ToolCallBlock(id="1", name="look", args=args)
    sent = json.dumps(object_of_arguments(call), allow_nan=False)
    assert json.loads(sent) == json.loads(text_of_arguments(call))
