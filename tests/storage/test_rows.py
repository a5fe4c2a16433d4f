from __future__ import annotations

import gc
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langswarm_session import (
    InvalidInputError,
    MessageRole,
    SessionMessage,
    StorageCorruptError,
    TextBlock,
    TokenUsage,
    ToolCallBlock,
)
from langswarm_session.models import new_id
from langswarm_session.storage.rows import (
    ASSISTANT,
    MESSAGE_COLUMNS,
    ROLES,
    SYSTEM,
    decode_message,
    decode_messages,
    dump_json,
    encode_id,
    encode_message,
)
from langswarm_session.testing import strategies
from langswarm_session.testing.making import TOO_LONG


def row_of(message: SessionMessage, seq: int = 1, turn: int = 1) -> Any:
    role, content, timestamp, message_id, extra = encode_message(message)
    return (seq, role, content, timestamp, message_id, turn, extra)


@given(message=strategies.messages(), seq=st.integers(1), turn=st.integers(1))
def test_a_row_holds_all_of_a_message(message: SessionMessage, seq: int, turn: int) -> None:
    decoded = decode_message(row_of(message, seq, turn))
    expected = message.replaced(seq=seq, turn_id=turn)
    assert decoded == expected
    assert decoded.model_dump_json() == expected.model_dump_json()
    assert decoded.model_fields_set == set(SessionMessage.model_fields)


@given(message=strategies.messages())
def test_a_row_is_made_of_plain_columns(message: SessionMessage) -> None:
    row = row_of(message)
    assert len(row) == len(MESSAGE_COLUMNS.split(", "))
    assert {type(value) for value in row} <= {int, str, bytes, type(None)}


def test_a_plain_message_takes_no_json() -> None:
    moment = datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC)
    message = SessionMessage(role=MessageRole.USER, content="hello", id="0" * 32, timestamp=moment)
    assert encode_message(message) == (0, "hello", 1_000_005, bytes(16), None)


def test_only_what_there_is_takes_space() -> None:
    message = SessionMessage(
        role=MessageRole.ASSISTANT,
        content=[TextBlock(text="a")],
        usage=TokenUsage(output_tokens=3),
        finish_reason="stop",
    )
    assert encode_message(message)[4] == (
        '{"blocks":[{"type":"text","text":"a"}],"usage":{"output_tokens":3},"finish_reason":"stop"}'
    )


@given(strategies.message_ids())
def test_an_id_survives_its_short_form(message_id: str) -> None:
    message = SessionMessage(role=MessageRole.USER, id=message_id)
    assert decode_message(row_of(message)).id == message_id


@pytest.mark.parametrize(
    "message_id", ["A" * 32, "ab" * 15 + " a", "0x" + "a" * 30, "a" * 31, "\u0661" * 32]
)
def test_look_alikes_of_an_id_stay_text(message_id: str) -> None:
    assert encode_id(message_id) == message_id


def test_an_id_of_ours_takes_16_bytes() -> None:
    message_id = new_id()
    assert encode_id(message_id) == bytes.fromhex(message_id)


def test_roles_keep_their_codes() -> None:
    # Stored in every file there is: this list may only grow at its end.
    assert ROLES[:5] == ["user", "assistant", "system", "function", "tool"]
    assert (ROLES[ASSISTANT], ROLES[SYSTEM]) == (MessageRole.ASSISTANT, MessageRole.SYSTEM)


@pytest.mark.parametrize(
    "number",
    [
        *[math.inf, -math.inf, math.nan, -0.0, 5e-324, 1.1, 2**70, -(2**70)],
        pytest.param(TOO_LONG - 1, id="4300 digits"),
        pytest.param(1 - TOO_LONG, id="4300 digits, negative"),
    ],
)
def test_numbers_that_json_has_trouble_with(number: float) -> None:
    block = ToolCallBlock(name="f", args={"x": [number]})
    message = SessionMessage(
        role=MessageRole.ASSISTANT, content=[block], metadata={"x": number}, native={"x": number}
    )
    decoded = decode_message(row_of(message))
    assert isinstance(decoded.content, list)
    [call] = decoded.content
    assert isinstance(call, ToolCallBlock)
    for value in (call.args["x"][0], decoded.metadata["x"], (decoded.native or {})["x"]):
        assert (repr(value), type(value)) == (repr(number), type(number))


def test_none_inside_data_is_kept() -> None:
    block = ToolCallBlock(name="f", args={"a": None, "b": [None]}, extras={"c": {"d": None}})
    message = SessionMessage(
        role=MessageRole.ASSISTANT, content=[block], metadata={"a": None}, native={"a": None}
    )
    assert decode_message(row_of(message, turn=2)) == message.replaced(seq=1, turn_id=2)


@pytest.mark.parametrize(
    "value",
    [{"k": "\ud800"}, {"k": object()}, {"k": {1, 2}.__iter__}, {"k": TOO_LONG}, [-TOO_LONG]],
    ids=["surrogate", "object", "method", "digits", "negative"],
)
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError):
        dump_json(value)


def test_many_rows_leave_the_collector_as_it_was() -> None:
    rows = [row_of(SessionMessage(role=MessageRole.USER, content=str(n))) for n in range(3)]
    assert [message.content for message in decode_messages(rows)] == ["0", "1", "2"]
    assert gc.isenabled()
    gc.disable()
    try:
        decode_messages(rows)
        assert not gc.isenabled()
    finally:
        gc.enable()
    with pytest.raises(StorageCorruptError):
        decode_messages([(1, 99, "", 0, "id", 1, None)])
    assert gc.isenabled()


@pytest.mark.parametrize(
    "damage",
    [
        {"role": 99},
        {"timestamp": 2**62},
        {"extra": "{secret"},
        {"extra": '["secret"]'},
        {"extra": '{"blocks": [{"type": "secret"}]}'},
        {"extra": '{"usage": {"input_tokens": "secret"}}'},
    ],
)
def test_what_is_no_message_is_damage_and_not_quoted(damage: dict[str, Any]) -> None:
    names = ("seq", "role", "content", "timestamp", "id", "turn", "extra")
    whole = row_of(SessionMessage(role=MessageRole.USER, content="a"))
    row: Any = tuple({**dict(zip(names, whole, strict=True)), **damage}.values())
    with pytest.raises(StorageCorruptError, match="message 1 of a session") as caught:
        decode_message(row)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@given(
    st.integers(0, 6),
    st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.binary(), st.just([])),
)
def test_whatever_a_column_holds_a_message_is_valid_or_damage(place: int, value: Any) -> None:
    row = list(row_of(SessionMessage(role=MessageRole.USER, content="a")))
    row[place] = value
    try:
        message = decode_message(tuple(row))
    except StorageCorruptError:
        return
    assert SessionMessage.model_validate(message.model_dump()) == message


@pytest.mark.parametrize(
    "extra",
    [
        *("[]", "1", "null", '{"role":"tool"}', '{"seq":9}', '{"evil":1}', '{"name":1}'),
        *('{"metadata":[]}', '{"native":"a"}', '{"provider":{}}', '{"model":null}'),
        *('{"usage":[]}', '{"usage":{"input_tokens":-1}}', '{"blocks":{}}', '{"id":7}'),
        *('{"blocks":[{"type":"text"}]}', "{" * 300, '{"metadata":' + "[" * 300),
    ],
)
def test_what_no_message_has_beside_its_columns(extra: str) -> None:
    row = row_of(SessionMessage(role=MessageRole.USER, content="a"))
    with pytest.raises(StorageCorruptError, match="message 1 of a session cannot be decoded"):
        decode_message((*row[:-1], extra))


@pytest.mark.parametrize("role", [-1, 5])
def test_a_code_of_no_role(role: int) -> None:
    row = row_of(SessionMessage(role=MessageRole.USER, content="a"))
    with pytest.raises(StorageCorruptError):
        decode_message((row[0], role, *row[2:]))


def test_a_message_without_content() -> None:
    row = row_of(SessionMessage(role=MessageRole.USER, content="a"))
    with pytest.raises(StorageCorruptError):
        decode_message((*row[:2], None, *row[3:]))
