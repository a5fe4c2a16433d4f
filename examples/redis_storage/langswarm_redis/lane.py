"""A thread with one connection, and the calls from any thread and event loop that go through it.

redis-py's asynchronous client belongs to the event loop that it was first used on, and its
synchronous one blocks. So a thread has a synchronous one to itself and belongs to no loop. It sends
all that has come meanwhile in one go, so that many callers share the way to the server and, with
``appendfsync always``, one sync of its disk. After a fork the child begins with a thread and a
connection of its own.

Whatever was sent and not answered is sent again on the next connection, marked as such: reads may
be done twice, and the scripts that write know by a nonce what they have done already.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any

import redis
from redis.exceptions import NoScriptError

from langswarm_redis.errors import is_lost, typed_error
from langswarm_redis.scripts import script
from langswarm_redis.server import Server
from langswarm_session.errors import StorageBusyError, StorageClosedError, StorageUnavailableError
from langswarm_session.storage.calls import Call, deliver

MAX_TOGETHER, MAX_WEIGHT = 128, 4_000_000
"""How many calls, of how many bytes, are sent in one go; one by itself may weigh more."""

MAX_WAITING = 20_000
"""How many calls may wait before further ones are refused."""

_DELAYS = (0.0, 0.05, 0.1, 0.2, 0.5)
"""Seconds before the next try to connect."""

Word = bytes | str | int


class ScriptCall(Call):
    """A script to run."""

    __slots__ = ("again", "deadline", "sha", "weight", "words")

    def __init__(self, name: str, keys: Sequence[bytes], words: Sequence[Word], timeout: float):
        super().__init__()
        self.sha = script(name).sha
        self.words: list[Word] = [len(keys), *keys, *words]
        self.weight = sum(len(word) for word in words if isinstance(word, bytes))
        self.again: int | None = None
        self.deadline = time.monotonic() + timeout

    def say_again(self) -> None:
        """Mark what may have been done already."""
        if self.again is not None:
            self.words[self.again] = 1


class Lane:
    """Runs scripts on one server, in the order in which they come.

    Args:
        server: The server.
        timeout: How long a call may take, in seconds.
    """

    def __init__(self, server: Server, timeout: float) -> None:
        self._server = server
        self._timeout = timeout
        self._closed = False
        self._start_afresh()
        _lanes.add(self)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._calls: SimpleQueue[ScriptCall | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def read(self, name: str, key: bytes, *words: Word) -> Any:
        """Run a script that only reads; it may be run twice."""
        call = ScriptCall(name, [key], words, self._timeout)
        self._submit(call)
        return await call.answer()

    async def write(self, name: str, keys: Sequence[bytes], nonce: str, *words: Word) -> Any:
        """Run a script that writes; its first words are whether this is said again, and a nonce."""
        call = ScriptCall(name, keys, [0, nonce, *words], self._timeout)
        call.again = 1 + len(keys)
        self._submit(call)
        return await call.outcome()

    def close(self) -> None:
        """Finish what was accepted, then let go of the thread and the connection. Blocks."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._calls.put(None)
            thread = self._thread
        # The garbage collector may close from the thread itself, which cannot wait for itself.
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _submit(self, call: ScriptCall) -> None:
        with self._lock:
            if self._closed:
                raise StorageClosedError(f"{self._server.name}: the storage was closed")
            if self._calls.qsize() >= MAX_WAITING:
                raise StorageBusyError(f"{self._server.name}: {MAX_WAITING} calls wait already")
            if self._thread is None:
                # A daemon, so that a forgotten close() cannot keep the interpreter from its exit.
                self._thread = threading.Thread(
                    target=_work,
                    args=(self._server, self._calls),
                    name=f"langswarm-redis-{self._server.name}",
                    daemon=True,
                )
                self._thread.start()
            self._calls.put(call)


def _work(server: Server, calls: SimpleQueue[ScriptCall | None]) -> None:
    """The thread: until it is closed and nothing waits any more."""
    client, opened = server.client(), False
    pending: deque[ScriptCall] = deque()
    failures, taking = 0, True
    while taking or pending:
        taking = taking and _take(calls, pending)
        try:
            if pending and not opened:
                server.open(client)
                opened = True
            opened = _send(client, server, pending)
            failures = 0
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            opened = False
            client.close()
            _drop(pending, error, server)
            time.sleep(_DELAYS[min(failures, len(_DELAYS) - 1)] if pending else 0)
            failures += 1
    client.close()


def _take(calls: SimpleQueue[ScriptCall | None], pending: deque[ScriptCall]) -> bool:
    """Take what has come; wait for something if there is nothing to do. False: it is closed."""
    try:
        call = calls.get(block=not pending)
        while call is not None:
            pending.append(call)
            call = calls.get_nowait()
    except Empty:
        return True
    return False


def _send(client: redis.Redis, server: Server, pending: deque[ScriptCall]) -> bool:
    """Run what waits, in one go, and answer. False if the server does not know our scripts."""
    batch = _together(pending)
    if not batch:
        return True
    pipeline = client.pipeline(transaction=False)
    for call in batch:
        pipeline.execute_command("EVALSHA", call.sha, *call.words)  # type: ignore[no-untyped-call]
    try:
        replies = pipeline.execute(raise_on_error=False)
    except Exception:
        for call in batch:
            call.say_again()
        raise
    unknown = []
    for call, reply in zip(batch, replies, strict=True):
        pending.popleft()
        if isinstance(reply, NoScriptError):
            unknown.append(call)
        elif isinstance(reply, Exception):
            call.error = typed_error(reply, server.name)
        else:
            call.result = reply
    pending.extendleft(reversed(unknown))
    missing = set(map(id, unknown))
    deliver(call for call in batch if id(call) not in missing)
    return not unknown


def _together(pending: deque[ScriptCall]) -> list[ScriptCall]:
    """Claim what is sent in one go, which stays at the head of what waits until it is answered."""
    batch: list[ScriptCall] = []
    weight = 0
    while pending and len(batch) < MAX_TOGETHER:
        weight += pending[0].weight
        if batch and weight > MAX_WEIGHT:
            break
        call = pending.popleft()
        if call.claim():  # else its caller was cancelled
            batch.append(call)
    pending.extendleft(reversed(batch))
    return batch


def _drop(pending: deque[ScriptCall], error: Exception, server: Server) -> None:
    """Fail the calls for which it is no use, or too late, to try again."""
    now, failed, rest = time.monotonic(), [], []
    for call in pending:
        if is_lost(error) and call.deadline > now:
            rest.append(call)
            continue
        call.error = typed_error(error, server.name)
        if call.again is not None and call.words[call.again]:
            call.error = StorageUnavailableError(
                f"{call.error}; it was sent, and no answer came: it may be stored, and with the "
                "same message ids it is stored once however often it is sent",
                may_be_stored=True,
            )
            call.error.__cause__ = error
        failed.append(call)
    pending.clear()
    pending.extend(rest)
    deliver(failed)


_lanes: weakref.WeakSet[Lane] = weakref.WeakSet()


def _after_fork() -> None:
    for lane in list(_lanes):
        lane._start_afresh()


os.register_at_fork(after_in_child=_after_fork)
