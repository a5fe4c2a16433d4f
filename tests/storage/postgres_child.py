"""What the tests let other processes do to a PostgreSQL schema; each says what was acknowledged."""

import asyncio
import itertools
import sys

from langswarm_session import SessionExistsError, TurnStatus
from langswarm_session.records import TurnEnd
from langswarm_session.storage.postgres import PostgresSessionStorage
from langswarm_session.testing.making import lease, new_session, reply, user


def say(*words: object) -> None:
    print(*words, flush=True)


async def share(dsn: str, schema: str, name: str, turns: str) -> None:
    """Append turns to a session of its own and to one that all processes share."""
    storage = PostgresSessionStorage(dsn, schema=schema)
    say("ready")
    sys.stdin.readline()
    for session in (name, "shared"):
        try:
            await storage.create_session(new_session(session))
        except SessionExistsError:
            pass
    for n in range(int(turns)):
        for session in (name, "shared"):
            text = f"{name} {n}"
            await storage.append(session, [user(text), reply(text)])
    await storage.close()
    say("done")


async def endless(dsn: str, schema: str, name: str) -> None:
    """Write turns to several sessions at once until killed."""
    storage = PostgresSessionStorage(dsn, schema=schema)
    await asyncio.gather(
        write_whole(storage, f"{name}-whole"),
        write_whole(storage, f"{name}-also"),
        write_in_steps(storage, f"{name}-steps"),
    )


async def write_whole(storage: PostgresSessionStorage, session: str) -> None:
    await storage.create_session(new_session(session))
    say("session", session)
    for n in itertools.count():
        text = f"{n} " + "x" * (n % 7) * 1000
        await storage.append(session, [user(text), reply(text), user(text), reply(text)])
        say("turn", session, n)


async def write_in_steps(storage: PostgresSessionStorage, session: str) -> None:
    await storage.create_session(new_session(session))
    say("session", session)
    for n in itertools.count():
        begun = lease()
        await storage.begin_turn(session, [user(f"{n}")], begun)
        say("asked", session, n)
        replies = [reply(f"{n}"), user(f"{n}"), reply(f"{n}")]
        await storage.end_turn(session, TurnEnd(begun.token, TurnStatus.COMPLETE), replies)
        say("turn", session, n)


if __name__ == "__main__":
    asyncio.run({"share": share, "endless": endless}[sys.argv[1]](*sys.argv[2:]))
