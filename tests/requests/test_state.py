from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langswarm_session import SessionContext
from langswarm_session.records import PrefixChangeReason
from langswarm_session.requests.state import RequestState

numbers = st.integers(0, 99)
states = st.builds(
    RequestState,
    start=numbers,
    max_messages=numbers,
    max_input_tokens=st.none() | st.integers(1, 99),
    summary=numbers,
    compactions=st.dictionaries(st.sampled_from("ab"), st.integers(1, 99)),
    reasoning_after=numbers,
    notes=st.dictionaries(st.sampled_from("ab"), st.just({"tools": ["x"]})),
)


def context_of(**values: Any) -> SessionContext:
    return SessionContext(session_id="s", user_id="u", provider="p", model="m", **values)


def summary(last_seq: int) -> dict[str, Any]:
    return {"text": "so far", "last_seq": last_seq}


@given(states)
def test_it_comes_back_from_a_context(state: RequestState) -> None:
    assert RequestState.of(context_of(request_state=state.to_context())) == state


def test_nothing_is_stored_of_nothing() -> None:
    assert RequestState().to_context() == {}
    assert RequestState(start=5, max_messages=9).started_at(0, context_of()).to_context() == {}


@pytest.mark.parametrize(
    ("state", "values", "start", "reason"),
    [
        ({"start": 7, "max_messages": 9}, {"max_messages": 9}, 7, None),
        ({"start": 7, "max_messages": 9}, {"max_messages": 5}, 7, None),
        ({"start": 7, "max_messages": 9}, {"max_messages": 10}, 0, "limits"),
        ({"start": 7, "max_messages": 9, "max_input_tokens": 5},
         {"max_messages": 9, "max_input_tokens": 5}, 7, None),
        ({"start": 7, "max_messages": 9, "max_input_tokens": 5}, {"max_messages": 9}, 0, "limits"),
        ({"start": 7, "max_messages": 9}, {"max_messages": 9, "max_input_tokens": 5}, 7, None),
        ({}, {"summary": summary(4)}, 5, "summary"),
        ({"start": 5, "max_messages": 200, "summary": 4}, {"summary": summary(4)}, 5, None),
        ({"start": 9, "max_messages": 200, "summary": 4}, {"summary": summary(6)}, 9, "summary"),
        ({"start": 5, "max_messages": 200, "summary": 4}, {}, 0, "summary"),
        ({"start": 5, "max_messages": 200, "summary": 4}, {"summary": summary(2)}, 3, "summary"),
        ({"start": 9, "max_messages": 5, "summary": 4}, {"summary": summary(4)}, 5, "limits"),
    ],
)  # fmt: skip
def test_what_is_left_out_stays_out_until_a_limit_or_a_summary_changes(
    state: dict[str, Any], values: dict[str, Any], start: int, reason: str | None
) -> None:
    after, why = RequestState(**state).under(context_of(**values))
    assert (after.start, why) == (start, reason)
    assert after.under(context_of(**values)) == (after, None), "it is reported once"


def test_a_copy_has_what_is_about_its_messages() -> None:
    changes = [
        {"after": 7, "added": [], "removed": ["x"]},
        {"after": 10, "added": [], "removed": []},
    ]
    notes = {
        "tools": {"start": 5, "declared": [], "changes": changes},
        "effort": {"start": 5, "first": None, "changes": [[8, "low"], [12, "high"]]},
        "compaction": {"block": {}, "through": 11},
    }
    state = RequestState(
        start=5, max_messages=9, compactions={"a": 8, "b": 20}, notes={"a": {"x": 1, **notes}}
    )
    assert state.up_to(None) == state
    copy = state.up_to(10)
    assert copy.start == 5
    assert copy.compactions == {"a": 8}
    assert copy.notes == {
        "a": {
            "x": 1,
            "tools": {"start": 5, "declared": [], "changes": changes[:1]},
            "effort": {"start": 5, "first": None, "changes": [[8, "low"]]},
        }
    }
    assert state.up_to(4) == RequestState()


def test_what_was_not_reported_is_kept() -> None:
    state = RequestState(untold=PrefixChangeReason.WINDOW)
    stored = state.to_context()
    assert stored == {"untold": "window"}
    assert RequestState.of(context_of(request_state=stored)) == state
