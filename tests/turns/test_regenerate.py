"""Answering a message again."""

from __future__ import annotations

import pytest

from langswarm_session import (
    IdempotencyConflictError,
    InvalidInputError,
    MockFailure,
    NestedTurnError,
    ProviderSessionError,
    SessionMessage,
)


@pytest.fixture
async def asked(session, mock):
    """A session with a question before, and one that was just answered."""
    mock.script("one", "two", "three", "four")
    await session.send_message("before")
    await session.send_message("why?")
    return session


def sent(mock):
    return [each.text for each in mock.requests[-1].messages]


async def texts(session):
    return [each.text for each in await session.get_messages()]


async def test_both_answers_are_kept_and_the_new_one_counts(asked, mock):
    answer = await asked.regenerate()
    assert answer.text == "three"
    assert sent(mock) == ["before", "one", "why?"]
    assert await texts(asked) == ["before", "one", "why?", "two", "three"]
    current = await asked.get_current_messages()
    assert [each.text for each in current] == ["before", "one", "why?", "three"]
    assert [each.text for each in await asked.get_window()] == ["before", "one", "why?", "three"]
    await asked.send_message("and?")
    assert sent(mock) == ["before", "one", "why?", "three", "and?"]


async def test_it_is_so_for_who_reads_the_session_later(asked, mock, manager):
    await asked.regenerate()
    again = await manager.get_session(asked.session_id)
    await again.send_message("and?")
    assert sent(mock) == ["before", "one", "why?", "three", "and?"]


async def test_as_often_as_one_likes(asked, mock):
    await asked.regenerate()
    assert (await asked.regenerate()).text == "four"
    assert sent(mock) == ["before", "one", "why?"]
    assert await texts(asked) == ["before", "one", "why?", "two", "three", "four"]
    await asked.send_message("and?")
    assert sent(mock) == ["before", "one", "why?", "four", "and?"]


async def test_a_key_makes_it_one_answer(asked):
    first = await asked.regenerate(idempotency_key="again")
    assert await asked.regenerate(idempotency_key="again") == first
    assert (await asked.regenerate(idempotency_key="once more")).text == "four"
    assert await texts(asked) == ["before", "one", "why?", "two", "three", "four"]
    turns = await asked.get_turns()
    assert [turn.status.value for turn in turns] == ["complete"] * 4


async def test_the_key_of_the_question_is_another(session, mock):
    mock.script("one", "two")
    await session.send_message("why?", idempotency_key="key")
    assert (await session.regenerate(idempotency_key="key")).text == "two"
    assert (await session.send_message("why?", idempotency_key="key")).text == "one"


async def test_a_key_is_for_one_question(asked):
    await asked.regenerate(idempotency_key="again")
    await asked.send_message("and?")
    with pytest.raises(IdempotencyConflictError):
        await asked.regenerate(idempotency_key="again")


async def test_one_that_failed_leaves_the_answer_before_it(asked, mock):
    mock.fail_next(MockFailure.ERROR)
    with pytest.raises(ProviderSessionError):
        await asked.regenerate(idempotency_key="again")
    assert [each.text for each in await asked.get_current_messages()][-1] == "two"
    assert (await asked.regenerate(idempotency_key="again")).text == "three"
    await asked.send_message("and?")
    assert sent(mock) == ["before", "one", "why?", "three", "and?"]


async def test_in_pieces(asked, mock):
    events = [event async for event in asked.stream_regenerated(idempotency_key="again")]
    assert "".join(event.text for event in events) == "three"
    assert events[-1].message.text == "three"
    replayed = [event async for event in asked.stream_regenerated(idempotency_key="again")]
    assert replayed[-1].message == events[-1].message
    assert await texts(asked) == ["before", "one", "why?", "two", "three"]


async def test_the_question_may_be_named(asked):
    question = (await asked.get_messages())[2]
    assert (await asked.regenerate(question)).text == "three"
    assert (await asked.regenerate(question.id)).text == "four"


async def test_only_the_last_that_a_user_said(asked):
    older = (await asked.get_messages())[0]
    with pytest.raises(InvalidInputError, match="fork"):
        await asked.regenerate(older)
    with pytest.raises(InvalidInputError, match="no such message"):
        await asked.regenerate("unknown")
    assert await texts(asked) == ["before", "one", "why?", "two"]


async def test_not_where_nobody_said_anything(session):
    with pytest.raises(InvalidInputError, match="no such message"):
        await session.regenerate()


async def test_a_question_far_back(asked):
    steps = [SessionMessage(role="assistant", content=f"step {n}") for n in range(300)]
    await asked.record(steps)
    assert (await asked.regenerate()).text == "three"
    current = [each.text for each in await asked.get_current_messages()]
    assert current == ["before", "one", "why?", "three"]


async def test_system_messages_stay(asked, mock):
    await asked.add_system_message("be brief")
    await asked.regenerate()
    assert sent(mock) == ["before", "one", "why?"]
    current = [each.text for each in await asked.get_current_messages()]
    assert current == ["before", "one", "why?", "be brief", "three"]


async def test_within_a_turn_it_is_refused(asked):
    async with await asked.begin_turn("more"):
        with pytest.raises((NestedTurnError, InvalidInputError)):
            await asked.regenerate()


async def test_by_hand(asked):
    turn = await asked.begin_turn([], regenerate=True, idempotency_key="again")
    assert [each.text for each in turn.messages] == ["why?"]
    assert [each.text for each in await turn.history()] == ["before", "one"]
    await turn.add([SessionMessage(role="assistant", content="hm")])
    await turn.complete([SessionMessage(role="assistant", content="so")])
    current = [each.text for each in await asked.get_current_messages()]
    assert current == ["before", "one", "why?", "hm", "so"]


async def test_of_several_answerers_each_has_its_own(session):
    question = SessionMessage(id="q", role="user", content="why?")
    for name in ("law", "tax"):
        turn = await session.begin_turn(question, answerer=name)
        await turn.complete([SessionMessage(role="assistant", content=f"{name} 1")])
    turn = await session.begin_turn(question, answerer="law", regenerate=True)
    await turn.complete([SessionMessage(role="assistant", content="law 2")])
    current = [each.text for each in await session.get_current_messages()]
    assert current == ["why?", "tax 1", "law 2"]
