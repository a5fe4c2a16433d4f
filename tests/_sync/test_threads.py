"""Threads, and sync calls where threads are greenlets."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from langswarm_session._sync import threads

_PROGRAM = """
    from gevent import monkey

    monkey.patch_all()

    import asyncio
    import sys

    import gevent

    from langswarm_session import ISessionMiddleware, create_session_manager
    from langswarm_session._sync import bridge

    manager = create_session_manager(sys.argv[1], eval(sys.argv[2]))

    async def talk(name):
        session = await manager.get_or_create_session(name, "user", provider="mock", model="echo")
        for n in range(3):
            await session.send_message(f"{n}")
            await session.get_messages(20)
        return len(await session.get_messages())

    loops = []

    class Slow(ISessionMiddleware):
        async def process_outgoing_message(self, session, message):
            gevent.sleep(0.01)  # others go on, in the midst of the event loop's work
            assert asyncio.get_running_loop()
            return message

        async def process_incoming_message(self, session, message):
            return message

    manager.add_global_middleware(Slow())

    def work(name):
        found = bridge.run(talk(name))
        gevent.sleep(0)
        loops.append(asyncio._get_running_loop())
        return found

    print(work("alone"))
    greenlets = [gevent.spawn(work, f"s{n}") for n in range(10)]
    gevent.joinall(greenlets, timeout=60)
    print([greenlet.value for greenlet in greenlets])
    assert set(loops) == {None}
    bridge.run(manager.close())
    print("closed")
"""


def under_gevent(storage: str, config: dict[str, str]) -> list[str]:
    pytest.importorskip("gevent")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(_PROGRAM), storage, repr(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_sqlite_under_gevent(tmp_path: Path) -> None:
    found = under_gevent("sqlite", {"db_path": str(tmp_path / "sessions.db")})
    assert found == ["6", str([6] * 10), "closed"]


def test_postgres_under_gevent() -> None:
    postgres_server = pytest.importorskip("postgres_server")
    with postgres_server.schema() as schema:
        found = under_gevent(postgres_server.dsn(), {"schema": schema})
    assert found == ["6", str([6] * 10), "closed"]


def test_a_thread_is_a_daemon_with_a_name() -> None:
    done = threading.Event()
    thread = threads.start_thread(done.set, "langswarm-test")
    assert (thread.daemon, thread.name) == (True, "langswarm-test")
    assert done.wait(10)
    thread.join(10)
