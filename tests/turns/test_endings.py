"""How turns end: cancelled, given up with their loop, closed with their manager, or stopped."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import anyio
import pytest

from langswarm_session import (
    InMemorySessionStorage,
    ISessionMiddleware,
    ManagerClosedError,
    MessageRefusedError,
    MockProviderSession,
    ProviderSessionError,
    SessionManager,
    SessionMessage,
    SQLiteSessionStorage,
    StreamEvent,
    TurnCancelledError,
    TurnLostError,
)
from langswarm_session._sync import bridge
from langswarm_session.models import TurnStatus
from langswarm_session.records import ProviderReply, TurnEnd
from langswarm_session.turns.endings import Stop, settled


def reply(text):
    return SessionMessage(role="assistant", content=text)


class Endless(MockProviderSession):
    """Says one piece after the other, and is never done."""

    def __init__(self, **options):
        super().__init__(**options)
        self.asked = asyncio.Event()
        self.let_go = 0

    async def send_message(self, request):
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.let_go += 1

    async def stream_message(self, request):
        number = 0
        try:
            while True:
                yield StreamEvent(text=f"{number} ")
                number += 1
                self.asked.set()
                await asyncio.sleep(0.001)
        finally:
            self.let_go += 1


@pytest.fixture
def endless(manager):
    provider = Endless()
    manager.add_provider_session("mock", provider)
    return provider


async def read(stream, pieces):
    async with aclosing(stream):
        async for event in stream:
            pieces.append(str(event))


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait for a condition; the test's own time limit is the only one."""
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - of any kind
            await asyncio.sleep(0.01)


def there_is(pieces):
    """Waits until something is in a list."""
    return lambda: until(lambda: asyncio.sleep(0, pieces))


async def in_task_group(reading, ready):
    async with anyio.create_task_group() as group:
        group.start_soon(reading)
        await ready()
        group.cancel_scope.cancel()


async def in_scope(reading, ready):
    with anyio.CancelScope() as scope:

        async def cancel():
            await ready()
            scope.cancel()

        cancelling = asyncio.create_task(cancel())
        await reading()
    await cancelling


async def twice(reading, ready):
    task = asyncio.create_task(reading())
    await ready()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([task])


async def again_and_again(reading, ready):
    task = asyncio.create_task(reading())
    await ready()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)


WAYS = [in_task_group, in_scope, twice, again_and_again]


class TestCancelled:
    """Nothing that happens to the reader's task keeps what it was shown out of the log."""

    @pytest.mark.parametrize("way", WAYS)
    async def test_a_stream(self, session, endless, texts, turns, way):
        pieces = []
        await way(lambda: read(session.stream_message("x"), pieces), there_is(pieces))
        await until(lambda: is_free(session))
        assert pieces
        assert await texts(session) == ["x", "".join(pieces)]
        assert await turns(session) == ["cancelled"]

    @pytest.mark.parametrize("way", WAYS)
    async def test_a_message(self, session, endless, turns, way):
        await way(lambda: session.send_message("x"), endless.asked.wait)
        await until(lambda: is_free(session))
        assert await turns(session) == ["cancelled"]

    @pytest.mark.parametrize("way", WAYS)
    async def test_a_turn_of_ones_own(self, session, texts, turns, way):
        async def answer():
            async with await session.begin_turn("x") as turn:
                turn.received("half an ")
                begun.set()
                await asyncio.Event().wait()

        begun = asyncio.Event()
        await way(answer, begun.wait)
        await until(lambda: is_free(session))
        assert await texts(session) == ["x", "half an "]
        assert await turns(session) == ["cancelled"]

    @pytest.mark.parametrize("way", WAYS)
    async def test_the_middleware_sees_what_was_shown(self, session, endless, texts, way):
        class Slow(ISessionMiddleware):
            async def process_incoming_message(self, session, message):
                for _ in range(50):
                    await asyncio.sleep(0)
                return message.replaced(content=f"<{message.text}>")

        session.add_middleware(Slow())
        pieces = []
        await way(lambda: read(session.stream_message("x"), pieces), there_is(pieces))
        await until(lambda: is_free(session))
        assert await texts(session) == ["x", f"<{''.join(pieces)}>"]

    async def test_what_a_middleware_refuses_is_not_kept(self, session, endless, texts):
        class Refusing(ISessionMiddleware):
            async def process_incoming_message(self, session, message):
                raise MessageRefusedError("no")

        session.add_middleware(Refusing())
        pieces = []
        await in_scope(lambda: read(session.stream_message("x"), pieces), there_is(pieces))
        await until(lambda: is_free(session))
        assert await texts(session) == ["x"]

    @pytest.mark.parametrize("way", WAYS)
    async def test_a_beginning(self, session, endless, turns, way, monkeypatch):
        begin_turn = session.core.storage.begin_turn

        async def slow(*args, **options):
            start = await begin_turn(*args, **options)
            begun.set()
            await asyncio.Event().wait()
            return start

        begun = asyncio.Event()
        monkeypatch.setattr(session.core.storage, "begin_turn", slow)
        await way(lambda: session.send_message("x"), begun.wait)
        monkeypatch.undo()
        await until(lambda: is_free(session))
        assert await turns(session) == ["cancelled"]

    async def test_the_caller_has_been_waited_for(self, session, endless, turns):
        task = asyncio.create_task(session.send_message("x"))
        await endless.asked.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await turns(session) == ["cancelled"]
        assert endless.let_go == 1


async def is_free(session):
    return (await session.core.storage.get_session(session.ref)).turn_token is None


class TestSettled:
    async def test_a_result(self):
        step = asyncio.get_running_loop().create_future()
        step.set_result(5)
        assert await settled(step) == 5

    async def test_an_error(self):
        step = asyncio.get_running_loop().create_future()
        step.set_exception(ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            await settled(step)

    @pytest.mark.parametrize("outcome", ["result", "error"])
    async def test_a_cancellation_comes_when_it_is_done(self, outcome):
        step = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(settled(step))
        for _ in range(5):
            await asyncio.sleep(0)
            waiting.cancel()
        await asyncio.sleep(0)
        assert not waiting.done()
        if outcome == "result":
            step.set_result(None)
        else:
            step.set_exception(ZeroDivisionError())
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_loop_that_is_shut_down_while_a_turn_ends(manager, session, texts, turns):
    """`asyncio.run` cancels all that is left, and the turn's last step with it."""

    class Slow(ISessionMiddleware):
        async def process_incoming_message(self, session, message):
            asked.set()
            await asyncio.sleep(0.1)
            return message

    asked, pieces = threading.Event(), []
    session.add_middleware(Slow())
    manager.add_provider_session("mock", MockProviderSession(piece_delay=0.001))

    async def leave():
        task = asyncio.create_task(read(session.stream_message("word " * 1_000), pieces))
        await there_is(pieces)()
        task.cancel()
        await until(lambda: asyncio.sleep(0, asked.is_set()))

    await asyncio.to_thread(lambda: asyncio.run(leave()))
    assert (await texts(session))[1:] == ["".join(pieces)]
    assert await turns(session) == ["cancelled"]


class TestClosedLoop:
    """As Streamlit reads an async generator: with a loop that is closed in between."""

    @pytest.fixture
    def given_up(self):
        """Runs something on a loop that is closed afterwards, in a thread that has no other."""

        def give_up(start):
            def work():
                loop = asyncio.new_event_loop()
                try:
                    return loop.run_until_complete(start())
                finally:
                    loop.close()

            return asyncio.to_thread(work)

        return give_up

    async def test_a_stream_that_is_still_held(self, session, given_up, texts, turns):
        stream = session.stream_message("one two three")
        first = await given_up(lambda: anext(stream))
        assert (await session.send_message("next", wait=30)).text == "You said: next"
        log = await texts(session)
        assert log[:2] == ["one two three", str(first)]
        assert await turns(session) == ["cancelled", "complete"]
        with pytest.raises(TurnLostError, match="loop was closed"):
            await anext(stream)

    @pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
    async def test_a_stream_that_was_dropped(self, session, given_up, texts, turns):
        async def start():
            stream = session.stream_message("one two three")
            held.append(stream)
            return str(await anext(stream))

        held = []
        first = await given_up(start)
        held.clear()
        gc.collect()
        await session.send_message("next", wait=30)
        assert (await texts(session))[:2] == ["one two three", first]
        assert await turns(session) == ["cancelled", "complete"]

    async def test_a_turn_that_is_still_held(self, session, given_up, texts, turns):
        async def start():
            turn = await session.begin_turn("x")
            turn.received("half an ")
            return turn

        turn = await given_up(start)
        await session.send_message("next", wait=30)
        assert (await texts(session))[:2] == ["x", "half an "]
        with pytest.raises(TurnLostError):
            await turn.complete([reply("late")])
        with pytest.raises(TurnLostError):
            await turn.add([reply("late")])
        assert await turns(session) == ["cancelled", "complete"]

    async def test_what_sync_code_began_has_no_loop(self, session, turns):
        turn = await asyncio.to_thread(lambda: bridge.run(session.begin_turn("x")))
        assert turn.loop is None
        nested = []

        async def inside():
            nested.append(bridge.run(session.begin_turn("y")))

        await turn.complete([reply("z")])
        await asyncio.to_thread(lambda: bridge.run(inside()))
        assert nested[0].loop is None
        await nested[0].complete([reply("z")])
        assert await turns(session) == ["complete", "complete"]


class TestStandingLoop:
    async def test_a_turn_on_it_is_ended(self, make_manager, texts, turns):
        manager = make_manager(stall_seconds=0.1)
        session = await manager.create_session("ann", "mock", "echo")
        go, standing, outcome = threading.Event(), threading.Event(), []

        async def block():
            turn = await session.begin_turn("x")
            turn.received("half an ")
            standing.set()
            go.wait()
            try:
                await turn.complete([reply("late")])
            except TurnLostError as error:
                outcome.append(error)

        thread = threading.Thread(target=lambda: asyncio.run(block()))
        thread.start()
        try:
            await asyncio.to_thread(standing.wait)
            await session.send_message("next", wait=60)
        finally:
            go.set()
            await asyncio.to_thread(thread.join)
        assert (await texts(session))[:2] == ["x", "half an "]
        assert await turns(session) == ["cancelled", "complete"]
        assert "stood still" in str(outcome[0])
        assert "stood still" in (await session.get_turns())[0].error


class TestCancel:
    """`BaseSession.cancel`, from wherever it is called."""

    async def test_nothing_runs(self, session):
        assert await session.cancel() is False
        await session.send_message("x")
        assert await session.cancel() is False

    async def here(self, session, make_manager):
        return await session.cancel()

    async def by_another_object(self, session, make_manager):
        return await (await session.manager.get_session(session.session_id)).cancel()

    async def on_another_loop(self, session, make_manager):
        return await asyncio.to_thread(lambda: asyncio.run(session.cancel()))

    async def in_sync_code(self, session, make_manager):
        return await asyncio.to_thread(lambda: bridge.run(session.cancel()))

    async def in_sync_code_on_its_own_loop(self, session, make_manager):
        return bridge.run(session.cancel())

    async def by_another_manager(self, session, make_manager):
        """As another process does."""
        return await (await make_manager().get_session(session.session_id)).cancel()

    async def by_a_user(self, session, make_manager):
        view = make_manager().for_user(session.user_id)
        return await (await view.get_session(session.session_id)).cancel()

    FROM = (
        *(here, by_another_object, on_another_loop, in_sync_code),
        *(in_sync_code_on_its_own_loop, by_another_manager, by_a_user),
    )

    @pytest.mark.parametrize("way", FROM)
    async def test_a_message(self, session, endless, turns, make_manager, way):
        async def ask():
            with pytest.raises(TurnCancelledError) as caught:
                await session.send_message("x")
            assert asyncio.current_task().cancelling() == 0
            await asyncio.sleep(0)  # the task goes on: it was not cancelled
            return caught.value

        task = asyncio.create_task(ask())
        await endless.asked.wait()
        assert await way(self, session, make_manager) is True
        assert await is_free(session)
        error = await task
        assert error.session_id == session.session_id
        assert endless.let_go == 1
        assert await turns(session) == ["cancelled"]
        assert "session.cancel()" in (await session.get_turns())[0].error

    @pytest.mark.parametrize("way", FROM)
    async def test_a_stream(self, session, endless, texts, turns, make_manager, way):
        pieces = []
        task = asyncio.create_task(read(session.stream_message("x"), pieces))
        await endless.asked.wait()
        assert await way(self, session, make_manager) is True
        assert await turns(session) == ["cancelled"]
        with pytest.raises(TurnCancelledError):
            await task
        assert await texts(session) == ["x", "".join(pieces)]
        assert endless.let_go == 1

    @pytest.mark.parametrize("way", FROM)
    async def test_a_stream_whose_reader_is_busy(
        self, session, endless, texts, turns, make_manager, way
    ):
        """Nothing of the reader's own is cancelled; it is told when it asks for more."""
        async with aclosing(session.stream_message("x")) as stream:
            first = str(await anext(stream))
            assert await way(self, session, make_manager) is True
            assert await texts(session) == ["x", first]
            assert await turns(session) == ["cancelled"]
            with pytest.raises(TurnCancelledError):
                await anext(stream)
        assert endless.let_go == 1

    @pytest.mark.parametrize("way", FROM)
    async def test_a_turn_of_ones_own(self, session, texts, turns, make_manager, way):
        turn = await session.begin_turn("x")
        turn.received("half an ")
        assert await way(self, session, make_manager) is True
        assert not turn.is_open
        assert await texts(session) == ["x", "half an "]
        assert await turns(session) == ["cancelled"]
        for use in (turn.add, turn.complete):
            with pytest.raises(TurnCancelledError):
                await use([reply("late")])
        with pytest.raises(TurnCancelledError):
            turn.check()
        with pytest.raises(TurnCancelledError), turn.answering():
            pytest.fail("it was entered")

    async def test_the_next_turn_goes_ahead(self, session, endless, mock):
        task = asyncio.create_task(session.send_message("x"))
        await endless.asked.wait()
        waiting = asyncio.create_task(session.record(reply("y"), wait=30))
        await session.cancel()
        assert [message.text for message in await waiting] == ["y"]
        await asyncio.wait([task])
        assert isinstance(task.exception(), TurnCancelledError)

    async def test_from_inside(self, session, texts, turns):
        """A tool that is called within the turn stops it."""
        with pytest.raises(TurnCancelledError):
            async with await session.begin_turn("x") as turn:
                turn.received("half an ")
                with turn.answering():
                    await session.cancel()
        assert await texts(session) == ["x", "half an "]
        assert await turns(session) == ["cancelled"]

    async def test_a_provider_that_does_not_let_go_holds_up_nobody(
        self, manager, session, texts, turns
    ):
        let_go = asyncio.Event()

        class Stubborn(MockProviderSession):
            async def stream_message(self, request):
                yield StreamEvent(text="one")
                while not let_go.is_set():
                    with contextlib.suppress(asyncio.CancelledError):
                        await let_go.wait()
                yield StreamEvent(text="two")

        manager.add_provider_session("mock", Stubborn())
        pieces = []
        task = asyncio.create_task(read(session.stream_message("x"), pieces))
        await there_is(pieces)()
        assert await session.cancel() is True
        assert await texts(session) == ["x", "one"]
        assert await turns(session) == ["cancelled"]
        let_go.set()
        with pytest.raises(TurnCancelledError):
            await task
        assert await texts(session) == ["x", "one"]

    async def test_a_task_that_is_cancelled_as_well_is_cancelled(self, session, endless):
        task = asyncio.create_task(session.send_message("x"))
        await endless.asked.wait()
        canceller = asyncio.create_task(session.cancel())
        await asyncio.sleep(0)
        task.cancel()
        await canceller
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_two_at_once(self, session, endless, turns, make_manager):
        task = asyncio.create_task(session.send_message("x"))
        await endless.asked.wait()
        other = await make_manager().get_session(session.session_id)
        assert all(await asyncio.gather(session.cancel(), session.cancel(), other.cancel()))
        with pytest.raises(TurnCancelledError):
            await task
        assert await turns(session) == ["cancelled"]

    async def test_a_turn_that_completes_meanwhile_is_whole(self, session, texts, turns):
        class Slow(ISessionMiddleware):
            async def process_incoming_message(self, session, message):
                reached.set()
                await asyncio.sleep(0.05)
                return message

        reached = asyncio.Event()
        session.add_middleware(Slow())
        task = asyncio.create_task(session.send_message("x"))
        await reached.wait()
        assert await session.cancel() is True
        assert (await task).text == "You said: x"
        assert await texts(session) == ["x", "You said: x"]
        assert await turns(session) == ["complete"]

    @pytest.mark.parametrize("end", ["cancel", "close"])
    async def test_a_middleware_that_waits_for_long_is_interrupted(
        self, make_manager, texts, turns, end
    ):
        class Waiting(ISessionMiddleware):
            async def process_incoming_message(self, session, message):
                if not reached.is_set():
                    reached.set()
                    await asyncio.Event().wait()
                return message

        reached = asyncio.Event()
        manager = make_manager()
        session = await manager.create_session("ann", "mock", "echo")
        session.add_middleware(Waiting())
        pieces = []
        task = asyncio.create_task(read(session.stream_message("x"), pieces))
        await reached.wait()
        await (session.cancel() if end == "cancel" else manager.close())
        with pytest.raises(TurnCancelledError):
            await task
        session = await make_manager().get_session(session.session_id)
        assert await texts(session) == ["x", "".join(pieces)]
        assert await turns(session) == ["cancelled"]

    async def test_a_provider_that_does_not_let_go_changes_no_later_state(self, manager, session):
        """A conversation that it makes when its turn is over is not that of the next turn."""
        let_go, outcome = asyncio.Event(), []

        class Stubborn(MockProviderSession):
            async def send_message(self, request):
                if not outcome:
                    outcome.append("asked")
                    while not let_go.is_set():
                        with contextlib.suppress(asyncio.CancelledError):
                            await let_go.wait()
                    try:
                        await request.save("late", {})
                    except TurnCancelledError as error:
                        outcome.append(error)
                return ProviderReply([reply("there")], "newest")

        manager.add_provider_session("mock", Stubborn())
        task = asyncio.create_task(session.send_message("x"))
        await there_is(outcome)()
        other = await manager.get_session(session.session_id)
        assert await other.cancel() is True
        await other.send_message("y")
        let_go.set()
        with pytest.raises(TurnCancelledError):
            await task
        await session.refresh()
        assert session.context.provider_session_id == "newest"
        assert isinstance(outcome[1], TurnCancelledError)

    async def test_a_turn_whose_lease_was_lost_changes_no_later_state(self, manager, session):
        """The process stood still, and another one went on with the session."""

        class Suspended(MockProviderSession):
            async def send_message(self, request):
                token = (await manager.storage.get_session(session.ref)).turn_token
                end = TurnEnd(token, TurnStatus.FAILED)
                await manager.storage.end_turn(session.ref, end, [])
                await request.save("late", {})

        manager.add_provider_session("mock", Suspended())
        with pytest.raises(TurnLostError):
            await session.send_message("x")
        await session.refresh()
        assert session.context.provider_session_id is None

    async def test_a_state_is_kept_beside_other_changes(self, manager, session):
        class Saving(MockProviderSession):
            async def send_message(self, request):
                other = await manager.get_session(session.session_id)
                await other.update_context(place="here")
                await request.save("kept", {})
                raise ProviderSessionError("gone")

        manager.add_provider_session("mock", Saving())
        with pytest.raises(ProviderSessionError):
            await session.send_message("x")
        await session.refresh()
        assert session.context.provider_session_id == "kept"
        assert session.context.place == "here"

    async def test_an_error_of_another_sessions_turn_is_a_failure_here(
        self, manager, session, endless, turns
    ):
        other = await manager.create_session("ann", "mock", "echo")

        async def outer():
            async with await session.begin_turn("x"):
                await other.send_message("y")

        task = asyncio.create_task(outer())
        await endless.asked.wait()
        await other.cancel()
        with pytest.raises(TurnCancelledError):
            await task
        assert await turns(session) == ["failed"]
        assert await turns(other) == ["cancelled"]


class TestClose:
    @pytest.fixture
    def open_twice(self, storage_kind, db_path):
        """Makes managers whose storage is closed with them, where that loses nothing."""
        shared = InMemorySessionStorage()

        def make(**options):
            if storage_kind == "memory":
                return SessionManager(shared, **options)
            return SessionManager("sqlite", storage_config={"db_path": db_path}, **options)

        return make

    async def directly(self, manager):
        await manager.close()

    async def on_another_loop(self, manager):
        await asyncio.to_thread(lambda: asyncio.run(manager.close()))

    async def in_sync_code(self, manager):
        await asyncio.to_thread(lambda: bridge.run(manager.close()))

    async def while_cancelled(self, manager):
        task = asyncio.create_task(manager.close())
        for _ in range(3):
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task])

    WAYS = (directly, on_another_loop, in_sync_code, while_cancelled)

    @pytest.mark.parametrize("way", WAYS)
    async def test_open_turns_end_with_what_was_shown(self, open_twice, way):
        manager = open_twice(providers={"mock": (endless := Endless())})
        streamed = await manager.create_session("ann", "mock", "echo", session_id="streamed")
        sent = await manager.create_session("ann", "mock", "echo", session_id="sent")
        begun = await manager.create_session("ann", "mock", "echo", session_id="begun")
        pieces = []
        reading = asyncio.create_task(read(streamed.stream_message("x"), pieces))
        sending = asyncio.create_task(sent.send_message("x"))
        turn = await begun.begin_turn("x")
        turn.received("half an ")
        await there_is(pieces)()
        await endless.asked.wait()
        await asyncio.sleep(0.02)
        await way(self, manager)
        async with open_twice() as other:
            for name, kept in (("streamed", None), ("sent", ""), ("begun", "half an ")):
                session = await other.get_session(name)
                (found,) = await session.get_turns()
                assert (name, found.status.value) == (name, "cancelled")
                assert "manager was closed" in found.error
                shown = "".join(pieces) if kept is None else kept
                log = [message.text for message in await session.get_messages()]
                assert log == ["x", *([shown] if shown else [])]
                assert (await session.send_message("next", wait=0)).text == "You said: next"
        for task in (reading, sending):
            with pytest.raises(TurnCancelledError):
                await task
        assert not turn.is_open

    async def test_turns_may_finish_first(self, open_twice):
        manager = open_twice(providers={"mock": {"piece_delay": 0.02}})
        session = await manager.create_session("ann", "mock", "echo", session_id="s")
        pieces = []
        reading = asyncio.create_task(read(session.stream_message("a b c d"), pieces))
        await there_is(pieces)()
        closing = asyncio.create_task(manager.close(wait=60))
        await asyncio.sleep(0)
        with pytest.raises(ManagerClosedError):
            await session.send_message("no more")
        await closing
        await reading
        assert "".join(pieces) == "You said: a b c d"

    async def test_for_so_long_and_no_longer(self, open_twice):
        manager = open_twice(providers={"mock": (endless := Endless())})
        session = await manager.create_session("ann", "mock", "echo", session_id="s")
        sending = asyncio.create_task(session.send_message("x"))
        await endless.asked.wait()
        await manager.close(wait=0.05)
        with pytest.raises(TurnCancelledError):
            await sending

    async def test_a_wait_that_is_cancelled_closes(self, open_twice):
        manager = open_twice(providers={"mock": (endless := Endless())})
        session = await manager.create_session("ann", "mock", "echo", session_id="s")
        sending = asyncio.create_task(session.send_message("x"))
        await endless.asked.wait()
        closing = asyncio.create_task(manager.close(wait=3600))
        await asyncio.sleep(0.01)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        with pytest.raises(TurnCancelledError):
            await sending
        async with open_twice() as other:
            assert await is_free(await other.get_session("s"))

    async def test_whoever_waits_for_the_session_is_told(self, open_twice):
        manager = open_twice(providers={"mock": (endless := Endless())})
        session = await manager.create_session("ann", "mock", "echo", session_id="s")
        sending = asyncio.create_task(session.send_message("x"))
        await endless.asked.wait()
        waiting = [
            asyncio.create_task(session.send_message("y")),
            asyncio.create_task(session.record(reply("z"))),
        ]
        await asyncio.sleep(0.01)
        await manager.close()
        await asyncio.wait([sending, *waiting])
        for task in waiting:
            assert isinstance(task.exception(), ManagerClosedError)

    async def test_a_turn_that_is_just_beginning(self, open_twice, monkeypatch):
        manager = open_twice(providers={"mock": Endless()})
        session = await manager.create_session("ann", "mock", "echo", session_id="s")
        begin_turn, begun = manager.storage.begin_turn, asyncio.Event()

        async def slow(*args, **options):
            start = await begin_turn(*args, **options)
            begun.set()
            await asyncio.sleep(0.05)
            return start

        monkeypatch.setattr(manager.storage, "begin_turn", slow)
        sending = asyncio.create_task(session.send_message("x"))
        await begun.wait()
        await manager.close()
        with pytest.raises(TurnCancelledError):
            await sending
        async with open_twice() as other:
            assert await is_free(await other.get_session("s"))

    async def test_a_reader_that_closes_it_in_between(self, open_twice):
        async with open_twice(providers={"mock": Endless()}) as manager:
            session = await manager.create_session("ann", "mock", "echo", session_id="s")
            stream = session.stream_message("x")
            first = str(await anext(stream))
        with pytest.raises(TurnCancelledError):
            await anext(stream)
        async with open_twice() as other:
            session = await other.get_session("s")
            assert [message.text for message in await session.get_messages()] == ["x", first]


class TestBeside:
    """Turns that answer one message side by side have one lease."""

    @pytest.fixture
    async def two(self, session):
        """Two that are asked the same, each with half an answer."""
        question = SessionMessage(id="q", role="user", content="x")
        law = await session.begin_turn(question, answerer="law")
        law.received("law ")
        tax = await asyncio.create_task(session.begin_turn(question, answerer="tax"))
        tax.received("tax ")
        return law, tax

    @pytest.mark.parametrize("how", ["cancel", "close"])
    async def test_both_are_ended(self, session, two, make_manager, texts, turns, how):
        await (session.cancel() if how == "cancel" else session.manager.close())
        other = await make_manager().get_session(session.session_id)
        assert sorted(await texts(other)) == ["law ", "tax ", "x"]
        assert await turns(other) == ["cancelled", "cancelled"]
        assert not any(turn.is_open for turn in two)

    @pytest.mark.parametrize("how", ["cancel", "close"])
    async def test_one_whose_neighbour_is_done_is_ended(
        self, session, two, make_manager, texts, turns, how
    ):
        await two[0].complete([reply("law says so")])
        await (session.cancel() if how == "cancel" else session.manager.close())
        other = await make_manager().get_session(session.session_id)
        assert await texts(other) == ["x", "law says so", "tax "]
        assert await turns(other) == ["complete", "cancelled"]


def run_program(program, *args):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


COMMON = """
    import asyncio, os, sys, threading, time
    from contextlib import aclosing
    from langswarm_session import SessionManager, MockProviderSession
    from langswarm_session._sync import bridge
    manager = SessionManager("sqlite", {"mock": {"piece_delay": 0.01}},
                             storage_config={"db_path": sys.argv[1]}, lease_seconds=3600)
    kept = []
    text = "word " * 10000
    async def start():
        session = await manager.create_session("ann", "mock", "echo", session_id="s")
        async for event in session.stream_message(text):
            kept.append(event)
            if len(kept) == 5:
                return
"""
EXITS = {
    "a turn of the main thread": """
    async def main():
        session = await manager.create_session("ann", "mock", "echo", session_id="s")
        turn = await session.begin_turn("x")
        turn.received("You said")
        kept.append(turn)
    asyncio.run(main())
    """,
    "sync code": """
    async def begin():
        session = await manager.create_session("ann", "mock", "echo", session_id="s")
        turn = await session.begin_turn("x")
        turn.received("You said")
        kept.append(turn)
    bridge.run(begin())
    """,
    "a stream in a daemon thread": """
    async def read():
        session = await manager.create_session("ann", "mock", "echo", session_id="s")
        async for event in session.stream_message(text):
            kept.append(event)
    threading.Thread(target=lambda: asyncio.run(read()), daemon=True).start()
    while len(kept) < 5:
        time.sleep(0.01)
    """,
    "a stream of a loop that was given up": """
    async def begin():
        session = await manager.create_session("ann", "mock", "echo", session_id="s")
        stream = session.stream_message(text)
        kept.append(stream)
        for _ in range(3):
            await anext(stream)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    """,
    "a stream in a task that is left": """
    async def read():
        session = await manager.create_session("ann", "mock", "echo", session_id="s")
        async for event in session.stream_message(text):
            kept.append(event)
    async def main():
        kept_task = asyncio.create_task(read())
        while len(kept) < 5:
            await asyncio.sleep(0.01)
    asyncio.run(main())
    """,
}


@pytest.mark.parametrize("program", EXITS.values(), ids=EXITS)
async def test_the_end_of_the_program_ends_its_turns(db_path, program):
    done = await asyncio.to_thread(run_program, COMMON + program, db_path)
    assert (done.returncode, done.stdout) == (0, "")
    storage = SQLiteSessionStorage(db_path)
    async with SessionManager(storage) as manager:
        session = await manager.get_session("s")
        (turn,) = await session.get_turns()
        assert turn.status.value == "cancelled", done.stderr
        assert (await session.get_messages())[-1].text.startswith("You said")
    await storage.close()


async def test_a_turn_of_a_process_that_died_is_ended(db_path):
    program = """
        import asyncio, os, sys
        from langswarm_session import SessionManager
        async def main():
            manager = SessionManager("sqlite", storage_config={"db_path": sys.argv[1]},
                                     lease_seconds=3600)
            session = await manager.create_session("ann", "mock", "echo", session_id="s")
            await session.begin_turn("x")
            os._exit(0)
        asyncio.run(main())
    """
    await asyncio.to_thread(run_program, program, db_path)
    async with SessionManager("sqlite", storage_config={"db_path": db_path}) as manager:
        session = await manager.get_session("s")
        assert await session.cancel() is True
        assert [turn.status.value for turn in await session.get_turns()] == ["failed"]
        assert await session.cancel() is False


async def test_a_lease_that_ran_out_is_ended(make_manager, turns):
    manager = make_manager()
    session = await manager.create_session("ann", "mock", "echo")
    turn = await session.begin_turn("x")
    manager.core.locks.keeper.close()
    await manager.storage.renew_turns({turn.token: session.ref}, 0)
    other = await make_manager().get_session(session.session_id)
    assert await other.cancel() is True
    assert await turns(session) == ["failed"]
    await turn.cancel()


def test_the_error_says_why_and_that_nothing_is_lost():
    error = Stop("it was cancelled by session.cancel()").error("s")
    assert isinstance(error, TurnCancelledError)
    assert error.session_id == "s"
    assert "cancelled by session.cancel()" in str(error)
