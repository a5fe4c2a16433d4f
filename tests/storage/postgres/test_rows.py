from __future__ import annotations

import postgres_server  # noqa: F401 - skips the module without the driver
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langswarm_session import InvalidInputError, SessionMessage
from langswarm_session._sync import yielding
from langswarm_session.models import MessageRole
from langswarm_session.records import SessionRecord
from langswarm_session.storage.postgres.rows import (
    decode_long,
    encode,
    from_text,
    maybe_text,
    to_id,
    to_record,
    to_row,
    to_text,
)
from langswarm_session.storage.rows import decode_message
from langswarm_session.testing import strategies

names = strategies.texts() | st.text("\0\x0101a", max_size=8)


@given(names)
def test_any_name_comes_back(text: str) -> None:
    column = to_text(text)
    assert "\0" not in column
    assert from_text(column) == text


@given(names, names)
def test_two_names_are_never_one(one: str, other: str) -> None:
    assert (to_text(one) == to_text(other)) == (one == other)
    assert (to_id(one) == to_id(other)) == (one == other)


@pytest.mark.parametrize("text", ["plain", "\u00fc \U0001f600", "1", "'\"\\"])
def test_most_names_are_left_as_they_are(text: str) -> None:
    assert to_text(text) == text


def test_what_is_not_there_stays_away() -> None:
    assert maybe_text(None) is None
    assert maybe_text("\0") == "\x010"


@pytest.mark.parametrize("text", ["\ud800", "a\0\udfff"])
def test_half_a_character_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        to_text(text)


@given(strategies.messages())
def test_any_message_comes_back(message: SessionMessage) -> None:
    role, content, timestamp, message_id, extra = encode(message)
    assert "\0" not in (content or "") + (extra or "")
    assert len(message_id) in (16, 32)
    row = (3, role, content, timestamp, message_id, 2, extra)
    assert decode_message(row) == message.replaced(seq=3, turn_id=2)


def test_a_plain_message_takes_no_json() -> None:
    _, content, _, message_id, extra = encode(SessionMessage(role=MessageRole.USER, content="a"))
    assert (content, len(message_id), extra) == ("a", 16, None)


@given(names.filter(bool), names.filter(bool), names, st.none() | names)
def test_any_session_comes_back(one: str, two: str, three: str, token: str | None) -> None:
    row = (
        one,
        two,
        three,
        "m",
        "hybrid",
        "active",
        "{}",
        None,
        *range(11),
        1,
        token,
        token,
        None,
        1,
    )
    record = SessionRecord._make(row)._replace(
        session_id=one, user_id=two, provider=three, turn_token=token, turn_owner=token
    )
    columns = to_row(record)
    assert not any("\0" in each for each in columns if isinstance(each, str))
    assert to_record(columns) == record


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1203])
def test_a_long_log_is_decoded_in_order_and_others_run_in_between(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []
    monkeypatch.setattr(yielding, "_SHORT", -1.0)
    monkeypatch.setattr(yielding, "_LONG", -1.0)
    monkeypatch.setattr(yielding, "pause", naps.append)
    columns = encode(SessionMessage(role=MessageRole.USER, content="a"))
    rows = [(n, *columns[:4], n, columns[4]) for n in range(1, count + 1)]
    messages = [decode_message(row) for row in rows]
    assert decode_long(rows) == messages
    assert len(naps) == max(0, -(-(count - 500) // 50))
    assert rows == []
