"""What an agent's state and the record make of each other."""

from __future__ import annotations

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_langswarm.agent_state import from_record, merged
from langchain_langswarm.messages import from_langchain_messages


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
