"""Messages that others replaced."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langswarm_session import SessionMessage
from langswarm_session._sync.bridge import run
from langswarm_session.storage.replacements import (
    REPLACES,
    CurrentLog,
    Reads,
    is_read_by,
    readable_by,
    replaced_by,
    replacing,
)


def text(n: int, seq: int | None = None, **metadata: Any) -> SessionMessage:
    return SessionMessage(role="user", content=f"{n}", seq=seq, metadata=metadata)


def reader(
    log: list[SessionMessage],
    asked: list[int] | None = None,
    reads: Reads = lambda message: True,
) -> CurrentLog:
    async def read(limit: int, before: int | None) -> list[SessionMessage]:
        if asked is not None:
            asked.append(limit)
        older = [each for each in log if before is None or (each.seq or 0) < before]
        return older[max(0, len(older) - limit) :]

    return CurrentLog(read, reads)


def test_the_first_of_the_replacement_names_what_it_replaces() -> None:
    first, second = replacing([text(1, a=2), text(2)], [text(3, 3), text(4, 4)])
    assert first.metadata == {"a": 2, REPLACES: [[3, 4]]}
    assert second.metadata == {}


def test_rows_end_only_where_something_is_kept() -> None:
    replaced = [text(n, n) for n in (1, 2, 5, 6, 9)]
    (message,) = replacing([text(1)], replaced, [text(7, 7), text(10, 10)])
    assert message.metadata[REPLACES] == [[1, 6], [9, 9]]


def test_what_was_replaced_before_stays_so() -> None:
    replaced = [text(4, 4, **{REPLACES: [[2, 3]]}), text(5, 5)]
    (message,) = replacing([text(1)], replaced, [text(1, 1)])
    assert message.metadata[REPLACES] == [[2, 5]]


@pytest.mark.parametrize(
    "given",
    [None, 1, "1-2", [1, 2], [[1]], [[2, 1]], [[0, 1]], [[1, 9]], [["1", "2"]], [[True, 2]]],
)
def test_metadata_that_names_nothing_replaces_nothing(given: Any) -> None:
    assert replaced_by(text(1, 9, **{REPLACES: given})) == []


def test_only_valid_spans_count() -> None:
    assert replaced_by(text(1, 9, **{REPLACES: [[1, 8], [1, 9], None]})) == [(1, 8)]


@given(data=st.data(), size=st.integers(0, 40))
def test_the_newest_are_those_that_nothing_replaces(data: st.DataObject, size: int) -> None:
    log = []
    for seq in range(1, size + 1):
        spans: list[list[int]] = []
        if seq > 1 and data.draw(st.integers(0, 3)) == 0:
            first = data.draw(st.integers(1, seq - 1))
            spans = [[first, data.draw(st.integers(first, seq - 1))]]
        log.append(text(seq, seq, **({REPLACES: spans} if spans else {})))
    log = [each for each in log if data.draw(st.integers(0, 9))]
    current: list[SessionMessage] = []
    hidden: set[int] = set()
    for message in reversed(log):
        if message.seq not in hidden:
            current.insert(0, message)
            hidden |= {n for a, z in replaced_by(message) for n in range(a, z + 1)}
    for limit in (None, 0, 1, 2, 3, 7, 50):
        expected = current if limit is None else current[max(0, len(current) - limit) :]
        assert run(reader(log).newest(limit)) == expected


def test_what_was_replaced_is_not_read() -> None:
    log = [text(n, n) for n in range(1, 10_001)]
    log += [
        text(0, 10_001, **{REPLACES: [[1, 10_000]]}),
        *(text(n, n) for n in range(10_002, 10_009)),
    ]
    asked: list[int] = []
    assert run(reader(log, asked).newest(20)) == log[10_000:]
    assert asked == [20, 20]
    asked.clear()
    assert run(reader(log, asked).newest()) == log[10_000:]
    assert len(asked) == 2


def numbered(seq: int, message: SessionMessage) -> SessionMessage:
    return message.replaced(seq=seq)


@pytest.mark.parametrize("limit", [None, 1, 2, 3, 4, 9])
@pytest.mark.parametrize(("vendor", "numbers"), [(None, [1, 2, 3, 6]), ("v", [4, 5, 6])])
def test_a_replacement_that_one_vendor_reads(
    vendor: str | None, numbers: list[int], limit: int | None
) -> None:
    log = [text(n, n) for n in (1, 2, 3)]
    made = replacing(readable_by("v", [text(4), text(5)]), log)
    log += [*(numbered(seq, each) for seq, each in enumerate(made, 4)), text(6, 6)]
    current = reader(log, reads=lambda message: is_read_by(vendor, message))
    newest = run(current.newest(limit))
    assert [each.seq for each in newest] == (numbers if limit is None else numbers[-limit:])
    assert [each.seq for each in run(reader(log).newest())] == [4, 5, 6]
