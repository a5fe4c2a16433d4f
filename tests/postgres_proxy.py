"""A proxy on loopback between a storage and its server, which breaks connections on demand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Hook = Callable[[bytes], bool]
"""Told what the client sends; True if the connection is to break there."""


class Proxy:
    """Forwards connections, until it is told otherwise.

    Args:
        target: The server's port on this machine.

    Attributes:
        before: Asked before what the client sends goes on; True breaks the connection: it is lost.
        after: Asked likewise; True lets it go on, and breaks the connection at the answer.
        halves: Whether half of what is lost goes on before the connection breaks.
        refuses: Whether new connections are hung up on.
        stalls: Whether nothing is forwarded any more, without a word.
        connections: How many there were.
        broken: How many of them broke where they were asked to.
    """

    def __init__(self, target: int) -> None:
        self.before: Hook | None = None
        self.after: Hook | None = None
        self.halves = False
        self.refuses = False
        self.stalls = False
        self.connections = 0
        self.broken = 0
        self.port = 0
        self._target = target
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._counted = threading.Condition()
        self._done: asyncio.Event
        self._never: asyncio.Event
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()))

    def start(self) -> None:
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Break all connections."""
        done = threading.Event()

        def cut() -> None:
            self._cut_all()
            done.set()

        self._loop.call_soon_threadsafe(cut)
        done.wait()

    def wait_for(self, connections: int) -> None:
        """Block until there have been so many connections."""
        with self._counted:
            assert self._counted.wait_for(lambda: self.connections >= connections, timeout=30)

    async def _run(self) -> None:
        self._done, self._never = asyncio.Event(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._done.wait()
        server.close()
        self._cut_all()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._counted:
            self.connections += 1
            self._counted.notify_all()
        if self.refuses:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        pair = (writer, back)
        self._pairs.add(pair)
        doomed = asyncio.Event()
        ways = [
            asyncio.ensure_future(self._ask(reader, back, doomed)),
            asyncio.ensure_future(self._answer(there, writer, doomed)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the proxy stops; asyncio would log it as a failure
            return
        finally:
            for way in ways:
                way.cancel()
            self._cut(pair)

    async def _ask(
        self, reader: asyncio.StreamReader, back: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while data := await self._read(reader):
            if self.before is not None and self.before(data):
                self.broken += 1
                await self._half(back, data)
                return
            if self.after is not None and self.after(data):
                self.broken += 1
                doomed.set()
            back.write(data)
            await self._drain(back)

    async def _answer(
        self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while data := await self._read(there):
            if doomed.is_set():
                await self._half(writer, data)
                return
            writer.write(data)
            await self._drain(writer)

    async def _half(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Let half of what is lost arrive, if that is wanted, before the connection ends."""
        if self.halves:
            writer.write(data[: len(data) // 2])
            await self._drain(writer)

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            data = await reader.read(2**16)
        except OSError:
            return b""
        if self.stalls:
            await self._never.wait()
        return data

    async def _drain(self, writer: asyncio.StreamWriter) -> None:
        try:
            await writer.drain()
        except OSError:
            return

    def _cut_all(self) -> None:
        for pair in list(self._pairs):
            self._cut(pair)

    def _cut(self, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self._pairs.discard(pair)
        for writer in pair:
            writer.transport.abort()


@contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    """A proxy that runs.

    Args:
        target: The port of the server behind it.
    """
    made = Proxy(target)
    made.start()
    try:
        yield made
    finally:
        made.stop()
