"""Processes on one storage that fork, and that end without a close: a class to subclass."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from langswarm_session import ISessionStorage, SessionManager, SessionMessage
from langswarm_session.testing.making import ref, texts

HEADER = """
import asyncio, os, sys, threading, warnings
warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)  # of fork() beside threads
from langswarm_session._sync import bridge
from langswarm_session.testing.making import new_session, ref, texts, user
{making}
def append(text):
    asyncio.run(storage.append(ref("s"), [user(text)]))
def read():
    return texts(asyncio.run(storage.get_messages(ref("s"))))
asyncio.run(storage.create_session(new_session("s")))
"""

READING = """
going = True
def keep_reading():
    while going:
        read()
reader = threading.Thread(target=keep_reading)
reader.start()
"""

READ = """
going = False
reader.join()
"""


def spawn(*arguments: str | Path) -> subprocess.Popen[str]:
    """A Python program, in a group of its own, for which a warning is an error."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The exit code, output and errors of a process that must end by itself."""
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with its children
        out, err = process.communicate()
        err += "killed: it did not end"
    return process.returncode, out, err


class ProcessTests:
    """The tests of one storage.

    Attributes:
        making: The code that makes ``storage``, given the `arguments` as ``sys.argv[1:]``.
        may_fork_while_reading: Whether a process may fork while another thread reads.
    """

    making: ClassVar[str]
    may_fork_while_reading: ClassVar[bool] = True

    def arguments(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def make_storage(self) -> ISessionStorage:
        raise NotImplementedError

    def check_closed(self) -> None:
        """What else holds when nobody uses it any more."""

    def run(self, program: str) -> list[str]:
        """What a program says, which must end well and complain of nothing."""
        script = HEADER.format(making=self.making) + textwrap.dedent(program)
        with spawn("-c", script, *self.arguments()) as process:
            code, out, err = outcome(process)
        assert (code, err) == (0, "")
        return out.splitlines()

    async def stored(self) -> list[SessionMessage]:
        storage = self.make_storage()
        try:
            return await storage.get_messages(ref("s"))
        finally:
            await storage.close()

    async def test_a_forgotten_close_neither_hangs_nor_loses(self) -> None:
        out = self.run(
            """
            async def main():
                for n in range(30):
                    await storage.append(ref("s"), [user(str(n))])
                print(len(await storage.get_messages(ref("s"))))
            asyncio.run(main())
            """
        )
        assert out == ["30"]
        self.check_closed()
        assert texts(await self.stored()) == [str(n) for n in range(30)]

    async def test_it_is_used_and_closed_as_the_program_ends(self) -> None:
        out = self.run(
            """
            import atexit
            async def end():
                await storage.append(ref("s"), [user("at the end")])
                print(len(await storage.get_messages(ref("s"))))
                await storage.close()
                print("closed")
            async def main():
                for n in range(600):  # as many as are decoded on another thread
                    await storage.append(ref("s"), [user(str(n))])
            asyncio.run(main())
            atexit.register(lambda: asyncio.run(end()))
            """
        )
        assert out == ["601", "closed"]
        assert len(await self.stored()) == 601

    @pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)"])
    async def test_an_exit_amid_calls_loses_nothing_acknowledged(self, end: str) -> None:
        out = self.run(
            f"""
            async def main():
                calls = [asyncio.ensure_future(storage.append(ref("s"), [user(str(n))]))
                         for n in range(50)]
                for n, call in enumerate(calls[:25]):
                    await call
                    print(n, flush=True)
                {end}
            try:
                asyncio.run(main())
            except SystemExit:
                pass
            """
        )
        assert out == [str(n) for n in range(25)]
        found = texts(await self.stored())
        assert found == [str(n) for n in range(len(found))]
        assert len(found) >= 25

    async def test_a_storage_that_was_dropped_closes_itself(self) -> None:
        out = self.run(
            """
            append("a")
            del storage
            import gc
            gc.collect()
            for thread in threading.enumerate():
                if thread is not threading.current_thread():
                    thread.join()
            print("closed")
            """
        )
        assert out == ["closed"]
        self.check_closed()

    async def test_a_forked_child_works(self) -> None:
        out = self.run(
            """
            append("parent")
            child = os.fork()
            if child == 0:
                append("child")
                print(read(), flush=True)
                os._exit(0)
            print("child", os.waitpid(child, 0)[1])
            append("parent again")
            print(read())
            """
        )
        assert out == ["['parent', 'child']", "child 0", "['parent', 'child', 'parent again']"]

    async def test_parent_and_forked_children_write_at_once(self) -> None:
        writing = textwrap.dedent(
            """
            children = []
            for n in range(3):
                child = os.fork()
                if child == 0:
                    for m in range(20):
                        bridge.run(storage.append(ref("s"), [user(f"child {n} {m}")]))
                    os._exit(0)
                children.append(child)
            for m in range(20):
                append(f"parent {m}")
            assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
            """
        )
        if self.may_fork_while_reading:
            writing = READING + writing + READ
        self.run('append("before")\n' + writing)
        log = await self.stored()
        assert [message.seq for message in log] == list(range(1, 82))
        for name in ("child 0", "child 1", "child 2", "parent"):
            mine = [text for text in texts(log) if text.startswith(name)]
            assert mine == [f"{name} {m}" for m in range(20)]

    async def test_a_turn_is_cancelled_by_another_process(self) -> None:
        """The one that runs it sees the request, keeps what was shown, and tells its reader."""
        program = """
            from langswarm_session import SessionManager, TurnCancelledError
            async def main():
                manager = SessionManager(storage, {"mock": {"piece_delay": 0.01}})
                session = await manager.create_session("ann", "mock", "echo", session_id="talk")
                try:
                    async for event in session.stream_message("word " * 100_000):
                        print(event.text, flush=True)
                except TurnCancelledError:
                    print("cancelled")
                await manager.close()
                await storage.close()
            asyncio.run(main())
        """
        script = HEADER.format(making=self.making) + textwrap.dedent(program)
        storage = self.make_storage()
        with spawn("-c", script, *self.arguments()) as process:
            assert process.stdout
            shown = await asyncio.to_thread(process.stdout.readline)
            try:
                session = await SessionManager(storage).get_session("talk")
                assert await session.cancel() is True
                (turn,) = await session.get_turns()
                kept = [message.text for message in await session.get_messages()][1:]
                assert (await session.send_message("next", wait=0)).text == "You said: next"
            finally:
                code, out, err = await asyncio.to_thread(outcome, process)
                await storage.close()
        assert (code, err) == (0, "")
        *pieces, last = (shown + out).splitlines()
        assert last == "cancelled"
        assert turn.status == "cancelled"
        assert kept == ["".join(pieces)]
