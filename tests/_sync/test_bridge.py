from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import CancelledError
from contextvars import ContextVar
from typing import TypeVar

import pytest

from langswarm_session import BackgroundLoopError
from langswarm_session._sync import bridge

T = TypeVar("T")

variable: ContextVar[str] = ContextVar("variable", default="unset")
other: ContextVar[str] = ContextVar("other")


def in_thread(call: Callable[[], T]) -> T:
    """What a call returns or raises in a thread of its own; it must end by itself."""
    outcome: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    if thread.is_alive():
        bridge._background.forget()  # the next tests get one that is not stuck
        pytest.fail("it never ended")
    if errors:
        raise errors[0]
    return outcome[0]


def program(code: str) -> list[str]:
    """Run a program; its lines of output."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


async def value(of: T) -> T:
    await asyncio.sleep(0)
    return of


async def failing(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def which_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def thread_name() -> str:
    return threading.current_thread().name


def wait_until_asleep() -> None:
    """Until the background loop sleeps, so that the next call is run in the caller's thread."""
    while bridge.run(thread_name()) == "langswarm-blocking":
        pass


# Where it works


def test_from_sync_code() -> None:
    assert bridge.run(value(7)) == 7


async def test_inside_a_running_loop() -> None:
    loop = asyncio.get_running_loop()
    ran = []
    loop.call_soon(ran.append, "later")
    assert bridge.run(value(7)) == 7
    # The loop waited like the rest of its thread: nothing was nested in it.
    assert ran == []
    assert asyncio.get_running_loop() is loop


def test_from_ten_threads_at_once() -> None:
    together = asyncio.Barrier(10)

    async def meet(number: int) -> int:
        await together.wait()
        return number

    results: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(bridge.run(meet(n))), daemon=True)
        for n in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == list(range(10))


def test_all_callers_share_one_loop() -> None:
    loops = {in_thread(lambda: bridge.run(which_loop())) for _ in range(3)}
    assert loops == {bridge.run(which_loop())}
    assert bridge.start(which_loop()).result(30) in loops


def test_what_need_not_wait_runs_in_the_callers_thread() -> None:
    wait_until_asleep()
    assert bridge.run(thread_name()) == threading.current_thread().name
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_what_has_to_wait_goes_on_in_the_background() -> None:
    async def look() -> list[str]:
        names = [threading.current_thread().name]
        await asyncio.sleep(0)
        names.append(threading.current_thread().name)
        await asyncio.sleep(0.001)
        return [*names, threading.current_thread().name]

    wait_until_asleep()
    here = threading.current_thread().name
    assert bridge.run(look()) == [here, here, "langswarm-blocking"]


async def test_inside_a_running_loop_the_background_thread_does_it() -> None:
    assert bridge.run(thread_name()) == "langswarm-blocking"


def test_it_is_a_task_in_the_callers_thread_too() -> None:
    async def timed() -> bool:
        async with asyncio.timeout(30):
            await asyncio.sleep(0)
        return asyncio.current_task() is not None

    wait_until_asleep()
    assert bridge.run(timed())


def test_a_caller_that_never_rests_keeps_nobody_out() -> None:
    ended = threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            bridge.run(value(7))

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        for _ in range(100):
            assert bridge.start(thread_name()).result(30) == "langswarm-blocking"
    finally:
        ended.set()
        thread.join(30)


def test_a_generator_that_nobody_reads_to_its_end_is_closed() -> None:
    closed = threading.Event()

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.set()

    async def first() -> int:
        return await anext(numbers())

    wait_until_asleep()
    assert bridge.run(first()) == 1
    gc.collect()
    assert closed.wait(30)


def test_from_sync_code_on_the_background_loop() -> None:
    # A hook of a sync caller runs there, and may use the sync API itself.
    async def hook() -> tuple[int, str]:
        return bridge.run(value(7)), bridge.run(thread_name())

    for call in (in_thread, lambda work: work()):
        result, name = call(lambda: bridge.run(hook()))
        assert result == 7
        assert name == "langswarm-blocking-nested"


def test_from_sync_code_at_any_depth() -> None:
    async def nested(depth: int) -> int:
        return depth and 1 + bridge.run(nested(depth - 1))

    assert in_thread(lambda: bridge.run(nested(5))) == 5


def test_from_a_thread_that_the_background_loop_waits_for() -> None:
    async def inner() -> int:
        return await asyncio.to_thread(lambda: bridge.run(value(7)))

    async def hook() -> int:
        return bridge.run(inner())

    assert in_thread(lambda: bridge.run(hook())) == 7
    assert in_thread(lambda: bridge.run(inner())) == 7


def test_in_a_forked_child() -> None:
    assert program(
        """
        import os
        from langswarm_session import BackgroundLoopError
        from langswarm_session._sync import bridge
        async def value(of):
            return of
        print(bridge.run(value("parent")), flush=True)
        child = os.fork()
        if child == 0:
            print(bridge.run(value("child")), flush=True)
            os._exit(0)
        print(os.waitpid(child, 0)[1])
        print(bridge.run(value("parent again")))
        """
    ) == ["parent", "child", "0", "parent again"]


def test_in_a_child_forked_on_the_background_loop() -> None:
    assert program(
        """
        import os
        from langswarm_session import BackgroundLoopError
        from langswarm_session._sync import bridge
        async def value(of):
            return of
        async def fork():
            child = os.fork()
            if child == 0:
                try:
                    print(bridge.run(value("child")), flush=True)
                finally:
                    os._exit(0)
            return os.waitpid(child, 0)[1]
        print(bridge.run(fork()))
        """
    ) == ["child", "0"]


def test_nothing_runs_until_it_is_needed_and_nothing_outlives_the_program() -> None:
    assert program(
        """
        import asyncio, threading
        from langswarm_session import BackgroundLoopError
        from langswarm_session._sync import bridge
        print(threading.active_count())
        started = threading.Event()
        async def for_ever():
            started.set()
            await asyncio.sleep(3600)
        running = bridge.start(for_ever())
        started.wait()
        print(threading.active_count())
        """
    ) == ["1", "2"]


# Outcomes


@pytest.mark.parametrize("kind", [ValueError, asyncio.TimeoutError, StopAsyncIteration])
def test_what_the_coroutine_raises_is_raised(kind: type[Exception]) -> None:
    error = kind("as it was")
    with pytest.raises(kind) as caught:
        bridge.run(failing(error))
    assert caught.value is error


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("depth", [0, 1])
def test_what_would_end_the_loop_ends_the_caller(kind: type[BaseException], depth: int) -> None:
    error = kind("as it was")

    async def nested() -> None:
        if depth:
            bridge.run(failing(error))
        await failing(error)

    with pytest.raises(kind) as caught:
        in_thread(lambda: bridge.run(nested()))
    assert caught.value is error
    assert in_thread(lambda: bridge.run(value(7))) == 7


def test_a_coroutine_that_cancels_itself_is_cancelled() -> None:
    async def cancel() -> None:
        task = asyncio.current_task()
        assert task
        task.cancel()
        await asyncio.sleep(0)

    # asyncio's and concurrent.futures' are two classes, and this is a thread's.
    with pytest.raises(CancelledError):
        bridge.run(cancel())


def test_an_interrupt_cancels_the_coroutine() -> None:
    assert program(
        """
        import asyncio, os, signal, threading
        from langswarm_session import BackgroundLoopError
        from langswarm_session._sync import bridge
        ended = threading.Event()
        async def interrupted():
            try:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                print("cancelled", flush=True)
                ended.set()
                raise
        try:
            bridge.run(interrupted())
        except KeyboardInterrupt:
            print("interrupted" if ended.wait(30) else "never cancelled", flush=True)
        async def value():
            return "usable"
        print(bridge.run(value()))
        """
    ) == ["cancelled", "interrupted", "usable"]


def test_an_interrupt_waits_for_what_is_done_in_the_callers_thread() -> None:
    assert program(
        """
        import os, signal
        from langswarm_session import BackgroundLoopError
        from langswarm_session._sync import bridge
        async def write(times):
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
            print("whole", flush=True)
        async def where():
            import threading
            return threading.current_thread().name
        for times in (1, 2):
            while bridge.run(where()) != "MainThread":
                pass
            try:
                bridge.run(write(times))
            except KeyboardInterrupt:
                print("interrupted", flush=True)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        """
    ) == ["whole", "interrupted", "interrupted"]


# Context variables


def test_the_coroutine_sees_the_callers_variables() -> None:
    async def look() -> str:
        return variable.get()

    variable.set("by the caller")
    assert bridge.run(look()) == "by the caller"


@pytest.mark.parametrize("nested", [False, True])
def test_the_caller_sees_what_the_coroutine_set(nested: bool) -> None:
    async def change() -> None:
        await asyncio.sleep(0)
        variable.set("inside")
        other.set("new")

    async def hook() -> tuple[str, str]:
        bridge.run(change())
        return variable.get(), other.get()

    def call() -> tuple[str, str]:
        variable.set("before")
        if nested:
            assert bridge.run(hook()) == ("inside", "new")
        else:
            bridge.run(change())
        return variable.get(), other.get()

    assert in_thread(call) == ("inside", "new")


def test_the_caller_sees_what_was_set_before_an_error() -> None:
    async def change() -> None:
        variable.set("inside")
        raise ValueError

    def call() -> str:
        with pytest.raises(ValueError):  # noqa: PT011
            bridge.run(change())
        return variable.get()

    assert in_thread(call) == "inside"


def test_callers_do_not_see_each_others_variables() -> None:
    together = asyncio.Barrier(2)

    async def change(to: str) -> None:
        variable.set(to)
        await together.wait()

    def call(to: str) -> str:
        bridge.run(change(to))
        return variable.get()

    seen: list[str] = []
    threads = [
        threading.Thread(target=lambda to=to: seen.append(call(to)), daemon=True)
        for to in ("one", "two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(seen) == ["one", "two"]
    assert in_thread(variable.get) == "unset"


# Without waiting


def test_start_gives_a_future() -> None:
    assert bridge.start(value(7)).result(30) == 7
    error = ValueError("as it was")
    assert bridge.start(failing(error)).exception(30) is error


def test_cancelling_the_future_cancels_the_coroutine() -> None:
    begun, ended = threading.Event(), threading.Event()

    async def wait() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
            raise

    future = bridge.start(wait())
    assert begun.wait(30)
    assert future.cancel()
    assert ended.wait(30)


def test_a_future_cancelled_at_once_never_runs() -> None:
    ran = []

    async def run() -> None:
        ran.append("ran")

    block, busy = threading.Event(), threading.Event()

    async def hold_the_loop() -> None:
        busy.set()
        block.wait(30)

    holding = bridge.start(hold_the_loop())
    assert busy.wait(30)
    future = bridge.start(run())
    assert future.cancel()
    block.set()
    holding.result(30)
    bridge.run(value(None))
    assert ran == []


# The interpreter's end


def test_at_the_interpreters_end_it_is_refused_and_before_that_done() -> None:
    lines = program("""
        import asyncio, atexit
        from langswarm_session import SessionError
        from langswarm_session._sync import bridge

        async def wait():
            await asyncio.sleep(0.001)
            return "done"

        class Late:
            def __del__(self, bridge=bridge, wait=wait, error=SessionError, print=print):
                for call in (bridge.run, bridge.start):
                    try:
                        call(wait())
                    except error as refused:
                        print("at the end:", type(refused).__name__)

        bridge.run(wait())
        atexit.register(lambda: print("at exit:", bridge.run(wait())))
        late = Late()
    """)
    assert lines == ["at exit: done", *["at the end: ManagerClosedError"] * 2]


# The background thread ends


def in_thread_that_waits(go: threading.Event) -> tuple[threading.Thread, list[BaseException]]:
    """A thread whose call waits on the background loop, and what that raises."""
    raised: list[BaseException] = []

    async def wait() -> None:
        go.set()
        await asyncio.Event().wait()

    def call() -> None:
        try:
            bridge.run(wait())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    assert go.wait(10)
    return thread, raised


async def nothing() -> str:
    return "done"


def test_when_the_thread_ends_those_that_wait_are_told_and_the_next_call_gets_another() -> None:
    assert bridge.run(nothing()) == "done"
    ended = bridge._background.thread
    assert ended is not None
    waiting, raised = in_thread_that_waits(threading.Event())
    loop = bridge._background.loop()
    loop.call_soon_threadsafe(loop.stop)
    waiting.join(10)
    assert [type(error) for error in raised] == [BackgroundLoopError]
    assert bridge.run(nothing()) == "done"
    assert bridge._background.thread is not ended
    ended.join(10)
    assert not ended.is_alive()
    assert loop.is_closed()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_the_loop_itself_fails_those_that_wait_are_told() -> None:
    waiting, raised = in_thread_that_waits(threading.Event())
    loop = bridge._background.loop()
    thread = bridge._background.thread
    assert thread is not None

    def break_down() -> None:
        def fail(_: float | None = None) -> None:
            del loop._wakes.select  # type: ignore[method-assign]
            raise OSError("the selector is gone")

        loop._wakes.select = fail  # type: ignore[method-assign]

    loop.call_soon_threadsafe(break_down)
    waiting.join(10)
    assert [type(error) for error in raised] == [BackgroundLoopError]
    thread.join(10)
    assert bridge.run(nothing()) == "done"


def test_a_call_that_came_as_the_thread_ended_is_told() -> None:
    running = bridge._Running(nothing(), contextvars.copy_context())
    thread = bridge._background.thread
    assert thread is not None
    running.loop.call_soon_threadsafe(running.loop.stop)
    thread.join(10)
    with pytest.raises(BackgroundLoopError):
        running.result()


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_would_end_a_program_does_not_end_the_thread(kind: type[BaseException]) -> None:
    async def leave() -> None:
        raise kind

    async def spawn() -> None:
        task = asyncio.get_running_loop().create_task(leave())
        await asyncio.wait([task])
        task.exception()

    thread = bridge._background.thread
    bridge.start(spawn()).result(10)
    assert bridge.run(nothing()) == "done"
    assert thread is None or bridge._background.thread is thread


def test_sync_calls_work_where_sleeping_and_locks_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: float) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise RuntimeError("blocking call")

    monkeypatch.setattr(time, "sleep", refuse)

    async def busy() -> None:
        # So long that the loop gives way.
        deadline = time.perf_counter() + 0.01
        while time.perf_counter() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0)

    for _ in range(3):
        bridge.start(busy()).result(10)
