"""One turn at a time in a session, whoever asks and however they stop asking."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from types import SimpleNamespace

import pytest

from langswarm_session import (
    IdempotencyConflictError,
    InMemorySessionStorage,
    ISessionLifecycleHook,
    ISessionMiddleware,
    MockFailure,
    MockProviderSession,
    ProviderSessionError,
    SessionBusyError,
    SessionManager,
    SessionMessage,
    SQLiteSessionStorage,
)

pytestmark = pytest.mark.timeout(60)


async def check_whole(session, *, said=None):
    """No turn is open, none is interleaved with another, and each complete one has its reply."""
    log = await session.get_messages()
    turns = await session.get_turns(10_000)
    assert [message.seq for message in log] == sorted(message.seq for message in log)
    for turn in turns:
        messages = [message for message in log if message.turn_id == turn.id]
        assert turn.status.value != "open"
        assert [message.seq for message in messages] == list(
            range(turn.first_seq, turn.last_seq + 1)
        )
        if turn.status.value == "complete":
            question, answer = messages
            assert answer.text == f"You said: {question.text}"
    if said is not None:
        assert sorted(m.text for m in log if m.role == "user") == sorted(said)


class TestOrder:
    async def test_fifty_at_once_come_one_after_the_other_first_come_first_served(self, session):
        said = [str(i) for i in range(50)]
        replies = await asyncio.gather(*map(session.send_message, said))
        assert [reply.text for reply in replies] == [f"You said: {text}" for text in said]
        log = [message.text for message in await session.get_messages()]
        assert log == [text for each in said for text in (each, f"You said: {each}")]
        await check_whole(session)

    async def test_each_sees_the_ones_before_it(self, session, mock):
        await asyncio.gather(*(session.send_message(str(i)) for i in range(10)))
        assert [len(request.messages) for request in mock.requests] == list(range(1, 20, 2))

    async def test_streams_stand_in_line_too(self, session):
        async def read(text):
            return "".join([str(event) async for event in session.stream_message(text)])

        replies = await asyncio.gather(*(read(str(i)) for i in range(10)))
        assert replies == [f"You said: {i}" for i in range(10)]
        await check_whole(session, said=[str(i) for i in range(10)])

    async def test_recording_waits_for_the_turn(self, session, gated, texts):
        sending = asyncio.create_task(session.send_message("x"))
        await gated.asked.wait()
        recording = asyncio.create_task(session.record(SessionMessage(role="user", content="y")))
        clearing = asyncio.create_task(session.clear_messages())
        await asyncio.sleep(0)
        assert await texts(session) == ["x"]
        gated.go.set()
        await asyncio.gather(sending, recording, clearing)
        assert await texts(session) == []

    async def test_sessions_do_not_wait_for_each_other(self, manager, session, gated):
        sending = asyncio.create_task(session.send_message("x"))
        await gated.asked.wait()
        manager.add_provider_session("free", MockProviderSession())
        others = [await manager.create_session("bob", "free", "echo") for _ in range(20)]
        replies = await asyncio.gather(*(other.send_message("y", wait=0) for other in others))
        assert {reply.text for reply in replies} == {"You said: y"}
        assert not sending.done()
        gated.go.set()
        await sending

    async def test_two_managers_share_a_session_as_two_processes_do(self, make_manager):
        session = await make_manager().create_session("ann", "mock", "echo")
        other = await make_manager().get_session(session.session_id)
        said = [str(i) for i in range(20)]
        await asyncio.gather(
            *((session, other)[i % 2].send_message(text) for i, text in enumerate(said))
        )
        await check_whole(session, said=said)
        await session.refresh()
        assert session.metrics.message_count == 40

    async def test_two_loops_in_two_threads_share_a_manager(self, manager, session):
        async def many(name):
            return await asyncio.gather(*(session.send_message(f"{name}{i}") for i in range(20)))

        def run(name):
            outcomes.append(asyncio.run(many(name)))

        outcomes = []
        threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in "ab"]
        for thread in threads:
            thread.start()
        await asyncio.gather(*(asyncio.to_thread(thread.join, 30) for thread in threads))
        assert [len(outcome) for outcome in outcomes] == [20, 20]
        await check_whole(session, said=[f"{name}{i}" for name in "ab" for i in range(20)])
        log = [message.text for message in await session.get_messages() if message.role == "user"]
        for name in "ab":
            assert [text for text in log if text[0] == name] == [f"{name}{i}" for i in range(20)]


class TestWaiting:
    @pytest.fixture
    async def busy(self, session, gated):
        """The session, while a turn runs in it."""
        sending = asyncio.create_task(session.send_message("first"))
        await gated.asked.wait()
        yield session
        gated.go.set()
        await sending
        assert (await session.send_message("last", wait=0)).text == "You said: last"
        await check_whole(session)

    OPERATIONS = {
        "send_message": lambda session, wait: session.send_message("x", wait=wait),
        "stream_message": lambda session, wait: anext(session.stream_message("x", wait=wait)),
        "begin_turn": lambda session, wait: session.begin_turn("x", wait=wait),
        "record": lambda session, wait: session.record(
            SessionMessage(role="user", content="x"), wait=wait
        ),
    }

    @pytest.mark.parametrize("wait", [0, 0.05])
    @pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
    async def test_for_no_longer_than_asked(self, busy, operation, wait):
        with pytest.raises(SessionBusyError) as caught:
            await operation(busy, wait)
        assert caught.value.session_id == busy.session_id

    @pytest.mark.parametrize("wait", [0, 0.05])
    async def test_nor_for_another_process(self, busy, make_manager, wait):
        other = await make_manager().get_session(busy.session_id)
        with pytest.raises(SessionBusyError) as caught:
            await other.send_message("x", wait=wait)
        assert caught.value.session_id == busy.session_id
        assert caught.value.holder is not None
        assert caught.value.owner is not None

    async def test_no_longer_than_the_manager_says(self, make_manager, busy):
        other = await make_manager(turn_wait=0).get_session(busy.session_id)
        with pytest.raises(SessionBusyError):
            await other.send_message("x")
        with pytest.raises(SessionBusyError):
            await other.clear_messages()

    @pytest.mark.parametrize("wait", [None, 30, 1e9])
    async def test_until_it_is_free(self, session, gated, wait):
        first = asyncio.create_task(session.send_message("first"))
        await gated.asked.wait()
        second = asyncio.create_task(session.send_message("second", wait=wait))
        await asyncio.sleep(0)
        gated.go.set()
        await asyncio.gather(first, second)
        await check_whole(session, said=["first", "second"])

    async def test_reading_does_not_wait(self, busy, make_manager, texts):
        assert await texts(busy) == ["first"]
        other = await make_manager().get_session(busy.session_id)
        await other.update_context(topic="tea")
        assert await texts(await other.fork()) == []

    async def test_a_waiter_that_gives_up_makes_room(self, session, gated):
        tasks = [asyncio.create_task(session.send_message(str(i))) for i in range(6)]
        await gated.asked.wait()
        tasks[1].cancel()
        tasks[3].cancel()
        gated.go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) is asyncio.CancelledError for outcome in outcomes] == [
            *(False, True, False, True, False, False)
        ]
        await check_whole(session, said=["0", "2", "4", "5"])

    async def test_a_waiter_that_gives_up_when_its_turn_comes_makes_room(self, session, texts):
        async def wait(text):
            return await session.send_message(text)

        turn = await asyncio.create_task(session.begin_turn("first"))
        tasks = [asyncio.create_task(wait(text)) for text in ("second", "third")]
        for _ in range(5):
            await asyncio.sleep(0)
        await turn.complete()
        tasks[0].cancel()
        with suppress(asyncio.CancelledError):
            await tasks[0]
        assert (await tasks[1]).text == "You said: third"
        await session.send_message("fourth", wait=0)

    async def test_a_time_limit_of_the_callers_own(self, busy):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await busy.send_message("x", wait=None)


class Stops:
    """Points of a turn at which a test can hold it, each once."""

    def __init__(self):
        self.at = None
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, point):
        if point == self.at:
            self.at = None
            self.reached.set()
            await self.go.wait()


def stopping(kind, stops):
    """A kind of storage that can be held before and after it begins or ends a turn."""

    class Stopping(kind):
        async def begin_turn(self, *args, **options):
            await stops("before begin")
            start = await super().begin_turn(*args, **options)
            await stops("after begin")
            return start

        async def end_turn(self, *args, **options):
            await stops("before end")
            appended = await super().end_turn(*args, **options)
            await stops("after end")
            return appended

    return Stopping


POINTS = [
    "outgoing middleware",
    "before begin",
    "after begin",
    "sent hook",
    "provider",
    "incoming middleware",
    "before end",
    "after end",
    "received hook",
]
NEVER_BEGUN = ("outgoing middleware", "before begin")
WAYS = {
    "send": lambda session: session.send_message("x"),
    "stream": lambda session: read(session.stream_message("x")),
}


async def read(stream):
    return [event async for event in stream]


class TestCancelled:
    @pytest.fixture
    async def held(self, storage_kind, db_path):
        """A session whose turns can be held anywhere, and one that stands for it elsewhere."""
        stops = Stops()

        class Provider(MockProviderSession):
            async def send_message(self, request):
                await stops("provider")
                return await super().send_message(request)

            async def stream_message(self, request):
                async for event in super().stream_message(request):
                    yield event
                    await stops("provider")

        class Middleware(ISessionMiddleware):
            async def process_outgoing_message(self, session, message):
                await stops("outgoing middleware")
                return message

            async def process_incoming_message(self, session, message):
                await stops("incoming middleware")
                return message

        class Hook(ISessionLifecycleHook):
            async def on_message_sent(self, session, message):
                await stops("sent hook")

            async def on_message_received(self, session, message):
                await stops("received hook")

        if storage_kind == "memory":
            storage = stopping(InMemorySessionStorage, stops)()
        else:
            storage = stopping(SQLiteSessionStorage, stops)(db_path)
        manager = SessionManager(storage, {"mock": Provider()})
        session = await manager.create_session("ann", "mock", "echo")
        session.add_middleware(Middleware())
        session.add_lifecycle_hook(Hook())
        other = await SessionManager(storage).get_session(session.session_id)
        yield SimpleNamespace(session=session, other=other, stops=stops)
        await storage.close()

    @pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
    @pytest.mark.parametrize("point", POINTS)
    async def test_anywhere_it_leaves_a_whole_record_and_a_free_session(self, held, point, way):
        held.stops.at = point
        task = asyncio.create_task(way(held.session))
        await held.stops.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task

        await held.other.send_message("elsewhere", wait=0)
        await held.session.send_message("here", wait=0)
        await check_whole(held.session)
        turns = await held.session.get_turns()
        if point in NEVER_BEGUN:
            assert len(turns) == 2
        elif point in ("after end", "received hook"):
            assert [turn.status.value for turn in turns] == ["complete"] * 3
        else:
            assert [turn.status.value for turn in turns] == ["cancelled", "complete", "complete"]

    @pytest.mark.parametrize("point", POINTS)
    async def test_the_same_task_may_go_on_as_after_a_time_limit(self, held, point):
        async def run():
            with suppress(asyncio.CancelledError):
                await held.session.send_message("x")
            return await held.session.send_message("here", wait=0)

        held.stops.at = point
        task = asyncio.create_task(run())
        await held.stops.reached.wait()
        task.cancel()
        assert (await task).text == "You said: here"

    @pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
    async def test_twice_the_second_time_while_the_turn_is_ending(self, held, way):
        held.stops.at = "provider"
        task = asyncio.create_task(way(held.session))
        await held.stops.reached.wait()
        held.stops.reached.clear()
        held.stops.at = "before end"
        task.cancel()
        await held.stops.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.stops.go.set()
        await held.session.send_message("here", wait=10)
        await check_whole(held.session)
        assert [turn.status.value for turn in await held.session.get_turns()] == [
            "cancelled",
            "complete",
        ]

    async def test_after_any_number_of_rounds_of_the_loop(self, held):
        """Wherever it stands: also between a write and its acknowledgement."""
        rounds, finished = 0, False
        while not finished:
            task = asyncio.create_task(held.session.send_message(str(rounds)))
            for _ in range(rounds):
                await asyncio.sleep(0)
            finished = task.done()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await held.other.send_message("elsewhere", wait=0)
            rounds += 1 + rounds // 8
        await check_whole(held.session)


class TestIdempotency:
    async def test_the_same_key_at_once_is_one_turn_with_one_answer(self, session, mock):
        replies = await asyncio.gather(
            *(session.send_message("x", idempotency_key="k") for _ in range(20))
        )
        assert all(reply == replies[0] for reply in replies)
        assert len(mock.requests) == 1
        await check_whole(session, said=["x"])
        assert (await session.get_turns())[0].idempotency_key == "k"

    async def test_also_over_processes(self, make_manager, mock):
        managers = [make_manager(providers={"mock": mock}) for _ in range(3)]
        session = await managers[0].create_session("ann", "mock", "echo")
        sessions = [await manager.get_session(session.session_id) for manager in managers]
        replies = await asyncio.gather(
            *(sessions[i % 3].send_message("x", idempotency_key="k") for i in range(12))
        )
        assert all(reply == replies[0] for reply in replies)
        assert len(mock.requests) == 1

    async def test_also_for_streams_and_records(self, session, mock):
        streams = await asyncio.gather(
            *(read(session.stream_message("x", idempotency_key="s")) for _ in range(5))
        )
        assert all(events[-1].message == streams[0][-1].message for events in streams)
        assert len(mock.requests) == 1
        message = SessionMessage(role="user", content="y")
        records = await asyncio.gather(
            *(session.record(message, idempotency_key="r") for _ in range(5))
        )
        assert all(record == records[0] for record in records)
        assert session.metrics.message_count == 3

    async def test_each_key_is_a_turn_of_its_own(self, session):
        await asyncio.gather(
            *(session.send_message("x", idempotency_key=str(i % 5)) for i in range(20))
        )
        await check_whole(session, said=["x"] * 5)

    @pytest.mark.parametrize("role", ["user", "system"])
    async def test_a_key_of_another_message_is_refused(self, session, mock, role):
        await session.send_message("x", idempotency_key="k")
        other = "y" if role == "user" else "x"
        with pytest.raises(IdempotencyConflictError) as caught:
            await session.send_message(other, role, idempotency_key="k")
        assert caught.value.session_id == session.session_id
        assert len(mock.requests) == 1
        await check_whole(session, said=["x"])

    async def test_a_key_of_another_message_is_refused_after_a_failure_too(self, session, mock):
        mock.fail_next(MockFailure.ERROR)
        with pytest.raises(ProviderSessionError):
            await session.send_message("x", idempotency_key="k")
        with pytest.raises(IdempotencyConflictError):
            await session.send_message("y", idempotency_key="k")

    async def test_a_retry_after_a_failure_keeps_one_message(self, session, mock, turns):
        mock.fail_next(MockFailure.TIMEOUT, times=3)
        for _ in range(3):
            with pytest.raises(ProviderSessionError):
                await session.send_message("x", idempotency_key="k")
        reply = await session.send_message("x", idempotency_key="k")
        assert [m.text for m in mock.requests[-1].messages] == ["x"]
        await check_whole(session, said=["x"])
        assert await turns(session) == ["complete"]
        assert await session.send_message("x", idempotency_key="k") == reply
        assert (session.metrics.turn_count, session.metrics.errors) == (1, 3)

    async def test_a_retry_after_others_is_a_new_turn(self, session, mock, turns):
        mock.fail_next(MockFailure.TIMEOUT)
        with pytest.raises(ProviderSessionError):
            await session.send_message("x", idempotency_key="k")
        await session.send_message("between")
        await session.send_message("x", idempotency_key="k")
        assert [m.text for m in mock.requests[-1].messages] == [
            *("between", "You said: between", "x")
        ]
        assert await turns(session) == ["failed", "complete", "complete"]

    async def test_a_key_waits_for_the_turn_that_has_it(self, session, gated):
        first = asyncio.create_task(session.send_message("x", idempotency_key="k"))
        await gated.asked.wait()
        with pytest.raises(SessionBusyError):
            await session.send_message("x", idempotency_key="k", wait=0)
        second = asyncio.create_task(session.send_message("x", idempotency_key="k"))
        gated.go.set()
        assert await first == await second

    async def test_a_cancelled_turn_is_tried_again(self, session, gated, turns):
        first = asyncio.create_task(session.send_message("x", idempotency_key="k"))
        await gated.asked.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gated.go.set()
        await session.send_message("x", idempotency_key="k")
        await check_whole(session, said=["x"])
        assert await turns(session) == ["complete"]
