"""Which writes to PostgreSQL are waited for on their callers' own threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import postgres_server
import pytest

from langswarm_session._sync import bridge
from langswarm_session._sync.shared_loop import SharedLoop
from langswarm_session.storage.inline import LatencyGate
from langswarm_session.storage.postgres.storage import PostgresSessionStorage
from langswarm_session.testing.making import new_session, ref, texts, user


@pytest.fixture
async def storage(
    postgres_schema: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PostgresSessionStorage]:
    """One with sessions `s0` to `s9`, to which nobody has written but one caller at a time."""
    monkeypatch.setattr(LatencyGate, "is_open", True)  # however busy the machine is
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema)
    for n in range(10):
        await storage.create_session(new_session(f"s{n}"))
    for n in range(80):
        await storage.append(ref("s0"), [user(f"{n}")])
    yield storage
    await storage.close()


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the answer came meanwhile, each time that one was waited for on the spot."""
    outcomes: list[bool] = []
    attend = SharedLoop.attend

    def note(self: SharedLoop, fd: int, is_done: Callable[[], bool], seconds: float) -> None:
        attend(self, fd, is_done, 30 if seconds else 0)
        outcomes.append(is_done())

    monkeypatch.setattr(SharedLoop, "attend", note)
    return outcomes


def append(storage: PostgresSessionStorage, session: str, count: int) -> None:
    """Append as a sync caller does."""
    for n in range(count):
        bridge.run(storage.append(ref(session), [user(f"{n}")]))


async def sync(call: Coroutine[Any, Any, Any]) -> Any:
    """What a call returns to a sync caller."""
    return await asyncio.to_thread(bridge.run, call)


async def test_an_event_loop_is_never_kept_waiting(
    storage: PostgresSessionStorage, attended: list[bool]
) -> None:
    for n in range(100):
        await storage.append(ref("s1"), [user(f"{n}")])
    assert attended == []
    assert len(await storage.get_messages(ref("s1"))) == 100


async def test_a_lone_caller_waits_on_the_spot(
    storage: PostgresSessionStorage, attended: list[bool]
) -> None:
    # The thread may happen to be awake now and then, and one in eight lets others in.
    while len(attended) < 20:
        await asyncio.to_thread(append, storage, "s1", 10)
    assert all(attended)
    written = (await storage.find_session("s1")).message_count
    assert texts(await storage.get_messages(ref("s1")))[-10:] == [f"{n}" for n in range(10)]
    assert written % 10 == 0


async def test_several_callers_wait_for_each_other(
    storage: PostgresSessionStorage, attended: list[bool]
) -> None:
    with ThreadPoolExecutor(9) as threads:
        for n in range(1, 10):
            threads.submit(append, storage, f"s{n}", 30)
    assert len(attended) < 30  # of 270: until they were seen
    for n in range(1, 10):
        assert texts(await storage.get_messages(ref(f"s{n}"))) == [f"{n}" for n in range(30)]


async def test_nobody_waits_on_the_spot_for_what_takes_long(
    storage: PostgresSessionStorage,
) -> None:
    """The event loop goes on while another has the session's row locked."""
    other = await asyncpg.connect(postgres_server.dsn())
    async with other.transaction():
        query = "SELECT 1 FROM {sessions} WHERE session_id = 's1' FOR UPDATE"
        await other.fetch(storage._tables.sql(query))
        for _ in range(3):  # one of them is waited for at least
            await sync(storage.append(ref("s2"), [user()]))
        waiting = asyncio.ensure_future(sync(storage.append(ref("s1"), [user("kept")])))
        await asyncio.sleep(0.05)
        assert not waiting.done()
    await waiting
    await other.close()
    assert texts(await storage.get_messages(ref("s1"))) == ["kept"]


async def test_a_server_that_goes_meanwhile_is_noticed(
    storage: PostgresSessionStorage, attended: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write is done again on another connection, and stored once."""
    ended = 0

    async def end_connections() -> int:
        other = await asyncpg.connect(postgres_server.dsn())
        found = await other.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE $1 "
            "AND pid <> pg_backend_pid()",
            f"%{storage._tables.schema}%",
        )
        await other.close()
        return len(found)

    attend = SharedLoop.attend

    def end_first(self: SharedLoop, fd: int, is_done: Callable[[], bool], seconds: float) -> None:
        nonlocal ended

        def end() -> None:
            nonlocal ended
            ended += asyncio.run(end_connections())

        thread = threading.Thread(target=end)
        thread.start()
        thread.join()
        attend(self, fd, is_done, seconds)

    monkeypatch.setattr(SharedLoop, "attend", end_first)
    written = 0
    while ended == 0:
        await sync(storage.append(ref("s1"), [user(f"{written}")]))
        written += 1
    assert texts(await storage.get_messages(ref("s1"))) == [f"{n}" for n in range(written)]


async def test_an_interrupt_leaves_the_write_to_the_thread(
    storage: PostgresSessionStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupt(BaseException):
        pass

    def interrupt(*_: Any) -> None:
        raise Interrupt

    monkeypatch.setattr(SharedLoop, "attend", interrupt)
    written = 0
    with pytest.raises(Interrupt):
        while True:
            written += 1
            await sync(storage.append(ref("s1"), [user(f"{written}")]))
    monkeypatch.undo()
    await storage.append(ref("s1"), [user("after")])
    assert texts(await storage.get_messages(ref("s1"))) == [
        *map(str, range(1, written + 1)),
        "after",
    ]


async def test_a_write_that_is_refused_on_the_spot_is_refused_as_any(
    storage: PostgresSessionStorage, attended: list[bool]
) -> None:
    first = user("first")
    await storage.append(ref("s1"), [first])
    while not attended:
        again = await sync(storage.append(ref("s1"), [first]))  # its id is stored: not again
        assert again.added == 0
        await sync(storage.append(ref("s2"), [user()]))
    assert texts(await storage.get_messages(ref("s1"))) == ["first"]


def test_a_sync_caller_waits_on_the_spot_as_well(
    postgres_schema: str, monkeypatch: pytest.MonkeyPatch, attended: list[bool]
) -> None:
    monkeypatch.setattr(LatencyGate, "is_open", True)
    storage = PostgresSessionStorage(postgres_server.dsn(), schema=postgres_schema)
    bridge.run(storage.create_session(new_session("s")))
    written = 0
    while not any(attended):
        bridge.run(storage.append(ref("s"), [user(f"{written}")]))
        written += 1
    assert texts(bridge.run(storage.get_messages(ref("s")))) == [f"{n}" for n in range(written)]
    bridge.run(storage.close())
