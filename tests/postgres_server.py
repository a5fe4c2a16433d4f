"""The PostgreSQL server of the tests, and schemas in it that are dropped after use.

The one at ``LANGSWARM_TEST_POSTGRES`` (a dsn), else one on this machine's port 5432 that lets this
user in without a password. Without a server these tests are skipped, but fail if ``CI`` is set; so
is a module that imports this one first where the driver is not installed.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import threading
import uuid
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import pytest

HOW = (
    "no PostgreSQL answers: start one at 127.0.0.1:5432 with a database 'test' for this user, or "
    "name another with LANGSWARM_TEST_POSTGRES=postgresql://user:password@host:port/database "
    "(and pip install 'langswarm-session[postgres]')"
)


if find_spec("asyncpg") is None and not os.environ.get("CI"):
    pytest.skip(HOW, allow_module_level=True)


def dsn() -> str:
    """The server's address."""
    default = f"postgresql://{getpass.getuser()}@127.0.0.1:5432/test"
    return os.environ.get("LANGSWARM_TEST_POSTGRES") or default


def port() -> int:
    """The server's port."""
    return urlsplit(dsn()).port or 5432


def through(port: int) -> str:
    """The server's address by way of another port of this machine."""
    parts = urlsplit(dsn())
    return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a thread of its own, from sync code, and return its outcome."""
    outcome: list[Any] = []
    thread = threading.Thread(target=lambda: outcome.append(asyncio.run(work)))
    thread.start()
    thread.join()
    if not outcome:
        raise RuntimeError("it failed; the thread's error is above")
    return outcome[0]


def query(text: str, *values: Any) -> list[Any]:
    """Run a statement."""

    async def ask() -> list[Any]:
        import asyncpg

        connection = await asyncpg.connect(dsn(), timeout=10)
        try:
            return await connection.fetch(text, *values)
        finally:
            await connection.close()

    return run(ask())


@cache
def answers() -> bool:
    """Whether there is a server."""

    async def ask() -> bool:
        try:
            import asyncpg

            await (await asyncpg.connect(dsn(), timeout=5)).close()
        except Exception:
            return False
        return True

    return run(ask())


def need() -> None:
    """Skip the test if there is no server."""
    if not answers():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(HOW)


def need_right(name: str) -> None:
    """Skip the test if the user has not this right, named as in ``pg_roles``."""
    need()
    if not query(f"SELECT 1 FROM pg_roles WHERE rolname = user AND (rolsuper OR {name})"):
        pytest.skip(f"the server's user has not the right {name}")


@contextmanager
def schema() -> Iterator[str]:
    """The name of a schema that is not there yet, and is not there afterwards."""
    need()
    name = f"langswarm_test_{uuid.uuid4().hex}"
    yield name
    query(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')


@contextmanager
def role(*rights: str) -> Iterator[str]:
    """The address as a user of its own who may log in, and what else is granted to them.

    Args:
        rights: What to grant, as ``SELECT ON ...``; the user is gone afterwards, with all of it.
    """
    need_right("rolcreaterole")
    name = f"langswarm_test_{uuid.uuid4().hex}"
    query(f"CREATE ROLE {name} LOGIN PASSWORD 'test'")
    try:
        for right in rights:
            query(f"GRANT {right} TO {name}")
        parts = urlsplit(dsn())
        place = parts.netloc.rpartition("@")[2]
        yield parts._replace(netloc=f"{name}:test@{place}").geturl()
    finally:
        query(f"DROP OWNED BY {name}")
        query(f"DROP ROLE {name}")
