"""A PostgreSQL server of our own, on a port of its own, which may be killed.

Needs the server's programs (Debian: ``postgresql``); where they are not found the tests that need
it are skipped, but fail if ``CI`` is set. PostgreSQL refuses to run as root, so root lends it
another user.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

HOW = (
    "no PostgreSQL server's programs are found: install them (Debian: apt-get install postgresql), "
    "or name their folder with LANGSWARM_POSTGRES_BIN=/usr/lib/postgresql/15/bin "
    "(and pip install 'langswarm-session[postgres]')"
)
_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/usr/local/opt/postgresql*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
)
_SETTINGS = (
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "shared_buffers=32MB",
    "max_connections=200",
    "log_min_messages=fatal",
    "restart_after_crash=on",
)
PATIENCE = 60.0
"""How long the server may take to come up, in seconds."""


@cache
def programs() -> Path | None:
    """The folder of the server's programs."""
    named = os.environ.get("LANGSWARM_POSTGRES_BIN")
    on_path = shutil.which("initdb")
    root = Path("/")
    folders = [Path(named)] if named else []
    folders += [Path(on_path).resolve().parent] if on_path else []
    folders += [each for pattern in _FOLDERS for each in sorted(root.glob(pattern[1:]))[::-1]]
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


def need() -> Path:
    """The folder of the server's programs; skips the test if there is none."""
    folder = programs() if find_spec("asyncpg") else None
    if folder is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(HOW)
    return folder


class Server:
    """A server with a data folder of its own. `start` it first, and `remove` it in the end.

    Attributes:
        port: Its port on 127.0.0.1.
        folder: Its folder; `data` is in it.
    """

    def __init__(self) -> None:
        self.programs = need()
        self.port = _free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="langswarm-chaos-"))
        self.data = self.folder / "data"
        self._user = _unprivileged()
        self._process: subprocess.Popen[bytes] | None = None
        self.lend(self.folder)
        try:
            options = ("-A", "trust", "-U", "chaos", "-E", "UTF8", "--data-checksums", "--no-sync")
            self._run("initdb", "-D", self.data, *options)
        except BaseException:
            self.remove()
            raise

    @property
    def is_running(self) -> bool:
        """Whether it was started and neither killed nor stopped."""
        return self._process is not None

    @property
    def dsn(self) -> str:
        """Its address."""
        return self.through(self.port)

    def through(self, port: int, database: str = "postgres") -> str:
        """Its address by way of another port of this machine."""
        return f"postgresql://chaos@127.0.0.1:{port}/{database}"

    def lend(self, folder: Path) -> None:
        """Give a folder to the user that the server runs as."""
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)

    def start(self, **environment: str) -> None:
        """Start it, and wait until it answers.

        Args:
            environment: Variables for it, beside its own.
        """
        assert self._process is None
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.data, "-p", str(self.port), *settings],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, **environment},
                **self._as_user(),
            )
        self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.query("SELECT 1")
                return
            except Exception as error:
                assert self._process is not None
                ended = self._process.poll() is not None
                if ended or time.monotonic() > deadline:
                    log = (self.folder / "log").read_text(errors="replace")
                    raise RuntimeError(f"the server does not come up: {log[-2000:]}") from error
            time.sleep(0.02)

    def children(self) -> list[int]:
        """Its processes but for the first one."""
        assert self._process is not None
        task = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(pid) for pid in task.read_text().split()]

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        assert self._process is not None
        children = self.children()
        self._process.kill()
        for child in children:
            kill_process(child)
        self._process.wait()
        self._process = None
        # A new one refuses to start while one of the old ones is still there.
        while any(Path(f"/proc/{child}").exists() for child in children):
            time.sleep(0.002)

    def stop(self, mode: str = "immediate") -> None:
        """Stop it as an administrator does."""
        if self._process is None:
            return
        if self._process.poll() is None:  # else it got the Ctrl-C as well
            self._run("pg_ctl", "stop", "-D", self.data, "-m", mode, "-w", "-s")
        self._process.wait()
        self._process = None

    def remove(self) -> None:
        """Stop it and remove all it had."""
        self.stop()
        shutil.rmtree(self.folder)

    def query(self, text: str, *values: Any, database: str = "postgres") -> list[Any]:
        """Run a statement."""
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append(asyncio.run(self._ask(text, values, database)))
            except Exception as error:
                outcome.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return list(outcome[0])

    async def _ask(self, text: str, values: tuple[Any, ...], database: str) -> list[Any]:
        import asyncpg

        connection = await asyncpg.connect(self.through(self.port, database), timeout=5)
        try:
            return await connection.fetch(text, *values)
        finally:
            await connection.close()

    def _run(self, program: str, *arguments: object) -> None:
        subprocess.run(
            [self.programs / program, *map(str, arguments)],
            check=True,
            capture_output=True,
            cwd=self.folder,
            timeout=PATIENCE,
            **self._as_user(),
        )

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom root lends the server to; None for anybody else."""
    if os.geteuid() != 0:
        return None
    known = {each.pw_name: each for each in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def kill_process(pid: int) -> None:
    """SIGKILL to a process, unless it is gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it ended by itself when it saw that the first one was gone
        pass
