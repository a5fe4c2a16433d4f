"""Commands that run together or not at all, if a session is still at the version they are for."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from langswarm_redis.lane import Lane, Word
from langswarm_redis.scripts import NONCE
from langswarm_session.storage.decisions import FactsChangedError

KINDS = "smitkuyw"
"""The kinds of keys of a session: its hash, messages, ids, turns' notes, idempotency keys, turns
without an answer, system messages, and messages with several tools' results."""

TOGETHER = 1000
"""How many arguments a command gets at most; Lua cannot pass many more than that."""


class MadeError(FactsChangedError):
    """The write was made already, when it was sent the first time."""


@dataclass(slots=True)
class Keyspace:
    """Where a session's keys are, and how to get there, for one call.

    Attributes:
        prefix: What the names of all keys begin with.
        session_id: The session.
        user: Whose session it must be.
        number: Which creation of it; nothing for whichever there is.
        nonce: Tells this write from all others.
    """

    reads: Lane
    writes: Lane
    prefix: bytes
    session_id: bytes
    user: bytes = b""
    number: bytes = b""
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(NONCE * 3 // 4))

    def key(self, kind: str) -> bytes:
        """The name of one of the session's keys."""
        return b"%b%b:%b" % (self.prefix, kind.encode(), self.session_id)


class Commands:
    """Commands for the script that runs them together, or not at all."""

    def __init__(self) -> None:
        self.words: list[Word] = []

    def add(self, name: str, key: bytes, *words: Word) -> None:
        """Add a command."""
        self.words += [2 + len(words), name, key, *words]

    def add_many(self, name: str, key: bytes, words: Sequence[Word]) -> None:
        """Add as many commands as the arguments take; none if there are none."""
        for start in range(0, len(words), TOGETHER):
            self.add(name, key, *words[start : start + TOGETHER])


def creation_number(creation: int) -> bytes:
    """Return a creation as the number that scripts know it by."""
    return b"%d" % creation


async def new_number(place: Keyspace) -> tuple[bytes, int]:
    """The number of a session to come, above all that were given before, and the server's time."""
    commands = Commands()
    commands.add("INCR", place.prefix + b"sessions")
    commands.words += [1, "TIME"]
    number, (seconds, micros) = await run(place, commands, b"*")
    return creation_number(number), int(seconds) * 1_000_000 + int(micros)


def first_fields(place: Keyspace, number: bytes) -> dict[str, Any]:
    """What a new session has beside the record's fields."""
    return {"number": number, "version": 0, "edits": 0, "recent": place.nonce}


async def ask(place: Keyspace, commands: Commands, version: bytes) -> list[Any]:
    """Run commands that only read.

    Raises:
        FactsChangedError: If the session is at another version.
    """
    key = place.key("s")
    reply = await place.reads.read("guarded", key, 0, place.nonce, version, *commands.words)
    if reply is None:
        raise FactsChangedError
    return list(reply)


async def run(place: Keyspace, commands: Commands, version: bytes) -> list[Any]:
    """Run commands that write.

    Raises:
        FactsChangedError: If the session is at another version; nothing was changed.
        MadeError: If they were run before.
    """
    keys = [place.key("s")]
    reply = await place.writes.write("guarded", keys, place.nonce, version, *commands.words)
    if reply is None:
        raise FactsChangedError
    if reply == b"made":
        raise MadeError
    return list(reply)
