"""Calls to the thread that does the work, and what their callers hear when they are cancelled."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from langswarm_session.errors import StorageBusyError
from langswarm_session.storage.calls import Call, deliver, uninterrupted


def test_a_call_is_either_claimed_or_withdrawn() -> None:
    async def call() -> Call:
        return Call()

    claimed, withdrawn = asyncio.run(call()), asyncio.run(call())
    assert claimed.claim()
    assert claimed.claim()  # whoever has it, has it
    assert not claimed.withdraw()
    assert claimed.is_wanted
    assert withdrawn.withdraw()
    assert withdrawn.withdraw()
    assert not withdrawn.claim()
    assert not withdrawn.is_wanted


async def test_of_two_threads_one_gets_it() -> None:
    calls = [Call() for _ in range(2_000)]
    claimed: list[bool] = []
    thread = threading.Thread(target=lambda: claimed.extend(call.claim() for call in calls))
    thread.start()
    withdrawn = [call.withdraw() for call in reversed(calls)]
    thread.join()
    assert [a is not b for a, b in zip(claimed, reversed(withdrawn), strict=True)] == [True] * 2_000


async def begun(call: Call, **options: Any) -> asyncio.Task[Any]:
    """A task that waits for the call."""
    task = asyncio.ensure_future(call.outcome(**options))
    await asyncio.sleep(0)
    return task


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_call_that_waits_in_a_queue_is_withdrawn_immediately() -> None:
    call = Call()
    task = await begun(call)
    task.cancel()
    await asyncio.sleep(0)
    assert task.cancelled()
    assert not call.claim()


@pytest.mark.parametrize("error", [None, ValueError("it failed")])
async def test_a_cancelled_caller_waits_for_what_was_begun(error: Exception | None) -> None:
    call, told = Call(), []
    task = await begun(call, give_up=lambda: told.append(1))
    assert call.claim()
    for _ in range(3):  # as an anyio scope does
        task.cancel()
        await turns()
        assert not task.done()
    assert told == [1]
    call.result, call.error = "done", error
    await asyncio.to_thread(deliver, [call])
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelling() == 3


async def test_an_outcome_that_comes_with_the_cancellation_is_not_waited_for_again() -> None:
    call = Call()
    task = await begun(call)
    assert call.claim()
    call.result = "done"
    task.cancel()
    call.resolve()  # before the task goes on
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_caller_hears_that_the_outcome_is_unknown() -> None:
    call = Call()
    task = await begun(call)
    assert call.claim()
    task.cancel()
    await turns()
    call.settle(StorageBusyError("no answer", may_be_stored=True))
    with pytest.raises(StorageBusyError, match="no answer"):
        await task
    call.resolve()  # too late for anybody


async def test_a_timeout_of_the_callers_is_one() -> None:
    call = Call()
    assert call.claim()
    asyncio.get_running_loop().call_later(0.02, call.resolve)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await call.outcome()


async def test_an_anyio_scope_waits_for_what_was_begun() -> None:
    anyio = pytest.importorskip("anyio")
    call = Call()
    assert call.claim()
    loop = asyncio.get_running_loop()
    loop.call_later(0.05, call.resolve)
    with anyio.move_on_after(0.001) as scope:
        await call.outcome()
    assert scope.cancelled_caught
    assert call.future.done()
    waiting = Call()
    with anyio.move_on_after(0.001) as scope:
        await waiting.outcome()
    assert scope.cancelled_caught
    assert not waiting.claim()


async def test_a_cancelled_read_is_not_waited_for() -> None:
    call = Call()
    task = asyncio.ensure_future(call.answer())
    await asyncio.sleep(0)
    assert call.claim()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_call_whose_loop_was_closed_under_it_is_withdrawn() -> None:
    loop = asyncio.new_event_loop()

    async def make() -> Call:
        return Call()

    call = loop.run_until_complete(make())
    waiting = call.outcome()
    waiting.send(None)
    loop.close()
    waiting.close()
    assert not call.claim()


async def test_work_goes_on_to_its_end_however_often_its_caller_is_cancelled() -> None:
    go, told = asyncio.Event(), []

    async def work() -> str:
        await go.wait()
        return "done"

    task = asyncio.ensure_future(uninterrupted(work(), lambda: told.append(1)))
    await turns()
    for _ in range(3):
        task.cancel()
        await turns()
    assert (len(told), task.done()) == (3, False)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await uninterrupted(work()) == "done"


async def test_what_the_work_raises_is_raised() -> None:
    async def work() -> None:
        raise ValueError("it failed")

    with pytest.raises(ValueError, match="it failed"):
        await uninterrupted(work())
