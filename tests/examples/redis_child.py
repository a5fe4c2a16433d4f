"""What the tests let another process do to sessions in Redis; it says what was acknowledged."""

import asyncio
import itertools
import sys

from langswarm_redis import RedisSessionStorage

from langswarm_session import SessionExistsError, TurnStatus
from langswarm_session.records import TurnEnd
from langswarm_session.testing.making import lease, new_session, ref, reply, user


def say(*words: object) -> None:
    print(*words, flush=True)


async def share(storage: RedisSessionStorage, name: str, turns: str) -> None:
    """Append turns to a session of its own and to one that all processes share."""
    say("ready")
    sys.stdin.readline()
    for session in (name, "shared"):
        try:
            await storage.create_session(new_session(session))
        except SessionExistsError:
            pass
    for n in range(int(turns)):
        for session in (name, "shared"):
            await storage.append(ref(session), [user(f"{name} {n}"), reply(f"{name} {n}")])
    await storage.close()
    say("done")


async def endless(storage: RedisSessionStorage, name: str) -> None:
    """Write turns to two sessions at once until killed."""
    await asyncio.gather(
        write_whole(storage, f"{name}-whole"), write_in_steps(storage, f"{name}-steps")
    )


async def write_whole(storage: RedisSessionStorage, session: str) -> None:
    await storage.create_session(new_session(session))
    say("session", session)
    for n in itertools.count():
        text = f"{n} " + "x" * (n % 7) * 1000
        await storage.append(ref(session), [user(text), reply(text), user(text), reply(text)])
        say("turn", session, n)


async def write_in_steps(storage: RedisSessionStorage, session: str) -> None:
    await storage.create_session(new_session(session))
    say("session", session)
    for n in itertools.count():
        begun = lease()
        await storage.begin_turn(ref(session), [user(f"{n}")], begun)
        say("asked", session, n)
        replies = [reply(f"{n}"), user(f"{n}"), reply(f"{n}")]
        await storage.end_turn(ref(session), TurnEnd(begun.token, TurnStatus.COMPLETE), replies)
        say("turn", session, n)


async def main(url: str, prefix: str, what: str, *words: str) -> None:
    storage = RedisSessionStorage(url, prefix=prefix, durability="accept")
    await {"share": share, "endless": endless}[what](storage, *words)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
