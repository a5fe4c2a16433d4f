"""PostgreSQL under more load than it can take: bounds, time limits, cancelled callers, a close."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import postgres_server
import pytest
from postgres_proxy import proxy

from langswarm_session import (
    BaseSession,
    InvalidInputError,
    MockProviderSession,
    RevisionConflictError,
    SessionManager,
    StorageBusyError,
    StorageClosedError,
    StorageUnavailableError,
    TurnStatus,
)
from langswarm_session._sync import bridge
from langswarm_session._sync.shared_loop import SharedLoop
from langswarm_session.records import SessionChanges
from langswarm_session.storage.postgres import jobs, rows, writer
from langswarm_session.storage.postgres import pool as postgres_pool
from langswarm_session.storage.postgres.storage import PostgresSessionStorage
from langswarm_session.testing.making import completed, lease, new_session, ref, reply, texts, user

AWAY = (StorageBusyError, StorageUnavailableError)


@asynccontextmanager
async def opened(schema: str, **options: Any) -> AsyncIterator[PostgresSessionStorage]:
    """A storage with a session `s`, on which a write has been made."""
    dsn = options.pop("dsn", None) or postgres_server.dsn()
    storage = PostgresSessionStorage(dsn, schema=schema, **options)
    await storage.create_session(new_session("s"))
    await storage.append(ref("s"), [user("first")])
    try:
        yield storage
    finally:
        await storage.close()


@asynccontextmanager
async def locked(storage: PostgresSessionStorage, session: str = "s") -> AsyncIterator[None]:
    """Another transaction has the session's row meanwhile."""
    connection = await asyncpg.connect(postgres_server.dsn())
    async with connection.transaction():
        query = storage._tables.sql("SELECT 1 FROM {sessions} WHERE session_id = $1 FOR UPDATE")
        await connection.fetch(query, session)
        yield
    await connection.close()


def started(*calls: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    return [asyncio.ensure_future(call) for call in calls]


async def settled(storage: PostgresSessionStorage) -> None:
    """Wait until the engine has nothing left to do."""
    while storage._engine._count or storage._engine._tasks:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


# Bounds


async def test_no_more_calls_wait_than_are_allowed(postgres_schema: str) -> None:
    async with opened(postgres_schema, max_waiting=5) as storage:
        async with locked(storage):
            held = started(*(storage.append(ref("s"), [user(f"{n}")]) for n in range(5)))
            await asyncio.sleep(0)
            for call in (storage.append(ref("s"), [user()]), storage.find_session("s")):
                with pytest.raises(StorageBusyError, match="max_waiting"):
                    await call
        await asyncio.gather(*held)
        await asyncio.gather(*(storage.find_session("s") for _ in range(5)))
        assert texts(await storage.get_messages(ref("s"))) == ["first", *"01234"]


async def test_no_more_text_waits_than_is_allowed(postgres_schema: str) -> None:
    async with opened(postgres_schema, max_waiting_size=1000) as storage:
        await storage.create_session(new_session("t"))
        async with locked(storage):
            held = started(storage.append(ref("s"), [user("x" * 5000)]))  # one alone may have more
            await asyncio.sleep(0)
            with pytest.raises(StorageBusyError, match="max_waiting_size"):
                await storage.append(ref("t"), [user("y")])
            assert (await storage.find_session("t")).message_count == 0
        await asyncio.gather(*held)
        await storage.append(ref("t"), [user("y")])


async def test_whoever_gives_up_makes_room(postgres_schema: str) -> None:
    async with opened(postgres_schema, max_waiting=4) as storage:
        async with locked(storage):
            held = started(storage.append(ref("s"), [user("kept")]))
            reads = [storage.update_session(ref("s"), SessionChanges()) for _ in range(3)]
            for call in (waiting := started(*reads)):
                await asyncio.sleep(0)
                call.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            while storage._engine._count > 1:  # noqa: ASYNC110 - until the thread has heard of it
                await asyncio.sleep(0.005)
            assert (await storage.find_session("s")).message_count == 1
        await asyncio.gather(*held)


# Cancelled callers


async def test_the_server_stops_a_cancelled_write_that_waits_for_a_lock(
    postgres_schema: str,
) -> None:
    async with opened(postgres_schema) as storage:
        async with locked(storage):
            (sent,) = started(storage.append(ref("s"), [user("sent")]))
            while not any(each.unclear for each in storage._engine._live._calls):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            (queued,) = started(storage.append(ref("s"), [user("queued")]))
            (transaction,) = started(
                storage.update_session(ref("s"), SessionChanges(model="another"))
            )
            await asyncio.sleep(0.05)
            for task in (sent, queued, transaction):
                task.cancel()
            await asyncio.wait([sent, queued, transaction])
            assert sent.cancelled()
            assert queued.cancelled()
            assert transaction.cancelled()
        await storage.append(ref("s"), [user("after")])
        record = await storage.get_session(ref("s"))
        assert record.model != "another"
        assert texts(await storage.get_messages(ref("s"))) == ["first", "after"]


async def test_a_cancelled_caller_waits_no_longer_than_any(
    postgres_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: Any, connection: Any) -> None:
        """As where a pooler hides which process of the server it is."""

    monkeypatch.setattr(jobs.Jobs, "stop", refuse)
    async with opened(postgres_schema, timeout=0.5) as storage, locked(storage):
        (sent,) = started(storage.append(ref("s"), [user("sent")]))
        await asyncio.sleep(0.1)
        sent.cancel()
        with pytest.raises(StorageBusyError, match="may be stored") as caught:
            await sent
        assert caught.value.may_be_stored


# The thread ends


async def test_when_the_thread_ends_those_that_wait_are_told(postgres_schema: str) -> None:
    async with opened(postgres_schema) as storage:
        async with locked(storage):
            (sent,) = started(storage.append(ref("s"), [user("sent")]))
            while not any(each.unclear for each in storage._engine._live._calls):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            (waiting,) = started(storage.update_session(ref("s"), SessionChanges(model="another")))
            await asyncio.sleep(0.05)
            loop, thread = storage._engine._loop, storage._engine._thread
            loop.call_soon_threadsafe(loop.stop)
            outcomes = await asyncio.gather(sent, waiting, return_exceptions=True)
            assert [type(each) for each in outcomes] == [StorageUnavailableError] * 2
            assert [each.may_be_stored for each in outcomes] == [True, False]
        await storage.append(ref("s"), [user("after")])
        assert "after" in texts(await storage.get_messages(ref("s")))
        await asyncio.to_thread(thread.join)
        assert loop.is_closed()


# Time limits


async def test_the_time_limit_is_about_the_whole_wait(postgres_schema: str) -> None:
    """Whoever waits behind others waits no longer for it."""
    async with opened(postgres_schema, timeout=0.5) as storage:
        async with locked(storage):
            held = started(*(storage.append(ref("s"), [user(f"{n}")]) for n in range(40)))
            outcomes = await asyncio.gather(*held, return_exceptions=True)
        assert {type(each) for each in outcomes} == {StorageBusyError}
        await storage.append(ref("s"), [user("after")])
        assert texts(await storage.get_messages(ref("s"))) == ["first", "after"]


async def test_waiting_for_a_connection_ends(postgres_schema: str) -> None:
    async with opened(postgres_schema, timeout=0.5, max_connections=2) as storage:
        async with locked(storage):
            calls = started(
                storage.update_session(ref("s"), SessionChanges()),
                storage.delete_session(ref("s")),
                *(storage.list_sessions() for _ in range(5)),
            )
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(outcomes[0], StorageBusyError)
        assert isinstance(outcomes[1], StorageBusyError)
        assert len((await storage.list_sessions()).records) == 1


async def test_a_write_that_was_stopped_is_not_made_later(postgres_schema: str) -> None:
    async with opened(postgres_schema, timeout=1.0) as storage:
        for n in range(2):
            async with locked(storage):
                with pytest.raises(StorageBusyError):
                    await storage.append(ref("s"), [user("stopped")])
            await storage.append(ref("s"), [user(f"{n}")])
        assert texts(await storage.get_messages(ref("s"))) == ["first", *"01"]


async def test_connecting_to_silence_ends(postgres_schema: str) -> None:
    with proxy(postgres_server.port()) as between:
        between.stalls = True
        storage = PostgresSessionStorage(
            postgres_server.through(between.port), schema=postgres_schema, connect_timeout=0.3
        )
        calls = [
            storage.append(ref("s"), [user()]),
            storage.find_session("s"),
            storage.get_turns(ref("s")),
        ]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(each) for each in outcomes} == {StorageUnavailableError}
        await storage.close()


async def test_a_process_that_freezes_in_a_transaction_gives_the_session_back(
    postgres_schema: str,
) -> None:
    async with (
        opened(postgres_schema, timeout=0.5) as frozen,
        opened_again(postgres_schema) as other,
    ):
        go = threading.Event()

        async def freeze(connection: Any) -> None:
            query = frozen._tables.sql("SELECT 1 FROM {sessions} FOR UPDATE")
            await connection.fetch(query)
            go.wait()  # the thread does nothing any more, least of all heed a time limit

        call = asyncio.ensure_future(frozen._engine.transact(freeze))
        await other.append(ref("s"), [user("taken back")])
        go.set()
        with pytest.raises(AWAY):
            await call
        assert texts(await other.get_messages(ref("s"))) == ["first", "taken back"]


@asynccontextmanager
async def opened_again(schema: str) -> AsyncIterator[PostgresSessionStorage]:
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=schema)
    try:
        yield storage
    finally:
        await storage.close()


# Order


async def test_a_huge_write_overtakes_none_of_its_session(
    postgres_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_WEIGHT", 1000)
    async with opened(postgres_schema) as storage:
        names = [f"s{n}" for n in range(4)]
        await asyncio.gather(*(storage.create_session(new_session(name)) for name in names))
        sizes = [1, 2000, 2, 3000, 3, 4, 5000, 5]
        async with locked(storage):
            held = started(storage.append(ref("s"), [user()]))  # so that the others queue up
            await asyncio.sleep(0)
            await asyncio.gather(
                *(storage.append(ref(name), [user("x" * size)]) for size in sizes for name in names)
            )
        await asyncio.gather(*held)
        for name in names:
            assert [len(each.text) for each in await storage.get_messages(ref(name))] == sizes


async def test_what_cannot_be_sent_harms_nobody(postgres_schema: str) -> None:
    async with opened(postgres_schema) as storage:
        for _ in range(3):
            with pytest.raises(RevisionConflictError):
                await storage.append(ref("s"), [user()], expected_revision=2**70)
            await storage.append(ref("s"), [user("a")])
        assert texts(await storage.get_messages(ref("s"))) == ["first", *"aaa"]


async def test_a_write_too_large_for_a_statement_is_refused(
    postgres_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_SIZE", 1000)
    async with opened(postgres_schema) as storage:
        log = await storage.append(ref("s"), [user("x" * 1000)])
        for call in (
            storage.append(ref("s"), [user("x" * 1001)]),
            storage.append(ref("s"), [user("x" * 600), reply("x" * 600)]),
            storage.begin_turn(ref("s"), [user("x" * 1001)], lease()),
            storage.edit_messages(
                ref("s"), expected_revision=log.record.revision, add=[user("x" * 1001)]
            ),
        ):
            with pytest.raises(InvalidInputError, match="1000"):
                await call
        assert (await storage.find_session("s")).message_count == 2


def test_a_caller_interrupted_as_it_sends_hears_of_it_and_harms_nobody(
    postgres_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C comes while the caller's own thread talks to the driver."""
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema)
    fetch, here = postgres_pool.Connection.fetch, threading.get_ident()
    interrupted: list[str] = []

    async def interrupt(self: Any, query: str, *values: Any) -> Any:
        if threading.get_ident() == here and not interrupted:
            interrupted.append(query)
            raise KeyboardInterrupt
        return await fetch(self, query, *values)

    async def prepare() -> None:
        await storage.create_session(new_session("s"))
        for _ in range(3):
            await storage.append(ref("s"), [user("before")])

    asyncio.run(prepare())
    monkeypatch.setattr(postgres_pool.Connection, "fetch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        for _ in range(100):  # the other thread may be awake at the first
            bridge.run(storage.append(ref("s"), [user("sent")]))
    monkeypatch.undo()
    asyncio.run(storage.append(ref("s"), [user("after")]))
    said = texts(asyncio.run(storage.get_messages(ref("s"))))
    assert said[:3] == ["before"] * 3
    assert said[-1] == "after"
    assert len(interrupted) == 1
    asyncio.run(storage.close())


# Cancelled callers


class CancelledAt:
    """Awaits something, and is cancelled at its n-th wait.

    Attributes:
        reached: Whether it came to that.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], number: int) -> None:
        self._work = work
        self._number = number
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        waits = 0
        outcome: Callable[[], Any] = lambda: self._work.send(None)  # noqa: E731
        while True:
            try:
                future = outcome()
            except StopIteration as stop:
                return stop.value
            waits += 1
            if waits == self._number:
                self.reached = True
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                yield future
            except BaseException as error:
                outcome = lambda error=error: self._work.throw(error)  # noqa: E731
            else:
                outcome = lambda: self._work.send(None)  # noqa: E731


async def cancel_everywhere(attempt: Callable[[int], Awaitable[bool]]) -> int:
    """Attempt with a cancellation at the first wait, at the second... until there are no more."""
    number = 1
    while await attempt(number):
        number += 1
    return number - 1


async def until_cancelled(work: Coroutine[Any, Any, Any], number: int) -> bool:
    """Run in a task of its own that is cancelled at its n-th wait; False if it has fewer."""
    at = CancelledAt(work, number)

    async def run() -> None:
        await at

    await asyncio.gather(asyncio.ensure_future(run()), return_exceptions=True)
    return at.reached


async def test_a_turn_cancelled_anywhere_leaves_no_lease_and_no_half(postgres_schema: str) -> None:
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema)
    manager = SessionManager(storage, providers={"mock": MockProviderSession()})
    sessions = [
        await manager.create_session("u", "mock", "echo", session_id=f"s{n}") for n in range(6)
    ]
    busy = [await manager.create_session("u", "mock", "echo", session_id=f"b{n}") for n in range(6)]
    going = True

    async def load(session: BaseSession) -> None:
        while going:
            await session.send_message("load")

    async def in_steps(session: BaseSession) -> None:
        async with await session.begin_turn("x") as turn:
            await turn.add([reply("a")])
            await turn.complete([reply("b")])

    works: list[Callable[[BaseSession], Coroutine[Any, Any, Any]]] = [
        lambda session: session.send_message("x"),
        in_steps,
        lambda session: session.record([user("x"), reply("y")]),
    ]
    loads = started(*map(load, busy))

    async def everywhere(n: int, session: BaseSession) -> int:
        work = works[n % len(works)]
        return await cancel_everywhere(lambda number: until_cancelled(work(session), number))

    waits = await asyncio.gather(*(everywhere(n, each) for n, each in enumerate(sessions)))
    assert min(waits) >= 1
    assert waits[1] >= 3
    going = False
    await asyncio.gather(*loads)
    await settled(storage)
    for session in (*sessions, *busy):
        record = await storage.find_session(session.session_id)
        assert record.turn_token is None
        assert TurnStatus.OPEN not in [each.status for each in await session.get_turns()]
        log = await session.get_messages()
        assert [message.seq for message in log] == list(range(1, len(log) + 1))
        await session.send_message("free")  # it waits for nobody
    await manager.close()


async def test_a_storage_call_cancelled_anywhere_is_made_whole_or_not_at_all(
    postgres_schema: str,
) -> None:
    async with opened(postgres_schema) as storage:
        await storage.create_session(new_session("t"))
        loads = started(*(storage.append(ref("t"), [user(f"{n}")]) for n in range(50)))

        async def attempt(number: int) -> bool:
            begun = lease()
            reached = [
                await until_cancelled(storage.begin_turn(ref("s"), [user("q")], begun), number),
                await until_cancelled(
                    storage.append(ref("s"), [reply("a"), reply("b")], token=begun.token), number
                ),
                await until_cancelled(storage.end_turn(ref("s"), completed(begun), []), number),
            ]
            record = await storage.find_session("s")
            if record.turn_token is not None:  # whoever has begun it ends it by its token
                assert record.turn_token == begun.token
                await storage.end_turn(ref("s"), completed(begun), [])
            return any(reached)

        assert await cancel_everywhere(attempt) >= 1
        await asyncio.gather(*loads)
        assert (await storage.find_session("s")).turn_token is None
        for turn in await storage.get_turns(ref("s")):
            said = [
                each.text
                for each in await storage.get_messages(ref("s"))
                if each.turn_id == turn.id
            ]
            assert said in (["first"], ["q"], ["q", "a", "b"])


async def test_a_connection_given_up_as_it_was_made_is_not_complained_of(
    postgres_schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(postgres_schema) as storage:
        engine = storage._engine
        assert engine._jobs is not None
        assert engine._loop is not None
        pool = engine._jobs.pool

        async def connect() -> None:
            await (await pool._connect_once()).close()

        async def everywhere() -> int:
            waits = await cancel_everywhere(lambda number: until_cancelled(connect(), number))
            await asyncio.sleep(0.01)  # their transports end
            gc.collect()
            return waits

        waits = asyncio.run_coroutine_threadsafe(everywhere(), engine._loop)
        assert await asyncio.wrap_future(waits) >= 4
    assert "never retrieved" not in caplog.text


# Closing


async def test_close_finishes_what_was_accepted_and_refuses_the_rest(postgres_schema: str) -> None:
    async with opened(postgres_schema) as storage:
        names = [f"s{n}" for n in range(20)]
        await asyncio.gather(*(storage.create_session(new_session(name)) for name in names))
        stored: dict[str, list[str]] = {name: [] for name in names}
        refused: list[str] = []

        async def write(name: str) -> None:
            for n in range(1000):
                try:
                    await storage.append(ref(name), [user(f"{n}"), reply(f"{n}")])
                except StorageClosedError:
                    refused.append(name)
                    return
                stored[name] += [f"{n}", f"{n}"]

        writers = started(*map(write, names))
        while not all(stored.values()):  # noqa: ASYNC110 - until they are well under way
            await asyncio.sleep(0.001)
        await storage.close()
        await asyncio.gather(*writers)
    assert sorted(refused) == sorted(names)
    async with opened_again(postgres_schema) as again:
        for name in names:
            assert texts(await again.get_messages(ref(name))) == stored[name]


async def test_close_waits_for_a_write_that_its_caller_could_not_send(
    postgres_schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while the caller has stepped into the loop, and the loop ends at once after that."""
    async with opened(postgres_schema) as storage:
        engine = storage._engine
        leave, callers = SharedLoop.leave, set()
        closing = threading.Thread(target=engine.close)

        def append() -> None:
            callers.add(threading.get_ident())
            bridge.run(storage.append(ref("s"), [user("sent")]))

        def refuse(self: Any, write: Any) -> None:
            if threading.get_ident() in callers:
                closing.start()
                while not engine._closed:
                    time.sleep(0.001)

        def leave_and_wait(self: SharedLoop) -> None:
            leave(self)
            if engine._closed:
                closing.join(10)

        monkeypatch.setattr(writer.Writer, "fly", refuse)
        monkeypatch.setattr(SharedLoop, "leave", leave_and_wait)
        async with asyncio.timeout(20):
            while not engine._closed:  # the other thread may be awake at the first
                await asyncio.to_thread(append)
                await asyncio.sleep(0.01)
        monkeypatch.undo()
    async with opened_again(postgres_schema) as again:
        assert texts(await again.get_messages(ref("s")))[-1] == "sent"


async def test_close_ends_though_the_server_is_gone(postgres_schema: str) -> None:
    with proxy(postgres_server.port()) as between:
        dsn = postgres_server.through(between.port)
        async with opened(postgres_schema, dsn=dsn, timeout=0.5, connect_timeout=0.3) as storage:
            await asyncio.gather(*(storage.find_session("s") for _ in range(5)))
            between.stalls = True
            calls = started(
                storage.append(ref("s"), [user()]),
                storage.find_session("s"),
                storage.update_session(ref("s"), SessionChanges()),
                *(storage.append(ref("s"), [user()]) for _ in range(5)),
            )
            await asyncio.sleep(0)
            await storage.close()
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(each, AWAY) for each in outcomes)
            with pytest.raises(StorageClosedError):
                await storage.find_session("s")


async def test_sync_callers_and_several_loops_write_at_once(postgres_schema: str) -> None:
    async with opened(postgres_schema) as storage:
        names = [f"s{n}" for n in range(8)]
        await asyncio.gather(*(storage.create_session(new_session(name)) for name in names))

        def in_a_loop_of_its_own(name: str) -> None:
            async def write() -> None:
                for n in range(30):
                    await storage.append(ref(name), [user(f"{n}")])

            asyncio.run(write())

        def without_a_loop(name: str) -> None:
            for n in range(30):
                bridge.run(storage.append(ref(name), [user(f"{n}")]))

        await asyncio.gather(
            *(asyncio.to_thread(in_a_loop_of_its_own, name) for name in names[:4]),
            *(asyncio.to_thread(without_a_loop, name) for name in names[4:]),
        )
        for name in names:
            assert texts(await storage.get_messages(ref(name))) == [f"{n}" for n in range(30)]


# What must not wait


@asynccontextmanager
async def all_locked(storage: PostgresSessionStorage, names: list[str]) -> AsyncIterator[None]:
    """Another transaction has the rows of these sessions, and a write waits for each."""
    connection = await asyncpg.connect(postgres_server.dsn())
    async with connection.transaction():
        query = storage._tables.sql("SELECT 1 FROM {sessions} WHERE session_id = $1 FOR UPDATE")
        for name in names:
            await connection.fetch(query, name)
        writes = started(*(storage.update_session(ref(name), SessionChanges()) for name in names))
        waiting = (
            "SELECT count(*) FROM pg_locks "
            "WHERE NOT granted AND transactionid = pg_current_xact_id()::xid"
        )
        while await connection.fetchval(waiting) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        yield
    await connection.close()
    await asyncio.gather(*writes)


async def test_one_locked_session_keeps_no_other_lease_from_being_renewed(
    postgres_schema: str,
) -> None:
    async with opened(postgres_schema) as storage:
        await storage.create_session(new_session("t"))
        leases = {name: lease(5) for name in ("s", "t")}
        for name, begun in leases.items():
            await storage.begin_turn(ref(name), [user()], begun)
        tokens = {begun.token: ref(name) for name, begun in leases.items()}
        before = {name: await storage.find_session(name) for name in leases}
        async with locked(storage, "s"):
            # The other's is held still, as far as anybody can know.
            assert await storage.renew_turns(tokens, 3600) == tokens.keys()
        after = {name: await storage.find_session(name) for name in leases}
        assert after["s"] == before["s"]
        assert (after["t"].turn_expires or 0) > (before["t"].turn_expires or 0)
        assert await storage.renew_turns(tokens, 3600) == tokens.keys()
        renewed = await storage.find_session("s")
        assert (renewed.turn_expires or 0) > (before["s"].turn_expires or 0)


async def test_however_many_wait_for_locks_others_go_on(postgres_schema: str) -> None:
    names = [f"s{n}" for n in range(6)]
    async with opened(postgres_schema, max_connections=4) as storage:
        for name in names:
            await storage.create_session(new_session(name))
        begun = lease(5)
        await storage.begin_turn(ref("s"), [user("asked")], begun)
        async with asyncio.timeout(20), all_locked(storage, names):
            assert (await storage.health()).ok
            assert await storage.renew_turns({begun.token: ref("s")}, 60) == {begun.token}
            await storage.end_turn(ref("s"), completed(begun), [reply("answered")])
            assert texts(await storage.get_messages(ref("s"))) == ["first", "asked", "answered"]
