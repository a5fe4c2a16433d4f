from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from langswarm_session import (
    MessageRole,
    RefusalBlock,
    SessionBackend,
    SessionContext,
    SessionMessage,
    SessionMetrics,
    SessionStatus,
    TextBlock,
    TokenUsage,
    ToolCallBlock,
    ToolResultBlock,
    Turn,
    TurnStatus,
)
from langswarm_session.blocks import Model
from langswarm_session.models import from_micros, new_id, to_micros, utc_now
from langswarm_session.testing import strategies

NOW = datetime(2026, 11, 22, 17, 46, 39, 76_477, tzinfo=UTC)


def message(**fields: Any) -> SessionMessage:
    return SessionMessage(**{"role": "user", "content": "hello", **fields})


# Messages


@given(strategies.messages())
def test_a_message_survives_json(given: SessionMessage) -> None:
    json = given.model_dump_json()
    read = SessionMessage.model_validate_json(json)
    assert read == given
    assert read.model_dump_json() == json


@given(strategies.messages())
def test_a_message_survives_plain_data(given: SessionMessage) -> None:
    assert SessionMessage.model_validate(given.model_dump()) == given
    assert SessionMessage.model_validate(given.model_dump(mode="json")) == given
    assert SessionMessage.model_validate(given.model_dump(exclude_none=True)) == given


@given(strategies.messages())
def test_a_message_survives_a_copy(given: SessionMessage) -> None:
    assert given.replaced() == given
    assert given.model_copy(deep=True) == given
    assert SessionMessage._trusted(dict(given.__dict__)) == given


def test_a_message_needs_a_role_only() -> None:
    made = SessionMessage(role="assistant")  # type: ignore[arg-type]
    assert (made.role, made.content, made.metadata) == (MessageRole.ASSISTANT, "", {})
    assert len(made.id) == 32
    assert (made.seq, made.turn_id, made.usage, made.native) == (None, None, None, None)
    assert made.timestamp.tzinfo is UTC


@pytest.mark.parametrize(
    "fields",
    [
        {"role": "developer"},
        {"role": None},
        {"role": ""},
        {"content": None},
        {"content": 5},
        {"content": b"\xff"},
        {"content": ["text"]},
        {"content": [{"type": "unknown"}]},
        {"content": [{"text": "no type"}]},
        {"id": ""},
        {"id": "x" * 513},
        {"id": 5},
        {"timestamp": "not a time"},
        {"timestamp": datetime(2026, 1, 1)},
        {"timestamp": "2026-01-01T00:00:00"},
        {"metadata": None},
        {"metadata": {"k": object()}},
        {"metadata": {"k": {1, 2}}},
        {"metadata": {1: "k"}},
        {"metadata": {"k": {1: "k"}}},
        {"metadata": {"k": b"bytes"}},
        {"native": {"k": object()}},
        {"usage": {"input_tokens": -1}},
        {"usage": {"unknown": 1}},
        {"unknown": 1},
    ],
)
def test_what_makes_no_message(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        message(**fields)


@pytest.mark.parametrize("field", SessionMessage.model_fields)
def test_a_message_is_frozen(field: str) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(message(), field, None)


def test_a_replaced_message_is_checked_and_another() -> None:
    first = message(metadata={"k": [1]})
    second = first.replaced(content="other")
    assert (first.content, second.content) == ("hello", "other")
    assert second.replaced(content="hello") == first
    second.metadata["k"].append(2)
    assert first.metadata == {"k": [1]}
    with pytest.raises(ValidationError):
        first.replaced(content=5)
    with pytest.raises(ValidationError):
        first.replaced(unknown=5)


def test_a_placed_message_is_the_same_with_a_place() -> None:
    placed = message()._placed(7, 5)
    assert (placed.seq, placed.turn_id) == (7, 5)
    assert placed.replaced(seq=None, turn_id=None).content == "hello"
    assert placed.model_fields_set == set(SessionMessage.model_fields)


@given(strategies.moments())
def test_a_timestamp_is_the_same_moment_in_utc(moment: datetime) -> None:
    made = message(timestamp=moment)
    assert made.timestamp == moment
    assert made.timestamp.tzinfo is UTC
    assert SessionMessage.model_validate_json(made.model_dump_json()).timestamp.tzinfo is UTC


@pytest.mark.parametrize("hours", [-14, 14])
@pytest.mark.parametrize("moment", [datetime.min, datetime.max])
def test_a_timestamp_that_utc_has_no_year_for(moment: datetime, hours: int) -> None:
    moment = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    if (moment.year == 1) == (hours < 0):
        assert message(timestamp=moment).timestamp == moment
    else:
        with pytest.raises(ValidationError):
            message(timestamp=moment)


def test_the_text_of_a_message() -> None:
    blocks = [
        TextBlock(text="a"),
        ToolCallBlock(name="f"),
        ToolResultBlock(tool_call_id="1", content=[TextBlock(text="b")]),
        ToolResultBlock(tool_call_id="1", content="c"),
        RefusalBlock(refusal="d"),
    ]
    assert message(content=blocks).text == "abcd"
    assert message(content="plain").text == "plain"
    assert message(content=[]).text == ""


def test_the_blocks_of_a_message() -> None:
    block = TextBlock(text="a")
    assert message(content=[block]).blocks == [block]
    assert message(content="a").blocks == [block]
    assert message(content="").blocks == []


def test_the_tokens_of_a_message() -> None:
    assert message().token_count is None
    assert message(usage=TokenUsage()).token_count == 0
    usage = TokenUsage(input_tokens=3, output_tokens=2, cached_tokens=9, reasoning_tokens=9)
    assert message(usage=usage).token_count == usage.total_tokens == 5


@pytest.mark.parametrize("count", [-1, 2**40 + 1, 2**62])
@pytest.mark.parametrize("name", ["input", "output", "cached", "reasoning"])
def test_a_usage_has_counts_that_can_be_summed(name: str, count: int) -> None:
    with pytest.raises(ValidationError):
        TokenUsage.model_validate({f"{name}_tokens": count})


# Ids and times


def test_ids_are_uuids_of_version_7() -> None:
    before = to_micros(utc_now()) // 1000
    made = new_id()
    after = to_micros(utc_now()) // 1000
    assert len(made) == 32
    assert made == made.lower()
    assert made[12] == "7"
    assert made[16] in "89ab"
    assert before <= int(made[:12], 16) <= after


def test_ids_do_not_depend_on_the_programs_random() -> None:
    state = random.getstate()
    made = []
    for _ in range(50):
        random.seed(0)
        made.append(new_id())
    assert len({each[13:] for each in made}) == 50
    random.seed(0)
    expected = random.random()
    random.seed(0)
    new_id()
    assert random.random() == expected
    random.setstate(state)


_FORKING = """
import os
from langswarm_session.models import new_id
new_id()
for _ in range(4):
    if not os.fork():
        os.write(1, "".join(f"{new_id()[12:]}\\n" for _ in range(20)).encode())
        os._exit(0)
for _ in range(4):
    assert os.wait()[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_ids_of_forked_processes_differ() -> None:
    made = subprocess.run(
        [sys.executable, "-c", _FORKING], check=True, capture_output=True, text=True, timeout=60
    ).stdout.split()
    assert len(made) == len(set(made)) == 80


def test_ids_are_ordered_by_time_and_unique_over_threads() -> None:
    made: list[list[str]] = []

    def make() -> None:
        made.append([new_id() for _ in range(20_000)])

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each for ids in made for each in ids}) == 80_000
    for ids in made:
        moments = [each[:12] for each in ids]
        assert moments == sorted(moments)


@given(strategies.moments())
def test_microseconds_are_exact(moment: datetime) -> None:
    assert from_micros(to_micros(moment)) == moment


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_every_microsecond_is_a_moment(micros: int) -> None:
    assert to_micros(from_micros(micros)) == micros


def test_microseconds_that_have_no_year():
    for micros in (2**62, -(2**62)):
        with pytest.raises(ValueError, match="no year"):
            from_micros(micros)


def test_now_is_aware() -> None:
    assert utc_now().tzinfo is UTC


# The other data


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (SessionStatus, "active paused completed archived error"),
        (MessageRole, "user assistant system function tool"),
        (SessionBackend, "provider_native local_memory local_sqlite external_db hybrid"),
        (TurnStatus, "open complete cancelled failed"),
    ],
)
def test_the_values_that_are_stored(kind: type[Enum], values: str) -> None:
    assert [each.value for each in kind] == values.split()
    for each in kind:
        # Strings among strings: in JSON, as keys, in comparisons and in f-strings.
        assert each == each.value == f"{each}" == str(each)
        assert hash(each) == hash(each.value)


def turn(**fields: Any) -> Turn:
    values = {
        "id": 1,
        "session_id": "s",
        "status": "open",
        "first_seq": 1,
        "last_seq": 2,
        "started_at": NOW,
    }
    return Turn(**{**values, **fields})


def metrics(**fields: Any) -> SessionMetrics:
    return SessionMetrics(**{"created_at": NOW, "last_activity": NOW, **fields})


def context(**fields: Any) -> SessionContext:
    values = {"session_id": "s", "user_id": "u", "provider": "p", "model": "m"}
    return SessionContext(**{**values, **fields})


@pytest.mark.parametrize(
    "given",
    [
        turn(finished_at=NOW, idempotency_key="k", error="\0"),
        metrics(message_count=2**60, errors=1),
        context(own={"a": [None, "\0"]}, provider_context={"k": 1}, max_messages=3),
        TokenUsage(input_tokens=2**40, details={"k": None}),
    ],
    ids=lambda given: type(given).__name__,
)
def test_data_survives_json_and_is_frozen(given: Any) -> None:
    assert type(given).model_validate_json(given.model_dump_json()) == given
    for field in type(given).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(given, field, None)


@pytest.mark.parametrize("make", [turn, metrics])
def test_data_takes_no_unknown_field_and_no_naive_time(make: Any) -> None:
    with pytest.raises(ValidationError):
        make(unknown=1)
    field = "started_at" if make is turn else "created_at"
    with pytest.raises(ValidationError):
        make(**{field: datetime(2026, 1, 1)})


def test_metrics_add_up() -> None:
    made = metrics(
        input_tokens=3,
        output_tokens=4,
        cached_tokens=100,
        last_activity=NOW + timedelta(minutes=1, microseconds=1),
    )
    assert made.total_tokens == 7
    assert made.session_duration == pytest.approx(60.000_001)


def test_a_context_keeps_what_it_does_not_know() -> None:
    made = context(anything={"nested": [1]}, max_messages=50)
    assert made.anything == {"nested": [1]}
    assert made.model_dump()["anything"] == {"nested": [1]}
    with pytest.raises(ValidationError, match="frozen"):
        made.anything = 2


@pytest.mark.parametrize(
    "fields",
    [
        {"max_messages": 0},
        {"max_messages": "many"},
        {"backend": "cloud"},
        {"anything": object()},
        {"anything": b"bytes"},
        {"provider_context": {"k": object()}},
        {"provider_context": None},
    ],
)
def test_what_makes_no_context(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        context(**fields)


@pytest.mark.parametrize(
    "model", [SessionMessage, Turn, SessionMetrics, TokenUsage, SessionContext]
)
def test_every_model_has_a_json_schema(model: type[Model]) -> None:
    schema = TypeAdapter(model).json_schema()
    assert set(model.model_fields) <= set(schema["properties"])


def test_messages_that_say_the_same():
    one = SessionMessage(role="user", content="x")
    assert one.says_same(SessionMessage(role="user", content="x", metadata={"a": 1}))
    assert not one.says_same(one.replaced(role="assistant"))
    assert not one.says_same(one.replaced(content="y"))
    assert not one.says_same(one.replaced(content=one.blocks))
