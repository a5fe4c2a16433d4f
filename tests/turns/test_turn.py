from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import os
import subprocess
import sys
import textwrap

import pytest

from langswarm_session import (
    IdempotencyConflictError,
    InvalidInputError,
    ISessionMiddleware,
    MessageConflictError,
    MessageRefusedError,
    MockFailure,
    NestedTurnError,
    ProviderTimeoutError,
    SessionMessage,
    SessionStorageError,
    TurnLostError,
    TurnStatus,
)
from langswarm_session.records import TurnEnd


def user(text, **fields):
    return SessionMessage(role="user", content=text, **fields)


def reply(text, **fields):
    return SessionMessage(role="assistant", content=text, **fields)


class TestLife:
    async def test_what_it_begins_with_is_stored_when_it_has_begun(self, session, texts, turns):
        turn = await session.begin_turn("x")
        assert turn.is_open
        assert not turn.replayed
        assert (turn.id, turn.messages) == (1, await session.get_messages())
        assert await turns(session) == ["open"]
        assert (await session.get_turns())[0].finished_at is None
        await turn.cancel()

    async def test_complete_stores_the_rest(self, session, turns):
        turn = await session.begin_turn([user("x")])
        stored = await turn.complete([reply("y")])
        assert [(m.seq, m.turn_id, m.text) for m in stored] == [(2, 1, "y")]
        assert turn.reply == stored[-1]
        assert turn.messages == await session.get_messages()
        assert not turn.is_open
        assert await turns(session) == ["complete"]

    async def test_what_is_added_is_stored_at_once(self, session, texts, turns):
        async with await session.begin_turn("x") as turn:
            await turn.add([reply("calling")])
            assert await texts(session) == ["x", "calling"]
            assert await turns(session) == ["open"]
            await turn.add([SessionMessage(role="tool", content="called")])
            await turn.complete([reply("y")])
        assert await texts(session) == ["x", "calling", "called", "y"]
        assert {m.turn_id for m in await session.get_messages()} == {1}
        assert await turns(session) == ["complete"]

    async def test_what_is_recorded_inside_belongs_to_it(self, session, texts):
        async with await session.begin_turn("x") as turn:
            await session.record(reply("calling"))
            await asyncio.create_task(session.record(SessionMessage(role="tool", content="called")))
            await turn.complete([reply("y")])
        assert [m.text for m in turn.messages] == ["x", "calling", "called", "y"]
        assert session.metrics.turn_count == 1

    async def test_what_is_recorded_inside_with_a_key_would_be_a_turn_of_its_own(self, session):
        async with await session.begin_turn("x"):
            with pytest.raises(NestedTurnError):
                await session.record(reply("y"), idempotency_key="k")

    async def test_a_block_that_ends_completes(self, session, turns):
        async with await session.begin_turn("x"):
            pass
        assert await turns(session) == ["complete"]

    async def test_a_block_that_raises_fails(self, session, turns):
        with pytest.raises(ValueError, match="why"):
            async with await session.begin_turn("x"):
                raise ValueError("why")
        assert await turns(session) == ["failed"]
        assert (await session.get_turns())[0].error == "ValueError: why"
        assert session.metrics.errors == 1

    async def test_an_error_that_cannot_say_itself_fails_it_too(self, session, turns):
        class SpeechlessError(Exception):
            def __str__(self):
                raise RuntimeError

        with pytest.raises(SpeechlessError):
            async with await session.begin_turn("x"):
                raise SpeechlessError
        assert await turns(session) == ["failed"]
        assert (await session.get_turns())[0].error == "SpeechlessError"

    @pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt, GeneratorExit])
    async def test_a_block_that_is_broken_off_cancels(self, session, turns, error):
        with pytest.raises(error):
            async with await session.begin_turn("x"):
                raise error
        assert await turns(session) == ["cancelled"]
        assert (await session.get_turns())[0].error
        assert session.metrics.errors == 0

    async def test_cancel_and_fail_keep_what_there_is(self, session, texts, turns):
        turn = await session.begin_turn("x")
        await turn.cancel([reply("par")], "the user left")
        turn = await session.begin_turn("y")
        await turn.fail(ValueError("why"), [reply("tial")])
        assert await texts(session) == ["x", "par", "y", "tial"]
        assert await turns(session) == ["cancelled", "failed"]
        errors = [turn.error for turn in await session.get_turns()]
        assert "the user left" in errors[0]
        assert errors[1] == "ValueError: why"

    async def test_what_ended_early_with_an_answer_stays_in_the_window(self, session):
        await (await session.begin_turn("x")).cancel([reply("par")])
        await (await session.begin_turn("y")).cancel()
        async with await session.begin_turn("z") as turn:
            assert [m.text for m in await turn.history()] == ["x", "par"]

    async def test_after_its_end_nothing_more_is_stored(self, session, texts, turns):
        turn = await session.begin_turn("x")
        await turn.complete([reply("y")])
        with pytest.raises(TurnLostError):
            await turn.complete([reply("z")])
        with pytest.raises(TurnLostError):
            await turn.add([reply("z")])
        await turn.cancel([reply("z")])
        await turn.fail(ValueError(), [reply("z")])
        assert await texts(session) == ["x", "y"]
        assert await turns(session) == ["complete"]

    async def test_a_refused_reply_leaves_it_open(self, session, texts, turns):
        class OnlyShort(ISessionMiddleware):
            async def process_incoming_message(self, session, message):
                if len(message.text) > 5:
                    raise MessageRefusedError("too long")
                return message

        session.add_middleware(OnlyShort())
        async with await session.begin_turn("x") as turn:
            with pytest.raises(MessageRefusedError):
                await turn.complete([reply("far too long")])
            assert turn.is_open
            await turn.complete([reply("short")])
        assert await texts(session) == ["x", "short"]

    async def test_a_conflicting_message_leaves_it_open(self, session, texts):
        turn = await session.begin_turn([user("x", id="m")])
        with pytest.raises(MessageConflictError):
            await turn.complete([reply("y", id="m")])
        await turn.complete([reply("y")])
        assert await texts(session) == ["x", "y"]

    async def test_a_reply_of_another_turn_leaves_it_open(self, session, texts):
        same = (await session.record([user("x"), reply("y")]))[-1]
        turn = await session.begin_turn("x")
        with pytest.raises(MessageConflictError) as caught:
            await turn.complete([same])
        assert (turn.is_open, caught.value.message_id) == (True, same.id)
        await turn.complete([reply("y")])
        assert await texts(session) == ["x", "y", "x", "y"]

    async def test_a_reply_whose_id_is_taken_can_be_given_another(self, session):
        await session.record([user("x"), reply("y", id="1"), reply("y", id="2")])
        turn = await session.begin_turn([user("x", id="3")])
        turn.rename = lambda message: message.replaced(id=f"{message.id} again")
        replies = [reply("a", id="2"), reply("b", id="4"), reply("y", id="1"), reply("c", id="3")]
        stored = await turn.complete(replies)
        assert stored == (await session.get_messages())[-4:]
        assert [message.id for message in stored] == ["2 again", "4", "1 again", "3 again"]
        assert [message.text for message in stored] == ["a", "b", "y", "c"]

    async def test_a_part_of_a_reply_is_kept_under_another_id_too(self, session, texts):
        await session.record([user("x"), reply("y", id="1")])
        turn = await session.begin_turn("x")
        turn.rename = lambda message: message.replaced(id="2")
        await turn.cancel([reply("y", id="1")])
        assert await texts(session) == ["x", "y", "x", "y"]

    async def test_a_conflicting_message_cannot_keep_it_from_ending(self, session, turns):
        turn = await session.begin_turn([user("x", id="m")])
        await turn.cancel([reply("y", id="m")])
        assert await turns(session) == ["cancelled"]
        assert (await session.send_message("z", wait=0)).text == "You said: z"

    async def test_a_providers_state_is_kept_for_the_next(self, make_manager):
        session = await make_manager().create_session("ann", "mock", "echo")
        async with await session.begin_turn("x") as turn:
            state = {"provider_session_id": "native", "provider_context": {"cursor": 3}}
            await turn.complete([reply("y")], provider_state=state)
        again = await make_manager().get_session(session.session_id)
        assert again.context.provider_session_id == "native"
        assert again.context.provider_context == {"cursor": 3}

    async def test_its_history_is_what_came_before_it(self, session):
        await session.send_message("one")
        async with await session.begin_turn("two") as turn:
            await turn.add([reply("adding")])
            assert [m.text for m in await turn.history()] == ["one", "You said: one"]

    async def test_nothing_begins_no_turn(self, session):
        with pytest.raises(InvalidInputError, match="a turn begins with"):
            await session.begin_turn([])
        assert await session.get_turns() == []
        assert (await session.send_message("x", wait=0)).text == "You said: x"


class TestTakenOver:
    @pytest.fixture
    async def lost(self, manager, session):
        """A turn that somebody else ended, as it would be had its lease run out."""
        turn = await session.begin_turn("x")
        end = TurnEnd(turn.token, TurnStatus.FAILED, error="taken over")
        await manager.storage.end_turn(session.ref, end, [])
        return turn

    async def test_nothing_more_is_stored(self, lost, session, texts, turns):
        with pytest.raises(TurnLostError) as caught:
            await lost.complete([reply("y")])
        assert caught.value.session_id == session.session_id
        assert await texts(session) == ["x"]
        assert await turns(session) == ["failed"]

    @pytest.mark.parametrize("ending", ["complete", "cancel"])
    async def test_the_next_turn_goes_ahead(self, lost, session, texts, ending):
        with contextlib.suppress(TurnLostError):
            await getattr(lost, ending)()
        await session.send_message("z", wait=0)
        assert await texts(session) == ["x", "z", "You said: z"]


class TestNested:
    """Waiting for the turn that one runs in would never end."""

    async def test_a_turn_in_a_turn(self, session, texts):
        async with await session.begin_turn("outer") as turn:
            with pytest.raises(NestedTurnError, match="inside a turn"):
                await session.send_message("inner")
            with pytest.raises(NestedTurnError):
                await session.begin_turn("inner")
            with pytest.raises(NestedTurnError):
                await session.clear_messages()
            with pytest.raises(NestedTurnError):
                await anext(session.stream_message("inner"))
            await turn.complete([reply("y")])
        assert await texts(session) == ["outer", "y"]

    async def test_by_gather(self, session, texts):
        async with await session.begin_turn("outer"):
            outcomes = await asyncio.gather(
                *(session.send_message("inner") for _ in range(3)), return_exceptions=True
            )
        assert [type(outcome) for outcome in outcomes] == [NestedTurnError] * 3
        assert await texts(session) == ["outer"]

    async def test_by_a_task(self, session):
        async with await session.begin_turn("outer"):
            with pytest.raises(NestedTurnError):
                await asyncio.create_task(session.send_message("inner"))

    async def test_by_a_thread(self, session):
        async with await session.begin_turn("outer"):
            with pytest.raises(NestedTurnError):
                await asyncio.to_thread(asyncio.run, session.send_message("inner"))

    async def test_by_another_object_of_the_same_session(self, manager, session):
        other = await manager.get_session(session.session_id)
        async with await session.begin_turn("outer"):
            with pytest.raises(NestedTurnError):
                await other.send_message("inner")

    async def test_a_turn_of_another_session_is_fine(self, manager, session, texts):
        other = await manager.create_session("ann", "mock", "echo")
        async with await session.begin_turn("outer") as turn:
            inner = await other.send_message("inner")
            await turn.complete([reply(inner.text)])
        assert await texts(session) == ["outer", "You said: inner"]

    async def test_a_task_that_outlives_the_turn_may_begin_one(self, session, texts):
        over = asyncio.Event()

        async def later():
            await over.wait()
            return await session.send_message("later")

        async with await session.begin_turn("first"):
            task = asyncio.create_task(later())
        over.set()
        await task
        assert await texts(session) == ["first", "later", "You said: later"]


class TestAgain:
    async def test_a_complete_turn_is_given_back(self, session, texts):
        async with await session.begin_turn("x", idempotency_key="k") as turn:
            await turn.complete([reply("y")])
        again = await session.begin_turn("x", idempotency_key="k")
        assert again.replayed
        assert not again.is_open
        assert [m.text for m in again.messages] == ["x", "y"]
        assert again.reply == turn.reply
        async with again:
            pass
        assert await texts(session) == ["x", "y"]

    async def test_a_failed_one_begins_again_with_what_it_had(self, session, texts, turns):
        first = await session.begin_turn("x", idempotency_key="k")
        await first.fail(ValueError(), [reply("par")])
        async with await session.begin_turn("x", idempotency_key="k") as turn:
            assert turn.id == first.id
            assert [m.text for m in turn.messages] == ["x"]
            await turn.complete([reply("y")])
        assert await texts(session) == ["x", "y"]
        assert await turns(session) == ["complete"]

    async def test_a_failed_one_that_others_followed_begins_anew(self, session, texts, turns):
        await (await session.begin_turn("x", idempotency_key="k")).fail(ValueError())
        await session.record(user("between"))
        async with await session.begin_turn("x", idempotency_key="k") as turn:
            assert [m.text for m in await turn.history()] == ["between"]
            await turn.complete([reply("y")])
        assert await turns(session) == ["failed", "complete", "complete"]
        assert (await session.begin_turn("x", idempotency_key="k")).replayed

    async def test_a_key_of_another_message(self, session, texts):
        await session.record(user("x"), idempotency_key="k")
        with pytest.raises(IdempotencyConflictError, match="'k'"):
            await session.begin_turn("y", idempotency_key="k")
        assert await texts(session) == ["x"]

    async def test_keys_are_of_one_session(self, manager, session):
        other = await manager.create_session("ann", "mock", "echo")
        await session.record(user("x"), idempotency_key="k")
        await other.record(user("y"), idempotency_key="k")

    async def test_all_it_begins_with_is_there_the_second_time(self, session):
        """Where an assistant's message is part of the question, as in a few-shot prompt."""
        shots = [user("2+2?"), reply("4"), user("3+3?")]
        first = await session.begin_turn(shots, idempotency_key="k")
        await first.fail(ValueError())
        async with await session.begin_turn(shots, idempotency_key="k") as turn:
            assert [m.text for m in turn.messages] == ["2+2?", "4", "3+3?"]

    @pytest.mark.parametrize("way", ["sent", "streamed"])
    @pytest.mark.parametrize("key", ["k", None], ids=["with a key", "without"])
    async def test_what_was_only_recorded_is_answered(self, session, mock, turns, key, way):
        asked = user("x")
        await session.record(asked, idempotency_key=key)
        if way == "sent":
            answer = await session.send_message(asked, idempotency_key=key)
        else:
            stream = session.stream_message(asked, idempotency_key=key)
            answer = [event.message async for event in stream][-1]
        assert (answer.role, answer.text) == ("assistant", "You said: x")
        assert await session.send_message(asked, idempotency_key=key) == answer
        assert await session.record(asked, idempotency_key=key)
        assert await turns(session) == ["complete"]
        assert len(mock.requests) == 1

    async def test_a_reply_that_was_removed_is_generated_anew(self, session, mock, texts):
        asked = user("x")
        await session.send_message(asked)
        await session.edit_messages(expected_revision=session.revision, remove=[2])
        assert (await session.send_message(asked)).text == "You said: x"
        assert await texts(session) == ["x", "You said: x"]
        assert len(mock.requests) == 2

    async def test_the_answer_to_the_first_of_several_is_not_the_last_of_them(self, session):
        first = user("x")
        await session.record([first, reply("y"), user("z")])
        assert (await session.send_message(first)).text == "y"

    async def test_a_stored_message_before_a_new_one_does_not_swallow_it(self, session, texts):
        old = user("old")
        await session.record(old)
        async with await session.begin_turn([old, user("new")]) as turn:
            await turn.complete([reply("y")])
        assert await texts(session) == ["old", "new", "y"]

    @pytest.mark.parametrize("key", ["k", None], ids=["with a key", "without"])
    async def test_nor_does_it_bring_half_a_reply_back(self, session, texts, key):
        old, new = user("old"), user("new")
        await session.record(old)
        first = await session.begin_turn([old, new], idempotency_key=key)
        await first.fail(ValueError(), [reply("half a re")])
        async with await session.begin_turn([old, new], idempotency_key=key) as turn:
            assert [m.text for m in turn.messages] == ["new"]
            await turn.complete([reply("a reply")])
        assert await texts(session) == ["old", "new", "a reply"]

    async def test_a_stored_message_is_not_sent_twice(self, session, mock):
        old = user("old")
        await session.record(old)
        async with await session.begin_turn([user("new"), old]) as turn:
            window = [*await turn.history(), *turn.messages]
        assert sorted(m.text for m in window) == ["new", "old"]


class TestStorageFails:
    @pytest.fixture
    def broken(self, manager, session, monkeypatch):
        """A storage that ends no turn."""

        async def end_turn(*args):
            raise SessionStorageError("the disk is on fire")

        monkeypatch.setattr(manager.storage, "end_turn", end_turn)

    async def test_a_reply_that_was_not_stored_is_not_returned(self, broken, session, texts):
        with pytest.raises(SessionStorageError, match="on fire"):
            await session.send_message("x")
        assert await texts(session) == ["x"]

    async def test_the_error_that_ended_the_turn_is_the_one_to_be_raised(
        self, broken, session, mock, caplog
    ):
        mock.fail_next(MockFailure.TIMEOUT)
        with pytest.raises(ProviderTimeoutError):
            await session.send_message("x")
        assert "was not stored" in caplog.text

    async def test_once_it_works_again_so_do_turns(self, manager, session, turns, monkeypatch):
        with monkeypatch.context() as patch:

            async def end_turn(*args):
                raise SessionStorageError("the disk is on fire")

            patch.setattr(manager.storage, "end_turn", end_turn)
            with pytest.raises(SessionStorageError):
                await session.send_message("x")
        # Nobody need wait for the end of a lease that was ours.
        assert (await session.send_message("y", wait=0)).text == "You said: y"
        assert await turns(session) == ["failed", "complete"]
        assert "on fire" in (await session.get_turns())[0].error

    async def test_as_long_as_it_does_not_work_that_is_told(self, broken, manager, session):
        for _ in range(3):
            with pytest.raises(SessionStorageError, match="on fire"):
                await session.send_message("x", wait=0)

    async def test_a_turn_that_ended_after_all_is_not_ended_again(
        self, manager, session, turns, monkeypatch
    ):
        turn = await session.begin_turn("x")
        end = TurnEnd(turn.token, TurnStatus.COMPLETE)
        with monkeypatch.context() as patch:

            async def end_turn(*args):
                raise SessionStorageError("the disk is on fire")

            patch.setattr(manager.storage, "end_turn", end_turn)
            await turn.fail(ValueError())
        await manager.storage.end_turn(session.ref, end, [])
        assert (await session.send_message("y", wait=0)).text == "You said: y"
        assert await turns(session) == ["complete", "complete"]


class TestMiddlewareThatDoesNotLetGo:
    """What broke a turn off may do the same to what there was of the reply."""

    class Moderation(ISessionMiddleware):
        def __init__(self):
            self.asked = asyncio.Event()
            self.answers = asyncio.Event()

        async def process_incoming_message(self, session, message):
            self.asked.set()
            await self.answers.wait()
            return message

    @pytest.fixture
    def moderation(self, session):
        session.add_middleware(moderation := self.Moderation())
        return moderation

    async def _cancelled_stream(self, session, moderation):
        """A task that reads a stream, cancelled while the middleware has the reply."""

        async def read():
            async for _ in session.stream_message("x"):
                pass

        reading = asyncio.create_task(read())
        await moderation.asked.wait()
        moderation.asked.clear()
        reading.cancel()
        return reading

    async def _check_free(self, session, moderation):
        moderation.answers.set()
        assert (await session.send_message("y", wait=0)).text == "You said: y"

    async def test_one_that_hangs_costs_what_there_was_of_the_reply(
        self, session, moderation, texts, turns, monkeypatch, caplog
    ):
        monkeypatch.setattr("langswarm_session.turns.endings.PARTIAL_SECONDS", 0)
        reading = await self._cancelled_stream(session, moderation)
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await turns(session) == ["cancelled"]
        assert await texts(session) == ["x"]
        assert "partial reply was lost: the middleware took longer" in caplog.text
        await self._check_free(session, moderation)

    @pytest.mark.parametrize("times", [1, 5])
    async def test_further_cancellations_lose_nothing(
        self, session, moderation, texts, turns, monkeypatch, times
    ):
        monkeypatch.setattr("langswarm_session.turns.endings.PARTIAL_SECONDS", None)
        reading = await self._cancelled_stream(session, moderation)
        await moderation.asked.wait()  # again, with what there was
        for _ in range(times):
            reading.cancel()
            await asyncio.sleep(0)
        moderation.answers.set()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await texts(session) == ["x", "You said: x"]
        assert await turns(session) == ["cancelled"]
        await self._check_free(session, moderation)

    async def test_a_caller_that_is_cancelled_again_waits_for_so_long_and_no_longer(
        self, session, moderation, texts, turns, monkeypatch
    ):
        monkeypatch.setattr("langswarm_session.turns.endings.PARTIAL_SECONDS", None)
        monkeypatch.setattr("langswarm_session.turns.endings.SETTLE_SECONDS", 0)
        reading = await self._cancelled_stream(session, moderation)
        await moderation.asked.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await turns(session) == ["open"]
        moderation.answers.set()
        assert (await session.send_message("y", wait=10)).text == "You said: y"
        assert await texts(session) == ["x", "You said: x", "y", "You said: y"]

    async def test_one_that_is_cancelled_itself(self, session, texts, turns, caplog):
        class Cancelled(ISessionMiddleware):
            async def process_incoming_message(self, session, message):
                raise asyncio.CancelledError

        turn = await session.begin_turn("x")
        session.add_middleware(Cancelled())
        with pytest.raises(ValueError, match="why"):
            async with turn:
                turn.received("par")
                raise ValueError("why")
        assert await turns(session) == ["failed"]
        assert await texts(session) == ["x"]
        assert "partial reply was lost: the middleware was cancelled" in caplog.text
        assert await session.record(user("y"), wait=0)


class TestForgotten:
    async def test_a_dropped_turn_lets_the_next_one_in(self, session, caplog):
        async def forget():
            await session.begin_turn("x")

        await asyncio.create_task(forget())
        gc.collect()
        assert (await session.send_message("y", wait=5)).text == "You said: y"
        assert "dropped" in caplog.text

    async def test_a_deleted_session_takes_its_turn_along(self, manager, session):
        turn = await session.begin_turn("x")
        await manager.delete_session(session.session_id)
        await turn.cancel()
        assert not turn.is_open


@pytest.mark.parametrize("stop", ["before", "after"])
async def test_a_block_cancelled_at_its_very_end_leaves_no_turn_open(
    make_manager, turns, monkeypatch, stop
):
    manager = make_manager()
    session = await manager.create_session("ann", "mock", "echo")
    end_turn = manager.storage.end_turn
    reached = asyncio.Event()

    async def stopping(*args):
        monkeypatch.undo()
        appended = await end_turn(*args) if stop == "after" else None
        reached.set()
        await asyncio.Event().wait()
        return appended

    async def run():
        with contextlib.suppress(asyncio.CancelledError):
            async with await session.begin_turn("x"):
                monkeypatch.setattr(manager.storage, "end_turn", stopping)
        return await session.send_message("y", wait=0)

    task = asyncio.create_task(run())
    await reached.wait()
    task.cancel()
    assert (await task).text == "You said: y"
    assert "open" not in await turns(session)


class TestEndBy:
    """A turn that something broke off, of whoever runs turns of their own."""

    @pytest.mark.parametrize(
        ("error", "status", "why"),
        [
            (ValueError("no"), "failed", "ValueError: no"),
            (asyncio.CancelledError(), "cancelled", "CancelledError"),
            (GeneratorExit(), "cancelled", "GeneratorExit"),
            (KeyboardInterrupt(), "cancelled", "KeyboardInterrupt"),
        ],
        ids=lambda value: getattr(value, "__name__", str(type(value).__name__)),
    )
    async def test_the_error_says_how(self, session, turns, error, status, why):
        turn = await session.begin_turn("x")
        await turn.end_by(error, [reply("so far")])
        assert await turns(session) == [status]
        assert (await session.get_turns())[0].error == why
        last = (await session.get_messages())[-1]
        assert (last.text, last.finish_reason) == ("so far", status)
        assert not turn.is_open

    async def test_a_turn_that_has_ended_stays_as_it_is(self, session, turns):
        turn = await session.begin_turn("x")
        await turn.complete([reply("y")])
        await turn.end_by(ValueError("late"), [reply("z")])
        assert await turns(session) == ["complete"]
        assert len(await session.get_messages()) == 2


class TestEnter:
    """Frameworks run the steps of a turn in contexts of their own."""

    async def test_another_context_is_inside_of_the_turn(self, session, texts):
        outside = contextvars.copy_context()
        turn = await session.begin_turn("x")

        async def inside():
            turn.enter()
            turn.enter()
            await session.record(reply("from a tool"))
            with pytest.raises(NestedTurnError):
                await session.send_message("y")

        await asyncio.create_task(inside(), context=outside.copy())
        assert [m.text for m in turn.messages] == ["x", "from a tool"]
        await turn.complete([reply("z")])
        assert await texts(session) == ["x", "from a tool", "z"]

    async def test_a_turn_that_has_ended_is_not_entered(self, session, turns):
        outside = contextvars.copy_context()
        turn = await session.begin_turn("x")
        await turn.complete([reply("y")])

        async def later():
            turn.enter()
            await session.send_message("again")

        await asyncio.create_task(later(), context=outside)
        assert await turns(session) == ["complete", "complete"]


@pytest.mark.parametrize("how", ["sys.exit(0)", "raise ValueError", "pass"])
def test_a_forked_child_that_leaves_a_turn_leaves_it_to_its_parent(tmp_path, how):
    program = f"""
        import asyncio, os, sys
        from langswarm_session import SessionManager
        parent = os.getpid()

        async def main():
            manager = SessionManager("sqlite", storage_config={{"db_path": sys.argv[1]}})
            session = await manager.create_session("ann", "mock", "echo")
            try:
                async with await session.begin_turn("x") as turn:
                    if child := os.fork():
                        assert os.waitpid(child, 0)[1] == 0
                    else:
                        {how}
                outcome = "left"
            except BaseException as error:
                outcome = type(error).__name__
            if os.getpid() != parent:
                print(outcome, flush=True)
                os._exit(0)
            print([turn.status.value for turn in await session.get_turns()], outcome)

        asyncio.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "sessions.db")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    outcome = {"sys.exit(0)": "SystemExit", "raise ValueError": "ValueError", "pass": "left"}[how]
    assert done.stdout.splitlines() == [outcome, "['complete'] left"], done.stderr
