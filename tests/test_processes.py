"""Several processes on one file, processes that die, and processes that never clean up.

The children are the functions at the top: this file runs one of them when it is run as a script.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path

import pytest

import langswarm_session
from langswarm_session import ISessionMiddleware, MockProviderSession, SessionError, SessionManager
from langswarm_session._sync import bridge

pytestmark = pytest.mark.timeout(90)

LEASE = 2.0
"""Of the processes that are to keep theirs, in seconds: a busy machine stands still for a part of one."""


# The children


def say(text):
    print(text, flush=True)


def wait_for_parent():
    return asyncio.to_thread(sys.stdin.readline)


def manager_of(db_path, provider=None, **options):
    providers = {} if provider is None else {"mock": provider}
    return SessionManager("sqlite", providers, storage_config={"db_path": db_path}, **options)


class Silent(MockProviderSession):
    """Never answers."""

    async def send_message(self, request):
        say("working")
        await asyncio.Event().wait()


class Asking(MockProviderSession):
    """Answers when the parent says so."""

    async def send_message(self, request):
        say("working")
        await wait_for_parent()
        return await super().send_message(request)


class Blocking(ISessionMiddleware):
    """Keeps the loop from doing anything for a while."""

    async def process_incoming_message(self, session, message):
        say("blocking")
        time.sleep(2 * LEASE)  # noqa: ASYNC251 - which is the point
        return message


async def never_finish(db_path, session_id):
    session = await manager_of(db_path, Silent(), lease_seconds=3600).get_session(session_id)
    await session.send_message("lost")


async def never_finish_a_stream(db_path, session_id):
    session = await manager_of(db_path, lease_seconds=3600).get_session(session_id)
    async for _ in session.stream_message("lost"):
        say("working")
        await asyncio.Event().wait()


async def block_the_loop(db_path, session_id):
    async with manager_of(db_path, lease_seconds=LEASE) as manager:
        session = await manager.get_session(session_id)
        session.add_middleware(Blocking())
        say((await session.send_message("slow")).text)


async def take_long(db_path, session_id):
    async with manager_of(db_path, Asking(), lease_seconds=LEASE) as manager:
        session = await manager.get_session(session_id)
        try:
            say((await session.send_message("slow")).text)
        except SessionError as error:
            say(type(error).__name__)


kept = []
"""What a child never lets go of."""


async def forget_to_close(db_path, session_id):
    kept.append(manager_of(db_path, lease_seconds=3600))
    session = await kept[0].get_session(session_id)
    say((await session.send_message("x")).text)


async def forget_an_open_turn(db_path, session_id):
    await forget_to_close(db_path, session_id)
    session = await kept[0].get_session(session_id)
    kept.append(await session.begin_turn("open"))


async def forget_a_stream(db_path, session_id):
    await forget_to_close(db_path, session_id)
    session = await kept[0].get_session(session_id)
    stream = session.stream_message("open")
    await anext(stream)
    kept.append(stream)


async def exit_inside_a_stream(db_path, session_id):
    await forget_to_close(db_path, session_id)
    session = await kept[0].get_session(session_id)
    async with aclosing(session.stream_message("open")) as stream:
        async for _ in stream:
            sys.exit(3)


async def exit_inside_an_unclosed_stream(db_path, session_id):
    await forget_to_close(db_path, session_id)
    logging.disable()  # asyncio says that it had no time to close it
    session = await kept[0].get_session(session_id)
    async for _ in session.stream_message("open"):
        sys.exit(3)


async def exit_inside_a_turn(db_path, session_id):
    await forget_to_close(db_path, session_id)
    session = await kept[0].get_session(session_id)
    async with await session.begin_turn("open"):
        sys.exit(3)


async def exit_at_once(db_path, session_id):
    await forget_to_close(db_path, session_id)
    os._exit(0)


def forget_in_sync_code(db_path, session_id):
    bridge.run(forget_to_close(db_path, session_id))


def forget_in_sync_code_with_an_open_turn(db_path, session_id):
    bridge.run(forget_an_open_turn(db_path, session_id))


async def drop_a_turn_where_the_collector_finds_it(db_path, session_id):
    """The collector may run at any allocation; here it does at the one inside the queue."""
    import gc
    from collections import deque

    from langswarm_session.turns import queue

    def collect_and_make():
        gc.collect()
        return deque()

    async def forget(session):
        cycle = [await session.begin_turn("open")]
        cycle.append(cycle)

    gc.disable()
    async with manager_of(db_path) as manager:
        session = await manager.get_session(session_id)
        await asyncio.create_task(forget(session))
        await asyncio.sleep(0)
        other = await manager.create_session("ann", "mock", "echo")
        queue.deque = collect_and_make
        say((await other.send_message("x")).text)


# The tests


class Child:
    """A process that runs one of the functions above."""

    def __init__(self, function, *args):
        root = Path(langswarm_session.__file__).parents[1]
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", __file__, function.__name__, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        )

    async def line(self):
        """The next line it says."""
        line = await asyncio.to_thread(self.process.stdout.readline)
        assert line, f"it said nothing more: {await self.end()}"
        return line.rstrip("\n")

    def go(self):
        """Let it go on."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def signal(self, number):
        self.process.send_signal(number)

    async def end(self):
        """Its exit code, what else it said, and what it complained about."""
        async with asyncio.timeout(20):
            said = await asyncio.to_thread(self.process.stdout.read)
            complaints = await asyncio.to_thread(self.process.stderr.read)
            code = await asyncio.to_thread(self.process.wait)
        return code, said.splitlines(), complaints

    def clean_up(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
async def start(db_path):
    """Starts a child with the file and other arguments."""
    children = []

    def start(function, *args):
        children.append(Child(function, db_path, *args))
        return children[-1]

    yield start
    for child in children:
        child.clean_up()


@pytest.fixture
async def here(db_path, mock):
    """The manager of this process."""
    async with manager_of(db_path, mock) as manager:
        yield manager


@pytest.fixture
async def shared(here):
    """A session that others may have."""
    return await here.create_session("ann", "mock", "echo", session_id="shared")


class TestKilled:
    @pytest.mark.parametrize("function", [never_finish, never_finish_a_stream])
    @pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "zombie"])
    async def test_in_a_turn_the_next_process_takes_over_at_once(
        self, shared, start, mock, texts, turns, function, reaped
    ):
        child = start(function, "shared")
        assert await child.line() == "working"
        child.signal(signal.SIGKILL)
        if reaped:
            await asyncio.to_thread(child.process.wait)
        await shared.send_message("next", wait=20)  # its lease holds for an hour
        assert await texts(shared) == ["lost", "next", "You said: next"]
        assert [message.text for message in mock.requests[-1].messages] == ["next"]
        assert await turns(shared) == ["failed", "complete"]
        assert "process" in (await shared.get_turns())[0].error
        assert shared.metrics.errors == 1

    async def test_in_a_turn_it_can_be_read_and_cleared(self, shared, start, texts):
        child = start(never_finish, "shared")
        assert await child.line() == "working"
        assert await texts(shared) == ["lost"]
        child.signal(signal.SIGKILL)
        await shared.clear_messages()
        assert await texts(shared) == []


class TestLeases:
    async def test_of_a_process_that_blocks_its_loop_are_renewed(self, shared, start, texts, turns):
        child = start(block_the_loop, "shared")
        assert await child.line() == "blocking"
        await shared.send_message("quick", wait=30)
        assert await child.end() == (0, ["You said: slow"], "")
        assert await texts(shared) == ["slow", "You said: slow", "quick", "You said: quick"]
        assert await turns(shared) == ["complete", "complete"]

    async def test_of_a_process_that_stands_still_run_out(self, shared, start, texts, turns):
        child = start(take_long, "shared")
        assert await child.line() == "working"
        child.signal(signal.SIGSTOP)
        await shared.send_message("quick", wait=30)
        child.signal(signal.SIGCONT)
        child.go()
        assert await child.end() == (0, ["TurnLostError"], "")
        assert await texts(shared) == ["slow", "quick", "You said: quick"]
        assert await turns(shared) == ["failed", "complete"]

    async def test_of_a_process_that_takes_long_hold(self, shared, start, texts):
        child = start(take_long, "shared")
        assert await child.line() == "working"
        waiting = asyncio.create_task(shared.send_message("quick", wait=30))
        done, _ = await asyncio.wait([waiting], timeout=2 * LEASE)
        assert not done
        child.go()
        await waiting
        assert await child.end() == (0, ["You said: slow"], "")
        assert await texts(shared) == ["slow", "You said: slow", "quick", "You said: quick"]


class TestExit:
    @pytest.mark.parametrize(
        ("function", "code"),
        [
            (forget_to_close, 0),
            (forget_an_open_turn, 0),
            (forget_a_stream, 0),
            (exit_inside_a_stream, 3),
            (exit_inside_an_unclosed_stream, 3),
            (exit_inside_a_turn, 3),
            (exit_at_once, 0),
            (forget_in_sync_code, 0),
            (forget_in_sync_code_with_an_open_turn, 0),
        ],
    )
    async def test_a_program_that_never_cleans_up_ends_and_loses_nothing(
        self, shared, start, texts, turns, function, code
    ):
        ended, said, complaints = await start(function, "shared").end()
        assert (ended, said, complaints) == (code, ["You said: x"], "")
        await shared.send_message("next", wait=20)
        log = await texts(shared)
        assert log[:2] == ["x", "You said: x"]
        assert log[-2:] == ["next", "You said: next"]
        assert log[2:-2] in ([], ["open"], ["open", "You "])
        statuses = await turns(shared)
        assert statuses[0] == statuses[-1] == "complete"
        assert set(statuses[1:-1]) <= {"failed", "cancelled"}

    async def test_a_turn_that_the_collector_finds_inside_the_queue_blocks_nothing(
        self, shared, start
    ):
        child = start(drop_a_turn_where_the_collector_finds_it, "shared")
        code, said, _ = await child.end()
        assert (code, said) == (0, ["You said: x"])


def main():
    logging.disable(logging.WARNING)  # a turn that is dropped is logged, which is not the point
    outcome = globals()[sys.argv[1]](*sys.argv[2:])
    if asyncio.iscoroutine(outcome):
        asyncio.run(outcome)


if __name__ == "__main__":
    main()
