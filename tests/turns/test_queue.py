from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable

import pytest

from langswarm_session import SessionBusyError
from langswarm_session.testing.making import ref
from langswarm_session.turns.queue import TurnQueue


async def waiting(queue: TurnQueue, session: str = "s") -> asyncio.Task[None]:
    """A task that has taken its place in the queue."""
    task = asyncio.ensure_future(queue.acquire(ref(session), None))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_a_free_session_is_had_at_once() -> None:
    queue = TurnQueue()
    await queue.acquire(ref("s"), 0)
    await queue.acquire(ref("other"), 0)
    queue.release(ref("s"))
    await queue.acquire(ref("s"), 0)


async def test_first_come_first_served() -> None:
    queue = TurnQueue()
    served = []

    async def turn(number: int) -> None:
        await queue.acquire(ref("s"), None)
        served.append(number)
        await asyncio.sleep(0)
        assert served[-1] == number
        queue.release(ref("s"))

    await queue.acquire(ref("s"), None)
    turns = [asyncio.ensure_future(turn(number)) for number in range(20)]
    await asyncio.sleep(0)
    queue.release(ref("s"))
    await asyncio.gather(*turns)
    assert served == list(range(20))


async def test_whoever_will_not_wait_is_told() -> None:
    queue = TurnQueue()
    await queue.acquire(ref("s"), None)
    for seconds in (0, 0.001):
        with pytest.raises(SessionBusyError, match=f"{seconds:g} s") as caught:
            await queue.acquire(ref("s"), seconds)
        assert caught.value.session_id == "s"
    queue.release(ref("s"))
    await queue.acquire(ref("s"), 0)


async def test_whoever_leaves_holds_up_nobody() -> None:
    queue = TurnQueue()
    await queue.acquire(ref("s"), None)
    one, two, three = [await waiting(queue) for _ in range(3)]
    two.cancel()
    with pytest.raises(asyncio.CancelledError):
        await two
    queue.release(ref("s"))
    await one
    assert not three.done()
    queue.release(ref("s"))
    await three


async def test_whoever_leaves_as_its_turn_comes_passes_it_on() -> None:
    queue = TurnQueue()
    await queue.acquire(ref("s"), None)
    one, two = await waiting(queue), await waiting(queue)
    queue.release(ref("s"))  # the first has it now, and does not know yet
    one.cancel()
    await asyncio.wait([one])
    await two
    queue.release(ref("s"))
    await queue.acquire(ref("s"), 0)


async def test_whoever_waited_too_long_as_its_turn_comes_passes_it_on() -> None:
    queue = TurnQueue()
    await queue.acquire(ref("s"), None)
    for _ in range(50):
        impatient = asyncio.ensure_future(queue.acquire(ref("s"), 0.0005))
        await asyncio.sleep(0)
        patient = await waiting(queue)
        asyncio.get_running_loop().call_later(0.0005, queue.release, ref("s"))
        outcome = (await asyncio.gather(impatient, return_exceptions=True))[0]
        if outcome is None:
            queue.release(ref("s"))
        await patient


async def test_threads_and_loops_share_a_queue() -> None:
    queue = TurnQueue()
    inside: list[int] = []
    most = []

    async def turns(number: int) -> None:
        for _ in range(50):
            await queue.acquire(ref("s"), None)
            inside.append(number)
            most.append(len(inside))
            await asyncio.sleep(0)
            inside.remove(number)
            queue.release(ref("s"))

    await asyncio.gather(
        *(asyncio.to_thread(lambda n=n: asyncio.run(turns(n))) for n in range(4)), turns(9)
    )
    assert most == [1] * 250


async def test_a_loop_that_was_closed_is_passed_over() -> None:
    queue = TurnQueue()
    await queue.acquire(ref("s"), None)

    def abandon() -> None:
        loop = asyncio.new_event_loop()
        # Held by nobody but the loop: what is waiting when a loop ends never learns of it.
        task = loop.create_task(queue.acquire(ref("s"), None))
        loop.run_until_complete(asyncio.sleep(0))
        abandoned.append(task)
        loop.close()

    abandoned: list[asyncio.Task[None]] = []
    await asyncio.to_thread(abandon)
    patient = await waiting(queue)
    queue.release(ref("s"))
    await patient
    abandoned.pop()._log_destroy_pending = False  # type: ignore[attr-defined]


class Sleeping:
    """An event loop on which somebody waits for a session, and which does not run just now."""

    def __init__(self, queue: TurnQueue) -> None:
        self.loop = asyncio.new_event_loop()
        self.waits = self.loop.create_task(queue.acquire(ref("s"), None))
        self.run(asyncio.sleep(0))

    def run(self, what: Awaitable[None]) -> None:
        self.loop.run_until_complete(what)


def test_a_loop_that_does_not_run_is_passed_over() -> None:
    queue = TurnQueue()
    asyncio.run(queue.acquire(ref("s"), None))
    one, two = Sleeping(queue), Sleeping(queue)
    for _ in range(3):
        queue.release(ref("s"))
        asyncio.run(queue.acquire(ref("s"), 0))

    async def released_beside() -> None:
        waits = await waiting(queue)
        queue.release(ref("s"))
        await waits

    asyncio.run(released_beside())
    for each in (one, two):  # nobody lost their place
        queue.release(ref("s"))
        each.run(each.waits)
        each.loop.close()
    queue.release(ref("s"))
    assert queue._lines == {}


def test_a_loop_that_runs_again_takes_no_session_that_is_taken() -> None:
    queue = TurnQueue()
    asyncio.run(queue.acquire(ref("s"), None))
    sleeping = Sleeping(queue)
    for _ in range(2):  # having looked in vain, it looks again
        queue.release(ref("s"))
        asyncio.run(queue.acquire(ref("s"), 0))
        sleeping.run(asyncio.sleep(0))
        assert not sleeping.waits.done()
    queue.release(ref("s"))
    sleeping.run(sleeping.waits)
    sleeping.loop.close()


def test_a_loop_that_is_closed_while_it_does_not_run_is_forgotten() -> None:
    queue = TurnQueue()
    asyncio.run(queue.acquire(ref("s"), None))
    sleeping = Sleeping(queue)
    queue.release(ref("s"))
    sleeping.loop.close()
    asyncio.run(queue.acquire(ref("s"), 0))
    queue.release(ref("s"))
    assert queue._lines == {}
    sleeping.waits._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_turn_may_be_released_from_any_thread() -> None:
    # Released from a thread without a loop.
    queue = TurnQueue()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(queue.acquire(ref("s"), None))
    task = loop.create_task(queue.acquire(ref("s"), None))
    loop.run_until_complete(asyncio.sleep(0))
    releasing = threading.Thread(target=queue.release, args=(ref("s"),))
    releasing.start()
    releasing.join()
    loop.run_until_complete(task)
    loop.close()


def test_a_forked_child_has_a_queue_of_its_own() -> None:
    # Whose turn the parent's is, the lease in the storage tells; nobody here would ever release it.
    program = """
        import asyncio, os
        from langswarm_session import SessionBusyError
        from langswarm_session.turns.queue import TurnQueue
        queue = TurnQueue()
        asyncio.run(queue.acquire("s", None))
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(queue.acquire("s", 0.1))
                print("free", flush=True)
                queue.release("s")
            except SessionBusyError:
                print("busy", flush=True)
            os._exit(0)
        print(os.waitpid(child, 0)[1])
        queue.release("s")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert (done.stdout.splitlines(), done.stderr) == (["free", "0"], "")


async def test_nothing_is_kept_of_sessions_that_are_free() -> None:
    queue = TurnQueue()
    for number in range(100):
        await queue.acquire(ref(str(number)), None)
        task = await waiting(queue, str(number))
        queue.release(ref(str(number)))
        await task
        queue.release(ref(str(number)))
    assert queue._lines == {}
