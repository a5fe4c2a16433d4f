"""Conformance of a storage: opening, closing, event loops, cancellation and health."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from langswarm_session.errors import SessionBusyError, StorageClosedError, TurnLostError
from langswarm_session.interfaces import ISessionStorage
from langswarm_session.records import IdempotencyKey, SessionChanges
from langswarm_session.testing.making import (
    OPERATIONS,
    cancelled,
    completed,
    everything,
    failed,
    lease,
    new_session,
    ref,
    reply,
    texts,
    user,
)
from langswarm_session.testing.storage_base import StorageTests

_STEPS = range(6)
"""After how many turns of the event loop a call is cancelled."""


class LifeTests(StorageTests):
    """Opening, closing, event loops, cancellation and health."""

    async def test_health_counts(self, storage: ISessionStorage) -> None:
        """Sessions and messages, under the storage's name."""
        empty = await storage.health()
        assert (empty.ok, empty.backend) == (True, storage.name), empty.detail
        assert (empty.sessions, empty.messages) == (0, 0)
        for each in ("a", "b"):
            await storage.create_session(new_session(each))
            await storage.append(ref(each), [user(), reply()])
        health = await storage.health()
        assert (health.ok, health.sessions, health.messages) == (True, 2, 4)
        assert health.latency_seconds >= 0
        await storage.clear_messages(ref("a"))
        await storage.delete_session(ref("b"))
        health = await storage.health()
        assert (health.sessions, health.messages) == (1, 0)

    async def test_health_tells_of_a_closed_storage(self, storage: ISessionStorage) -> None:
        """It does not raise, it says what is wrong."""
        await storage.close()
        health = await storage.health()
        assert not health.ok
        assert health.detail

    async def test_it_says_where_it_is(self, storage: ISessionStorage, tmp_path: Path) -> None:
        """A text that another process, or None if no other can reach it, knows it by."""
        address = storage.address
        assert address is None or (type(address) is str and address.isprintable())
        if self.durable:
            again = self.reopen(tmp_path)
            assert again.address == address
            await again.close()

    async def test_closing_twice_is_closing_once(self, storage: ISessionStorage) -> None:
        """Also at once, and before the first use."""
        await asyncio.gather(storage.close(), storage.close())
        await storage.close()
        with pytest.raises(StorageClosedError):
            await storage.list_sessions()

    @pytest.mark.parametrize("name", OPERATIONS)
    async def test_a_closed_storage_is_closed(self, storage: ISessionStorage, name: str) -> None:
        """Every method says so, after use as before it."""
        await storage.create_session(new_session("s"))
        await storage.close()
        with pytest.raises(StorageClosedError):
            await OPERATIONS[name](storage, ref("s"))

    async def test_close_finishes_what_was_accepted(
        self, storage: ISessionStorage, tmp_path: Path
    ) -> None:
        """A call that began before the close ends well, or says that it stored nothing."""
        await storage.create_session(new_session("s"))
        calls = [asyncio.ensure_future(storage.append(ref("s"), [user(str(n))])) for n in range(20)]
        await asyncio.sleep(0)
        await storage.close()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        stored = [str(n) for n, each in enumerate(outcomes) if not isinstance(each, Exception)]
        errors = {type(each) for each in outcomes if isinstance(each, BaseException)}
        assert errors <= {StorageClosedError}
        if self.durable:
            again = self.reopen(tmp_path)
            assert sorted(texts(await again.get_messages(ref("s")))) == sorted(stored)
            await again.close()

    async def test_all_is_there_after_reopening(
        self, storage: ISessionStorage, tmp_path: Path
    ) -> None:
        """Sessions, messages, turns, leases and keys."""
        if not self.durable:
            pytest.skip("it keeps nothing")
        key = IdempotencyKey("key", "digest")
        await storage.create_session(new_session("s", context={"a": {"b": "\0"}}))
        await storage.append(ref("s"), [user("a", metadata={"k": [1]}), reply("b")], key=key)
        for end in (completed, cancelled, failed):
            begun = lease()
            await storage.begin_turn(ref("s"), [user()], begun)
            await storage.end_turn(ref("s"), end(begun), [])
        begun = lease()
        await storage.begin_turn(ref("s"), [user("open")], begun)
        await storage.update_session(
            ref("s"), SessionChanges(provider_state={"provider_context": {}})
        )
        before = await everything(storage, "s")
        await storage.close()
        again = self.reopen(tmp_path)
        try:
            assert await everything(again, "s") == before
            with pytest.raises(SessionBusyError):
                await again.append(ref("s"), [user()])
            await again.end_turn(ref("s"), completed(begun), [reply("ended")])
            assert texts(
                (await again.append(ref("s"), [user("a"), reply("b")], key=key)).messages
            ) == [
                "a",
                "b",
            ]
        finally:
            await again.close()

    async def test_a_second_storage_sees_each_write(
        self, storage: ISessionStorage, second: ISessionStorage
    ) -> None:
        """As soon as a write has returned, whoever reads sees it."""
        await storage.create_session(new_session("s"))
        for n in range(10):
            one, other = (storage, second) if n % 2 else (second, storage)
            await one.append(ref("s"), [user(str(n))])
            assert texts(await other.get_messages(ref("s"), limit=1)) == [str(n)]
            assert (await other.find_session("s")).message_count == n + 1
        await second.delete_session(ref("s"))
        assert (await storage.list_sessions()).records == []

    async def test_any_thread_and_any_event_loop(self, storage: ISessionStorage) -> None:
        """Two loops in two threads at once, then a third, beside the one it was first used in."""
        await storage.create_session(new_session("s"))
        together = threading.Barrier(2)

        async def write(name: str, begin: Callable[[], object]) -> None:
            begin()
            for n in range(20):
                await storage.append(ref("s"), [user(f"{name} {n}")])
                assert texts(await storage.get_messages(ref("s"), limit=100))

        await asyncio.gather(
            asyncio.to_thread(lambda: asyncio.run(write("a", together.wait))),
            asyncio.to_thread(lambda: asyncio.run(write("b", together.wait))),
            write("c", lambda: None),
        )
        await asyncio.to_thread(lambda: asyncio.run(write("d", lambda: None)))
        read = await storage.get_messages(ref("s"))
        assert [message.seq for message in read] == list(range(1, 81))
        for name in "abcd":
            mine = [text for text in texts(read) if text.startswith(name)]
            assert mine == [f"{name} {n}" for n in range(20)]

    async def test_a_loop_that_ended_takes_nothing_with_it(self, storage: ISessionStorage) -> None:
        """Calls that nobody waits for any more, as their loop is gone, harm no other."""
        await storage.create_session(new_session("s"))

        def abandon() -> None:
            loop = asyncio.new_event_loop()
            task = loop.create_task(storage.append(ref("s"), [user("abandoned")]))
            loop.run_until_complete(asyncio.sleep(0))
            task.cancel()
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            loop.close()

        for n in range(10):
            await asyncio.to_thread(abandon)
            await storage.append(ref("s"), [user(str(n))])
        kept = [text for text in texts(await storage.get_messages(ref("s"))) if text != "abandoned"]
        assert kept == [str(n) for n in range(10)]

    async def test_a_cancelled_append_did_all_or_nothing(self, storage: ISessionStorage) -> None:
        """Whenever it was cancelled, the same append again stores it once, and whole."""
        await storage.create_session(new_session("s"))
        for steps in _STEPS:
            turn = [user(f"asked {steps}"), reply(f"answered {steps}")]
            await _cancelled_after(steps, storage.append(ref("s"), turn))
            kept = texts(await storage.get_messages(ref("s")))[2 * steps :]
            assert kept in ([], texts(turn))
            await storage.append(ref("s"), turn)
        expected = [f"{what} {steps}" for steps in _STEPS for what in ("asked", "answered")]
        assert texts(await storage.get_messages(ref("s"))) == expected

    async def test_a_cancelled_beginning_can_be_ended(self, storage: ISessionStorage) -> None:
        """Whether the turn was begun or not: after its end the session is free."""
        await storage.create_session(new_session("s"))
        for steps in _STEPS:
            begun = lease()
            await _cancelled_after(steps, storage.begin_turn(ref("s"), [user()], begun))
            try:
                await storage.end_turn(ref("s"), cancelled(begun), ())
            except TurnLostError:
                assert (await storage.find_session("s")).turn_token is None
            await storage.append(ref("s"), [user()])

    async def test_a_cancelled_read_disturbs_nothing(self, storage: ISessionStorage) -> None:
        """The next one reads as if nothing had been."""
        await storage.create_session(new_session("s"))
        await storage.append(ref("s"), [user(str(n)) for n in range(50)])
        for steps in _STEPS:
            await _cancelled_after(steps, storage.get_messages(ref("s")))
            await _cancelled_after(steps, storage.list_sessions())
        assert len(await storage.get_messages(ref("s"))) == 50


async def _cancelled_after(steps: int, call: object) -> None:
    """Begin a call, cancel it after so many turns of the event loop, and wait until it is over."""
    task = asyncio.ensure_future(call)  # type: ignore[call-overload]
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
