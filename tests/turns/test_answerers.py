"""Several that answer one message."""

from __future__ import annotations

import asyncio
from contextvars import Context

import pytest

from langswarm_session import (
    ISessionMiddleware,
    MessageConflictError,
    MessageRefusedError,
    NestedTurnError,
    SessionMessage,
)
from langswarm_session.turns.answerers import ANSWERER, answered_by, marked
from langswarm_session.turns.parallel import TurnBeside


def question(text="q"):
    return SessionMessage(id="q", role="user", content=text)


def answer(text):
    return SessionMessage(role="assistant", content=text)


async def give(session, name, text, key=None):
    turn = await session.begin_turn(question(), answerer=name, idempotency_key=key)
    if not turn.replayed:
        await turn.complete([answer(text)])
    return turn


async def said(session):
    """The texts of each turn, and how it stands."""
    messages = await session.get_messages()
    return [
        (turn.status.value, [each.text for each in messages if each.turn_id == turn.id])
        for turn in await session.get_turns()
    ]


class TestOneAfterTheOther:
    async def test_each_answers(self, session):
        for name in ("law", "tax", ""):
            turn = await give(session, name, f"{name} says so")
            assert not turn.replayed
        assert await said(session) == [
            ("complete", ["q", "law says so"]),
            ("complete", ["tax says so"]),
            ("complete", [" says so"]),
        ]

    async def test_each_is_given_its_own_answer_again(self, session, manager):
        names = ("law", "tax", "")
        for name in names:
            await give(session, name, f"{name} says so")
        again = await manager.get_session(session.session_id)
        for name in names:
            turn = await give(again, name, "something else")
            assert turn.replayed
            assert turn.reply.text == f"{name} says so"

    async def test_a_key_is_that_of_each(self, session):
        for name in ("law", "tax", "law", "tax"):
            turn = await give(session, name, f"{name} says so", key="key")
            assert (turn.messages[-1].text) == f"{name} says so"
        assert len(await session.get_turns()) == 2

    async def test_nobody_sees_what_the_others_answered(self, session):
        await session.send_message("before")
        await give(session, "law", "law says so")
        async with await session.begin_turn(question(), answerer="tax") as turn:
            assert [each.text for each in await turn.history()] == ["before", "You said: before"]
            assert [each.text for each in turn.messages] == ["q"]

    async def test_the_next_turn_sees_all_of_it(self, session, mock):
        await give(session, "law", "law says so")
        await give(session, "tax", "tax says so")
        await session.send_message("and?")
        texts = [each.text for each in mock.requests[-1].messages]
        assert texts == ["q", "law says so", "tax says so", "and?"]

    async def test_one_that_failed_is_tried_again(self, session):
        await give(session, "law", "law says so")
        turn = await session.begin_turn(question(), answerer="tax")
        await turn.fail(RuntimeError("no paper"), [answer("par")])
        assert (await said(session))[1] == ("failed", ["par"])
        assert not (await give(session, "tax", "tax says so")).replayed
        assert (await said(session))[1:] == [("complete", ["tax says so"])]

    async def test_another_text_is_refused(self, session):
        await give(session, "law", "law says so")
        with pytest.raises(MessageConflictError):
            await session.begin_turn(question("another"), answerer="tax")

    async def test_without_a_name_it_is_as_ever(self, session):
        turn = await session.begin_turn(question())
        await turn.complete([answer("so")])
        assert (await session.begin_turn(question())).replayed
        assert (await session.begin_turn(question(), answerer="")).replayed
        assert (await session.get_messages())[-1].metadata == {}


class TestBeside:
    async def test_both_are_open(self, session, manager):
        law = await session.begin_turn(question(), answerer="law")
        other = await manager.get_session(session.session_id)
        tax = await in_context(other.begin_turn(question(), answerer="tax"))
        assert isinstance(tax, TurnBeside)
        assert [each.text for each in tax.messages] == ["q"]
        assert await tax.history() == []
        added = await tax.add([answer("step")])
        assert [each.text for each in added] == ["step"]
        ending = asyncio.create_task(tax.complete([answer("tax says so")]))
        await law.add([answer("hm")])
        await law.complete([answer("law says so")])
        assert [each.text for each in await ending] == ["tax says so"]
        assert await said(session) == [
            ("complete", ["q", "hm", "law says so"]),
            ("complete", ["step", "tax says so"]),
        ]
        assert not law.is_open
        assert not tax.is_open
        await session.send_message("the session is free")

    async def test_it_is_given_again(self, session):
        law = await session.begin_turn(question(), answerer="law")
        tax = await in_context(session.begin_turn(question(), answerer="tax"))
        ending = asyncio.create_task(tax.complete([answer("tax says so")]))
        await law.complete([answer("law says so")])
        await ending
        assert (await give(session, "tax", "")).reply.text == "tax says so"
        assert (await give(session, "law", "")).reply.text == "law says so"

    async def test_an_answer_that_is_stored_is_given_beside_an_open_turn(self, session):
        await give(session, "law", "law says so")
        tax = await session.begin_turn(question(), answerer="tax")
        law = await in_context(give(session, "law", ""))
        assert law.replayed
        assert law.reply.text == "law says so"
        await tax.complete([answer("tax says so")])

    async def test_within_the_other_it_waits_for_nobody(self, session):
        async with await session.begin_turn(question(), answerer="law") as law:
            async with await session.begin_turn(question(), answerer="tax") as tax:
                await tax.complete([answer("tax says so")])
            assert await said(session) == [("open", ["q"])]
            await law.complete([answer("law says so")])
        assert await said(session) == [
            ("complete", ["q", "law says so"]),
            ("complete", ["tax says so"]),
        ]

    async def test_within_the_other_the_same_one_is_refused(self, session):
        async with await session.begin_turn(question(), answerer="law"):
            with pytest.raises(NestedTurnError):
                await session.begin_turn(question(), answerer="law")
            with pytest.raises(NestedTurnError):
                await session.begin_turn("another question", answerer="tax")

    @pytest.mark.parametrize("is_inside", [False, True])
    async def test_one_that_ends_early_is_kept(self, session, is_inside):
        law = await session.begin_turn(question(), answerer="law")
        begin = session.begin_turn(question(), answerer="tax")
        tax = await (begin if is_inside else in_context(begin))
        ending = tax.end_by(RuntimeError("no paper"), [answer("par")])
        ending = asyncio.create_task(ending)
        await asyncio.sleep(0.01)
        await law.complete([answer("law says so")])
        await ending
        assert await said(session) == [("complete", ["q", "law says so"]), ("failed", ["par"])]

    async def test_the_other_may_fail(self, session):
        law = await session.begin_turn(question(), answerer="law")
        tax = await in_context(session.begin_turn(question(), answerer="tax"))
        ending = asyncio.create_task(tax.complete([answer("tax says so")]))
        await law.fail(RuntimeError("no paper"))
        await ending
        assert await said(session) == [("failed", ["q"]), ("complete", ["tax says so"])]

    async def test_both_are_cancelled(self, session):
        law = await session.begin_turn(question(), answerer="law")
        tax = await in_context(session.begin_turn(question(), answerer="tax"))
        tax.received("ta")
        law.received("la")
        assert await session.cancel()
        assert await said(session) == [("cancelled", ["q", "la"]), ("cancelled", ["ta"])]
        assert not tax.is_open

    @pytest.mark.parametrize("is_inside", [False, True])
    async def test_who_waits_already_comes_after_it(self, session, mock, is_inside):
        law = await session.begin_turn(question(), answerer="law")
        tax = await in_context(session.begin_turn(question(), answerer="tax"))
        waiting = asyncio.create_task(in_context(session.send_message("next")))
        await asyncio.sleep(0.01)
        ending = tax.complete([answer("tax says so")])
        ending = asyncio.create_task(ending if is_inside else in_context(ending))
        await asyncio.sleep(0.01)
        await law.complete([answer("law says so")])
        await asyncio.gather(ending, waiting)
        texts = [each.text for each in mock.requests[-1].messages]
        assert texts == ["q", "law says so", "tax says so", "next"]

    async def test_a_changed_text_is_refused(self, session):
        law = await session.begin_turn(question(), answerer="law")
        with pytest.raises(MessageConflictError):
            await in_context(session.begin_turn(question("another"), answerer="tax"))
        await law.complete([answer("law says so")])

    async def test_a_middleware_sees_it_before_it_is_kept(self, session):
        class Refuses(ISessionMiddleware):
            async def process_outgoing_message(self, session, message):
                return message

            async def process_incoming_message(self, session, message):
                raise MessageRefusedError("no")

        law = await session.begin_turn(question(), answerer="law")
        tax = await in_context(session.begin_turn(question(), answerer="tax"))
        session.add_middleware(Refuses())
        with pytest.raises(MessageRefusedError):
            await tax.add([answer("tax says so")])
        await law.cancel()
        await tax.cancel()


async def in_context(coroutine):
    """Run something as if it were called elsewhere, outside of the turns that are open here."""
    return await asyncio.create_task(coroutine, context=Context())


def test_only_the_assistants_messages_say_whose_they_are():
    messages = [question(), answer("a")]
    assert marked(messages, None) == messages
    assert marked(messages, "") == messages
    first, second = marked(messages, "law")
    assert first == messages[0]
    assert second.metadata == {ANSWERER: "law"}
    assert answered_by([first, second]) == "law"
    assert answered_by(messages) == ""
    assert answered_by([]) == ""
