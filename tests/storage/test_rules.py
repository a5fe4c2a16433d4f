from __future__ import annotations

import sys
from typing import Any

import pytest

from langswarm_session import (
    InvalidInputError,
    MessageConflictError,
    MessageRole,
    RevisionConflictError,
    SessionBusyError,
    SessionError,
    SessionExistsError,
    SessionInactiveError,
    SessionNotFoundError,
    SessionStatus,
    TokenUsage,
    TurnLostError,
    TurnStatus,
)
from langswarm_session.records import SessionRecord
from langswarm_session.storage import rules
from langswarm_session.testing.making import new_session, reply, user


def record(**changes: Any) -> SessionRecord:
    values = dict.fromkeys(SessionRecord._fields, 0) | {
        "session_id": "s",
        "status": "active",
        "turn_token": None,
        "revision": 7,
    }
    return SessionRecord(**{**values, **changes})


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (rules.not_found, SessionNotFoundError),
        (rules.exists, SessionExistsError),
        (rules.lost, TurnLostError),
    ],
)
def test_errors_name_the_session_and_a_way_out(make: Any, kind: type[SessionError]) -> None:
    error = make("the session")
    assert type(error) is kind
    assert error.session_id == "the session"
    assert "'the session'" in str(error)
    assert ";" in str(error)


@pytest.mark.parametrize("status", SessionStatus)
def test_only_active_sessions_and_those_in_error_take_turns(status: SessionStatus) -> None:
    if status in (SessionStatus.ACTIVE, SessionStatus.ERROR):
        rules.check_writable(record(status=status.value))
    else:
        with pytest.raises(SessionInactiveError, match=status.value):
            rules.check_writable(record(status=status.value))


def test_a_revision_is_checked_where_one_is_given() -> None:
    rules.check_revision(record(), None)
    rules.check_revision(record(), 7)
    for other in (0, 6, 8):
        with pytest.raises(RevisionConflictError, match="7"):
            rules.check_revision(record(), other)


def test_a_session_without_a_lease_is_free() -> None:
    assert rules.check_free(record(turn_expires=5), 0) is False


def test_a_lease_holds_until_it_expires() -> None:
    held = record(turn_token="token", turn_owner="owner", turn_expires=100)
    with pytest.raises(SessionBusyError) as caught:
        rules.check_free(held, 99)
    assert (caught.value.holder, caught.value.owner) == ("token", "owner")
    assert rules.check_free(held, 100) is True
    assert rules.check_free(held._replace(turn_expires=None), 0) is True


def test_new_messages_are_those_not_stored() -> None:
    old, one, two = user("old"), user("one"), reply("two")
    assert rules.new_messages("s", [one, old, two, one], {old.id: old}) == [one, two]
    assert rules.new_messages("s", [], {}) == []


def test_equal_messages_are_the_same_message() -> None:
    # What is asked is what was said and by whom; when and with what metadata may differ.
    old = user("old")
    again = old.replaced(metadata={"retry": 1}, timestamp="2026-01-01T00:00:00Z")
    assert rules.new_messages("s", [again], {old.id: old}) == []
    assert rules.new_messages("s", [old, again], {}) == [old]


@pytest.mark.parametrize("change", [{"content": "new"}, {"role": MessageRole.TOOL}])
def test_other_messages_under_a_known_id_are_a_conflict(change: dict[str, Any]) -> None:
    old = user("old")
    for stored, given in (({old.id: old}, []), ({}, [old])):
        with pytest.raises(MessageConflictError, match=old.id):
            rules.new_messages("s", [*given, old.replaced(**change)], stored)


def test_a_conflict_tells_the_id() -> None:
    old = user("old")
    with pytest.raises(MessageConflictError) as caught:
        rules.new_messages("s", [old.replaced(content="new")], {old.id: old})
    assert caught.value.message_id == old.id


def test_what_ends_a_turn_is_its_own() -> None:
    here, elsewhere = (user("x").replaced(turn_id=turn, seq=turn) for turn in (3, 1))
    rules.check_ends("s", [], 3)
    rules.check_ends("s", [here], 3)
    with pytest.raises(MessageConflictError, match="in turn 1") as caught:
        rules.check_ends("s", [here, elsewhere], 3)
    assert caught.value.message_id == elsewhere.id


def test_a_long_batch_is_looked_through_once() -> None:
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    def lines(size: int) -> int:
        """How many lines and calls of Python it takes."""
        nonlocal steps
        steps = 0
        messages = [user(str(n)) for n in range(size)]
        sys.setprofile(count)
        try:
            rules.new_messages("s", messages, {})
        finally:
            sys.setprofile(None)
        return steps

    assert lines(400) < 5 * lines(100)


@pytest.mark.parametrize("status", TurnStatus)
def test_only_what_ended_early_without_a_reply_is_unanswered(status: TurnStatus) -> None:
    early = status in (TurnStatus.CANCELLED, TurnStatus.FAILED)
    assert rules.answered(status, [MessageRole.USER, MessageRole.ASSISTANT])
    assert rules.answered(status, [MessageRole.USER, MessageRole.SYSTEM]) is not early
    assert rules.answered(status, []) is not early


def test_usage_is_summed() -> None:
    one = TokenUsage(input_tokens=1, output_tokens=2, cached_tokens=3, reasoning_tokens=4)
    assert rules.usage_sums([reply(usage=one), user(), reply(usage=one)]) == (2, 4, 6, 8)
    assert rules.usage_sums([]) == (0, 0, 0, 0)


@pytest.mark.parametrize("activity", [0, 123, -5, 10**17])
@pytest.mark.parametrize("session_id", ["s", "a:b", "1", "\n", "\0", "é", ":"])
def test_a_cursor_is_made_of_the_last_session_shown(activity: int, session_id: str) -> None:
    last = rules.new_record(new_session(session_id), "{}", activity)._replace(creation=42)
    cursor = rules.make_cursor(last)
    assert rules.parse_cursor(cursor) == (activity, session_id)
    assert "42" not in cursor, "how many sessions others created is nobody's business"


@pytest.mark.parametrize(
    "cursor", ["", ":", "1", "1:", ":1", "a:b", "1.2", " 1:s", "1 :s", "\u0661:s", "1:\ud800"]
)
def test_what_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInputError, match="cursor"):
        rules.parse_cursor(cursor)
