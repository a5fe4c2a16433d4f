"""The loop that other threads may step into while it sleeps."""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from langswarm_session._sync.shared_loop import SharedLoop


@pytest.fixture
def loop() -> Iterator[SharedLoop]:
    """One that runs in a thread of its own."""
    loop = SharedLoop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    done = threading.Event()
    loop.call_soon_threadsafe(done.set)
    assert done.wait(10)
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def step_in(loop: SharedLoop) -> None:
    while not loop.enter():  # it goes to sleep in a moment
        time.sleep(0.001)


@pytest.mark.parametrize("schedule", ["call_soon", "call_later", "create_task", "a future's end"])
def test_what_is_scheduled_inside_wakes_it(loop: SharedLoop, schedule: str) -> None:
    ran: list[int] = []
    done = threading.Event()

    def run(*_: object) -> None:
        ran.append(threading.get_ident())
        done.set()

    async def work() -> None:
        run()

    def end_a_future() -> None:
        future = loop.create_future()
        future.add_done_callback(run)
        future.set_result(None)

    ways: dict[str, Callable[[], object]] = {
        "call_soon": lambda: loop.call_soon(run),
        "call_later": lambda: loop.call_later(0.001, run),
        "create_task": lambda: loop.create_task(work()),
        "a future's end": end_a_future,
    }
    step_in(loop)
    ways[schedule]()
    loop.leave()
    assert done.wait(10)
    assert ran != [threading.get_ident()]


def visit(loop: SharedLoop, begin: Callable[[], object], is_done: Callable[[], bool]) -> None:
    while not loop.visit(begin, is_done):  # it goes to sleep in a moment
        time.sleep(0.001)


def test_a_visitor_does_what_follows_at_once(loop: SharedLoop) -> None:
    ran: list[int] = []

    async def work() -> None:
        assert asyncio.get_running_loop() is loop
        assert loop.is_visited
        for _ in range(3):
            ran.append(threading.get_ident())
            await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    visit(loop, lambda: tasks.append(loop.create_task(work())), lambda: tasks[0].done())
    assert ran == [threading.get_ident()] * 3
    assert not loop.is_visited


def test_what_a_visitor_leaves_is_done_by_the_loop(loop: SharedLoop) -> None:
    ran: list[int] = []
    done = threading.Event()

    def last() -> None:
        ran.append(threading.get_ident())
        done.set()

    visit(
        loop, lambda: (loop.call_soon(ran.append, 0).cancel(), loop.call_soon(last)), lambda: True
    )
    assert done.wait(10)
    assert len(ran) == 1
    assert ran[0] not in (0, threading.get_ident())


def test_a_visitor_goes_when_the_loop_is_needed(loop: SharedLoop) -> None:
    stopped = threading.Event()
    turns: list[int] = []

    async def spin() -> None:
        while not stopped.is_set():
            turns.append(threading.get_ident())
            await asyncio.sleep(0)

    def begin() -> None:
        loop.create_task(spin())
        threading.Timer(0.01, loop.call_soon_threadsafe, [stopped.set]).start()

    visit(loop, begin, lambda: False)
    assert stopped.wait(10)


def test_nobody_visits_where_something_raised(loop: SharedLoop) -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        visit(loop, fail, lambda: False)
    visit(loop, lambda: None, lambda: True)


def test_nothing_runs_while_somebody_is_inside(loop: SharedLoop) -> None:
    ran = threading.Event()
    step_in(loop)
    loop.call_soon(ran.set)
    assert not loop.enter()
    assert not ran.wait(0.05)
    loop.leave()
    assert ran.wait(10)


def test_nobody_gets_in_while_something_runs(loop: SharedLoop) -> None:
    begun, go = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait()

    loop.call_soon_threadsafe(work)
    assert begun.wait(10)
    assert not loop.enter()
    go.set()
    step_in(loop)
    loop.leave()


def test_nobody_gets_in_where_asyncio_forbids_it(loop: SharedLoop) -> None:
    loop.set_debug(True)
    assert not loop.enter()


def test_tasks_and_timers_run_as_in_any_loop(loop: SharedLoop) -> None:
    async def work() -> int:
        await asyncio.sleep(0.001)
        return await asyncio.get_running_loop().run_in_executor(None, lambda: 7)

    assert asyncio.run_coroutine_threadsafe(work(), loop).result(10) == 7


class Mailbox:
    """A socket that a loop reads, who read what was sent to it, and on which loop."""

    def __init__(self, loop: SharedLoop) -> None:
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self.fd = self._here.fileno()
        self.found: list[tuple[int, object]] = []
        self.came = threading.Event()
        reading = threading.Event()
        loop.call_soon_threadsafe(lambda: (loop.add_reader(self.fd, self.read), reading.set()))
        assert reading.wait(10)
        self._loop = loop

    def read(self) -> None:
        self._here.recv(1)
        self.found.append((threading.get_ident(), asyncio.get_running_loop()))
        self.came.set()

    def send(self) -> None:
        self._there.send(b"x")

    def close(self) -> None:
        closed = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (self._loop.remove_reader(self.fd), closed.set()))
        assert closed.wait(10)
        self._here.close()
        self._there.close()


@pytest.fixture
def mailbox(loop: SharedLoop) -> Iterator[Mailbox]:
    mailbox = Mailbox(loop)
    yield mailbox
    mailbox.close()


def attend(loop: SharedLoop, mailbox: Mailbox, seconds: float = 10) -> None:
    step_in(loop)
    try:
        loop.attend(mailbox.fd, mailbox.came.is_set, seconds)
    finally:
        loop.leave()


async def test_who_attends_sees_to_what_comes(loop: SharedLoop, mailbox: Mailbox) -> None:
    own = asyncio.get_running_loop()
    threading.Timer(0.01, mailbox.send).start()
    attend(loop, mailbox)
    assert mailbox.found == [(threading.get_ident(), loop)]
    assert asyncio.get_running_loop() is own


def test_the_loop_reads_again_after_it_was_attended(loop: SharedLoop, mailbox: Mailbox) -> None:
    threading.Timer(0.01, mailbox.send).start()
    attend(loop, mailbox)
    mailbox.came.clear()
    mailbox.send()
    assert mailbox.came.wait(10)
    assert mailbox.found[1] != mailbox.found[0]


def test_who_attends_waits_no_longer_than_is_allowed(loop: SharedLoop, mailbox: Mailbox) -> None:
    attend(loop, mailbox, seconds=0.002)
    assert not mailbox.found
    mailbox.send()
    assert mailbox.came.wait(10)
    assert mailbox.found[0][0] != threading.get_ident()


def test_who_attends_leaves_what_follows_to_the_loop(loop: SharedLoop, mailbox: Mailbox) -> None:
    ran: list[int] = []
    done = threading.Event()
    read = mailbox.read

    def read_and_more() -> None:
        read()
        loop.call_soon(lambda: (ran.append(threading.get_ident()), done.set()))

    step_in(loop)
    loop.add_reader(mailbox.fd, read_and_more)
    loop.leave()
    threading.Timer(0.01, mailbox.send).start()
    attend(loop, mailbox)
    assert done.wait(10)
    assert ran != [threading.get_ident()]


def test_what_closes_meanwhile_is_attended_no_more(loop: SharedLoop, mailbox: Mailbox) -> None:
    def close() -> None:
        loop.remove_reader(mailbox.fd)
        mailbox.came.set()

    step_in(loop)
    loop.add_reader(mailbox.fd, close)
    loop.leave()
    threading.Timer(0.01, mailbox.send).start()
    attend(loop, mailbox)
    visit(loop, lambda: None, lambda: True)


def test_nobody_attends_what_the_loop_does_not_read(loop: SharedLoop) -> None:
    here, there = socket.socketpair()
    with here, there:
        step_in(loop)
        loop.attend(here.fileno(), lambda: False, 3600)
        loop.leave()


def test_nobody_attends_where_the_loop_would_wake(
    loop: SharedLoop, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does where there is no epoll."""
    selector: selectors.BaseSelector = loop._wakes
    monkeypatch.setattr(selector, "_epoll", None)
    attend(loop, mailbox, seconds=3600)
    monkeypatch.undo()
    assert not mailbox.found
