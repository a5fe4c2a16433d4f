"""The process that writes, until it is killed or has written enough, and says what was acknowledged.

Each line it says is a JSON list, and is said only after the call that it is about has returned.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from chaos.ledger import parse, said
from chaos.places import Place
from langswarm_session import (
    ISessionStorage,
    MessageRole,
    MockProviderSession,
    ProviderRequest,
    SessionBackend,
    SessionError,
    SessionExistsError,
    SessionManager,
    SessionMessage,
    SessionNotFoundError,
    TurnStatus,
)
from langswarm_session.models import new_id
from langswarm_session.records import IdempotencyKey, Lease, NewSession, TurnEnd
from langswarm_session.storage import owner
from langswarm_session.testing.making import ref


@dataclass
class Options:
    """What a writer is told.

    Attributes:
        place: Where to write.
        name: Its name, which every text of it begins with.
        kinds: The kinds of turns, each written to a session of its own at the same time...
        shared: ...unless this session is named: then all go to that one.
        turns: How many turns of each kind; None: until it is killed.
        rounds: How often so many; it says "rest" after each.
        lease_seconds: How long its leases hold.
        turn_wait: How long it waits for a session.
        delay: How long the mock thinks, in seconds.
        gate: Whether it waits for a word before each round.
        user: The user id to go on as, once everything is imported.
        migrations: Statements of a further version of the schema.
        clock: Seconds by which its clock jumps now and then, in either direction.
    """

    place: dict[str, Any]
    name: str
    kinds: list[str]
    shared: str | None = None
    turns: int | None = None
    rounds: int = 1
    lease_seconds: float = 1.0
    turn_wait: float = 60.0
    delay: float = 0.0
    gate: bool = False
    user: int | None = None
    migrations: list[str] = field(default_factory=list)
    clock: float = 0.0


# Not those of `langswarm_session.testing`, which loads pytest: there are many such processes.


def user(text: str) -> SessionMessage:
    """A user's message."""
    return SessionMessage(role=MessageRole.USER, content=text)


def reply(text: str) -> SessionMessage:
    """An assistant's message."""
    return SessionMessage(role=MessageRole.ASSISTANT, content=text)


def say(*words: object) -> None:
    """Say a line, in one piece."""
    os.write(1, (json.dumps(words) + "\n").encode())


def answer(request: ProviderRequest) -> str:
    """What the mock replies. Once it is asked, the question is stored."""
    writer, number, part = parse(request.messages[-1].text)
    say("asked", request.session_id, writer, number)
    return said(writer, number, part + 1)


class Writer:
    """Writes turns of one kind to one session."""

    def __init__(self, options: Options, manager: SessionManager, storage: ISessionStorage) -> None:
        self.options = options
        self.manager = manager
        self.storage = storage
        self.numbers = {kind: itertools.count() for kind in options.kinds}

    async def run(self, kind: str) -> None:
        """Write turns, one after the other, whatever becomes of them."""
        name = f"{self.options.name}.{kind}"
        session = self.options.shared or name
        write = getattr(self, kind)
        await self.create(session, name, kind)
        for number in itertools.islice(self.numbers[kind], self.options.turns):
            # With a key, a turn is tried until it is acknowledged; without, it is tried once.
            while not await self.attempt(session, name, kind, number, write) and kind == "keyed":
                pass

    async def create(self, session: str, name: str, kind: str) -> None:
        """Create the session, unless it is there; say it where it was not."""
        while True:
            try:
                await self.storage.create_session(
                    NewSession(session, "user", "mock", "echo", SessionBackend.HYBRID)
                )
                say("created", session)
            except SessionExistsError:
                pass
            except SessionError as error:
                await self.complain(error)
                continue
            say("session", session, name, kind)
            return

    async def attempt(
        self,
        session: str,
        name: str,
        kind: str,
        number: int,
        write: Callable[[str, str, int], Awaitable[None]],
    ) -> bool:
        """Write one turn; whether it was acknowledged."""
        try:
            await write(session, name, number)
        except SessionError as error:
            await self.complain(error)
            if isinstance(error, SessionNotFoundError):
                await self.create(session, name, kind)
            return False
        say("kept", session, name, number)
        return True

    async def complain(self, error: SessionError) -> None:
        """Say what went wrong, and do not try again too soon."""
        say("error", type(error).__name__, str(error)[:500])
        await asyncio.sleep(0.02)

    async def append(self, session: str, name: str, number: int) -> None:
        """A whole turn in one call of the storage."""
        texts = [said(name, number, part) for part in range(4)]
        batch = [user(texts[0]), reply(texts[1]), user(texts[2]), reply(texts[3])]
        await self.storage.append(ref(session), batch)

    async def steps(self, session: str, name: str, number: int) -> None:
        """A turn in three calls of the storage."""
        own = Lease(new_id(), owner.this_process(), self.options.lease_seconds)
        await self.storage.begin_turn(ref(session), [user(said(name, number, 0))], own)
        say("asked", session, name, number)
        step = [reply(said(name, number, 1))]
        await self.storage.append(ref(session), step, token=own.token)
        end = TurnEnd(own.token, TurnStatus.COMPLETE)
        await self.storage.end_turn(ref(session), end, [reply(said(name, number, 2))])

    async def send(self, session: str, name: str, number: int, **options: Any) -> None:
        """A turn through the manager."""
        found = await self.manager.get_session(session)
        await found.send_message(said(name, number, 0), **options)

    async def stream(self, session: str, name: str, number: int) -> None:
        """A turn through the manager, whose reply is streamed."""
        found = await self.manager.get_session(session)
        async with aclosing(found.stream_message(said(name, number, 0))) as events:
            async for _ in events:
                pass

    async def keyed(self, session: str, name: str, number: int) -> None:
        """A turn with an idempotency key, through the storage or the manager."""
        key = f"{name} {number}"
        if number % 2:
            await self.send(session, name, number, idempotency_key=key)
        else:
            batch = [user(said(name, number, 0)), reply(said(name, number, 1))]
            await self.storage.append(ref(session), batch, key=IdempotencyKey(key, "digest"))


def jump(seconds: float) -> None:
    """Let the clock jump: at each hundredth of a second it may be right, early or late."""
    right = time.time_ns

    def time_ns() -> int:
        moment = right()
        jumps = random.Random(moment // 10_000_000).choice((-seconds, 0.0, seconds))
        return moment + int(jumps * 1_000_000_000)

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1_000_000_000


def prepare(options: Options) -> None:
    """Become what the options say."""
    if options.migrations:
        from langswarm_session.storage.postgres import schema as postgres_schema
        from langswarm_session.storage.sqlite import schema as sqlite_schema

        for module in (postgres_schema, sqlite_schema):
            module.MIGRATIONS.append(options.migrations)
    if options.clock:
        jump(options.clock)


async def change_user(number: int) -> None:
    """Go on as another user, who may not be able to read any more modules."""
    async with SessionManager("memory", {"mock": MockProviderSession()}) as manager:
        session = await manager.create_session("user", "mock", "echo")
        async for _ in session.stream_message("Whatever is loaded when it is needed."):
            pass
    os.setgroups([])
    os.setgid(number)
    os.setuid(number)


async def main(options: Options) -> None:
    """Write what the options say."""
    prepare(options)
    storage = Place(**options.place).open()
    manager = SessionManager(
        storage,
        {"mock": MockProviderSession(answer, delay=options.delay)},
        lease_seconds=options.lease_seconds,
        turn_wait=options.turn_wait,
    )
    if options.user is not None:
        await change_user(options.user)
    say("ready")
    writer = Writer(options, manager, storage)
    for number in range(options.rounds):
        if options.gate:
            await asyncio.to_thread(sys.stdin.readline)
        await asyncio.gather(*map(writer.run, options.kinds))
        say(f"rest {number}")
    await manager.close()
    await storage.close()
    say("done")


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # that a turn's end was not stored is what this is about
    asyncio.run(main(Options(**json.loads(sys.argv[1]))))
