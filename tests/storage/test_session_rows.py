from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langswarm_session import StorageCorruptError, TurnStatus
from langswarm_session.records import SessionRecord
from langswarm_session.storage import rules
from langswarm_session.storage.session_rows import (
    NoteRow,
    decode_moment,
    decode_names,
    decode_note,
    decode_numbers,
    decode_record,
)
from langswarm_session.testing.making import new_session

RECORD = rules.new_record(new_session("s"), "{}", 1)._replace(
    provider_state="{}",
    last_seq=3,
    turn_id=2,
    turn_token="token",
    turn_owner="owner",
    turn_expires=5,
)
ANYTHING = st.one_of(
    st.none(), st.integers(), st.floats(), st.text(), st.binary(), st.booleans(), st.just([])
)


def test_a_right_row_comes_back() -> None:
    assert decode_record(list(RECORD)) == RECORD
    ended = RECORD._replace(turn_token=None, turn_owner=None, turn_expires=None)
    assert decode_record(ended) == ended


@given(st.sampled_from(SessionRecord._fields), ANYTHING)
def test_whatever_a_field_holds_it_has_its_type_or_is_damage(name: str, value: Any) -> None:
    row = RECORD._replace(**{name: value})
    try:
        record = decode_record(row)
    except StorageCorruptError:
        return
    assert type(value) in (type(getattr(RECORD, name)), type(None))
    assert record == row
    record.to_metrics()


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "evil"},
        {"backend": "evil"},
        {"user_id": ""},
        {"session_id": ""},
        {"last_seq": -1},
        {"errors": 2**63 - 1},
        {"turn_id": None},
        {"turn_id": 4},
        {"turn_id": 0},
        {"created_at": 2**62},
        {"last_activity": -(2**62)},
    ],
)
def test_what_no_storage_puts_there(changes: dict[str, Any]) -> None:
    with pytest.raises(StorageCorruptError, match="restore a copy"):
        decode_record(RECORD._replace(**changes))


@pytest.mark.parametrize("row", [(), tuple(RECORD)[:-1], (*RECORD, None)])
def test_another_number_of_fields(row: tuple[Any, ...]) -> None:
    with pytest.raises(StorageCorruptError):
        decode_record(row)


@pytest.mark.parametrize("answered", [True, 1])
def test_a_right_note_comes_back(answered: int) -> None:
    row = (3, "failed", answered, "key", None, "error", 7)
    assert decode_note(row) == NoteRow(3, TurnStatus.FAILED, True, "key", None, "error", 7)


@given(st.integers(0, 6), ANYTHING)
def test_whatever_a_note_holds_it_has_its_type_or_is_damage(place: int, value: Any) -> None:
    row: list[Any] = [3, "failed", True, "key", "digest", "error", 7]
    row[place] = value
    try:
        note = decode_note(row)
    except StorageCorruptError:
        return
    assert [type(each) for each in note if each is not None] in (
        [int, TurnStatus, bool, str, str, str, int],
        [int, TurnStatus, bool, str, str, int],
        [int, TurnStatus, bool, str, str, str],
    )


@pytest.mark.parametrize("value", [2**62, "1", 1.0, None, True])
def test_what_is_no_moment(value: object) -> None:
    with pytest.raises(StorageCorruptError):
        decode_moment(value)


@pytest.mark.parametrize("row", [(1, "2"), (1, None), (1, 2.0), (1, True)])
def test_what_is_no_row_of_numbers(row: tuple[object, ...]) -> None:
    assert decode_numbers((1, 2)) == (1, 2)
    with pytest.raises(StorageCorruptError):
        decode_numbers(row)


@pytest.mark.parametrize("row", [("a", 1), ("a", None), ("a", b"b")])
def test_what_is_no_row_of_names(row: tuple[object, ...]) -> None:
    assert decode_names(("a", "b")) == ("a", "b")
    with pytest.raises(StorageCorruptError):
        decode_names(row)
