"""What the tests of the command line share: runs of it in this process and in others."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from langswarm_session import SessionManager
from langswarm_session.cli.app import app

PROGRAM = Path(__file__).with_name("program.py")

Cli = Callable[..., Result]
Process = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LANGSWARM_SESSION_DB", "FORCE_COLOR", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("PYTHONUTF8", "1")


@pytest.fixture
def address(db_path: str) -> str:
    """Where the test's database is. A module whose tests are for every storage overrides it."""
    return db_path


@pytest.fixture
def sqlite_address(db_path: str) -> str:
    return db_path


@pytest.fixture
def postgres_address() -> Iterator[str]:
    """A schema of the test's own; the test is skipped where there is no server."""
    import postgres_server

    with postgres_server.schema() as name:
        yield f"{postgres_server.dsn()}?schema={name}"


@pytest.fixture
def cli(address: str) -> Cli:
    """Runs a command in this process, on the test's database."""

    def run(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(app, ["--db", address, *arguments], **options)

    return run


@pytest.fixture
def command(address: str) -> list[str]:
    """How a process is started that runs commands on the test's database."""
    return [sys.executable, str(PROGRAM), "--db", address]


@pytest.fixture
def process(command: list[str]) -> Process:
    """Runs a command in a process of its own."""

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=dict(os.environ),
        )

    return run


def manager_on(address: str) -> SessionManager:
    if "://" in address:
        return SessionManager(address)
    return SessionManager("sqlite", storage_config={"db_path": address})


@pytest.fixture
def fill(address: str) -> Callable[[Callable[[SessionManager], Any]], None]:
    """Writes to the test's database by the API."""

    def run(work: Callable[[SessionManager], Any]) -> None:
        async def main() -> None:
            async with manager_on(address) as manager:
                await work(manager)

        asyncio.run(main())

    return run


class Person:
    """Somebody at a terminal that runs the command line."""

    def __init__(self, command: list[str]) -> None:
        import pty

        self.screen = ""
        self._terminal, terminal = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
        )
        os.close(terminal)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def sees(self, text: str) -> str:
        """Wait for a text; returns what was on the screen up to it, once."""
        deadline = time.monotonic() + 30
        while text not in self.screen:
            wait = max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._terminal], [], [], wait)
            assert ready, f"no {text!r} in {self.screen!r}"
            self.screen += os.read(self._terminal, 4096).decode(errors="replace")
        seen, found, self.screen = self.screen.partition(text)
        return seen + found

    def interrupts(self) -> int:
        """Type Ctrl-C until it is noticed; returns the exit code.

        Python's prompt looks for it only when it begins to wait for a key: what comes just before
        is noticed at the next one.
        """
        for _ in range(30):
            self.type("\x03")
            with suppress(subprocess.TimeoutExpired):
                return self.process.wait(timeout=1)
        raise AssertionError(f"it was not noticed: {self.screen!r}")

    def leave(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._terminal)


@pytest.fixture
def terminal() -> Iterator[Callable[[list[str]], Person]]:
    """Runs commands at terminals, with somebody in front of each."""
    people: list[Person] = []

    def sit_down(command: list[str]) -> Person:
        people.append(Person(command))
        return people[-1]

    yield sit_down
    for person in people:
        person.leave()
