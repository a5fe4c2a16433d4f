"""The Redis servers of the tests: one that is there, of which only a prefix is used, and own ones.

The one at ``LANGSWARM_TEST_REDIS`` (a URL with a database number), else database 15 of the one on
this machine's port 6379. Without a server these tests are skipped, but fail if ``CI`` is set; so is a
module that imports this one first where the client is not installed. Own servers need the program
``redis-server``.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import pytest

HOW = (
    "no Redis answers: start one at 127.0.0.1:6379, or name another with "
    "LANGSWARM_TEST_REDIS=redis://user:password@host:port/15 (and pip install redis)"
)
HOW_OWN = "redis-server is not installed: install it to test what a killed server keeps"

if find_spec("redis") is None and not os.environ.get("CI"):
    pytest.skip(HOW, allow_module_level=True)


def url() -> str:
    """The server's address."""
    return os.environ.get("LANGSWARM_TEST_REDIS") or "redis://127.0.0.1:6379/15"


def client(address: str | None = None) -> Any:
    """A client of redis-py's own."""
    import redis

    return redis.Redis.from_url(address or url(), socket_timeout=10)


@cache
def answers() -> bool:
    """Whether there is a server."""
    import redis

    try:
        with client() as asked:
            asked.ping()
    except (redis.RedisError, OSError):
        return False
    return True


def need() -> None:
    """Skip the test if there is no server."""
    if not answers():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(HOW)


@contextmanager
def prefix() -> Iterator[str]:
    """What the names of keys may begin with; no such key is there afterwards."""
    need()
    name = f"langswarm_test_{uuid.uuid4().hex}:"
    yield name
    with client() as cleaner:
        for key in cleaner.scan_iter(f"{name}*", count=1000):
            cleaner.unlink(key)


class OwnServer:
    """A server of the test's own, which may be killed.

    Args:
        folder: Where its files are.
        options: Its settings, beside those that make it durable.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        if shutil.which("redis-server") is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(HOW_OWN)
        self._folder = folder
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.options = {"appendonly": "yes", "appendfsync": "always", "save": '""', **options}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        import redis

        address = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(self._folder)}
        settings = self._folder / "redis.conf"
        settings.write_text(
            "".join(f"{name} {value}\n" for name, value in (address | self.options).items())
        )
        self._process = subprocess.Popen(["redis-server", str(settings)], stdout=subprocess.DEVNULL)
        for _ in range(200):
            try:
                with client(self.url) as asked:
                    asked.ping()
                return
            except redis.AuthenticationError:
                return
            except (redis.RedisError, OSError):
                time.sleep(0.05)
        self.kill()
        raise AssertionError("the server does not answer")

    def kill(self) -> None:
        """Kill it: whatever it has not given to the disk is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()


def _free_port() -> int:
    """A port that is free, and none of those that outgoing connections get.

    Else the server that is killed could find it taken by whoever tries to reach it. The same goes
    for the port that a member of a cluster has as well, 10,000 further on.
    """
    while True:
        port = random.SystemRandom().randint(20_000, 22_700)  # workers share one seed
        if not (_is_taken(port) or _is_taken(port + 10_000)):
            return port


def _is_taken(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
