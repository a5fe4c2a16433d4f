"""What an agent's state and the record make of each other."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    ToolMessage,
)
from langchain_langswarm.agent_state import (
    by_question,
    called_with,
    count_before,
    from_record,
    given_of,
    merged,
    said,
    with_ids,
    with_paired_calls,
    with_turn,
)
from langchain_langswarm.messages import from_langchain_messages, to_langchain, with_new_id
from langgraph.types import Command


def human(text: str) -> BaseMessage:
    return HumanMessage(text, id=text)


def ai(text: str) -> BaseMessage:
    return AIMessage(text, id=text)


def summary(text: str) -> BaseMessage:
    return HumanMessage(text, id=text, additional_kwargs={"lc_source": "summarization"})


def texts(messages: list[BaseMessage]) -> list[str]:
    return [str(message.text) for message in messages]


def test_a_state_in_another_order_than_the_record_has_each_message_once() -> None:
    history = [human("a"), human("b"), human("c")]
    assert texts(merged([human("c"), human("a"), human("b")], [], history)) == ["a", "b", "c"]
    assert texts(merged([human("b"), ai("x"), human("a")], [human("d")], history)) == [
        "a", "b", "x", "c", "d"
    ]  # fmt: skip


def test_a_summary_in_such_a_state_stands_for_what_was_before_it_all() -> None:
    history = [human("a"), ai("b"), ai("c"), human("d")]
    state = [summary("s"), ai("c"), ai("b")]
    assert texts(merged(state, [human("e")], history)) == ["s", "b", "c", "d", "e"]


def test_what_others_than_the_user_said_stays_as_the_state_has_it() -> None:
    history = [human("a"), ToolMessage("b", id="b", tool_call_id="1")]
    state = [HumanMessage("A", id="a"), ToolMessage("b", id="b", tool_call_id="1", artifact=object)]
    human_made, tool_made = merged(state, [], history)
    assert human_made.text == "a"
    assert tool_made is state[1]


def test_a_message_that_came_without_an_id_has_the_records() -> None:
    stored = from_langchain_messages([HumanMessage("a"), AIMessage("b", usage_metadata=None)])
    assert [message.id for message in from_record(stored)] == [message.id for message in stored]


def test_two_answers_with_one_id_have_those_of_the_record() -> None:
    """As `RunnableWithSession` stores them, of a model that gives the same one again."""
    first, second = from_langchain_messages([ai("a"), ai("a")])
    stored = [first, with_new_id(second)]
    assert [to_langchain(message).id for message in stored] == ["a", "a"]
    assert [message.id for message in from_record(stored)] == ["a", stored[1].id]


# What an agent was called with


def ids(messages: list[BaseMessage]) -> list[str | None]:
    return [message.id for message in messages]


STATE = [human("a"), ai("b"), human("c"), human("d")]


@pytest.mark.parametrize(
    ("value", "given"),
    [
        ({"messages": "d"}, ["d"]),
        ({"messages": ("human", "d")}, ["d"]),
        ({"messages": [("human", "c"), {"role": "user", "content": "d"}]}, ["c", "d"]),
        ({"messages": STATE[2:]}, ["c", "d"]),
        ({"messages": [human("a")]}, ["a"]),
        ({"messages": [human("a"), ("human", "d")]}, ["a", "d"]),
        ({"messages": [RemoveMessage(id="x"), ("human", "d")]}, ["d"]),
        ({"messages": []}, []),
        ({"todos": []}, []),
        (Command(resume=True), []),
        (None, []),
    ],
)
def test_what_of_a_state_came_with_the_call(value: Any, given: list[str]) -> None:
    assert ids(given_of(STATE, called_with(value))) == given


@pytest.mark.parametrize(
    ("state", "given"),
    [
        ([human("a"), ai("b"), human("c"), human("added")], ["c"]),
        ([human("c"), ai("b"), human("c, changed")], ["c, changed"]),
        ([human("added"), human("c")], ["c"]),
    ],
)
def test_what_came_with_a_call_is_known_beside_what_a_middleware_added(
    state: list[BaseMessage], given: list[str]
) -> None:
    assert ids(given_of(state, called_with({"messages": "c"}))) == given


def test_a_user_says_what_is_at_the_end() -> None:
    assert ids(said(STATE)) == ["c", "d"]
    assert ids(said(STATE[:2])) == []
    assert ids(said([])) == []


def test_what_is_before_the_first_new_message_of_the_call_is_older() -> None:
    assert count_before(STATE, [STATE[3]], 2) == 3
    assert count_before(STATE, [STATE[0], STATE[2]], 2) == 2
    assert count_before(STATE, [STATE[0]], 2) == 4
    assert count_before(STATE, [], 2) == 2


def test_each_question_has_what_answered_it() -> None:
    parts = by_question([ai("x"), *STATE])
    assert [ids(part) for part in parts] == [["x"], ["a", "b"], ["c"], ["d"]]


def test_a_turn_is_put_at_the_end_as_it_is_stored() -> None:
    result = ToolMessage("r", id="r", tool_call_id="1", artifact=object())
    stored = [human("a"), ToolMessage("r", id="r", tool_call_id="1"), ai("b")]
    made = with_turn([human("c"), result, human("again"), ai("d")], stored, {"again"})
    assert ids(made) == ["c", "d", "a", "r", "b"]
    assert made[3] is result


# Messages without ids


def test_a_message_without_an_id_is_known_again() -> None:
    state = [human("a"), HumanMessage("b"), AIMessage("b"), HumanMessage("b")]
    named = with_ids(state, "thread")
    assert named[0] is state[0]
    assert len({message.id for message in named}) == 4
    assert state[1].id is None
    assert with_ids(state, "thread") == named
    assert with_ids(named, "other") == named
    assert with_ids(state, "other")[1].id != named[1].id


def test_what_is_said_again_in_the_same_place_is_another_message() -> None:
    state = [HumanMessage("a"), HumanMessage("b")]
    first = with_ids(state, "thread", newest=1)
    known = {message.id for message in first}
    assert with_ids(state, "thread", newest=1, known=known, is_replay=True) == first
    second = with_ids(state, "thread", newest=1, known=known)
    assert second[0] == first[0]
    assert second[1].id not in known
    known.add(second[1].id)
    assert with_ids(state, "thread", newest=1, known=known, is_replay=True) == second
    assert with_ids(state, "thread", newest=1, is_replay=True) == first


# What can be sent


def broken(call_id: str | None) -> AIMessage:
    call = {"id": call_id, "name": "book", "args": "{", "error": "truncated"}
    return AIMessage("", id="calls", invalid_tool_calls=[call])  # type: ignore[list-item]


def test_a_call_with_broken_arguments_keeps_its_result() -> None:
    messages = [human("a"), broken("c1"), ToolMessage("no JSON", tool_call_id="c1"), human("b")]
    assert with_paired_calls(messages) == (messages, [])


@pytest.mark.parametrize("call_id", ["c1", None])
def test_a_call_with_broken_arguments_is_answered(call_id: str | None) -> None:
    sent, repairs = with_paired_calls([human("a"), broken(call_id), human("b")])
    _, calls, result, _ = sent
    assert isinstance(calls, AIMessage)
    assert isinstance(result, ToolMessage)
    assert calls.invalid_tool_calls[0]["id"] == result.tool_call_id
    assert result.tool_call_id
    assert result.status == "error"
    assert repairs
    assert with_paired_calls(sent) == (sent, [])
